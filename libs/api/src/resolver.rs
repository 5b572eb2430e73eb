//! The resolver: conflicts in a key range.

use plinth_types::{Epoch, Incarnation, KeyRange, Version};
use serde::{Deserialize, Serialize};

use crate::{Endpoint, Nothing};

/// Takes up an epoch with an empty history.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Assignment {
    /// The epoch.
    pub epoch: Epoch,
    /// The director of the epoch.
    pub director: Incarnation,
    /// RV: the `prev` of the epoch's first batch.
    pub recovery_version: Version,
    /// The version of the first batch; reads below are too old.
    pub first_version: Version,
    /// The keys it is asked about.
    pub range: KeyRange,
    /// Width of the conflict window, in versions.
    pub window_versions: u64,
}

/// What decides whether a transaction conflicts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Footprint {
    /// The version at which it read; none where it read nothing.
    pub read_version: Option<Version>,
    /// What it read.
    pub reads: Vec<KeyRange>,
    /// What it writes.
    pub writes: Vec<KeyRange>,
}

/// A batch to be decided, in `prev` order.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Resolution {
    /// The epoch.
    pub epoch: Epoch,
    /// The version of the batch before.
    pub prev: Version,
    /// The batch's version.
    pub version: Version,
    /// Its transactions, in order.
    pub transactions: Vec<Footprint>,
}

/// What becomes of a transaction. The order is that of the minimum over resolvers.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It read below the window.
    TooOld,
    /// It read what was written since.
    Conflict,
    /// It may commit.
    Commit,
}

/// The verdicts, in the order of the transactions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Verdicts {
    /// One a transaction.
    pub verdicts: Vec<Verdict>,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// The epoch; 0 before the first.
    pub epoch: Epoch,
    /// The newest batch resolved.
    pub version: Version,
    /// Boundaries in the conflict history.
    pub boundaries: u64,
}

/// `PUT /v1/assignment`.
pub const ASSIGN: Endpoint<Assignment, Nothing> = Endpoint::put("/v1/assignment");
/// `POST /v1/resolutions`.
pub const RESOLVE: Endpoint<Resolution, Verdicts> = Endpoint::post("/v1/resolutions");
/// `GET /v1/status`.
pub const STATUS: Endpoint<Nothing, Status> = Endpoint::get("/v1/status");
