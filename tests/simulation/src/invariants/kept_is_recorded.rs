//! What a log keeps as the configuration was recorded at the coordinators before (invariant 6): a
//! director that could not record its layout does not go on.

use std::collections::BTreeMap;

use plinth_system_config::Stamp;
use plinth_types::StoreId;

/// Its name.
pub const NAME: &str = "kept_is_recorded";

/// Answers the first log that keeps a newer configuration than `recorded`, which was asked for after
/// the logs were asked what they have `kept`.
#[must_use]
pub fn check(kept: &BTreeMap<StoreId, Stamp>, recorded: Stamp) -> Option<String> {
    let (log, kept) = kept.iter().find(|(_, kept)| **kept > recorded)?;
    Some(format!("log {log} keeps the configuration of {kept}, and recorded is that of {recorded}"))
}

#[cfg(test)]
mod tests {
    use plinth_types::{ConfigVersion, Epoch};

    use super::*;

    #[test]
    fn a_newer_one_is_a_breach() {
        let stamp =
            |epoch, version| Stamp { epoch: Epoch(epoch), config_version: ConfigVersion(version) };
        let kept = BTreeMap::from([(StoreId(1), stamp(2, 3)), (StoreId(2), stamp(3, 4))]);
        assert_eq!(check(&kept, stamp(3, 4)), None);
        assert_eq!(check(&kept, stamp(3, 5)), None);
        assert!(check(&kept, stamp(3, 3)).is_some());
        // A change that the coordinators have made themselves is not of a later epoch.
        assert!(check(&kept, stamp(2, 4)).is_some());
    }
}
