//! Every limit of a log.

use std::path::PathBuf;
use std::time::Duration;

use plinth_api::Target;

/// The longest that a pull may wait.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Bounds of what a log holds and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries that wait for the one before them.
    pub waiting_entries: usize,
    /// Bytes of entries kept in memory, about. Older ones that are durable and known to be committed
    /// are then read from disk.
    pub memory_bytes: u64,
    /// Bytes of entries in memory above which pushes are refused as `overloaded`: nothing tells that
    /// they are committed, so they can't be left to the disk.
    pub queue_bytes: u64,
    /// The most bytes of an answer to a pull, one entry excepted.
    pub pull_bytes: u64,
    /// The most entries that one pull walks over.
    pub pull_entries: usize,
    /// Pulls that may wait at one time.
    pub pulls: usize,
    /// Requests that may wait for the driver.
    pub commands: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            waiting_entries: 1024,
            memory_bytes: 128 << 20,
            queue_bytes: 512 << 20,
            pull_bytes: 4 << 20,
            pull_entries: 10_000,
            pulls: 4096,
            commands: 1024,
        }
    }
}

/// How a log is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its directory. Made only once the cluster's id is known.
    pub directory: PathBuf,
    /// Its node's foreman, to whom it announces itself.
    pub foreman: Option<Target>,
    /// Its bounds.
    pub limits: Limits,
}
