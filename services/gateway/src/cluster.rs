//! The state of the cluster, and what the administrator may do about it: asked of the coordinators
//! and the director, and passed on.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http::HeaderMap;
use plinth_api::config::{
    ConfigPatch, ConfigPatched, LevelRaised, PATCH_CONFIG, PatchQuery, RAISE_LEVEL, RaiseLevel,
};
use plinth_api::coordinator::{
    BeginRecovery, Begun, CarriedOut, CarryOut, ClusterHealth, Processes, Recoveries, RecoveryPlan,
};
use plinth_api::director::LiveLayout;
use plinth_api::gateway::ClusterStatus;
use plinth_api::{
    Answered, CallError, Endpoint, ErrorCode, HEADER_SERVED_BY, Nothing, Target, coordinator,
    director,
};
use plinth_service::{
    Answer, Condition, Fails as _, Failure, Json, LED, Query, Routes, changed, tagged,
};
use plinth_system_config::{RecoveryPhase, SystemConfig};
use plinth_types::{Epoch, ServiceRef};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::interval;
use utoipa_axum::routes;

use crate::http::Gateway;

/// How long a coordinator or director may take for a question about the cluster.
const ASK: Duration = Duration::from_millis(700);
/// How long a coordinator is waited for before the next one is asked as well.
const STAGGER: Duration = Duration::from_millis(100);
/// How long the coordinators may take for an order.
const ORDER: Duration = Duration::from_secs(2);
/// How long a coordinator may take to draw a recovery plan up: it asks everybody, and waits for those
/// who do not answer.
const PLANNING: Duration = Duration::from_secs(5);
/// How long it may take to carry one out: to draw it up again, and to hold ballots.
const CARRYING_OUT: Duration = Duration::from_secs(20);

/// The refusals of what an operator may have to decide.
const DECIDED: &[ErrorCode] = &[ErrorCode::NotFound, ErrorCode::DiskFull, ErrorCode::Damaged];

/// How long the coordinators' leader and the director may take for a change of the configuration.
pub(crate) const CHANGE: Duration = Duration::from_secs(19);

/// Why parameters may not be changed.
const PATCH_REFUSALS: &[ErrorCode] = &[
    ErrorCode::PreconditionFailed,
    ErrorCode::PreconditionRequired,
    ErrorCode::Unsatisfiable,
    ErrorCode::CommitUnknownResult,
];

pub(crate) fn routes() -> Routes<Gateway> {
    Routes::new()
        .observer(routes!(status))
        .observer(routes!(health))
        .observer(routes!(config).fails(LED))
        .administrator(routes!(patch_config).fails(LED).fails(PATCH_REFUSALS))
        .administrator(
            routes!(raise_format_level)
                .fails(LED)
                .fails(PATCH_REFUSALS)
                .fails(&[ErrorCode::NotFound]),
        )
        .observer(routes!(layout).fails(&[ErrorCode::NotReady]))
        .observer(routes!(recoveries).fails(LED))
        .administrator(routes!(begin_recovery).fails(LED).fails(&[ErrorCode::Overloaded]))
        .observer(routes!(recovery_plan).fails(LED).fails(DECIDED))
        .administrator(routes!(carry_out).fails(LED).fails(DECIDED).fails(&[ErrorCode::Superseded]))
        .observer(routes!(processes).fails(LED))
}

/// An answer that another service gave, with its name.
pub(crate) fn served<T: Serialize>(answer: Answered<T>) -> Response {
    let mut response = Json(answer.body).into_response();
    if let Some(by) = answer.served_by {
        response.headers_mut().insert(HEADER_SERVED_BY, by);
    }
    response
}

/// Whether another coordinator may know better than the one that answers this.
fn goes_on(error: &CallError) -> bool {
    match error.code() {
        Some(code) => matches!(
            code,
            ErrorCode::NoQuorum | ErrorCode::PeerUnavailable | ErrorCode::DeadlineExceeded
        ),
        None => true,
    }
}

fn no_answer(error: &CallError) -> Failure {
    let detail = format!("no coordinator answers (the last one: {error}); try again");
    Failure::new(ErrorCode::NoQuorum, detail)
}

/// The coordinators that have been given an order in vain: what the last one has said.
struct Tried(Failure);

impl Default for Tried {
    fn default() -> Tried {
        Tried(Failure::new(ErrorCode::NoQuorum, "no coordinator is known"))
    }
}

impl Tried {
    /// What is to be answered; nothing where the next coordinator may be asked.
    fn note<T>(
        &mut self,
        answer: Result<Answered<T>, CallError>,
    ) -> Option<Result<Answered<T>, Failure>> {
        match answer {
            Err(error) if goes_on(&error) && error.had_no_effect() => {
                self.0 = no_answer(&error);
                None
            }
            answer => Some(answer.map_err(Failure::from)),
        }
    }
}

impl Gateway {
    /// The first answer of a coordinator; one that is not the leader forwards. One that is slow is
    /// not waited for: the next is asked beside it. Those whom only the cluster file names may be no
    /// members any more, and are asked once nobody else has answered.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint<Nothing, T>,
    ) -> Result<Answered<T>, Failure> {
        let mut last = Failure::new(ErrorCode::NoQuorum, "no coordinator is known");
        let peers = self.0.context.peers();
        let (named, others) = self.0.config.coordinators.likely();
        let (mut left, mut others) = (named.iter(), others.iter());
        let mut asked = FuturesUnordered::new();
        let mut ticks = interval(STAGGER);
        loop {
            if asked.is_empty() {
                ticks.reset_immediately();
            }
            tokio::select! {
                biased;
                Some(answer) = asked.next() => match answer {
                    Ok(answer) => return Ok(answer),
                    Err(error) if goes_on(&error) => last = no_answer(&error),
                    Err(error) => return Err(error.into()),
                },
                _ = ticks.tick() => match left.next() {
                    Some(target) => asked.push(peers.answered(target, endpoint, &Nothing {}, ASK)),
                    None if asked.is_empty() => match others.next() {
                        Some(target) => {
                            asked.push(peers.answered(target, endpoint, &Nothing {}, ASK));
                        }
                        None => return Err(last),
                    },
                    None => {}
                },
            }
        }
    }

    /// Gives an order to the first coordinator that can take it, and to no other one once it may
    /// have had an effect.
    pub(crate) async fn order<Req: Serialize, T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint<Req, T>,
        request: &Req,
        limit: Duration,
    ) -> Result<Answered<T>, Failure> {
        let mut tried = Tried::default();
        for target in &self.0.config.coordinators.targets() {
            let answer = self.0.context.peers().answered(target, endpoint, request, limit).await;
            if let Some(answer) = tried.note(answer) {
                return answer;
            }
        }
        Err(tried.0)
    }

    /// The same for a change that takes effect only where its condition holds.
    async fn change<Req: Serialize, T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint<Req, T>,
        query: PatchQuery,
        headers: &HeaderMap,
        request: &Req,
    ) -> Result<Answered<T>, Failure> {
        let condition = Condition::of(headers)?;
        let (path, tag) = (query.path(endpoint), condition.header());
        let peers = self.0.context.peers();
        let mut tried = Tried::default();
        for target in &self.0.config.coordinators.targets() {
            let answer = peers.conditional(target, endpoint, &path, tag, request, CHANGE).await;
            if let Some(answer) = tried.note(answer) {
                return answer;
            }
        }
        Err(tried.0)
    }

    /// The live layout: as the appointed director tells it, else as it was last followed.
    async fn live(&self) -> Result<LiveLayout, Failure> {
        let followed = || self.0.database.topology().map(|topology| topology.live.clone());
        let told = match self.ask(&coordinator::STATUS).await.map(|answer| answer.body) {
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

/// The cluster in one look. It answers during outages too.
#[utoipa::path(get, path = "/v1/status", operation_id = "get_status", tag = "cluster", responses((status = 200, body = ClusterStatus)))]
async fn status(State(gateway): State<Gateway>) -> Answer<ClusterStatus> {
    let mut problems = Vec::new();
    let coordinator = match gateway.ask(&coordinator::STATUS).await {
        Ok(answer) => Some(answer.body),
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
    problems.extend(director.iter().flat_map(|director| director.degraded.iter().cloned()));
    problems.extend(coordinator.as_ref().and_then(|coordinator| coordinator.problem.clone()));
    let rate = director.as_ref().and_then(|director| director.rate.as_ref());
    if let Some((per_second, reason)) =
        rate.and_then(|rate| Some((rate.per_second?, rate.reason.as_ref()?)))
    {
        problems.push(format!("transactions are limited to {per_second} a second: {reason}"));
    }
    // The coordinators know an epoch as ready just before its proxies open; clients go by the latter.
    let accepting = director
        .as_ref()
        .is_some_and(|status| status.phase.parse().is_ok_and(RecoveryPhase::is_ready));
    let ready = accepting && coordinator.as_ref().is_some_and(|status| status.ready);
    let is_degraded = director.as_ref().is_some_and(|director| !director.degraded.is_empty());
    let health = match (ready, &coordinator) {
        (true, _) if is_degraded => "degraded",
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
    get, path = "/v1/config", operation_id = "get_config", tag = "cluster",
    responses(
        (status = 200, body = SystemConfig<ServiceRef>),
        (status = 304, description = "It is the one of If-None-Match"),
    )
)]
async fn config(State(gateway): State<Gateway>, asked: HeaderMap) -> Result<Response, Failure> {
    let answer = gateway.ask(&coordinator::CONFIG).await?;
    let tag = answer.body.config_version;
    Ok(tagged(&asked, &tag, served(answer)))
}

/// Changes parameters, as a whole or not at all: what is named gets its value, what is not stays. The
/// director makes the change, or the coordinators' leader while no epoch is ready.
#[utoipa::path(
    patch, path = "/v1/config", tag = "cluster",
    params(PatchQuery, ("If-Match" = String, Header, description = "The ETag of the configuration that is changed, or *")),
    request_body = ConfigPatch,
    responses(
        (status = 200, description = "It is made, and in storage; or would be, or is so already", body = ConfigPatched),
        (status = 202, description = "No epoch is ready: the coordinators have it, and the next epoch brings it into storage", body = ConfigPatched),
    )
)]
async fn patch_config(
    State(gateway): State<Gateway>,
    Query(query): Query<PatchQuery>,
    headers: HeaderMap,
    Json(patch): Json<ConfigPatch>,
) -> Result<Response, Failure> {
    let answer = gateway.change(&PATCH_CONFIG, query, &headers, &patch).await?;
    Ok(changed(answer.served_by, answer.body))
}

/// Raises the level that the configuration is written at, once every node runs a release that reads it.
/// It never goes back.
#[utoipa::path(
    put, path = "/v1/format_level", tag = "cluster",
    params(PatchQuery, ("If-Match" = String, Header, description = "The ETag of the configuration that is changed, or *")),
    request_body = RaiseLevel,
    responses(
        (status = 200, description = "It is raised, and in storage; or would be, or is so already", body = LevelRaised),
        (status = 202, description = "No epoch is ready: the coordinators have it, and the next epoch brings it into storage", body = LevelRaised),
    )
)]
async fn raise_format_level(
    State(gateway): State<Gateway>,
    Query(query): Query<PatchQuery>,
    headers: HeaderMap,
    Json(order): Json<RaiseLevel>,
) -> Result<Response, Failure> {
    let answer = gateway.change(&RAISE_LEVEL, query, &headers, &order).await?;
    Ok(changed(answer.served_by, answer.body))
}

/// Who does what now, with processes.
#[utoipa::path(get, path = "/v1/layout", operation_id = "get_layout", tag = "cluster", responses((status = 200, body = LiveLayout)))]
async fn layout(State(gateway): State<Gateway>) -> Answer<LiveLayout> {
    gateway.live().await.map(Json)
}

/// The recoveries, newest first.
#[utoipa::path(get, path = "/v1/recoveries", operation_id = "list_recoveries", tag = "cluster", responses((status = 200, body = Recoveries)))]
async fn recoveries(State(gateway): State<Gateway>) -> Result<Response, Failure> {
    gateway.ask(&coordinator::RECOVERIES).await.map(served)
}

/// Begins a new epoch. The answer comes before its recovery is over: `/v1/status` shows it.
#[utoipa::path(
    post, path = "/v1/recoveries", tag = "cluster", request_body = BeginRecovery,
    responses((status = 200, body = Begun))
)]
async fn begin_recovery(
    State(gateway): State<Gateway>,
    Json(request): Json<BeginRecovery>,
) -> Result<Response, Failure> {
    gateway.order(&coordinator::BEGIN_RECOVERY, &request, ORDER).await.map(served)
}

/// What an operator may have done where the cluster can't go on by itself: where the coordinators can't
/// know which configuration is the newest, or a majority of the storages that hold it never returns.
#[utoipa::path(
    get, path = "/v1/recovery_plan", operation_id = "get_recovery_plan", tag = "cluster",
    responses((status = 200, body = RecoveryPlan))
)]
async fn recovery_plan(State(gateway): State<Gateway>) -> Result<Response, Failure> {
    gateway.order(&coordinator::RECOVERY_PLAN, &Nothing {}, PLANNING).await.map(served)
}

/// Carries the recovery plan out, if it still is the one that `id` names. `/v1/status` shows what comes
/// of it.
#[utoipa::path(
    post, path = "/v1/recovery_plan", operation_id = "carry_out_recovery_plan", tag = "cluster",
    request_body = CarryOut,
    responses((status = 200, body = CarriedOut))
)]
async fn carry_out(
    State(gateway): State<Gateway>,
    Json(request): Json<CarryOut>,
) -> Result<Response, Failure> {
    gateway.order(&coordinator::CARRY_OUT, &request, CARRYING_OUT).await.map(served)
}

/// The processes of the cluster, each with its role.
#[utoipa::path(get, path = "/v1/processes", operation_id = "list_processes", tag = "cluster", responses((status = 200, body = Processes)))]
async fn processes(State(gateway): State<Gateway>) -> Result<Response, Failure> {
    gateway.ask(&coordinator::PROCESSES).await.map(served)
}

/// How many nodes may still be lost, and what is wrong. It answers during outages too.
#[utoipa::path(get, path = "/v1/cluster/health", operation_id = "get_cluster_health", tag = "cluster", responses((status = 200, body = ClusterHealth)))]
async fn health(State(gateway): State<Gateway>) -> Response {
    match gateway.ask(&coordinator::HEALTH).await {
        Ok(answer) => served(answer),
        Err(Failure(problem)) => Json(ClusterHealth {
            healthy: false,
            may_lose_for_data: None,
            may_lose_for_availability: None,
            reasons: vec![problem.detail],
        })
        .into_response(),
    }
}
