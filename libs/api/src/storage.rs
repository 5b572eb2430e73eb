//! The storage: applies the logs and serves reads at a version.

use std::collections::BTreeSet;

use plinth_types::{Epoch, Incarnation, Key, KeyRange, StoreId, Tag, Value, ValueBytes, Version};
use serde::{Deserialize, Serialize};

use crate::commit_proxy::{LogPeer, Peer};
use crate::log::Generation;
use crate::{Endpoint, Nothing, Problem};

/// A shard group that the storage holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TagAssignment {
    /// Its stream in the logs.
    pub tag: Tag,
    /// Its keys.
    pub ranges: Vec<KeyRange>,
    /// Where the storage gets a copy from, while it joins the tag's team; none for a member. A tag
    /// that is being joined is not read here, even once the copy is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joining: Option<Joining>,
}

/// Where a storage that joins a team gets its copy from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Joining {
    /// Members of the team that run and have a whole copy, best first.
    pub sources: Vec<CopySource>,
}

/// A member that others may copy from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CopySource {
    /// Its directory.
    pub store: StoreId,
    /// Who it is, and its process.
    pub peer: Peer,
}

/// Takes up an epoch: drops back to RV where it is past it, then pulls from the epoch's logs.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Assignment {
    /// The epoch.
    pub epoch: Epoch,
    /// The director of the epoch.
    pub director: Incarnation,
    /// The generation that begins.
    pub generation: Generation,
    /// What it holds.
    pub tags: Vec<TagAssignment>,
    /// Every log of the epoch.
    pub logs: Vec<LogPeer>,
    /// How long old versions stay readable, in versions.
    pub window_versions: u64,
}

/// Reads at one version.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReadRequest {
    /// The reader's epoch.
    pub epoch: Epoch,
    /// The version. Ahead of the storage, it waits; older than the window, it is too old.
    pub version: Version,
    /// Rather at the newest version that is known here to be committed, if that is later. So a read
    /// at version 0 is served by whatever the storage has.
    #[serde(default)]
    pub newest: bool,
    /// Keys to read.
    #[serde(default)]
    pub keys: Vec<Key>,
    /// Ranges to read.
    #[serde(default)]
    pub ranges: Vec<RangeRead>,
}

/// A range to read.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RangeRead {
    /// The keys.
    pub range: KeyRange,
    /// At most so many.
    pub limit: u32,
    /// From the end.
    #[serde(default)]
    pub reverse: bool,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// Its value.
    #[schema(value_type = ValueBytes)]
    pub value: Value,
}

/// What was read of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RangeAnswer {
    /// In the order asked for.
    pub items: Vec<KeyValue>,
    /// Whether the limit cut it short.
    pub more: bool,
}

/// What was read, in the order asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReadAnswer {
    /// The version it was read at.
    pub version: Version,
    /// A value a key; none where the key has none.
    #[schema(value_type = Vec<Option<ValueBytes>>)]
    pub values: Vec<Option<Value>>,
    /// An answer a range.
    pub ranges: Vec<RangeAnswer>,
}

/// The most keys of a [`ReadBatch`]: values of 100,000 bytes each are still an answer that is taken.
pub const READ_BATCH_KEYS: usize = 256;

/// Reads keys for several readers, each at its own version. At most [`READ_BATCH_KEYS`] in all.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReadBatch {
    /// The readers' epoch.
    pub epoch: Epoch,
    /// What each of them reads.
    pub reads: Vec<KeysRead>,
}

/// Keys to read at one version.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeysRead {
    /// As in a [`ReadRequest`], but the wait for it is short.
    pub version: Version,
    /// As in a [`ReadRequest`].
    #[serde(default)]
    pub newest: bool,
    /// Keys to read.
    pub keys: Vec<Key>,
}

/// What one of a batch came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeysAnswer {
    /// The version it was read at.
    pub version: Version,
    /// A value a key; none where the key has none. Empty where there is a problem.
    #[serde(default)]
    #[schema(value_type = Vec<Option<ValueBytes>>)]
    pub values: Vec<Option<Value>>,
    /// Why it is not answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What a batch came to, in the order asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReadBatchAnswer {
    /// An answer a read.
    pub reads: Vec<KeysAnswer>,
}

/// Waits until a key has another value than the caller has seen.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WatchRequest {
    /// The caller's epoch.
    pub epoch: Epoch,
    /// The key.
    pub key: Key,
    /// The value that the caller has seen; none where the key had none.
    #[schema(value_type = Option<ValueBytes>)]
    pub seen: Option<Value>,
    /// The version that it was seen at: nothing earlier is compared with it.
    pub from: Version,
    /// How long to wait, in milliseconds. At most 30,000.
    pub wait_ms: u64,
}

/// What a watch came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WatchAnswer {
    /// Whether the key has another value; only values known to be committed count.
    pub changed: bool,
    /// The value, where it has changed; none where the key has none now.
    #[schema(value_type = Option<ValueBytes>)]
    pub value: Option<Value>,
    /// The version that the answer is about; where nothing changed, up to here.
    pub version: Version,
}

/// Where a tag stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TagStatus {
    /// The tag.
    pub tag: Tag,
    /// Readable up to here.
    pub version: Version,
    /// On disk up to here.
    pub durable: Version,
    /// The epoch of the durable version's generation.
    pub durable_epoch: Epoch,
    /// The oldest readable version.
    pub oldest: Version,
    /// The newest known committed version that it heard of.
    pub known_committed: Version,
    /// How far the copy is that it takes from a member; none for a whole one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copying: Option<CopyStatus>,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CopyStatus {
    /// Keys that have come, durably.
    pub keys: u64,
    /// Bytes of keys and values that have come, durably.
    pub bytes: u64,
    /// Whether everything has come, and only the logs have to be caught up with.
    pub catching_up: bool,
    /// The copy is whole once the logs have been followed to here; 0 before anything has come.
    pub whole_at: Version,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// The directory.
    pub store: StoreId,
    /// The epoch; 0 before the first assignment of this process.
    pub epoch: Epoch,
    /// Where its tags stand.
    pub tags: Vec<TagStatus>,
    /// Bytes of versions that it holds in memory.
    #[serde(default)]
    pub queue_bytes: u64,
    /// Tags of which the logs have dropped what comes next here, since it once had that and said so. It
    /// can't go on by itself.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub lacks: BTreeSet<Tag>,
}

/// Asks for the configuration as the system shard holds it durably.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema, utoipa::IntoParams)]
pub struct ShardConfigQuery {
    /// Answer once at least this version is durable, or after `wait_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// How long to wait, in milliseconds. At most 30,000.
    #[serde(default)]
    pub wait_ms: u64,
}

/// The configuration as the system shard holds it on disk.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShardConfig {
    /// The directory.
    pub store: StoreId,
    /// The durable version.
    pub version: Version,
    /// The epoch of the durable version's generation.
    pub epoch: Epoch,
    /// The value of `\xff/system/config`; none where it has none.
    #[schema(value_type = Option<ValueBytes>)]
    pub config: Option<Value>,
    /// The rows below `\xff/system/layout/shards/`.
    pub shards: Vec<KeyValue>,
}

/// Asks a member for a part of what it has on disk. Not a read at a version: each page is as of the
/// version that the member says, which is known to be committed, and a later one is as of the same
/// or a later version.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PageRequest {
    /// The epoch of both.
    pub epoch: Epoch,
    /// The member's directory; another one under its name refuses.
    pub source: StoreId,
    /// The directory that the copy is for.
    pub newcomer: StoreId,
    /// The tag.
    pub tag: Tag,
    /// The keys that are still to come, from the first one on. Within one of the tag's ranges.
    pub range: KeyRange,
    /// As of this version at the earliest.
    pub at_least: Version,
    /// About so many bytes, and at least one key.
    pub limit_bytes: u64,
    /// How long the member may wait until it has that version on disk, in milliseconds. At most
    /// 30,000.
    #[serde(default)]
    pub wait_ms: u64,
}

/// A part of what a member has on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Page {
    /// The member's directory.
    pub source: StoreId,
    /// The directory that asked.
    pub newcomer: StoreId,
    /// The tag.
    pub tag: Tag,
    /// The version that the page is as of.
    pub version: Version,
    /// The epoch of that version.
    pub epoch: Epoch,
    /// The keys that the page is about: from the first that was asked for to where it was cut short.
    pub range: KeyRange,
    /// Every key of the range that has a value, in their order.
    pub items: Vec<KeyValue>,
    /// CRC-32C over everything above.
    pub checksum: u32,
}

/// `POST /v1/pages`.
pub const PAGE: Endpoint<PageRequest, Page> = Endpoint::post("/v1/pages");
/// `PUT /v1/assignment`.
pub const ASSIGN: Endpoint<Assignment, Nothing> = Endpoint::put("/v1/assignment");
/// `POST /v1/reads`.
pub const READ: Endpoint<ReadRequest, ReadAnswer> = Endpoint::post("/v1/reads");
/// `POST /v1/read_batches`.
pub const READ_BATCH: Endpoint<ReadBatch, ReadBatchAnswer> = Endpoint::post("/v1/read_batches");
/// `POST /v1/watches`.
pub const WATCH: Endpoint<WatchRequest, WatchAnswer> = Endpoint::post("/v1/watches");
/// `GET /v1/shard_config`.
pub const SHARD_CONFIG: Endpoint<ShardConfigQuery, ShardConfig> = Endpoint::get("/v1/shard_config");
/// `GET /v1/status`.
pub const STATUS: Endpoint<Nothing, Status> = Endpoint::get("/v1/status");
