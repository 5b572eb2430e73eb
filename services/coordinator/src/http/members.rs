//! The members of the group: who they are, and orders that one join or leave.

use std::sync::Arc;

use axum::extract::{Path, State};
use http::HeaderMap;
use plinth_api::config::PatchQuery;
use plinth_api::coordinator::{JOIN, JoinRequest, MEMBERS, Members};
use plinth_api::members::{AddMember, MemberOrdered, ORDER_MEMBER, OrderMember, as_member};
use plinth_api::{CallError, ErrorCode, Nothing, Outcome, Problem, Target};
use plinth_service::{Failure, Json, Query};
use plinth_types::ServiceRef;
use tokio::time::{Instant, sleep};

use super::{PassedOn, Served, Shared, served};
use crate::config::{MEMBERS_FORWARD_LIMIT, MEMBERS_LIMIT, MEMBERS_LOOK};
use crate::members;
use crate::node::{Group, Node, Place};

/// Why a coordinator may not join or leave.
pub(super) const REFUSALS: &[ErrorCode] =
    &[ErrorCode::NotFound, ErrorCode::Unsatisfiable, ErrorCode::CommitUnknownResult];

/// `GET /v1/members`.
#[utoipa::path(
    get,
    path = "/v1/members",
    tag = "members",
    summary = "The members of the coordinators' group, and those after a change that is under way",
    responses((status = 200, body = Members))
)]
pub(super) async fn members(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
) -> Served<Members> {
    match node.place(passed_on)? {
        Place::Here(group) => Ok(served(node.context.service(), read(&node, &group).await?)),
        Place::There(leader) => {
            let answer = node.pass_on(&leader, &MEMBERS, &Nothing {}).await?;
            Ok(served(&leader.service, answer))
        }
    }
}

/// Read linearizably: whoever is not among them has been removed.
async fn read(node: &Node, group: &Group) -> Result<Members, Failure> {
    let state = node.read(group).await?;
    let recorded = state.recorded.as_ref();
    let next = recorded.map(|recorded| recorded.config.next_coordinators.iter().map(as_member));
    Ok(Members {
        group: group.id,
        members: group.members(),
        next_members: next.into_iter().flatten().collect(),
        stamp: state.stamp().unwrap_or_default(),
    })
}

/// `POST /v1/members`.
#[utoipa::path(
    post,
    path = "/v1/members",
    operation_id = "add_member",
    tag = "members",
    summary = "Lets a coordinator into the group that runs and waits for it",
    params(PatchQuery),
    request_body = AddMember,
    responses((status = 200, description = "It is a member, and in storage as one; or would be, or is so already", body = MemberOrdered))
)]
pub(super) async fn add(
    State(node): State<Shared>,
    passed_on: PassedOn,
    Query(query): Query<PatchQuery>,
    Json(AddMember { service, address }): Json<AddMember>,
) -> Served<MemberOrdered> {
    let address = Target::address(&address).address;
    let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(1..))) {
        let detail = format!("address: {address:?} is not of the form host:port");
        return Err(Failure::new(ErrorCode::InvalidRequest, detail).with("field", "address"));
    }
    let order = OrderMember { service, address: Some(address), dry_run: query.dry_run };
    carry_out(node, passed_on, order).await
}

/// `DELETE /v1/members/{service}`.
#[utoipa::path(
    delete,
    path = "/v1/members/{service}",
    operation_id = "remove_member",
    tag = "members",
    summary = "Takes a coordinator out of the group",
    params(("service" = ServiceRef, Path, description = "Such as coordinator-1@node-1"), PatchQuery),
    responses((status = 200, description = "It is no member, nor in storage one; or would be, or is so already", body = MemberOrdered))
)]
pub(super) async fn remove(
    State(node): State<Shared>,
    passed_on: PassedOn,
    Path(service): Path<ServiceRef>,
    Query(query): Query<PatchQuery>,
) -> Served<MemberOrdered> {
    let order = OrderMember { service, address: None, dry_run: query.dry_run };
    carry_out(node, passed_on, order).await
}

/// `PUT /v1/members`.
#[utoipa::path(
    put,
    path = "/v1/members",
    operation_id = "order_member",
    tag = "members",
    summary = "Orders that a coordinator be a member or none; what gateways and coordinators pass on",
    request_body = OrderMember,
    responses((status = 200, description = "It is so, and in storage; or would be, or is so already", body = MemberOrdered))
)]
pub(super) async fn order(
    State(node): State<Shared>,
    passed_on: PassedOn,
    Json(order): Json<OrderMember>,
) -> Served<MemberOrdered> {
    carry_out(node, passed_on, order).await
}

/// What is known of an order that is tried more than once.
#[derive(Debug, Default)]
struct Attempts {
    /// Whether one of them may have begun the change, which goes on by itself then.
    may_be: bool,
}

impl Attempts {
    /// Notes how one has ended. Answers whether the order is worth giving again.
    fn note(&mut self, problem: &Problem) -> bool {
        self.may_be |= problem.outcome != Outcome::NotCommitted;
        matches!(problem.code, ErrorCode::NoQuorum | ErrorCode::CommitUnknownResult)
    }

    /// What is told in the end: that an order was not carried out, only if none of the attempts was.
    fn told(&self, failure: Failure) -> Failure {
        if self.may_be { members::unknown(failure) } else { failure }
    }
}

/// Has the leader carry an order out. Where that one leads no more, because it was itself taken out or for
/// any other reason, the next one is asked: an order may be repeated.
async fn carry_out(
    node: Shared,
    PassedOn(passed_on): PassedOn,
    order: OrderMember,
) -> Result<(HeaderMap, Json<MemberOrdered>), Failure> {
    let deadline = Instant::now() + MEMBERS_LIMIT;
    let mut attempts = Attempts::default();
    loop {
        let tried = match node.place(passed_on) {
            Ok(Place::Here(group)) => {
                let made = members::order(Arc::clone(&node), group, order.clone());
                // Where it is ended half-way, nobody knows how far it has come.
                let made = node.finish("order", async { Ok(made.await) }).await;
                let made = made.map_err(members::unknown).and_then(|made| made);
                made.map(|answer| served(node.context.service(), answer))
            }
            Ok(Place::There(leader)) => {
                let (peers, limit) = (node.context.peers(), MEMBERS_FORWARD_LIMIT);
                let answer = peers.call(&leader.target, &ORDER_MEMBER, &order, None, limit).await;
                match answer {
                    Ok(answer) => Ok(served(&leader.service, answer)),
                    // Whether it has been heard or not, it may be said again.
                    Err(error @ CallError::Transport(_)) if Instant::now() < deadline => {
                        attempts.may_be |= !error.had_no_effect();
                        tracing::info!(%error, "whoever leads does not answer an order");
                        sleep(MEMBERS_LOOK).await;
                        continue;
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Err(failure) => Err(failure),
        };
        match tried {
            Err(Failure(problem))
                if attempts.note(&problem)
                    && !passed_on
                    // Where there is no group, nobody knows when there is one.
                    && node.active().is_some()
                    && Instant::now() < deadline => {}
            answer => return answer.map_err(|failure| attempts.told(failure)),
        }
        sleep(MEMBERS_LOOK).await;
    }
}

/// `POST /v1/joining`.
#[utoipa::path(
    post,
    path = "/v1/joining",
    operation_id = "join",
    tag = "members",
    summary = "A coordinator asks to be known: under a new identity, where it has lost its votes, or at a new address",
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
            node.finish("join", members::admit(Arc::clone(&node), group, request)).await?;
            Ok(served(node.context.service(), Nothing {}))
        }
        Place::There(leader) => {
            let answer = node.pass_on(&leader, &JOIN, &request).await?;
            Ok(served(&leader.service, answer))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told after these attempts, and whether each was worth another one.
    fn told(codes: &[ErrorCode]) -> (Vec<bool>, ErrorCode) {
        let mut attempts = Attempts::default();
        let failures = codes.iter().map(|code| Failure::new(*code, "why"));
        let (again, last): (Vec<bool>, Vec<Failure>) =
            failures.map(|failure| (attempts.note(&failure.0), failure)).unzip();
        let last = last.into_iter().last().expect("one");
        (again, attempts.told(last).0.code)
    }

    #[test]
    fn an_order_that_may_have_begun_is_never_said_to_have_had_no_effect() {
        use ErrorCode::{CommitUnknownResult, DeadlineExceeded, NoQuorum, Unsatisfiable};
        assert_eq!(told(&[NoQuorum, NoQuorum]), (vec![true, true], NoQuorum));
        assert_eq!(told(&[NoQuorum, Unsatisfiable]), (vec![true, false], Unsatisfiable));
        for last in [NoQuorum, Unsatisfiable, CommitUnknownResult] {
            assert_eq!(told(&[CommitUnknownResult, last]).1, CommitUnknownResult, "{last:?}");
        }
        assert_eq!(told(&[DeadlineExceeded]), (vec![false], DeadlineExceeded));
    }
}
