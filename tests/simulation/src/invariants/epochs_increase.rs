//! Epochs, recovery versions and first versions strictly increase from one recovery to the next, and
//! each epoch begins above its recovery version (invariants 1 and 7).

use plinth_api::coordinator::Recovery;

/// Its name.
pub const NAME: &str = "epochs_increase";

/// Answers the first breach. The newest recovery comes first.
#[must_use]
pub fn check(recoveries: &[Recovery]) -> Option<String> {
    let alone =
        recoveries.iter().find(|recovery| recovery.first_version <= recovery.recovery_version);
    let pairs = || recoveries.iter().zip(recoveries.iter().skip(1));
    let pair = pairs().find(|(newer, older)| {
        newer.epoch <= older.epoch
            || newer.recovery_version < older.recovery_version
            || newer.first_version <= older.first_version
    });
    let brief = |recovery: &Recovery| {
        let Recovery { epoch, recovery_version, first_version, .. } = recovery;
        format!(
            "epoch {epoch} (recovery version {recovery_version}, first version {first_version})"
        )
    };
    alone
        .map(brief)
        .or_else(|| pair.map(|(newer, older)| format!("{} follows {}", brief(newer), brief(older))))
}
