//! A key from a request: any bytes, decoded once from the raw path.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use plinth_api::ErrorCode;
use plinth_service::Failure;
use plinth_types::{KEY_LIMIT, Key, VALUE_LIMIT, Value};

/// The path before a key.
const PREFIX: &str = "/v1/keys/";

/// The key of a path such as `/v1/keys/a%2Fb`, or of `?key_b64=`, checked against the limits of
/// users' keys.
///
/// # Errors
/// `invalid_request` where neither names a key or the base64 is none, `limit_exceeded`,
/// `system_key`.
pub(crate) fn user_key(raw_path: &str, key_b64: Option<&str>) -> Result<Key, Failure> {
    let key = any_key(raw_path, key_b64)?;
    if key.is_system() {
        return Err(Failure::new(
            ErrorCode::SystemKey,
            "keys from \\xff on belong to the system: use another key; only the administrator reads them",
        ));
    }
    Ok(key)
}

/// The same, where the system's keys may be named too.
///
/// # Errors
/// `invalid_request`, `limit_exceeded`.
pub(crate) fn any_key(raw_path: &str, key_b64: Option<&str>) -> Result<Key, Failure> {
    let in_path = raw_path.strip_prefix(PREFIX).filter(|raw| !raw.is_empty());
    let bytes = match (in_path, key_b64) {
        (Some(_), Some(_)) => {
            return Err(invalid("name the key once: in the path, or as key_b64"));
        }
        (None, Some(text)) => {
            // A `+` that was not escaped in the query has become a space.
            let text = text.replace(' ', "+");
            STANDARD
                .decode(&text)
                .or_else(|_| URL_SAFE.decode(&text))
                .map_err(|error| invalid(&format!("key_b64 is not base64: {error}")))?
        }
        (Some(raw), None) => percent_encoding::percent_decode_str(raw).collect(),
        (None, None) => {
            return Err(invalid("name a key: /v1/keys/{key}, or /v1/keys?key_b64= for any bytes"));
        }
    };
    let key = Key::from(bytes);
    if key.0.len() > KEY_LIMIT {
        return Err(over("key", key.0.len(), KEY_LIMIT));
    }
    Ok(key)
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
            assert_eq!(user_key(path, None).expect(path).as_bytes(), key, "{path}");
        }
        for (text, key) in [
            ("/v4=", &b"\xfe\xfe"[..]),
            ("_v4=", b"\xfe\xfe"),
            ("++++", b"\xfb\xef\xbe"),
            ("    ", b"\xfb\xef\xbe"),
            ("", b""),
        ] {
            assert_eq!(user_key("/v1/keys", Some(text)).expect(text).as_bytes(), key, "{text}");
        }
    }

    #[test]
    fn what_no_user_may_write_is_refused_by_name() {
        let code = |result: Result<Key, Failure>| result.expect_err("refused").0.code;
        assert_eq!(code(user_key("/v1/keys/%ff/system", None)), ErrorCode::SystemKey);
        assert_eq!(code(user_key("/v1/keys", None)), ErrorCode::InvalidRequest);
        assert_eq!(code(user_key("/v1/keys", Some("?"))), ErrorCode::InvalidRequest);
        assert_eq!(code(user_key("/v1/keys/a", Some("YQ=="))), ErrorCode::InvalidRequest);
        let long = format!("/v1/keys/{}", "k".repeat(KEY_LIMIT + 1));
        assert_eq!(code(user_key(&long, None)), ErrorCode::LimitExceeded);
        let problem = user_value(Bytes::from(vec![0; VALUE_LIMIT + 1])).expect_err("refused");
        assert_eq!(problem.0.facts.get("actual_bytes").map(String::as_str), Some("100001"));
    }
}
