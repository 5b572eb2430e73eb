//! What a director is told when it starts, and its limits. What the operator may change is among
//! the cluster's parameters instead.

use std::time::Duration;

use plinth_api::Target;
use plinth_system_config::{Parameters, ShardMap};

/// What a director is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The coordinators of the cluster file, any of which answers for their group. Others are heard of
    /// from the foreman.
    pub coordinators: Vec<Target>,
    /// The node's foreman, where it announces itself.
    pub foreman: Option<Target>,
    /// The parameters that a new cluster begins with.
    pub parameters: Parameters,
    /// The shards that a new cluster begins with. Each tag of users' data gets storages of its own.
    pub shards: ShardMap,
}

/// How long one coordinator may take before the next one is asked.
pub(crate) const COORDINATOR_LIMIT: Duration = Duration::from_secs(1);
/// How long the compare-and-set of the layout may take at one coordinator: it is an fsync on a
/// majority.
pub(crate) const RECORD_LIMIT: Duration = Duration::from_secs(5);
/// How long the compare-and-set is tried before the director gives up.
pub(crate) const RECORD_DEADLINE: Duration = Duration::from_secs(30);
/// How long the last words may take.
pub(crate) const FAREWELL_LIMIT: Duration = Duration::from_millis(300);
/// Time between two looks at the registry until commits are accepted.
pub(crate) const REGISTRY_PERIOD_RECOVERING: Duration = Duration::from_millis(25);
/// Time between two looks at the registry afterwards.
pub(crate) const REGISTRY_PERIOD: Duration = Duration::from_millis(250);
/// Time between two looks whether a later epoch has begun, until commits are accepted.
pub(crate) const SUPERSEDED_PERIOD: Duration = Duration::from_secs(1);
/// Changes of parameters that may wait at a time.
pub(crate) const ORDERS: usize = 16;
/// Time before it is looked again whether a log has opened its store.
pub(crate) const OPENING_LOOK: Duration = Duration::from_millis(10);
/// How long a recovery waits for a log to open its store, from its beginning on. Then another one is
/// recruited, or made.
pub(crate) const OPENING_PATIENCE: Duration = Duration::from_secs(3);
/// Time before something is tried again that failed or was not there.
pub(crate) const RETRY: Duration = Duration::from_millis(100);
/// How long a log may take to answer a lock: it fsyncs what it has.
pub(crate) const LOCK_LIMIT: Duration = Duration::from_secs(2);
/// How long a worker may take to show that it is alive.
pub(crate) const PROBE_LIMIT: Duration = Duration::from_millis(500);
/// The same for one that the last epoch ended about: it is probably frozen, and nobody waits for it
/// as long as others can do its work.
pub(crate) const SUSPECT_PROBE_LIMIT: Duration = Duration::from_millis(100);
/// Probes under way at a time.
pub(crate) const PROBES: usize = 64;
/// How long a foreman may take to make a worker, until it has announced itself.
pub(crate) const MAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long a foreman that could not make a worker is left alone.
pub(crate) const MAKE_PAUSE: Duration = Duration::from_secs(1);
/// Time between two looks at the storage teams.
pub(crate) const REPLICATION_PERIOD: Duration = Duration::from_secs(1);
/// The same while a copy is being taken.
pub(crate) const REPLICATION_PERIOD_BUSY: Duration = Duration::from_millis(200);
/// How long a zone where a log is lacking must have been back before the epoch ends for it.
pub(crate) const SPREAD_AFTER: Duration = Duration::from_secs(5);
/// How long a foreman that could not make or remove a worker is left alone.
pub(crate) const REPLICATION_PAUSE: Duration = Duration::from_secs(5);
/// How long a log may take to truncate and copy.
pub(crate) const REPLAY_LIMIT: Duration = Duration::from_secs(60);
/// How long a recovery waits for a storage to take up the epoch or to keep the configuration. One
/// that takes longer is tended beside the recovery.
pub(crate) const STORAGE_PATIENCE: Duration = Duration::from_millis(300);
/// The first pause before a busy component is asked again; doubled each time, up to [`RETRY`].
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// How long a component or storage may take to take up the epoch, to keep the configuration, or to
/// tell its status.
pub(crate) const ASSIGN_LIMIT: Duration = Duration::from_secs(5);
/// How long a storage is asked to wait for the system transaction to be durable before it answers.
pub(crate) const SHARD_CONFIG_WAIT: Duration = Duration::from_secs(1);
/// The longest that a long poll of the layout waits.
pub(crate) const LAYOUT_WAIT_MAX: Duration = Duration::from_secs(30);
