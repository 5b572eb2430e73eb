//! The real world.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::RngCore as _;
use rand::TryRngCore as _;
use tokio::net::{TcpListener, TcpStream};

use crate::{Accept, Faults, Listener, Network, Random, Runtime, Stream, WallClock};

pub(crate) fn runtime() -> Runtime {
    Runtime::new(Arc::new(OsRandom), Arc::new(OsClock), Arc::new(Tcp), Arc::new(NoFaults))
        .with_process_id(std::process::id())
}

struct OsRandom;
impl Random for OsRandom {
    fn next_u64(&self) -> u64 {
        // A machine without randomness can't make identities: nothing sensible is left to do.
        rand::rngs::OsRng.unwrap_err().next_u64()
    }
}

struct OsClock;
impl WallClock for OsClock {
    #[expect(clippy::disallowed_methods, reason = "this is what the others shall use")]
    fn unix_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

struct NoFaults;
impl Faults for NoFaults {
    fn fires(&self, _point: &'static str) -> bool {
        false
    }
}

struct Tcp;
impl Network for Tcp {
    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Listener>> {
        #[expect(clippy::disallowed_methods, reason = "this is what the others shall use")]
        async move {
            let listener = TcpListener::bind(address).await?;
            Ok(Box::new(TcpAccept(listener)) as Listener)
        }
        .boxed()
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Stream>> {
        #[expect(clippy::disallowed_methods, reason = "this is what the others shall use")]
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Stream)
        }
        .boxed()
    }
}

struct TcpAccept(TcpListener);
impl Accept for TcpAccept {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        async move {
            let (stream, from) = self.0.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as Stream, from))
        }
        .boxed()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
