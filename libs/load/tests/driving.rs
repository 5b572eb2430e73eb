//! Loads against servers of the test's own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::put;
use plinth_load::{Amount, Load, Mix, Operation, Pace, Protocol, drive, start};
use plinth_runtime::{Runtime, Scope, ScopeGuard};
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// Longer than any test should take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server on loopback that ends when the guard is dropped.
#[expect(clippy::disallowed_methods, reason = "axum serves no other listener here")]
async fn serve(router: Router) -> std::io::Result<(String, ScopeGuard)> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (scope, guard) = Scope::new();
    drop(scope.spawn("server", async move { axum::serve(listener, router).await }));
    Ok((url, guard))
}

fn puts(url: String) -> Load {
    Load {
        connections: 4,
        timeout: PATIENCE,
        ..Load::new(Protocol::Plinth, vec![url], Mix::only(Operation::Put))
    }
}

#[tokio::test]
async fn filling_writes_every_key_once() {
    let seen = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let written = Arc::clone(&seen);
    let handler = move |Path(key): Path<String>, body: String| {
        assert_eq!(body.len(), 33);
        *written.lock().expect("not poisoned").entry(key).or_default() += 1;
        async {}
    };
    let (url, _server) =
        serve(Router::new().route("/v1/keys/{*key}", put(handler))).await.expect("a server");
    let load = Load { keys: 50, value_size: 33, ..puts(url) };
    let report = drive(&Runtime::real(), load.filling()).await.expect("valid");
    assert_eq!((report.succeeded, report.failed, report.unanswered), (50, 0, 0));
    let seen = seen.lock().expect("not poisoned");
    assert_eq!(seen.len(), 50);
    assert!(seen.values().all(|count| *count == 1), "{seen:?}");
}

#[tokio::test]
async fn failures_are_counted_by_the_servers_code() {
    let count = Arc::new(AtomicU64::new(0));
    let handler = move || {
        let refuse = count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        async move {
            if refuse {
                (StatusCode::SERVICE_UNAVAILABLE, r#"{"code":"not_ready"}"#)
            } else {
                (StatusCode::OK, "{}")
            }
        }
    };
    let (url, _server) =
        serve(Router::new().route("/v1/keys/{*key}", put(handler))).await.expect("a server");
    let load = Load { amount: Amount::Requests(40), ..puts(url) };
    let report = drive(&Runtime::real(), load).await.expect("valid");
    assert_eq!((report.succeeded, report.failed), (20, 20));
    assert_eq!(report.errors(), BTreeMap::from([("not_ready".to_owned(), 20)]));
}

#[tokio::test]
async fn nobody_there_is_an_error_of_the_connection() {
    let (url, server) = serve(Router::new()).await.expect("a server");
    drop(server);
    let load = Load { amount: Amount::Requests(3), connections: 1, ..puts(url) };
    let report = drive(&Runtime::real(), load).await.expect("valid");
    assert_eq!(report.succeeded, 0);
    assert_eq!(report.errors(), BTreeMap::from([("connection".to_owned(), 3)]));
}

/// In an open loop a request that had to wait behind a stall is charged for the wait.
#[tokio::test]
async fn an_open_loop_charges_a_stall_to_all_that_waited() {
    let gate = Arc::new(Semaphore::new(0));
    let behind = Arc::clone(&gate);
    let handler = move || {
        let gate = Arc::clone(&behind);
        async move {
            drop(gate.acquire_owned().await);
        }
    };
    let (url, _server) =
        serve(Router::new().route("/v1/keys/{*key}", put(handler))).await.expect("a server");
    // One connection, and a request due every 10 ms.
    let load = Load { connections: 1, pace: Pace::Open(100.0), ..puts(url) };
    let mut driving = start(&Runtime::real(), load).expect("valid");
    let stall = Duration::from_millis(500);
    sleep(stall).await;
    assert_eq!(driving.succeeded(), 0);
    assert!(driving.longest_gap() >= stall);
    gate.add_permits(1);
    while driving.succeeded() < 40 {
        sleep(Duration::from_millis(5)).await;
    }
    let report = driving.report();
    let latency = report.operations[&Operation::Put].latency.clone().expect("some succeeded");
    assert!(latency.max_ms >= 500.0, "{latency:?}");
    // Those that were due during the stall waited for half of it in the middle.
    assert!(latency.mean_ms >= 100.0, "{latency:?}");
}
