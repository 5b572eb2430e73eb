//! What goes along with a request from service to service.

use bytes::Bytes;
use http::{Request, Response};
use plinth_telemetry::Options;
use tracing::Instrument as _;

use crate::fixture::{Asker, Hosted, host, json};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Asks one service to ask another, and gives the answer with the ids that the other one saw.
async fn relayed(
    near: &Hosted,
    far: &Hosted,
    headers: &[(&str, &str)],
) -> (Response<Bytes>, Option<String>, Option<String>) {
    let mut request = Request::post(near.url("/v1/relay"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Bytes::from(format!("{:?}", far.context.pid().address));
    let answer = Asker::anonymous().ask(request.body(body).unwrap()).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let (request_id, trace_id) = json(&answer);
    (answer, request_id, trace_id)
}

#[tokio::test]
async fn a_request_keeps_its_id_from_service_to_service() {
    let (near, far) = (host().await, host().await);
    let (answer, seen, _) = relayed(&near, &far, &[("x-request-id", "order-66")]).await;
    assert_eq!(answer.headers()["x-request-id"], "order-66");
    assert_eq!(seen.as_deref(), Some("order-66"));
}

#[tokio::test]
async fn a_request_without_a_decent_id_is_given_one() {
    let (near, far) = (host().await, host().await);
    let endless = "x".repeat(4096);
    let mut ids = Vec::new();
    for given in ["", "two words", &endless] {
        let (answer, seen, _) = relayed(&near, &far, &[("x-request-id", given)]).await;
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!((seen.as_ref(), id.len()), (Some(&id), 16));
        ids.push(id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 3, "each its own");
}

#[tokio::test]
async fn a_trace_goes_from_service_to_service() {
    // For the whole process: what a thread sets for itself does not reach call sites that another
    // thread has met before.
    let options = Options::new("test", "test", 1);
    plinth_telemetry::init(Options { log_filter: "off".to_owned(), ..options }).unwrap();
    let (near, far) = (host().await, host().await);
    let asker = plinth_telemetry::step_span("asking", "test");
    plinth_telemetry::set_parent_from_traceparent(
        &asker,
        &format!("00-{TRACE}-b7ad6b7169203331-01"),
    );
    let (_, _, trace) = relayed(&near, &far, &[]).instrument(asker).await;
    assert_eq!(trace.as_deref(), Some(TRACE));
}
