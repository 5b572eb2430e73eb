//! Raft's messages, and its members.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use plinth_api::coordinator::{JOIN, JoinRequest, MEMBERS, Members};
use plinth_api::{ErrorCode, Nothing};
use plinth_service::{Answer, Failure, Json};
use plinth_types::GroupId;
use tokio::time::timeout;

use super::{PassedOn, Served, Shared, served};
use crate::config::WRITE_LIMIT;
use crate::node::{Group, Node, Place, no_quorum};
use crate::raft::{
    AppendAnswer, AppendMessage, Member, SnapshotAnswer, SnapshotMessage, VoteAnswer, VoteMessage,
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

/// `GET /v1/members`.
#[utoipa::path(
    get,
    path = "/v1/members",
    tag = "raft",
    summary = "The members of the coordinators' group",
    responses((status = 200, body = Members))
)]
pub(super) async fn members(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
) -> Served<Members> {
    match node.place(passed_on)? {
        Place::Here(group) => {
            let members = Members { group: group.id, members: group.members() };
            Ok(served(node.context.service(), members))
        }
        Place::There(leader) => {
            let answer = node.pass_on(&leader, &MEMBERS, &Nothing {}).await?;
            Ok(served(&leader.service, answer))
        }
    }
}

/// `POST /v1/members`.
#[utoipa::path(
    post,
    path = "/v1/members",
    tag = "raft",
    summary = "A coordinator that has lost its votes joins under a new identity",
    request_body = JoinRequest,
    responses((status = 200, body = Nothing))
)]
pub(super) async fn join(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
    Json(request): Json<JoinRequest>,
) -> Served<Nothing> {
    match node.place(passed_on)? {
        Place::Here(group) => {
            if group.id != request.group {
                let detail = format!("the group is {}, not {}", group.id, request.group);
                return Err(Failure::new(ErrorCode::WrongGroup, detail));
            }
            node.finish("join", admit(Arc::clone(&node), group, request)).await?;
            Ok(served(node.context.service(), Nothing {}))
        }
        Place::There(leader) => {
            let answer = node.pass_on(&leader, &JOIN, &request).await?;
            Ok(served(&leader.service, answer))
        }
    }
}

/// Makes a newcomer a voter in place of the member of its name, whose votes are lost.
async fn admit(node: Arc<Node>, group: Group, request: JoinRequest) -> Result<(), Failure> {
    let JoinRequest { member, .. } = request;
    let members = group.members();
    if members.iter().any(|known| known.raft_id == member.raft_id) {
        return Ok(());
    }
    let mut voters: BTreeSet<u64> = members
        .iter()
        .filter(|known| known.service != member.service)
        .map(|known| known.raft_id)
        .collect();
    voters.insert(member.raft_id);
    tracing::info!(service = %member.service, raft_id = member.raft_id, by = %node.context.service(), "joins");
    let newcomer = Member { service: Some(member.service), address: member.address };
    let change = async {
        group.raft.add_learner(member.raft_id, newcomer, true).await?;
        group.raft.change_membership(voters, false).await
    };
    match timeout(WRITE_LIMIT, change).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(no_quorum(format!("the membership can't be changed now: {error}"))),
        Err(_) => Err(no_quorum("the change of the membership takes too long: try again")),
    }
}
