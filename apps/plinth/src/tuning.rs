//! What services are given that is not the operator's to change. A process takes what it comes with; a
//! simulation draws other limits, so that what is bounded meets its bounds, and founds larger clusters.

use plinth_system_config::ShardMap;

/// The limits of every kind of service that has any, and the shards of a new cluster.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// The shards that a new cluster begins with.
    pub first_shards: ShardMap,
    /// Commit proxies'.
    pub commit_proxy: plinth_commit_proxy::Limits,
    /// Sequencers'.
    pub sequencer: plinth_sequencer::Limits,
    /// Resolvers'.
    pub resolver: plinth_resolver::Limits,
    /// Logs'.
    pub log: plinth_log::Limits,
    /// Storages'.
    pub storage: plinth_storage::Limits,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            first_shards: ShardMap::initial(),
            commit_proxy: Default::default(),
            sequencer: Default::default(),
            resolver: Default::default(),
            log: Default::default(),
            storage: Default::default(),
        }
    }
}
