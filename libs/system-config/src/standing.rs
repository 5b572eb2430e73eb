//! What the administrator has ordered about a node: whether it may be ordered, and what the
//! configuration is after it. Pure.
//!
//! A node is in use, is being drained, or was removed. It is removed only once nothing is on it, and
//! no configuration that names anything on it is valid after that. So whatever a removed node still
//! has, no layout names.

use std::collections::{BTreeMap, BTreeSet};

use plinth_types::{NodeId, ServiceKind, ServiceRef};
use serde::{Deserialize, Serialize};

use crate::change::unsatisfied;
use crate::{ChangeError, NodeEntry, Recorded, Supply, SystemConfig, encode_stored};

/// The fewest members of a config team that can do without one of them: a change is confirmed by a
/// majority of the team before it and after, and by nobody who leaves.
const LEAST_TEAM: usize = 3;

/// What the administrator has ordered about a node.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It may have any worker.
    #[default]
    InUse,
    /// It gets nothing new, and what it has moves to other nodes.
    Draining,
    /// Nothing is on it, and nothing will be.
    Removed,
}

impl Standing {
    /// Whether nothing is ordered. Left out of what is written then, so that a release that knows no
    /// orders reads the same.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        *self == Standing::InUse
    }

    /// The word for it, as it stands in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Standing::InUse => "in_use",
            Standing::Draining => "draining",
            Standing::Removed => "removed",
        }
    }
}

/// Why a node can't be ordered to stand so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StandingError {
    /// No such node.
    #[error("no node {0} is known: it is not in the configuration and does not report")]
    Unknown(NodeId),
    /// It was removed.
    #[error("{0} was removed; DELETE /v1/nodes/{0}/drain takes it back")]
    Removed(NodeId),
    /// It must be drained first.
    #[error("{0} is in use: have it drained first, with POST /v1/nodes/{0}/drain")]
    InUse(NodeId),
    /// It is not drained yet.
    #[error("{node} is not drained: {} still there", list(.services))]
    Remaining {
        /// The node.
        node: NodeId,
        /// What is on it; never empty.
        services: Vec<ServiceRef>,
    },
    /// The other nodes could not run what is asked for.
    #[error("the cluster can't do without {node}: {}", sentences(.problems))]
    Needed {
        /// The node.
        node: NodeId,
        /// What would be lacking; never empty.
        problems: Vec<ChangeError>,
    },
    /// No other node runs one.
    #[error(
        "the cluster can't do without {node}: no other node in use reports that can run a {kind}"
    )]
    NoOther {
        /// The node.
        node: NodeId,
        /// What would be lacking.
        kind: ServiceKind,
    },
    /// The config team can't change its members.
    #[error(
        "{service} is one of {members} storages that hold the configuration, and fewer than 3 can't do \
         without one: raise config_team to 3 first"
    )]
    SmallTeam {
        /// The storage.
        service: ServiceRef,
        /// How many members the team has.
        members: usize,
    },
    /// Releases of before could not read it.
    #[error("the order could not be written at format level {level}: {reason}")]
    Unwritable {
        /// The cluster's level.
        level: u32,
        /// What stands in the way.
        reason: String,
    },
}

fn list(services: &[ServiceRef]) -> String {
    let names: Vec<String> = services.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [one] => format!("{one} is"),
        several => format!("{} are", several.join(", ")),
    }
}

fn sentences(problems: &[ChangeError]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl NodeEntry {
    /// Notes a node as it reports. What was ordered about it stays.
    pub fn note(nodes: &mut BTreeMap<NodeId, NodeEntry>, node: &NodeId, seen: NodeEntry) {
        let standing = nodes.get(node).map(|known| known.standing).unwrap_or_default();
        nodes.insert(node.clone(), NodeEntry { standing, ..seen });
    }
}

impl<S> SystemConfig<S> {
    /// What was ordered about a node. One that is not known is in use.
    #[must_use]
    pub fn standing(&self, node: &NodeId) -> Standing {
        self.nodes.get(node).map(|entry| entry.standing).unwrap_or_default()
    }
}

impl SystemConfig<ServiceRef> {
    /// What the configuration names on a node, each once: coordinators and services of the layout.
    #[must_use]
    pub fn remaining_on(&self, node: &NodeId) -> Vec<ServiceRef> {
        let coordinators = self.every_coordinator().map(|coordinator| &coordinator.service);
        let layout = self.layout.services().map(|(_, service)| service);
        let named: BTreeSet<&ServiceRef> =
            coordinators.chain(layout).filter(|service| service.node == *node).collect();
        named.into_iter().cloned().collect()
    }

    /// What the nodes can run that nothing is ordered about.
    pub(crate) fn usable(&self, supply: &Supply) -> Supply {
        let nodes = supply.0.iter().filter(|one| self.standing(&one.node).is_in_use());
        Supply(nodes.cloned().collect())
    }
}

impl Recorded {
    /// The configuration in which a node stands as is ordered; none where it does already. `seen` is
    /// the node as it reports, if it does; `supply` what the nodes that report can run.
    ///
    /// # Errors
    /// Why it must not be.
    pub fn ordered(
        &self,
        node: &NodeId,
        standing: Standing,
        seen: Option<NodeEntry>,
        supply: &Supply,
    ) -> Result<Option<Recorded>, StandingError> {
        let known = self.config.nodes.get(node).cloned().or(seen);
        let entry = known.ok_or_else(|| StandingError::Unknown(node.clone()))?;
        match (entry.standing, standing) {
            (now, asked) if now == asked => return Ok(None),
            (Standing::Removed, Standing::Draining) => {
                return Err(StandingError::Removed(node.clone()));
            }
            (Standing::InUse, Standing::Removed) => {
                return Err(StandingError::InUse(node.clone()));
            }
            (_, Standing::Removed) => self.check_drained(node)?,
            (_, Standing::Draining) => self.check_spare(node, supply)?,
            (_, Standing::InUse) => {}
        }
        let next = self.with_node(node, NodeEntry { standing, ..entry });
        encode_stored(&next.config).map_err(|error| StandingError::Unwritable {
            level: next.config.format_level,
            reason: error.to_string(),
        })?;
        Ok(Some(next))
    }

    /// The next configuration, which differs in one node alone.
    #[must_use]
    pub fn with_node(&self, node: &NodeId, entry: NodeEntry) -> Recorded {
        let mut next = self.clone();
        next.config.config_version = self.config.config_version.next();
        next.config.nodes.insert(node.clone(), entry);
        next
    }

    fn check_drained(&self, node: &NodeId) -> Result<(), StandingError> {
        let services = self.config.remaining_on(node);
        if services.is_empty() {
            return Ok(());
        }
        Err(StandingError::Remaining { node: node.clone(), services })
    }

    /// Whether the other nodes in use can run everything that is asked for.
    fn check_spare(&self, node: &NodeId, supply: &Supply) -> Result<(), StandingError> {
        let mut others = self.config.usable(supply);
        others.0.retain(|one| one.node != *node);
        for kind in [ServiceKind::Sequencer, ServiceKind::Director] {
            if others.nodes(kind) == 0 {
                return Err(StandingError::NoOther { node: node.clone(), kind });
            }
        }
        let parameters = self.config.parameters.all();
        let problems: Vec<ChangeError> =
            parameters.iter().filter_map(|parameter| unsatisfied(parameter, &others)).collect();
        if !problems.is_empty() {
            return Err(StandingError::Needed { node: node.clone(), problems });
        }
        let team = self.config.layout.config_team();
        match team.iter().find(|member| member.service.node == *node) {
            Some(member) if team.len() < LEAST_TEAM => Err(StandingError::SmallTeam {
                service: member.service.clone(),
                members: team.len(),
            }),
            _ => Ok(()),
        }
    }
}
