//! What a starting coordinator could learn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plinth_types::{ClusterId, Epoch, GroupId, NodeId, ServiceRef, StoreId, Tag, Version};

use crate::{Recorded, ShardMap};

/// What is known of a thing that may or may not be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// It is there.
    Has(T),
    /// It answered, and there is none.
    None,
    /// There was no answer. Never to be taken for none.
    Unknown,
}

/// A coordinator's part in a Raft group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RaftState {
    /// Its store is made and has promised itself to a founding, but nothing has happened in it
    /// yet: no vote was given, no entry taken. Nothing is lost with it.
    Formatted(GroupId),
    /// It has voted or taken entries.
    Running(RaftReport),
}

/// What a Raft store holds, entries included that are not applied yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftReport {
    /// The founding that it belongs to.
    pub group_id: GroupId,
    /// The group's voting members.
    pub members: BTreeSet<ServiceRef>,
    /// Those that it is changing to; empty where it is not. Until that is over, nobody leads without
    /// majorities of both.
    pub next_members: BTreeSet<ServiceRef>,
    /// The highest epoch that was appointed, or above which the group was founded.
    pub epoch: Epoch,
    /// The newest configuration recorded; none if no layout ever was.
    pub recorded: Option<Arc<Recorded>>,
}

/// What a node's foreman answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForemanReport {
    /// The cluster id in its directory. Written there before the node's first worker is made.
    pub cluster_id: Option<ClusterId>,
    /// The durable workers whose directories are on the node, running or not.
    pub workers: Vec<Manifest>,
}

/// A durable worker's directory: what stands in its manifest, and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The directory.
    pub store: StoreId,
    /// The worker.
    pub service: ServiceRef,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// What the worker says that it has; none where it has not said.
    pub held: Option<Held>,
}

/// What a durable worker has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The highest epoch that it has served or was locked at; 0 for one that never served.
    pub epoch: Epoch,
    /// The newest epoch whose data it has; for a log, the newest that it has taken up.
    pub generation: Epoch,
    /// The highest version that it holds.
    pub version: Version,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// Which keys belong to which tag, as the rows of the system shard say; none where a worker does
    /// not hold that shard, or its rows can't be read.
    pub shards: Option<ShardMap>,
}

impl Manifest {
    /// Whether the worker may have served an epoch: one that does not say may have.
    pub(super) fn may_have_served(&self) -> bool {
        self.held.as_ref().is_none_or(|held| held.epoch > Epoch::ZERO)
    }
}

/// What a storage or log answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerReport {
    /// The worker.
    pub service: ServiceRef,
    /// The newest configuration that it keeps durably.
    pub kept: Known<Kept>,
    /// What is wrong with a second copy that can't be read, where `kept` is from another one.
    pub spoiled: Option<String>,
}

/// A configuration that a worker keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It can be read.
    Readable(Arc<Recorded>),
    /// It can't be read, for this reason.
    Corrupt(String),
}

/// Everything that a starting coordinator could learn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// The cluster, from the cluster file.
    pub cluster_id: ClusterId,
    /// The coordinator that decides.
    pub me: ServiceRef,
    /// Its own Raft store. Unknown if it is there and can't be read.
    pub own: Known<RaftState>,
    /// The coordinators that the cluster file names.
    pub cluster_file: BTreeSet<ServiceRef>,
    /// What the other coordinators answered: those of the cluster file, and those that a
    /// configuration or a group names. One that is not here is unknown.
    pub peers: BTreeMap<ServiceRef, Known<RaftState>>,
    /// The nodes that the cluster file names.
    pub initial_nodes: BTreeSet<NodeId>,
    /// What the foremen answered. A node that is not here is unknown.
    pub foremen: BTreeMap<NodeId, ForemanReport>,
    /// What the storages and logs answered, by directory. One that is not here is unknown.
    pub workers: BTreeMap<StoreId, WorkerReport>,
    /// Whether there is still time to hear those who are not needed: what they know of epochs and
    /// versions is better known before a group begins above them.
    pub is_patient: bool,
}

impl RaftReport {
    /// The memberships that the group may have, the next one last.
    pub(super) fn memberships(&self) -> Vec<BTreeSet<ServiceRef>> {
        let next = Some(&self.next_members).filter(|next| !next.is_empty());
        std::iter::once(&self.members).chain(next).cloned().collect()
    }
}

impl Inputs {
    /// What is known of a coordinator's Raft store.
    pub(super) fn coordinator(&self, service: &ServiceRef) -> &Known<RaftState> {
        if *service == self.me {
            return &self.own;
        }
        self.peers.get(service).unwrap_or(&Known::Unknown)
    }

    /// Every Raft store that is in use, its own included.
    pub(super) fn running(&self) -> impl Iterator<Item = (&ServiceRef, &RaftReport)> {
        std::iter::once((&self.me, &self.own)).chain(self.others()).filter_map(
            |(service, state)| match state {
                Known::Has(RaftState::Running(report)) => Some((service, report)),
                _ => None,
            },
        )
    }

    /// The other coordinators that were asked.
    pub(super) fn others(&self) -> impl Iterator<Item = (&ServiceRef, &Known<RaftState>)> {
        self.peers.iter().filter(|(service, _)| **service != self.me)
    }

    /// Every manifest of every foreman that answered.
    pub(super) fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.foremen.values().flat_map(|foreman| &foreman.workers)
    }

    /// Those of this cluster.
    pub(super) fn own_manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.manifests().filter(|found| found.cluster_id == self.cluster_id)
    }
}
