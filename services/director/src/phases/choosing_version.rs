//! `choosing_version`: how far the committed history goes.
//!
//! **Keeps: an acknowledged commit survives** (invariant 5), **and no version number belongs to two
//! epochs** (invariant 7). Pure: the locked logs in, the versions out.

use plinth_types::{VERSION_GAP, Version};

use super::locking::Locked;

/// The versions of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    /// RV: nothing above it survives of earlier epochs, and everything up to it does.
    pub(crate) recovery: Version,
    /// KCV: what the locked logs know to be committed.
    pub(crate) known_committed: Version,
    /// The version of the epoch's first batch.
    pub(crate) first: Version,
}

/// Chooses the versions. An acknowledged batch is on *every* log of its epoch, so it is at or below
/// the least end of the locked ones; whatever is above that was acknowledged to nobody. Damaged logs
/// are not among the locked ones.
///
/// # Errors
/// The locked logs contradict each other, which the quorum rules out.
pub(crate) fn choose(locked: &Locked, floor: Version) -> Result<Versions, String> {
    let answers = || locked.logs.iter().map(|log| &log.answer);
    let layout = locked.recorded.as_ref().map(|recorded| &recorded.config.layout);
    // Only the very first epoch has no logs before it.
    let recovery = match (answers().map(|answer| answer.end).min(), layout) {
        (Some(end), _) => end,
        (None, None) => Version::ZERO,
        (None, Some(layout)) => return Err(format!("no log of epoch {} is locked", layout.epoch)),
    };
    let known_committed =
        answers().map(|answer| answer.known_committed).max().unwrap_or(Version::ZERO);
    if known_committed > recovery {
        return Err(format!(
            "version {known_committed} is committed, but the locked logs only reach {recovery}"
        ));
    }
    let previous = layout.map_or(Version::ZERO, |layout| layout.first_version);
    let first = recovery.max(previous).max(floor).plus(VERSION_GAP);
    if first.minus(VERSION_GAP) < recovery.max(previous).max(floor) {
        return Err("there are no version numbers left".to_owned());
    }
    Ok(Versions { recovery, known_committed, first })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phases::locking::LockedLog;
    use crate::samples::{lock_answer, pid, recorded};
    use proptest::prelude::*;

    fn locked(ends: &[(u64, u64)]) -> Locked {
        let recorded = recorded();
        let log = |(store, &(end, known)): (u128, &(u64, u64))| LockedLog {
            service: recorded.config.layout.logs[0].service.clone(),
            pid: pid("node-1", 1),
            tags: recorded.shards.tags(),
            answer: lock_answer(store, end, known),
        };
        let logs = (1..).zip(ends).map(log).collect();
        Locked { recorded: Some(recorded), logs, damaged: vec![] }
    }

    #[test]
    fn the_least_end_is_kept_and_the_gap_follows() {
        let previous_first = 500 + VERSION_GAP;
        for (ends, floor, expected) in [
            // The example of FoundationDB's design.
            (&[(100, 80), (110, 90), (120, 95)][..], 0, (100, 95, previous_first + VERSION_GAP)),
            // Nothing was pushed in the old epoch: RV stays, the first version still advances.
            (&[(500, 0)], 0, (500, 0, previous_first + VERSION_GAP)),
            (&[(10 * VERSION_GAP, 7)], 0, (10 * VERSION_GAP, 7, 11 * VERSION_GAP)),
            // Re-founded coordinators ask for more.
            (&[(700, 600)], 50 * VERSION_GAP, (700, 600, 51 * VERSION_GAP)),
        ] {
            let versions = choose(&locked(ends), Version(floor)).unwrap();
            let found = (versions.recovery.0, versions.known_committed.0, versions.first.0);
            assert_eq!(found, expected, "{ends:?}");
        }
    }

    #[test]
    fn the_first_epoch_begins_at_nothing() {
        let nothing = Locked { recorded: None, logs: vec![], damaged: vec![] };
        let versions = choose(&nothing, Version::ZERO).unwrap();
        assert_eq!((versions.recovery, versions.first), (Version::ZERO, Version(VERSION_GAP)));
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(choose(&locked(&[]), Version::ZERO).is_err());
        assert!(choose(&locked(&[(100, 80), (120, 110)]), Version::ZERO).is_err());
        assert!(choose(&locked(&[(100, 80)]), Version(u64::MAX - 5)).is_err());
    }

    proptest! {
        #[test]
        fn nothing_acknowledged_is_above_and_no_version_is_used_twice(
            ends in proptest::collection::vec((1_000u64..5_000, 0u64..1_000), 1..5),
            floor in 0u64..10_000_000_000,
        ) {
            let set = locked(&ends);
            let versions = choose(&set, Version(floor)).unwrap();
            // An acknowledged version is on every log.
            prop_assert!(ends.iter().all(|(end, _)| versions.recovery.0 <= *end));
            prop_assert!(ends.iter().all(|(_, known)| *known <= versions.recovery.0));
            let previous = set.recorded.unwrap().config.layout.first_version;
            for below in [versions.recovery, previous, Version(floor)] {
                prop_assert!(versions.first >= below.plus(VERSION_GAP));
            }
        }
    }
}
