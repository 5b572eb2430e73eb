//! The coordinators' membership, and orders about it: asked of the coordinators, and passed on.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use plinth_api::config::PatchQuery;
use plinth_api::coordinator::{self, Members};
use plinth_api::members::{AddMember, MemberOrdered, ORDER_MEMBER, OrderMember};
use plinth_api::{ErrorCode, Target};
use plinth_service::{Fails as _, Failure, Json, LED, Query, Routes};
use plinth_types::ServiceRef;
use utoipa_axum::routes;

use crate::cluster::served;
use crate::http::Gateway;

/// How long the coordinators may take: a newcomer is given the log, and the director records twice.
const LIMIT: Duration = Duration::from_secs(45);

/// Why a coordinator may not join or leave.
const REFUSALS: &[ErrorCode] =
    &[ErrorCode::NotFound, ErrorCode::Unsatisfiable, ErrorCode::CommitUnknownResult];

pub(crate) fn routes() -> Routes<Gateway> {
    Routes::new()
        .observer(routes!(members).fails(LED))
        .administrator(routes!(add).fails(LED).fails(REFUSALS))
        .administrator(routes!(remove).fails(LED).fails(REFUSALS))
}

/// The members of the coordinators' group, and those after a change that is under way.
#[utoipa::path(get, path = "/v1/members", operation_id = "list_members", tag = "cluster", responses((status = 200, body = Members)))]
async fn members(State(gateway): State<Gateway>) -> Result<Response, Failure> {
    gateway.ask(&coordinator::MEMBERS).await.map(served)
}

/// Lets a coordinator into the group that runs and waits for it. The answer comes once it is a member, and in
/// storage as one.
#[utoipa::path(
    post, path = "/v1/members", operation_id = "add_member", tag = "cluster",
    params(PatchQuery),
    request_body = AddMember,
    responses((status = 200, description = "It is a member; or would be, or is so already", body = MemberOrdered))
)]
async fn add(
    State(gateway): State<Gateway>,
    Query(query): Query<PatchQuery>,
    Json(AddMember { service, address }): Json<AddMember>,
) -> Result<Response, Failure> {
    let address = Target::address(&address).address;
    let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(1..))) {
        let detail = format!("address: {address:?} is not of the form host:port");
        return Err(Failure::new(ErrorCode::InvalidRequest, detail).with("field", "address"));
    }
    let order = OrderMember { service, address: Some(address), dry_run: query.dry_run };
    gateway.order(&ORDER_MEMBER, &order, LIMIT).await.map(served)
}

/// Takes a coordinator out of the group. The answer comes once it is no member, nor in storage one.
#[utoipa::path(
    delete, path = "/v1/members/{service}", operation_id = "remove_member", tag = "cluster",
    params(("service" = ServiceRef, Path, description = "Such as coordinator-1@node-1"), PatchQuery),
    responses((status = 200, description = "It is no member; or would be none, or is so already", body = MemberOrdered))
)]
async fn remove(
    State(gateway): State<Gateway>,
    Path(service): Path<ServiceRef>,
    Query(query): Query<PatchQuery>,
) -> Result<Response, Failure> {
    let order = OrderMember { service, address: None, dry_run: query.dry_run };
    gateway.order(&ORDER_MEMBER, &order, LIMIT).await.map(served)
}
