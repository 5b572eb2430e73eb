//! The resolver's endpoints.

use axum::extract::State;
use plinth_api::resolver::{Assignment, Resolution, Status, Verdicts};
use plinth_api::{ErrorCode, Nothing};
use plinth_service::{Answer, FENCED, Fails as _, Json, Routes};
use plinth_telemetry::record_version;
use tracing::Span;
use utoipa_axum::routes;

use crate::driver::Handle;

/// The endpoints and who may call them.
pub(crate) fn routes() -> Routes<Handle> {
    Routes::new()
        .describe("Plinth resolver", "Decides which transactions of a key range conflict.")
        .service(routes!(assign).fails(FENCED))
        .service(routes!(resolve).fails(FENCED).fails(&[ErrorCode::Overloaded]))
        .observer(routes!(status).fails(&[ErrorCode::NotReady]))
}

/// Takes up an epoch with an empty history. A lower one, and the same one of another director, are
/// refused.
#[utoipa::path(put, path = "/v1/assignment", tag = "resolver", request_body = Assignment,
    responses((status = 200, body = Nothing)))]
async fn assign(
    State(handle): State<Handle>,
    Json(assignment): Json<Assignment>,
) -> Answer<Nothing> {
    handle.assign(assignment).await?;
    Ok(Json(Nothing {}))
}

/// Decides a batch, once the one before it is decided. The same batch always gets the same verdicts.
#[utoipa::path(post, path = "/v1/resolutions", tag = "resolver", request_body = Resolution,
    responses((status = 200, body = Verdicts)))]
async fn resolve(State(handle): State<Handle>, Json(batch): Json<Resolution>) -> Answer<Verdicts> {
    record_version(&Span::current(), batch.version.0);
    Ok(Json(Verdicts { verdicts: handle.resolve(batch).await? }))
}

/// Where the resolver stands.
#[utoipa::path(get, path = "/v1/status", tag = "resolver", responses((status = 200, body = Status)))]
async fn status(State(handle): State<Handle>) -> Answer<Status> {
    Ok(Json(handle.status().await?))
}
