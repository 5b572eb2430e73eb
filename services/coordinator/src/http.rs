//! Routes: decode, find the leader, call, encode.

mod founding;
mod group;
mod holding;
mod nodes;
mod status;

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use plinth_api::{HEADER_FROM, HEADER_SERVED_BY};
use plinth_service::{Failure, Json, Routes};
use plinth_types::{ServiceKind, ServiceRef};
use utoipa_axum::routes;

use crate::node::Node;

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
        .anyone(routes!(status::status))
        .anyone(routes!(status::config))
        .anyone(routes!(status::layout))
        .anyone(routes!(nodes::nodes))
        .service(routes!(nodes::report))
        .anyone(routes!(nodes::processes))
        .anyone(routes!(status::recoveries))
        .administrator(routes!(status::begin_recovery))
        .anyone(routes!(group::members))
        .service(routes!(group::join))
        .service(routes!(holding::holding))
        .service(routes!(holding::record))
        .service(routes!(holding::ready))
        .service(routes!(holding::farewell))
        .service(routes!(founding::report))
        .service(routes!(founding::promise))
        .service(routes!(founding::accept))
        .service(routes!(founding::chosen))
        .service(routes!(group::append))
        .service(routes!(group::vote))
        .service(routes!(group::snapshot))
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
