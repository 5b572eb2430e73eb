//! How recorded configurations are made and compared.

use std::fmt;

use plinth_types::{ConfigVersion, Epoch, ServiceRef};
use serde::{Deserialize, Serialize};

use crate::{Recorded, ShardMap, SystemConfig};

/// Which of two configurations of a cluster is newer: first by epoch, then by number. A later
/// epoch's director has read what an earlier one recorded, so its configuration supersedes it.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
pub struct Stamp {
    /// The epoch whose director wrote it.
    pub epoch: Epoch,
    /// The number of the configuration.
    pub config_version: ConfigVersion,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}, version {}", self.epoch, self.config_version)
    }
}

impl<S> SystemConfig<S> {
    /// Its place among the cluster's configurations.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp { epoch: self.epoch, config_version: self.config_version }
    }
}

impl Recorded {
    /// A configuration with its shards, whose number and checksum it takes over.
    #[must_use]
    pub fn new(mut config: SystemConfig<ServiceRef>, shards: ShardMap) -> Recorded {
        config.shards = shards.summary();
        Recorded { config, shards }
    }

    /// Its place among the cluster's configurations.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.config.stamp()
    }
}
