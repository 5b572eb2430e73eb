//! What people look at.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use plinth_api::coordinator::{
    BEGIN_RECOVERY, BeginRecovery, Begun, HOLDING, RECOVERIES, Recoveries, STATUS, Status,
};
use plinth_api::{ErrorCode, Nothing};
use plinth_service::{Failure, Json, tagged};
use plinth_system_config::{Layout, Recorded, SystemConfig};
use plinth_types::ServiceRef;

use super::holding::read_holding;
use super::{PassedOn, Served, Shared, served};
use crate::node::{Event, Group, Node, Place, View};

/// The phase that a ready epoch is in, where no director has told another.
const READY_PHASE: &str = "accepting_commits";
/// The longest reason to begin an epoch, in characters.
const REASON_LIMIT: usize = 512;
/// How long a status waits for the leader's, which knows the phase.
const LEADER_LIMIT: Duration = Duration::from_millis(500);

/// What this coordinator knows by itself. It answers whatever is broken.
pub(super) fn own_status(node: &Node, group: Option<&Group>) -> Status {
    let bootstrap = node.bootstrap.borrow().clone();
    let service = node.context.service().clone();
    let Some(group) = group else {
        return Status {
            service,
            cluster: node.cluster.cluster_id,
            group: None,
            leader: None,
            is_leader: false,
            term: 0,
            members: Vec::new(),
            epoch: bootstrap.epoch,
            director: None,
            ready_epoch: Default::default(),
            phase: "bootstrap".to_owned(),
            ready: false,
            config_version: bootstrap.config_version,
            problem: bootstrap.waiting_for.as_ref().map(|what| format!("waiting for {what}")),
            bootstrap,
        };
    };
    let state = group.state();
    let members = group.members();
    let leader_id = group.leader();
    let leader = members.iter().find(|member| Some(member.raft_id) == leader_id);
    let leader: Option<ServiceRef> = leader.map(|member| member.service.clone());
    let is_leader = group.is_leading();
    let view: View = node.view.borrow().clone();
    let director = state.appointed.as_ref().map(|appointed| appointed.pid.incarnation);
    let is_watched = view.watched.is_some() && view.watched == director;
    let is_ready = state.appointed.is_some() && state.ready_epoch == state.epoch;
    let waiting = bootstrap.waiting_for.as_ref().map(|what| format!("waiting for {what}"));
    let no_leader = leader.is_none().then(|| "the coordinators have no leader".to_owned());
    Status {
        service,
        cluster: node.cluster.cluster_id,
        group: Some(group.id),
        is_leader,
        term: group.raft.metrics().borrow().current_term,
        members: members.into_iter().map(|member| member.service).collect(),
        epoch: state.epoch,
        ready_epoch: state.ready_epoch,
        phase: match view.phase {
            Some(phase) if is_watched => phase,
            _ if is_ready => READY_PHASE.to_owned(),
            _ => "appointing".to_owned(),
        },
        // A leader vouches for the director that it sees; a follower only passes on what is agreed.
        ready: is_ready && leader.is_some() && (is_watched || !is_leader),
        config_version: state.config_version(),
        problem: view.problem.or(waiting).or(no_leader),
        director: state.appointed.clone(),
        leader,
        bootstrap,
    }
}

/// `GET /v1/status`.
#[utoipa::path(
    get,
    path = "/v1/status",
    tag = "status",
    summary = "Leader, members, epoch, director, and how this coordinator started",
    responses((status = 200, body = Status))
)]
pub(super) async fn status(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
) -> Json<Status> {
    let own = own_status(&node, node.active().as_ref());
    let Ok(Place::There(leader)) = node.place(passed_on) else { return Json(own) };
    let peers = node.context.peers();
    let told = peers.call(&leader.target, &STATUS, &Nothing {}, None, LEADER_LIMIT).await;
    Json(match told {
        Ok(told) if told.epoch >= own.epoch => Status {
            service: own.service,
            is_leader: own.is_leader,
            bootstrap: own.bootstrap,
            ..told
        },
        Ok(_) => own,
        // Who does not answer can't vouch for anything.
        Err(error) => Status { ready: false, problem: Some(error.to_string()), ..own },
    })
}

async fn recorded(node: &Node, passed_on: bool) -> Result<(ServiceRef, Recorded), Failure> {
    let (by, holding) = match node.place(passed_on)? {
        Place::Here(group) => (node.context.service().clone(), read_holding(node, &group).await?),
        Place::There(leader) => {
            let holding = node.pass_on(&leader, &HOLDING, &Nothing {}).await?;
            (leader.service, holding)
        }
    };
    let recorded = holding.recorded.ok_or_else(|| {
        Failure::new(
            ErrorCode::NotReady,
            "no configuration is recorded yet: /v1/status tells what is missing",
        )
    })?;
    Ok((by, recorded))
}

/// `GET /v1/config`.
#[utoipa::path(
    get,
    path = "/v1/config",
    tag = "status",
    summary = "The recorded configuration",
    responses((status = 200, body = SystemConfig<ServiceRef>), (status = 304, description = "It is the one of If-None-Match"))
)]
pub(super) async fn config(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
    asked: HeaderMap,
) -> Result<Response, Failure> {
    let (by, recorded) = recorded(&node, passed_on).await?;
    let tag = recorded.config.config_version;
    Ok(tagged(&asked, &tag, served(&by, recorded.config)))
}

/// `GET /v1/layout`.
#[utoipa::path(
    get,
    path = "/v1/layout",
    tag = "status",
    summary = "The recorded layout",
    responses((status = 200, body = Layout<ServiceRef>))
)]
pub(super) async fn layout(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
) -> Served<Layout<ServiceRef>> {
    let (by, recorded) = recorded(&node, passed_on).await?;
    Ok(served(&by, recorded.config.layout))
}

/// `GET /v1/recoveries`.
#[utoipa::path(
    get,
    path = "/v1/recoveries",
    tag = "status",
    summary = "The last recoveries, newest first",
    responses((status = 200, body = Recoveries))
)]
pub(super) async fn recoveries(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
) -> Served<Recoveries> {
    match node.place(passed_on)? {
        Place::Here(group) => {
            let recoveries = node.read(&group).await?.recoveries.clone();
            Ok(served(node.context.service(), Recoveries { recoveries }))
        }
        Place::There(leader) => {
            let answer = node.pass_on(&leader, &RECOVERIES, &Nothing {}).await?;
            Ok(served(&leader.service, answer))
        }
    }
}

/// `POST /v1/recoveries`.
#[utoipa::path(
    post,
    path = "/v1/recoveries",
    tag = "status",
    summary = "Begins a new epoch",
    request_body = BeginRecovery,
    responses((status = 200, body = Begun))
)]
pub(super) async fn begin_recovery(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
    Json(request): Json<BeginRecovery>,
) -> Served<Begun> {
    let length = request.reason.chars().count();
    if !(1..=REASON_LIMIT).contains(&length) {
        let detail = format!("reason: say why in 1 to {REASON_LIMIT} characters, not {length}");
        return Err(Failure::new(ErrorCode::InvalidRequest, detail).with("field", "reason"));
    }
    match node.place(passed_on)? {
        Place::Here(group) => {
            let superseded = node.read(&group).await?.epoch;
            tracing::info!(epoch = %superseded, reason = request.reason, "a new epoch is asked for");
            let begin = Event::Begin { over: superseded, reason: request.reason };
            if node.events.try_send(begin).is_err() {
                return Err(Failure::new(ErrorCode::Overloaded, "too many requests at once"));
            }
            Ok(served(node.context.service(), Begun { superseded }))
        }
        Place::There(leader) => {
            let answer = node.pass_on(&leader, &BEGIN_RECOVERY, &request).await?;
            Ok(served(&leader.service, answer))
        }
    }
}
