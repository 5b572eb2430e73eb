//! Bad input is a problem document, and no handler runs.

use bytes::Bytes;
use http::Request;
use plinth_api::{ErrorCode, Outcome};
use plinth_service::BODY_LIMIT;
use plinth_types::{ClusterId, Incarnation};

use crate::fixture::{Asker, Hosted, Parcel, host, json, problem};

fn post(hosted: &Hosted) -> http::request::Builder {
    Request::post(hosted.url("/v1/parcels"))
}

fn small() -> Bytes {
    Bytes::from_static(br#"{"weight": 5}"#)
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_that_says_what_is() {
    let hosted = host().await;
    let asker = Asker::anonymous();
    let answer = asker.get(hosted.url("/v2/nothing")).await;
    assert_eq!(problem(&answer).code, ErrorCode::NotFound);
    let answer = asker.post(hosted.url("/livez"), "{}").await;
    assert_eq!(problem(&answer).code, ErrorCode::MethodNotAllowed);
    assert_eq!(answer.headers()["allow"], "GET,HEAD");
    let answer = asker.post(hosted.url("/v1/for/service"), "{}").await;
    assert_eq!(problem(&answer).code, ErrorCode::MethodNotAllowed, "before any caller's check");
}

#[tokio::test]
async fn a_handlers_problem_and_an_extractors_error_look_the_same() {
    let hosted = host().await;
    let asker = Asker::anonymous();
    let found = problem(&asker.get(hosted.url("/v1/parcels/4")).await);
    assert_eq!((found.code, found.facts["parcel"].as_str()), (ErrorCode::NotFound, "4"));
    let found = problem(&asker.get(hosted.url("/v1/parcels/four")).await);
    assert_eq!(found.code, ErrorCode::InvalidRequest);
    assert!(found.detail.contains("four"), "{}", found.detail);
}

#[tokio::test]
async fn bad_json_is_refused_and_the_field_named() {
    let hosted = host().await;
    let asker = Asker::anonymous();
    let table = [
        (r#"{"weight": 5"#, None),
        ("", None),
        (r#"{"weight": 5} more"#, None),
        (r#"{"weight": "heavy"}"#, Some("weight")),
        (r#"{"weight": -1}"#, Some("weight")),
        (r#"{"weight": 1, "labels": [1, 2, 300]}"#, Some("labels[2]")),
        (r#"{"labels": []}"#, None),
    ];
    for (body, field) in table {
        let answer = asker.post(hosted.url("/v1/parcels"), body).await;
        let found = problem(&answer);
        assert_eq!(found.code, ErrorCode::InvalidRequest, "{body}");
        assert_eq!(found.outcome, Outcome::NotCommitted);
        assert_eq!(found.facts.get("field").map(String::as_str), field, "{body}");
    }
    assert_eq!(hosted.handled(), 0);
}

#[tokio::test]
async fn a_body_must_be_json_and_of_bounded_size() {
    let hosted = host().await;
    let asker = Asker::anonymous();
    let send = async |kind: &str, origin: Option<&str>, body: Bytes| {
        let mut request = post(&hosted).header("content-type", kind);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        asker.ask(request.body(body).unwrap()).await
    };
    let form = "application/x-www-form-urlencoded";
    assert_eq!(send("application/json; charset=utf-8", None, small()).await.status(), 200);
    assert_eq!(send(form, None, small()).await.status(), 200, "as curl -d sends it");
    assert_eq!(hosted.handled(), 2);
    for (kind, origin) in [("text/plain", None), (form, Some("http://page.example"))] {
        let answer = send(kind, origin, small()).await;
        assert_eq!(problem(&answer).code, ErrorCode::UnsupportedMediaType);
    }
    let answer = send("application/json", None, Bytes::from(vec![b' '; BODY_LIMIT + 1])).await;
    let found = problem(&answer);
    assert_eq!(found.code, ErrorCode::LimitExceeded);
    assert_eq!(found.facts["limit_bytes"], BODY_LIMIT.to_string());
    assert_eq!(hosted.handled(), 2);
}

#[tokio::test]
async fn a_query_is_strict_with_people_and_lenient_with_services() {
    let hosted = host().await;
    let asker = Asker::anonymous();
    let answer = asker.get(hosted.url("/v1/parcels?weight=3")).await;
    assert_eq!(json::<Parcel>(&answer).weight, 3);
    let found = problem(&asker.get(hosted.url("/v1/parcels?weight=much")).await);
    assert_eq!((found.code, found.facts["field"].as_str()), (ErrorCode::InvalidRequest, "weight"));
    let found = problem(&asker.get(hosted.url("/v1/parcels?wieght=3")).await);
    assert_eq!((found.code, found.facts["field"].as_str()), (ErrorCode::InvalidRequest, "wieght"));

    let request = Request::get(hosted.url("/v1/parcels?weight=3&later_release=1"));
    let request = request.header("plinth-from", "gateway-1@node-1");
    assert_eq!(asker.ask(request.body(Bytes::new()).unwrap()).await.status(), 200);
}

#[tokio::test]
async fn a_request_for_another_process_or_cluster_does_nothing() {
    let hosted = host().await;
    let asker = Asker::anonymous();
    let own = hosted.context.pid().incarnation;
    let other = Incarnation(own.0 ^ 1);
    let send = async |name: &str, value: String| {
        asker.ask(post(&hosted).header(name, value).body(small()).unwrap()).await
    };
    let answer = send("plinth-incarnation", other.to_string()).await;
    let found = problem(&answer);
    assert_eq!(found.code, ErrorCode::WrongIncarnation);
    assert_eq!(found.facts["incarnation"], own.to_string());
    let answer = send("plinth-cluster", ClusterId(8).to_string()).await;
    assert_eq!(problem(&answer).code, ErrorCode::WrongCluster);
    for name in ["plinth-incarnation", "plinth-cluster", "plinth-epoch"] {
        let answer = send(name, "rubbish".to_owned()).await;
        assert_eq!(problem(&answer).code, ErrorCode::InvalidRequest, "{name}");
    }
    assert_eq!(hosted.handled(), 0);
    assert_eq!(send("plinth-incarnation", own.to_string()).await.status(), 200);
    let answer = send("plinth-epoch", "9".to_owned()).await;
    assert_eq!(json::<Parcel>(&answer).weight, 5 + 9);
    assert_eq!(hosted.handled(), 2);
}
