//! The storage's endpoints.

use axum::extract::State;
use plinth_api::log::{KeepRequest, Kept};
use plinth_api::storage::{
    Assignment, Page, PageRequest, ReadAnswer, ReadBatch, ReadBatchAnswer, ReadRequest,
    ShardConfig, ShardConfigQuery, Status, WatchAnswer, WatchRequest,
};
use plinth_api::{ErrorCode, Nothing};
use plinth_service::{Answer, FENCED, Fails as _, Failure, Json, Query, Routes, STORED};
use tokio::sync::{mpsc, oneshot};
use utoipa_axum::routes;

use crate::batching;
use crate::driver::{Command, Reply};

/// Asks the driver. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle(pub(crate) mpsc::Sender<Command>);

impl Handle {
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        let stopping = || Failure::new(ErrorCode::NotReady, "the storage is stopping");
        self.0.send(command(reply)).await.map_err(|_| stopping())?;
        Ok(Json(answer.await.map_err(|_| stopping())??))
    }
}

/// How a read may fail, beside a wrong epoch and the disk.
const READ: &[ErrorCode] = &[
    ErrorCode::FutureVersion,
    ErrorCode::TransactionTooOld,
    ErrorCode::WrongShard,
    ErrorCode::LimitExceeded,
    ErrorCode::Overloaded,
];

/// The endpoints and who may call them.
pub(crate) fn routes() -> Routes<Handle> {
    Routes::new()
        .describe("Plinth storage", "Applies the logs, and serves reads at a version.")
        .service(routes!(assign).fails(FENCED).fails(STORED))
        .service(routes!(read).fails(FENCED).fails(STORED).fails(READ))
        .service(routes!(read_batch).fails(&[ErrorCode::NotReady]))
        .service(routes!(watch).fails(FENCED).fails(STORED).fails(READ))
        .service(routes!(page).fails(FENCED).fails(STORED).fails(READ))
        .service(routes!(shard_config).fails(STORED).fails(&[
            ErrorCode::NotReady,
            ErrorCode::FutureVersion,
            ErrorCode::Overloaded,
        ]))
        .service(routes!(keep).fails(FENCED).fails(STORED))
        .service(routes!(kept).fails(STORED).fails(&[ErrorCode::NotReady]))
        .observer(routes!(status).fails(&[ErrorCode::NotReady, ErrorCode::Damaged]))
}

/// Takes up an epoch. A lower one, and the same one of another director, are refused.
#[utoipa::path(put, path = "/v1/assignment", tag = "storage", request_body = Assignment,
    responses((status = 200, body = Nothing)))]
async fn assign(
    State(handle): State<Handle>,
    Json(assignment): Json<Assignment>,
) -> Answer<Nothing> {
    handle.ask(|reply| Command::Assign(assignment, reply)).await
}

/// Reads keys and ranges at one version. It waits shortly for a version that has not arrived.
#[utoipa::path(post, path = "/v1/reads", tag = "storage", request_body = ReadRequest,
    responses((status = 200, body = ReadAnswer)))]
async fn read(
    State(handle): State<Handle>,
    Json(request): Json<ReadRequest>,
) -> Answer<ReadAnswer> {
    handle.ask(|reply| Command::Read(request, reply)).await
}

/// Reads keys for several readers at once. What is wrong with one read is said in its answer. The
/// wait for a version that has not arrived is shorter than that of a read alone.
#[utoipa::path(post, path = "/v1/read_batches", tag = "storage", request_body = ReadBatch,
    responses((status = 200, body = ReadBatchAnswer)))]
async fn read_batch(
    State(handle): State<Handle>,
    Json(batch): Json<ReadBatch>,
) -> Answer<ReadBatchAnswer> {
    batching::read(&handle, batch).await
}

/// Waits until a key has another value than the caller has seen, and that value is known to be
/// committed. A watch ends with its epoch: `stale_epoch` says to begin it again.
#[utoipa::path(post, path = "/v1/watches", tag = "storage", request_body = WatchRequest,
    responses((status = 200, body = WatchAnswer)))]
async fn watch(
    State(handle): State<Handle>,
    Json(request): Json<WatchRequest>,
) -> Answer<WatchAnswer> {
    handle.ask(|reply| Command::Watch(request, reply)).await
}

/// A part of what is on disk, for a storage that takes a copy of the tag.
#[utoipa::path(post, path = "/v1/pages", tag = "storage", request_body = PageRequest,
    responses((status = 200, body = Page)))]
async fn page(State(handle): State<Handle>, Json(request): Json<PageRequest>) -> Answer<Page> {
    handle.ask(|reply| Command::Page(request, reply)).await
}

/// The configuration as the system shard holds it on disk, assigned or not. It can wait until a
/// version is durable.
#[utoipa::path(get, path = "/v1/shard_config", tag = "storage", params(ShardConfigQuery),
    responses((status = 200, body = ShardConfig)))]
async fn shard_config(
    State(handle): State<Handle>,
    Query(query): Query<ShardConfigQuery>,
) -> Answer<ShardConfig> {
    handle.ask(|reply| Command::ShardConfig(query, reply)).await
}

/// Keeps a configuration durably. An older one than is kept already is refused.
#[utoipa::path(put, path = "/v1/system_config", tag = "storage", request_body = KeepRequest,
    responses((status = 200, body = Nothing)))]
async fn keep(State(handle): State<Handle>, Json(request): Json<KeepRequest>) -> Answer<Nothing> {
    handle.ask(|reply| Command::Keep(Box::new(request), reply)).await
}

/// The configuration that is kept.
#[utoipa::path(get, path = "/v1/system_config", tag = "storage", responses((status = 200, body = Kept)))]
async fn kept(State(handle): State<Handle>) -> Answer<Kept> {
    handle.ask(Command::Kept).await
}

/// Where the storage stands.
#[utoipa::path(get, path = "/v1/status", tag = "storage", responses((status = 200, body = Status)))]
async fn status(State(handle): State<Handle>) -> Answer<Status> {
    handle.ask(Command::Status).await
}
