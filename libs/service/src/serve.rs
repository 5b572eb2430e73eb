//! Connections: accepted from the runtime's network, bounded, each a task of the scope.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use plinth_runtime::{Listener, Stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::patient::Patient;

/// Connections served at a time; more wait in the system's queue.
const CONNECTIONS: usize = 4096;
/// The time that the head of a request may take, and that a connection may be idle between two.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// The time that a caller may take to read what is written to it.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// The largest head of a request, in bytes: a key of 10 kB, percent-encoded, fits.
const HEAD_LIMIT: usize = 64 << 10;
/// The pause after an error of accepting, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running server.
pub(crate) struct Server {
    accepting: JoinHandle<Option<()>>,
    closing: CancellationToken,
    slots: Arc<Semaphore>,
}

/// Serves what the listener accepts, in the service's scope.
pub(crate) fn serve(context: &Context, listener: Listener, router: Router) -> Server {
    let closing = CancellationToken::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let accepting = context.scope().spawn(
        "accepting connections",
        accept(context.clone(), listener, router, closing.clone(), Arc::clone(&slots)),
    );
    Server { accepting, closing, slots }
}

impl Server {
    /// Takes no more connections, and gives the open ones this long to finish what they are at.
    pub(crate) async fn drain(self, limit: Duration) {
        self.closing.cancel();
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        let finished = async {
            // The socket is closed once this task has ended, whichever way it did.
            let _ = self.accepting.await;
            // The semaphore is never closed.
            let _ = self.slots.acquire_many(all).await;
        };
        // Who takes longer is cut off.
        let _ = timeout(limit, finished).await;
    }
}

async fn accept(
    context: Context,
    mut listener: Listener,
    router: Router,
    closing: CancellationToken,
    slots: Arc<Semaphore>,
) {
    let mut failing = false;
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let accepted = tokio::select! {
            biased;
            () = closing.cancelled() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            (Ok(slot), Ok((stream, _))) => {
                failing = false;
                let task = connection(stream, router.clone(), closing.clone(), slot);
                drop(context.scope().spawn("connection", task));
            }
            (Err(_), _) => return,
            (Ok(_), Err(error)) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "connections can't be accepted now");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: Stream,
    router: Router,
    closing: CancellationToken,
    _slot: OwnedSemaphorePermit,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_LIMIT)
        // Nothing here goes by wall time, and simulations want the same bytes each time.
        .auto_date_header(false)
        .serve_connection(
            TokioIo::new(Patient::new(stream, STALL_LIMIT)),
            TowerToHyperService::new(router),
        );
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // A caller that goes away, or is slow, is no event here.
        tracing::debug!(%error, "a connection ended with an error");
    }
}
