//! Raft: openraft on our store, our network, our clock, tasks and randomness.

mod config;
mod log;
mod machine;
mod network;
mod world;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::Cursor;

use plinth_store::{Batch, Table};
use plinth_types::ServiceRef;
use serde::{Deserialize, Serialize};

pub(crate) use config::config;
pub(crate) use log::LogStore;
pub(crate) use machine::{Machine, peek, voters};
pub(crate) use network::{
    AppendAnswer, AppendMessage, Network, SnapshotAnswer, SnapshotMessage, VoteAnswer, VoteMessage,
};
pub(crate) use world::{World, with_random};

use crate::state::{Applied, Command};

/// The table of log entries, by index.
pub(crate) const LOG_TABLE: Table = "raft_log";
/// The table of everything else that Raft keeps.
pub(crate) const META_TABLE: Table = "raft_meta";

pub(crate) const VOTE_KEY: &[u8] = b"vote";
pub(crate) const COMMITTED_KEY: &[u8] = b"committed";
pub(crate) const PURGED_KEY: &[u8] = b"purged";
pub(crate) const SNAPSHOT_KEY: &[u8] = b"snapshot";

/// Adds the removal of all that Raft keeps to a batch.
pub(crate) fn erase(batch: &mut Batch) {
    batch.delete_range(LOG_TABLE, &[][..], &[0xff; 9][..]);
    for key in [VOTE_KEY, COMMITTED_KEY, PURGED_KEY, SNAPSHOT_KEY] {
        batch.delete(META_TABLE, key);
    }
}

/// A member of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Which service; never absent in a group of ours (openraft asks for a default).
    pub(crate) service: Option<ServiceRef>,
    /// `host:port`.
    pub(crate) address: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            Some(service) => write!(f, "{service} at {}", self.address),
            None => f.write_str(&self.address),
        }
    }
}

openraft::declare_raft_types!(
    /// What our Raft is made of.
    pub(crate) TypeConfig:
        D = Command,
        R = Applied,
        NodeId = u64,
        Node = Member,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = World,
);

/// Our Raft.
pub(crate) type Raft = openraft::Raft<TypeConfig>;
