//! Foundings while the membership of the coordinators' group changes: the configuration names both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plinth_system_config::bootstrap::{
    Decision, Inputs, Known, Missing, Obstacle, RaftReport, RaftState, decide, recovery_option,
};
use plinth_system_config::{Coordinator, Recorded};
use plinth_types::{Epoch, ServiceRef};

use crate::bootstrap_table::{With as _, coordinator, silence, stamp, valid};
use crate::samples::{self, GROUP};

fn names(of: &[u32]) -> BTreeSet<ServiceRef> {
    of.iter().copied().map(coordinator).collect()
}

fn members(of: &[u32]) -> Vec<Coordinator> {
    let member = |on: &u32| Coordinator {
        service: coordinator(*on),
        raft_id: u64::from(*on),
        address: Some(format!("host-{on}:4400")),
    };
    of.iter().map(member).collect()
}

fn config(now: &[u32], next: &[u32]) -> Arc<Recorded> {
    let before = samples::recorded(5, 9);
    Arc::new(before.with_members(members(now), members(next), &BTreeMap::new()).unwrap())
}

/// A coordinator of a group with these members, which is changing to those.
fn running(now: &[u32], next: &[u32], recorded: &Arc<Recorded>) -> Known<RaftState> {
    Known::Has(RaftState::Running(RaftReport {
        group_id: GROUP,
        members: names(now),
        next_members: names(next),
        epoch: Epoch(5),
        recorded: Some(Arc::clone(recorded)),
    }))
}

/// Every storage has the configuration; of the coordinators, nobody has answered.
fn stored(me: u32, recorded: &Arc<Recorded>) -> Inputs {
    let inputs = Inputs { me: coordinator(me), ..silence(Known::None) };
    (1..=3).fold(inputs, |inputs, on| inputs.worker(on, valid(Arc::clone(recorded))))
}

fn wiped(mut inputs: Inputs, who: &[u32]) -> Inputs {
    for on in who {
        inputs = inputs.peer(*on, Known::None);
    }
    inputs
}

#[test]
fn with_every_disk_lost_the_new_members_found_and_those_of_before_promise() {
    let growing = config(&[1, 2, 3], &[1, 2, 3, 4]);
    let Decision::Refound { members, former, recorded, .. } =
        decide(&wiped(stored(1, &growing), &[2, 3, 4])).decision
    else {
        panic!("nobody has anything left")
    };
    assert_eq!((members, former), (names(&[1, 2, 3, 4]), names(&[1, 2, 3])));
    assert_eq!(recorded.stamp(), stamp(5, 10));

    let shrinking = config(&[1, 2, 3], &[2, 3]);
    let decision = decide(&wiped(stored(2, &shrinking), &[1, 3])).decision;
    assert!(
        matches!(&decision, Decision::Refound { members, former, .. }
            if *members == names(&[2, 3]) && *former == names(&[1, 2, 3])),
        "{decision:?}"
    );
    // Whoever leaves founds nothing.
    let decision = decide(&wiped(stored(1, &shrinking), &[2, 3])).decision;
    assert_eq!(decision, Decision::Wait { missing: vec![Missing::Founding] });
}

#[test]
fn the_group_is_lost_only_once_neither_membership_can_have_a_majority() {
    // Two of the four are wiped, and one of them is new: of the three of before, two may be there.
    let growing = config(&[1, 2, 3], &[1, 2, 3, 4]);
    let inputs = wiped(stored(1, &growing), &[4]);
    let missing = vec![Missing::Coordinator(coordinator(2)), Missing::Coordinator(coordinator(3))];
    assert_eq!(decide(&inputs).decision, Decision::Wait { missing });
    let inputs = wiped(stored(1, &growing), &[2, 4]);
    let decision = decide(&inputs).decision;
    assert!(matches!(decision, Decision::Refound { .. }), "both have lost theirs: {decision:?}");

    // Of the two that stay one is wiped: they are lost. Of the three of before, two may be there.
    let shrinking = config(&[1, 2, 3], &[2, 3]);
    let decision = decide(&stored(2, &shrinking)).decision;
    let missing = vec![Missing::Coordinator(coordinator(1)), Missing::Coordinator(coordinator(3))];
    assert_eq!(decision, Decision::Wait { missing });
}

#[test]
fn a_survivor_of_a_membership_that_can_still_have_a_majority_is_waited_for() {
    let growing = config(&[1, 2, 3], &[1, 2, 3, 4]);
    let survivor = || running(&[1, 2, 3], &[1, 2, 3, 4], &growing);
    // Raft was in between. One wiped coordinator is no loss to either.
    let alive = wiped(stored(1, &growing), &[]).peer(2, survivor()).peer(3, survivor());
    let decision = decide(&alive.clone().peer(4, survivor())).decision;
    assert!(
        matches!(&decision, Decision::Rejoin { members, .. } if *members == names(&[1, 2, 3, 4]))
    );
    // Three of the three and four can't come together any more: but two of the three can.
    let decision = decide(&alive.clone().peer(4, Known::None)).decision;
    assert!(matches!(decision, Decision::Wait { .. }), "{decision:?}");
    let lost = wiped(stored(1, &growing), &[2, 4]).peer(3, survivor());
    let decision = decide(&lost).decision;
    assert!(
        matches!(&decision, Decision::Refound { renounce, .. }
            if renounce.keys().eq([&coordinator(3)])),
        "{decision:?}"
    );
}

#[test]
fn a_group_that_never_heard_of_the_change_is_not_lost_by_it() {
    // The configuration names both; Raft has the three of before and two of them live.
    let growing = config(&[1, 2, 3], &[1, 2, 3, 4]);
    let member = || running(&[1, 2, 3], &[], &growing);
    let alive = wiped(stored(1, &growing), &[4]).peer(2, member()).peer(3, member());
    assert!(matches!(decide(&alive).decision, Decision::Rejoin { .. }));
    // A newcomer finds it alive as well, and asks to be let in.
    let newcomer = Inputs { me: coordinator(4), ..alive.peer(1, member()) };
    assert!(matches!(decide(&newcomer).decision, Decision::Rejoin { .. }));
}

#[test]
fn two_memberships_that_are_not_the_groups_are_for_the_operator() {
    let growing = config(&[1, 2, 3], &[1, 2, 3, 4]);
    // A lost group of others, and a configuration whose members are there, but not in it.
    let before = samples::recorded(5, 8);
    let other = before.with_members(members(&[5, 6, 7]), vec![], &BTreeMap::new()).unwrap();
    let other = Arc::new(other);
    let formatted = || Known::Has(RaftState::Formatted(GROUP));
    let inputs = stored(1, &growing)
        .peer(1, formatted())
        .peer(5, running(&[5, 6, 7], &[], &other))
        .peer(6, Known::None)
        .peer(7, Known::None)
        .peer(2, formatted())
        .peer(3, formatted())
        .peer(4, Known::None);
    let inputs = Inputs { own: formatted(), ..inputs };
    let obstacle = Obstacle::TwoMemberships { stamp: growing.stamp() };
    assert_eq!(decide(&inputs).decision, Decision::Unready { obstacle });
}

#[test]
fn an_operator_founds_with_the_new_members_and_has_those_of_before_promise() {
    let shrinking = config(&[1, 2, 3], &[2, 3]);
    let survivor = running(&[1, 2, 3], &[], &shrinking);
    let inputs = stored(2, &shrinking).peer(1, survivor);
    let option = recovery_option(&inputs).unwrap();
    assert_eq!((option.members, option.former), (names(&[2]), names(&[1])));
}

/// Every combination of what five coordinators have, with the configuration naming both memberships, or
/// only one: a founding begins only where no majority of either can be there.
#[test]
fn a_living_membership_is_never_replaced() {
    let cases: [(&[u32], &[u32]); 5] = [
        (&[1, 2, 3], &[1, 2, 3, 4]),
        (&[1, 2, 3, 4], &[1, 2, 4]),
        (&[1], &[1, 2]),
        (&[1, 2], &[2]),
        (&[1, 2, 3], &[]),
    ];
    let mut foundings = 0;
    for (now, next) in cases {
        let recorded = config(now, next);
        let all: Vec<u32> = names_in(now, next);
        // Raft has either, or is in between.
        let mut raft: Vec<(&[u32], &[u32])> = vec![(now, &[])];
        if !next.is_empty() {
            raft.extend([(now, next), (next, &[][..])]);
        }
        for (members, next_members) in raft {
            let states = [Known::Unknown, Known::None, running(members, next_members, &recorded)];
            for combination in 0..3_u32.pow(all.len() as u32) {
                let state = |index: usize| {
                    states[(combination / 3_u32.pow(index as u32) % 3) as usize].clone()
                };
                let me = *next.last().or(now.last()).unwrap();
                let mut inputs = stored(me, &recorded);
                for (index, on) in all.iter().enumerate() {
                    match *on == me {
                        true => inputs.own = state(index),
                        false => inputs = inputs.peer(*on, state(index)),
                    }
                }
                let may_live = |set: &[u32]| {
                    let wiped = |on: &&u32| {
                        state(all.iter().position(|one| one == *on).unwrap()) == Known::None
                    };
                    let lost = set.iter().filter(wiped).count();
                    !set.is_empty() && set.len() - lost > set.len() / 2
                };
                let decision = decide(&inputs).decision;
                if let Decision::Refound { members, former, .. } = &decision {
                    foundings += 1;
                    assert!(!may_live(now) && !may_live(next), "{inputs:#?}");
                    let (new, before) = if next.is_empty() { (now, next) } else { (next, now) };
                    assert_eq!((members, former), (&names(new), &names(before)));
                }
            }
        }
    }
    assert!(foundings > 10, "{foundings}");
}

fn names_in(now: &[u32], next: &[u32]) -> Vec<u32> {
    let all: BTreeSet<u32> = now.iter().chain(next).copied().collect();
    all.into_iter().collect()
}
