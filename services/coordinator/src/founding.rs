//! How the coordinators' group is founded: a ballot that fixes its members and its random id.
//!
//! Three steps, each durable before it is answered. An acceptor **promises** a ballot and from then
//! on takes part in no lower one; it **accepts** the ballot's founding; and once all who must have
//! accepted, it takes the founding up as its **group**. One that belongs to a group promises
//! nothing, unless the group is lost and it is asked to renounce it.
//!
//! Who must: at a cold start every coordinator of the cluster file; at a re-founding a majority of
//! those that the configuration names. Where it names two memberships, because one was being changed
//! into the other, a majority of each: one of the two is the one without which nothing could have been
//! agreed upon. The group's members are the next ones then.
//!
//! What keeps two foundings from both coming to life is plain: each names *all* coordinators
//! concerned as members, so that it takes a majority of them to elect a leader, and each of them
//! belongs to one group at a time, under the identity that the founding names. One that did not
//! take part is a member under an identity that nobody has, until it joins in its place. The
//! promises are for the rest: that none of them takes up a founding that was given up, and that
//! proposers converge on one that was accepted before.

use std::collections::BTreeMap;

use plinth_api::coordinator::{Founding, FoundingMember, Promise};
use plinth_types::{GroupId, ServiceRef};
use serde::{Deserialize, Serialize};

/// A coordinator's part in the ballots. What it says must be durable before it is said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Acceptor {
    /// The highest ballot promised.
    pub(crate) promised: u64,
    /// What was accepted, and in which ballot.
    pub(crate) accepted: Option<(u64, Founding)>,
    /// The group it belongs to.
    pub(crate) group: Option<GroupId>,
    /// Whether the group is lost, and it will never act in it again.
    pub(crate) renounced: bool,
}

impl Acceptor {
    /// The group that it acts in.
    #[must_use]
    pub(crate) fn active_group(&self) -> Option<GroupId> {
        self.group.filter(|_| !self.renounced)
    }

    /// Promises a ballot above all before it, if it belongs to no group that still counts.
    pub(crate) fn promise(&mut self, ballot: u64, renounce: &[GroupId], raft_id: u64) -> Promise {
        self.renounced |= self.group.is_some_and(|group| renounce.contains(&group));
        let is_void = |founding: &Founding| renounce.contains(&founding.group);
        if self.accepted.as_ref().is_some_and(|(_, founding)| is_void(founding)) {
            self.accepted = None;
        }
        // Equal ballots of two proposers must not both be granted.
        let granted = ballot > self.promised && self.active_group().is_none();
        if granted {
            self.promised = ballot;
        }
        Promise {
            promised: self.promised,
            granted,
            accepted: self.accepted.clone(),
            group: self.active_group(),
            raft_id,
        }
    }

    /// Accepts a founding, unless a higher ballot was promised.
    pub(crate) fn accept(&mut self, ballot: u64, founding: Founding) -> bool {
        if ballot < self.promised || self.active_group().is_some() {
            return false;
        }
        self.promised = ballot;
        self.accepted = Some((ballot, founding));
        true
    }

    /// Takes up a founding that all who must have accepted, unless a higher ballot was promised.
    pub(crate) fn choose(&mut self, ballot: u64, founding: &Founding) -> bool {
        if let Some(group) = self.active_group() {
            return group == founding.group;
        }
        if ballot < self.promised {
            return false;
        }
        self.promised = ballot;
        self.accepted = None;
        self.group = Some(founding.group);
        self.renounced = false;
        true
    }

    /// Belongs to a group without a ballot: joined through a change of its membership, or shown to
    /// be the founding that was accepted here.
    pub(crate) fn join(&mut self, group: GroupId) {
        self.accepted = None;
        self.group = Some(group);
        self.renounced = false;
    }
}

/// Who must take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quorum {
    /// Everyone: a cold start.
    All,
    /// A majority: a re-founding.
    Majority,
}

/// What a proposer wants to found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// The members of the group, and where each answers.
    pub(crate) members: BTreeMap<ServiceRef, String>,
    /// The members of before, where the membership was being changed, and where each answers. They take
    /// part as well.
    pub(crate) former: BTreeMap<ServiceRef, String>,
    /// How many of each must take part.
    pub(crate) quorum: Quorum,
    /// Identities for those who don't take part: this one and the following. Random, and nobody's.
    pub(crate) unheard: u64,
    /// Groups that are lost for good.
    pub(crate) renounce: Vec<GroupId>,
    /// The founding. Its members are filled in from the promises.
    pub(crate) founding: Founding,
}

/// What the promises amount to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Ask everyone to accept this.
    Propose(Box<Founding>),
    /// A group is there already.
    Founded(GroupId),
    /// Too few; the next ballot must be above this one.
    TooFew {
        /// The highest ballot heard of.
        highest: u64,
    },
}

impl Plan {
    /// Whether those who take part are enough.
    #[must_use]
    pub(crate) fn is_enough(&self, takes_part: impl Fn(&ServiceRef) -> bool) -> bool {
        let memberships = [&self.members, &self.former].into_iter().filter(|all| !all.is_empty());
        memberships.into_iter().all(|all| {
            let count = all.keys().filter(|service| takes_part(service)).count();
            match self.quorum {
                Quorum::All => count == all.len(),
                Quorum::Majority => count > all.len() / 2,
            }
        })
    }

    /// Everybody who is to take part, and where each answers.
    #[must_use]
    pub(crate) fn concerned(&self) -> BTreeMap<ServiceRef, String> {
        let mut all = self.former.clone();
        all.extend(self.members.clone());
        all
    }

    /// What the promises amount to.
    #[must_use]
    pub(crate) fn weigh(&self, promises: &BTreeMap<ServiceRef, Promise>) -> Verdict {
        let concerned = self.concerned();
        let promises = || promises.iter().filter(|(who, _)| concerned.contains_key(*who));
        if let Some(group) = promises().find_map(|(_, promise)| promise.group) {
            return Verdict::Founded(group);
        }
        let granted: BTreeMap<&ServiceRef, &Promise> =
            promises().filter(|(_, promise)| promise.granted).collect();
        if !self.is_enough(|service| granted.contains_key(service)) {
            let highest = promises().map(|(_, promise)| promise.promised).max().unwrap_or(0);
            return Verdict::TooFew { highest };
        }
        let members = self
            .members
            .iter()
            .zip(0..)
            .map(|((service, address), position)| FoundingMember {
                raft_id: granted
                    .get(service)
                    .map_or(self.unheard.wrapping_add(position), |promise| promise.raft_id),
                service: service.clone(),
                address: address.clone(),
            })
            .collect();
        let accepted = granted
            .values()
            .filter_map(|promise| promise.accepted.as_ref())
            .filter(|(_, founding)| {
                let members = granted.iter().filter(|(who, _)| self.members.contains_key(**who));
                is_still_possible(founding, members.map(|(who, promise)| (*who, *promise)))
            })
            .max_by_key(|(ballot, _)| *ballot);
        Verdict::Propose(Box::new(match accepted {
            Some((_, founding)) => founding.clone(),
            None => Founding { members, ..self.founding.clone() },
        }))
    }
}

/// Whether a founding names a coordinator as a member, under this identity.
#[must_use]
pub(crate) fn names(founding: &Founding, service: &ServiceRef, raft_id: u64) -> bool {
    founding.members.iter().any(|member| member.service == *service && member.raft_id == raft_id)
}

/// Whether every member that has promised is still who the founding says; one that has lost its
/// store is another one now. One that takes part and is to be no member says nothing about it.
fn is_still_possible<'a>(
    founding: &Founding,
    granted: impl IntoIterator<Item = (&'a ServiceRef, &'a Promise)>,
) -> bool {
    granted.into_iter().all(|(who, promise)| names(founding, who, promise.raft_id))
}

/// A ballot above `heard`, with `random` telling proposers apart.
#[must_use]
pub(crate) fn next_ballot(heard: u64, random: u64) -> u64 {
    (((heard >> 32) + 1) << 32) | (random & 0xffff_ffff)
}

#[cfg(test)]
mod tests;
