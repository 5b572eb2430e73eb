//! Banks, rings, sets and registers, good and bad.

use std::collections::{BTreeMap, BTreeSet};

use plinth_test_histories::checks::registers::{Action, Operation};
use plinth_test_histories::checks::sets::{Addition, Outcome, Sight};
use plinth_test_histories::checks::{bank, registers, ring, sets};
use proptest::prelude::*;

#[test]
fn a_bank_keeps_its_total() {
    let snapshot = |balances: &[i64]| ("someone".to_owned(), balances.to_vec());
    assert_eq!(bank::check(10, &[snapshot(&[5, 5]), snapshot(&[12, -2])]), []);
    assert_eq!(bank::check(10, &[snapshot(&[5, 5]), snapshot(&[5, 6])]).len(), 1);
    assert_eq!(bank::check(10, &[snapshot(&[10])]), []);
    assert_eq!(bank::check(10, &[snapshot(&[])]).len(), 1, "accounts that are gone");
}

#[test]
fn a_ring_is_one() {
    let snapshot =
        |nexts: &[(u64, u64)]| ("someone".to_owned(), BTreeMap::from_iter(nexts.to_vec()));
    assert_eq!(ring::check(&[snapshot(&[(0, 1), (1, 2), (2, 0)])]), []);
    for bad in [
        &[(0, 1), (1, 0), (2, 2)][..],
        &[(0, 1), (1, 1), (2, 0)],
        &[(0, 1), (1, 2)],
        &[(0, 7), (1, 2), (2, 0)],
    ] {
        assert_eq!(ring::check(&[snapshot(bad)]).len(), 1, "{bad:?}");
    }
}

fn sight(began: u64, ended: u64, elements: &[u64]) -> Sight {
    Sight { began, ended, elements: elements.iter().copied().collect() }
}

#[test]
fn a_set_loses_nothing_and_shows_nothing_refused() {
    let add = |element, began, ended, outcome| Addition { element, began, ended, outcome };
    let additions = [
        add(1, 1, 2, Outcome::Acknowledged),
        add(2, 5, 9, Outcome::Acknowledged),
        add(3, 3, 4, Outcome::Refused),
        add(4, 3, 4, Outcome::Unknown),
    ];
    let good = [
        sight(1, 3, &[]),
        sight(3, 4, &[1]),
        sight(6, 7, &[1]),
        sight(10, 11, &[1, 2]),
        sight(12, 13, &[1, 2, 4]),
    ];
    assert_eq!(sets::check(&additions, &good), []);
    for (bad, what) in [
        (&[sight(3, 4, &[])][..], "an acknowledged one is not there"),
        (&[sight(3, 4, &[1, 3])], "a refused one is there"),
        (&[sight(3, 4, &[1, 2])], "one is there too early"),
        (&[sight(3, 4, &[1, 7])], "one is there that nobody added"),
        (&[sight(3, 4, &[1, 4]), sight(5, 6, &[1])], "one is gone again"),
        (
            &[sight(6, 7, &[1, 2]), sight(8, 10, &[1])],
            "one is gone again that is acknowledged later",
        ),
    ] {
        assert_eq!(sets::check(&additions, bad).len(), 1, "{what}");
    }
}

fn write(value: u64, began: u64, ended: u64) -> Operation<u64> {
    Operation { began, ended, outcome: Outcome::Acknowledged, action: Action::Write(value) }
}

fn read(value: Option<u64>, began: u64, ended: u64) -> Operation<u64> {
    Operation { began, ended, outcome: Outcome::Acknowledged, action: Action::Read(value) }
}

#[test]
fn a_register_is_linearizable() {
    let of = |outcome, operation: Operation<u64>| Operation { outcome, ..operation };
    for good in [
        vec![read(None, 1, 2), write(1, 3, 4), read(Some(1), 5, 6)],
        // Those that overlap may take effect in either order.
        vec![write(1, 1, 10), write(2, 2, 9), read(Some(1), 11, 12), read(Some(1), 13, 14)],
        vec![write(1, 1, 10), read(Some(1), 2, 3), read(Some(1), 4, 5)],
        vec![write(1, 1, 2), of(Outcome::Unknown, write(2, 3, 4)), read(Some(1), 5, 6)],
        vec![
            write(1, 1, 2),
            of(Outcome::Unknown, write(2, 3, 4)),
            read(Some(1), 5, 6),
            read(Some(2), 7, 8),
        ],
        vec![write(1, 1, 2), of(Outcome::Refused, write(2, 3, 4)), read(Some(1), 5, 6)],
    ] {
        assert_eq!(registers::check("r", &good), [], "{good:?}");
    }
    for (bad, what) in [
        (vec![write(1, 1, 2), read(None, 3, 4)], "a stale read"),
        (vec![write(1, 1, 2), write(2, 3, 4), read(Some(1), 5, 6)], "an older value"),
        (vec![read(Some(1), 1, 2), write(1, 3, 4)], "a read of the future"),
        (vec![read(Some(7), 1, 2)], "a value from nowhere"),
        (vec![of(Outcome::Refused, write(1, 1, 2)), read(Some(1), 3, 4)], "a refused one"),
        (
            vec![write(1, 1, 10), write(2, 2, 9), read(Some(1), 11, 12), read(Some(2), 13, 14)],
            "the order changes",
        ),
        (
            vec![write(1, 1, 10), read(Some(1), 2, 3), read(None, 4, 5)],
            "a value that was seen is gone again",
        ),
        (
            vec![
                write(1, 1, 2),
                of(Outcome::Unknown, write(2, 3, 4)),
                read(Some(2), 5, 6),
                read(Some(1), 7, 8),
            ],
            "one of unknown fate was seen and is gone again",
        ),
    ] {
        assert!(!registers::check("r", &bad).is_empty(), "{what}");
    }
}

/// Whether some order of the operations explains them all, by trying.
fn is_explained(operations: &[Operation<u64>], value: Option<u64>, left: &BTreeSet<usize>) -> bool {
    // What may come next: whatever began before any other that is left has ended.
    let first_end = left.iter().map(|index| operations[*index].ended).min().unwrap_or(u64::MAX);
    left.is_empty()
        || left.iter().filter(|index| operations[**index].began < first_end).any(|index| {
            let mut rest = left.clone();
            rest.remove(index);
            match operations[*index].action {
                Action::Write(next) => is_explained(operations, Some(next), &rest),
                Action::Read(seen) => seen == value && is_explained(operations, value, &rest),
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn registers_are_judged_as_by_trying_every_order(
        steps in proptest::collection::vec((any::<bool>(), 0u64..4, 0u64..12, 1u64..8), 1..7),
    ) {
        // Distinct moments, so that nothing begins as another ends.
        let operations: Vec<Operation<u64>> = (0u64..).zip(steps).map(|(number, (writes, seen, began, lasts))| {
            let (began, ended) = (began * 100 + number + 1, (began + lasts) * 100 + number + 1);
            if writes { write(number, began, ended) } else { read(seen.checked_sub(1), began, ended) }
        }).collect();
        let all = (0..operations.len()).collect();
        prop_assert_eq!(registers::check("r", &operations).is_empty(), is_explained(&operations, None, &all));
    }
}
