//! The gateway with no cluster behind it: bad requests are told what is wrong, good ones that
//! nothing answers, and the status answers all the same.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use plinth_api::gateway::ClusterStatus;
use plinth_api::{ErrorCode, Problem, Target, TimeLimit};
use plinth_gateway::Config;
use plinth_runtime::{Runtime, Scope, ScopeGuard};
use plinth_service::{Host, HostOptions, Secrets, Sender, Transport};
use tower::ServiceExt as _;

struct Asker {
    _end: ScopeGuard,
    transport: Transport,
    address: String,
}

impl Asker {
    async fn new() -> Asker {
        Asker::with(|config| config).await
    }

    async fn with(change: impl FnOnce(Config) -> Config) -> Asker {
        let (scope, end) = Scope::new();
        let options = |service: &str| HostOptions {
            service: service.parse().unwrap(),
            bind: "127.0.0.1:0".to_owned(),
            advertise: None,
            cluster: None,
            secrets: Secrets::default(),
        };
        // An address at which nobody answers: bound, told, and given up again.
        let gone = Host::bind(Runtime::real(), options("coordinator-1@node-1")).await.unwrap();
        let coordinator = Target::address(&gone.context().pid().address);
        drop(gone);
        let host = Host::bind(Runtime::real(), options("gateway-1@node-1")).await.unwrap();
        let address = host.context().pid().address.clone();
        let config =
            Config { deadline: Duration::from_millis(200), ..Config::new(vec![coordinator], None) };
        drop(scope.spawn("gateway", plinth_gateway::serve(host, change(config))));
        let transport = Transport::new(Runtime::real(), scope.clone(), &Sender::default());
        Asker { _end: end, transport, address }
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Response<Bytes> {
        let url = format!("http://{}{path}", self.address);
        let mut request = Request::builder().method(method).uri(url).body(body).unwrap();
        request.extensions_mut().insert(TimeLimit(Duration::from_secs(20)));
        self.transport.clone().oneshot(request).await.unwrap()
    }

    async fn problem(&self, method: Method, path: &str, body: Bytes) -> Problem {
        let answer = self.ask(method, path, body).await;
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
        let problem: Problem = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(problem.code.status(), answer.status(), "{path}");
        problem
    }
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let asker = Asker::new().await;
    let long_key = format!("/v1/keys/{}", "k".repeat(10_001));
    let large = Bytes::from(vec![b'v'; 100_001]);
    let none = Bytes::new;
    for (method, path, body, code) in [
        (Method::GET, "/v1/keys/%ff", none(), ErrorCode::SystemKey),
        (Method::PUT, "/v1/keys/%FF/system/config", none(), ErrorCode::SystemKey),
        (Method::GET, "/v1/keys?key_b64=/w==", none(), ErrorCode::SystemKey),
        (Method::GET, "/v1/keys?key_b64=!", none(), ErrorCode::InvalidRequest),
        (Method::GET, "/v1/keys?limit=0", none(), ErrorCode::InvalidRequest),
        (Method::GET, "/v1/keys?from=b&to=a", none(), ErrorCode::InvalidRequest),
        (Method::GET, "/v1/keys?prefix=a&to=b", none(), ErrorCode::InvalidRequest),
        (Method::GET, "/v1/keys?cursor=x", none(), ErrorCode::InvalidRequest),
        (Method::GET, "/v1/keys?prefix=%ff", none(), ErrorCode::SystemKey),
        (Method::GET, "/v1/keys/%ff/watch", none(), ErrorCode::SystemKey),
        (Method::GET, "/v1/keys/a/watch?wait=31s", none(), ErrorCode::InvalidRequest),
        (Method::GET, "/v1/keys/a?wait=1s", none(), ErrorCode::InvalidRequest),
        (Method::GET, "/v1/keys/a?consistency=odd", none(), ErrorCode::InvalidRequest),
        (Method::DELETE, "/v1/keys?from=a", none(), ErrorCode::InvalidRequest),
        (Method::DELETE, "/v1/keys?from=a&to=%ff%ff", none(), ErrorCode::SystemKey),
        (Method::DELETE, "/v1/keys?from=a&to=%ff%ff&dry_run=true", none(), ErrorCode::SystemKey),
        (Method::DELETE, "/v1/keys?from=a&to=b&dry_run=perhaps", none(), ErrorCode::InvalidRequest),
        (Method::DELETE, "/v1/transactions/none", none(), ErrorCode::TransactionEnded),
        (
            Method::GET,
            "/v1/transactions/gateway-1@node-1.7.9/keys/a",
            none(),
            ErrorCode::TransactionEnded,
        ),
        (Method::GET, "/v1/keys/a?key_b64=YQ==", none(), ErrorCode::InvalidRequest),
        (Method::GET, "/v1/keys/a?colour=blue", none(), ErrorCode::InvalidRequest),
        (Method::DELETE, &long_key, none(), ErrorCode::LimitExceeded),
        (Method::PUT, "/v1/keys/a", large, ErrorCode::LimitExceeded),
        (Method::POST, "/v1/keys/a", none(), ErrorCode::MethodNotAllowed),
        (Method::POST, "/v1/transactions", none(), ErrorCode::InvalidRequest),
    ] {
        let problem = asker.problem(method.clone(), path, body).await;
        assert_eq!(problem.code, code, "{method} {path}: {}", problem.detail);
    }
    let problem = asker.problem(Method::PUT, "/v1/keys/a", vec![0; 100_001].into()).await;
    assert_eq!(problem.facts["limit_bytes"], "100000");
    assert_eq!(problem.facts["actual_bytes"], "100001");
}

#[tokio::test]
async fn bad_bodies_are_told_what_is_wrong() {
    let asker = Asker::new().await;
    for (path, body, code) in [
        ("/v1/keys/%ffa/atomic", r#"{"op":"add","operand":1}"#, ErrorCode::SystemKey),
        ("/v1/keys/a/atomic", r#"{"op":"odd","operand":1}"#, ErrorCode::InvalidRequest),
        (
            "/v1/keys/a/atomic",
            r#"{"op":"versionstamped_value","operand":"short"}"#,
            ErrorCode::InvalidRequest,
        ),
        ("/v1/transactions", r#"{"check":[]}"#, ErrorCode::InvalidRequest),
        (
            "/v1/transactions",
            r#"{"mutations":[{"set":{"key":"a","valu":"1"}}]}"#,
            ErrorCode::InvalidRequest,
        ),
        (
            "/v1/transactions",
            r#"{"mutations":[{"set":{"key":{"b64":"/w=="},"value":"1"}}]}"#,
            ErrorCode::SystemKey,
        ),
        ("/v1/transactions", r#"{"reads":[{"key":{"b64":"/w=="}}]}"#, ErrorCode::SystemKey),
        ("/v1/transactions", r#"{"checks":[{"key":"a"}]}"#, ErrorCode::InvalidRequest),
    ] {
        let problem = asker.problem(Method::POST, path, Bytes::from_static(body.as_bytes())).await;
        assert_eq!(problem.code, code, "{path} {body}: {}", problem.detail);
    }
}

#[tokio::test]
async fn nothing_is_served_and_the_status_says_why() {
    let asker = Asker::new().await;
    for (method, path) in [
        (Method::GET, "/v1/keys/a/../b"),
        (Method::PUT, "/v1/keys/a%2Fb"),
        (Method::DELETE, "/v1/keys//"),
        (Method::GET, "/v1/layout"),
    ] {
        let problem = asker.problem(method.clone(), path, Bytes::new()).await;
        assert_eq!(problem.code, ErrorCode::NotReady, "{method} {path}: {}", problem.detail);
        assert!(problem.retryable);
    }
    for path in ["/v1/config", "/v1/recoveries", "/v1/nodes", "/v1/processes", "/v1/members"] {
        let problem = asker.problem(Method::GET, path, Bytes::new()).await;
        assert_eq!(problem.code, ErrorCode::NoQuorum, "{path}: {}", problem.detail);
    }
    let head = asker.ask(Method::HEAD, "/v1/keys/a", Bytes::new()).await;
    assert_eq!(head.status(), StatusCode::SERVICE_UNAVAILABLE);
    let status = asker.ask(Method::GET, "/v1/status", Bytes::new()).await;
    assert_eq!(status.status(), StatusCode::OK);
    let status: ClusterStatus = serde_json::from_slice(status.body()).unwrap();
    assert_eq!((status.health.as_str(), status.ready), ("unavailable", false));
    assert!(!status.problems.is_empty());
}

#[tokio::test]
async fn only_the_administrator_names_a_key_of_the_system_and_only_to_read_it() {
    let asker = Asker::new().await;
    for (token, method, code) in [
        (false, Method::GET, ErrorCode::SystemKey),
        // It is let through, and nobody is there to answer.
        (true, Method::GET, ErrorCode::NotReady),
        (true, Method::PUT, ErrorCode::SystemKey),
        (true, Method::DELETE, ErrorCode::SystemKey),
    ] {
        let url = format!("http://{}/v1/keys/%ff/system/epoch", asker.address);
        let mut request = Request::builder().method(method.clone()).uri(url);
        if token {
            // No secret is set here, so any token is the administrator's.
            request = request.header("authorization", "Bearer any-token-at-all");
        }
        let mut request = request.body(Bytes::new()).unwrap();
        request.extensions_mut().insert(TimeLimit(Duration::from_secs(20)));
        let answer = asker.transport.clone().oneshot(request).await.unwrap();
        let problem: Problem = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(problem.code, code, "{method} with token: {token}");
    }
}

#[tokio::test]
async fn more_requests_than_there_are_places_are_told_to_come_again() {
    let asker = Asker::with(|config| Config { requests: 1, ..config }).await;
    let (first, second) = tokio::join!(
        asker.ask(Method::GET, "/v1/keys/a", Bytes::new()),
        asker.ask(Method::GET, "/v1/keys/b", Bytes::new()),
    );
    let codes = [first, second].map(|answer| {
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            assert!(answer.headers().contains_key("retry-after"));
        }
        serde_json::from_slice::<Problem>(answer.body()).unwrap().code
    });
    assert!(
        codes.contains(&ErrorCode::Overloaded) && codes.contains(&ErrorCode::NotReady),
        "{codes:?}"
    );
    // The place is free again.
    let problem = asker.problem(Method::GET, "/v1/keys/a", Bytes::new()).await;
    assert_eq!(problem.code, ErrorCode::NotReady);
}
