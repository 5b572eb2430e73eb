//! The network seam: byte streams between named endpoints.

use std::io;
use std::net::SocketAddr;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A two-way byte stream.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One connection.
pub type Stream = Box<dyn Io>;

/// A socket that accepts connections.
pub trait Accept: Send {
    /// The next connection and who made it. Cancel-safe.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>>;
    /// The address it is bound to, the port resolved.
    ///
    /// # Errors
    /// When the operating system does not say.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A listening socket.
pub type Listener = Box<dyn Accept>;

/// Connects and listens. The real one is TCP.
pub trait Network: Send + Sync {
    /// Listens at `host:port`; port 0 takes a free one.
    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Listener>>;
    /// Connects to `host:port`, resolving the host afresh. The caller bounds the time.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Stream>>;
}
