//! A key from a request: any bytes, decoded once from the raw path.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use plinth_api::ErrorCode;
use plinth_service::Failure;
use plinth_types::{KEY_LIMIT, Key, VALUE_LIMIT, Value};

/// The path before a key.
const PREFIX: &str = "/v1/keys/";

/// The key of a path such as `/v1/keys/a%2Fb`, or of `?key_b64=`.
///
/// # Errors
/// `invalid_request` where neither names a key or the base64 is none, `limit_exceeded`.
pub(crate) fn key_of(raw_path: &str, key_b64: Option<&str>) -> Result<Key, Failure> {
    let in_path = raw_path.strip_prefix(PREFIX).filter(|raw| !raw.is_empty());
    let key = match (in_path, key_b64) {
        (Some(_), Some(_)) => return Err(twice()),
        (None, Some(text)) => from_base64(text)?,
        (Some(raw), None) => decoded(raw),
        (None, None) => {
            return Err(invalid("name a key: /v1/keys/{key}, or /v1/keys?key_b64= for any bytes"));
        }
    };
    within_limit(key)
}

/// The key of a path such as `/v1/keys/a%2Fb/watch`, or `/v1/keys/watch?key_b64=`; none where the
/// path does not end in the suffix. A key that does is told apart by its escape, `%2Fwatch`.
///
/// # Errors
/// As [`key_of`].
pub(crate) fn suffixed(
    raw_path: &str,
    key_b64: Option<&str>,
    suffix: &str,
) -> Result<Option<Key>, Failure> {
    let Some(raw) = raw_path.strip_prefix(PREFIX).and_then(|raw| raw.strip_suffix(suffix)) else {
        return Ok(None);
    };
    let key = match (raw, key_b64) {
        ("", Some(text)) => from_base64(text)?,
        ("", None) => return Ok(None),
        (raw, None) => match raw.strip_suffix('/') {
            Some(raw) => decoded(raw),
            None => return Ok(None),
        },
        (_, Some(_)) => return Err(twice()),
    };
    within_limit(key).map(Some)
}

/// Any bytes, percent-encoded.
pub(crate) fn decoded(raw: &str) -> Key {
    Key::from(percent_encoding::percent_decode_str(raw).collect::<Vec<u8>>())
}

fn from_base64(text: &str) -> Result<Key, Failure> {
    // A `+` that was not escaped in the query has become a space.
    let text = text.replace(' ', "+");
    let bytes = STANDARD.decode(&text).or_else(|_| URL_SAFE.decode(&text));
    bytes.map(Key::from).map_err(|error| invalid(&format!("key_b64 is not base64: {error}")))
}

fn within_limit(key: Key) -> Result<Key, Failure> {
    if key.0.len() > KEY_LIMIT {
        return Err(over("key", key.0.len(), KEY_LIMIT));
    }
    Ok(key)
}

fn twice() -> Failure {
    invalid("name the key once: in the path, or as key_b64")
}

/// A value, checked against its limit.
///
/// # Errors
/// `limit_exceeded`.
pub(crate) fn user_value(body: Bytes) -> Result<Value, Failure> {
    if body.len() > VALUE_LIMIT {
        return Err(over("value", body.len(), VALUE_LIMIT));
    }
    Ok(Value(body))
}

fn invalid(detail: &str) -> Failure {
    Failure::new(ErrorCode::InvalidRequest, detail)
}

fn over(what: &str, size: usize, limit: usize) -> Failure {
    let detail = format!("the {what} has {size} bytes; the limit is {limit}: split it");
    Failure::new(ErrorCode::LimitExceeded, detail)
        .with("limit_bytes", limit)
        .with("actual_bytes", size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_of_the_path_are_the_key() {
        for (path, key) in [
            ("/v1/keys/a", &b"a"[..]),
            ("/v1/keys/a/b", b"a/b"),
            ("/v1/keys/a%2Fb", b"a/b"),
            ("/v1/keys/../..", b"../.."),
            ("/v1/keys//", b"/"),
            ("/v1/keys/%00%fe", b"\x00\xfe"),
            ("/v1/keys/%252F", b"%2F"),
        ] {
            assert_eq!(key_of(path, None).expect(path).as_bytes(), key, "{path}");
        }
        for (text, key) in [
            ("/v4=", &b"\xfe\xfe"[..]),
            ("_v4=", b"\xfe\xfe"),
            ("++++", b"\xfb\xef\xbe"),
            ("    ", b"\xfb\xef\xbe"),
            ("", b""),
        ] {
            assert_eq!(key_of("/v1/keys", Some(text)).expect(text).as_bytes(), key, "{text}");
        }
    }

    #[test]
    fn a_suffix_is_told_from_a_key_that_ends_in_it() {
        let key = |path: &str, b64| {
            suffixed(path, b64, "watch").expect(path).map(|key| key.as_bytes().to_vec())
        };
        assert_eq!(key("/v1/keys/a/watch", None), Some(b"a".to_vec()));
        assert_eq!(key("/v1/keys/a/b%2F/watch", None), Some(b"a/b/".to_vec()));
        assert_eq!(key("/v1/keys//watch", None), Some(b"".to_vec()));
        assert_eq!(key("/v1/keys/watch", Some("YQ==")), Some(b"a".to_vec()));
        for path in ["/v1/keys/watch", "/v1/keys/a%2Fwatch", "/v1/keys/awatch", "/v1/keys/a"] {
            assert_eq!(key(path, None), None, "{path}");
        }
        assert!(suffixed("/v1/keys/a/watch", Some("YQ=="), "watch").is_err());
    }

    #[test]
    fn what_no_user_may_write_is_refused_by_name() {
        let code = |result: Result<Key, Failure>| result.expect_err("refused").0.code;
        assert_eq!(code(key_of("/v1/keys", None)), ErrorCode::InvalidRequest);
        assert_eq!(code(key_of("/v1/keys", Some("?"))), ErrorCode::InvalidRequest);
        assert_eq!(code(key_of("/v1/keys/a", Some("YQ=="))), ErrorCode::InvalidRequest);
        let long = format!("/v1/keys/{}", "k".repeat(KEY_LIMIT + 1));
        assert_eq!(code(key_of(&long, None)), ErrorCode::LimitExceeded);
        let problem = user_value(Bytes::from(vec![0; VALUE_LIMIT + 1])).expect_err("refused");
        assert_eq!(problem.0.facts.get("actual_bytes").map(String::as_str), Some("100001"));
    }
}
