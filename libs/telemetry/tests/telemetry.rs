//! Spans on their way through processes to a receiver of the test's own, and what happens when
//! there is none.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span as ProtoSpan;
use plinth_telemetry::{
    ClientCall, FlushError, InitError, Options, ServerCall, Telemetry, build, client_span,
    current_trace_id, current_traceparent, init, inject, inject_from, record_epoch, record_error,
    record_status, recovery_span, server_span, set_parent, set_parent_from_traceparent, step_span,
    trace_id, traceparent,
};
use prost::Message;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::dispatcher::DefaultGuard;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const BOUND: Duration = Duration::from_millis(300);
/// What a loaded machine may add to a bound.
const GRACE: Duration = Duration::from_secs(1);

/// A span with the resource it came from.
#[derive(Clone, Debug)]
struct Received {
    resource: BTreeMap<String, String>,
    attributes: BTreeMap<String, String>,
    span: ProtoSpan,
}

/// An OTLP receiver over HTTP that keeps everything.
struct Receiver {
    url: String,
    spans: watch::Receiver<Vec<Received>>,
    _server: JoinSet<()>,
}

fn text(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes
        .iter()
        .map(|attribute| {
            let value = match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
                Some(any_value::Value::StringValue(text)) => text.clone(),
                Some(any_value::Value::IntValue(number)) => number.to_string(),
                other => format!("{other:?}"),
            };
            (attribute.key.clone(), value)
        })
        .collect()
}

async fn receive(
    State(spans): State<Arc<watch::Sender<Vec<Received>>>>,
    body: Bytes,
) -> StatusCode {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    spans.send_modify(|spans| {
        for batch in request.resource_spans {
            let resource = text(&batch.resource.unwrap().attributes);
            for span in batch.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let (resource, attributes) = (resource.clone(), text(&span.attributes));
                spans.push(Received { resource, attributes, span });
            }
        }
    });
    StatusCode::OK
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (sender, spans) = watch::channel(Vec::new());
        let app = Router::new().route("/v1/traces", post(receive)).with_state(Arc::new(sender));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Receiver { url, spans, _server: server }
    }

    async fn wait_for(&mut self, count: usize) -> Vec<Received> {
        let arrived = self.spans.wait_for(|spans| spans.len() >= count);
        timeout(Duration::from_secs(20), arrived).await.unwrap().unwrap().clone()
    }
}

fn named<'a>(spans: &'a [Received], name: &str) -> &'a Received {
    spans.iter().find(|received| received.span.name == name).unwrap()
}

fn options(endpoint: Option<&str>) -> Options {
    let mut options = Options::for_service(&"storage-1@node-1".parse().unwrap(), 4711);
    options.otlp_endpoint = endpoint.map(str::to_owned);
    options.log_filter = "off".to_owned();
    options
}

/// Telemetry for this thread alone.
fn start(options: Options) -> (DefaultGuard, Telemetry) {
    let (dispatch, telemetry) = build(options).unwrap();
    (tracing::dispatcher::set_default(&dispatch), telemetry)
}

fn client_call(method: &Method) -> ClientCall<'_> {
    ClientCall {
        method,
        route: "/v1/push",
        service: "commit-proxy-1@node-1",
        peer: "log-1@node-2",
        address: "127.0.0.1:7000",
    }
}

fn server_call<'a>(method: &'a Method, route: &'a str) -> ServerCall<'a> {
    ServerCall { method, route, service: "log-1@node-2", request_id: "r-1" }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_arrives_with_who_sent_it() {
    let mut receiver = Receiver::start();
    let mut options = options(Some(&receiver.url));
    options.cluster = Some("000102030405060708090a0b0c0d0e0f".parse().unwrap());
    let (_guard, _telemetry) = start(options);
    recovery_span("coordinator-1@node-1", 7).in_scope(|| {
        tracing::info!(target: "plinth_coordinator", answer = 42, "appointed");
        tracing::info!(target: "hyper", "not ours");
    });

    let spans = receiver.wait_for(1).await;
    let Received { resource, attributes, span } = &spans[0];
    for (key, value) in [
        ("service.name", "plinth-storage"),
        ("service.instance.id", "storage-1@node-1"),
        ("process.pid", "4711"),
        ("plinth.node", "node-1"),
        ("plinth.cluster", "000102030405060708090a0b0c0d0e0f"),
    ] {
        assert_eq!(resource.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(span.name, "recovery");
    assert_eq!(attributes["plinth.epoch"], "7");
    assert_eq!(attributes["plinth.service"], "coordinator-1@node-1");
    assert!(span.parent_span_id.is_empty());
    assert_eq!(span.events.len(), 1);
    assert_eq!(span.events[0].name, "appointed");
    assert_eq!(text(&span.events[0].attributes)["answer"], "42");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_runs_through_a_call_and_what_is_done_later() {
    let mut receiver = Receiver::start();
    let (_guard, telemetry) = start(options(Some(&receiver.url)));
    let method = Method::POST;
    let mut headers = HeaderMap::new();
    let mut entry = None;
    let mut recovery_trace = None;
    recovery_span("coordinator-1@node-1", 7).in_scope(|| {
        recovery_trace = current_trace_id();
        let client = client_span(client_call(&method));
        inject_from(&client, &mut headers);
        record_status(&client, StatusCode::CONFLICT, true);
    });
    // On the other side nothing is entered.
    let server = server_span(server_call(&method, "/v1/push"));
    set_parent(&server, &headers);
    assert_eq!(trace_id(&server), recovery_trace);
    server.in_scope(|| {
        record_epoch(&server, 7);
        record_status(&server, StatusCode::CONFLICT, false);
        step_span("fsync", "log-1@node-2").in_scope(|| entry = current_traceparent());
    });
    let later = step_span("apply", "storage-1@node-1");
    set_parent_from_traceparent(&later, entry.as_deref().unwrap());
    record_error(&later, &"checksum differs");
    drop((server, later));
    telemetry.flush(Duration::from_secs(10)).unwrap();

    let spans = receiver.wait_for(5).await;
    let [recovery, fsync, apply] = ["recovery", "fsync", "apply"].map(|name| named(&spans, name));
    let both = |kind| {
        spans.iter().find(|s| s.span.name == "POST /v1/push" && s.span.kind == kind).unwrap()
    };
    let (server, client) = (both(2), both(3));
    assert!(spans.iter().all(|received| received.span.trace_id == recovery.span.trace_id));
    for (child, parent) in [(client, recovery), (server, client), (fsync, server), (apply, fsync)] {
        assert_eq!(child.span.parent_span_id, parent.span.span_id, "{}", child.span.name);
    }
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/push"),
        ("http.response.status_code", "409"),
        ("server.address", "127.0.0.1"),
        ("server.port", "7000"),
        ("plinth.peer", "log-1@node-2"),
    ] {
        assert_eq!(client.attributes.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(server.attributes["plinth.epoch"], "7");
    // A client's conflict is the client's failure and not the server's.
    assert_eq!(client.span.status.as_ref().unwrap().code, 2);
    assert_ne!(server.span.status.as_ref().map(|status| status.code), Some(2));
    assert_eq!(apply.span.status.as_ref().unwrap().message, "checksum differs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_asked_for_is_not_sent() {
    let mut receiver = Receiver::start();
    let mut options = options(Some(&receiver.url));
    options.request_ratio = 1.0;
    let (_guard, telemetry) = start(options);
    let method = Method::GET;
    for route in ["/livez", "/v1/monitor", "/v1/keys/{key}"] {
        let span = server_span(server_call(&method, route));
        span.in_scope(|| {
            assert!(current_trace_id().is_some());
            assert_eq!(current_traceparent().is_some(), route == "/v1/keys/{key}");
            let mut headers = HeaderMap::new();
            inject(&mut headers);
            let sampled = headers["traceparent"].to_str().unwrap().ends_with("-01");
            assert_eq!(sampled, route == "/v1/keys/{key}");
            // A library's span is no part of the trace, and hides it from nobody.
            tracing::info_span!(target: "hyper", "connection")
                .in_scope(|| assert!(current_trace_id().is_some()));
        });
    }
    client_span(client_call(&method)).in_scope(|| ());
    telemetry.flush(Duration::from_secs(10)).unwrap();
    let spans = receiver.wait_for(1).await;
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(spans[0].span.name, "GET /v1/keys/{key}");
}

#[test]
fn without_an_endpoint_the_callers_context_is_passed_on_as_it_came() {
    let (_guard, telemetry) = start(options(None));
    let mut received = HeaderMap::new();
    received.insert("traceparent", PARENT.parse().unwrap());
    let method = Method::POST;
    let server = server_span(server_call(&method, "/v1/push"));
    set_parent(&server, &received);
    let mut sent = HeaderMap::new();
    server.in_scope(|| {
        inject_from(&client_span(client_call(&method)), &mut sent);
        assert_eq!(current_traceparent().as_deref(), Some(PARENT));
    });
    assert_eq!(sent, received);

    // Work of its own has a trace id for its logs, and is not sampled.
    let own = recovery_span("coordinator-1@node-1", 1);
    assert_eq!(trace_id(&own).map(|id| id.len()), Some(32));
    assert_eq!(traceparent(&own), None);
    assert_eq!(telemetry.flush(BOUND), Ok(()));
    assert_eq!(telemetry.shutdown(BOUND), Ok(()));
}

/// Flush and shut down within the bound, whatever the endpoint does, and without an error to stop
/// for.
fn flush_and_shut_down(endpoint: &str) {
    let (_guard, telemetry) = start(options(Some(endpoint)));
    for epoch in 0..2000 {
        recovery_span("coordinator-1@node-1", epoch).in_scope(|| ());
    }
    let started = Instant::now();
    assert!(telemetry.flush(BOUND).is_err());
    assert!(started.elapsed() < BOUND + GRACE, "flush took {:?}", started.elapsed());
    let started = Instant::now();
    assert!(telemetry.shutdown(BOUND).is_err());
    assert!(started.elapsed() < BOUND + GRACE, "shutdown took {:?}", started.elapsed());
    // A span after the end is no error either.
    recovery_span("coordinator-1@node-1", 0).in_scope(|| ());
    assert_eq!(telemetry.shutdown(BOUND), Err(FlushError::ShutDown));
}

#[test]
fn a_refusing_endpoint_holds_nobody_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    flush_and_shut_down(&endpoint);
}

#[test]
fn an_endpoint_that_never_answers_holds_nobody_up() {
    // The kernel accepts, and nobody reads.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    flush_and_shut_down(&format!("http://{}", listener.local_addr().unwrap()));
}

#[test]
fn an_unreachable_endpoint_holds_nobody_up() {
    // An address reserved for documentation.
    flush_and_shut_down("http://192.0.2.1:4318");
}

#[test]
fn a_second_init_says_so() {
    let mut bad = options(None);
    bad.log_filter = "plinth=nonsense".to_owned();
    assert!(matches!(init(bad), Err(InitError::Filter { .. })));
    let mut bad = options(None);
    bad.request_ratio = 2.0;
    assert!(matches!(init(bad), Err(InitError::Ratio(_))));
    let bad = options(Some("node-1:4318"));
    assert!(matches!(init(bad), Err(InitError::Endpoint { .. })));
    init(options(None)).unwrap();
    let error = init(options(None)).unwrap_err();
    assert!(matches!(error, InitError::AlreadyInitialised));
    assert!(error.to_string().contains("already set up"));
}
