//! What every service answers about itself.

use std::sync::Arc;

use axum::extract::{FromRef, Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, header};
use plinth_api::common::{Check, Info, Readiness};
use plinth_api::{ErrorCode, Nothing, Problem};
use serde::{Deserialize, Serialize};
use utoipa_axum::routes;

use crate::document::LazyDocument;
use crate::failure::document;
use crate::{Answer, Context, Fails as _, Failure, Json, Query, RequestId, Routes, monitor};

/// Which release it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReleaseInfo {
    /// Always `plinth`.
    pub name: String,
    /// The release.
    pub version: String,
}

/// A service that is not ready says so with a problem that has its checks as further members.
#[derive(Serialize, utoipa::ToSchema)]
struct NotReady {
    #[serde(flatten)]
    problem: Problem,
    #[serde(flatten)]
    readiness: Readiness,
}

/// What these handlers share.
#[derive(Clone)]
pub(crate) struct Common {
    context: Context,
    document: Arc<LazyDocument>,
}

impl Common {
    pub(crate) fn new(context: Context, document: LazyDocument) -> Common {
        Common { context, document: Arc::new(document) }
    }
}

impl FromRef<Common> for Context {
    fn from_ref(common: &Common) -> Context {
        common.context.clone()
    }
}

/// The routes that the shell adds to every service's.
pub(crate) fn routes() -> Routes<Common> {
    Routes::new()
        .anyone(routes!(livez))
        .anyone(routes!(readyz).fails(&[ErrorCode::NotReady]))
        .anyone(routes!(readyz_check).fails(&[ErrorCode::NotFound, ErrorCode::NotReady]))
        .anyone(routes!(version))
        .anyone(routes!(metrics))
        .anyone(routes!(openapi))
        .anyone(routes!(info))
        .anyone(routes!(monitor::monitor).fails(&[ErrorCode::Overloaded]))
}

/// Which checks are told.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
struct ReadyQuery {
    /// Also tell the checks that hold: `?verbose`, or `?verbose=true`.
    #[serde(default)]
    #[param(pattern = "^(|true|false)$")]
    verbose: Option<String>,
}

impl ReadyQuery {
    fn verbose(&self) -> Result<bool, Failure> {
        match self.verbose.as_deref() {
            Some("" | "true") => Ok(true),
            None | Some("false") => Ok(false),
            Some(other) => {
                let detail = format!("verbose={other:?}: send `?verbose`, or true or false");
                Err(Failure::new(ErrorCode::InvalidRequest, detail).with("field", "verbose"))
            }
        }
    }
}

#[utoipa::path(get, path = "/livez", tag = "process", summary = "Whether the process lives; asks nobody else",
    responses((status = 200, body = Nothing)))]
async fn livez() -> Json<Nothing> {
    Json(Nothing {})
}

#[utoipa::path(get, path = "/readyz", tag = "process", summary = "Whether the service can do its work, and which checks fail",
    params(ReadyQuery),
    responses(
        (status = 200, body = Readiness),
        (status = 503, content_type = "application/problem+json", body = NotReady)))]
async fn readyz(
    State(context): State<Context>,
    Query(query): Query<ReadyQuery>,
    id: RequestId,
) -> Result<Response, Failure> {
    let mut readiness = context.readiness();
    let failing: Vec<String> =
        readiness.checks.iter().filter(|check| !check.ok).map(told).collect();
    if !query.verbose()? {
        readiness.checks.retain(|check| !check.ok);
    }
    if readiness.ready {
        return Ok(Json(readiness).into_response());
    }
    let mut problem = Problem::new(ErrorCode::NotReady, failing.join("; "));
    problem.request_id = Some(id.as_str().to_owned());
    problem.trace_id = plinth_telemetry::current_trace_id();
    let mut response = document(&problem);
    if let Ok(body) = serde_json::to_vec(&NotReady { problem, readiness }) {
        *response.body_mut() = body.into();
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    Ok(response)
}

fn told(check: &Check) -> String {
    format!("{}: {}", check.name, check.detail.as_deref().unwrap_or("fails"))
}

#[utoipa::path(get, path = "/readyz/{check}", tag = "process", summary = "One check of readiness",
    params(("check" = String, Path, description = "The name of a check")),
    responses((status = 200, body = Check)))]
async fn readyz_check(State(context): State<Context>, Path(name): Path<String>) -> Answer<Check> {
    let checks = context.readiness().checks;
    let names: Vec<String> = checks.iter().map(|check| check.name.clone()).collect();
    match checks.into_iter().find(|check| check.name == name) {
        Some(check) if check.ok => Ok(Json(check)),
        Some(check) => Err(Failure::new(ErrorCode::NotReady, told(&check))),
        None => Err(Failure::new(
            ErrorCode::NotFound,
            format!("no check {name:?}; there are: {}", names.join(", ")),
        )),
    }
}

#[utoipa::path(get, path = "/version", tag = "process", summary = "Which release it is", responses((status = 200, body = ReleaseInfo)))]
async fn version() -> Json<ReleaseInfo> {
    Json(ReleaseInfo { name: "plinth".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
}

#[utoipa::path(get, path = "/metrics", tag = "process", summary = "Metrics in Prometheus' text format",
    responses((status = 200, content_type = "text/plain", body = String)))]
async fn metrics(State(context): State<Context>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], context.metrics().render()).into_response()
}

#[utoipa::path(get, path = "/openapi.json", tag = "process", summary = "This document",
    responses((status = 200, content_type = "application/json", body = Object)))]
async fn openapi(State(common): State<Common>) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], common.document.text().to_owned()).into_response()
}

#[utoipa::path(get, path = "/v1/info", tag = "process", summary = "Which service and process this is",
    responses((status = 200, body = Info)))]
async fn info(State(context): State<Context>) -> Json<Info> {
    Json(context.info())
}
