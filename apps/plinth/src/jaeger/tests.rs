use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::*;

const TRACE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.to_owned()))
}

fn span(id: u64, parent: u64, name: &str) -> Span {
    Span {
        trace_id: TRACE.to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: if parent == 0 { vec![] } else { parent.to_be_bytes().to_vec() },
        name: name.to_owned(),
        start_time_unix_nano: 1_000_000_000 + id * 1_000_000,
        end_time_unix_nano: 1_000_000_000 + id * 2_000_000,
        ..Span::default()
    }
}

fn export_of(service: &str, instance: &str, spans: Vec<Span>) -> Vec<u8> {
    let attributes = vec![
        text("service.name", service),
        text("service.instance.id", instance),
        attribute("process.pid", any_value::Value::IntValue(4711)),
    ];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    }
    .encode_to_vec()
}

struct Client {
    jaeger: Jaeger,
    http: reqwest::Client,
}

impl Client {
    async fn start() -> Self {
        let jaeger = serve(&Runtime::real(), "127.0.0.1:0").await.unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Client { jaeger, http }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.jaeger.url())
    }

    async fn post(
        &self,
        content_type: &str,
        encoding: Option<&str>,
        body: Vec<u8>,
    ) -> reqwest::Response {
        let mut request =
            self.http.post(self.url("/v1/traces")).header("content-type", content_type).body(body);
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        request.send().await.unwrap()
    }

    async fn export(&self, body: Vec<u8>) -> ExportTraceServiceResponse {
        let response = self.post(PROTOBUF, None, body).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], PROTOBUF);
        ExportTraceServiceResponse::decode(response.bytes().await.unwrap()).unwrap()
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.http.get(self.url(path)).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn found(&self, query: &str) -> usize {
        let (status, body) = self.get(&format!("/api/traces?{query}")).await;
        assert_eq!(status, 200, "{body}");
        body["data"].as_array().unwrap().len()
    }
}

fn tag<'a>(tags: &'a Value, key: &str) -> &'a Value {
    let found = tags.as_array().unwrap().iter().find(|tag| tag["key"] == key);
    &found.unwrap_or_else(|| panic!("{key} in {tags}"))["value"]
}

#[tokio::test]
async fn two_services_spans_are_one_trace() {
    let client = Client::start().await;
    // The child comes first and the root last, as it does when a root spans everything else.
    let mut failed = span(3, 2, "fsync");
    failed.kind = 1;
    failed.status = Some(Status { message: "disk full".to_owned(), code: 2 });
    failed.attributes = vec![attribute("plinth.epoch", any_value::Value::IntValue(7))];
    client.export(export_of("plinth-log", "log-1@node-2", vec![failed])).await;
    let missing = client.get(&format!("/api/traces/{:x}", TRACE + 1)).await;
    assert_eq!(missing.0, 404);
    assert_eq!(missing.1["errors"][0]["msg"], "trace not found");
    // A trace shows before it is whole.
    assert_eq!(client.found("service=plinth-log").await, 1);
    let roots = vec![span(1, 0, "recovery"), span(2, 1, "POST /v1/push")];
    let answer = client.export(export_of("plinth-director", "director-1@node-1", roots)).await;
    assert_eq!(answer.partial_success, None);

    let (status, body) = client.get(&format!("/api/traces/{TRACE:032x}")).await;
    assert_eq!(status, 200);
    let trace = &body["data"][0];
    assert_eq!(trace["traceID"], format!("{TRACE:032x}"));
    let spans = trace["spans"].as_array().unwrap();
    let names: Vec<_> = spans.iter().map(|span| span["operationName"].as_str().unwrap()).collect();
    assert_eq!(names, ["recovery", "POST /v1/push", "fsync"]);
    let process = |span: &Value| trace["processes"][span["processID"].as_str().unwrap()].clone();
    let (root, leaf) = (&spans[0], &spans[2]);
    assert_eq!(process(root)["serviceName"], "plinth-director");
    assert_eq!(process(leaf)["serviceName"], "plinth-log");
    assert_eq!(tag(&process(leaf)["tags"], "service.instance.id"), "log-1@node-2");
    assert_eq!(tag(&process(leaf)["tags"], "process.pid"), 4711);
    assert_eq!(root["references"], json!([]));
    assert_eq!(leaf["references"][0]["refType"], "CHILD_OF");
    assert_eq!(leaf["references"][0]["spanID"], spans[1]["spanID"]);
    assert_eq!((&leaf["startTime"], &leaf["duration"]), (&json!(1_003_000), &json!(3000)));
    assert_eq!(tag(&leaf["tags"], "error"), true);
    assert_eq!(tag(&leaf["tags"], "otel.status_description"), "disk full");
    assert_eq!(tag(&leaf["tags"], "span.kind"), "internal");
    assert_eq!(tag(&leaf["tags"], "plinth.epoch"), 7);

    let services = client.get("/api/services").await.1;
    assert_eq!(services["data"], json!(["plinth-director", "plinth-log"]));
    let operations = client.get("/api/services/plinth-director/operations").await.1;
    assert_eq!(operations["data"], json!(["POST /v1/push", "recovery"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_service_exports_shows() {
    let client = Client::start().await;
    let mut options =
        plinth_telemetry::Options::for_service(&"director-1@node-1".parse().unwrap(), 4711);
    options.otlp_endpoint = Some(client.jaeger.url());
    let (dispatch, telemetry) = plinth_telemetry::build(options).unwrap();
    let guard = tracing::dispatcher::set_default(&dispatch);
    let recovery = plinth_telemetry::recovery_span("director-1@node-1", 7);
    let id = plinth_telemetry::trace_id(&recovery).unwrap();
    recovery.in_scope(|| {
        let step = plinth_telemetry::step_span("lock_logs", "director-1@node-1");
        plinth_telemetry::record_error(&step, &"log-1@node-2 is gone");
    });
    drop((recovery, guard));
    telemetry.flush(Duration::from_secs(10)).unwrap();

    let trace = client.get(&format!("/api/traces/{id}")).await.1["data"][0].clone();
    let spans = trace["spans"].as_array().unwrap();
    let named = |name| spans.iter().find(|span| span["operationName"] == name).unwrap();
    let (root, step) = (named("recovery"), named("lock_logs"));
    assert_eq!(tag(&root["tags"], "plinth.epoch"), 7);
    assert_eq!(step["references"][0]["spanID"], root["spanID"]);
    assert_eq!(tag(&step["tags"], "otel.status_description"), "log-1@node-2 is gone");
    assert_eq!(trace["processes"]["p1"]["serviceName"], "plinth-director");
    assert_eq!(tag(&trace["processes"]["p1"]["tags"], "process.pid"), 4711);
}

#[tokio::test]
async fn a_search_finds_what_one_span_has() {
    let client = Client::start().await;
    let mut slow = span(1, 0, "recovery");
    slow.end_time_unix_nano = slow.start_time_unix_nano + 50_000_000;
    slow.attributes = vec![attribute("plinth.epoch", any_value::Value::IntValue(7))];
    client.export(export_of("plinth-coordinator", "coordinator-1@node-1", vec![slow])).await;
    for (query, found) in [
        (
            "service=plinth-coordinator&operation=recovery&limit=20&lookback=1h&maxDuration&minDuration",
            1,
        ),
        ("service=plinth-coordinator&operation=other", 0),
        ("service=plinth-log", 0),
        ("minDuration=10ms&maxDuration=1s", 1),
        ("minDuration=60ms", 0),
        ("start=1000000&end=2000000", 1),
        ("start=2000000", 0),
        ("tags=%7B%22plinth.epoch%22%3A%227%22%7D", 1),
        ("tag=service.instance.id:coordinator-1%40node-1", 1),
        ("tags=%7B%22plinth.epoch%22%3A%228%22%7D", 0),
        ("traceID=0af7651916cd43dd8448eb211c80319c&traceID=ff", 1),
        ("limit=0", 0),
    ] {
        assert_eq!(client.found(query).await, found, "{query}");
    }
    assert_eq!(client.get("/api/traces?limit=few").await.0, 400);
    assert_eq!(client.get("/api/traces/nonsense").await.0, 400);
}

#[tokio::test]
async fn what_is_no_export_is_refused() {
    let client = Client::start().await;
    let good = export_of("plinth-log", "log-1@node-1", vec![span(1, 0, "push")]);
    assert_eq!(client.post("application/json", None, good.clone()).await.status(), 415);
    assert_eq!(client.post(PROTOBUF, Some("gzip"), good.clone()).await.status(), 415);
    assert_eq!(client.post(PROTOBUF, None, vec![0xff; 8]).await.status(), 400);
    assert_eq!(client.post(PROTOBUF, None, vec![0; BODY_LIMIT + 1]).await.status(), 413);
    assert_eq!(
        client.post("application/x-protobuf; v=1", Some("identity"), good).await.status(),
        200
    );
    let mut bad = span(1, 0, "bad");
    bad.span_id.clear();
    let answer = client.export(export_of("plinth-log", "log-1@node-1", vec![bad])).await;
    assert_eq!(answer.partial_success.unwrap().rejected_spans, 1);
}

#[tokio::test]
async fn the_ui_is_served_at_every_page() {
    let client = Client::start().await;
    for page in ["/", "/search", "/trace/0af7651916cd43dd8448eb211c80319c"] {
        let response = client.http.get(client.url(page)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{page}");
        let html = response.text().await.unwrap();
        assert!(html.contains("<title>Jaeger UI</title>"), "{page}");
        let script = html.split("src=\".").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let script = client.http.get(client.url(script)).send().await.unwrap();
        assert_eq!(script.status(), 200);
    }
    let absent = client.http.get(client.url("/static/absent.js")).send().await.unwrap();
    assert_eq!(absent.status(), 404);
    let absent = client.http.get(client.url("/api/absent")).send().await.unwrap();
    assert_eq!(absent.status(), 404);
}

#[tokio::test]
async fn dropping_it_frees_the_port() {
    let client = Client::start().await;
    let address = client.jaeger.address();
    drop(client);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while serve(&Runtime::real(), &address.to_string()).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "{address} is still taken");
        tokio::task::yield_now().await;
    }
}
