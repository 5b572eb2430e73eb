//! The same operations as requests of each server's, and what its answers mean.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::Operation;

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Plinth's gateway.
    Plinth,
    /// etcd's HTTP/JSON gateway, version 3.
    Etcd,
}

/// A request without its headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The type of the body; none where there is no body.
    pub content_type: Option<&'static str>,
    /// The body.
    pub body: Bytes,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done as asked.
    Done,
    /// Not done, or not known to be; the server's own code, or `http_` and the status.
    Failed(String),
}

const JSON: Option<&str> = Some("application/json");

/// A key's name. All have the same length, so that requests do.
pub(crate) fn key_name(number: u64) -> String {
    format!("bench/{number:010}")
}

/// The bodies that all requests of a load share, made once.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    raw: Bytes,
    text: String,
    base64: String,
}

impl Payload {
    /// A value of `size` bytes, printable and not compressible to nothing.
    pub(crate) fn new(size: usize, mut random: impl FnMut() -> u8) -> Payload {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let text: String =
            (0..size).map(|_| char::from(ALPHABET[usize::from(random() % 64)])).collect();
        let base64 = STANDARD.encode(&text);
        Payload { raw: Bytes::from(text.clone()), text, base64 }
    }
}

impl Protocol {
    /// Its name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Plinth => "plinth",
            Protocol::Etcd => "etcd",
        }
    }

    /// An operation on a key. Names and values need no escaping in JSON.
    pub(crate) fn request(self, operation: Operation, key: u64, payload: &Payload) -> Request {
        let name = key_name(key);
        match self {
            Protocol::Plinth => match operation {
                Operation::Get => Request {
                    method: Method::GET,
                    path: format!("/v1/keys/{name}"),
                    content_type: None,
                    body: Bytes::new(),
                },
                Operation::Put => Request {
                    method: Method::PUT,
                    path: format!("/v1/keys/{name}"),
                    content_type: Some("application/octet-stream"),
                    body: payload.raw.clone(),
                },
                Operation::Transaction => {
                    let value = &payload.text;
                    let body = format!(
                        r#"{{"checks":[{{"key":"{name}","value":"{value}"}}],"mutations":[{{"set":{{"key":"{name}","value":"{value}"}}}}]}}"#
                    );
                    post("/v1/transactions", body)
                }
            },
            Protocol::Etcd => {
                let name = STANDARD.encode(name);
                let value = &payload.base64;
                match operation {
                    Operation::Get => post("/v3/kv/range", format!(r#"{{"key":"{name}"}}"#)),
                    Operation::Put => {
                        post("/v3/kv/put", format!(r#"{{"key":"{name}","value":"{value}"}}"#))
                    }
                    Operation::Transaction => post(
                        "/v3/kv/txn",
                        format!(
                            r#"{{"compare":[{{"key":"{name}","target":"VALUE","result":"EQUAL","value":"{value}"}}],"success":[{{"requestPut":{{"key":"{name}","value":"{value}"}}}}]}}"#
                        ),
                    ),
                }
            }
        }
    }

    /// What an answer to such a request means.
    #[must_use]
    pub fn verdict(self, operation: Operation, status: StatusCode, body: &[u8]) -> Verdict {
        if !status.is_success() {
            return Verdict::Failed(self.code(status, body));
        }
        // etcd answers a missing key and a failed comparison with 200.
        let expected: &[u8] = match (self, operation) {
            (Protocol::Plinth, _) | (Protocol::Etcd, Operation::Put) => return Verdict::Done,
            (Protocol::Etcd, Operation::Get) => br#""kvs""#,
            (Protocol::Etcd, Operation::Transaction) => br#""succeeded":true"#,
        };
        if body.windows(expected.len()).any(|window| window == expected) {
            return Verdict::Done;
        }
        Verdict::Failed(match operation {
            Operation::Get => "key_not_found".to_owned(),
            Operation::Put | Operation::Transaction => "check_failed".to_owned(),
        })
    }

    fn code(self, status: StatusCode, body: &[u8]) -> String {
        #[derive(Deserialize)]
        struct Problem {
            code: serde_json::Value,
        }
        match (self, serde_json::from_slice(body)) {
            (Protocol::Plinth, Ok(Problem { code: serde_json::Value::String(code) })) => code,
            (Protocol::Etcd, Ok(Problem { code: serde_json::Value::Number(code) })) => {
                format!("grpc_{code}")
            }
            _ => format!("http_{}", status.as_u16()),
        }
    }
}

fn post(path: &str, body: String) -> Request {
    Request {
        method: Method::POST,
        path: path.to_owned(),
        content_type: JSON,
        body: Bytes::from(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload() -> Payload {
        let mut next = 0;
        Payload::new(3, move || {
            next += 1;
            next
        })
    }

    #[test]
    fn every_operation_in_each_servers_form() {
        let show = |protocol: Protocol, operation| {
            let Request { method, path, body, .. } = protocol.request(operation, 7, &payload());
            format!("{method} {path} {}", String::from_utf8_lossy(&body))
        };
        let plinth = Operation::ALL.map(|operation| show(Protocol::Plinth, operation));
        assert_eq!(
            plinth,
            [
                "GET /v1/keys/bench/0000000007 ",
                "PUT /v1/keys/bench/0000000007 BCD",
                r#"POST /v1/transactions {"checks":[{"key":"bench/0000000007","value":"BCD"}],"mutations":[{"set":{"key":"bench/0000000007","value":"BCD"}}]}"#,
            ]
        );
        let etcd = Operation::ALL.map(|operation| show(Protocol::Etcd, operation));
        assert_eq!(
            etcd,
            [
                r#"POST /v3/kv/range {"key":"YmVuY2gvMDAwMDAwMDAwNw=="}"#,
                r#"POST /v3/kv/put {"key":"YmVuY2gvMDAwMDAwMDAwNw==","value":"QkNE"}"#,
                r#"POST /v3/kv/txn {"compare":[{"key":"YmVuY2gvMDAwMDAwMDAwNw==","target":"VALUE","result":"EQUAL","value":"QkNE"}],"success":[{"requestPut":{"key":"YmVuY2gvMDAwMDAwMDAwNw==","value":"QkNE"}}]}"#,
            ]
        );
    }

    #[test]
    fn what_answers_mean() {
        use Operation::{Get, Put, Transaction};
        let verdict = |protocol: Protocol, operation, status: u16, body: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            match protocol.verdict(operation, status, body.as_bytes()) {
                Verdict::Done => "done".to_owned(),
                Verdict::Failed(code) => code,
            }
        };
        let plinth = Protocol::Plinth;
        assert_eq!(verdict(plinth, Get, 200, "x"), "done");
        assert_eq!(verdict(plinth, Get, 404, r#"{"code":"key_not_found"}"#), "key_not_found");
        assert_eq!(verdict(plinth, Put, 503, "no problem document"), "http_503");
        let etcd = Protocol::Etcd;
        assert_eq!(verdict(etcd, Get, 200, r#"{"header":{},"kvs":[{}]}"#), "done");
        assert_eq!(verdict(etcd, Get, 200, r#"{"header":{}}"#), "key_not_found");
        assert_eq!(verdict(etcd, Put, 200, r#"{"header":{}}"#), "done");
        assert_eq!(verdict(etcd, Put, 503, r#"{"error":"no leader","code":14}"#), "grpc_14");
        assert_eq!(verdict(etcd, Transaction, 200, r#"{"header":{},"succeeded":true}"#), "done");
        assert_eq!(verdict(etcd, Transaction, 200, r#"{"header":{}}"#), "check_failed");
    }
}
