//! The nodes of the cluster, and orders about them: asked of the coordinators, and passed on.

use axum::extract::{Path, State};
use axum::response::Response;
use plinth_api::ErrorCode;
use plinth_api::config::PatchQuery;
use plinth_api::coordinator::{self, Nodes};
use plinth_api::nodes::{NodeOrdered, ORDER_NODE, OrderNode};
use plinth_service::{Fails as _, Failure, LED, Query, Routes, changed};
use plinth_system_config::Standing;
use plinth_types::NodeId;
use utoipa_axum::routes;

use crate::cluster::{CHANGE, served};
use crate::http::Gateway;

/// Why a node may not be ordered to stand so.
const REFUSALS: &[ErrorCode] =
    &[ErrorCode::NotFound, ErrorCode::Unsatisfiable, ErrorCode::CommitUnknownResult];

pub(crate) fn routes() -> Routes<Gateway> {
    Routes::new()
        .observer(routes!(nodes).fails(LED))
        .administrator(routes!(drain).fails(LED).fails(REFUSALS))
        .administrator(routes!(use_again).fails(LED).fails(REFUSALS))
        .administrator(routes!(remove).fails(LED).fails(REFUSALS))
}

/// The nodes and their workers, and what is ordered about nodes.
#[utoipa::path(get, path = "/v1/nodes", operation_id = "list_nodes", tag = "cluster", responses((status = 200, body = Nodes)))]
async fn nodes(State(gateway): State<Gateway>) -> Result<Response, Failure> {
    gateway.ask(&coordinator::NODES).await.map(served)
}

/// Has everything that is on a node move to other nodes, and gives it nothing new. `GET /v1/nodes` shows
/// under `ordered` what is still there.
#[utoipa::path(
    post, path = "/v1/nodes/{node}/drain", operation_id = "drain_node", tag = "cluster",
    params(("node" = NodeId, Path, description = "Such as node-4"), PatchQuery),
    responses(
        (status = 200, description = "It is ordered, and in storage; or would be, or is so already", body = NodeOrdered),
        (status = 202, description = "No epoch is ready: the coordinators have it, and the next epoch brings it into storage", body = NodeOrdered),
    )
)]
async fn drain(
    State(gateway): State<Gateway>,
    Path(node): Path<NodeId>,
    Query(query): Query<PatchQuery>,
) -> Result<Response, Failure> {
    gateway.stand(node, Standing::Draining, query).await
}

/// Uses a node again that is being drained, or was removed.
#[utoipa::path(
    delete, path = "/v1/nodes/{node}/drain", operation_id = "use_node_again", tag = "cluster",
    params(("node" = NodeId, Path, description = "Such as node-4"), PatchQuery),
    responses(
        (status = 200, description = "It is ordered, and in storage; or would be, or is so already", body = NodeOrdered),
        (status = 202, description = "No epoch is ready: the coordinators have it, and the next epoch brings it into storage", body = NodeOrdered),
    )
)]
async fn use_again(
    State(gateway): State<Gateway>,
    Path(node): Path<NodeId>,
    Query(query): Query<PatchQuery>,
) -> Result<Response, Failure> {
    gateway.stand(node, Standing::InUse, query).await
}

/// Removes a node that is drained: nothing is put on it any more, whatever it reports.
#[utoipa::path(
    delete, path = "/v1/nodes/{node}", operation_id = "remove_node", tag = "cluster",
    params(("node" = NodeId, Path, description = "Such as node-4"), PatchQuery),
    responses(
        (status = 200, description = "It is ordered, and in storage; or would be, or is so already", body = NodeOrdered),
        (status = 202, description = "No epoch is ready: the coordinators have it, and the next epoch brings it into storage", body = NodeOrdered),
    )
)]
async fn remove(
    State(gateway): State<Gateway>,
    Path(node): Path<NodeId>,
    Query(query): Query<PatchQuery>,
) -> Result<Response, Failure> {
    gateway.stand(node, Standing::Removed, query).await
}

impl Gateway {
    async fn stand(
        &self,
        node: NodeId,
        standing: Standing,
        PatchQuery { dry_run }: PatchQuery,
    ) -> Result<Response, Failure> {
        let order = OrderNode { node, standing, dry_run };
        let answer = self.order(&ORDER_NODE, &order, CHANGE).await?;
        Ok(changed(answer.served_by, answer.body))
    }
}
