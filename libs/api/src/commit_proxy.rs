//! The commit proxy: batches, runs the pipeline, serves read versions.

use plinth_system_config::ShardMap;
use plinth_types::{
    Epoch, Incarnation, KeyRange, Mutation, Pid, ServiceRef, Tag, Version, Versionstamp,
};
use serde::{Deserialize, Serialize};

use crate::{Endpoint, Nothing};

/// A peer of the epoch: who, and which process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Peer {
    /// Who.
    pub service: ServiceRef,
    /// Which process.
    pub pid: Pid,
}

/// A resolver and its keys.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ResolverPeer {
    /// The resolver.
    pub peer: Peer,
    /// Its keys.
    pub range: KeyRange,
}

/// A log and its tags.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogPeer {
    /// The log.
    pub peer: Peer,
    /// The tags whose mutations it holds.
    pub tags: Vec<Tag>,
}

/// Takes up an epoch, closed to clients.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Assignment {
    /// The epoch.
    pub epoch: Epoch,
    /// The director of the epoch.
    pub director: Incarnation,
    /// RV.
    pub recovery_version: Version,
    /// The version of the first batch.
    pub first_version: Version,
    /// The sequencer.
    pub sequencer: Peer,
    /// The resolvers.
    pub resolvers: Vec<ResolverPeer>,
    /// Every log of the epoch.
    pub logs: Vec<LogPeer>,
    /// Which tag a key belongs to.
    pub shards: ShardMap,
    /// How long a peer may take to answer, in milliseconds.
    pub peer_timeout_ms: u64,
}

/// Opens the proxy to clients.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Opening {
    /// The epoch.
    pub epoch: Epoch,
    /// The director of the epoch.
    pub director: Incarnation,
}

/// A transaction to commit.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CommitRequest {
    /// The epoch whose proxy is meant.
    pub epoch: Epoch,
    /// The version at which it read; none where it read nothing.
    #[serde(default)]
    pub read_version: Option<Version>,
    /// What it read.
    #[serde(default)]
    pub reads: Vec<KeyRange>,
    /// What conflicts with it, beyond what its mutations change.
    #[serde(default)]
    pub writes: Vec<KeyRange>,
    /// What it does, in order.
    pub mutations: Vec<Mutation>,
    /// Where its versionstamp is to be written in what it sets.
    #[serde(default)]
    pub stamps: Vec<StampPlace>,
    /// Whether it is the system transaction, which alone passes a closed proxy.
    #[serde(default)]
    pub system: bool,
    /// Whether it begins with this commit: it has asked for no read version of its own.
    #[serde(default)]
    pub begins: bool,
}

/// Ten bytes of a [`Mutation::Set`] that the transaction's versionstamp replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StampPlace {
    /// Which mutation, counted from 0.
    pub mutation: u32,
    /// In its key or in its value.
    pub part: StampPart,
    /// From which byte on.
    pub offset: u32,
}

/// A side of a [`Mutation::Set`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StampPart {
    /// Its key.
    Key,
    /// Its value.
    Value,
}

/// A transaction was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Committed {
    /// At this version.
    pub version: Version,
    /// Its place in its batch.
    pub index: u16,
}

impl Committed {
    /// Its versionstamp.
    #[must_use]
    pub fn versionstamp(&self) -> Versionstamp {
        Versionstamp { version: self.version, index: self.index }
    }
}

/// Asks for a version to read at.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReadVersionRequest {
    /// The epoch whose proxy is meant.
    pub epoch: Epoch,
    /// How many transactions wait for it.
    #[serde(default = "one")]
    pub count: u32,
}

fn one() -> u32 {
    1
}

/// A version to read at: no commit acknowledged before the request is above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReadVersion {
    /// The version.
    pub version: Version,
    /// How many of those that wait may begin now; all of them where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<u32>,
}

/// Sets how many transactions may begin at this proxy.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Rate {
    /// The epoch.
    pub epoch: Epoch,
    /// The director of the epoch.
    pub director: Incarnation,
    /// Transactions a second; no limit where it is absent.
    #[serde(default)]
    pub per_second: Option<u64>,
}

/// What a proxy has let begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RateAnswer {
    /// Transactions since the epoch began.
    pub begun: u64,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// The epoch; 0 before the first.
    pub epoch: Epoch,
    /// Whether clients are served.
    pub open: bool,
    /// The latest version that this proxy committed.
    pub committed: Version,
    /// Transactions committed since the epoch began.
    pub transactions: u64,
    /// Transactions that have begun since then: read versions given out, and commits without one.
    #[serde(default)]
    pub begun: u64,
    /// How many a second may begin; no limit where it is absent.
    #[serde(default)]
    pub per_second: Option<u64>,
}

/// `PUT /v1/assignment`.
pub const ASSIGN: Endpoint<Assignment, Nothing> = Endpoint::put("/v1/assignment");
/// `PUT /v1/opening`.
pub const OPEN: Endpoint<Opening, Nothing> = Endpoint::put("/v1/opening");
/// `PUT /v1/rate`.
pub const RATE: Endpoint<Rate, RateAnswer> = Endpoint::put("/v1/rate");
/// `POST /v1/commits`.
pub const COMMIT: Endpoint<CommitRequest, Committed> = Endpoint::post("/v1/commits");
/// `POST /v1/read_versions`.
pub const READ_VERSION: Endpoint<ReadVersionRequest, ReadVersion> =
    Endpoint::post("/v1/read_versions");
/// `GET /v1/status`.
pub const STATUS: Endpoint<Nothing, Status> = Endpoint::get("/v1/status");
