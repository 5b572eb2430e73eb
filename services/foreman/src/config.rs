//! What a foreman is told.

use std::path::PathBuf;
use std::time::Duration;

use plinth_api::Target;
use plinth_types::{ClusterId, ServiceKind, ServiceName, Zone};

/// How often a foreman reports to each coordinator, at least.
pub(crate) const REPORT_EVERY: Duration = Duration::from_millis(500);
/// How long a report may take.
pub(crate) const REPORT_LIMIT: Duration = Duration::from_secs(1);
/// How long workers have to end by themselves when the foreman stops.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(3);
/// The longest wait of a request, in milliseconds.
pub(crate) const MAX_WAIT_MS: u64 = 30_000;
/// Requests that wait for the driver; more are held back at their senders.
pub(crate) const QUEUE: usize = 256;

/// What a foreman is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's directory. One process has it, and one cluster.
    pub directory: PathBuf,
    /// What the node fails together with.
    pub zone: Zone,
    /// The cluster it must belong to, from the cluster file; another one in the directory is
    /// refused.
    pub cluster: Option<ClusterId>,
    /// Every coordinator.
    pub coordinators: Vec<Target>,
    /// Workers that run whatever the layout says: coordinator, director, gateway.
    pub statics: Vec<ServiceName>,
    /// The kinds of worker that a director may ask for.
    pub kinds: Vec<ServiceKind>,
    /// How long to wait for a directory that another process still has: one that is just ending.
    pub lock_patience: Duration,
}

impl Config {
    /// The kinds that a foreman makes unless told otherwise.
    pub const KINDS: [ServiceKind; 5] = [
        ServiceKind::Sequencer,
        ServiceKind::CommitProxy,
        ServiceKind::Resolver,
        ServiceKind::Log,
        ServiceKind::Storage,
    ];
}
