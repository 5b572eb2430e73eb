//! A lock's epoch is durable before it is answered, so that it holds after a restart too (invariant 2):
//! no log is ever locked by a lower epoch than one in which it has served.

use std::collections::BTreeMap;

use plinth_types::{Epoch, StoreId};

/// Its name.
pub const NAME: &str = "locks_never_go_back";

/// Answers the first log that is. `served` has the latest epoch that accepted commits with each log,
/// `locked` the epoch that each log says it is locked by, asked for later.
#[must_use]
pub fn check(
    served: &BTreeMap<StoreId, Epoch>,
    locked: &BTreeMap<StoreId, Epoch>,
) -> Option<String> {
    locked.iter().find_map(|(store, locked)| {
        let served = served.get(store).filter(|served| *served > locked)?;
        Some(format!("log {store} is locked by epoch {locked}, and has served epoch {served}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_lock_is_a_breach() {
        let of = |epoch| BTreeMap::from([(StoreId(1), Epoch(epoch))]);
        assert_eq!(check(&of(3), &of(3)), None);
        assert_eq!(check(&of(3), &of(4)), None);
        assert_eq!(check(&BTreeMap::new(), &of(0)), None);
        assert!(check(&of(3), &of(2)).is_some());
    }
}
