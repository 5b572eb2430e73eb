//! The replay, real time, and what is settled at the end.

use std::collections::BTreeMap;

use plinth_api::gateway::{
    Change, Item, Operand, Operating, ReadResult, Reading, Setting, Stamping,
};
use plinth_test_histories::checks::{real_time, replay};
use plinth_test_histories::{Anomaly, Fate, Step, Transaction, settle};
use plinth_types::{Version, Versionstamp};
use proptest::prelude::*;

fn stamp(version: u64, index: u16) -> Versionstamp {
    Versionstamp { version: Version(version), index }
}

fn committed(version: u64, index: u16) -> Fate {
    let stamp = stamp(version, index);
    Fate::Committed { version: stamp.version, stamp: Some(stamp) }
}

fn looked(version: u64) -> Fate {
    Fate::Committed { version: Version(version), stamp: None }
}

fn transaction(id: u64, fate: Fate, steps: Vec<Step>) -> Transaction {
    let (began, ended) = (10 * id, 10 * id + 5);
    let mark = Some(format!("mark {id}"));
    Transaction { id, workload: "test", began, ended, fate, is_late: false, mark, steps }
}

fn set(key: &str, value: &str) -> Change {
    Change::Set(Setting { key: key.into(), value: value.into() })
}

fn get(key: &str, value: Option<&str>) -> (Reading, ReadResult) {
    let reading = Reading { key: Some(key.into()), ..Reading::default() };
    (reading, ReadResult::Key { key: key.into(), value: value.map(Into::into) })
}

fn step(reads: Vec<(Reading, ReadResult)>, changes: Vec<Change>) -> Step {
    Step { reads, changes }
}

fn names(found: &[Anomaly]) -> Vec<&str> {
    found.iter().map(|anomaly| anomaly.name.as_str()).collect()
}

#[test]
fn reads_are_explained_by_the_order_of_places() {
    let history = |first: Option<&str>, own: &str, last: &str| {
        vec![
            transaction(
                1,
                committed(20, 1),
                vec![step(vec![get("k", first)], vec![set("k", "b")])],
            ),
            transaction(2, committed(20, 0), vec![step(vec![], vec![set("k", "a")])]),
            transaction(
                3,
                committed(30, 0),
                vec![step(vec![], vec![set("k", "c")]), step(vec![get("k", Some(own))], vec![])],
            ),
            transaction(4, looked(20), vec![step(vec![get("k", Some(last))], vec![])]),
        ]
    };
    assert_eq!(replay::check(&history(Some("a"), "c", "b")), []);
    for bad in [history(None, "c", "b"), history(Some("a"), "b", "b"), history(Some("a"), "c", "c")]
    {
        assert_eq!(names(&replay::check(&bad)), ["replay"]);
    }
}

#[test]
fn what_was_refused_counts_for_nothing_and_places_are_unique() {
    let refused =
        transaction(1, Fate::Refused(String::new()), vec![step(vec![], vec![set("k", "x")])]);
    let look = transaction(2, looked(20), vec![step(vec![get("k", None)], vec![])]);
    assert_eq!(replay::check(&[refused, look]), []);
    let one = |id| transaction(id, committed(20, 0), vec![step(vec![], vec![set("k", "x")])]);
    assert_eq!(names(&replay::check(&[one(1), one(2)])), ["versionstamps are unique"]);
}

#[test]
fn ranges_limits_operations_and_stamps_are_replayed() {
    let add =
        |operand| Change::Add(Operating { key: "n".into(), operand: Operand::Number(operand) });
    let stamped = Change::SetVersionstampedKey(Stamping {
        key: [b"q/".as_slice(), &[0; 10]].concat().into(),
        value: "x".into(),
        offset: 2,
    });
    let writes =
        transaction(1, committed(20, 3), vec![step(vec![], vec![add(5), add(-2), stamped])]);
    let item = |key: &[u8], value: &[u8]| Item { key: key.into(), value: value.into() };
    let key = [b"q/".as_slice(), &stamp(20, 3).to_bytes()].concat();
    let items = vec![item(&key, b"x"), item(b"n", &3i64.to_le_bytes())];
    let range = |items: Vec<Item>, limit, more| {
        let reading = Reading { limit: Some(limit), reverse: true, ..Reading::default() };
        (reading, ReadResult::Range { from: "a".into(), to: Some("z".into()), items, more })
    };
    let look =
        |read| vec![writes.clone(), transaction(2, looked(20), vec![step(vec![read], vec![])])];
    assert_eq!(replay::check(&look(range(items.clone(), 10, false))), []);
    assert_eq!(replay::check(&look(range(items[..1].to_vec(), 1, true))), []);
    for bad in [
        range(items[..1].to_vec(), 10, false),
        range(items[..1].to_vec(), 1, false),
        range(vec![items[0].clone(), item(b"n", &2i64.to_le_bytes())], 10, false),
    ] {
        assert_eq!(names(&replay::check(&look(bad))), ["replay"]);
    }
}

#[test]
fn versions_follow_real_time() {
    let one = |id, fate| transaction(id, fate, vec![]);
    assert_eq!(real_time::check(&[one(1, committed(5, 0)), one(2, looked(5))]), []);
    assert_eq!(real_time::check(&[one(1, looked(5)), one(2, committed(6, 0))]), []);
    for bad in [
        [one(1, committed(5, 0)), one(2, looked(4))],
        [one(1, committed(5, 0)), one(2, committed(5, 1))],
        [one(1, looked(5)), one(2, committed(5, 0))],
    ] {
        assert_eq!(names(&real_time::check(&bad)), ["real time"]);
    }
    // At the same time, in either order.
    let mut overlapping = [one(1, committed(5, 0)), one(2, committed(4, 0))];
    overlapping[1].began = 12;
    assert_eq!(real_time::check(&overlapping), []);
    // Told nothing, one of unknown fate binds nobody; but others bind it.
    let late = |id, fate| Transaction { is_late: true, ..one(id, fate) };
    assert_eq!(real_time::check(&[late(1, committed(9, 0)), one(2, looked(4))]), []);
    assert_eq!(real_time::check(&[one(1, looked(5)), late(2, committed(4, 0))]).len(), 1);
}

#[test]
fn marks_settle_what_became_of_each() {
    let one = |fate| [transaction(1, fate, vec![])];
    let marks = BTreeMap::from([("mark 1".to_owned(), stamp(20, 0))]);
    let none = BTreeMap::new();
    let mut unknown = one(Fate::Unknown(String::new()));
    assert_eq!(settle(&mut unknown, &marks), []);
    assert!(unknown[0].fate == committed(20, 0) && unknown[0].is_late);
    let mut unknown = one(Fate::Unknown(String::new()));
    assert_eq!(settle(&mut unknown, &none), []);
    assert!(unknown[0].is_refused());
    assert_eq!(settle(&mut one(committed(20, 0)), &marks), []);
    assert_eq!(settle(&mut one(Fate::Refused(String::new())), &none), []);
    let wrong = [
        (settle(&mut one(committed(20, 0)), &none), "acknowledged is there"),
        (settle(&mut one(committed(20, 1)), &marks), "versionstamps are told"),
        (settle(&mut one(Fate::Refused(String::new())), &marks), "refused is not there"),
    ];
    for (found, name) in wrong {
        assert_eq!(names(&found), [name]);
    }
}

proptest! {
    /// Registers and counters, executed serially: good; with one read changed: not.
    #[test]
    fn a_serial_execution_is_replayed_and_a_changed_read_is_found_out(
        plans in proptest::collection::vec((0u8..3, 0u8..3, any::<bool>()), 1..40),
        pick in any::<prop::sample::Index>(),
    ) {
        let mut state: BTreeMap<String, String> = BTreeMap::new();
        let mut history = Vec::new();
        for (id, (read, written, looks_only)) in (1u64..).zip(plans) {
            let key = format!("k{read}");
            let seen = get(&key, state.get(&key).map(String::as_str));
            if looks_only {
                history.push(transaction(id, looked(id - 1), vec![step(vec![seen], vec![])]));
            } else {
                let (key, value) = (format!("k{written}"), format!("v{id}"));
                history.push(transaction(id, committed(id, 0), vec![step(vec![seen], vec![set(&key, &value)])]));
                state.insert(key, value);
            }
        }
        prop_assert_eq!(replay::check(&history), []);
        prop_assert_eq!(real_time::check(&history), []);
        let which = pick.index(history.len());
        if let Some((_, ReadResult::Key { value, .. })) = history[which].steps[0].reads.first_mut() {
            *value = Some("another".into());
        }
        let found = replay::check(&history);
        prop_assert_eq!(names(&found), ["replay"]);
    }
}
