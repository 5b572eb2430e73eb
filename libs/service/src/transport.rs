//! Requests to other services: one pool of connections a service, over the runtime's network.
//!
//! Every request bears who sends it and the proof, the cluster, the request id that it is part of
//! and the trace. It takes no longer than its [`TimeLimit`], connecting included.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{Connected, Connection, capture_connection};
use hyper_util::client::legacy::{Client as Pool, Error as PoolError};
use hyper_util::rt::{TokioIo, TokioTimer};
use plinth_api::{
    HEADER_CLUSTER, HEADER_EPOCH, HEADER_FROM, HEADER_REQUEST_ID, HEADER_SECRET, TimeLimit,
    TransportError,
};
use plinth_runtime::{Runtime, Scope, Stream};
use plinth_telemetry::ClientCall;
use plinth_types::ServiceRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tracing::{Instrument as _, Span};

use crate::context::ClusterCell;
use crate::shell::current_request_id;
use crate::{Secret, Secrets};

/// The time a request may take that does not say.
const DEFAULT_LIMIT: Duration = Duration::from_secs(10);
/// Connections that nobody uses are closed after this time: well before the server does it, or a
/// request could meet a connection that is just being closed.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// Idle connections kept to one peer.
const IDLE_PER_PEER: usize = 64;
/// The largest answer that is taken, in bytes.
const ANSWER_LIMIT: usize = 64 << 20;

/// Who sends.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    /// The service; none for a person's command.
    pub service: Option<ServiceRef>,
    /// Sent as proof: the cluster's with every request of a service, the administrator's only where
    /// there is no service.
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
    pool: Pool<Connector, Full<Bytes>>,
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
        let pool = Pool::builder(Spawner(scope))
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .pool_max_idle_per_host(IDLE_PER_PEER)
            .build(Connector { runtime: runtime.clone() });
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
        let limit = limit_of(&request);
        let peer = authority(request.uri());
        let span = self.stamp(&mut request);
        let exchange = self.exchange(request, &peer, limit);
        let result = exchange.instrument(span.clone()).await;
        note(&span, result.as_ref().map(Response::status));
        result
    }

    /// Sends a request and collects its answer.
    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let limit = limit_of(&request);
        let peer = authority(request.uri());
        let span = self.stamp(&mut request);
        let exchange = async {
            let answer = self.exchange(request, &peer, limit).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT)
                .collect()
                .await
                .map_err(|error| broken(&peer, body_detail(&*error)))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        let result = timeout(limit, exchange.instrument(span.clone()))
            .await
            .unwrap_or_else(|_| Err(timed_out(&peer, limit)));
        note(&span, result.as_ref().map(Response::status));
        result
    }

    async fn exchange(
        &self,
        request: Request<Bytes>,
        peer: &str,
        limit: Duration,
    ) -> Result<Response<Incoming>, TransportError> {
        let mut request = request.map(Full::new);
        // Whether time ran out before or after there was a connection tells whether the request
        // can have had an effect.
        let connection = capture_connection(&mut request);
        match timeout(limit, self.pool.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.is_connect() => {
                Err(TransportError::Connect { peer: peer.to_owned(), detail: pool_detail(&error) })
            }
            Ok(Err(error)) => Err(broken(peer, pool_detail(&error))),
            Err(_) if connection.connection_metadata().is_none() => {
                Err(TransportError::Connect {
                    peer: peer.to_owned(),
                    detail: format!("no connection within {} ms", limit.as_millis()),
                })
            }
            Err(_) => Err(timed_out(peer, limit)),
        }
    }

    /// Adds the headers that every request bears, and begins its span.
    fn stamp(&self, request: &mut Request<Bytes>) -> Span {
        let address = authority(request.uri());
        let span = plinth_telemetry::client_span(ClientCall {
            method: request.method(),
            route: request.uri().path(),
            service: &self.identity.name,
            peer: &address,
            address: &address,
        });
        let headers = request.headers_mut();
        for (name, value) in &self.identity.headers {
            headers.insert(name, value.clone());
        }
        if let Some(cluster) = self.identity.cluster.get()
            && let Ok(value) = HeaderValue::try_from(cluster.to_string())
        {
            headers.insert(HEADER_CLUSTER, value);
        }
        let request_id = current_request_id().or_else(|| {
            HeaderValue::try_from(format!("{:016x}", self.runtime.random_u64())).ok()
        });
        if let Some(request_id) = request_id {
            headers.insert(HEADER_REQUEST_ID, request_id);
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
        match &sender.service {
            Some(service) => {
                put(HEADER_FROM, HeaderValue::try_from(service.to_string()).ok());
                put(HEADER_SECRET, sender.secrets.cluster.as_ref().and_then(|s| s.header("")));
            }
            None => {
                let token = sender.secrets.administrator.as_ref();
                put("authorization", token.and_then(|s: &Secret| s.header("Bearer ")));
            }
        }
        let name = sender.service.as_ref().map_or_else(|| "command".to_owned(), |s| s.to_string());
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

fn limit_of(request: &Request<Bytes>) -> Duration {
    request.extensions().get::<TimeLimit>().map_or(DEFAULT_LIMIT, |limit| limit.0)
}

fn authority(uri: &Uri) -> String {
    uri.authority().map_or_else(String::new, |authority| authority.as_str().to_owned())
}

fn timed_out(peer: &str, limit: Duration) -> TransportError {
    let after_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    TransportError::Timeout { peer: peer.to_owned(), after_ms }
}

fn broken(peer: &str, detail: String) -> TransportError {
    TransportError::Broken { peer: peer.to_owned(), detail }
}

/// The innermost cause: the outer ones only say that there was an error.
fn pool_detail(error: &PoolError) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
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

/// Connections are driven by tasks of the service's scope.
#[derive(Clone)]
struct Spawner(Scope);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        drop(self.0.spawn("outgoing connection", task));
    }
}

#[derive(Clone)]
struct Connector {
    runtime: Runtime,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Link>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Link>>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let runtime = self.runtime.clone();
        async move {
            let mut address = authority(&uri);
            if uri.port_u16().is_none() {
                address.push_str(":80");
            }
            Ok(TokioIo::new(Link(runtime.network().connect(&address).await?)))
        }
        .boxed()
    }
}

/// A stream of the runtime's network, in the form that the pool asks for.
struct Link(Stream);

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(task, buffer)
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(task, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(task, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(task)
    }
}
