//! Drains nodes at random, uses them again, and removes those that are drained. What was acknowledged
//! is in force: a removed node has nothing, whatever is begun after that. In the end all are in use.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use plinth_api::config::PatchState;
use plinth_api::coordinator::NODES;
use plinth_api::nodes::{NodeOrdered, NodeStanding, ORDER_NODE, OrderNode};
use plinth_api::{CallError, Client, ErrorCode, Target};
use plinth_service::Transport;
use plinth_system_config::Standing;
use plinth_types::NodeId;
use tokio::time::sleep;

use super::{CONFIG, LAYOUT};
use crate::scene::Scene;

/// The longest pause between two orders.
const PAUSE: Duration = Duration::from_millis(1_500);
/// How long an order may take: longer than every limit on its way.
const PATIENCE: Duration = Duration::from_secs(25);
/// How often a node that should be in use in the end is ordered so.
const TRIES: usize = 60;
/// The pause between two of these.
const RETRY: Duration = Duration::from_millis(500);

/// What is broken where a node has what it must not.
const NAME: &str = "removed_nodes_have_nothing";

pub(crate) async fn run(scene: Scene) {
    let peers = Client::new(scene.peers.clone());
    // Orders about these may still be under way.
    let mut unsettled = BTreeSet::new();
    while scene.is_working() {
        scene.pause(PAUSE).await;
        let Ok(nodes) = scene.any_gateway().ask(&NODES).await else { continue };
        let (node, standing) = choose(&scene, &nodes.ordered);
        let order = OrderNode { node, standing, dry_run: false };
        match give(&peers, &scene.any_coordinator(), &order).await {
            // What only the coordinators have is lost with all their disks.
            Ok(ordered) if ordered.state == PatchState::Recorded => {}
            Ok(ordered) => {
                let is_settled = !unsettled.contains(&ordered.node);
                is_in_force(&scene, &ordered, is_settled).await;
            }
            Err(error) => {
                if !error.had_no_effect() {
                    unsettled.insert(order.node.clone());
                }
                is_a_reason(&scene, &order, &error);
            }
        }
    }
    // All of them, so that what the cluster has in the end is spread as it began.
    let nodes = scene.gateways.iter().map(|(node, _)| {
        let (peers, scene) = (peers.clone(), &scene);
        let order = OrderNode { node: node.clone(), standing: Standing::InUse, dry_run: false };
        async move {
            for _ in 0..TRIES {
                match give(&peers, &scene.any_coordinator(), &order).await {
                    Ok(_) => return true,
                    Err(_) => sleep(RETRY).await,
                }
            }
            false
        }
    });
    if join_all(nodes).await.contains(&false) {
        scene.findings.report("orders", "a node can't be used again".to_owned());
    }
}

async fn give(
    peers: &Client<Transport>,
    target: &Target,
    order: &OrderNode,
) -> Result<NodeOrdered, CallError> {
    peers.call(target, &ORDER_NODE, order, None, PATIENCE).await
}

/// Mostly one node at a time is to go: others are needed for what it has.
fn choose(scene: &Scene, ordered: &[NodeStanding]) -> (NodeId, Standing) {
    match ordered.get(scene.below(ordered.len())) {
        Some(one) if one.drained && one.standing == Standing::Draining && scene.below(3) > 0 => {
            (one.node.clone(), Standing::Removed)
        }
        // Seldom: it takes some seconds until an epoch leaves a node.
        Some(one) if scene.below(8) == 0 => (one.node.clone(), Standing::InUse),
        _ => (scene.gateways[scene.below(scene.gateways.len())].0.clone(), Standing::Draining),
    }
}

/// What is told after an order was acknowledged is at least as new, and names nothing on a removed node
/// while that is what is ordered.
async fn is_in_force(scene: &Scene, ordered: &NodeOrdered, is_settled: bool) {
    let node = &ordered.node;
    if let Ok(config) = scene.any_gateway().ask(&CONFIG).await {
        // Nobody else gives orders, so the last one is in force.
        let now = config.standing(node);
        if is_settled && now != ordered.standing {
            let what = format!("{now:?} is told after {ordered:?}, in {}", config.stamp());
            scene.findings.report("orders", what);
        }
        named(scene, node, now, &config.remaining_on(node));
    }
    if let Ok(layout) = scene.any_gateway().ask(&LAYOUT).await {
        let config = &layout.recorded.config;
        named(scene, node, config.standing(node), &config.remaining_on(node));
    }
}

fn named(scene: &Scene, node: &NodeId, now: Standing, remaining: &[plinth_types::ServiceRef]) {
    if now == Standing::Removed && !remaining.is_empty() {
        scene.findings.report(NAME, format!("{node} has {remaining:?}"));
    }
}

/// An order is refused for a reason that may be, or its fate is not known.
fn is_a_reason(scene: &Scene, order: &OrderNode, error: &CallError) {
    let may_be = match error.code() {
        Some(ErrorCode::InvalidRequest | ErrorCode::NotFound | ErrorCode::Internal) => false,
        // To use a node again is always possible.
        Some(ErrorCode::Unsatisfiable) => order.standing != Standing::InUse,
        Some(_) | None => true,
    };
    if !may_be {
        scene.findings.report("orders", format!("{order:?}: {error}"));
    }
}
