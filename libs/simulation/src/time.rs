//! Simulated time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use plinth_runtime::WallClock;

/// Time since the simulation began, where it can be known: within a running host. While a host is
/// being torn down its clock is gone, and tokio would answer with the real one.
pub(crate) fn elapsed() -> Option<Duration> {
    tokio::runtime::Handle::try_current().ok()?;
    turmoil::sim_elapsed()
}

/// A host's wall clock.
pub(crate) struct HostClock {
    beginning_unix_ms: u64,
    /// How far it is ahead of the simulation's own time, in milliseconds.
    ahead: Arc<AtomicI64>,
    /// The latest answer, for those who ask where time can't be known.
    latest: AtomicU64,
}

impl HostClock {
    pub(crate) fn new(beginning_unix_ms: u64, ahead: Arc<AtomicI64>) -> Self {
        HostClock { beginning_unix_ms, ahead, latest: AtomicU64::new(beginning_unix_ms) }
    }
}

impl WallClock for HostClock {
    fn unix_ms(&self) -> u64 {
        let Some(elapsed) = elapsed() else {
            return self.latest.load(Ordering::Relaxed);
        };
        let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let right = self.beginning_unix_ms.saturating_add(elapsed);
        let now = right.saturating_add_signed(self.ahead.load(Ordering::Relaxed));
        self.latest.store(now, Ordering::Relaxed);
        now
    }
}
