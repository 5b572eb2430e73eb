//! The configuration's types.
//!
//! [`SystemConfig`] is generic over how it names a service: [`Service`] in memory (up with its Pid,
//! or down), [`ServiceRef`] where it is written. Only the second form is ever persisted.

use std::collections::BTreeMap;

use plinth_types::{
    ClusterId, ConfigVersion, Epoch, GroupId, Key, KeyRange, NodeId, Pid, ServiceKind, ServiceRef,
    StoreId, Tag, Version, Zone,
};
use serde::{Deserialize, Serialize};

use crate::Standing;

/// A service as memory knows it.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(title = "Service")]
pub enum Service {
    /// It runs.
    #[schema(title = "ServiceUp")]
    Up(Pid),
    /// It does not run; this is who it was.
    #[schema(title = "ServiceDown")]
    Down(ServiceRef),
}

/// The whole configuration of a cluster, shards excepted (see [`ShardMap`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SystemConfig<S = Service> {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The founding of the coordinators' Raft group that wrote it.
    pub group_id: GroupId,
    /// The level of the written form; see the codec.
    pub format_level: u32,
    /// The epoch whose director wrote it.
    pub epoch: Epoch,
    /// The number of this configuration.
    pub config_version: ConfigVersion,
    /// The Raft members.
    pub coordinators: Vec<Coordinator>,
    /// The members that Raft is to have instead, or has already. Empty, and left out, but during a
    /// change of the membership: then either may be Raft's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_coordinators: Vec<Coordinator>,
    /// Every parameter.
    pub parameters: Parameters,
    /// Policies.
    pub policies: Policies,
    /// The nodes that were ever seen, those that were removed included.
    pub nodes: BTreeMap<NodeId, NodeEntry>,
    /// Who does what.
    pub layout: Layout<S>,
    /// Number and checksum of the shards, which are written apart.
    pub shards: ShardSummary,
}

/// A member of the coordinators' Raft group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Coordinator {
    /// Which service.
    pub service: ServiceRef,
    /// Its identity in Raft: random, made with its store.
    pub raft_id: u64,
    /// Where it answers, `host:port`, the host resolved at each connect. None where an earlier level
    /// has written it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeEntry {
    /// What it fails together with.
    pub zone: Zone,
    /// The kinds of worker that its foreman can make.
    pub kinds: Vec<ServiceKind>,
    /// What the administrator has ordered about it. Left out where that is nothing.
    #[serde(default, skip_serializing_if = "Standing::is_in_use")]
    pub standing: Standing,
}

impl NodeEntry {
    /// A node about which nothing is ordered.
    #[must_use]
    pub const fn new(zone: Zone, kinds: Vec<ServiceKind>) -> NodeEntry {
        NodeEntry { zone, kinds, standing: Standing::InUse }
    }
}

/// How copies are placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpreadPolicy {
    /// Over zones where it can; never refused for want of zones.
    #[default]
    Zone,
}

/// Policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Policies {
    /// Of replicas, logs and coordinators.
    #[serde(default)]
    pub spread: SpreadPolicy,
}

/// Every parameter of a cluster, with its unit in its name. A change of one is applied live, or begins
/// an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Parameters {
    /// Copies of every shard, and logs that hold every tag. 1 to 5, and no more than nodes. A change
    /// begins an epoch; storages take or leave copies after it.
    pub replication: u32,
    /// Logs of an epoch. At least `replication`, at most 100, and 8 a node. A change begins an epoch.
    pub logs: u32,
    /// Commit proxies. 1 to 100, at most 8 a node. A change begins an epoch.
    pub commit_proxies: u32,
    /// Resolvers. 1 to 100, at most 8 a node. A change begins an epoch.
    pub resolvers: u32,
    /// Storages that hold `\xff/system`. 1 to 5, and no more than nodes. Applied live.
    pub config_team: u32,
    /// How long a watched service may be silent, which tells of itself every 100 ms. 300 to 60,000.
    /// Applied live.
    pub failure_timeout_ms: u64,
    /// How long recovery waits for more logs once enough have answered. 0 to 60,000. Applied live.
    pub rejoin_grace_ms: u64,
    /// The same within 5 s of the start of the coordinators' group. 0 to 60,000. Applied live.
    pub start_grace_ms: u64,
    /// How long a component waits for an answer from a peer of its epoch before it exits. 300 to
    /// 60,000. A change begins an epoch.
    pub peer_timeout_ms: u64,
    /// How long a director may take for the system transaction. 1,000 to 600,000. Applied live.
    pub system_transaction_timeout_ms: u64,
    /// Width of the conflict window and of storages' memory of old versions, in versions.
    /// 1,000,000 to 60,000,000. A change begins an epoch.
    pub window_versions: u64,
    /// Log bytes that a storage may lag behind before it is dropped. 1 MiB to 1 TiB. Applied live.
    pub max_log_backlog_bytes: u64,
    /// How long a storage must have been gone before another one is given a copy in its place. 1,000
    /// to 604,800,000 (a week). Applied live.
    pub storage_lost_ms: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters {
            replication: 3,
            logs: 3,
            commit_proxies: 1,
            resolvers: 1,
            config_team: 3,
            failure_timeout_ms: 400,
            rejoin_grace_ms: 200,
            start_grace_ms: 5_000,
            peer_timeout_ms: 1_000,
            system_transaction_timeout_ms: 10_000,
            window_versions: 5_000_000,
            max_log_backlog_bytes: 1 << 30,
            storage_lost_ms: 30_000,
        }
    }
}

/// The transaction system of an epoch and its storages: who does what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Layout<S = Service> {
    /// The epoch.
    pub epoch: Epoch,
    /// RV: nothing above it survives of earlier epochs.
    pub recovery_version: Version,
    /// The epoch's first batch is (prev = RV, version = this).
    pub first_version: Version,
    /// Who recovered it.
    pub director: S,
    /// Hands out versions.
    pub sequencer: S,
    /// Take commits.
    pub commit_proxies: Vec<S>,
    /// Detect conflicts; their ranges cover the key space without overlap.
    pub resolvers: Vec<ResolverEntry<S>>,
    /// Hold the ordered record.
    pub logs: Vec<LogEntry<S>>,
    /// Hold the data; one team a tag.
    pub storage_teams: Vec<StorageTeam<S>>,
}

/// A resolver and its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ResolverEntry<S = Service> {
    /// Who.
    pub service: S,
    /// Which keys.
    pub range: KeyRange,
}

/// A log and its tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogEntry<S = Service> {
    /// Which directory.
    pub store: StoreId,
    /// Who.
    pub service: S,
    /// The tags whose mutations it holds.
    pub tags: Vec<Tag>,
}

/// The storages of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StorageTeam<S = Service> {
    /// Its stream in the logs.
    pub tag: Tag,
    /// The copies: each has everything, or what it lacks is in the logs.
    pub members: Vec<StorageMember<S>>,
    /// Storages that are being given a copy. The logs keep the tag's data for them; they are not
    /// read, and count for nothing. Left out where there are none, so that a release that does not
    /// know them reads the same.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub joining: Vec<JoiningMember<S>>,
}

/// A storage that is being given a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JoiningMember<S = Service> {
    /// Which directory.
    pub store: StoreId,
    /// Who.
    pub service: S,
    /// The member that leaves once it has one; none where the team grows.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub replaces: Option<StoreId>,
}

/// A storage in a team.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StorageMember<S = Service> {
    /// Which directory.
    pub store: StoreId,
    /// Who.
    pub service: S,
}

/// Which tag each key belongs to: the start key of each shard and its tag, to the next start key.
/// The first shard starts at the empty key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct ShardMap(pub Vec<(Key, Tag)>);

/// What stands in the configuration for the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShardSummary {
    /// How many.
    pub count: u32,
    /// CRC-32C over their keys and tags.
    pub checksum: u32,
}

/// What the coordinators record, and every log and storage keeps: the configuration in its written
/// form, and the shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Recorded {
    /// The configuration.
    pub config: SystemConfig<ServiceRef>,
    /// The shards.
    pub shards: ShardMap,
}
