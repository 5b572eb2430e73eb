//! A replica of a shard holds, at each version, what every other replica holds (invariant 10).

use std::collections::BTreeMap;

use plinth_api::storage::KeyValue;

/// Its name.
pub const NAME: &str = "replicas_are_identical";

/// Answers the first difference between the replicas of one shard, read at one version.
#[must_use]
pub fn check(replicas: &BTreeMap<String, Vec<KeyValue>>) -> Option<String> {
    let (first, held) = replicas.iter().next()?;
    replicas.iter().skip(1).find_map(|(other, also)| {
        if held == also {
            return None;
        }
        let differs = |rows: &[KeyValue], others: &[KeyValue]| {
            rows.iter().find(|row| !others.contains(row)).map(|row| format!("{row:?}"))
        };
        let (only_first, only_other) = (differs(held, also), differs(also, held));
        Some(format!("{first} holds {only_first:?}, and {other} holds {only_other:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_differs_is_named() {
        let row = |value: &str| KeyValue { key: "k".into(), value: value.into() };
        let held = |a: &str, b: &str| {
            BTreeMap::from([("a".to_owned(), vec![row(a)]), ("b".to_owned(), vec![row(b)])])
        };
        assert_eq!(check(&held("1", "1")), None);
        assert!(check(&held("1", "2")).is_some());
        let lacking = BTreeMap::from([("a".to_owned(), vec![row("1")]), ("b".to_owned(), vec![])]);
        assert!(check(&lacking).is_some());
    }
}
