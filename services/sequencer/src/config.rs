//! The sequencer's limits.

use plinth_api::Target;

/// How a sequencer is run.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Its node's foreman, to announce itself to; none where nobody needs to find it.
    pub foreman: Option<Target>,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds of what is kept in memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Proxies of an epoch, at least 1. The parameter `commit_proxies` allows 100.
    pub proxies: usize,
    /// Answers kept for each proxy, at least as many as a proxy has batches in flight.
    pub kept_answers: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { proxies: 100, kept_answers: 1_024 }
    }
}
