//! The sequencer's endpoints.

use axum::extract::State;
use plinth_api::sequencer::{
    Assignment, CommitVersion, CommitVersionRequest, CommittedRequest, CommittedVersion,
    ReadVersionQuery, Status,
};
use plinth_api::{ErrorCode, Nothing};
use plinth_service::{Answer, FENCED, Fails as _, Json, Query, Routes};
use plinth_telemetry::record_version;
use tracing::Span;
use utoipa_axum::routes;

use crate::driver::Handle;

/// The endpoints and who may call them.
pub(crate) fn routes() -> Routes<Handle> {
    Routes::new()
        .describe(
            "Plinth sequencer",
            "Hands out commit versions and knows the latest committed one.",
        )
        .service(routes!(assign).fails(FENCED))
        .service(routes!(commit_version).fails(FENCED).fails(&[ErrorCode::Overloaded]))
        .service(routes!(report).fails(FENCED))
        .service(routes!(read_version).fails(FENCED))
        .observer(routes!(status).fails(&[ErrorCode::NotReady]))
}

/// Takes up an epoch. A lower one, and the same one of another director, are refused.
#[utoipa::path(put, path = "/v1/assignment", tag = "sequencer", request_body = Assignment,
    responses((status = 200, body = Nothing)))]
async fn assign(
    State(handle): State<Handle>,
    Json(assignment): Json<Assignment>,
) -> Answer<Nothing> {
    handle.assign(assignment).await?;
    Ok(Json(Nothing {}))
}

/// Hands out the version of a batch. The same (proxy, request) always gets the same answer.
#[utoipa::path(post, path = "/v1/commit_versions", tag = "sequencer", request_body = CommitVersionRequest,
    responses((status = 200, body = CommitVersion)))]
async fn commit_version(
    State(handle): State<Handle>,
    Json(request): Json<CommitVersionRequest>,
) -> Answer<CommitVersion> {
    let given = handle.commit_version(request).await?;
    record_version(&Span::current(), given.version.0);
    Ok(Json(given))
}

/// Notes a batch that every log has acknowledged, and answers the latest committed version.
#[utoipa::path(post, path = "/v1/committed_versions", tag = "sequencer", request_body = CommittedRequest,
    responses((status = 200, body = CommittedVersion)))]
async fn report(
    State(handle): State<Handle>,
    Json(request): Json<CommittedRequest>,
) -> Answer<CommittedVersion> {
    record_version(&Span::current(), request.version.0);
    let version = handle.report(request.epoch, request.version).await?;
    Ok(Json(CommittedVersion { version }))
}

/// The latest committed version. It may only be read at once every log of the epoch has confirmed,
/// after the asking began, that it still serves the epoch.
#[utoipa::path(get, path = "/v1/read_version", tag = "sequencer", params(ReadVersionQuery),
    responses((status = 200, body = CommittedVersion)))]
async fn read_version(
    State(handle): State<Handle>,
    Query(query): Query<ReadVersionQuery>,
) -> Answer<CommittedVersion> {
    Ok(Json(CommittedVersion { version: handle.committed(query.epoch).await? }))
}

/// Where the sequencer stands.
#[utoipa::path(get, path = "/v1/status", tag = "sequencer", responses((status = 200, body = Status)))]
async fn status(State(handle): State<Handle>) -> Answer<Status> {
    Ok(Json(handle.status().await?))
}
