//! What directors read and write.

use axum::extract::State;
use plinth_api::coordinator::{
    FAREWELL, Farewell, HOLDING, Holding, READY, RECORD, ReadyRequest, RecordRequest,
};
use plinth_api::{ErrorCode, Nothing};
use plinth_service::{Failure, Json};

use super::{PassedOn, Served, Shared, served};
use crate::node::{Event, Group, Node, Place};
use crate::state::Command;

/// What the coordinators hold, read linearizably by the leader.
pub(super) async fn read_holding(node: &Node, group: &Group) -> Result<Holding, Failure> {
    let state = node.read(group).await?;
    let (Some(cluster), Some(id)) = (state.cluster, state.group) else {
        return Err(Failure::new(
            ErrorCode::NotReady,
            "the coordinators' group is being founded: try again",
        ));
    };
    let (coordinators, next_coordinators) = group.seats().to_name(&state);
    Ok(Holding {
        cluster,
        group: id,
        coordinators,
        next_coordinators,
        appointed: state.appointed.clone(),
        recorded: state.recorded.clone(),
        ready: state.ready.clone(),
        version_floor: state.version_floor,
    })
}

/// `GET /v1/holding`.
#[utoipa::path(
    get,
    path = "/v1/holding",
    tag = "holding",
    summary = "What the coordinators hold, read linearizably",
    responses((status = 200, body = Holding))
)]
pub(super) async fn holding(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
) -> Served<Holding> {
    match node.place(passed_on)? {
        Place::Here(group) => {
            Ok(served(node.context.service(), read_holding(&node, &group).await?))
        }
        Place::There(leader) => {
            let answer = node.pass_on(&leader, &HOLDING, &Nothing {}).await?;
            Ok(served(&leader.service, answer))
        }
    }
}

/// `PUT /v1/holding`.
#[utoipa::path(
    put,
    path = "/v1/holding",
    tag = "holding",
    summary = "Compare-and-set of the layout",
    request_body = RecordRequest,
    responses((status = 200, body = Nothing))
)]
pub(super) async fn record(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
    Json(request): Json<RecordRequest>,
) -> Served<Nothing> {
    match node.place(passed_on)? {
        Place::Here(group) => {
            node.write(&group, Command::Record(request)).await?;
            Ok(served(node.context.service(), Nothing {}))
        }
        Place::There(leader) => {
            let answer = node.pass_on(&leader, &RECORD, &request).await?;
            Ok(served(&leader.service, answer))
        }
    }
}

/// `PUT /v1/ready`.
#[utoipa::path(
    put,
    path = "/v1/ready",
    tag = "holding",
    summary = "An epoch has become ready",
    request_body = ReadyRequest,
    responses((status = 200, body = Nothing))
)]
pub(super) async fn ready(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
    Json(request): Json<ReadyRequest>,
) -> Served<Nothing> {
    match node.place(passed_on)? {
        Place::Here(group) => {
            node.write(&group, Command::MarkReady(request)).await?;
            Ok(served(node.context.service(), Nothing {}))
        }
        Place::There(leader) => {
            let answer = node.pass_on(&leader, &READY, &request).await?;
            Ok(served(&leader.service, answer))
        }
    }
}

/// `PUT /v1/farewell`.
#[utoipa::path(
    put,
    path = "/v1/farewell",
    tag = "holding",
    summary = "A director tells why it exits",
    request_body = Farewell,
    responses((status = 200, body = Nothing))
)]
pub(super) async fn farewell(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
    Json(request): Json<Farewell>,
) -> Served<Nothing> {
    match node.place(passed_on)? {
        Place::Here(_) => {
            // The leader's task sees the director's end anyhow; only the reason would be lost.
            if node.events.try_send(Event::Farewell(request)).is_err() {
                return Err(Failure::new(ErrorCode::Overloaded, "too many farewells at once"));
            }
            Ok(served(node.context.service(), Nothing {}))
        }
        Place::There(leader) => {
            let answer = node.pass_on(&leader, &FAREWELL, &request).await?;
            Ok(served(&leader.service, answer))
        }
    }
}
