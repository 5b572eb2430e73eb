//! A trace store with the Jaeger UI, in the process that asks for it: `plinth up` and `plinth dev`
//! show their traces without a collector to install.
//!
//! One port takes spans (OTLP over HTTP, protobuf, at `/v1/traces`), answers Jaeger's query API
//! and serves its UI. Everything is in memory and bounded; a restart forgets all traces. It is made
//! for looking at a cluster on one machine, so it listens where it is told, asks nobody who they
//! are, and takes no compressed bodies.
//!
//! The UI's files come from `otlp-embedded`. Its trace store stays unused: it hides a trace until
//! every parent has arrived, so the trace of a process that was killed would never show, and it
//! does not know a failed span from a good one.

mod document;
mod query;
mod store;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use plinth_runtime::{Listener, Runtime, Scope, ScopeGuard, Stream, TaskFailure};
use prost::Message;
use serde_json::{Value, json};

use self::query::{Search, parse_trace_id};
use self::store::{Limits, Store};

/// The largest body of one export, in bytes: a full batch of spans has a tenth of it.
const BODY_LIMIT: usize = 16 << 20;
const PROTOBUF: &str = "application/x-protobuf";
/// The pause after a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Shared = Arc<Mutex<Store>>;

/// A running trace store. Dropping it stops it.
#[derive(Debug)]
pub struct Jaeger {
    address: SocketAddr,
    scope: Scope,
    _guard: ScopeGuard,
}

impl Jaeger {
    /// The base URL: the UI for people, and the OTLP endpoint for services.
    #[must_use]
    pub fn url(&self) -> String {
        let mut reachable = self.address;
        if reachable.ip().is_unspecified() {
            reachable.set_ip(match reachable.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("http://{reachable}")
    }

    /// Where it listens, the port resolved.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it fails, which is a bug; else for ever.
    pub async fn failed(&self) -> TaskFailure {
        self.scope.failed().await
    }
}

/// Starts a trace store at `host:port`; port 0 takes a free one. Use a loopback address: it lets
/// everybody in.
///
/// # Errors
/// The address can't be listened at.
pub async fn serve(runtime: &Runtime, bind: &str) -> io::Result<Jaeger> {
    let listener = runtime.network().bind(bind).await?;
    let address = listener.local_addr()?;
    let (scope, guard) = Scope::new();
    scope.spawn("jaeger", async move {
        if let Err(error) = axum::serve(Incoming(listener), app(Limits::default())).await {
            tracing::error!(%error, "the trace store has stopped");
        }
    });
    Ok(Jaeger { address, scope, _guard: guard })
}

/// The runtime's listener as axum wants it.
struct Incoming(Listener);

impl axum::serve::Listener for Incoming {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

fn app(limits: Limits) -> Router {
    let unused =
        otlp_embedded::State::new(otlp_embedded::Config { max_length: 0, max_memory_usage: 0 });
    let ui = otlp_embedded::ui_app(unused, "/")
        .layer(axum::middleware::map_response(page_is_no_redirect));
    Router::new()
        .route("/v1/traces", post(export).layer(DefaultBodyLimit::max(BODY_LIMIT)))
        .route("/api/services", get(services))
        .route("/api/services/{service}/operations", get(operations))
        .route("/api/traces", get(search))
        .route("/api/traces/{id}", get(trace))
        .with_state(Arc::new(Mutex::new(Store::new(limits))))
        .fallback_service(ui)
}

/// The UI's routes all show the one page, which `otlp-embedded` sends as a redirect to nowhere.
async fn page_is_no_redirect(mut response: Response) -> Response {
    if response.status() == StatusCode::TEMPORARY_REDIRECT
        && !response.headers().contains_key(header::LOCATION)
    {
        *response.status_mut() = StatusCode::OK;
    }
    response
}

fn lock(store: &Shared) -> MutexGuard<'_, Store> {
    // Each change is complete or has not begun, so what a panic left behind can be used.
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn export(State(store): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let is = |name, expected: &str| {
        headers.get(name).is_some_and(|value| {
            let value = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
            value.trim_ascii().eq_ignore_ascii_case(expected.as_bytes())
        })
    };
    if !is(header::CONTENT_TYPE, PROTOBUF) {
        let detail = format!("send OTLP as {PROTOBUF}");
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).into_response();
    }
    if headers.contains_key(header::CONTENT_ENCODING) && !is(header::CONTENT_ENCODING, "identity") {
        let detail = "send the body uncompressed";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).into_response();
    }
    let request = match ExportTraceServiceRequest::decode(body) {
        Ok(request) => request,
        Err(error) => {
            let detail = format!("the body is no ExportTraceServiceRequest: {error}");
            return (StatusCode::BAD_REQUEST, detail).into_response();
        }
    };
    let rejected = lock(&store).ingest(request);
    let partial_success = (rejected > 0).then(|| ExportTracePartialSuccess {
        rejected_spans: i64::try_from(rejected).unwrap_or(i64::MAX),
        error_message: "malformed ids, or more spans in one trace than are kept".to_owned(),
    });
    let response = ExportTraceServiceResponse { partial_success };
    ([(header::CONTENT_TYPE, PROTOBUF)], response.encode_to_vec()).into_response()
}

async fn services(State(store): State<Shared>) -> Response {
    data(lock(&store).services().into_iter().map(Value::from).collect())
}

async fn operations(State(store): State<Shared>, Path(service): Path<String>) -> Response {
    data(lock(&store).operations(&service).into_iter().map(Value::from).collect())
}

async fn search(
    State(store): State<Shared>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Response {
    match Search::parse(&parameters) {
        Ok(search) => data(search.run(&lock(&store))),
        Err(detail) => failure(StatusCode::BAD_REQUEST, &detail),
    }
}

async fn trace(State(store): State<Shared>, Path(id): Path<String>) -> Response {
    let Some(id) = parse_trace_id(&id) else {
        return failure(StatusCode::BAD_REQUEST, "a trace id has up to 32 hexadecimal digits");
    };
    let found = lock(&store).get(&id).map(|trace| document::trace(&id, trace));
    match found {
        Some(found) => data(vec![found]),
        None => failure(StatusCode::NOT_FOUND, "trace not found"),
    }
}

/// An answer in the form of Jaeger's query API.
fn data(items: Vec<Value>) -> Response {
    Json(json!({"total": items.len(), "data": items, "limit": 0, "offset": 0, "errors": null}))
        .into_response()
}

fn failure(status: StatusCode, detail: &str) -> Response {
    let errors = [json!({"code": status.as_u16(), "msg": detail})];
    let body = json!({"data": null, "total": 0, "limit": 0, "offset": 0, "errors": errors});
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests;
