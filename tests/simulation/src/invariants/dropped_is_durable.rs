//! Logs drop what is durable in every recorded member of a tag's team, and nothing else (invariant 9).

use std::collections::BTreeMap;

use plinth_types::{StoreId, Tag, Version};

/// Its name.
pub const NAME: &str = "dropped_is_durable";

/// Answers the first tag of which a log has dropped more. `durable` has what each recorded member has
/// on disk of a tag, asked for after the logs were asked what they have `dropped`.
#[must_use]
pub fn check(
    dropped: &BTreeMap<Tag, Version>,
    durable: &BTreeMap<(Tag, StoreId), Version>,
) -> Option<String> {
    durable.iter().find_map(|((tag, store), durable)| {
        let dropped = dropped.get(tag).filter(|dropped| *dropped > durable)?;
        Some(format!(
            "a log has dropped tag {tag} up to {dropped}, and storage {store} has it up to {durable}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_too_early_is_a_breach() {
        let dropped = |version| BTreeMap::from([(Tag(1), Version(version))]);
        let durable = BTreeMap::from([
            ((Tag(1), StoreId(1)), Version(5)),
            ((Tag(1), StoreId(2)), Version(7)),
        ]);
        assert_eq!(check(&dropped(5), &durable), None);
        assert!(check(&dropped(6), &durable).is_some());
        assert_eq!(check(&BTreeMap::new(), &durable), None);
    }
}
