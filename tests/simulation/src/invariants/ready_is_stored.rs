//! An epoch that is ready has its system transaction on the disks of a majority of its config team
//! (invariant 6): the configuration in storage is never older than the last epoch that acknowledged a
//! commit.

use std::collections::BTreeMap;

use plinth_types::{Epoch, StoreId, Version};

/// Its name.
pub const NAME: &str = "ready_is_stored";

/// Answers whether the majority lacks it. `durable` has up to which version members of the `team` have
/// the configuration on disk, as far as they answered, asked for after the epoch was ready.
#[must_use]
pub fn check(
    epoch: Epoch,
    first_version: Version,
    team: &[StoreId],
    durable: &BTreeMap<StoreId, Version>,
) -> Option<String> {
    let lacks = |store: &&StoreId| durable.get(store).is_some_and(|held| *held < first_version);
    let lacking = team.iter().filter(lacks).count();
    // As many that have it must be left as make a majority.
    ((team.len() - lacking) <= team.len() / 2).then(|| {
        format!(
            "epoch {epoch} is ready from {first_version} on; of {team:?} are on disk {durable:?}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_not_lack() {
        let team = [StoreId(1), StoreId(2), StoreId(3)];
        let check = |held: &[(u128, u64)]| {
            let held = held.iter().map(|(store, at)| (StoreId(*store), Version(*at)));
            check(Epoch(2), Version(10), &team, &held.collect()).is_some()
        };
        assert!(!check(&[]) && !check(&[(1, 10), (2, 11), (3, 9)]) && !check(&[(1, 9)]));
        assert!(check(&[(1, 9), (2, 9)]) && check(&[(1, 9), (2, 9), (3, 10)]));
        assert!(!check(&[(1, 9), (4, 9)]), "whoever is no member says nothing");
    }
}
