//! What an operator decides where the cluster can't.

use axum::extract::State;
use plinth_api::Nothing;
use plinth_api::coordinator::{CARRY_OUT, CarriedOut, CarryOut, RECOVERY_PLAN, RecoveryPlan};
use plinth_service::Json;

use super::{PassedOn, Served, Shared, served};
use crate::node::Place;
use crate::recovering;

/// `GET /v1/recovery_plan`.
#[utoipa::path(
    get,
    path = "/v1/recovery_plan",
    tag = "status",
    summary = "What an operator may have done where the cluster can't go on by itself",
    responses((status = 200, body = RecoveryPlan))
)]
pub(super) async fn recovery_plan(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
) -> Served<RecoveryPlan> {
    match node.place(passed_on) {
        Ok(Place::There(leader)) => {
            let answer = node.pass_on(&leader, &RECOVERY_PLAN, &Nothing {}).await?;
            Ok(served(&leader.service, answer))
        }
        Ok(Place::Here(_)) | Err(_) => {
            Ok(served(node.context.service(), recovering::plan(&node).await?))
        }
    }
}

/// `POST /v1/recovery_plan`.
#[utoipa::path(
    post,
    path = "/v1/recovery_plan",
    tag = "status",
    summary = "Carries the recovery plan out",
    request_body = CarryOut,
    responses((status = 200, body = CarriedOut))
)]
pub(super) async fn carry_out(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
    Json(request): Json<CarryOut>,
) -> Served<CarriedOut> {
    match node.place(passed_on) {
        Ok(Place::There(leader)) => {
            let answer = node.pass_on(&leader, &CARRY_OUT, &request).await?;
            Ok(served(&leader.service, answer))
        }
        Ok(Place::Here(_)) | Err(_) => {
            let done = recovering::carry_out(&node, &request.id).await?;
            Ok(served(node.context.service(), done))
        }
    }
}
