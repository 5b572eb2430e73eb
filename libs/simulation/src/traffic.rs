//! How many requests there were, by method and path.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Requests, counted as they are written to a connection. A clone counts in the same place.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<Mutex<BTreeMap<String, u64>>>);

/// What a request begins with.
const METHODS: [&str; 5] = ["GET ", "POST ", "PUT ", "PATCH ", "DELETE "];

impl Traffic {
    /// How many requests of each kind: the method and the first two parts of the path.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes were written to a connection. HTTP/1 writes the head of a request at once, and after
    /// everything of the one before.
    pub(crate) fn sent(&self, bytes: &[u8]) {
        if let Some(kind) = kind(bytes) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
        }
    }
}

fn kind(bytes: &[u8]) -> Option<String> {
    let head = &bytes[..bytes.len().min(256)];
    let method = METHODS.iter().find(|method| head.starts_with(method.as_bytes()))?;
    let target = head[method.len()..].split(|byte| b" ?".contains(byte)).next()?;
    let target = std::str::from_utf8(target).ok().filter(|target| target.starts_with('/'))?;
    let parts: Vec<&str> = target.split('/').skip(1).take(2).collect();
    Some(format!("{method}/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_by_its_method_and_path() {
        let traffic = Traffic::default();
        let heads: [&[u8]; 5] = [
            b"GET /v1/keys/a%20b?x=1 HTTP/1.1\r\nhost: a\r\n\r\n",
            b"GET /v1/keys/b HTTP/1.1\r\n\r\n",
            b"POST /v1/entries HTTP/1.1\r\n\r\n{}",
            b"{\"GET \": 1}",
            b"GET nothing",
        ];
        heads.iter().for_each(|head| traffic.sent(head));
        let counted: Vec<_> = traffic.requests().into_iter().collect();
        assert_eq!(counted, [("GET /v1/keys".to_owned(), 2), ("POST /v1/entries".to_owned(), 1)]);
    }
}
