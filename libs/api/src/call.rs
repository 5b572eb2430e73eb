//! A typed call over HTTP.

use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use plinth_types::{Epoch, Incarnation, Pid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tower::{Service, ServiceExt as _};

use crate::{ErrorCode, Problem};

/// The cluster that the request belongs to.
pub const HEADER_CLUSTER: &str = "plinth-cluster";
/// The sender's epoch.
pub const HEADER_EPOCH: &str = "plinth-epoch";
/// The process that the request is meant for.
pub const HEADER_INCARNATION: &str = "plinth-incarnation";
/// The sender's service reference.
pub const HEADER_FROM: &str = "plinth-from";
/// The cluster secret, which proves that a service calls.
pub const HEADER_SECRET: &str = "plinth-secret";
/// The request's id.
pub const HEADER_REQUEST_ID: &str = "x-request-id";
/// Who served a forwarded request.
pub const HEADER_SERVED_BY: &str = "served-by";
/// The version of what is answered.
pub const HEADER_VERSION: &str = "plinth-version";

/// A request or answer without content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Nothing {}

/// One operation of a service: method, path, what goes in and what comes out.
pub struct Endpoint<Req, Resp> {
    /// The method. GET carries the request as its query, every other one as a JSON body.
    pub method: Method,
    /// The path.
    pub path: &'static str,
    types: PhantomData<fn(Req) -> Resp>,
}

impl<Req, Resp> Endpoint<Req, Resp> {
    /// A GET.
    #[must_use]
    pub const fn get(path: &'static str) -> Self {
        Endpoint { method: Method::GET, path, types: PhantomData }
    }
    /// A POST.
    #[must_use]
    pub const fn post(path: &'static str) -> Self {
        Endpoint { method: Method::POST, path, types: PhantomData }
    }
    /// A PUT.
    #[must_use]
    pub const fn put(path: &'static str) -> Self {
        Endpoint { method: Method::PUT, path, types: PhantomData }
    }
    /// A PATCH.
    #[must_use]
    pub const fn patch(path: &'static str) -> Self {
        Endpoint { method: Method::PATCH, path, types: PhantomData }
    }
}

/// Who a call is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// The process it is meant for; without one, whichever answers there.
    pub incarnation: Option<Incarnation>,
}

impl From<&Pid> for Target {
    fn from(pid: &Pid) -> Target {
        Target { address: pid.address.clone(), incarnation: Some(pid.incarnation) }
    }
}

impl Target {
    /// Whichever process answers at `host:port`; a leading `http://` is dropped.
    #[must_use]
    pub fn address(address: &str) -> Target {
        let address = address.strip_prefix("http://").unwrap_or(address);
        Target { address: address.trim_end_matches('/').to_owned(), incarnation: None }
    }
}

/// How long a transport may take for a request, connecting included; a request extension.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimit(pub Duration);

/// The path of the endpoint that a request is for, its parameters by name; a request extension, for
/// traces and metrics.
#[derive(Clone, Copy, Debug)]
pub struct Route(pub &'static str);

/// The request or its answer did not get through.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection: the request was never sent.
    #[error("can't connect to {peer}: {detail}")]
    Connect {
        /// `host:port`.
        peer: String,
        /// What the system said.
        detail: String,
    },
    /// No answer in time.
    #[error("{peer} did not answer within {after_ms} ms")]
    Timeout {
        /// `host:port`.
        peer: String,
        /// The limit.
        after_ms: u64,
    },
    /// The connection ended before the answer.
    #[error("the connection to {peer} broke: {detail}")]
    Broken {
        /// `host:port`.
        peer: String,
        /// What the system said.
        detail: String,
    },
}

/// A call that did not bring what it should.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    /// It did not get through.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The other side says no.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The answer is not of the form agreed.
    #[error("unexpected answer of {peer}: {detail}")]
    Answer {
        /// `host:port`.
        peer: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The request can't be written.
    #[error("the request can't be written: {0}")]
    Request(String),
}

impl From<Problem> for CallError {
    fn from(problem: Problem) -> CallError {
        CallError::Problem(Box::new(problem))
    }
}

impl CallError {
    /// The problem code, where the other side answered with one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            CallError::Problem(problem) => Some(problem.code),
            CallError::Transport(_) | CallError::Answer { .. } | CallError::Request(_) => None,
        }
    }

    /// The latest epoch, where the other side answered that the request's is over, and says it.
    #[must_use]
    pub fn latest_epoch(&self) -> Option<Epoch> {
        match self {
            CallError::Problem(problem) => problem.latest_epoch(),
            CallError::Transport(_) | CallError::Answer { .. } | CallError::Request(_) => None,
        }
    }

    /// Whether the request surely had no effect.
    #[must_use]
    pub fn had_no_effect(&self) -> bool {
        match self {
            CallError::Transport(TransportError::Connect { .. }) | CallError::Request(_) => true,
            CallError::Problem(problem) => problem.outcome == crate::Outcome::NotCommitted,
            CallError::Transport(_) | CallError::Answer { .. } => false,
        }
    }
}

/// An answer with who has served it.
#[derive(Clone, Debug)]
pub struct Answered<T> {
    /// The answer.
    pub body: T,
    /// Who has served it, where the other side says so.
    pub served_by: Option<HeaderValue>,
}

/// Calls endpoints through a transport.
#[derive(Clone)]
pub struct Client<S> {
    transport: S,
}

impl<S> Client<S>
where
    S: Service<Request<Bytes>, Response = Response<Bytes>, Error = TransportError> + Clone,
{
    /// A client over this transport.
    pub const fn new(transport: S) -> Self {
        Client { transport }
    }

    /// Calls an endpoint. `epoch` is the sender's, where it acts in one.
    ///
    /// # Errors
    /// Any [`CallError`].
    pub async fn call<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        target: &Target,
        endpoint: &Endpoint<Req, Resp>,
        request: &Req,
        epoch: Option<Epoch>,
        limit: Duration,
    ) -> Result<Resp, CallError> {
        self.call_at(target, endpoint, endpoint.path, request, epoch, limit).await
    }

    /// The same, and tells who has served it.
    ///
    /// # Errors
    /// Any [`CallError`].
    pub async fn answered<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        target: &Target,
        endpoint: &Endpoint<Req, Resp>,
        request: &Req,
        limit: Duration,
    ) -> Result<Answered<Resp>, CallError> {
        self.answered_at(target, endpoint, (endpoint.path, None), request, None, limit).await
    }

    /// The same at a path made from the endpoint's, as a write that takes effect only under this
    /// `If-Match`.
    ///
    /// # Errors
    /// Any [`CallError`].
    pub async fn conditional<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        target: &Target,
        endpoint: &Endpoint<Req, Resp>,
        path: &str,
        condition: &HeaderValue,
        request: &Req,
        limit: Duration,
    ) -> Result<Answered<Resp>, CallError> {
        self.answered_at(target, endpoint, (path, Some(condition)), request, None, limit).await
    }

    /// The same, at a path made from the endpoint's.
    ///
    /// # Errors
    /// Any [`CallError`].
    pub async fn call_at<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        target: &Target,
        endpoint: &Endpoint<Req, Resp>,
        path: &str,
        request: &Req,
        epoch: Option<Epoch>,
        limit: Duration,
    ) -> Result<Resp, CallError> {
        Ok(self.answered_at(target, endpoint, (path, None), request, epoch, limit).await?.body)
    }

    async fn answered_at<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        target: &Target,
        endpoint: &Endpoint<Req, Resp>,
        (path, condition): (&str, Option<&HeaderValue>),
        request: &Req,
        epoch: Option<Epoch>,
        limit: Duration,
    ) -> Result<Answered<Resp>, CallError> {
        let request_error = |error: &dyn std::fmt::Display| CallError::Request(error.to_string());
        let mut uri = format!("http://{}{}", target.address, path);
        let body = if endpoint.method == Method::GET {
            let query = serde_urlencoded::to_string(request).map_err(|e| request_error(&e))?;
            if !query.is_empty() {
                uri.push('?');
                uri.push_str(&query);
            }
            Bytes::new()
        } else {
            Bytes::from(serde_json::to_vec(request).map_err(|e| request_error(&e))?)
        };
        let mut message = Request::builder()
            .method(endpoint.method.clone())
            .uri(uri)
            .body(body)
            .map_err(|e| request_error(&e))?;
        let headers = message.headers_mut();
        if endpoint.method != Method::GET {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(condition) = condition {
            headers.insert(header::IF_MATCH, condition.clone());
        }
        if let Some(incarnation) = target.incarnation {
            let value = HeaderValue::from_str(&incarnation.to_string());
            headers.insert(HEADER_INCARNATION, value.map_err(|e| request_error(&e))?);
        }
        if let Some(epoch) = epoch {
            headers.insert(HEADER_EPOCH, HeaderValue::from(epoch.0));
        }
        message.extensions_mut().insert(TimeLimit(limit));
        message.extensions_mut().insert(Route(endpoint.path));
        let answer = self.transport.clone().oneshot(message).await?;
        let status = answer.status();
        let served_by = answer.headers().get(HEADER_SERVED_BY).cloned();
        let body = answer.into_body();
        let answer_error =
            |detail: String| CallError::Answer { peer: target.address.clone(), detail };
        if status.is_success() {
            let bytes: &[u8] = if body.is_empty() { b"{}" } else { &body };
            let body = serde_json::from_slice(bytes).map_err(|e| answer_error(e.to_string()))?;
            return Ok(Answered { body, served_by });
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(CallError::Problem(Box::new(problem))),
            Err(_) => Err(answer_error(format!("status {status} without a problem document"))),
        }
    }
}
