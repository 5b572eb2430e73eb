//! How a coordinator started, as its status shows it.

use plinth_types::{ConfigVersion, Epoch, ServiceRef, StoreId};
use serde::{Deserialize, Serialize};

/// Where a coordinator had the configuration from.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum BootstrapSource {
    /// Its own Raft store.
    Raft,
    /// The other coordinators, whose group it joined anew.
    Peers,
    /// The newest configuration kept by storages, logs and surviving coordinators.
    Storage,
    /// The defaults: a cold start.
    Default,
    /// The manifests of durable workers.
    Manifests,
}

/// A configuration that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Rejected {
    /// The directory that keeps it.
    pub store: StoreId,
    /// The worker that keeps it.
    pub service: ServiceRef,
    /// What is wrong with it.
    pub reason: String,
}

/// How a coordinator started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BootstrapStatus {
    /// Where it had the configuration from.
    pub source: BootstrapSource,
    /// The worker whose configuration was taken, if it was a worker's.
    pub storage: Option<ServiceRef>,
    /// The epoch of the configuration that it started from; 0 where there was none.
    pub epoch: Epoch,
    /// The number of that configuration; 0 where there was none.
    pub config_version: ConfigVersion,
    /// What could not be used.
    pub rejected: Vec<Rejected>,
}
