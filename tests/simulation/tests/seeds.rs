//! A fixed set of seeds: nothing is broken, enough happens in them, and a seed is one history.

use std::path::Path;

use plinth_test_simulation::campaign::{Campaign, Outcome, Summary};

/// Seeds from 1 on.
const SEEDS: u64 = 20;
/// Those in which coordinators join and leave, which have more nodes and take longer.
const MEMBERS_SEEDS: u64 = 8;

/// The first of those that are about what is rare: one in sixteen.
const RARE: u64 = 9;
/// How many of them.
const RARE_SEEDS: usize = 16;

fn campaign() -> Campaign {
    Campaign::new(Path::new(env!("CARGO_BIN_EXE_simulate")))
}

/// Runs seeds, none of which may break anything.
fn all_well(campaign: &Campaign, seeds: impl Iterator<Item = u64> + Send) -> Vec<Outcome> {
    let (mut outcomes, mut accounts) = (Vec::new(), String::new());
    let note = |outcome: Outcome| {
        if !outcome.is_well() {
            accounts.push_str(&campaign.account(&outcome));
        }
        outcomes.push(outcome);
        true
    };
    let ran = campaign.run_all(seeds, note);
    assert!(ran.is_ok(), "{ran:?}");
    assert!(accounts.is_empty(), "{accounts}");
    outcomes
}

fn summary(outcomes: &[Outcome]) -> Summary {
    let mut summary = Summary::default();
    outcomes.iter().for_each(|outcome| summary.add(outcome));
    summary
}

/// How often a mark was passed in all.
fn passed(outcomes: &[Outcome], mark: &str) -> u64 {
    let of = |outcome: &Outcome| match outcome {
        Outcome::Ran(report) => report.marks.get(mark).copied().unwrap_or(0),
        Outcome::Failed { .. } => 0,
    };
    outcomes.iter().map(of).sum()
}

#[test]
fn no_seed_breaks_anything_and_enough_happens() {
    let summary = summary(&all_well(&campaign(), 1..=SEEDS));
    assert!(summary.is_well(), "{}", summary.text());
}

/// A node is lost for good, with its data; services are killed and slowed down while another storage
/// takes a copy: the newcomer, its source, the director. In the end there are as many replicas as
/// before, all alike, with everything that was acknowledged.
#[test]
fn a_node_that_is_lost_for_good_is_replaced_whatever_fails_meanwhile() {
    all_well(&campaign().losing_a_node(), 1..=SEEDS);
}

/// Parameters are changed all the while, by the director or past it. What the cluster tells of them in
/// the end, and at any time, is what was acknowledged last.
#[test]
fn changed_parameters_are_what_was_acknowledged_last_whatever_fails_meanwhile() {
    all_well(&campaign().changing_parameters(), 201..201 + SEEDS);
}

/// Nodes are drained, used again and removed all the while. Nothing is lost by it, what was acknowledged
/// is in force, and a removed node has nothing.
#[test]
fn nodes_come_and_go_by_orders_whatever_fails_meanwhile() {
    let outcomes = all_well(&campaign().draining_nodes(), 301..301 + SEEDS);
    assert!(passed(&outcomes, "director.teams.complete") > 0, "no copy has moved");
}

/// Coordinators join and leave all the while. Nothing is lost by it, and what was acknowledged is in force.
#[test]
fn coordinators_join_and_leave_by_orders_whatever_fails_meanwhile() {
    let outcomes = all_well(&campaign().changing_members(), 401..401 + MEMBERS_SEEDS);
    let [joined, left] = ["members.joined", "members.left"].map(|mark| passed(&outcomes, mark));
    let enough = 2 * MEMBERS_SEEDS;
    assert!(joined >= enough && left >= enough, "{joined} joined and {left} left");
}

/// Directors are stopped in the middle of recoveries; the disks of a log, of a storage and of all coordinators
/// go back to what they had before. Whoever has lost something by it is found out and replaced.
#[test]
fn disks_that_go_back_are_found_out() {
    let outcomes = all_well(&campaign(), (RARE..).step_by(16).take(RARE_SEEDS));
    let summary = summary(&outcomes);
    assert!(summary.is_well(), "{}", summary.text());
    for mark in ["coordinator.adopted_stored_config", "director.log_damaged", "director.teams.drop"]
    {
        assert!(passed(&outcomes, mark) > 0, "never {mark}: {}", summary.text());
    }
}

#[test]
fn a_seed_with_all_its_faults_is_one_history() {
    let campaign = campaign();
    let run = |seed| match campaign.run(seed).expect("a process") {
        Outcome::Ran(report) => report,
        failed @ Outcome::Failed { .. } => panic!("{}", campaign.account(&failed)),
    };
    for seed in [101, 102, 103] {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(101).hash, run(102).hash);
}

#[test]
fn messages_that_overtake_others_make_another_history() {
    // Its network takes up to 20 ms for a message, so that many are on their way.
    let hash = |campaign: Campaign| match campaign.run(103).expect("a process") {
        Outcome::Ran(report) => report.hash,
        failed @ Outcome::Failed { .. } => panic!("{}", campaign.account(&failed)),
    };
    let as_it_was = hash(campaign());
    for ms in [1_000, 6_000] {
        assert_ne!(hash(campaign().overtaking(ms)), as_it_was, "from {ms} ms on");
    }
    assert_eq!(hash(campaign().overtaking(1_000_000)), as_it_was, "it never happens");
}
