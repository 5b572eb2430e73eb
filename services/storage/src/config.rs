//! A storage's limits.

use std::path::PathBuf;
use std::time::Duration;

use plinth_api::Target;

/// How a storage is run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its directory. Made only once the cluster's id is known.
    pub directory: PathBuf,
    /// Its node's foreman, to announce itself to; none where nobody needs to find it.
    pub foreman: Option<Target>,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds of what is waited for and kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that may wait for the driver.
    pub commands: usize,
    /// Reads that may wait for a version, and as many questions for the configuration.
    pub waiting: usize,
    /// Watches that may wait.
    pub watches: usize,
    /// How long a read waits for a version that has not arrived.
    pub read_wait: Duration,
    /// Keys and ranges of one read.
    pub read_parts: usize,
    /// Bytes that one read answers with, about; ranges are then cut short.
    pub read_bytes: usize,
    /// Bytes of single keys' values in one answer; a read of more is refused.
    pub value_bytes: usize,
    /// How long changes of user data, and the mere passing of versions, may wait before they are
    /// made durable. The system shard's changes never wait.
    pub flush_delay: Duration,
    /// Bytes made durable at a time, about.
    pub flush_bytes: usize,
    /// Bytes of versions in memory, about. Above them durable ones are dropped before their time, and
    /// nothing more is pulled until the disk has taken what is committed.
    pub window_bytes: usize,
    /// How long a log may wait before it answers that there is nothing new.
    pub pull_wait: Duration,
    /// Bytes that a log is asked for at a time, about.
    pub pull_bytes: u64,
    /// How long a log may take, beyond what it was asked to wait.
    pub peer_timeout: Duration,
    /// Bytes of a page of a copy, about, given or taken.
    pub page_bytes: usize,
    /// Newcomers that may wait for a page.
    pub pages: usize,
    /// The pause after every log has failed; it grows up to sixteenfold.
    pub retry_delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            commands: 1_024,
            waiting: 4_096,
            watches: 10_000,
            read_wait: Duration::from_secs(1),
            read_parts: 10_000,
            read_bytes: 4 << 20,
            value_bytes: 32 << 20,
            flush_delay: Duration::from_millis(100),
            flush_bytes: 16 << 20,
            window_bytes: 512 << 20,
            pull_wait: Duration::from_secs(1),
            pull_bytes: 4 << 20,
            peer_timeout: Duration::from_secs(1),
            page_bytes: 1 << 20,
            pages: 64,
            retry_delay: Duration::from_millis(50),
        }
    }
}
