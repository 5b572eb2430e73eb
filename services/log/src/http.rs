//! The log's endpoints.

use axum::extract::State;
use plinth_api::log::{
    Assignment, ConfirmQuery, Entry, KeepRequest, Kept, LockAnswer, LockRequest, PopRequest,
    PullAnswer, PullQuery, PushAnswer, Status,
};
use plinth_api::{ErrorCode, Nothing};
use plinth_service::{Answer, FENCED, Fails as _, Failure, Json, Query, Routes};
use tokio::sync::{mpsc, oneshot};
use tracing::Span;
use utoipa_axum::routes;

use crate::driver::{Command, Reply};

/// Asks the driver. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle(pub(crate) mpsc::Sender<Command>);

impl Handle {
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        let stopping = || Failure::new(ErrorCode::NotReady, "the log is stopping");
        self.0.send(command(reply)).await.map_err(|_| stopping())?;
        Ok(Json(answer.await.map_err(|_| stopping())?.map_err(Failure::from)?))
    }
}

/// How what must be durable may fail, beside a wrong epoch.
const WRITE: &[ErrorCode] = &[ErrorCode::Damaged, ErrorCode::DiskFull];
/// How a pull may fail, beside a wrong epoch.
const PULL: &[ErrorCode] =
    &[ErrorCode::NotFound, ErrorCode::TransactionTooOld, ErrorCode::Overloaded, ErrorCode::Damaged];

/// The endpoints and who may call them.
pub(crate) fn routes() -> Routes<Handle> {
    Routes::new()
        .describe("Plinth log", "The ordered, fsynced record of committed batches.")
        .service(routes!(lock).fails(FENCED).fails(WRITE))
        .service(routes!(assign).fails(FENCED).fails(WRITE))
        .service(routes!(push).fails(FENCED).fails(WRITE).fails(&[ErrorCode::Overloaded]))
        .service(routes!(pull).fails(FENCED).fails(PULL))
        .service(routes!(pop).fails(FENCED).fails(&[ErrorCode::NotFound, ErrorCode::Damaged]))
        .service(routes!(confirm).fails(FENCED).fails(&[ErrorCode::Damaged]))
        .service(routes!(keep).fails(FENCED).fails(WRITE))
        .service(routes!(kept).fails(&[ErrorCode::NotReady, ErrorCode::Damaged]))
        .observer(routes!(status).fails(&[ErrorCode::NotReady, ErrorCode::Damaged]))
}

/// Locks the log for an epoch: from the answer on it accepts nothing of an earlier one.
#[utoipa::path(post, path = "/v1/locks", tag = "log", request_body = LockRequest,
    responses((status = 200, body = LockAnswer)))]
async fn lock(
    State(handle): State<Handle>,
    Json(request): Json<LockRequest>,
) -> Answer<LockAnswer> {
    handle.ask(|reply| Command::Lock(request, reply)).await
}

/// Takes up an epoch: truncates above the recovery version, copies what it lacks, accepts pushes.
#[utoipa::path(put, path = "/v1/assignment", tag = "log", request_body = Assignment,
    responses((status = 200, body = Nothing)))]
async fn assign(
    State(handle): State<Handle>,
    Json(assignment): Json<Assignment>,
) -> Answer<Nothing> {
    handle.ask(|reply| Command::Assign(assignment, reply)).await
}

/// Appends an entry; answered once it is fsynced, and with it all before.
#[utoipa::path(post, path = "/v1/entries", tag = "log", request_body = Entry,
    responses((status = 200, body = PushAnswer)))]
async fn push(State(handle): State<Handle>, Json(entry): Json<Entry>) -> Answer<PushAnswer> {
    let span = Span::current();
    plinth_telemetry::record_version(&span, entry.version.0);
    handle.ask(|reply| Command::Push(entry, span, reply)).await
}

/// A tag's entries after a version; waits for something new.
#[utoipa::path(get, path = "/v1/entries", tag = "log", params(PullQuery),
    responses((status = 200, body = PullAnswer)))]
async fn pull(State(handle): State<Handle>, Query(query): Query<PullQuery>) -> Answer<PullAnswer> {
    handle.ask(|reply| Command::Pull(query, reply)).await
}

/// Notes that a member of a tag's team has everything up to a version durably.
#[utoipa::path(post, path = "/v1/pops", tag = "log", request_body = PopRequest,
    responses((status = 200, body = Nothing)))]
async fn pop(State(handle): State<Handle>, Json(request): Json<PopRequest>) -> Answer<Nothing> {
    handle.ask(|reply| Command::Pop(request, reply)).await
}

/// Confirms that the log serves an epoch and no later one has locked it.
#[utoipa::path(get, path = "/v1/confirmation", tag = "log", params(ConfirmQuery),
    responses((status = 200, body = Nothing)))]
async fn confirm(
    State(handle): State<Handle>,
    Query(query): Query<ConfirmQuery>,
) -> Answer<Nothing> {
    handle.ask(|reply| Command::Confirm(query.epoch, reply)).await
}

/// Keeps a configuration durably.
#[utoipa::path(put, path = "/v1/system_config", tag = "log", request_body = KeepRequest,
    responses((status = 200, body = Nothing)))]
async fn keep(State(handle): State<Handle>, Json(request): Json<KeepRequest>) -> Answer<Nothing> {
    handle.ask(|reply| Command::Keep(Box::new(request), reply)).await
}

/// The configuration that the log keeps.
#[utoipa::path(get, path = "/v1/system_config", tag = "log",
    responses((status = 200, body = Kept)))]
async fn kept(State(handle): State<Handle>) -> Answer<Kept> {
    handle.ask(Command::Kept).await
}

/// Where the log stands.
#[utoipa::path(get, path = "/v1/status", tag = "log", responses((status = 200, body = Status)))]
async fn status(State(handle): State<Handle>) -> Answer<Status> {
    handle.ask(Command::Status).await
}
