//! What a gateway is told, and its limits.

use std::time::Duration;

use plinth_api::Target;

/// A gateway's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The coordinators, by whom the cluster is found.
    pub coordinators: Vec<Target>,
    /// The node's foreman, to announce itself to.
    pub foreman: Option<Target>,
    /// How long a request may take before it is answered as unavailable. 100 ms to 60 s.
    pub deadline: Duration,
    /// Requests for data that may be under way at a time, at least 1.
    pub requests: usize,
    /// Watches that may wait at a time, at least 1.
    pub watches: usize,
}

impl Config {
    /// With a deadline of 5 s, 4,096 requests and 10,000 watches.
    #[must_use]
    pub fn new(coordinators: Vec<Target>, foreman: Option<Target>) -> Config {
        let deadline = Duration::from_secs(5);
        Config { coordinators, foreman, deadline, requests: 4_096, watches: 10_000 }
    }
}
