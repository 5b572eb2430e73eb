//! What a starting coordinator may decide.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use plinth_types::{ClusterId, Epoch, GroupId, NodeId, ServiceRef, StoreId, Version};

use super::{BootstrapSource, BootstrapStatus, EPOCH_GAP, Manifest, Rejected};
use crate::{Recorded, Stamp};

/// What to do, and what could not be used on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What to do.
    pub decision: Decision,
    /// Configurations that could not be used. The next system transaction heals them.
    pub rejected: Vec<Rejected>,
}

/// What a starting coordinator does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Raft goes on.
    GoOn {
        /// The group.
        group_id: GroupId,
        /// The newest configuration that a member of it reports.
        stamp: Stamp,
    },
    /// Raft goes on, and so does the founding: no layout was ever recorded.
    GoOnFounding {
        /// The group.
        group_id: GroupId,
        /// Workers of this cluster that a crashed founding has left. Their foremen remove them, and
        /// only after a linearizable read that still finds no layout.
        discard: Vec<Manifest>,
    },
    /// Raft goes on, but was rolled back: a configuration above the group's is kept elsewhere. The
    /// leader proposes it, to be taken up only if it still is above what is recorded then.
    AdoptHigher {
        /// The group.
        group_id: GroupId,
        /// The higher configuration.
        recorded: Arc<Recorded>,
        /// Who keeps it.
        from: Keeper,
        /// Where the new epoch and its versions start.
        floor: Floor,
    },
    /// The group is alive without this coordinator, whose votes are lost: join it with a new
    /// identity, through a change of membership. What it has of another group is renounced.
    Rejoin {
        /// The group.
        group_id: GroupId,
        /// Its members.
        members: BTreeSet<ServiceRef>,
        /// The newest configuration that a member of it reports.
        stamp: Stamp,
    },
    /// The group can never have a majority again: found another one, with the newest configuration.
    Refound {
        /// The newest configuration.
        recorded: Arc<Recorded>,
        /// The worker that keeps it; none if a surviving coordinator has it.
        from: Option<Keeper>,
        /// The members of the new group. A majority of them must promise.
        members: BTreeSet<ServiceRef>,
        /// The members of before, of whom a majority must promise as well. Empty but where the
        /// configuration names both.
        former: BTreeSet<ServiceRef>,
        /// The survivors, who durably renounce these groups first.
        renounce: BTreeMap<ServiceRef, GroupId>,
        /// Where the group's epochs and versions start.
        floor: Floor,
    },
    /// There is no cluster yet: found the group of one with defaults.
    ColdStart {
        /// The coordinators concerned, each of which must promise.
        members: BTreeSet<ServiceRef>,
    },
    /// The same, but too few storages have a configuration that can be read. The logs keep one, and
    /// they and their manifests show that none after it was ever in force.
    RebuildFromManifests {
        /// The newest configuration.
        recorded: Arc<Recorded>,
        /// The worker that keeps it; none if a surviving coordinator has it.
        from: Option<Keeper>,
        /// The members of the new group. A majority of them must promise.
        members: BTreeSet<ServiceRef>,
        /// The members of before, of whom a majority must promise as well. Empty but where the
        /// configuration names both.
        former: BTreeSet<ServiceRef>,
        /// The survivors, who durably renounce these groups first.
        renounce: BTreeMap<ServiceRef, GroupId>,
        /// Where the group's epochs and versions start.
        floor: Floor,
    },
    /// Ask again: too little has answered.
    Wait {
        /// What has not; never empty.
        missing: Vec<Missing>,
    },
    /// Everything has answered, and an operator must decide.
    Unready {
        /// What is wrong.
        obstacle: Obstacle,
    },
}

/// The worker that keeps a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Keeper {
    /// The worker.
    pub service: ServiceRef,
    /// Its directory.
    pub store: StoreId,
}

/// Where epochs and versions start that could not be agreed upon with their predecessors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The next epoch is not below this one.
    pub epoch: Epoch,
    /// Its first version is not below this one.
    pub version: Version,
}

impl Floor {
    /// This floor, with its epoch raised by less than [`EPOCH_GAP`] as `draw`, a random number, says.
    /// Epochs that only lost coordinators knew can't be heard of, so two groups may be founded above the
    /// same; drawn apart, they don't appoint the same epoch twice.
    #[must_use]
    pub fn apart(self, draw: u128) -> Floor {
        Floor { epoch: apart(self.epoch, draw), ..self }
    }
}

/// `epoch`, raised by less than [`EPOCH_GAP`] as `draw` says.
#[must_use]
pub fn apart(epoch: Epoch, draw: u128) -> Epoch {
    let raised_by = u64::try_from(draw % u128::from(EPOCH_GAP)).unwrap_or_default();
    Epoch(epoch.0.saturating_add(raised_by))
}

/// Something that has not answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// A coordinator.
    Coordinator(ServiceRef),
    /// A node's foreman.
    Foreman(NodeId),
    /// A storage or log.
    Worker(Keeper),
    /// The others, who have yet to found the group that this coordinator is to join.
    Founding,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Coordinator(service) => write!(f, "{service}"),
            Missing::Foreman(node) => write!(f, "the foreman of {node}"),
            Missing::Worker(keeper) => write!(f, "{} (store {})", keeper.service, keeper.store),
            Missing::Founding => f.write_str("the founding of the coordinators' group"),
        }
    }
}

/// Why a coordinator can't start by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// Its own Raft store is there, but can't be read.
    #[error(
        "this coordinator's Raft store can't be read: repair its disk, or remove its directory so \
         that it joins with a new identity"
    )]
    OwnStoreUnreadable,
    /// Two groups claim to lead.
    #[error(
        "coordinators belong to the groups {first} and {second}, and neither supersedes the other: \
         choose one with `plinth recover`"
    )]
    TwoGroups {
        /// One group.
        first: GroupId,
        /// Another one.
        second: GroupId,
    },
    /// Group and configuration name different coordinators, and only one of them is lost.
    #[error(
        "the coordinators' group has lost its majority, but the configuration at {stamp} names other \
         coordinators that have not: choose with `plinth recover`"
    )]
    TwoMemberships {
        /// The configuration's place.
        stamp: Stamp,
    },
    /// Two configurations claim to be the same one.
    #[error("two different configurations have {stamp}: choose one with `plinth recover`")]
    TwoConfigurations {
        /// Their place.
        stamp: Stamp,
    },
    /// A group without a layout, but a configuration was kept.
    #[error(
        "the coordinators have no layout, but a worker keeps a configuration that can't be read: \
         choose with `plinth recover`"
    )]
    LayoutLost,
    /// The group lost its majority before it recorded a layout.
    #[error(
        "a majority of the coordinators lost their stores, and nobody has a configuration: choose \
         with `plinth recover`"
    )]
    NothingToRefound,
    /// The newest configuration can't be shown to be the newest.
    #[error(
        "only {valid} of {members} storages of the configuration's team at {stamp} have one that can \
         be read, and a majority is needed to know that none is newer: bring them back, or choose \
         with `plinth recover`"
    )]
    ConfigTeamLost {
        /// The newest configuration heard of.
        stamp: Stamp,
        /// How many of its team have a valid one.
        valid: usize,
        /// How many the team has.
        members: usize,
    },
    /// The cluster's workers are there, but nobody has a configuration that can be read.
    #[error(
        "there are {workers} durable workers, but no configuration can be read anywhere: what they \
         have still tells the layout, but not the parameters; see what there is with \
         `plinth recover --dry-run`, and choose with `plinth recover`"
    )]
    NothingReadable {
        /// How many.
        workers: usize,
    },
    /// Durable workers are there, but nothing says what they were.
    #[error(
        "there are durable workers, such as {0}, but none keeps a configuration or has served an \
         epoch: remove their directories, or choose with `plinth recover`"
    )]
    UnrecordedWorkers(ServiceRef),
    /// A node has belonged to a cluster.
    #[error(
        "{node} has belonged to cluster {cluster_id}, so this is no new cluster, but nobody has a \
         configuration: bring the coordinators or storages back, or choose with `plinth recover`"
    )]
    NodeInUse {
        /// The node.
        node: NodeId,
        /// The cluster id in its foreman's directory.
        cluster_id: ClusterId,
    },
    /// A node belongs to another cluster.
    #[error("{node} belongs to cluster {theirs}, and this one is {ours}: use another node")]
    ForeignNode {
        /// The node.
        node: NodeId,
        /// Its cluster.
        theirs: ClusterId,
        /// This cluster.
        ours: ClusterId,
    },
}

impl Outcome {
    /// How the coordinator started, as its status shows it; none while it has not.
    #[must_use]
    pub fn status(&self) -> Option<BootstrapStatus> {
        let none = Stamp::default();
        let (source, keeper, stamp) = match &self.decision {
            Decision::GoOn { stamp, .. } => (BootstrapSource::Raft, None, *stamp),
            Decision::GoOnFounding { .. } => (BootstrapSource::Raft, None, none),
            Decision::AdoptHigher { recorded, from, .. } => {
                (BootstrapSource::Raft, Some(from), recorded.stamp())
            }
            Decision::Rejoin { stamp, .. } => (BootstrapSource::Peers, None, *stamp),
            Decision::Refound { recorded, from, .. } => {
                (BootstrapSource::Storage, from.as_ref(), recorded.stamp())
            }
            Decision::ColdStart { .. } => (BootstrapSource::Default, None, none),
            Decision::RebuildFromManifests { recorded, from, .. } => {
                (BootstrapSource::Manifests, from.as_ref(), recorded.stamp())
            }
            Decision::Wait { .. } | Decision::Unready { .. } => return None,
        };
        Some(BootstrapStatus {
            source,
            storage: keeper.map(|keeper| keeper.service.clone()),
            epoch: stamp.epoch,
            config_version: stamp.config_version,
            rejected: self.rejected.clone(),
        })
    }
}
