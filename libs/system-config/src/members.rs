//! The members of the coordinators' group: what the configuration says of them, whether one may join or
//! leave, and what the configuration is meanwhile. Pure.
//!
//! The configuration goes ahead of Raft. Before Raft may take up another membership, the configuration
//! names both, and it does so until Raft has taken it up. So whoever finds the configuration alone finds
//! the members that Raft has, whatever was under way; which of the two, it need not know.

use std::collections::{BTreeMap, BTreeSet};

use plinth_types::{NodeId, ServiceKind, ServiceRef, Zone};

use crate::{
    Coordinator, Invalid, MEMBERS_LEVEL, NodeEntry, Recorded, Standing, SystemConfig, encode_stored,
};

/// The most members. Each further one makes every change slower, and none was ever of use.
const MOST_MEMBERS: usize = 9;

/// What is to be done about an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembersStep {
    /// Nothing: it is so already.
    Done,
    /// The configuration is to name these as the next members.
    Begin(Vec<Coordinator>),
    /// It is being done: it is only to be waited for.
    UnderWay,
    /// The configuration is to name the members of before alone again.
    TakeBack,
}

/// Why a coordinator can't join or leave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// It is no coordinator.
    #[error("{0} is no coordinator: its name must be coordinator-<number>@<node>")]
    WrongKind(ServiceRef),
    /// The cluster does not know it.
    #[error("no coordinator {0} is known: it is no member, and its node is not among the nodes")]
    Unknown(ServiceRef),
    /// It is a member, and elsewhere.
    #[error(
        "{service} is a member already, and answers at {address}: where it answers it says itself when it is started"
    )]
    Elsewhere {
        /// The coordinator.
        service: ServiceRef,
        /// Its address.
        address: String,
    },
    /// Another one answers there.
    #[error("{service} answers at {address}, where this one is to be")]
    SharedAddress {
        /// The other one.
        service: ServiceRef,
        /// The address.
        address: String,
    },
    /// Its node was removed.
    #[error("{0} is on a node that was removed; DELETE /v1/nodes/{node}/drain takes it back", node = .0.node)]
    RemovedNode(ServiceRef),
    /// Nobody would be left.
    #[error("{0} is the last coordinator: without one there is no cluster. Add another one first")]
    Last(ServiceRef),
    /// There are enough.
    #[error("there are {members} coordinators: more than {MOST_MEMBERS} are not taken")]
    TooMany {
        /// How many there are.
        members: usize,
    },
    /// Another change is being made.
    #[error("another change is under way, from {from} to {to}: one is made at a time")]
    UnderWay {
        /// The members of before.
        from: String,
        /// The members after it.
        to: String,
    },
    /// Raft has begun to change.
    #[error(
        "{0} can't be kept out any more: the change has gone too far. Remove it once it is a member"
    )]
    TooFar(ServiceRef),
    /// The members after the change could not go on.
    #[error(
        "{answering} of the {members} coordinators that there would be answer, and {needed} are needed: {silent} not"
    )]
    NoMajority {
        /// How many answer.
        answering: usize,
        /// How many there would be.
        members: usize,
        /// How many must answer.
        needed: usize,
        /// Who does not.
        silent: String,
    },
    /// Releases of before could not read it.
    #[error(
        "the cluster is at format level {level}, which can't say it: a change of the coordinators' membership needs level {MEMBERS_LEVEL}"
    )]
    Level {
        /// The cluster's level.
        level: u32,
    },
    /// The configuration would make no sense.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It could not be written.
    #[error("the configuration could not be written: {0}")]
    Unwritable(String),
}

/// The names of coordinators, in their order.
#[must_use]
pub fn names_of(members: &[Coordinator]) -> BTreeSet<ServiceRef> {
    members.iter().map(|member| member.service.clone()).collect()
}

fn list(members: &BTreeSet<ServiceRef>) -> String {
    let names: Vec<String> = members.iter().map(ToString::to_string).collect();
    names.join(", ")
}

impl Coordinator {
    /// What a level can say of it.
    #[must_use]
    pub fn at_level(self, level: u32) -> Coordinator {
        let address = self.address.filter(|_| level >= MEMBERS_LEVEL);
        Coordinator { address, ..self }
    }
}

impl<S> SystemConfig<S> {
    /// Every coordinator that it names. During a change of the membership one that stays comes twice.
    pub fn every_coordinator(&self) -> impl Iterator<Item = &Coordinator> {
        self.coordinators.iter().chain(&self.next_coordinators)
    }

    /// The memberships that Raft may have: one, or two during a change, the next one last.
    #[must_use]
    pub fn memberships(&self) -> Vec<BTreeSet<ServiceRef>> {
        let sets = [&self.coordinators, &self.next_coordinators];
        sets.into_iter().filter(|set| !set.is_empty()).map(|set| names_of(set)).collect()
    }

    /// Where coordinators answer, each once. Where the next members say another address than those of
    /// before, theirs is the newer one.
    #[must_use]
    pub fn coordinator_addresses(&self) -> BTreeMap<ServiceRef, String> {
        self.every_coordinator()
            .filter_map(|member| Some((member.service.clone(), member.address.clone()?)))
            .collect()
    }

    fn under_way(&self) -> MembersError {
        let (from, to) = (names_of(&self.coordinators), names_of(&self.next_coordinators));
        MembersError::UnderWay { from: list(&from), to: list(&to) }
    }
}

impl Recorded {
    /// What is to be done for `newcomer` to be a member.
    ///
    /// # Errors
    /// Why it can't be one.
    pub fn joining(&self, newcomer: &Coordinator) -> Result<MembersStep, MembersError> {
        let config = &self.config;
        let service = &newcomer.service;
        self.check_order(service)?;
        let is_it = |member: &&Coordinator| member.service == *service;
        let (now, next) = (&config.coordinators, &config.next_coordinators);
        let member = now.iter().find(is_it);
        if let Some(member) = member
            && (next.is_empty() || next.iter().any(|next| next.service == *service))
        {
            return match (&member.address, &newcomer.address) {
                (Some(known), Some(asked)) if known != asked => Err(MembersError::Elsewhere {
                    service: service.clone(),
                    address: known.clone(),
                }),
                _ => Ok(MembersStep::Done),
            };
        }
        if let Some(other) = config.every_coordinator().find(|other| {
            other.service != *service
                && other.address.is_some()
                && other.address == newcomer.address
        }) {
            let (service, address) = (other.service.clone(), newcomer.address.clone());
            return Err(MembersError::SharedAddress {
                service,
                address: address.unwrap_or_default(),
            });
        }
        if config.standing(&service.node) == Standing::Removed {
            return Err(MembersError::RemovedNode(service.clone()));
        }
        if next.is_empty() {
            if now.len() >= MOST_MEMBERS {
                return Err(MembersError::TooMany { members: now.len() });
            }
            let mut after = now.clone();
            after.push(newcomer.clone());
            after.sort_by(|a, b| a.service.cmp(&b.service));
            return Ok(MembersStep::Begin(after));
        }
        if member.is_none() && next.iter().any(|next| next.service == *service) {
            return Ok(MembersStep::UnderWay);
        }
        Err(config.under_way())
    }

    /// What is to be done for a coordinator to be no member. `has_moved` tells whether Raft may have begun
    /// to take up the next members.
    ///
    /// # Errors
    /// Why it must stay.
    pub fn leaving(
        &self,
        service: &ServiceRef,
        has_moved: bool,
    ) -> Result<MembersStep, MembersError> {
        let config = &self.config;
        self.check_order(service)?;
        let names = |members: &[Coordinator]| members.iter().any(|one| one.service == *service);
        let (now, next) = (&config.coordinators, &config.next_coordinators);
        match (names(now), names(next)) {
            (false, false) if config.nodes.contains_key(&service.node) => Ok(MembersStep::Done),
            (false, false) => Err(MembersError::Unknown(service.clone())),
            (true, false) if next.is_empty() && now.len() == 1 => {
                Err(MembersError::Last(service.clone()))
            }
            (true, false) if next.is_empty() => {
                let after = now.iter().filter(|member| member.service != *service);
                Ok(MembersStep::Begin(after.cloned().collect()))
            }
            (true, false) => Ok(MembersStep::UnderWay),
            (false, true) if has_moved => Err(MembersError::TooFar(service.clone())),
            (false, true) => Ok(MembersStep::TakeBack),
            (true, true) => Err(config.under_way()),
        }
    }

    fn check_order(&self, service: &ServiceRef) -> Result<(), MembersError> {
        let level = self.config.format_level;
        if service.kind() != ServiceKind::Coordinator {
            return Err(MembersError::WrongKind(service.clone()));
        }
        if level < MEMBERS_LEVEL {
            return Err(MembersError::Level { level });
        }
        Ok(())
    }

    /// The next configuration, which differs in its coordinators, and in the nodes that they are on where
    /// it did not know those: `seen` is what is known of nodes that report.
    ///
    /// # Errors
    /// It would make no sense, or could not be written.
    pub fn with_members(
        &self,
        coordinators: Vec<Coordinator>,
        next_coordinators: Vec<Coordinator>,
        seen: &BTreeMap<NodeId, NodeEntry>,
    ) -> Result<Recorded, MembersError> {
        let mut next = self.clone();
        let config = &mut next.config;
        config.config_version = self.config.config_version.next();
        for member in coordinators.iter().chain(&next_coordinators) {
            let node = &member.service.node;
            let unseen = || NodeEntry::new(Zone::of_node(node), Vec::new());
            let entry = || seen.get(node).cloned().unwrap_or_else(unseen);
            config.nodes.entry(node.clone()).or_insert_with(entry);
        }
        config.coordinators = coordinators;
        config.next_coordinators = next_coordinators;
        next.validate_after(self)?;
        encode_stored(&next.config).map_err(|error| MembersError::Unwritable(error.to_string()))?;
        Ok(next)
    }
}

/// Whether members of whom these answer could agree on anything.
///
/// # Errors
/// They could not.
pub fn check_majority(
    members: &[Coordinator],
    answering: &BTreeSet<ServiceRef>,
) -> Result<(), MembersError> {
    let silent: BTreeSet<ServiceRef> = names_of(members).difference(answering).cloned().collect();
    let answering = members.len() - silent.len();
    let needed = members.len() / 2 + 1;
    if answering >= needed {
        return Ok(());
    }
    let verb = if silent.len() == 1 { "does" } else { "do" };
    let silent = format!("{} {verb}", list(&silent));
    Err(MembersError::NoMajority { answering, members: members.len(), needed, silent })
}
