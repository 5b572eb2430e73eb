//! How every service refuses what it can't take.

use plinth_test_contract::{CLUSTER_SECRET, Operation, Services, documents, operations};
use serde_json::Value;

use crate::client;

/// Checks that an answer is a problem of this code, whole.
async fn check(what: &str, answer: reqwest::Response, code: &str) {
    let status = answer.status();
    let headers = answer.headers().clone();
    assert_eq!(headers["content-type"], "application/problem+json", "{what}: {status}");
    let id = headers["x-request-id"].to_str().expect("text").to_owned();
    assert!(headers.contains_key("served-by"), "{what}");
    let problem: Value = answer.json().await.expect("JSON");
    assert_eq!(problem["code"], code, "{what}: {problem}");
    assert_eq!(problem["status"], status.as_u16(), "{what}");
    assert_eq!(problem["request_id"], id, "{what}");
    assert_eq!(problem["outcome"], "not_committed", "{what}");
    assert_eq!(problem["retryable"], false, "{what}");
    assert!(problem["detail"].as_str().is_some_and(|text| !text.is_empty()), "{what}");
}

#[tokio::test]
async fn every_service_refuses_alike() {
    let services = Services::start().await.expect("services");
    let client = client();
    for ((kind, url), (_, document)) in services.urls().zip(documents()) {
        let what = kind.to_string();
        let get = |path: &str| client.get(format!("{url}{path}"));
        check(&what, get("/v1/no_such_thing").send().await.expect("404"), "not_found").await;
        let answer = client.delete(format!("{url}/livez")).send().await.expect("405");
        assert_eq!(answer.headers()["allow"], "GET,HEAD", "{what}");
        check(&what, answer, "method_not_allowed").await;
        let answer = get("/readyz/no_such_check").send().await.expect("404");
        check(&what, answer, "not_found").await;
        let answer = get("/readyz?verbsoe").send().await.expect("400");
        check(&what, answer, "invalid_request").await;
        let answer = get("/livez").header("plinth-incarnation", "much").send().await.expect("400");
        check(&what, answer, "invalid_request").await;
        let answer = get("/livez").header("plinth-cluster", "0").send().await;
        assert!(answer.expect("an answer").status().is_client_error(), "{what}");

        let operations = operations(&document).expect("operations");
        for operation in operations.iter().filter(|operation| operation.takes_json) {
            let Operation { path, method, .. } = operation;
            let what = format!("{kind} {method} {path}");
            let method: reqwest::Method = method.parse().expect("a method");
            let send = |kind: &'static str, body: Vec<u8>| {
                client
                    .request(method.clone(), format!("{url}{}", operation.filled_path()))
                    .header("plinth-secret", CLUSTER_SECRET)
                    .header("content-type", kind)
                    .body(body)
                    .send()
            };
            let json = "application/json";
            let answer = send("text/plain", b"{}".to_vec()).await.expect("415");
            check(&what, answer, "unsupported_media_type").await;
            let nothing = operation.needs_body.then_some("");
            for body in ["{", "[]", "null", "\"text\"", "{}{}"].into_iter().chain(nothing) {
                let answer = send(json, body.as_bytes().to_vec()).await.expect("400");
                check(&format!("{what} {body}"), answer, "invalid_request").await;
            }
            let answer =
                send(json, vec![b' '; plinth_service::SERVICE_BODY_LIMIT + 1]).await.expect("413");
            check(&what, answer, "limit_exceeded").await;
        }
    }
}

#[tokio::test]
async fn who_asks_by_name_is_answered_with_it() {
    let services = Services::start().await.expect("services");
    let client = client();
    let trace = "0123456789abcdef0123456789abcdef";
    for (kind, url) in services.urls() {
        let answer = client
            .get(format!("{url}/v1/info"))
            .header("x-request-id", "mine")
            .header("traceparent", format!("00-{trace}-0123456789abcdef-01"))
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.headers()["x-request-id"], "mine", "{kind}");
        assert_eq!(answer.headers()["served-by"], format!("{kind}-1@node-1"), "{kind}");
        let info: Value = answer.json().await.expect("JSON");
        assert_eq!(info["service"], format!("{kind}-1@node-1"));
        assert_eq!(info["node"], "node-1");
        for field in ["pid", "epoch", "version", "release", "uptime_ms"] {
            assert!(info.get(field).is_some(), "{kind} {field}");
        }
        let live = client.get(format!("{url}/livez")).send().await.expect("an answer");
        assert_eq!(live.status(), 200, "{kind}");
        let version = client.get(format!("{url}/version")).send().await.expect("an answer");
        assert_eq!(version.status(), 200, "{kind}");
    }
}
