//! What coordinators ask each other before there is a group.

use axum::extract::State;
use plinth_api::coordinator::{AcceptRequest, Accepted, BootstrapReport, Promise, PromiseRequest};
use plinth_service::{Answer, Json};

use super::Shared;
use crate::ballots;

/// `GET /v1/bootstrap`.
#[utoipa::path(
    get,
    path = "/v1/bootstrap",
    operation_id = "bootstrap",
    tag = "founding",
    summary = "What this coordinator's Raft store holds",
    responses((status = 200, body = BootstrapReport))
)]
pub(super) async fn report(State(node): State<Shared>) -> Answer<BootstrapReport> {
    Ok(Json(ballots::report(&node).await?))
}

/// `POST /v1/ballots/promise`.
#[utoipa::path(
    post,
    path = "/v1/ballots/promise",
    tag = "founding",
    summary = "Promises to take part in no lower ballot",
    request_body = PromiseRequest,
    responses((status = 200, body = Promise))
)]
pub(super) async fn promise(
    State(node): State<Shared>,
    Json(request): Json<PromiseRequest>,
) -> Answer<Promise> {
    Ok(Json(ballots::promise(&node, request).await?))
}

/// `POST /v1/ballots/accept`.
#[utoipa::path(
    post,
    path = "/v1/ballots/accept",
    tag = "founding",
    summary = "Accepts a founding",
    request_body = AcceptRequest,
    responses((status = 200, body = Accepted))
)]
pub(super) async fn accept(
    State(node): State<Shared>,
    Json(request): Json<AcceptRequest>,
) -> Answer<Accepted> {
    Ok(Json(Accepted { accepted: ballots::accept(&node, request).await? }))
}

/// `POST /v1/ballots/chosen`.
#[utoipa::path(
    post,
    path = "/v1/ballots/chosen",
    tag = "founding",
    summary = "Takes up a founding that all who must have accepted",
    request_body = AcceptRequest,
    responses((status = 200, body = Accepted))
)]
pub(super) async fn chosen(
    State(node): State<Shared>,
    Json(request): Json<AcceptRequest>,
) -> Answer<Accepted> {
    Ok(Json(Accepted { accepted: ballots::choose(&node, request).await? }))
}
