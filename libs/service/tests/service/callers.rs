//! Every kind of caller against every kind of route.

use bytes::Bytes;
use http::Request;
use plinth_api::ErrorCode;
use plinth_service::Secrets;

use crate::fixture::{Asker, Hosted, host_with, json, problem, secret};

const CLUSTER: &str = "the-cluster's-own-secret";
const ADMINISTRATOR: &str = "the-administrator's-token";

type Headers = &'static [(&'static str, &'static str)];

/// What a caller is told: who it is, or why not.
async fn ask(hosted: &Hosted, headers: Headers, route: &str) -> String {
    let mut request = Request::get(hosted.url(&format!("/v1/for/{route}")));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = Asker::anonymous().ask(request.body(Bytes::new()).unwrap()).await;
    if answer.status() == 200 {
        return json(&answer);
    }
    let found = problem(&answer);
    if found.code == ErrorCode::Unauthenticated {
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
    }
    found.code.as_str().to_owned()
}

async fn check(secrets: Secrets, table: &[(Headers, [&str; 4])]) {
    let hosted = host_with(secrets).await;
    for (headers, row) in table {
        for (route, expected) in ["anyone", "user", "administrator", "service"].iter().zip(row) {
            assert_eq!(ask(&hosted, headers, route).await, *expected, "{headers:?} {route}");
        }
    }
}

const NO: &str = "unauthenticated";
const FROM: (&str, &str) = ("plinth-from", "log-1@node-2");

#[tokio::test]
async fn with_secrets_only_proof_counts() {
    let secrets =
        Secrets { cluster: Some(secret(CLUSTER)), administrator: Some(secret(ADMINISTRATOR)) };
    check(
        secrets,
        &[
            (&[("plinth-secret", CLUSTER)], ["Service"; 4]),
            (
                &[("authorization", "Bearer the-administrator's-token")],
                ["Administrator", "Administrator", "Administrator", "forbidden"],
            ),
            (&[], ["Anonymous", "Anonymous", NO, NO]),
            (&[FROM], ["Anonymous", "Anonymous", NO, NO]),
            (&[("plinth-secret", "another-cluster's-secret")], [NO; 4]),
            (&[("plinth-secret", "")], [NO; 4]),
            (&[("authorization", "Bearer another-token-altogether")], [NO; 4]),
            (&[("authorization", "Basic dXNlcjpwYXNz")], [NO; 4]),
            (&[("authorization", "")], [NO; 4]),
        ],
    )
    .await;
}

#[tokio::test]
async fn without_an_administrators_token_nobody_is_the_administrator() {
    let secrets = Secrets { cluster: Some(secret(CLUSTER)), administrator: None };
    check(
        secrets,
        &[
            (&[("plinth-secret", CLUSTER)], ["Service"; 4]),
            (&[("authorization", "Bearer anything")], [NO; 4]),
            (&[], ["Anonymous", "Anonymous", NO, NO]),
        ],
    )
    .await;
}

#[tokio::test]
async fn without_any_secret_who_names_itself_is_believed() {
    check(
        Secrets::default(),
        &[
            (&[FROM], ["Service"; 4]),
            (
                &[("authorization", "Bearer anything")],
                ["Administrator", "Administrator", "Administrator", "forbidden"],
            ),
            (&[], ["Anonymous", "Anonymous", NO, NO]),
        ],
    )
    .await;
}
