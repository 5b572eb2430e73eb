//! Negative controls: each deliberate fault is noticed within some seeds, and by what it should be
//! noticed by. A harness that misses one would miss the bug that it stands for.

#![expect(clippy::expect_used, reason = "a failed expectation fails the test")]

use std::collections::BTreeSet;
use std::path::Path;

use plinth_test_simulation::Violation;
use plinth_test_simulation::campaign::{Campaign, Outcome};

/// Runs seeds until one notices the fault by one of `by` (an invariant's or a check's name, or what it
/// begins with), `seeds` of them at most. `among` are the kinds of what befalls the cluster meanwhile.
fn is_noticed(control: &str, among: &[&str], seeds: u64, by: &[&str]) {
    is_noticed_in(campaign().with_faults(among), control, seeds, by);
}

fn campaign() -> Campaign {
    Campaign::new(Path::new(env!("CARGO_BIN_EXE_simulate")))
}

/// The same in a campaign of another kind.
fn is_noticed_in(campaign: Campaign, control: &str, seeds: u64, by: &[&str]) {
    let campaign = campaign.with_control(control);
    let (mut noticed, mut fired, mut others) = (false, 0, BTreeSet::new());
    let note = |outcome: Outcome| {
        if let Outcome::Ran(report) = outcome {
            fired += report.fired;
            for violation in report.violations {
                let name = violation.invariant;
                if by.iter().any(|by| name.starts_with(by)) {
                    noticed = true;
                } else {
                    others.insert(name);
                }
            }
        }
        !noticed
    };
    campaign.run_all(1..=seeds, note).expect("processes");
    assert!(fired > 0, "{control} never took place");
    assert!(
        noticed,
        "{control} took place {fired} times and was not noticed in {seeds} seeds by {by:?}; broken \
         were {others:?}"
    );
}

macro_rules! controls {
    ($($name:ident: $control:literal $(among $($among:literal),+)? within $seeds:literal by $by:expr;)*) => {
        $(#[test] fn $name() { is_noticed($control, &[$($($among),+)?], $seeds, &$by); })*
    };
}

/// An acknowledged commit is not there, or another one than was acknowledged.
const LOST: [&str; 10] = [
    "acknowledged is there",
    "acknowledged_is_kept",
    "registers",
    "increment",
    "sideband",
    "set",
    "bank",
    "cycle",
    "lists",
    "replay",
];
/// A transaction that has not read what it should have.
const UNSERIALIZABLE: [&str; 7] =
    ["lists", "replay", "bank", "cycle", "pairs", "registers", "each id once"];
/// A read is older than what was known when it began.
const STALE: [&str; 4] = ["sideband", "increment", "versions_follow_real_time", "real time"];

controls! {
    a_log_that_acknowledges_before_it_syncs:
        "log.ack_before_sync" among "power loss", "blackout" within 8
        by ["found by a service", "locks_never_go_back"];
    a_log_that_loses_an_entry: "log.lose_entry=10" within 16 by ["replicas_are_identical", "registers", "replay"];
    a_log_whose_locks_are_not_persisted: "log.lock_not_persisted" within 16 by ["locks_never_go_back"];
    a_locked_log_that_confirms_an_earlier_epoch:
        "log.confirm_stale" within 4 by ["locked_logs_confirm_nothing_earlier"];
    a_log_that_copies_nothing: "log.copy_nothing" within 16 by LOST;
    a_locked_log_that_takes_pushes: "log.locked_takes_pushes" among "kill" within 16 by LOST;
    a_proxy_that_skips_a_log:
        "commit_proxy.skip_log" among "kill" within 24 by ["replicas_are_identical"];
    a_proxy_that_answers_before_the_logs_have:
        "commit_proxy.answer_before_logged" within 8 by LOST;
    a_proxy_that_answers_before_the_sequencer_knows:
        "commit_proxy.answer_before_reported" within 4 by STALE;
    a_proxy_that_skips_the_confirmation:
        "commit_proxy.skip_confirmation" among "isolate" within 40
        by ["sideband", "increment", "versions_follow_real_time", "real time", "watches", "lists"];
    a_proxy_that_ignores_what_resolvers_say:
        "commit_proxy.ignore_verdicts" within 8 by UNSERIALIZABLE;
    a_proxy_whose_atomic_operations_conflict_with_nobody:
        "commit_proxy.atomics_do_not_conflict" within 8 by ["bank", "lists", "replay"];
    a_proxy_that_tells_a_conflict_where_nobody_knows:
        "commit_proxy.conflict_for_unknown" within 16
        by ["refused is not there", "replay", "lists: duplicate", "each id once", "registers"];
    a_resolver_that_ignores_reads: "resolver.ignore_reads=10" within 8 by UNSERIALIZABLE;
    a_resolver_that_judges_what_is_too_old: "resolver.judge_too_old" within 16 by UNSERIALIZABLE;
    a_sequencer_that_forgets_a_report: "sequencer.forget_report=20" within 4 by STALE;
    a_client_that_reuses_a_read_version: "client.old_read_version" within 4 by STALE;
    a_client_whose_marks_are_not_read:
        "client.mark_not_read" within 24 by ["replay", "lists: duplicate"];
    a_client_whose_ids_are_not_read: "client.id_not_read" within 24 by ["each id once", "replay"];
    a_client_that_tells_a_conflict_where_it_does_not_know:
        "client.conflict_for_unknown" within 16 by ["refused is not there", "replay", "lists"];
    a_storage_that_skips_an_entry: "storage.skip_entry=100" within 4 by LOST;
    a_storage_that_reads_too_early:
        "storage.read_too_early" among "hold", "delay", "isolate" within 24
        by ["replay", "cycle", "lists", "registers", "sideband", "increment"];
    a_storage_that_reads_the_newest: "storage.read_newest" within 8 by ["replay", "registers"];
    a_storage_that_takes_written_for_durable:
        "storage.durable_before_sync" among "power loss", "kill" within 8
        by ["dropped_is_durable"];
    a_storage_that_pops_what_is_not_durable:
        "storage.pop_above_durable" within 4 by ["dropped_is_durable"];
    a_storage_that_keeps_what_is_void:
        "storage.keep_void" within 16 by ["replicas_are_identical", "sideband", "acknowledged", "increment"];
    a_storage_that_takes_all_for_committed:
        "storage.take_all_for_committed" within 8 by ["found by a service"];
    a_director_that_recovers_only_to_what_is_known_committed:
        "director.recover_to_known_committed" among "kill" within 8 by LOST;
    a_director_that_skips_the_system_transaction:
        "director.skip_system_transaction" within 4
        by ["stored_config_is_recorded", "ready_is_stored"];
    a_proxy_that_sends_no_empty_batch: "commit_proxy.no_empty_batch" within 4 by ["starts"];
    a_director_that_counts_logs_by_name:
        "director.counts_logs_by_name" among "wipe log", "kill" within 8
        by ["found by a service", "layouts_follow_each_other"];
    a_director_that_takes_what_is_committed_for_stored:
        "director.believes_the_commit" among "slow disk", "kill" within 16 by ["ready_is_stored"];
    a_disk_that_does_not_notice_damage:
        "disk.unnoticed_block" among "corrupt block", "power loss" within 24
        by ["replicas_are_identical", "replay", "registers", "found by a service"];
    a_storage_that_does_not_wake_watches: "storage.forget_watches" within 16 by ["watches"];
    a_storage_that_tells_watches_what_is_not_committed:
        "storage.watch_uncommitted" within 16 by ["watches"];
    a_client_whose_selectors_miss_by_one: "client.selector_off_by_one" within 16 by ["selectors"];
    a_coordinator_whose_votes_are_not_persisted:
        "coordinator.vote_not_persisted" among "kill", "kill several", "power loss", "blackout" within 8
        by ["panic", "epochs_have_one_director"];
    a_coordinator_that_takes_silence_for_none:
        "coordinator.unknown_is_none" among "blackout" within 24
        by ["epochs_have_one_director", "config_never_goes_back", "acknowledged", "found by a service"];
}

/// A newcomer that says that its copy is whole while pages of it are as of different versions.
#[test]
fn a_newcomer_that_is_a_member_before_it_has_caught_up() {
    let by = ["replicas_are_identical", "registers", "increment", "replay", "acknowledged"];
    is_noticed_in(campaign().losing_a_node(), "storage.whole_too_early", 24, &by);
}

/// Logs that do not keep the tag for a newcomer, and do not say so when it asks.
#[test]
fn logs_that_keep_nothing_for_a_newcomer() {
    let by = ["dropped_is_durable", "replicas_are_identical", "registers", "increment", "replay"];
    is_noticed_in(campaign().losing_a_node(), "log.forgets_newcomers", 24, &by);
}

/// Failure 23: a director that goes on from the parameters that it was started with.
#[test]
fn a_director_that_writes_old_parameters_back() {
    let campaign = campaign().changing_parameters();
    is_noticed_in(campaign, "director.write_old_parameters_back", 8, &["config_identity"]);
}

/// Failure 18: parameters are changed past a recovery, which can't record its layout then.
#[test]
fn a_director_that_goes_on_without_a_recorded_layout() {
    let campaign = campaign().changing_parameters().with_faults(&["kill", "isolate"]);
    let by = ["kept_is_recorded", "config_identity"];
    is_noticed_in(campaign, "director.goes_on_unrecorded", 40, &by);
}

/// Failure 7: as many logs are waited for as are desired since a change, more than there are.
#[test]
fn a_director_that_counts_desired_logs() {
    let campaign = campaign().changing_parameters();
    is_noticed_in(campaign, "director.counts_desired_logs", 16, &["convergence"]);
}

/// An order about the coordinators' membership that is answered once it has begun, and not once it is done.
#[test]
fn a_coordinator_that_answers_what_has_only_begun() {
    let by = ["members_are_as_ordered"];
    is_noticed_in(campaign().changing_members(), "coordinator.answers_begun", 8, &by);
}

/// Orders to remove members, as of a director whose layout is an old one.
const ORDERED_AWAY: &str = "director.retires_members";

/// Failure 29: a foreman that removes the directory of a member because a director orders it.
#[test]
fn a_foreman_that_removes_what_it_is_told_to() {
    let by = ["convergence", "serves", "acknowledged"];
    is_noticed_in(campaign().with_control(ORDERED_AWAY), "foreman.retire_unread", 16, &by);
}

/// Whether all that is wrong is that logs share a node: such orders remove logs that nobody names, too, and
/// the logs are spread again only onto those that stand by.
fn is_only_unspread(outcome: &Outcome) -> bool {
    let is_unspread = |violation: &Violation| {
        violation.invariant == "convergence" && violation.seen.starts_with("the logs of tag")
    };
    matches!(outcome, Outcome::Ran(report) if report.violations.iter().all(is_unspread))
}

/// The same orders, and foremen that read at the coordinators what is recorded: nothing is lost.
#[test]
fn foremen_that_read_what_is_recorded_remove_no_member() {
    let campaign = campaign().with_control(ORDERED_AWAY);
    let mut accounts = String::new();
    let note = |outcome: Outcome| {
        if !is_only_unspread(&outcome) {
            accounts.push_str(&campaign.account(&outcome));
        }
        true
    };
    campaign.run_all(1..=4, note).expect("processes");
    assert!(accounts.is_empty(), "{accounts}");
}

/// Failure 24: an epoch that begins where one before it did that nothing is left of. Changes of parameters
/// past a recovery make many such epochs.
#[test]
fn a_director_that_uses_version_numbers_again() {
    let campaign = campaign().changing_parameters();
    let by = ["layouts_follow_each_other"];
    is_noticed_in(campaign, "director.forgets_first_version", 16, &by);
}
