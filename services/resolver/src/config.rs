//! The resolver's limits.

use plinth_api::Target;

/// How a resolver is run.
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
    /// Batches that may wait for one before them, at least 1.
    pub waiting_batches: usize,
    /// Batches whose verdicts are kept for a caller that asks again, at least 1.
    pub kept_verdicts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { waiting_batches: 1_024, kept_verdicts: 1_024 }
    }
}
