//! A configuration once told is never followed by an older one (invariant 11). Where every coordinator
//! has lost its disk, that holds of those alone with which an epoch began to accept commits: only they are
//! known to be in storage too. What was changed later in the epoch, by its director or past it, the
//! coordinators have first; that it is kept once it is said to be durable, others check.

use std::collections::{BTreeMap, BTreeSet};

use plinth_system_config::Stamp;
use plinth_types::{ConfigVersion, Epoch};

use crate::history::{Moment, Told};

/// Its name.
pub const NAME: &str = "config_never_goes_back";

/// Answers the first breach. `accepted` has the epochs that are known to have accepted commits, with
/// the moment when that was known; without it, no coordinator has lost its disk. `recorded` has the
/// changes that may be at the coordinators only.
#[must_use]
pub fn check(
    told: &[Told],
    accepted: Option<&BTreeMap<Epoch, Moment>>,
    recorded: &BTreeSet<Stamp>,
) -> Option<String> {
    // What was told of an epoch first is what it began with, or nearly.
    let mut first: BTreeMap<Epoch, ConfigVersion> = BTreeMap::new();
    for Told { stamp, .. } in told {
        let version = first.entry(stamp.epoch).or_insert(stamp.config_version);
        *version = (*version).min(stamp.config_version);
    }
    // By the moment of the answer: what was known then binds whoever asks later.
    let binds = |told: &Told| match accepted {
        None => Some((told.ended, told.stamp)),
        Some(accepted) => {
            let since = accepted.get(&told.stamp.epoch)?;
            let is_changed = first.get(&told.stamp.epoch) < Some(&told.stamp.config_version);
            if is_changed || recorded.contains(&told.stamp) {
                return None;
            }
            Some((told.ended.max(*since), told.stamp))
        }
    };
    let mut known: BTreeMap<Moment, Stamp> = BTreeMap::new();
    for (moment, stamp) in told.iter().filter_map(binds) {
        let at = known.entry(moment).or_insert(stamp);
        *at = (*at).max(stamp);
    }
    told.iter().find_map(|told| {
        let before = known.range(..told.began).map(|(_, stamp)| *stamp).max()?;
        (told.stamp < before).then(|| format!("{} was told after {before}", told.stamp))
    })
}

#[cfg(test)]
mod tests {
    use plinth_system_config::Parameters;

    use super::*;

    fn check(told: &[Told], accepted: Option<&BTreeMap<Epoch, Moment>>) -> Option<String> {
        super::check(told, accepted, &BTreeSet::new())
    }

    #[test]
    fn only_what_was_known_before_binds() {
        let told = |epoch, began, ended| {
            let stamp = Stamp { epoch: Epoch(epoch), config_version: ConfigVersion(epoch) };
            Told { stamp, parameters: Parameters::default(), began, ended }
        };
        assert_eq!(check(&[told(1, 1, 2), told(2, 3, 4), told(2, 5, 6)], None), None);
        assert_eq!(check(&[told(2, 1, 3), told(1, 2, 4)], None), None);
        let back = [told(2, 1, 2), told(1, 4, 5)];
        assert!(check(&back, None).is_some());
        let accepted = |moment| BTreeMap::from([(Epoch(2), moment)]);
        assert!(check(&back, Some(&accepted(3))).is_some());
        assert_eq!(check(&back, Some(&accepted(6))), None);
        assert_eq!(check(&back, Some(&BTreeMap::new())), None);
        // A change within the epoch, which the coordinators had alone.
        let stamp = |version| Stamp { epoch: Epoch(2), config_version: ConfigVersion(version) };
        let change =
            |version, moment| Told { stamp: stamp(version), ..told(2, moment, moment + 1) };
        let lost = [change(2, 1), change(3, 4), change(2, 7)];
        assert!(check(&lost, None).is_some());
        assert_eq!(check(&lost, Some(&accepted(3))), None);
        let recorded = BTreeSet::from([back[0].stamp]);
        assert_eq!(super::check(&back, Some(&accepted(3)), &recorded), None);
        assert!(super::check(&back, None, &recorded).is_some());
    }
}
