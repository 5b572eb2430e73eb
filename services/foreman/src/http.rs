//! The foreman's endpoints.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use plinth_api::foreman::{
    Announcement, CreateWorker, Deleted, Health, HealthQuery, RetireWorker, Welcome, Worker,
    WorkerState, Workers, WorkersQuery,
};
use plinth_api::{ErrorCode, Nothing, Problem};
use plinth_service::{Answer, Context, Fails as _, Failure, Json, Query, Routes};
use plinth_types::{ServiceKind, ServiceName};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use utoipa_axum::routes;

use crate::config::MAX_WAIT_MS;
use crate::coordinators::Targets;
use crate::driver::{Message, Snapshot};
use crate::retiring;
use crate::workers::Refusal;

/// How the handlers reach the driver.
#[derive(Clone)]
pub(crate) struct Handle {
    context: Context,
    coordinators: Targets,
    driver: mpsc::Sender<Message>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
}

impl Handle {
    pub(crate) const fn new(
        context: Context,
        coordinators: Targets,
        driver: mpsc::Sender<Message>,
        snapshot: watch::Receiver<Arc<Snapshot>>,
    ) -> Self {
        Handle { context, coordinators, driver, snapshot }
    }

    pub(crate) fn worker(&self, name: ServiceName) -> Option<Worker> {
        self.snapshot.borrow().report.workers.iter().find(|worker| worker.name == name).cloned()
    }

    pub(crate) async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Message,
    ) -> Result<T, Failure> {
        let (answer, result) = oneshot::channel();
        let stopping = || Failure::from(Refusal::Stopping);
        self.driver.send(message(answer)).await.map_err(|_| stopping())?;
        Ok(result.await.map_err(|_| stopping())??)
    }

    /// Waits until what is known meets a condition, for at most `limit`.
    pub(crate) async fn wait(&self, limit: Duration, mut met: impl FnMut(&Snapshot) -> bool) {
        let mut snapshot = self.snapshot.clone();
        // Neither a passed limit nor a driver that has ended is an error: the answer shows the state.
        let _ = timeout(limit, snapshot.wait_for(|snapshot| met(snapshot))).await;
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::new(refusal.code(), refusal.to_string())
    }
}

/// How an order or an announcement may be refused.
const WORKER: &[ErrorCode] = &[ErrorCode::DuplicateName, ErrorCode::NotReady, ErrorCode::Forbidden];

fn routes_of() -> Routes<Handle> {
    Routes::new()
        .describe("Plinth foreman", "A node's workers: lists, starts and ends them.")
        .observer(routes!(list))
        .observer(routes!(show).fails(&[ErrorCode::NotFound]))
        .observer(routes!(health))
        .service(routes!(create).fails(WORKER).fails(&[ErrorCode::StaleEpoch]))
        .service(
            routes!(remove).fails(WORKER).fails(&[ErrorCode::NotFound, ErrorCode::NotImplemented]),
        )
        .service(routes!(retire).fails(WORKER).fails(&[ErrorCode::NotFound, ErrorCode::StaleEpoch]))
        .service(routes!(announce).fails(WORKER))
}

pub(crate) fn routes(handle: Handle) -> Routes {
    routes_of().with_state(handle)
}

/// The foreman's OpenAPI document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes_of().openapi()
}

/// The node's workers.
#[utoipa::path(get, path = "/v1/workers", tag = "foreman", params(("kind" = inline(Option<ServiceKind>), Query, description = "Only of this kind")),
    responses((status = 200, body = Workers)))]
async fn list(State(handle): State<Handle>, Query(query): Query<WorkersQuery>) -> Answer<Workers> {
    let workers = handle.snapshot.borrow().report.workers.clone();
    let asked = |worker: &Worker| query.kind.is_none_or(|kind| worker.name.kind == kind);
    Ok(Json(Workers { workers: workers.into_iter().filter(asked).collect() }))
}

/// One of the node's workers.
#[utoipa::path(get, path = "/v1/workers/{name}", tag = "foreman",
    params(("name" = String, Path, description = "Such as storage-1")),
    responses((status = 200, body = Worker)))]
async fn show(State(handle): State<Handle>, Path(name): Path<String>) -> Answer<Worker> {
    let name = parse_name(&name)?;
    handle.worker(name).map(Json).ok_or_else(|| {
        let node = &handle.snapshot.borrow().report.node;
        Refusal::Unknown { name, node: node.clone() }.into()
    })
}

/// Makes a worker, or returns the one of this name.
#[utoipa::path(post, path = "/v1/workers", tag = "foreman", request_body = CreateWorker,
    responses((status = 200, body = Worker)))]
async fn create(State(handle): State<Handle>, Json(request): Json<CreateWorker>) -> Answer<Worker> {
    let name = request.name;
    let limit = Duration::from_millis(request.wait_ms.min(MAX_WAIT_MS));
    handle.ask(|answer| Message::Create(request, answer)).await?;
    handle
        .wait(limit, |snapshot| {
            let mut workers = snapshot.report.workers.iter();
            workers.any(|worker| worker.name == name && worker.state == WorkerState::Up)
        })
        .await;
    handle.worker(name).map(Json).ok_or_else(|| {
        let detail = format!("{name} was made and is already gone; ask again");
        Failure::new(ErrorCode::NotReady, detail)
    })
}

/// Ends a stateless worker for good.
#[utoipa::path(delete, path = "/v1/workers/{name}", tag = "foreman",
    params(("name" = String, Path, description = "Such as sequencer-1")),
    responses((status = 200, body = Deleted)))]
async fn remove(State(handle): State<Handle>, Path(name): Path<String>) -> Answer<Deleted> {
    let name = parse_name(&name)?;
    handle.ask(|answer| Message::Remove(name, answer)).await?;
    Ok(Json(Nothing {}))
}

/// Removes a durable worker that the recorded layout names no more. The foreman makes sure of that at
/// the coordinators; the directory is set aside, and deleted an hour later.
#[utoipa::path(post, path = "/v1/workers/retire", tag = "foreman", request_body = RetireWorker,
    responses((status = 200, body = Nothing)))]
async fn retire(
    State(handle): State<Handle>,
    Json(request): Json<RetireWorker>,
) -> Answer<Nothing> {
    let (context, coordinators) = (handle.context.clone(), handle.coordinators.clone());
    retiring::retire(&context, coordinators, handle, request).await?;
    Ok(Json(Nothing {}))
}

/// A worker makes itself known.
#[utoipa::path(post, path = "/v1/workers/announce", tag = "foreman", request_body = Announcement,
    responses((status = 200, body = Welcome)))]
async fn announce(
    State(handle): State<Handle>,
    Json(announcement): Json<Announcement>,
) -> Answer<Welcome> {
    handle.ask(|answer| Message::Announce(announcement, answer)).await.map(Json)
}

/// The node's health: whether every log and storage that exists here has announced itself.
#[utoipa::path(get, path = "/v1/health", tag = "foreman", params(HealthQuery),
    responses((status = 200, body = Health)))]
async fn health(State(handle): State<Handle>, Query(query): Query<HealthQuery>) -> Answer<Health> {
    let limit = query.wait.as_deref().map_or(Ok(Duration::ZERO), parse_wait)?;
    handle.wait(limit, |snapshot| snapshot.missing.is_empty()).await;
    Ok(Json(handle.snapshot.borrow().health()))
}

fn parse_name(text: &str) -> Result<ServiceName, Failure> {
    text.parse().map_err(|error: plinth_types::ParseError| {
        Problem::new(ErrorCode::InvalidRequest, error.to_string()).with("field", "name").into()
    })
}

/// A time such as `5s` or `500ms`, cut off at the longest wait.
fn parse_wait(text: &str) -> Result<Duration, Failure> {
    let ms = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(ms), _) => ms.parse::<u64>().ok(),
        (None, Some(s)) => s.parse::<u64>().ok().and_then(|s| s.checked_mul(1000)),
        (None, None) => None,
    };
    ms.map(|ms| Duration::from_millis(ms.min(MAX_WAIT_MS))).ok_or_else(|| {
        let detail = format!("wait={text:?} is not a time such as 5s or 500ms");
        Problem::new(ErrorCode::InvalidRequest, detail).with("field", "wait").into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_seconds_or_milliseconds_and_bounded() {
        assert_eq!(parse_wait("5s").ok(), Some(Duration::from_secs(5)));
        assert_eq!(parse_wait("500ms").ok(), Some(Duration::from_millis(500)));
        assert_eq!(parse_wait("99999999999999999999s").ok(), None);
        assert_eq!(parse_wait("1h").ok(), None);
        assert_eq!(parse_wait("99999s").ok(), Some(Duration::from_millis(MAX_WAIT_MS)));
        for text in ["", "s", "ms", "-1s", "1.5s", "five"] {
            assert!(parse_wait(text).is_err(), "{text}");
        }
    }
}
