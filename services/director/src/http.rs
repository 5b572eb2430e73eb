//! The director's routes: decode, check, call, encode.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use plinth_api::config::{ConfigPatch, ConfigPatched, LevelRaised, PatchQuery, RaiseLevel};
use plinth_api::director::{Appointment, Dismissal, LayoutQuery, LiveLayout, Status};
use plinth_api::members::{MembersRecorded, RecordMembers};
use plinth_api::nodes::{NodeOrdered, OrderNode};
use plinth_api::{ErrorCode, Nothing};
use plinth_service::{
    Answer, Condition, FENCED, Fails as _, Failure, Json, Query, Routes, changed,
};
use plinth_types::{Epoch, Incarnation};
use tokio::time::{Instant, timeout};
use utoipa_axum::routes;

use crate::changing::{Order, Orders, Raising};
use crate::config::LAYOUT_WAIT_MAX;
use crate::desk::Desk;
use crate::reign::Accepted;

/// Why parameters may not be changed.
const CHANGE_REFUSALS: &[ErrorCode] = &[
    ErrorCode::NotReady,
    ErrorCode::Overloaded,
    ErrorCode::PreconditionFailed,
    ErrorCode::PreconditionRequired,
    ErrorCode::Unsatisfiable,
    ErrorCode::CommitUnknownResult,
];

/// Why the format level may not be raised.
const LEVEL_REFUSALS: &[ErrorCode] = &[
    ErrorCode::NotReady,
    ErrorCode::Overloaded,
    ErrorCode::NotFound,
    ErrorCode::PreconditionFailed,
    ErrorCode::PreconditionRequired,
    ErrorCode::Unsatisfiable,
    ErrorCode::CommitUnknownResult,
];

/// Why a node may not be ordered to stand so.
const ORDER_REFUSALS: &[ErrorCode] = &[
    ErrorCode::NotReady,
    ErrorCode::Overloaded,
    ErrorCode::NotFound,
    ErrorCode::Unsatisfiable,
    ErrorCode::CommitUnknownResult,
];

/// Why the coordinators may not be others.
const MEMBERS_REFUSALS: &[ErrorCode] = &[
    ErrorCode::NotReady,
    ErrorCode::Overloaded,
    ErrorCode::PreconditionFailed,
    ErrorCode::Unsatisfiable,
    ErrorCode::CommitUnknownResult,
];

pub(crate) fn routes() -> Routes<Desk> {
    Routes::new()
        .describe("Plinth director", "Recovers the transaction system and watches over an epoch.")
        .service(routes!(appoint).fails(FENCED))
        .service(routes!(dismiss).fails(FENCED))
        .service(routes!(layout).fails(&[ErrorCode::NotReady]))
        .service(routes!(change).fails(CHANGE_REFUSALS))
        .service(routes!(raise_level).fails(LEVEL_REFUSALS))
        .service(routes!(order_node).fails(ORDER_REFUSALS))
        .service(routes!(record_members).fails(MEMBERS_REFUSALS))
        .observer(routes!(status))
}

/// Begins an epoch. The answer comes at once; the monitor stream shows the recovery.
#[utoipa::path(
    put,
    path = "/v1/appointment",
    request_body = Appointment,
    responses(
        (status = 200, description = "This director has the epoch", body = Nothing),
    )
)]
async fn appoint(
    State(desk): State<Desk>,
    Json(appointment): Json<Appointment>,
) -> Answer<Nothing> {
    is_this(&desk, appointment.director)?;
    if appointment.epoch == Epoch::ZERO {
        return Err(Failure::new(ErrorCode::InvalidRequest, "epoch: the first epoch is 1"));
    }
    let asked = appointment.epoch;
    let accepted = Accepted {
        appointment,
        traceparent: plinth_telemetry::current_traceparent(),
        trace_id: plinth_telemetry::current_trace_id(),
        at: Instant::now(),
        unix_ms: desk.context.runtime().unix_ms(),
    };
    match desk.appoint(accepted) {
        serving if serving == asked => Ok(Json(Nothing {})),
        serving if serving > asked => {
            let detail = format!("this director serves epoch {serving}");
            Err(Failure::new(ErrorCode::StaleEpoch, detail))
        }
        serving => {
            let detail = format!(
                "this director serves epoch {serving} and no other in its life: it exits now"
            );
            Err(Failure::new(ErrorCode::Superseded, detail))
        }
    }
}

/// Ends this director where it serves the epoch that is over, so that another can be started.
#[utoipa::path(
    put,
    path = "/v1/dismissal",
    request_body = Dismissal,
    responses((status = 200, description = "It has heard, and exits if it serves that epoch", body = Nothing))
)]
async fn dismiss(State(desk): State<Desk>, Json(dismissal): Json<Dismissal>) -> Answer<Nothing> {
    is_this(&desk, dismissal.director)?;
    desk.dismiss(dismissal);
    Ok(Json(Nothing {}))
}

fn is_this(desk: &Desk, meant: Incarnation) -> Result<(), Failure> {
    let me = desk.context.pid().incarnation;
    if meant == me {
        return Ok(());
    }
    let detail = format!("{meant} is meant, and this is {me}");
    Err(Failure::new(ErrorCode::WrongIncarnation, detail))
}

/// The layout with the processes as they are now. With `index`, once it is another.
#[utoipa::path(
    get,
    path = "/v1/layout",
    params(LayoutQuery),
    responses(
        (status = 200, description = "The live layout", body = LiveLayout),
    )
)]
async fn layout(State(desk): State<Desk>, Query(query): Query<LayoutQuery>) -> Answer<LiveLayout> {
    let mut live = desk.live.subscribe();
    let wait = Duration::from_millis(query.wait_ms).min(LAYOUT_WAIT_MAX);
    let is_news = |live: &Option<LiveLayout>| {
        live.as_ref().is_some_and(|live| query.index != Some(live.index))
    };
    // Nothing new in time is answered with what there is.
    let _ = timeout(wait, live.wait_for(is_news)).await;
    let current = live.borrow().clone();
    current.map(Json).ok_or_else(|| {
        let phase = desk.progress.status().phase;
        Failure::new(ErrorCode::NotReady, format!("no layout is recorded yet: {phase}"))
    })
}

/// Where changes are asked for, which the epoch takes once it accepts commits.
fn orders(desk: &Desk) -> Result<&Orders, Failure> {
    if desk.live.accepts_commits() {
        return Ok(&desk.orders);
    }
    Err(Failure::new(ErrorCode::NotReady, "the epoch does not accept commits yet"))
}

/// Changes parameters, in the way that every change of the configuration goes. Only while commits are
/// accepted; before, the coordinators' leader does it.
#[utoipa::path(
    patch,
    path = "/v1/config",
    operation_id = "patch_config",
    params(PatchQuery, ("If-Match" = String, Header, description = "The ETag of the configuration that is changed")),
    request_body = ConfigPatch,
    responses((status = 200, description = "What has become of it", body = ConfigPatched))
)]
async fn change(
    State(desk): State<Desk>,
    Query(query): Query<PatchQuery>,
    headers: HeaderMap,
    Json(patch): Json<ConfigPatch>,
) -> Result<Response, Failure> {
    let condition = Condition::of(&headers)?;
    let dry_run = query.dry_run;
    let order = |reply| Order::Parameters { patch, condition, dry_run, reply };
    Ok(changed(None, orders(&desk)?.give(order).await?))
}

/// Raises the level that the configuration is written at, in the same way.
#[utoipa::path(
    put,
    path = "/v1/format_level",
    operation_id = "raise_format_level",
    params(PatchQuery, ("If-Match" = String, Header, description = "The ETag of the configuration that is changed")),
    request_body = RaiseLevel,
    responses((status = 200, description = "What has become of it", body = LevelRaised))
)]
async fn raise_level(
    State(desk): State<Desk>,
    Query(query): Query<PatchQuery>,
    headers: HeaderMap,
    Json(order): Json<RaiseLevel>,
) -> Result<Response, Failure> {
    let condition = Condition::of(&headers)?;
    let raising = Raising { order, condition, dry_run: query.dry_run };
    Ok(changed(None, orders(&desk)?.give(|reply| Order::Level(raising, reply)).await?))
}

/// Orders how a node is to stand, in the same way.
#[utoipa::path(
    put,
    path = "/v1/standing",
    operation_id = "order_node",
    request_body = OrderNode,
    responses((status = 200, description = "What has become of it", body = NodeOrdered))
)]
async fn order_node(
    State(desk): State<Desk>,
    Json(order): Json<OrderNode>,
) -> Result<Response, Failure> {
    Ok(changed(None, orders(&desk)?.give(|reply| Order::Node(order, reply)).await?))
}

/// Records who the coordinators are, in the same way. Their leader asks for it.
#[utoipa::path(
    put,
    path = "/v1/members",
    operation_id = "record_members",
    request_body = RecordMembers,
    responses((status = 200, description = "It is recorded, and in storage", body = MembersRecorded))
)]
async fn record_members(
    State(desk): State<Desk>,
    Json(order): Json<RecordMembers>,
) -> Answer<MembersRecorded> {
    Ok(Json(orders(&desk)?.give(|reply| Order::Members(order, reply)).await?))
}

/// The phases of the recovery with their times.
#[utoipa::path(
    get,
    path = "/v1/status",
    responses((status = 200, description = "Where the director stands", body = Status))
)]
async fn status(State(desk): State<Desk>) -> Answer<Status> {
    Ok(Json(desk.progress.status()))
}
