//! No acknowledged commit lies above a later recovery's version: what is there was dropped, and the
//! numbers up to the first version belong to nobody (invariants 5 and 7).

use plinth_api::coordinator::Recovery;

use crate::history::Write;
use crate::user::Fate;

/// Its name.
pub const NAME: &str = "acknowledged_is_kept";

/// Answers the first breach.
#[must_use]
pub fn check(writes: &[Write], recoveries: &[Recovery]) -> Option<String> {
    writes.iter().find_map(|write| {
        let Fate::Committed(version) = write.fate else { return None };
        let dropped = |recovery: &&Recovery| {
            recovery.recovery_version < version && version < recovery.first_version
        };
        let recovery = recoveries.iter().find(dropped)?;
        Some(format!(
            "{} was acknowledged at {version}; epoch {} kept only what is up to {} and began at {}",
            write.key, recovery.epoch, recovery.recovery_version, recovery.first_version
        ))
    })
}
