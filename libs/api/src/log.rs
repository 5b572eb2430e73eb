//! The log: the ordered, fsynced record of committed batches.

use plinth_system_config::Recorded;
use plinth_types::{ConfigVersion, Epoch, Incarnation, Mutation, Pid, StoreId, Tag, Version};
use serde::{Deserialize, Serialize};

use crate::{Endpoint, Nothing};

/// Locks the log for an epoch: from the answer on it accepts nothing of an earlier one.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LockRequest {
    /// The epoch.
    pub epoch: Epoch,
    /// The director of the epoch; another one of the same epoch is refused.
    pub director: Incarnation,
}

/// A generation of the log: one epoch's part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Generation {
    /// The epoch.
    pub epoch: Epoch,
    /// RV: nothing of earlier epochs above it survives.
    pub recovery_version: Version,
    /// The epoch's first version.
    pub first_version: Version,
}

/// What a locked log holds.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LockAnswer {
    /// The directory.
    pub store: StoreId,
    /// The newest version it holds, fsynced.
    pub end: Version,
    /// The newest known committed version it has heard of.
    pub known_committed: Version,
    /// The generation that it last took part in.
    pub generation: Option<Generation>,
    /// The tags it holds.
    pub tags: Vec<TagExtent>,
    /// The newest configuration that it durably keeps.
    pub config: Option<Recorded>,
    /// Whether it keeps one that can't be read. That one is not of a later epoch than `generation`.
    #[serde(default)]
    pub config_damaged: bool,
}

/// What a log holds of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TagExtent {
    /// The tag.
    pub tag: Tag,
    /// Everything up to here has been dropped: it is durable in every member.
    pub popped: Version,
}

/// A copy of a generation's data for a log that lacks it.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CopySource {
    /// Who has it.
    pub pid: Pid,
    /// Which tags to take from there.
    pub tags: Vec<Tag>,
}

/// Takes up an epoch: truncates above RV, copies what it lacks, then accepts its pushes.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Assignment {
    /// The epoch.
    pub epoch: Epoch,
    /// The director that holds the lock.
    pub director: Incarnation,
    /// The generation that begins.
    pub generation: Generation,
    /// The tags that it holds, each with the members that must have popped before data is dropped.
    pub tags: Vec<TagMembers>,
    /// Where to copy (popped, RV] from; empty for a log that has it.
    pub copy: Vec<CopySource>,
}

/// The members of a tag's team.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TagMembers {
    /// The tag.
    pub tag: Tag,
    /// Their directories.
    pub members: Vec<StoreId>,
}

/// One tag's mutations of a batch, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TagMutations {
    /// The tag.
    pub tag: Tag,
    /// Its mutations.
    pub mutations: Vec<Mutation>,
}

/// A batch as a log keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Entry {
    /// The epoch that pushed it.
    pub epoch: Epoch,
    /// The version before it.
    pub prev: Version,
    /// Its version.
    pub version: Version,
    /// The newest version that its proxy knew to be committed.
    pub known_committed: Version,
    /// Mutations by tag; empty for a batch that only carries `known_committed`.
    pub messages: Vec<TagMutations>,
    /// The W3C trace context of the commit, where it is sampled: whoever applies it joins its trace.
    #[serde(default)]
    pub traceparent: Option<String>,
}

/// The log has the entry, fsynced.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PushAnswer {
    /// The newest version that is fsynced.
    pub durable: Version,
}

/// Asks for a tag's entries after a version.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema, utoipa::IntoParams)]
pub struct PullQuery {
    /// The tag.
    pub tag: Tag,
    /// The puller's epoch, as of its last assignment.
    pub epoch: Epoch,
    /// Entries above this version.
    pub after: Version,
    /// The known committed version that the puller has: a newer one is worth an answer.
    pub known_committed: Version,
    /// How long to wait for something new, in milliseconds. At most 30,000.
    pub wait_ms: u64,
    /// About how many bytes to answer with.
    pub limit_bytes: u64,
}

/// A tag's entries, in order, only those with something for the tag.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PullAnswer {
    /// The entries, with the mutations of this tag only.
    pub entries: Vec<Entry>,
    /// Nothing but `entries` is between the request's `after` and here.
    pub end: Version,
    /// The newest known committed version.
    pub known_committed: Version,
    /// The newest generation: where its epoch is above the puller's, versions above its RV that the
    /// puller has are void.
    pub generation: Option<Generation>,
}

/// A member has everything up to a version durably.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PopRequest {
    /// The member's epoch, as of its last assignment.
    pub epoch: Epoch,
    /// The tag.
    pub tag: Tag,
    /// The member.
    pub store: StoreId,
    /// Up to here.
    pub version: Version,
}

/// Asks whether the log still serves this epoch.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema, utoipa::IntoParams)]
pub struct ConfirmQuery {
    /// The epoch.
    pub epoch: Epoch,
}

/// Has a log or storage keep a configuration durably.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeepRequest {
    /// The epoch that recorded it.
    pub epoch: Epoch,
    /// The director of the epoch.
    pub director: Incarnation,
    /// The configuration.
    pub recorded: Recorded,
}

/// What a worker keeps.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Kept {
    /// The configuration; none was ever kept where this is absent.
    pub recorded: Option<Recorded>,
}

/// What the log keeps of a tag for one of its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MemberBacklog {
    /// The tag.
    pub tag: Tag,
    /// The member.
    pub store: StoreId,
    /// It has everything up to here durably.
    pub popped: Version,
    /// Bytes of what it has yet to make durable, about.
    pub bytes: u64,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// The directory.
    pub store: StoreId,
    /// The epoch that locked it; 0 before the first.
    pub locked: Epoch,
    /// Whether it accepts that epoch's pushes.
    pub open: bool,
    /// The newest version it holds.
    pub end: Version,
    /// The newest known committed version.
    pub known_committed: Version,
    /// The generations it still holds data of.
    pub generations: Vec<Generation>,
    /// Tags and what was dropped of them.
    pub tags: Vec<TagExtent>,
    /// Bytes held in memory for pullers.
    pub queue_bytes: u64,
    /// Where it has more of them, it takes no more.
    #[serde(default)]
    pub queue_limit_bytes: u64,
    /// Whether its disk is full: it takes nothing until there is room.
    #[serde(default)]
    pub disk_full: bool,
    /// How far each member is behind, and each newcomer that is given a copy.
    #[serde(default)]
    pub backlogs: Vec<MemberBacklog>,
    /// The newest configuration that it keeps: epoch and number.
    pub config: Option<(Epoch, ConfigVersion)>,
}

/// `POST /v1/locks`.
pub const LOCK: Endpoint<LockRequest, LockAnswer> = Endpoint::post("/v1/locks");
/// `PUT /v1/assignment`.
pub const ASSIGN: Endpoint<Assignment, Nothing> = Endpoint::put("/v1/assignment");
/// `POST /v1/entries`.
pub const PUSH: Endpoint<Entry, PushAnswer> = Endpoint::post("/v1/entries");
/// `GET /v1/entries`.
pub const PULL: Endpoint<PullQuery, PullAnswer> = Endpoint::get("/v1/entries");
/// `POST /v1/pops`.
pub const POP: Endpoint<PopRequest, Nothing> = Endpoint::post("/v1/pops");
/// `GET /v1/confirmation`.
pub const CONFIRM: Endpoint<ConfirmQuery, Nothing> = Endpoint::get("/v1/confirmation");
/// `PUT /v1/system_config`, on logs and storages.
pub const KEEP: Endpoint<KeepRequest, Nothing> = Endpoint::put("/v1/system_config");
/// `GET /v1/system_config`, on logs and storages: what was kept by [`KEEP`].
pub const KEPT: Endpoint<Nothing, Kept> = Endpoint::get("/v1/system_config");
/// `GET /v1/status`.
pub const STATUS: Endpoint<Nothing, Status> = Endpoint::get("/v1/status");
