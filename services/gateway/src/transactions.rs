//! Transactions in one request.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use plinth_api::ErrorCode;
use plinth_api::gateway::{TransactionAnswer, TransactionRequest};
use plinth_service::{Caller, Fails as _, Failure, Json, Routes};
use utoipa_axum::routes;

use crate::admission::Admitted;
use crate::execute::{COMMIT, ONCE, Plan, READ};
use crate::http::Gateway;
use crate::naming::transaction_name;
use crate::values::{idempotency_key, with_version};

pub(crate) fn routes() -> Routes<Gateway> {
    Routes::new().user(
        routes!(transact).fails(READ).fails(COMMIT).fails(ONCE).fails(&[ErrorCode::CheckFailed]),
    )
}

/// Commits a transaction at one version, or not at all. It is run again inside until it does not
/// conflict.
#[utoipa::path(
    post, path = "/v1/transactions", tag = "transactions", request_body = TransactionRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "the header form of `idempotency_id`")),
    responses((status = 200, description = "committed", body = TransactionAnswer))
)]
async fn transact(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    caller: Caller,
    headers: HeaderMap,
    Json(request): Json<TransactionRequest>,
) -> Result<Response, Failure> {
    let named = transaction_name(&request, idempotency_key(&headers)?)?;
    let TransactionRequest { checks, reads, mutations, .. } = request;
    let plan = Plan::new(checks, reads, mutations)?;
    let taken = gateway.room(plan.most_bytes()).await?;
    let answer = gateway.execute(caller, &plan, named.as_ref()).await?;
    let version = answer.version;
    Ok(taken.until_sent(with_version(Json(answer).into_response(), version)))
}
