//! What every service answers about itself.

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, header};
use plinth_api::common::{Check, Info, Readiness};
use plinth_api::{ErrorCode, Nothing, Problem};
use serde::{Deserialize, Serialize};
use utoipa_axum::routes;

use crate::failure::document;
use crate::{Answer, Context, Failure, Json, RequestId, Routes, monitor};

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

/// The routes that the shell adds to every service's.
pub(crate) fn routes() -> Routes<Context> {
    Routes::new()
        .anyone(routes!(livez))
        .anyone(routes!(readyz))
        .anyone(routes!(readyz_check))
        .anyone(routes!(version))
        .anyone(routes!(metrics))
        .anyone(routes!(info))
        .anyone(routes!(monitor::monitor))
}

#[utoipa::path(get, path = "/livez", tag = "process", summary = "Whether the process lives; asks nobody else",
    responses((status = 200, body = Nothing)))]
async fn livez() -> Json<Nothing> {
    Json(Nothing {})
}

#[utoipa::path(get, path = "/readyz", tag = "process", summary = "Whether the service can do its work, check by check",
    responses(
        (status = 200, body = Readiness),
        (status = 503, description = "not_ready", content_type = "application/problem+json", body = NotReady)))]
async fn readyz(State(context): State<Context>, id: RequestId) -> Response {
    let readiness = context.readiness();
    if readiness.ready {
        return Json(readiness).into_response();
    }
    let failing: Vec<String> =
        readiness.checks.iter().filter(|check| !check.ok).map(told).collect();
    let mut problem = Problem::new(ErrorCode::NotReady, failing.join("; "));
    problem.request_id = Some(id.as_str().to_owned());
    problem.trace_id = plinth_telemetry::current_trace_id();
    let mut response = document(&problem);
    if let Ok(body) = serde_json::to_vec(&NotReady { problem, readiness }) {
        *response.body_mut() = body.into();
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

fn told(check: &Check) -> String {
    format!("{}: {}", check.name, check.detail.as_deref().unwrap_or("fails"))
}

#[utoipa::path(get, path = "/readyz/{check}", tag = "process", summary = "One check of readiness",
    params(("check" = String, Path, description = "The name of a check")),
    responses((status = 200, body = Check), (status = 404, description = "not_found", body = Problem), (status = 503, description = "not_ready", body = Problem)))]
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

#[utoipa::path(get, path = "/v1/info", tag = "process", summary = "Which service and process this is",
    responses((status = 200, body = Info)))]
async fn info(State(context): State<Context>) -> Json<Info> {
    Json(context.info())
}
