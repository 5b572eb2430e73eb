//! The commit proxy's endpoints.

use axum::extract::State;
use plinth_api::commit_proxy::{
    Assignment, CommitRequest, Committed, Opening, Rate, RateAnswer, ReadVersion,
    ReadVersionRequest, Status,
};
use plinth_api::{ErrorCode, Nothing, Problem};
use plinth_service::{Answer, FENCED, Fails as _, Failure, Json, Routes};
use tracing::Span;
use utoipa_axum::routes;

use crate::driver::Handle;
use crate::transaction::Transaction;

/// How a commit may fail.
const COMMIT: &[ErrorCode] = &[
    ErrorCode::Conflict,
    ErrorCode::TransactionTooOld,
    ErrorCode::CommitUnknownResult,
    ErrorCode::LimitExceeded,
    ErrorCode::Overloaded,
    ErrorCode::PeerUnavailable,
];

/// The endpoints and who may call them. Commits come through gateways, which know their users; so
/// only services may call here, and only they can mark a transaction as the system's.
pub(crate) fn routes() -> Routes<Handle> {
    Routes::new()
        .describe(
            "Plinth commit proxy",
            "Takes commits in batches through the pipeline, and serves read versions.",
        )
        .service(routes!(assign).fails(FENCED))
        .service(routes!(open).fails(FENCED))
        .service(routes!(rate).fails(FENCED).fails(&[ErrorCode::PeerUnavailable]))
        .service(routes!(commit).fails(FENCED).fails(COMMIT))
        .service(
            routes!(read_version)
                .fails(FENCED)
                .fails(&[ErrorCode::Overloaded, ErrorCode::PeerUnavailable]),
        )
        .observer(routes!(status).fails(&[ErrorCode::NotReady]))
}

/// Takes up an epoch, closed to clients. A lower one, and the same one of another director, are
/// refused.
#[utoipa::path(put, path = "/v1/assignment", tag = "commit-proxy", request_body = Assignment,
    responses((status = 200, body = Nothing)))]
async fn assign(
    State(handle): State<Handle>,
    Json(assignment): Json<Assignment>,
) -> Answer<Nothing> {
    handle.assign(assignment).await?;
    Ok(Json(Nothing {}))
}

/// Opens the proxy to clients.
#[utoipa::path(put, path = "/v1/opening", tag = "commit-proxy", request_body = Opening,
    responses((status = 200, body = Nothing)))]
async fn open(State(handle): State<Handle>, Json(opening): Json<Opening>) -> Answer<Nothing> {
    handle.open(opening).await?;
    Ok(Json(Nothing {}))
}

/// Commits a transaction. Answered once every log has it on disk, or once it is known that it was
/// not and never will be committed; `commit_unknown_result` if neither can be told.
#[utoipa::path(post, path = "/v1/commits", tag = "commit-proxy", request_body = CommitRequest,
    responses((status = 200, body = Committed)))]
async fn commit(
    State(handle): State<Handle>,
    Json(request): Json<CommitRequest>,
) -> Answer<Committed> {
    let epoch = request.epoch;
    let transaction =
        Transaction::validate(request).map_err(|error| Failure::from(Problem::from(error)))?;
    let committed = handle.commit(epoch, transaction).await?;
    plinth_telemetry::record_version(&Span::current(), committed.version.0);
    Ok(Json(committed))
}

/// A version to read at: no commit that was acknowledged before the request is above it.
#[utoipa::path(post, path = "/v1/read_versions", tag = "commit-proxy", request_body = ReadVersionRequest,
    responses((status = 200, body = ReadVersion)))]
async fn read_version(
    State(handle): State<Handle>,
    Json(request): Json<ReadVersionRequest>,
) -> Answer<ReadVersion> {
    handle.read_version(request).await.map(Json)
}

/// Sets how many transactions a second may begin here.
#[utoipa::path(put, path = "/v1/rate", tag = "commit-proxy", request_body = Rate,
    responses((status = 200, body = RateAnswer)))]
async fn rate(State(handle): State<Handle>, Json(rate): Json<Rate>) -> Answer<RateAnswer> {
    handle.rate(rate).await.map(Json)
}

/// Where the commit proxy stands.
#[utoipa::path(get, path = "/v1/status", tag = "commit-proxy", responses((status = 200, body = Status)))]
async fn status(State(handle): State<Handle>) -> Answer<Status> {
    Ok(Json(handle.status().await?))
}
