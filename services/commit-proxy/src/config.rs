//! The commit proxy's limits.

use std::time::Duration;

use plinth_api::Target;

/// How a commit proxy is run.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Its node's foreman, to announce itself to; none where nobody needs to find it.
    pub foreman: Option<Target>,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds of batches and queues.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Transactions of a batch, 1 to 65,535: a place in a batch has two bytes.
    pub batch_transactions: u16,
    /// Bytes of keys and values of a batch, at least 1. A larger transaction is a batch by itself.
    pub batch_bytes: usize,
    /// Batches with transactions that are under way at a time, at least 1.
    pub batches: usize,
    /// Transactions that may wait for a batch, at least 1.
    pub waiting_transactions: usize,
    /// Bytes of keys and values that may wait for a batch, at least the transaction limit.
    pub waiting_bytes: usize,
    /// Requests that may wait for a read version, at least 1.
    pub waiting_reads: usize,
    /// How long a transaction may wait until the rate lets it begin.
    pub rate_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            batch_transactions: 1_000,
            batch_bytes: 1 << 20,
            batches: 8,
            waiting_transactions: 10_000,
            waiting_bytes: 64 << 20,
            waiting_reads: 20_000,
            rate_wait: Duration::from_secs(1),
        }
    }
}
