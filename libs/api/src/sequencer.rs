//! The sequencer: commit versions in order, and the latest committed one.

use plinth_types::{Epoch, Incarnation, Version};
use serde::{Deserialize, Serialize};

use crate::{Endpoint, Nothing};

/// Takes up an epoch.
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
}

/// Asks for the version of a batch. The same (proxy, request) always gets the same answer.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CommitVersionRequest {
    /// The epoch.
    pub epoch: Epoch,
    /// Which proxy asks.
    pub proxy: Incarnation,
    /// The proxy's requests are numbered from 1 without gaps.
    pub request: u64,
}

/// A batch's place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CommitVersion {
    /// The version before it.
    pub prev: Version,
    /// Its version.
    pub version: Version,
}

/// Reports a batch as committed: every log has acknowledged it.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CommittedRequest {
    /// The epoch.
    pub epoch: Epoch,
    /// The version.
    pub version: Version,
}

/// The latest committed version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CommittedVersion {
    /// The version.
    pub version: Version,
}

/// Asks for the latest committed version.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema, utoipa::IntoParams)]
pub struct ReadVersionQuery {
    /// The epoch.
    pub epoch: Epoch,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// The epoch; 0 before the first.
    pub epoch: Epoch,
    /// The newest version handed out.
    pub handed_out: Version,
    /// The latest committed version.
    pub committed: Version,
}

/// `PUT /v1/assignment`.
pub const ASSIGN: Endpoint<Assignment, Nothing> = Endpoint::put("/v1/assignment");
/// `POST /v1/commit_versions`.
pub const COMMIT_VERSION: Endpoint<CommitVersionRequest, CommitVersion> =
    Endpoint::post("/v1/commit_versions");
/// `POST /v1/committed_versions`.
pub const COMMITTED: Endpoint<CommittedRequest, CommittedVersion> =
    Endpoint::post("/v1/committed_versions");
/// `GET /v1/read_version`.
pub const READ_VERSION: Endpoint<ReadVersionQuery, CommittedVersion> =
    Endpoint::get("/v1/read_version");
/// `GET /v1/status`.
pub const STATUS: Endpoint<Nothing, Status> = Endpoint::get("/v1/status");
