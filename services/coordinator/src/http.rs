//! Routes: decode, find the leader, call, encode.

mod changing;
mod config;
mod founding;
mod group;
mod health;
mod holding;
mod level;
mod members;
mod nodes;
mod recovering;
mod standing;
mod status;

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use plinth_api::{ErrorCode, HEADER_FROM, HEADER_SERVED_BY};
use plinth_service::{Fails as _, Failure, Json, LED, Routes, STORED};
use plinth_types::{ServiceKind, ServiceRef};
use utoipa_axum::routes;

use crate::node::Node;

/// The refusals of what an operator may have to decide.
const PLANNED: &[ErrorCode] = &[
    ErrorCode::NotFound,
    ErrorCode::NoQuorum,
    ErrorCode::NotReady,
    ErrorCode::PeerUnavailable,
    ErrorCode::DiskFull,
    ErrorCode::Damaged,
];

/// What the handlers share.
pub(crate) type Shared = Arc<Node>;

/// An answer with who served it.
pub(crate) type Served<T> = Result<(HeaderMap, Json<T>), Failure>;

/// Every route, still without its state.
#[must_use]
pub(crate) fn routes() -> Routes<Shared> {
    Routes::new()
        .describe(
            "Plinth coordinator",
            "The epoch and the recorded layout, in Raft; the appointment of directors.",
        )
        .browsable()
        .observer(routes!(status::status))
        .observer(routes!(status::config).fails(LED))
        .administrator(routes!(config::patch).fails(LED).fails(config::REFUSALS))
        .administrator(routes!(level::raise).fails(LED).fails(level::REFUSALS))
        .observer(routes!(status::layout).fails(LED))
        .observer(routes!(nodes::nodes))
        .service(routes!(nodes::report))
        .administrator(routes!(standing::drain).fails(LED).fails(standing::REFUSALS))
        .administrator(routes!(standing::use_again).fails(LED).fails(standing::REFUSALS))
        .administrator(routes!(standing::remove).fails(LED).fails(standing::REFUSALS))
        .administrator(routes!(standing::order).fails(LED).fails(standing::REFUSALS))
        .observer(routes!(nodes::processes))
        .observer(routes!(status::recoveries).fails(LED))
        .administrator(routes!(status::begin_recovery).fails(LED).fails(&[ErrorCode::Overloaded]))
        .observer(routes!(recovering::recovery_plan).fails(PLANNED))
        .administrator(
            routes!(recovering::carry_out).fails(PLANNED).fails(&[ErrorCode::Superseded]),
        )
        .observer(routes!(members::members).fails(LED))
        .administrator(routes!(members::add).fails(LED).fails(members::REFUSALS))
        .administrator(routes!(members::remove).fails(LED).fails(members::REFUSALS))
        .administrator(routes!(members::order).fails(LED).fails(members::REFUSALS))
        .observer(routes!(health::health))
        .service(routes!(members::join).fails(LED).fails(&[ErrorCode::WrongGroup]))
        .service(routes!(holding::holding).fails(LED))
        .service(routes!(holding::record).fails(LED).fails(&[ErrorCode::Superseded]))
        .service(routes!(holding::ready).fails(LED).fails(&[ErrorCode::Superseded]))
        .service(routes!(holding::farewell).fails(LED).fails(&[ErrorCode::Overloaded]))
        .service(routes!(founding::report).fails(STORED))
        .service(routes!(founding::promise).fails(STORED))
        .service(routes!(founding::accept).fails(STORED))
        .service(routes!(founding::chosen).fails(STORED))
        .service(routes!(group::append).fails(&[ErrorCode::WrongGroup]))
        .service(routes!(group::vote).fails(&[ErrorCode::WrongGroup]))
        .service(routes!(group::snapshot).fails(&[ErrorCode::WrongGroup]))
}

/// Whether another coordinator has passed the request on. It is not passed on again.
pub(crate) struct PassedOn(pub bool);

impl<S: Sync> FromRequestParts<S> for PassedOn {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let from = parts.headers.get(HEADER_FROM).and_then(|value| value.to_str().ok());
        let from = from.and_then(|text| text.parse::<ServiceRef>().ok());
        Ok(PassedOn(from.is_some_and(|from| from.kind() == ServiceKind::Coordinator)))
    }
}

/// Says who has served it.
fn served<T>(by: &ServiceRef, answer: T) -> (HeaderMap, Json<T>) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::try_from(by.to_string()) {
        headers.insert(HEADER_SERVED_BY, value);
    }
    (headers, Json(answer))
}
