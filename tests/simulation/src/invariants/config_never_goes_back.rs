//! A configuration once told is never followed by an older one (invariant 11).

use std::collections::BTreeMap;

use plinth_system_config::Stamp;

use crate::history::Told;

/// Its name.
pub const NAME: &str = "config_never_goes_back";

/// Answers the first breach.
#[must_use]
pub fn check(told: &[Told]) -> Option<String> {
    // By the moment of the answer: what was known then binds whoever asks later.
    let known: BTreeMap<u64, Stamp> = told.iter().map(|told| (told.ended, told.stamp)).collect();
    told.iter().find_map(|told| {
        let before = known.range(..told.began).map(|(_, stamp)| *stamp).max()?;
        (told.stamp < before).then(|| format!("{} was told after {before}", told.stamp))
    })
}

#[cfg(test)]
mod tests {
    use plinth_types::{ConfigVersion, Epoch};

    use super::*;

    #[test]
    fn only_what_was_known_before_binds() {
        let told = |epoch, began, ended| {
            let stamp = Stamp { epoch: Epoch(epoch), config_version: ConfigVersion(epoch) };
            Told { stamp, began, ended }
        };
        assert_eq!(check(&[told(1, 1, 2), told(2, 3, 4), told(2, 5, 6)]), None);
        assert_eq!(check(&[told(2, 1, 3), told(1, 2, 4)]), None);
        assert!(check(&[told(2, 1, 2), told(1, 3, 4)]).is_some());
    }
}
