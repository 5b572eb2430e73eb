//! What must hold after any history, one invariant a module. Each is a pure function of what was
//! seen, and says what is wrong.

pub mod acknowledged_is_kept;
pub mod config_identity;
pub mod config_never_goes_back;
pub mod dropped_is_durable;
pub mod epochs_have_one_director;
pub mod epochs_increase;
pub mod kept_is_recorded;
pub mod layouts_follow_each_other;
pub mod locks_never_go_back;
pub mod no_pid_is_stored;
pub mod ready_is_stored;
pub mod registers_are_linearizable;
pub mod replicas_are_identical;
pub mod stored_config_is_recorded;
pub mod versions_follow_real_time;
pub mod watches_tell_what_is;

use plinth_system_config::Parameters;

use crate::findings::Findings;
use crate::history::{ChangeFate, History};

/// Checks what the users' history must satisfy. `first` are the parameters that the cluster began with.
pub fn check_history(history: &History, first: &Parameters, findings: &Findings) {
    let record = history.record();
    let (writes, reads) = (&record.writes, &record.reads);
    findings.report_all(
        versions_follow_real_time::NAME,
        versions_follow_real_time::check(writes, reads),
    );
    findings.report_all(
        registers_are_linearizable::NAME,
        registers_are_linearizable::check(writes, reads),
    );
    findings.report_all(
        watches_tell_what_is::NAME,
        watches_tell_what_is::check(writes, &record.sights),
    );
    let told = record.told();
    let accepted = record.is_wiped.then_some(&record.accepted);
    let recorded = record.changes.iter().filter_map(|change| match &change.fate {
        ChangeFate::Recorded(stamp, _) | ChangeFate::Unknown(stamp, _) => Some(*stamp),
        ChangeFate::Durable(..) | ChangeFate::Refused => None,
    });
    findings.report_all(
        config_never_goes_back::NAME,
        config_never_goes_back::check(&told, accepted, &recorded.collect()),
    );
    findings.report_all(
        config_identity::NAME,
        config_identity::check(&record.changes, &told, first, record.is_wiped),
    );
    // Coordinators that don't know what they have forgotten appoint a director for an epoch again. It locks
    // nothing: a log that knows the epoch refuses it.
    if record.forgot.is_none() {
        findings.report_all(
            epochs_have_one_director::NAME,
            epochs_have_one_director::check(&record.directors),
        );
    }
}
