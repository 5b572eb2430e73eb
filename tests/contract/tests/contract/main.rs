//! The promises, asked of every service.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod callers;
mod documents;
mod generated;
mod refusals;

use std::time::Duration;

use plinth_test_contract::{ADMIN_TOKEN, CLUSTER_SECRET, Operation};

/// Nothing here may take longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kind of caller: its name, and the header that it sends.
type Caller = (&'static str, Option<(&'static str, String)>);

fn callers() -> [Caller; 5] {
    [
        ("nobody", None),
        ("wrong secret", Some(("plinth-secret", "the-secret-of-another".to_owned()))),
        ("service", Some(("plinth-secret", CLUSTER_SECRET.to_owned()))),
        ("wrong token", Some(("authorization", "Bearer the-token-of-another".to_owned()))),
        ("administrator", Some(("authorization", format!("Bearer {ADMIN_TOKEN}")))),
    ]
}

fn client() -> reqwest::Client {
    let none = reqwest::redirect::Policy::none();
    reqwest::Client::builder().timeout(PATIENCE).redirect(none).build().expect("a client")
}

/// A request for an operation, with an empty JSON object for a body where it takes one.
fn request(
    client: &reqwest::Client,
    url: &str,
    operation: &Operation,
    caller: &Caller,
) -> reqwest::RequestBuilder {
    let method = operation.method.parse().expect("a method");
    let mut request = client.request(method, format!("{url}{}", operation.filled_path()));
    if let Some((name, value)) = &caller.1 {
        request = request.header(*name, value);
    }
    if operation.takes_json { request.json(&serde_json::json!({})) } else { request }
}
