//! Raft's messages.

use axum::extract::State;
use plinth_api::ErrorCode;
use plinth_service::{Answer, Failure, Json};
use plinth_types::GroupId;

use super::Shared;
use crate::node::{Group, Node};
use crate::raft::{
    AppendAnswer, AppendMessage, SnapshotAnswer, SnapshotMessage, VoteAnswer, VoteMessage,
};

/// The group that a message is for, under the identity that it is for. Another one is refused.
fn group_of(node: &Node, id: GroupId, to: u64) -> Result<Group, Failure> {
    node.active().filter(|group| group.id == id && group.raft_id == to).ok_or_else(|| {
        let detail = format!("this coordinator is not member {to} of the group {id}");
        Failure::new(ErrorCode::WrongGroup, detail)
    })
}

/// `POST /v1/raft/append`.
#[utoipa::path(
    post,
    path = "/v1/raft/append",
    tag = "raft",
    summary = "Appends entries, or tells that the leader lives",
    request_body = Object,
    responses((status = 200, body = Object))
)]
pub(super) async fn append(
    State(node): State<Shared>,
    Json(request): Json<AppendMessage>,
) -> Answer<AppendAnswer> {
    let group = group_of(&node, request.group_id, request.to)?;
    Ok(Json(group.raft.append_entries(request.message).await))
}

/// `POST /v1/raft/vote`.
#[utoipa::path(
    post,
    path = "/v1/raft/vote",
    tag = "raft",
    summary = "Asks for a vote",
    request_body = Object,
    responses((status = 200, body = Object))
)]
pub(super) async fn vote(
    State(node): State<Shared>,
    Json(request): Json<VoteMessage>,
) -> Answer<VoteAnswer> {
    let group = group_of(&node, request.group_id, request.to)?;
    Ok(Json(group.raft.vote(request.message).await))
}

/// `POST /v1/raft/snapshot`.
#[utoipa::path(
    post,
    path = "/v1/raft/snapshot",
    tag = "raft",
    summary = "Sends a piece of a snapshot",
    request_body = Object,
    responses((status = 200, body = Object))
)]
pub(super) async fn snapshot(
    State(node): State<Shared>,
    Json(request): Json<SnapshotMessage>,
) -> Answer<SnapshotAnswer> {
    let group = group_of(&node, request.group_id, request.to)?;
    Ok(Json(group.raft.install_snapshot(request.message).await))
}
