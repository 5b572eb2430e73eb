//! Negative controls: each deliberate fault is noticed within some seeds. A harness that misses one
//! would miss the bug that it stands for.

#![expect(clippy::expect_used, reason = "a failed expectation fails the test")]

use std::path::Path;

use plinth_test_simulation::campaign::{Campaign, Outcome};

/// Runs seeds until one notices the fault, `seeds` of them at most.
fn is_noticed(control: &str, seeds: u64) {
    let executable = Path::new(env!("CARGO_BIN_EXE_simulate"));
    let campaign = Campaign::new(executable).with_control(control);
    let (mut noticed, mut fired) = (false, 0);
    let note = |outcome: Outcome| {
        if let Outcome::Ran(report) = &outcome {
            fired += report.fired;
            noticed |= !report.violations.is_empty();
        }
        !noticed
    };
    campaign.run_all(1..=seeds, note).expect("processes");
    assert!(fired > 0, "{control} never took place");
    assert!(noticed, "{control} took place {fired} times and was not noticed in {seeds} seeds");
}

macro_rules! controls {
    ($($name:ident: $control:literal within $seeds:literal;)*) => {
        $(#[test] fn $name() { is_noticed($control, $seeds); })*
    };
}

controls! {
    a_log_that_acknowledges_before_it_syncs: "log.ack_before_sync" within 40;
    a_log_that_loses_an_entry: "log.lose_entry=10" within 40;
    a_proxy_that_skips_a_log: "commit_proxy.skip_log" within 40;
    a_proxy_that_answers_before_the_logs_have: "commit_proxy.answer_before_logged" within 40;
    a_sequencer_that_forgets_a_report: "sequencer.forget_report=20" within 10;
    a_storage_that_skips_an_entry: "storage.skip_entry=100" within 10;
    a_storage_that_reads_too_early: "storage.read_too_early" within 20;
    a_storage_that_takes_written_for_durable: "storage.durable_before_sync" within 40;
    a_director_that_recovers_only_to_what_is_known_committed: "director.recover_to_known_committed" within 40;
}
