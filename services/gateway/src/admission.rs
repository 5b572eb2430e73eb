//! So many requests for data at a time, and no more.

use axum::extract::FromRequestParts;
use http::request::Parts;
use plinth_api::ErrorCode;
use plinth_service::Failure;
use tokio::sync::OwnedSemaphorePermit;

use crate::http::Gateway;

/// A place among the requests that are under way, held until the answer. An extractor.
pub(crate) struct Admitted {
    _place: OwnedSemaphorePermit,
}

impl FromRequestParts<Gateway> for Admitted {
    type Rejection = Failure;
    async fn from_request_parts(_: &mut Parts, gateway: &Gateway) -> Result<Self, Failure> {
        match gateway.place() {
            Some(place) => Ok(Admitted { _place: place }),
            None => Err(Failure::new(
                ErrorCode::Overloaded,
                "too many requests are under way at this gateway: try again shortly, or another one",
            )),
        }
    }
}
