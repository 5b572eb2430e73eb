//! What touches the world: clock, randomness, network, tasks, fault points, marks.
//!
//! Every service takes a [`Runtime`] and reaches the world through it alone, so that a simulation
//! can stand in its place. Time is tokio's clock (`tokio::time`), which a simulation controls; wall
//! time is for people to read and decides nothing.

mod network;
mod real;
mod scope;

use std::fmt;
use std::sync::Arc;

pub use network::{Accept, Io, Listener, Network, Stream};
pub use scope::{Scope, ScopeGuard, TaskFailure};

/// A source of random numbers. The real one is the operating system's.
pub trait Random: Send + Sync {
    /// 64 random bits.
    fn next_u64(&self) -> u64;
}

/// Wall time, for people to read.
pub trait WallClock: Send + Sync {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    fn unix_ms(&self) -> u64;
}

/// Fault points: places where a test can ask for a deliberate fault by name.
pub trait Faults: Send + Sync {
    /// Whether the fault of this name happens here and now. The real runtime always says no.
    fn fires(&self, point: &'static str) -> bool;

    /// A mark was passed: a place that is rarely reached. The real runtime does nothing; a
    /// simulation counts, so that a campaign shows which places it has never seen.
    fn passed(&self, _mark: &dyn fmt::Display) {}
}

/// The world as a service sees it. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    random: Arc<dyn Random>,
    wall: Arc<dyn WallClock>,
    network: Arc<dyn Network>,
    faults: Arc<dyn Faults>,
    process_id: u32,
}

impl Runtime {
    /// A runtime of these parts.
    #[must_use]
    pub fn new(
        random: Arc<dyn Random>,
        wall: Arc<dyn WallClock>,
        network: Arc<dyn Network>,
        faults: Arc<dyn Faults>,
    ) -> Self {
        Runtime { random, wall, network, faults, process_id: 0 }
    }

    /// The real world: the operating system's randomness and sockets, no faults.
    #[must_use]
    pub fn real() -> Self {
        real::runtime()
    }

    /// The same, for a process of this number: services that share an operating system process are
    /// told apart by it, and in a simulation it is the same each time.
    #[must_use]
    pub fn with_process_id(mut self, process_id: u32) -> Self {
        self.process_id = process_id;
        self
    }

    /// The same world with other fault points, for a test.
    #[must_use]
    pub fn with_faults(mut self, faults: Arc<dyn Faults>) -> Self {
        self.faults = faults;
        self
    }

    /// The process' number, for people to read: the operating system's in the real world, else 0
    /// unless set.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process_id
    }

    /// 64 random bits.
    #[must_use]
    pub fn random_u64(&self) -> u64 {
        self.random.next_u64()
    }

    /// 128 random bits.
    #[must_use]
    pub fn random_u128(&self) -> u128 {
        (u128::from(self.random.next_u64()) << 64) | u128::from(self.random.next_u64())
    }

    /// The source of randomness itself, to seed or wrap a generator with.
    #[must_use]
    pub fn random(&self) -> Arc<dyn Random> {
        Arc::clone(&self.random)
    }

    /// Wall time in milliseconds since 1970, for people to read.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        self.wall.unix_ms()
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &dyn Network {
        &*self.network
    }

    /// A rare path is taken, of this name: `<service>.<what>`.
    pub fn mark(&self, mark: impl fmt::Display) {
        self.faults.passed(&mark);
    }

    /// Whether the fault of this name happens here and now.
    #[must_use]
    pub fn fault(&self, point: &'static str) -> bool {
        self.faults.fires(point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_runtime_has_no_faults() {
        let runtime = Runtime::real();
        for point in ["log.ack_before_sync", "bootstrap.default_on_error", ""] {
            assert!(!runtime.fault(point));
        }
    }

    #[test]
    fn random_numbers_differ() {
        let runtime = Runtime::real();
        assert_ne!(runtime.random_u128(), runtime.random_u128());
    }
}
