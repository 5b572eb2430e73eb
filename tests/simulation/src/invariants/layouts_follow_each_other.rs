//! A layout is recorded by the director that was appointed last, and by nobody whom a later appointment
//! has superseded (invariants 1 and 11). What it begins from is never below what the one before it began
//! from, and its first version is a gap above that one's, so that no number belongs to two epochs
//! (invariants 5 and 7).

use plinth_types::{Epoch, VERSION_GAP, Version};

/// Its name.
pub const NAME: &str = "layouts_follow_each_other";

/// What the coordinators hold at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The latest appointment; 0 where it was voided.
    pub appointed: Epoch,
    /// The epoch of the recorded layout.
    pub layout: Epoch,
    /// Its recovery version.
    pub recovery_version: Version,
    /// Its first version.
    pub first_version: Version,
}

/// Answers what is wrong where the coordinators, asked one time after the other, hold `before` and then
/// `after`. No coordinator has lost its disk between.
#[must_use]
pub fn check(before: &Held, after: &Held) -> Option<String> {
    if after.layout == before.layout {
        return None;
    }
    let superseded = after.layout < before.appointed.max(before.layout);
    let goes_back = after.recovery_version < before.recovery_version
        || after.first_version < before.first_version.plus(VERSION_GAP);
    (superseded || goes_back).then(|| format!("{after:?} follows {before:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_that_is_superseded_records_nothing() {
        let held = |appointed, layout: u64| Held {
            appointed: Epoch(appointed),
            layout: Epoch(layout),
            recovery_version: Version(layout * VERSION_GAP),
            first_version: Version((layout + 1) * VERSION_GAP),
        };
        assert_eq!(check(&held(3, 3), &held(4, 3)), None);
        assert_eq!(check(&held(4, 3), &held(4, 4)), None);
        assert_eq!(check(&held(4, 3), &held(6, 5)), None);
        assert!(check(&held(5, 3), &held(5, 4)).is_some());
        assert!(check(&held(0, 3), &held(4, 2)).is_some());
    }

    #[test]
    fn versions_only_go_up_and_by_a_gap() {
        let held = |layout, recovery: u64, first: u64| Held {
            appointed: Epoch(layout),
            layout: Epoch(layout),
            recovery_version: Version(recovery),
            first_version: Version(first),
        };
        let before = held(3, 500, 1_000);
        assert_eq!(check(&before, &held(4, 500, 1_000 + VERSION_GAP)), None);
        assert!(check(&before, &held(4, 499, 1_000 + VERSION_GAP)).is_some());
        assert!(check(&before, &held(4, 500, 999 + VERSION_GAP)).is_some());
    }
}
