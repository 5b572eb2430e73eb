//! Entity tags: who has read something already is told that it is still the same.

use std::fmt::Display;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

/// The entity tag of what is told apart by this.
pub(crate) fn entity_tag(tag: &dyn Display) -> String {
    format!("\"{tag}\"")
}

/// An answer with the tag of what it shows; 304 without a body where `If-None-Match` names the tag.
pub fn tagged(asked: &HeaderMap, tag: &dyn Display, answer: impl IntoResponse) -> Response {
    let tag = entity_tag(tag);
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag);
    let mut response = answer.into_response();
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = axum::body::Body::empty();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    if let Ok(value) = HeaderValue::try_from(tag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tag_itself_is_not_modified() {
        for (asked, status) in [
            (None, 200),
            (Some("\"7\""), 304),
            (Some("\"6\", W/\"7\""), 304),
            (Some("*"), 304),
            (Some("\"77\""), 200),
            (Some("7"), 200),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(asked) = asked {
                headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static(asked));
            }
            let answer = tagged(&headers, &7, "seven");
            assert_eq!(answer.status(), status, "{asked:?}");
            assert_eq!(answer.headers()[header::ETAG], "\"7\"");
        }
    }
}
