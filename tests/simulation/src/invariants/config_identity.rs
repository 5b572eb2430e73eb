//! The parameters of the configuration that is told are those of the last change before it that was
//! acknowledged, or of a later one whose outcome is not known (invariant 11). What was refused is never
//! in force.

use std::collections::BTreeMap;

use plinth_system_config::{Parameters, Stamp};

use crate::history::{Change, ChangeFate, Told};

/// Its name.
pub const NAME: &str = "config_identity";

/// Answers the first breach. `first` are the parameters that the cluster began with. Where every
/// coordinator has lost its disk, changes that only they had may be lost: `is_wiped`.
#[must_use]
pub fn check(
    changes: &[Change],
    told: &[Told],
    first: &Parameters,
    is_wiped: bool,
) -> Option<String> {
    let (mut made, mut possible) = (BTreeMap::new(), Vec::new());
    for change in changes {
        match &change.fate {
            ChangeFate::Durable(stamp, parameters) => {
                made.insert(*stamp, (change.ended, parameters));
            }
            ChangeFate::Recorded(stamp, parameters) if is_wiped => {
                possible.push((*stamp, parameters));
            }
            ChangeFate::Recorded(stamp, parameters) => {
                made.insert(*stamp, (change.ended, parameters));
            }
            ChangeFate::Unknown(stamp, parameters) => possible.push((*stamp, parameters)),
            ChangeFate::Refused => {}
        }
    }
    told.iter().find_map(|told| {
        let acknowledged = made.iter().filter(|(_, (ended, _))| *ended < told.began);
        let (newest, last) = (acknowledged.map(|(stamp, _)| *stamp).max(), told.stamp);
        if let Some(newest) = newest.filter(|newest| *newest > last) {
            return Some(format!("{last} was told after the change of {newest} was acknowledged"));
        }
        let before: Option<(&Stamp, &(u64, &Parameters))> = made.range(..=last).next_back();
        let base = before.map_or(first, |(_, (_, parameters))| *parameters);
        let since = before.map(|(stamp, _)| *stamp);
        let is_possible = possible.iter().any(|(stamp, parameters)| {
            Some(*stamp) > since && *stamp <= last && **parameters == told.parameters
        });
        let is_right = told.parameters == *base || is_possible;
        (!is_right).then(|| format!("{last} has {:?}, and {base:?} was set last", told.parameters))
    })
}

#[cfg(test)]
mod tests {
    use plinth_types::{ConfigVersion, Epoch};

    use super::*;

    fn stamp(version: u64) -> Stamp {
        Stamp { epoch: Epoch(1), config_version: ConfigVersion(version) }
    }

    fn logs(logs: u32) -> Parameters {
        Parameters { logs, ..Parameters::default() }
    }

    fn told(version: u64, count: u32, began: u64) -> Told {
        Told { stamp: stamp(version), parameters: logs(count), began, ended: began + 1 }
    }

    fn wrong(changes: &[Change], told: Told, is_wiped: bool) -> bool {
        check(changes, &[told], &logs(3), is_wiped).is_some()
    }

    #[test]
    fn what_was_set_last_is_told() {
        let durable = Change { ended: 10, fate: ChangeFate::Durable(stamp(5), logs(4)) };
        let unknown = Change { ended: 20, fate: ChangeFate::Unknown(stamp(7), logs(5)) };
        let refused = Change { ended: 30, fate: ChangeFate::Refused };
        let changes = [durable, unknown, refused];
        for (version, count, began, right) in [
            (4, 3, 1, true),
            (4, 4, 1, false),
            // Asked for before the answer, it may be seen or not.
            (4, 3, 9, true),
            (5, 4, 9, true),
            (5, 3, 9, false),
            (4, 3, 11, false),
            (6, 4, 11, true),
            (6, 5, 11, false),
            (7, 4, 15, true),
            (7, 5, 15, true),
            (9, 5, 40, true),
            (9, 3, 40, false),
        ] {
            assert_eq!(wrong(&changes, told(version, count, began), false), !right, "{version}");
        }
    }

    #[test]
    fn only_a_loss_of_all_coordinators_takes_back_what_only_they_had() {
        let changes = [Change { ended: 10, fate: ChangeFate::Recorded(stamp(5), logs(4)) }];
        assert!(wrong(&changes, told(6, 3, 11), false));
        assert!(!wrong(&changes, told(6, 4, 11), false));
        assert!(!wrong(&changes, told(6, 3, 11), true));
        assert!(!wrong(&changes, told(6, 4, 11), true));
        assert!(wrong(&changes, told(6, 5, 11), true));
    }
}
