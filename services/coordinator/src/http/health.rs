//! What the cluster can still bear.

use axum::extract::State;
use plinth_api::Nothing;
use plinth_api::coordinator::{ClusterHealth, HEALTH};
use plinth_service::Failure;
use tokio::time::Instant;

use super::status::own_status;
use super::{PassedOn, Served, Shared, served};
use crate::health::{Seen, assess};
use crate::node::Place;

/// `GET /v1/cluster/health`. It answers whatever is broken.
#[utoipa::path(
    get,
    path = "/v1/cluster/health",
    tag = "status",
    summary = "How many nodes may still be lost, and what is wrong",
    responses((status = 200, body = ClusterHealth))
)]
pub(super) async fn health(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
) -> Served<ClusterHealth> {
    let place = node.place(passed_on);
    if let Ok(Place::There(leader)) = &place
        && let Ok(health) = node.pass_on(leader, &HEALTH, &Nothing {}).await
    {
        return Ok(served(&leader.service, health));
    }
    let group = node.active();
    let status = own_status(&node, group.as_ref());
    let ready = match place {
        Err(Failure(problem)) => Err(problem.detail),
        Ok(Place::There(leader)) => {
            Err(format!("{}, which leads, does not answer", leader.service))
        }
        Ok(Place::Here(_)) if status.ready => Ok(()),
        Ok(Place::Here(_)) => {
            let why = status.problem.map(|problem| format!(": {problem}")).unwrap_or_default();
            Err(format!("epoch {} is in {}{why}", status.epoch, status.phase))
        }
    };
    let recorded = group.and_then(|group| group.state().recorded.clone());
    let nodes: Vec<_> = node.registry().nodes(Instant::now()).cloned().collect();
    let health = assess(&Seen {
        nodes: &nodes,
        voters: &status.members,
        config: recorded.as_ref().map(|recorded| &recorded.config),
        ready,
    });
    Ok(served(node.context.service(), health))
}
