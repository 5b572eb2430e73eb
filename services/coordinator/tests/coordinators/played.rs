//! Services that the tests play.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use plinth_api::config::{ConfigPatch, ConfigPatched, LevelRaised, PatchState, RaiseLevel};
use plinth_api::director::{Appointment, Dismissal, Status};
use plinth_api::log::Kept;
use plinth_api::storage::{ShardConfig, Status as StorageStatus};
use plinth_api::{ErrorCode, Nothing};
use plinth_runtime::{Runtime, Scope, ScopeGuard};
use plinth_service::{Answer, Context, Failure, Host, HostOptions, Json, Routes, Secrets};
use plinth_system_config::{Parameters, Recorded};
use plinth_types::{ClusterId, ConfigVersion, Epoch, Pid, ServiceRef, StoreId, Version};
use tokio::task::JoinHandle;
use utoipa_axum::routes;

/// A process of its own: it ends when this is dropped.
pub(crate) struct Life {
    guard: ScopeGuard,
    task: JoinHandle<Option<()>>,
}

impl Life {
    pub(crate) fn start(work: impl Future<Output = ()> + Send + 'static) -> Life {
        let (scope, guard) = Scope::new();
        Life { guard, task: scope.spawn("process", work) }
    }

    /// Ends it as `kill -9` does.
    pub(crate) async fn kill(self) {
        drop(self.guard);
        drop(self.task.await);
    }
}

/// A service that runs until it is killed or dropped.
pub(crate) struct Played {
    pub(crate) service: ServiceRef,
    pub(crate) context: Context,
    life: Life,
}

impl Played {
    pub(crate) async fn start(
        service: ServiceRef,
        cluster: ClusterId,
        routes: impl FnOnce(&Context) -> Routes,
    ) -> Played {
        let options = HostOptions {
            service: service.clone(),
            bind: "127.0.0.1:0".to_owned(),
            advertise: None,
            cluster: Some(cluster),
            secrets: Secrets { cluster: None, administrator: None },
        };
        let host = Host::bind(Runtime::real(), options).await.unwrap();
        let context = host.context();
        let routes = routes(&context);
        let life = Life::start(async move {
            drop(host.run(routes, std::future::pending()).await);
        });
        Played { service, context, life }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.context.pid().clone()
    }

    /// Ends it as `kill -9` does.
    pub(crate) async fn kill(self) {
        self.life.kill().await;
    }
}

/// What a played director was told.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<Appointment>>>, Arc<Mutex<Option<Dismissal>>>);

impl Told {
    pub(crate) fn last(&self) -> Option<Appointment> {
        self.0.lock().unwrap().last().cloned()
    }

    pub(crate) fn dismissal(&self) -> Option<Dismissal> {
        self.1.lock().unwrap().clone()
    }
}

#[utoipa::path(put, path = "/v1/appointment", request_body = Appointment, responses((status = 200, body = Nothing)))]
async fn appoint(State(told): State<Told>, Json(request): Json<Appointment>) -> Answer<Nothing> {
    let mut told = told.0.lock().unwrap();
    if told.last().is_some_and(|last| last.epoch != request.epoch) {
        return Err(Failure::new(ErrorCode::Superseded, "one epoch a life"));
    }
    told.push(request);
    Ok(Json(Nothing {}))
}

#[utoipa::path(put, path = "/v1/dismissal", request_body = Dismissal, responses((status = 200, body = Nothing)))]
async fn dismiss(State(told): State<Told>, Json(request): Json<Dismissal>) -> Answer<Nothing> {
    *told.1.lock().unwrap() = Some(request);
    Ok(Json(Nothing {}))
}

#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)))]
async fn director_status(State(told): State<Told>) -> Json<Status> {
    let epoch = told.last().map_or(Epoch::ZERO, |last| last.epoch);
    let (phase, stalled, phases) = ("standby".to_owned(), None, vec![]);
    let (copies, degraded) = (vec![], vec![]);
    Json(Status { epoch, phase, stalled, phases, rate: None, copies, degraded })
}

#[utoipa::path(patch, path = "/v1/config", request_body = ConfigPatch, responses((status = 200, body = ConfigPatched)))]
async fn patch(Json(patch): Json<ConfigPatch>) -> Answer<ConfigPatched> {
    let mut parameters = Parameters::default();
    parameters.logs = u32::try_from(patch.parameters.0["logs"]).unwrap();
    Ok(Json(ConfigPatched {
        state: PatchState::Durable,
        config_version: ConfigVersion(77),
        epoch: Epoch(1),
        changed: vec![],
        begins_epoch: true,
        parameters,
    }))
}

#[utoipa::path(put, path = "/v1/format_level", request_body = RaiseLevel, responses((status = 200, body = LevelRaised)))]
async fn raise(Json(order): Json<RaiseLevel>) -> Answer<LevelRaised> {
    Ok(Json(LevelRaised {
        state: PatchState::Durable,
        config_version: ConfigVersion(77),
        epoch: Epoch(1),
        from: 0,
        level: order.level,
    }))
}

/// A director that does what it is told and nothing else.
pub(crate) async fn director(service: ServiceRef, cluster: ClusterId) -> (Played, Told) {
    let told = Told::default();
    let shared = told.clone();
    let routes = Routes::new()
        .service(routes!(appoint))
        .service(routes!(dismiss))
        .service(routes!(patch))
        .service(routes!(raise))
        .anyone(routes!(director_status));
    (Played::start(service, cluster, |_| routes.with_state(shared)).await, told)
}

#[derive(Clone)]
struct Keeps {
    store: StoreId,
    recorded: Arc<Recorded>,
}

#[utoipa::path(get, path = "/v1/system_config", responses((status = 200, body = Kept)))]
async fn kept(State(keeps): State<Keeps>) -> Json<Kept> {
    Json(Kept { recorded: Some(Recorded::clone(&keeps.recorded)) })
}

#[utoipa::path(get, path = "/v1/shard_config", responses((status = 200, body = ShardConfig)))]
async fn shard_config(State(keeps): State<Keeps>) -> Json<ShardConfig> {
    Json(ShardConfig {
        store: keeps.store,
        version: Version(0),
        epoch: Epoch(0),
        config: None,
        shards: vec![],
    })
}

#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = StorageStatus)))]
async fn storage_status(State(keeps): State<Keeps>) -> Json<StorageStatus> {
    Json(StorageStatus {
        store: keeps.store,
        epoch: Epoch(0),
        tags: vec![],
        queue_bytes: 0,
        lacks: BTreeSet::new(),
    })
}

/// A storage that keeps a configuration.
pub(crate) async fn storage(
    service: ServiceRef,
    cluster: ClusterId,
    store: StoreId,
    recorded: Recorded,
) -> Played {
    let keeps = Keeps { store, recorded: Arc::new(recorded) };
    let routes = Routes::new()
        .service(routes!(kept))
        .service(routes!(shard_config))
        .anyone(routes!(storage_status));
    Played::start(service, cluster, |_| routes.with_state(keeps)).await
}
