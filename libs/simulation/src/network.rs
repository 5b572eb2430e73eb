//! Turmoil's network behind the seam, with every connection and every byte in the trace.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use plinth_runtime::{Accept, Faults, Listener, Network, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::trace::Trace;
use crate::traffic::Traffic;

/// The fault point of answers that are lost: at a process where it fires, a connection ends just as
/// something is to be written to who made it.
pub const DROP_REPLY: &str = "network.drop_reply";
/// The fault point of a process that accepts connections, reads, and never answers.
pub const MUTE: &str = "network.mute";

/// The network as one process of a host sees it.
pub(crate) struct SimulatedNetwork {
    host: String,
    faults: Arc<dyn Faults>,
    trace: Trace,
    traffic: Option<Traffic>,
}

impl SimulatedNetwork {
    pub(crate) fn new(
        host: &str,
        faults: Arc<dyn Faults>,
        trace: Trace,
        traffic: Option<Traffic>,
    ) -> Self {
        SimulatedNetwork { host: host.to_owned(), faults, trace, traffic }
    }

    /// The address to bind and, if that is not what was asked for, the one that was: turmoil binds a
    /// host's own address only as "any".
    async fn resolve_for_bind(&self, address: &str) -> io::Result<(SocketAddr, Option<IpAddr>)> {
        let wanted = resolve(address).await?;
        if !wanted.is_ipv4() {
            return Err(io::Error::new(
                ErrorKind::AddrNotAvailable,
                format!("{address} is not an IPv4 address"),
            ));
        }
        if wanted.ip().is_unspecified() || wanted.ip().is_loopback() {
            return Ok((wanted, None));
        }
        if wanted.ip() == turmoil::lookup(self.host.as_str()) {
            return Ok((
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), wanted.port()),
                Some(wanted.ip()),
            ));
        }
        Err(io::Error::new(
            ErrorKind::AddrNotAvailable,
            format!("{address} is not an address of {}", self.host),
        ))
    }
}

impl Network for SimulatedNetwork {
    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Listener>> {
        async move {
            let (to_bind, asked_for) = self.resolve_for_bind(address).await?;
            let inner = TcpListener::bind(to_bind).await?;
            let bound = inner.local_addr()?;
            let local = SocketAddr::new(asked_for.unwrap_or(bound.ip()), bound.port());
            self.trace.record(&self.host, "listen", &[local.to_string().as_bytes()]);
            let (host, trace) = (self.host.clone(), self.trace.clone());
            let faults = Arc::clone(&self.faults);
            Ok(Box::new(SimulatedListener { inner, local, host, faults, trace }) as Listener)
        }
        .boxed()
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Stream>> {
        async move {
            let target = resolve(address).await?;
            let stream = TcpStream::connect(target).await;
            let outcome: &[u8] = if stream.is_ok() { b"ok" } else { b"refused" };
            self.trace.record(&self.host, "connect", &[address.as_bytes(), outcome]);
            TracedStream::boxed(stream?, None, self.traffic.clone(), &self.trace)
        }
        .boxed()
    }
}

async fn resolve(address: &str) -> io::Result<SocketAddr> {
    let mut found = turmoil::net::lookup_host(address).await?;
    found
        .next()
        .ok_or_else(|| io::Error::new(ErrorKind::NotFound, format!("{address} has no address")))
}

struct SimulatedListener {
    inner: TcpListener,
    local: SocketAddr,
    host: String,
    faults: Arc<dyn Faults>,
    trace: Trace,
}

impl Accept for SimulatedListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        async move {
            let (stream, from) = self.inner.accept().await?;
            self.trace.record(&self.host, "accept", &[from.to_string().as_bytes()]);
            let faults = Some(Arc::clone(&self.faults));
            Ok((TracedStream::boxed(stream, faults, None, &self.trace)?, from))
        }
        .boxed()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

/// A connection whose bytes are traced, as they are handed to the network and as they are taken from it.
struct TracedStream {
    inner: TcpStream,
    ends: String,
    /// What can befall a connection that was accepted.
    faults: Option<Arc<dyn Faults>>,
    is_lost: bool,
    /// Where the requests of one that was made are counted.
    traffic: Option<Traffic>,
    trace: Trace,
}

impl TracedStream {
    fn boxed(
        inner: TcpStream,
        faults: Option<Arc<dyn Faults>>,
        traffic: Option<Traffic>,
        trace: &Trace,
    ) -> io::Result<Stream> {
        let ends = format!("{} - {}", inner.local_addr()?, inner.peer_addr()?);
        let trace = trace.clone();
        Ok(Box::new(TracedStream { inner, ends, faults, is_lost: false, traffic, trace }))
    }

    fn fires(&self, point: &'static str) -> bool {
        self.faults.as_ref().is_some_and(|faults| faults.fires(point))
    }
}

impl AsyncRead for TracedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = ready!(Pin::new(&mut self.inner).poll_read(cx, buffer));
        match &outcome {
            Ok(()) => self.trace.record(&self.ends, "received", &[&buffer.filled()[before..]]),
            Err(error) => self.trace.record(
                &self.ends,
                "receive failed",
                &[error.kind().to_string().as_bytes()],
            ),
        }
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for TracedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.fires(MUTE) {
            // Nobody wakes the task: it is as if the answer were never ready.
            return Poll::Pending;
        }
        self.is_lost |= self.fires(DROP_REPLY);
        if self.is_lost {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        let outcome = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes));
        if let (Some(traffic), Ok(sent)) = (&self.traffic, &outcome) {
            traffic.sent(&bytes[..*sent]);
        }
        match &outcome {
            Ok(sent) => self.trace.record(&self.ends, "sent", &[&bytes[..*sent]]),
            Err(error) => {
                self.trace.record(&self.ends, "send failed", &[error.kind().to_string().as_bytes()])
            }
        }
        Poll::Ready(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = ready!(Pin::new(&mut self.inner).poll_shutdown(cx));
        self.trace.record(&self.ends, "shut down", &[]);
        Poll::Ready(outcome)
    }
}

impl Drop for TracedStream {
    fn drop(&mut self) {
        self.trace.record(&self.ends, "closed", &[]);
    }
}
