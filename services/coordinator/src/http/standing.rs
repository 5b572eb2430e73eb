//! Orders about nodes: to drain one, to take that back, to remove it.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use plinth_api::config::{PatchQuery, PatchState};
use plinth_api::nodes::{NodeOrdered, ORDER_NODE, OrderNode, refused};
use plinth_api::{Answered, CallError, ErrorCode, Target};
use plinth_service::{Failure, Json, Peers, Query};
use plinth_system_config::{Recorded, Standing, StandingError};
use plinth_types::{NodeId, ServiceRef};
use tokio::time::Instant;

use super::changing::{Verdict, Wish, carry_out, supply};
use super::{PassedOn, Shared};
use crate::node::Node;
use crate::state::{ClusterState, Command};

/// Why a node may not be ordered to stand so.
pub(super) const REFUSALS: &[ErrorCode] =
    &[ErrorCode::NotFound, ErrorCode::Unsatisfiable, ErrorCode::CommitUnknownResult];

/// `POST /v1/nodes/{node}/drain`.
#[utoipa::path(
    post,
    path = "/v1/nodes/{node}/drain",
    operation_id = "drain_node",
    tag = "nodes",
    summary = "Has everything that is on a node move to other nodes, and gives it nothing new",
    params(("node" = NodeId, Path, description = "Such as node-4"), PatchQuery),
    responses(
        (status = 200, description = "It is ordered, and in storage; or would be, or is so already", body = NodeOrdered),
        (status = 202, description = "No epoch is ready: the coordinators have it, and the next epoch brings it into storage", body = NodeOrdered),
    )
)]
pub(super) async fn drain(
    State(node): State<Shared>,
    passed_on: PassedOn,
    Path(meant): Path<NodeId>,
    Query(query): Query<PatchQuery>,
) -> Result<Response, Failure> {
    give(node, passed_on, meant, Standing::Draining, query).await
}

/// `DELETE /v1/nodes/{node}/drain`.
#[utoipa::path(
    delete,
    path = "/v1/nodes/{node}/drain",
    operation_id = "use_node_again",
    tag = "nodes",
    summary = "Uses a node again that is being drained, or was removed",
    params(("node" = NodeId, Path, description = "Such as node-4"), PatchQuery),
    responses(
        (status = 200, description = "It is ordered, and in storage; or would be, or is so already", body = NodeOrdered),
        (status = 202, description = "No epoch is ready: the coordinators have it, and the next epoch brings it into storage", body = NodeOrdered),
    )
)]
pub(super) async fn use_again(
    State(node): State<Shared>,
    passed_on: PassedOn,
    Path(meant): Path<NodeId>,
    Query(query): Query<PatchQuery>,
) -> Result<Response, Failure> {
    give(node, passed_on, meant, Standing::InUse, query).await
}

/// `DELETE /v1/nodes/{node}`.
#[utoipa::path(
    delete,
    path = "/v1/nodes/{node}",
    operation_id = "remove_node",
    tag = "nodes",
    summary = "Removes a node that is drained: nothing is put on it any more, whatever it reports",
    params(("node" = NodeId, Path, description = "Such as node-4"), PatchQuery),
    responses(
        (status = 200, description = "It is ordered, and in storage; or would be, or is so already", body = NodeOrdered),
        (status = 202, description = "No epoch is ready: the coordinators have it, and the next epoch brings it into storage", body = NodeOrdered),
    )
)]
pub(super) async fn remove(
    State(node): State<Shared>,
    passed_on: PassedOn,
    Path(meant): Path<NodeId>,
    Query(query): Query<PatchQuery>,
) -> Result<Response, Failure> {
    give(node, passed_on, meant, Standing::Removed, query).await
}

/// `PUT /v1/standing`.
#[utoipa::path(
    put,
    path = "/v1/standing",
    operation_id = "order_node",
    tag = "nodes",
    summary = "Orders how a node is to stand; what gateways and coordinators pass on",
    request_body = OrderNode,
    responses(
        (status = 200, description = "It is ordered, and in storage; or would be, or is so already", body = NodeOrdered),
        (status = 202, description = "No epoch is ready: the coordinators have it, and the next epoch brings it into storage", body = NodeOrdered),
    )
)]
pub(super) async fn order(
    State(node): State<Shared>,
    passed_on: PassedOn,
    Json(order): Json<OrderNode>,
) -> Result<Response, Failure> {
    carry_out(node, passed_on, order).await
}

async fn give(
    node: Shared,
    passed_on: PassedOn,
    meant: NodeId,
    standing: Standing,
    query: PatchQuery,
) -> Result<Response, Failure> {
    let order = OrderNode { node: meant, standing, dry_run: query.dry_run };
    carry_out(node, passed_on, order).await
}

impl Wish for OrderNode {
    type Answer = NodeOrdered;

    async fn ask(
        &self,
        peers: &Peers,
        target: &Target,
        limit: Duration,
    ) -> Result<Answered<NodeOrdered>, CallError> {
        peers.answered(target, &ORDER_NODE, self, limit).await
    }

    fn judge(
        &self,
        node: &Node,
        state: &ClusterState,
        recorded: &Recorded,
    ) -> Result<Verdict<NodeOrdered>, Failure> {
        let seen = {
            let registry = node.registry();
            let mut reports = registry.nodes(Instant::now());
            reports.find(|report| report.node == self.node).map(|report| report.entry())
        };
        let epoch = state.epoch;
        let ready = state.ready.iter().flat_map(|ready| ready.config.remaining_on(&self.node));
        let services: Vec<ServiceRef> = ready.collect();
        if self.standing == Standing::Removed && !services.is_empty() {
            // The config team of the last ready epoch must confirm the next one.
            let error = StandingError::Remaining { node: self.node.clone(), services };
            return Err(refused(&error).into());
        }
        let next = recorded
            .ordered(&self.node, self.standing, seen, &supply(node))
            .map_err(|error| Failure::from(refused(&error)))?;
        let settled = |state| Verdict::Settled(self.answer(state, recorded, epoch));
        let Some(next) = next else { return Ok(settled(PatchState::Unchanged)) };
        if self.dry_run {
            return Ok(settled(PatchState::DryRun));
        }
        let (expected, what) = (recorded.config.config_version, self.describe());
        let entry = next.config.nodes.get(&self.node).cloned();
        let entry = entry.ok_or_else(|| Failure::new(ErrorCode::Internal, "the node is lost"))?;
        let command =
            Command::Order { expected, node: self.node.clone(), entry, what: what.clone() };
        let (command, answer) =
            (Box::new(command), self.answer(PatchState::Recorded, &next, epoch));
        Ok(Verdict::Due { command, what, answer })
    }
}
