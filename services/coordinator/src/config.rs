//! What a coordinator is told at its start, and every limit with its unit.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use plinth_api::Target;
use plinth_types::{ClusterId, NodeId, ServiceKind, ServiceRef};
use serde::{Deserialize, Serialize};

/// Between two heartbeats of the Raft leader.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(50);
/// A follower that hears of no leader stands for election after a time between these.
pub(crate) const ELECTION: [Duration; 2] = [Duration::from_millis(150), Duration::from_millis(300)];
/// A leader that a quorum has not acknowledged for so long answers `no_quorum` at once.
pub(crate) const QUORUM_PATIENCE: Duration = Duration::from_millis(1_000);
/// How long a write may take before its fate is unknown.
pub(crate) const WRITE_LIMIT: Duration = Duration::from_millis(2_000);
/// How long the confirmation of a linearizable read may take.
pub(crate) const READ_LIMIT: Duration = Duration::from_millis(1_000);
/// How long a forwarded request may take; longer than what it waits for there.
pub(crate) const FORWARD_LIMIT: Duration = Duration::from_millis(2_500);
/// How long anybody who is asked at the bootstrap may take to answer.
pub(crate) const ASK_LIMIT: Duration = Duration::from_millis(1_000);
/// How long a foreman may take to have its workers announced, before those that are there count; and
/// how long those are waited for that a bootstrap can do without.
pub(crate) const FOREMAN_PATIENCE: Duration = Duration::from_secs(5);
/// How long a recovery may take before the leader changes parameters itself, rather than the director.
pub(crate) const RECOVERY_PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks whether an epoch is ready.
pub(crate) const READY_LOOK: Duration = Duration::from_millis(100);
/// How long the director may take to change parameters: they are in storage then.
pub(crate) const CHANGE_LIMIT: Duration = Duration::from_secs(12);
/// How long the leader may take for that, waiting included.
pub(crate) const CHANGE_FORWARD_LIMIT: Duration = Duration::from_secs(17);
/// How long the leader may take for a change of the membership, before it answers that it goes on.
pub(crate) const MEMBERS_LIMIT: Duration = Duration::from_secs(15);
/// The same for whoever has passed the order on; the director may take long once more.
pub(crate) const MEMBERS_FORWARD_LIMIT: Duration = Duration::from_secs(40);
/// Between two looks at a change of the membership.
pub(crate) const MEMBERS_LOOK: Duration = Duration::from_millis(100);
/// How long a newcomer may take to have the log.
pub(crate) const CATCH_UP_LIMIT: Duration = Duration::from_secs(10);
/// How long who has left goes on hearing of the group, so that it hears that it has left.
pub(crate) const FORGET_AFTER: Duration = Duration::from_secs(3);
/// How long who is out goes on as it is: orders that it leads, it passes on to the next leader.
pub(crate) const LEAVE_AFTER: Duration = Duration::from_millis(1_500);
/// How long a member hears of no leader before it asks whether it is one.
pub(crate) const LONELY_AFTER: Duration = Duration::from_secs(3);
/// Between two requests to be let in.
pub(crate) const JOIN_PAUSE: Duration = Duration::from_millis(500);
/// Between two rounds of the bootstrap.
pub(crate) const BOOTSTRAP_ROUND: Duration = Duration::from_millis(100);
/// How much longer than the one before it in the order of names a coordinator waits with a ballot.
pub(crate) const BALLOT_TURN: Duration = Duration::from_millis(400);
/// How much longer than the one before it a founded member waits with Raft's `initialize`.
pub(crate) const INITIALIZE_TURN: Duration = Duration::from_millis(1_500);
/// How long a node's report counts.
pub(crate) const REPORT_LIFE: Duration = Duration::from_secs(3);
/// How many recoveries are remembered.
pub(crate) const RECOVERIES: usize = 32;
/// A snapshot is taken after so many log entries.
pub(crate) const SNAPSHOT_ENTRIES: u64 = 500;
/// Log entries that stay behind a snapshot, for followers that lag a little.
pub(crate) const ENTRIES_KEPT: u64 = 100;
/// Log entries of one message. Each may carry a whole configuration.
pub(crate) const ENTRIES_PER_MESSAGE: u64 = 16;
/// Bytes of a snapshot in one message; about four times as much in JSON.
pub(crate) const SNAPSHOT_CHUNK_BYTES: u64 = 256 << 10;

/// A coordinator of the cluster file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorAddress {
    /// Which service.
    pub service: ServiceRef,
    /// `host:port`, the host resolved at each connect.
    pub address: String,
}

/// The cluster file: what a cluster is founded from, and where to begin to look for it later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Its coordinators.
    pub coordinators: Vec<CoordinatorAddress>,
    /// The nodes that must be heard before the cluster may start with defaults.
    pub initial_nodes: BTreeSet<NodeId>,
}

impl ClusterFile {
    /// Where a coordinator answers; none where the file does not name it.
    #[must_use]
    pub fn address(&self, service: &ServiceRef) -> Option<&str> {
        let found = self.coordinators.iter().find(|coordinator| coordinator.service == *service);
        found.map(|coordinator| coordinator.address.as_str())
    }

    /// A coordinator of the file answers elsewhere.
    pub fn move_to(&mut self, service: &ServiceRef, address: &str) {
        for coordinator in &mut self.coordinators {
            if coordinator.service == *service {
                address.clone_into(&mut coordinator.address);
            }
        }
    }

    /// The coordinators' names.
    #[must_use]
    pub fn names(&self) -> BTreeSet<ServiceRef> {
        self.coordinators.iter().map(|coordinator| coordinator.service.clone()).collect()
    }

    /// What is wrong with it, for the coordinator that starts with it. One that it does not name can
    /// found nothing, and waits to be let into a group that lives.
    ///
    /// # Errors
    /// A sentence that names the fault.
    pub fn check(&self, me: &ServiceRef) -> Result<(), String> {
        if self.names().len() != self.coordinators.len() {
            return Err("the cluster file names a coordinator twice".to_owned());
        }
        if self.coordinators.len().is_multiple_of(2) {
            return Err(format!(
                "the cluster file names {} coordinators: an odd number is needed, 3 or 5 to survive \
                 a loss",
                self.coordinators.len()
            ));
        }
        if self.initial_nodes.is_empty() {
            return Err("the cluster file names no initial node".to_owned());
        }
        if me.kind() != ServiceKind::Coordinator {
            return Err(format!("{me} is no coordinator"));
        }
        Ok(())
    }
}

/// What a coordinator is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its durable directory.
    pub directory: PathBuf,
    /// The cluster file.
    pub cluster: ClusterFile,
    /// The foreman of its node, if there is one.
    pub foreman: Option<Target>,
}
