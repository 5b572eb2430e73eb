//! The registry of nodes.

use std::sync::Arc;

use axum::extract::State;
use plinth_api::Nothing;
use plinth_api::coordinator::{CoordinatorContact, NODES, Nodes, PROCESSES, Processes, REPORT};
use plinth_api::foreman::{NodeOrders, NodeReport};
use plinth_api::nodes::NodeStanding;
use plinth_service::Json;
use plinth_system_config::Recorded;
use plinth_types::{NodeId, Pid, ServiceKind, ServiceRef};
use tokio::time::Instant;

use super::{PassedOn, Shared};
use crate::node::{Node, Place};
use crate::state::ClusterState;

/// What a node's foreman is told: the cluster's id once the cluster is founded, and what is ordered
/// about the node.
fn orders(node: &Node, of: &NodeId) -> NodeOrders {
    let state = node.active().map(|group| group.state());
    let state = state.filter(|state| state.group.is_some());
    let recorded = state.as_ref().and_then(|state| state.recorded.as_ref());
    NodeOrders {
        stamp: recorded.map(|recorded| recorded.stamp()).unwrap_or_default(),
        standing: recorded.map(|recorded| recorded.config.standing(of)).unwrap_or_default(),
        coordinators: recorded.map(contacts).unwrap_or_default(),
        cluster: state.as_ref().and_then(|state| state.cluster),
        epoch: state.map(|state| state.epoch).unwrap_or_default(),
    }
}

/// Where the coordinators answer, those of both memberships during a change.
fn contacts(recorded: &Recorded) -> Vec<CoordinatorContact> {
    let known = recorded.config.coordinator_addresses().into_iter();
    known.map(|(service, address)| CoordinatorContact { service, address }).collect()
}

/// `GET /v1/nodes`.
#[utoipa::path(
    get,
    path = "/v1/nodes",
    tag = "nodes",
    summary = "The nodes that have reported lately, and what is ordered about nodes",
    responses((status = 200, body = Nodes))
)]
pub(super) async fn nodes(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
) -> Json<Nodes> {
    if let Ok(Place::There(leader)) = node.place(passed_on)
        && let Ok(nodes) = node.pass_on(&leader, &NODES, &Nothing {}).await
    {
        return Json(nodes);
    }
    let nodes = node.registry().nodes(Instant::now()).cloned().collect();
    let state = node.active().map(|group| group.state());
    Json(Nodes { nodes, ordered: state.map(|state| ordered(&state)).unwrap_or_default() })
}

/// What is ordered about nodes. What the last ready epoch has on a node is still there until the next one
/// is ready: its config team must confirm that.
fn ordered(state: &ClusterState) -> Vec<NodeStanding> {
    let mut ordered = state.recorded.as_ref().map(NodeStanding::all).unwrap_or_default();
    for one in &mut ordered {
        let before = state.ready.iter().flat_map(|ready| ready.config.remaining_on(&one.node));
        one.remaining.extend(before);
        one.remaining.sort();
        one.remaining.dedup();
        one.drained = one.remaining.is_empty();
    }
    ordered
}

/// `POST /v1/nodes`.
#[utoipa::path(
    post,
    path = "/v1/nodes",
    operation_id = "report_node",
    tag = "nodes",
    summary = "A foreman registers its node, and renews",
    request_body = NodeReport,
    responses((status = 200, body = NodeOrders))
)]
pub(super) async fn report(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
    Json(report): Json<NodeReport>,
) -> Json<NodeOrders> {
    let is_new = node.registry().report(Instant::now(), report.clone());
    if is_new {
        node.reported.notify_waiters();
    }
    // The leader appoints, so it must hear of every node, whomever the foreman has asked.
    if let Ok(Place::There(leader)) = node.place(passed_on) {
        let (this, report) = (Arc::clone(&node), report.clone());
        drop(node.context.scope().spawn("pass on a report", async move {
            // The foreman reports again in a second; one that is lost matters little.
            drop(this.pass_on(&leader, &REPORT, &report).await);
        }));
    }
    Json(orders(&node, &report.node))
}

/// `GET /v1/processes`.
#[utoipa::path(
    get,
    path = "/v1/processes",
    tag = "nodes",
    summary = "The processes of the cluster",
    responses((status = 200, body = Processes))
)]
pub(super) async fn processes(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
) -> Json<Processes> {
    if let Ok(Place::There(leader)) = node.place(passed_on)
        && let Ok(processes) = node.pass_on(&leader, &PROCESSES, &Nothing {}).await
    {
        return Json(processes);
    }
    let group = node.active();
    let director = group
        .as_ref()
        .and_then(|group| group.state().appointed.clone())
        .map(|appointed| appointed.pid.incarnation);
    let leader = group.and_then(|group| {
        let leader = group.leader()?;
        group.members().into_iter().find(|member| member.raft_id == leader)
    });
    let role = |service: &ServiceRef, pid: &Pid| match service.kind() {
        ServiceKind::Director if Some(pid.incarnation) == director => "active",
        ServiceKind::Director => "standby",
        ServiceKind::Coordinator
            if leader.as_ref().is_some_and(|leader| leader.service == *service) =>
        {
            "leader"
        }
        ServiceKind::Coordinator => "follower",
        _ => "serving",
    };
    let processes = node.registry().processes(Instant::now(), role);
    Json(Processes { processes })
}
