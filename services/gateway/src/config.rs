//! What a gateway is told, and its limits.

use std::time::Duration;

use plinth_api::Target;
use plinth_service::KnownCoordinators;

/// A gateway's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The coordinators, by whom the cluster is found.
    pub coordinators: KnownCoordinators,
    /// The node's foreman, to announce itself to.
    pub foreman: Option<Target>,
    /// How long a request may take before it is answered as unavailable. 100 ms to 60 s.
    pub deadline: Duration,
    /// Requests for data that may be under way at a time, at least 1.
    pub requests: usize,
    /// Watches that may wait at a time, at least 1.
    pub watches: usize,
    /// Interactive transactions that may be open at a time, at least 1.
    pub transactions: usize,
    /// Bytes of keys and values that all of them together may have written, at least 10 MB.
    pub transaction_bytes: usize,
    /// Bytes of keys and values that answers with more than one may have at a time, at least 40 MiB.
    pub answer_bytes: usize,
}

impl Config {
    /// With a deadline of 5 s, 4,096 requests, 10,000 watches, 10,000 interactive transactions of
    /// 256 MiB together, and 256 MiB of answers.
    #[must_use]
    pub fn new(coordinators: Vec<Target>, foreman: Option<Target>) -> Config {
        let deadline = Duration::from_secs(5);
        Config {
            coordinators: coordinators.into(),
            foreman,
            deadline,
            requests: 4_096,
            watches: 10_000,
            transactions: 10_000,
            transaction_bytes: 256 << 20,
            answer_bytes: 256 << 20,
        }
    }
}
