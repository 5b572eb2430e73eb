//! The routes.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, header};
use plinth_api::gateway::{KeyAnswer, Written};
use plinth_api::{ErrorCode, HEADER_VERSION, Problem};
use plinth_client::Database;
use plinth_service::{Body, Caller, Context, Fails as _, Failure, Json, Query, RequestId, Routes};
use plinth_types::{Key, Mutation, Version};
use serde::Deserialize;
use utoipa_axum::routes;

use crate::keys::{any_key, user_key, user_value};
use crate::{Config, cluster};

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Gateway(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) context: Context,
    pub(crate) database: Database,
    pub(crate) config: Config,
}

impl Gateway {
    pub(crate) fn new(context: Context, database: Database, config: Config) -> Gateway {
        Gateway(Arc::new(Inner { context, database, config }))
    }
}

/// How a request for a key may fail.
const KEY: &[ErrorCode] = &[
    ErrorCode::SystemKey,
    ErrorCode::LimitExceeded,
    ErrorCode::TransactionTooOld,
    ErrorCode::Overloaded,
    ErrorCode::NotReady,
    ErrorCode::PeerUnavailable,
    ErrorCode::NoQuorum,
    ErrorCode::FutureVersion,
];

/// How a commit may fail beside.
const COMMIT: &[ErrorCode] = &[ErrorCode::Conflict, ErrorCode::CommitUnknownResult];

/// The routes of the public API.
pub(crate) fn routes() -> Routes<Gateway> {
    Routes::new()
        .describe("Plinth gateway", "The public API: keys, and the state of the cluster.")
        .browsable()
        .user(routes!(get_key).fails(KEY).fails(&[ErrorCode::KeyNotFound]))
        .user(routes!(put_key, delete_key).fails(KEY).fails(COMMIT))
        .user(routes!(get_key_b64).fails(KEY).fails(&[ErrorCode::KeyNotFound]))
        .user(routes!(put_key_b64, delete_key_b64).fails(KEY).fails(COMMIT))
        .merge(cluster::routes())
}

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().openapi()
}

/// Names a key that a path can't.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
pub(crate) struct KeyQuery {
    /// The key in base64.
    #[serde(default)]
    key_b64: Option<String>,
}

/// The key to be read. The administrator may read the system's too, which leaves a line in the log.
fn readable_key(
    caller: Caller,
    id: &RequestId,
    path: &str,
    key_b64: Option<&str>,
) -> Result<Key, Failure> {
    if caller != Caller::Administrator {
        return user_key(path, key_b64);
    }
    let key = any_key(path, key_b64)?;
    if key.is_system() {
        tracing::info!(target: "plinth_audit", ?caller, %key, request_id = id.as_str(), "system key read");
    }
    Ok(key)
}

/// Reads a key. Keys from `\xff` on are the administrator's to read.
#[utoipa::path(
    get, path = "/v1/keys/{*key}",
    params(("key" = String, Path, description = "the key, percent-encoded"), KeyQuery),
    responses(
        (status = 200, description = "the value, raw; with `Accept: application/json` as JSON", body = KeyAnswer),
    )
)]
async fn get_key(
    State(gateway): State<Gateway>,
    caller: Caller,
    id: RequestId,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Query(query): Query<KeyQuery>,
) -> Result<Response, Failure> {
    let key = readable_key(caller, &id, uri.path(), query.key_b64.as_deref())?;
    let inner = &gateway.0;
    let read = inner.database.get(&key, inner.config.deadline).await.map_err(Problem::from)?;
    let Some(value) = read.value else {
        let problem = Problem::new(ErrorCode::KeyNotFound, format!("there is no key {key}"));
        return Err(problem.with("version", read.version).into());
    };
    let json = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    let mut response = if json {
        Json(KeyAnswer { key, value, version: read.version }).into_response()
    } else {
        let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
        (kind, value.0).into_response()
    };
    tell_version(&mut response, read.version);
    Ok(response)
}

/// Writes a key.
#[utoipa::path(
    put, path = "/v1/keys/{*key}",
    params(("key" = String, Path, description = "the key, percent-encoded"), KeyQuery),
    request_body(content = String, description = "the value: any bytes", content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "committed", body = Written),
    )
)]
async fn put_key(
    State(gateway): State<Gateway>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<KeyQuery>,
    Body(body): Body,
) -> Result<Response, Failure> {
    let key = user_key(uri.path(), query.key_b64.as_deref())?;
    let value = user_value(body)?;
    gateway.write(Mutation::Set { key, value }).await
}

/// Removes a key. Removing a key that is not there is no error.
#[utoipa::path(
    delete, path = "/v1/keys/{*key}",
    params(("key" = String, Path, description = "the key, percent-encoded"), KeyQuery),
    responses(
        (status = 200, description = "committed", body = Written),
    )
)]
async fn delete_key(
    State(gateway): State<Gateway>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<KeyQuery>,
) -> Result<Response, Failure> {
    let key = user_key(uri.path(), query.key_b64.as_deref())?;
    gateway.write(Mutation::Clear { key }).await
}

/// Reads a key that stands in the query.
#[utoipa::path(
    get, path = "/v1/keys", params(KeyQuery),
    responses(
        (status = 200, description = "the value", body = KeyAnswer),
    )
)]
async fn get_key_b64(
    state: State<Gateway>,
    caller: Caller,
    id: RequestId,
    uri: OriginalUri,
    headers: HeaderMap,
    query: Query<KeyQuery>,
) -> Result<Response, Failure> {
    get_key(state, caller, id, uri, headers, query).await
}

/// Writes a key that stands in the query.
#[utoipa::path(
    put, path = "/v1/keys", params(KeyQuery),
    request_body(content = String, description = "the value: any bytes", content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "committed", body = Written),
    )
)]
async fn put_key_b64(
    state: State<Gateway>,
    uri: OriginalUri,
    query: Query<KeyQuery>,
    body: Body,
) -> Result<Response, Failure> {
    put_key(state, uri, query, body).await
}

/// Removes a key that stands in the query.
#[utoipa::path(
    delete, path = "/v1/keys", params(KeyQuery),
    responses(
        (status = 200, description = "committed", body = Written),
    )
)]
async fn delete_key_b64(
    state: State<Gateway>,
    uri: OriginalUri,
    query: Query<KeyQuery>,
) -> Result<Response, Failure> {
    delete_key(state, uri, query).await
}

impl Gateway {
    async fn write(&self, mutation: Mutation) -> Result<Response, Failure> {
        let write = self.0.database.write(vec![mutation], self.0.config.deadline);
        let version = write.await.map_err(Problem::from)?.version;
        let mut response = Json(Written { version }).into_response();
        tell_version(&mut response, version);
        Ok(response)
    }
}

fn tell_version(response: &mut Response, version: Version) {
    response.headers_mut().insert(HEADER_VERSION, HeaderValue::from(version.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_every_route_in_openapis_own_form() {
        let document = openapi();
        let paths: Vec<&str> = document.paths.paths.keys().map(String::as_str).collect();
        for path in ["/v1/keys/{key}", "/v1/keys", "/v1/status", "/v1/config", "/v1/layout"] {
            assert!(paths.contains(&path), "{path} is missing from {paths:?}");
        }
    }
}
