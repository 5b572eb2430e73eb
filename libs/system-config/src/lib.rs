//! The shared persistence library: what a cluster's configuration is, how it is written, under
//! which keys, how Pids map to (service name, node) pairs, and how a coordinator decides what to
//! start from. No I/O, no async.

mod config;

pub use config::{
    Coordinator, Layout, LogEntry, NodeEntry, Parameters, Policies, Recorded, ResolverEntry,
    Service, ShardMap, ShardSummary, SpreadPolicy, StorageMember, StorageTeam, SystemConfig,
};
