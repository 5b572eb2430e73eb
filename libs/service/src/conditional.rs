//! Writes that take effect only where the caller has seen what they change.

use std::fmt::Display;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use plinth_api::config::{Outcome, PatchState};
use plinth_api::{ErrorCode, HEADER_SERVED_BY};
use serde::Serialize;

use crate::tagged::entity_tag;
use crate::{Failure, Json};

/// The `If-Match` of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition(HeaderValue);

impl Condition {
    /// The condition of a write that must have one.
    ///
    /// # Errors
    /// It has none, or more than one header of it, or one that is no text.
    pub fn of(headers: &HeaderMap) -> Result<Condition, Failure> {
        let mut given = headers.get_all(header::IF_MATCH).iter();
        let (first, second) = (given.next(), given.next());
        let failure = |code, detail: &str| Failure::new(code, detail).with("field", "If-Match");
        match (first, second) {
            (Some(tags), None) if tags.to_str().is_ok() => Ok(Condition(tags.clone())),
            (None, _) => Err(failure(
                ErrorCode::PreconditionRequired,
                "send the ETag of what you have read as `If-Match`, or `If-Match: *` to change whatever is there",
            )),
            (Some(_), _) => Err(failure(
                ErrorCode::InvalidRequest,
                "If-Match: send one header, with entity tags such as \"7\" or with *",
            )),
        }
    }

    /// The header to pass on.
    #[must_use]
    pub fn header(&self) -> &HeaderValue {
        &self.0
    }

    /// Whether it holds of what has this tag. A weak tag never does.
    ///
    /// # Errors
    /// `precondition_failed`.
    pub fn check(&self, tag: &dyn Display) -> Result<(), Failure> {
        let tag = entity_tag(tag);
        let text = self.0.to_str().unwrap_or_default();
        if text.split(',').map(str::trim).any(|wanted| wanted == "*" || wanted == tag) {
            return Ok(());
        }
        let detail = format!(
            "If-Match is {text}, and the ETag is {tag}: it has changed since; read it again"
        );
        let failure = Failure::new(ErrorCode::PreconditionFailed, detail);
        Err(failure.with("field", "If-Match").with("etag", tag))
    }
}

/// A change's answer: 200, or 202 while it is not in storage yet, with the ETag of the configuration
/// and who has made it.
pub fn changed<T: Outcome + Serialize>(by: Option<HeaderValue>, answer: T) -> Response {
    let (state, config_version) = (answer.state(), answer.config_version());
    let mut response = Json(answer).into_response();
    if state == PatchState::Recorded {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::try_from(entity_tag(&config_version)) {
        headers.insert(header::ETAG, tag);
    }
    if let Some(by) = by {
        headers.insert(HEADER_SERVED_BY, by);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(values: &[&str]) -> Result<Condition, ErrorCode> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_MATCH, HeaderValue::from_str(value).unwrap());
        }
        Condition::of(&headers).map_err(|failure| failure.0.code)
    }

    #[test]
    fn only_what_has_the_tag_is_changed() {
        for (asked, holds) in [
            ("\"7\"", true),
            ("*", true),
            ("\"6\", \"7\"", true),
            ("W/\"7\"", false),
            ("\"77\"", false),
            ("7", false),
            ("", false),
        ] {
            let checked = condition(&[asked]).unwrap().check(&7);
            let code = checked.err().map(|failure| failure.0.code);
            assert_eq!(code, (!holds).then_some(ErrorCode::PreconditionFailed), "{asked}");
        }
    }

    #[test]
    fn a_write_without_one_condition_is_told_so() {
        assert_eq!(condition(&[]), Err(ErrorCode::PreconditionRequired));
        assert_eq!(condition(&["\"7\"", "\"8\""]), Err(ErrorCode::InvalidRequest));
    }
}
