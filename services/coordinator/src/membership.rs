//! What is due in a change of the group's membership: a pure function of what the coordinators agree on and
//! of Raft's membership. Nothing else remembers how far a change has come, so whoever leads goes on with it.
//!
//! | configuration | Raft | due |
//! |---|---|---|
//! | one membership | that one | nothing; learners are taken out |
//! | both, not proved | the old one | the director proves it, or the next epoch |
//! | both, proved | the old one | the newcomer has the log: [`Command::Move`] |
//! | both, and moving | the old one | Raft's joint phase |
//! | both | both | the end of the joint phase |
//! | both | the new one | the director records the new one alone |
//!
//! [`Command::Move`]: crate::state::Command::Move

use std::collections::BTreeSet;

use openraft::Membership;
use plinth_system_config::{Coordinator, MEMBERS_LEVEL, Recorded, names_of};
use plinth_types::{ConfigVersion, ServiceRef};

use crate::raft::{self, Member};
use crate::state::ClusterState;

/// A voter or learner of Raft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Its identity.
    pub(crate) raft_id: u64,
    /// Which service.
    pub(crate) service: ServiceRef,
    /// `host:port`.
    pub(crate) address: String,
}

/// Raft's membership, as it is in effect at the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seats {
    /// The voters of each membership, the next one last: two in the joint phase.
    pub(crate) voters: Vec<Vec<Seat>>,
    /// Those who hear everything and vote for nothing.
    pub(crate) learners: Vec<Seat>,
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Rest,
    /// Nothing that is known yet.
    Wait,
    /// The end of the joint phase, with these voters.
    Finish(BTreeSet<u64>),
    /// The word that Raft takes these members up, once their newcomers have the log.
    Move {
        /// Their names.
        to: BTreeSet<ServiceRef>,
        /// Those of them that don't vote yet.
        newcomers: BTreeSet<u64>,
    },
    /// Raft takes these voters up.
    Vote(BTreeSet<u64>),
    /// The director records the members that Raft has.
    Record {
        /// The number of the configuration that names others.
        expected: ConfigVersion,
        /// The members.
        members: Vec<Coordinator>,
    },
    /// These learners are taken out.
    Forget(BTreeSet<u64>),
}

impl Seat {
    fn new((raft_id, member): (u64, Member)) -> Option<Seat> {
        Some(Seat { raft_id, service: member.service?, address: member.address })
    }

    /// As the configuration names it.
    pub(crate) fn coordinator(&self) -> Coordinator {
        Coordinator {
            service: self.service.clone(),
            raft_id: self.raft_id,
            address: Some(self.address.clone()),
        }
    }
}

impl Seats {
    /// Raft's membership.
    #[must_use]
    pub(crate) fn of(membership: &Membership<u64, Member>) -> Seats {
        let seats = |members: Vec<(u64, Member)>| {
            let mut seats: Vec<Seat> = members.into_iter().filter_map(Seat::new).collect();
            seats.sort_by(|a, b| a.service.cmp(&b.service));
            seats
        };
        let learner = |id: u64| Some((id, membership.get_node(&id)?.clone()));
        Seats {
            voters: raft::voters(membership).into_iter().map(seats).collect(),
            learners: seats(membership.learner_ids().filter_map(learner).collect()),
        }
    }

    /// Everybody who votes, each service once: as the next membership has it, where two have it.
    #[must_use]
    pub(crate) fn everybody(&self) -> Vec<Seat> {
        let mut everybody: Vec<Seat> = Vec::new();
        for seat in self.voters.iter().rev().flatten() {
            if !everybody.iter().any(|known| known.service == seat.service) {
                everybody.push(seat.clone());
            }
        }
        everybody.sort_by(|a, b| a.service.cmp(&b.service));
        everybody
    }

    /// The members, where there is one membership: none in the joint phase.
    #[must_use]
    pub(crate) fn only(&self) -> Option<&[Seat]> {
        match self.voters.as_slice() {
            [only] if !only.is_empty() => Some(only),
            _ => None,
        }
    }

    /// The members that a configuration must name that is recorded now, and the next ones.
    #[must_use]
    pub(crate) fn to_name(&self, state: &ClusterState) -> (Vec<Coordinator>, Vec<Coordinator>) {
        if let Some(Recorded { config, .. }) = &state.recorded
            && !config.next_coordinators.is_empty()
            && Some(config.group_id) == state.group
        {
            let named = config.memberships();
            if self.voters.iter().all(|voters| named.contains(&names(voters))) {
                return (config.coordinators.clone(), config.next_coordinators.clone());
            }
        }
        (self.everybody().iter().map(Seat::coordinator).collect(), Vec::new())
    }
}

/// The names of seats.
pub(crate) fn names(seats: &[Seat]) -> BTreeSet<ServiceRef> {
    seats.iter().map(|seat| seat.service.clone()).collect()
}

/// Whether the recorded configuration is in storage: its epoch is ready, and it was proved.
#[must_use]
pub(crate) fn is_proved(state: &ClusterState) -> bool {
    state.ready_director().is_some() && state.ready == state.recorded
}

/// Whether Raft may have begun to take up the next members.
#[must_use]
pub(crate) fn has_moved(state: &ClusterState, seats: &Seats) -> bool {
    let before = state
        .recorded
        .as_ref()
        .and_then(|recorded| recorded.config.memberships().into_iter().next());
    state.moving.is_some() || seats.only().map(names) != before
}

/// What is due now. `wanted` is a learner that is being prepared.
#[must_use]
pub(crate) fn next(state: &ClusterState, seats: &Seats, wanted: Option<u64>) -> Step {
    let ids = |seats: &[Seat]| seats.iter().map(|seat| seat.raft_id).collect();
    let Some(voters) = seats.only() else {
        return seats.voters.last().map_or(Step::Rest, |next| Step::Finish(ids(next)));
    };
    let Some(recorded) = state.recorded.as_ref() else { return Step::Rest };
    let config = &recorded.config;
    if config.format_level < MEMBERS_LEVEL || Some(config.group_id) != state.group {
        return forget(seats, wanted);
    }
    let now = names(voters);
    let record = || {
        if !is_proved(state) {
            return Step::Rest;
        }
        let members = voters.iter().map(Seat::coordinator).collect();
        Step::Record { expected: config.config_version, members }
    };
    if config.next_coordinators.is_empty() {
        let is_so = |(seat, known): (&Seat, &Coordinator)| seat.coordinator() == *known;
        let is_said = voters.iter().zip(&config.coordinators).all(is_so);
        if now == names_of(&config.coordinators) && !is_said && is_proved(state) {
            // One has another identity, or answers elsewhere.
            return record();
        }
        return forget(seats, wanted);
    }
    let next = names_of(&config.next_coordinators);
    if now == next {
        return record();
    }
    if now != names_of(&config.coordinators) {
        return Step::Rest;
    }
    // Whoever has lost its disk meanwhile has another identity than the configuration says. One that was a
    // member before may still be there under the identity that it had, and never answers to it again.
    let find = |member: &Coordinator| {
        let is_it = |seat: &&Seat| seat.service == member.service;
        let is_named = |seat: &&Seat| is_it(seat) && seat.raft_id == member.raft_id;
        let learners = || seats.learners.iter();
        let learner = || learners().find(is_named).or_else(|| learners().find(is_it));
        voters.iter().find(is_it).or_else(learner)
    };
    let found: Option<Vec<&Seat>> = config.next_coordinators.iter().map(find).collect();
    let Some(found) = found else { return Step::Rest };
    if state.moving.as_ref() == Some(&next) {
        return Step::Vote(found.iter().map(|seat| seat.raft_id).collect());
    }
    let is_ready = state.ready.as_ref().is_some_and(|ready| {
        ready.config.group_id == config.group_id
            && ready.config.memberships() == config.memberships()
    });
    if !is_ready {
        return Step::Rest;
    }
    let newcomers = found.iter().filter(|seat| !now.contains(&seat.service));
    let newcomers = newcomers.map(|seat| seat.raft_id).collect();
    Step::Move { to: next, newcomers }
}

/// Learners that nobody waits for.
fn forget(seats: &Seats, wanted: Option<u64>) -> Step {
    let left = seats.learners.iter().map(|seat| seat.raft_id);
    let left: BTreeSet<u64> = left.filter(|raft_id| Some(*raft_id) != wanted).collect();
    if left.is_empty() { Step::Rest } else { Step::Forget(left) }
}

#[cfg(test)]
mod tests;
