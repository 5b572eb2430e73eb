//! Requests to other services: one pool of connections a service, over the runtime's network.
//!
//! Every request bears who sends it and the proof, the cluster, the request id that it is part of
//! and the trace. It takes no longer than its [`TimeLimit`], connecting included.

use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use plinth_api::{
    HEADER_CLUSTER, HEADER_EPOCH, HEADER_FROM, HEADER_REQUEST_ID, HEADER_SECRET, Route, TimeLimit,
    TransportError,
};
use plinth_runtime::{Runtime, Scope};
use plinth_telemetry::ClientCall;
use plinth_types::ServiceRef;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, Span};

use crate::Secrets;
use crate::context::ClusterCell;
use crate::pool::{Connection, Pool, detail};
use crate::shell::current_request_id;

/// The time a request may take that does not say.
const DEFAULT_LIMIT: Duration = Duration::from_secs(10);
/// How often a request is tried on another connection because the one at hand had ended before it
/// was sent.
const SEND_ATTEMPTS: usize = 3;
/// The largest answer that is taken, in bytes.
const ANSWER_LIMIT: usize = 64 << 20;

/// What a program that is no service is called in traces.
const OUTSIDE: &str = "client";

/// Who sends.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    /// The service; none for a program from outside: a person's command, or a client.
    pub service: Option<ServiceRef>,
    /// Sent as proof with every request. A service sends the cluster's alone.
    pub secrets: Secrets,
}

struct Identity {
    name: String,
    headers: HeaderMap,
    cluster: Arc<ClusterCell>,
}

/// Sends requests and collects their answers. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Transport {
    pool: Pool,
    runtime: Runtime,
    identity: Arc<Identity>,
}

impl Transport {
    /// A transport whose connections live in this scope.
    #[must_use]
    pub fn new(runtime: Runtime, scope: Scope, sender: &Sender) -> Transport {
        Transport::in_cluster(runtime, scope, sender, Arc::default())
    }

    pub(crate) fn in_cluster(
        runtime: Runtime,
        scope: Scope,
        sender: &Sender,
        cluster: Arc<ClusterCell>,
    ) -> Transport {
        let pool = Pool::new(runtime.clone(), scope);
        Transport { pool, runtime, identity: Arc::new(Identity::new(sender, cluster)) }
    }

    /// Sends a request and gives its answer's head as soon as it is there. The body streams; the
    /// [`TimeLimit`] is for the head alone.
    ///
    /// # Errors
    /// Any [`TransportError`].
    pub async fn open(
        &self,
        mut request: Request<Bytes>,
    ) -> Result<Response<Incoming>, TransportError> {
        let limit = Limit::of(&request);
        let peer = address(request.uri());
        let span = self.stamp(&mut request, &peer);
        let exchange = self.exchange(request, &peer, limit).instrument(span.clone());
        // The connection is not kept: it ends with the answer.
        let result = exchange.await.map(|(answer, _)| answer);
        note(&span, result.as_ref().map(Response::status));
        result
    }

    /// Sends a request and collects its answer.
    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let limit = Limit::of(&request);
        let peer = address(request.uri());
        let span = self.stamp(&mut request, &peer);
        let exchange = async {
            let (answer, connection) = self.exchange(request, &peer, limit).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT).collect();
            match timeout_at(limit.deadline, body).await {
                Ok(Ok(body)) => {
                    self.pool.park(&peer, connection);
                    Ok(Response::from_parts(head, body.to_bytes()))
                }
                Ok(Err(error)) => Err(broken(&peer, body_detail(&*error))),
                Err(_) => Err(limit.timeout(&peer)),
            }
        };
        let result = exchange.instrument(span.clone()).await;
        note(&span, result.as_ref().map(Response::status));
        result
    }

    /// One request on one connection, which carries nothing else until the answer is read.
    async fn exchange(
        &self,
        request: Request<Bytes>,
        peer: &str,
        limit: Limit,
    ) -> Result<(Response<Incoming>, Connection), TransportError> {
        let refused = |detail: String| TransportError::Connect { peer: peer.to_owned(), detail };
        let mut request = request.map(Full::new);
        for _ in 0..SEND_ATTEMPTS {
            let mut connection = timeout_at(limit.deadline, self.pool.connection(peer))
                .await
                .map_err(|_| refused(format!("no connection within {} ms", limit.as_ms())))?
                .map_err(refused)?;
            match timeout_at(limit.deadline, connection.try_send_request(request)).await {
                Ok(Ok(answer)) => return Ok((answer, connection)),
                Err(_) => return Err(limit.timeout(peer)),
                Ok(Err(mut error)) => match error.take_message() {
                    // The connection had ended before the request went out.
                    Some(unsent) => request = unsent,
                    None => return Err(broken(peer, detail(error.error()))),
                },
            }
        }
        Err(refused("connections end as soon as they are made".to_owned()))
    }

    /// Adds the headers that every request bears, and begins its span.
    fn stamp(&self, request: &mut Request<Bytes>, peer: &str) -> Span {
        let route = request.extensions().get::<Route>();
        let span = plinth_telemetry::client_span(ClientCall {
            method: request.method(),
            route: route.map_or_else(|| request.uri().path(), |route| route.0),
            service: &self.identity.name,
            peer,
            address: peer,
        });
        let origin = request.uri().path_and_query().cloned().map(Uri::from);
        *request.uri_mut() = origin.unwrap_or_default();
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::try_from(peer) {
            headers.insert(header::HOST, host);
        }
        for (name, value) in &self.identity.headers {
            headers.insert(name, value.clone());
        }
        if let Some(cluster) = self.identity.cluster.get()
            && let Ok(value) = HeaderValue::try_from(cluster.to_string())
        {
            headers.insert(HEADER_CLUSTER, value);
        }
        if !headers.contains_key(HEADER_REQUEST_ID) {
            let made = || HeaderValue::try_from(format!("{:016x}", self.runtime.random_u64()));
            if let Some(id) = current_request_id().or_else(|| made().ok()) {
                headers.insert(HEADER_REQUEST_ID, id);
            }
        }
        let epoch = headers.get(HEADER_EPOCH).and_then(|value| value.to_str().ok());
        if let Some(epoch) = epoch.and_then(|text| text.parse().ok()) {
            plinth_telemetry::record_epoch(&span, epoch);
        }
        plinth_telemetry::inject_from(&span, headers);
        span
    }
}

impl Identity {
    fn new(sender: &Sender, cluster: Arc<ClusterCell>) -> Identity {
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: Option<HeaderValue>| {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        };
        let Secrets { cluster: secret, administrator: token } = &sender.secrets;
        put(HEADER_SECRET, secret.as_ref().and_then(|secret| secret.header("")));
        match &sender.service {
            Some(service) => put(HEADER_FROM, HeaderValue::try_from(service.to_string()).ok()),
            None => put("authorization", token.as_ref().and_then(|token| token.header("Bearer "))),
        }
        let name = sender.service.as_ref().map_or_else(|| OUTSIDE.to_owned(), |s| s.to_string());
        Identity { name, headers, cluster }
    }
}

impl tower::Service<Request<Bytes>> for Transport {
    type Response = Response<Bytes>;
    type Error = TransportError;
    type Future = BoxFuture<'static, Result<Response<Bytes>, TransportError>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let this = self.clone();
        async move { this.send(request).await }.boxed()
    }
}

/// The time that a request has.
#[derive(Clone, Copy)]
struct Limit {
    given: Duration,
    deadline: Instant,
}

impl Limit {
    fn of(request: &Request<Bytes>) -> Limit {
        let given = request.extensions().get::<TimeLimit>().map_or(DEFAULT_LIMIT, |limit| limit.0);
        Limit { given, deadline: Instant::now() + given }
    }

    fn as_ms(self) -> u64 {
        u64::try_from(self.given.as_millis()).unwrap_or(u64::MAX)
    }

    fn timeout(self, peer: &str) -> TransportError {
        TransportError::Timeout { peer: peer.to_owned(), after_ms: self.as_ms() }
    }
}

/// `host:port`, as the network takes it.
fn address(uri: &Uri) -> String {
    match uri.authority() {
        Some(authority) if authority.port().is_some() => authority.as_str().to_owned(),
        Some(authority) => format!("{authority}:80"),
        None => String::new(),
    }
}

fn broken(peer: &str, detail: String) -> TransportError {
    TransportError::Broken { peer: peer.to_owned(), detail }
}

fn body_detail(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    if error.is::<LengthLimitError>() {
        format!("the answer is larger than {ANSWER_LIMIT} bytes")
    } else {
        error.to_string()
    }
}

fn note(span: &Span, result: Result<http::StatusCode, &TransportError>) {
    match result {
        Ok(status) => plinth_telemetry::record_status(span, status, true),
        Err(error) => plinth_telemetry::record_error(span, error),
    }
}
