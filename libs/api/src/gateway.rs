//! The gateway: the public API.

use plinth_types::{Epoch, Key, Value, Version};
use serde::{Deserialize, Serialize};

/// A value as JSON, where the caller asks for JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyAnswer {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Value,
    /// The version it was read at.
    pub version: Version,
}

/// A write was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Written {
    /// At this version.
    pub version: Version,
}

/// `GET /v1/status`: the cluster in one look.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClusterStatus {
    /// `ready`, `recovering` or `unavailable`.
    pub health: String,
    /// The latest epoch.
    pub epoch: Epoch,
    /// The phase of its recovery.
    pub phase: String,
    /// Whether commits are accepted.
    pub ready: bool,
    /// What is wrong, in words.
    pub problems: Vec<String>,
    /// As the coordinator tells it.
    pub coordinator: Option<crate::coordinator::Status>,
    /// As the director tells it.
    pub director: Option<crate::director::Status>,
}
