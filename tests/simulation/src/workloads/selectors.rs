//! RandomSelector: keys named by their place among others, in transactions of the client that also
//! write, against a plain list of the keys that the same transaction reads.

use std::time::Duration;

use plinth_client::{
    ClientError, Database, Isolation, Key, KeyRange, KeySelector, RangeOptions, Transaction, Value,
};
use plinth_runtime::Scope;
use plinth_service::Peers;

use crate::scene::Scene;

/// How many users.
pub(crate) const USERS: usize = 2;
/// What the keys begin with, and the first key after them.
const BORDERS: [&str; 2] = ["selector/", "selector0"];
/// How many keys there are at most.
const KEYS: usize = 30;
/// How many selectors a transaction asks.
const SELECTORS: usize = 4;
/// How far they reach from where they begin.
const REACH: usize = 6;
/// The longest pause between two transactions.
const PAUSE: Duration = Duration::from_millis(120);
/// How long a transaction may take.
const WITHIN: Duration = Duration::from_secs(3);

pub(crate) async fn run(scene: Scene) {
    let (scope, _guard) = Scope::new();
    let peers = Peers::new(scene.peers.clone());
    let coordinators: Vec<_> = scene.coordinators.iter().map(|(_, at)| at.clone()).collect();
    let database = Database::new(&scene.runtime, &scope, peers, coordinators);
    while scene.is_working() {
        // What fails on the way is no matter here: what is answered must be right.
        if let Ok(Some(wrong)) = transact(&scene, &database).await {
            scene.findings.report("selectors", wrong);
            return;
        }
        scene.pause(PAUSE).await;
    }
}

fn key(number: usize) -> Key {
    Key::from(format!("{}{number:02}", BORDERS[0]).as_str())
}

/// Writes some keys, asks some selectors, commits. Answers what was wrong.
async fn transact(scene: &Scene, database: &Database) -> Result<Option<String>, ClientError> {
    let transaction = database.begin(WITHIN);
    for _ in 0..scene.below(3) {
        change(scene, &transaction)?;
    }
    let all = KeyRange::new(BORDERS[0].into(), BORDERS[1].into());
    let options = RangeOptions { isolation: Isolation::Snapshot, ..RangeOptions::default() };
    let rows = transaction.get_range(&all, options).await?;
    let keys: Vec<Key> = rows.items.into_iter().map(|row| row.key).collect();
    for _ in 0..SELECTORS {
        let selector = KeySelector {
            key: key(scene.below(KEYS)),
            or_equal: scene.below(2) == 0,
            offset: i32::try_from(scene.below(2 * REACH)).unwrap_or(0) - REACH as i32,
        };
        let isolation =
            if scene.below(2) == 0 { Isolation::Serializable } else { Isolation::Snapshot };
        let found = transaction.get_key(&selector, isolation).await?;
        if let Some(expected) = differs(&keys, &selector, &found) {
            return Ok(Some(format!("{selector:?} names {found}, not {expected}, among {keys:?}")));
        }
    }
    transaction.commit().await?;
    Ok(None)
}

fn change(scene: &Scene, transaction: &Transaction) -> Result<(), ClientError> {
    let (from, to) = (scene.below(KEYS), scene.below(KEYS));
    match scene.below(5) {
        0 => transaction.clear(&key(from)),
        1 if from < to && to - from < KEYS / 3 => {
            transaction.clear_range(&KeyRange::new(key(from), key(to)))
        }
        _ => transaction.set(&key(from), &Value::from("there")),
    }
}

/// What a selector should have named among these keys, where it did not. Beyond them there may be
/// anything that is beyond them.
fn differs(keys: &[Key], selector: &KeySelector, found: &Key) -> Option<String> {
    let is_before =
        |key: &&Key| **key < selector.key || (selector.or_equal && **key == selector.key);
    let before = i64::try_from(keys.iter().filter(is_before).count()).unwrap_or(i64::MAX);
    let place = before - 1 + i64::from(selector.offset);
    match usize::try_from(place).map(|place| keys.get(place)) {
        Ok(Some(expected)) => (expected != found).then(|| expected.to_string()),
        Ok(None) => (*found < Key::from(BORDERS[1])).then(|| "one after them".to_owned()),
        Err(_) => (*found >= Key::from(BORDERS[0])).then(|| "one before them".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_names_a_key_by_its_place() {
        let keys = [key(1), key(3), key(5)];
        let is_right =
            |selector: KeySelector, found: Key| differs(&keys, &selector, &found).is_none();
        assert!(is_right(KeySelector::last_less_than(key(3)), key(1)));
        assert!(!is_right(KeySelector::last_less_than(key(3)), key(3)));
        assert!(is_right(KeySelector::last_less_or_equal(key(3)), key(3)));
        assert!(is_right(KeySelector::first_greater_than(key(3)), key(5)));
        assert!(is_right(KeySelector::first_greater_or_equal(key(2)), key(3)));
        assert!(is_right(KeySelector::first_greater_or_equal(key(2)).plus(1), key(5)));
        assert!(is_right(KeySelector::first_greater_than(key(5)), BORDERS[1].into()));
        assert!(!is_right(KeySelector::first_greater_than(key(5)), key(5)));
        assert!(is_right(KeySelector::last_less_than(key(1)), Key::default()));
        assert!(!is_right(KeySelector::last_less_than(key(1)), key(1)));
    }
}
