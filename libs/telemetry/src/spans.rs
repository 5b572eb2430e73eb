//! Spans of one shape everywhere, by OpenTelemetry's semantic conventions for HTTP and a few
//! attributes of Plinth's own: `plinth.service`, `plinth.peer`, `plinth.epoch`, `plinth.version`.

use std::fmt::Display;

use http::{Method, StatusCode};
use opentelemetry::trace::Status;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

pub(crate) const HTTP_ROUTE: &str = "http.route";
const STATUS_CODE: &str = "http.response.status_code";
const EPOCH: &str = "plinth.epoch";
const VERSION: &str = "plinth.version";

/// A request that a service is about to send.
#[derive(Clone, Copy, Debug)]
pub struct ClientCall<'a> {
    /// The method.
    pub method: &'a Method,
    /// The route with its parameters' names, such as `/v1/keys/{key}`: few distinct values.
    pub route: &'a str,
    /// Who sends, as a service reference.
    pub service: &'a str,
    /// Who shall answer, as a service reference, or as its address where no more is known.
    pub peer: &'a str,
    /// Where the peer answers: `host:port`.
    pub address: &'a str,
}

/// A request that a service has received.
#[derive(Clone, Copy, Debug)]
pub struct ServerCall<'a> {
    /// The method.
    pub method: &'a Method,
    /// The route with its parameters' names, such as `/v1/keys/{key}`: few distinct values.
    pub route: &'a str,
    /// Who answers, as a service reference.
    pub service: &'a str,
    /// The request's id, as the caller gave it or as the service made it.
    pub request_id: &'a str,
}

/// The span of an outgoing request. [`crate::inject_from`] puts it into the request's headers.
#[must_use]
pub fn client_span(call: ClientCall<'_>) -> Span {
    let name = format!("{} {}", call.method, call.route);
    let (host, port) = split_address(call.address);
    info_span!(
        "client",
        otel.kind = "client",
        otel.name = name.as_str(),
        http.request.method = call.method.as_str(),
        http.route = call.route,
        server.address = host,
        server.port = port,
        plinth.service = call.service,
        plinth.peer = call.peer,
    )
}

/// The span of an incoming request. [`crate::set_parent`] ties it to the caller's.
#[must_use]
pub fn server_span(call: ServerCall<'_>) -> Span {
    let name = format!("{} {}", call.method, call.route);
    info_span!(
        "server",
        otel.kind = "server",
        otel.name = name.as_str(),
        http.request.method = call.method.as_str(),
        http.route = call.route,
        plinth.service = call.service,
        plinth.request_id = call.request_id,
    )
}

/// The root of a recovery's trace, which is always sampled. It has no parent, whatever span it is
/// made in.
#[must_use]
pub fn recovery_span(service: &str, epoch: u64) -> Span {
    info_span!(
        parent: None,
        "recovery",
        plinth.service = service,
        plinth.epoch = signed(epoch),
    )
}

/// A named step inside a service: a recovery's phase, an fsync, the application of a batch. Child
/// of the span that is entered here.
#[must_use]
pub fn step_span(name: &str, service: &str) -> Span {
    info_span!("step", otel.name = name, plinth.service = service)
}

/// The span of work that a request has left behind for whoever picks it up later. Nobody calls for
/// it and nobody waits, so it is a consumer's, not a server's. [`crate::set_parent_from_traceparent`]
/// ties it to the request.
#[must_use]
pub fn deferred_span(name: &str, service: &str) -> Span {
    info_span!("step", otel.kind = "consumer", otel.name = name, plinth.service = service)
}

/// Notes the answer's status. From 500 on, and for a client from 400 on, the span has failed.
pub fn record_status(span: &Span, status: StatusCode, client: bool) {
    span.set_attribute(STATUS_CODE, i64::from(status.as_u16()));
    if status.is_server_error() || (client && status.is_client_error()) {
        span.set_status(Status::error(""));
    }
}

/// Notes the epoch that the work belongs to.
pub fn record_epoch(span: &Span, epoch: u64) {
    span.set_attribute(EPOCH, signed(epoch));
}

/// Notes the commit version that the work is about.
pub fn record_version(span: &Span, version: u64) {
    span.set_attribute(VERSION, signed(version));
}

/// Marks the span as failed, with the reason.
pub fn record_error(span: &Span, error: &dyn Display) {
    span.set_status(Status::error(error.to_string()));
}

/// OpenTelemetry's integers are signed; numbers above `i64::MAX` are not reached in practice.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn split_address(address: &str) -> (&str, Option<i64>) {
    match address.rsplit_once(':') {
        Some((host, port)) => match port.parse::<u16>() {
            Ok(port) => (host.trim_start_matches('[').trim_end_matches(']'), Some(i64::from(port))),
            Err(_) => (address, None),
        },
        None => (address, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_splits_into_host_and_port() {
        assert_eq!(split_address("node-1:7000"), ("node-1", Some(7000)));
        assert_eq!(split_address("[::1]:7000"), ("::1", Some(7000)));
        assert_eq!(split_address("node-1"), ("node-1", None));
    }
}
