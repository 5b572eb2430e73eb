//! Connections to peers, kept for the next request.
//!
//! A pool of its own rather than hyper-util's: that one walks a hash map when it closes idle
//! connections, in an order that differs from run to run, and a simulation would see it on the
//! network. It also doesn't say whether a request that failed was ever sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use plinth_runtime::{Runtime, Scope};
use tokio::time::Instant;

/// Connections that nobody uses are not used again after this time: well before the server closes
/// them, or a request could meet a connection that is just being closed.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// Idle connections kept to one peer.
const IDLE_PER_PEER: usize = 64;

/// One connection. A request needs it alone.
pub(crate) type Connection = http1::SendRequest<Full<Bytes>>;

/// The pool of one service. Clones share the connections.
#[derive(Clone)]
pub(crate) struct Pool {
    runtime: Runtime,
    scope: Scope,
    idle: Arc<Mutex<Idle>>,
}

#[derive(Default)]
struct Idle {
    /// The connection that was used last is the last one.
    peers: BTreeMap<String, Vec<Parked>>,
    swept: Option<Instant>,
}

struct Parked {
    connection: Connection,
    since: Instant,
}

impl Parked {
    fn is_usable(&self) -> bool {
        !self.connection.is_closed() && self.since.elapsed() < IDLE_LIMIT
    }
}

impl Pool {
    pub(crate) fn new(runtime: Runtime, scope: Scope) -> Pool {
        Pool { runtime, scope, idle: Arc::default() }
    }

    /// A connection to `peer` on which a request can be sent now: a kept one, else a new one.
    pub(crate) async fn connection(&self, peer: &str) -> Result<Connection, String> {
        while let Some(mut kept) = self.take(peer) {
            if kept.ready().await.is_ok() {
                return Ok(kept);
            }
        }
        let stream = self.runtime.network().connect(peer).await.map_err(|e| e.to_string())?;
        let (mut connection, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| detail(&e))?;
        let driver = async move {
            // Whoever waits for an answer hears of the error.
            let _ = driver.await;
        };
        drop(self.scope.spawn("outgoing connection", driver));
        connection.ready().await.map_err(|e| detail(&e))?;
        Ok(connection)
    }

    /// Keeps a connection whose answer has been read to its end.
    pub(crate) fn park(&self, peer: &str, connection: Connection) {
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.peers.entry(peer.to_owned()).or_default();
        if kept.len() < IDLE_PER_PEER {
            kept.push(Parked { connection, since: now });
        }
        if idle.swept.is_none_or(|swept| now.duration_since(swept) >= IDLE_LIMIT) {
            idle.swept = Some(now);
            idle.peers.retain(|_, kept| {
                kept.retain(Parked::is_usable);
                !kept.is_empty()
            });
        }
    }

    fn take(&self, peer: &str) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.peers.get_mut(peer)?;
        while let Some(parked) = kept.pop() {
            if parked.is_usable() {
                return Some(parked.connection);
            }
        }
        None
    }
}

/// The innermost cause: the outer ones only say that there was an error.
pub(crate) fn detail(error: &hyper::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
