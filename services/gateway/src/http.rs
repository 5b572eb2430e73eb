//! The routes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use plinth_api::coordinator::{Nodes, Processes, Recoveries};
use plinth_api::director::LiveLayout;
use plinth_api::gateway::{ClusterStatus, KeyAnswer, Written};
use plinth_api::{
    CallError, Endpoint, ErrorCode, HEADER_VERSION, Nothing, Problem, Target, coordinator, director,
};
use plinth_client::Database;
use plinth_service::{Answer, Body, Context, Failure, Json, Query, Routes};
use plinth_system_config::{RecoveryPhase, SystemConfig};
use plinth_types::{Epoch, Mutation, ServiceRef, Version};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa_axum::routes;

use crate::Config;
use crate::keys::{user_key, user_value};

/// How long a coordinator or director may take for a question about the cluster.
const ASK: Duration = Duration::from_millis(700);

/// The configuration, as a coordinator tells it.
const CONFIG: Endpoint<Nothing, SystemConfig<ServiceRef>> = Endpoint::get("/v1/config");

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Gateway(Arc<Inner>);

struct Inner {
    context: Context,
    database: Database,
    config: Config,
}

impl Gateway {
    pub(crate) fn new(context: Context, database: Database, config: Config) -> Gateway {
        Gateway(Arc::new(Inner { context, database, config }))
    }

    /// The first answer of a coordinator; a coordinator that is not the leader forwards.
    async fn ask<T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint<Nothing, T>,
    ) -> Result<T, Failure> {
        let mut last = Failure::new(ErrorCode::NoQuorum, "no coordinator is known");
        for target in &self.0.config.coordinators {
            let call = self.0.context.peers().call(target, endpoint, &Nothing {}, None, ASK);
            match call.await {
                Ok(answer) => return Ok(answer),
                Err(CallError::Problem(problem)) if problem.code != ErrorCode::NoQuorum => {
                    return Err(Failure(problem));
                }
                Err(error) => {
                    last = Failure::new(
                        ErrorCode::NoQuorum,
                        format!("no coordinator answers (the last one: {error}); try again"),
                    );
                }
            }
        }
        Err(last)
    }

    /// The live layout: as the appointed director tells it, else as it was last followed.
    async fn live(&self) -> Result<LiveLayout, Failure> {
        let followed = || self.0.database.topology().map(|topology| topology.live.clone());
        let told = match self.ask(&coordinator::STATUS).await {
            Ok(coordinator::Status { director: Some(appointed), .. }) => {
                let target = Target::from(&appointed.pid);
                let query = director::LayoutQuery::default();
                let peers = self.0.context.peers();
                peers.call(&target, &director::LAYOUT, &query, None, ASK).await.ok()
            }
            Ok(_) | Err(_) => None,
        };
        told.or_else(followed).ok_or_else(|| {
            Failure::new(
                ErrorCode::NotReady,
                "no director tells the layout yet; /v1/status says what is in the way",
            )
        })
    }
}

/// The routes of the public API.
pub(crate) fn routes() -> Routes<Gateway> {
    Routes::new()
        .describe("Plinth gateway", "The public API: keys, and the state of the cluster.")
        .user(routes!(get_key, put_key, delete_key))
        .user(routes!(get_key_b64, put_key_b64, delete_key_b64))
        .anyone(routes!(status))
        .anyone(routes!(config))
        .anyone(routes!(layout))
        .anyone(routes!(recoveries))
        .anyone(routes!(nodes))
        .anyone(routes!(processes))
}

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = routes().openapi();
    // The router's mark for "the rest of the path" is not OpenAPI's.
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths =
        paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    document
}

/// Names a key that a path can't.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
pub(crate) struct KeyQuery {
    /// The key in base64.
    #[serde(default)]
    key_b64: Option<String>,
}

/// Reads a key.
#[utoipa::path(
    get, path = "/v1/keys/{*key}",
    params(("key" = String, Path, description = "the key, percent-encoded"), KeyQuery),
    responses(
        (status = 200, description = "the value, raw; with `Accept: application/json` as JSON", body = KeyAnswer),
        (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 413, body = Problem),
        (status = 503, body = Problem),
    )
)]
async fn get_key(
    State(gateway): State<Gateway>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Query(query): Query<KeyQuery>,
) -> Result<Response, Failure> {
    let key = user_key(uri.path(), query.key_b64.as_deref())?;
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
        (status = 400, body = Problem), (status = 403, body = Problem), (status = 409, body = Problem),
        (status = 413, body = Problem), (status = 503, body = Problem),
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
        (status = 400, body = Problem), (status = 403, body = Problem), (status = 409, body = Problem),
        (status = 413, body = Problem), (status = 503, body = Problem),
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
        (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 413, body = Problem),
        (status = 503, body = Problem),
    )
)]
async fn get_key_b64(
    state: State<Gateway>,
    uri: OriginalUri,
    headers: HeaderMap,
    query: Query<KeyQuery>,
) -> Result<Response, Failure> {
    get_key(state, uri, headers, query).await
}

/// Writes a key that stands in the query.
#[utoipa::path(
    put, path = "/v1/keys", params(KeyQuery),
    request_body(content = String, description = "the value: any bytes", content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "committed", body = Written),
        (status = 400, body = Problem), (status = 403, body = Problem), (status = 409, body = Problem),
        (status = 413, body = Problem), (status = 503, body = Problem),
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
        (status = 400, body = Problem), (status = 403, body = Problem), (status = 409, body = Problem),
        (status = 413, body = Problem), (status = 503, body = Problem),
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

/// The cluster in one look. It answers during outages too.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = ClusterStatus)))]
async fn status(State(gateway): State<Gateway>) -> Answer<ClusterStatus> {
    let mut problems = Vec::new();
    let coordinator = match gateway.ask(&coordinator::STATUS).await {
        Ok(status) => Some(status),
        Err(Failure(problem)) => {
            problems.push(problem.detail);
            None
        }
    };
    let appointed = coordinator.as_ref().and_then(|status| status.director.as_ref());
    let director = match appointed {
        None => None,
        Some(appointed) => {
            let target = Target::from(&appointed.pid);
            let peers = gateway.0.context.peers();
            match peers.call(&target, &director::STATUS, &Nothing {}, None, ASK).await {
                Ok(status) => Some(status),
                Err(error) => {
                    problems.push(format!("the director does not answer: {error}"));
                    None
                }
            }
        }
    };
    let phase = match (&director, &coordinator) {
        (Some(director), _) => director.phase.clone(),
        (None, Some(coordinator)) => coordinator.phase.clone(),
        (None, None) => "unknown".to_owned(),
    };
    problems.extend(director.as_ref().and_then(|director| director.stalled.clone()));
    problems.extend(coordinator.as_ref().and_then(|coordinator| coordinator.problem.clone()));
    // The coordinators know an epoch as ready just before its proxies open; clients go by the latter.
    let accepting = director
        .as_ref()
        .is_some_and(|status| status.phase.parse().is_ok_and(RecoveryPhase::is_ready));
    let ready = accepting && coordinator.as_ref().is_some_and(|status| status.ready);
    let health = match (ready, &coordinator) {
        (true, _) => "ready",
        (false, Some(_)) => "recovering",
        (false, None) => "unavailable",
    };
    let epoch = coordinator.as_ref().map_or(Epoch::ZERO, |status| status.epoch);
    let health = health.to_owned();
    Ok(Json(ClusterStatus { health, epoch, phase, ready, problems, coordinator, director }))
}

/// The configuration as the coordinators hold it, with its number as ETag.
#[utoipa::path(
    get, path = "/v1/config",
    responses((status = 200, body = SystemConfig<ServiceRef>), (status = 503, body = Problem))
)]
async fn config(State(gateway): State<Gateway>) -> Result<Response, Failure> {
    let config = gateway.ask(&CONFIG).await?;
    let tag = HeaderValue::try_from(format!("\"{}\"", config.config_version));
    let mut response = (StatusCode::OK, Json(config)).into_response();
    if let Ok(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// Who does what now, with processes.
#[utoipa::path(
    get, path = "/v1/layout",
    responses((status = 200, body = LiveLayout), (status = 503, body = Problem))
)]
async fn layout(State(gateway): State<Gateway>) -> Answer<LiveLayout> {
    gateway.live().await.map(Json)
}

/// The recoveries, newest first.
#[utoipa::path(
    get, path = "/v1/recoveries",
    responses((status = 200, body = Recoveries), (status = 503, body = Problem))
)]
async fn recoveries(State(gateway): State<Gateway>) -> Answer<Recoveries> {
    gateway.ask(&coordinator::RECOVERIES).await.map(Json)
}

/// The nodes and their workers.
#[utoipa::path(
    get, path = "/v1/nodes",
    responses((status = 200, body = Nodes), (status = 503, body = Problem))
)]
async fn nodes(State(gateway): State<Gateway>) -> Answer<Nodes> {
    gateway.ask(&coordinator::NODES).await.map(Json)
}

/// The processes of the cluster, each with its role.
#[utoipa::path(
    get, path = "/v1/processes",
    responses((status = 200, body = Processes), (status = 503, body = Problem))
)]
async fn processes(State(gateway): State<Gateway>) -> Answer<Processes> {
    gateway.ask(&coordinator::PROCESSES).await.map(Json)
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
