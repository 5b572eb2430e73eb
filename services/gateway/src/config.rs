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
}

impl Config {
    /// With a deadline of 5 s.
    #[must_use]
    pub fn new(coordinators: Vec<Target>, foreman: Option<Target>) -> Config {
        Config { coordinators, foreman, deadline: Duration::from_secs(5) }
    }
}
