//! The overlay against a copy of the data that is simply changed.

use plinth_types::Mutation;
use proptest::prelude::*;

use super::*;

type Data = BTreeMap<Key, Value>;

fn key() -> impl Strategy<Value = Key> {
    prop::collection::vec(0..3_u8, 0..3).prop_map(Key::from)
}

fn range() -> impl Strategy<Value = KeyRange> {
    (key(), prop::option::of(key())).prop_map(|(from, to)| match to {
        Some(to) if to < from => KeyRange { from: to, to: Some(from) },
        to => KeyRange { from, to },
    })
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let value = || prop::collection::vec(0..4_u8, 0..3).prop_map(Value::from);
    prop_oneof![
        (key(), value()).prop_map(|(key, value)| Mutation::Set { key, value }),
        key().prop_map(|key| Mutation::Clear { key }),
        range().prop_map(Mutation::ClearRange),
        (key(), prop::sample::select(&AtomicOp::ALL[..]), value())
            .prop_map(|(key, op, operand)| Mutation::Atomic { key, op, operand }),
    ]
}

fn write(overlay: &mut Overlay, data: &mut Data, mutation: Mutation) {
    match mutation {
        Mutation::Set { key, value } => {
            overlay.set(&key, Some(value.clone()));
            data.insert(key, value);
        }
        Mutation::Clear { key } => {
            overlay.set(&key, None);
            data.remove(&key);
        }
        Mutation::ClearRange(range) => {
            overlay.clear_range(&range);
            data.retain(|key, _| !range.contains(key.as_bytes()));
        }
        Mutation::Atomic { key, op, operand } => {
            overlay.atomic(&key, op, &operand);
            match op.apply(data.get(&key), &operand) {
                Some(value) => drop(data.insert(key, value)),
                None => drop(data.remove(&key)),
            }
        }
    }
}

fn rows(data: &Data, range: &KeyRange) -> Vec<KeyValue> {
    let held = data.iter().filter(|(key, _)| range.contains(key.as_bytes()));
    held.map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn reads_are_of_the_data_as_it_was_changed(
        base in prop::collection::btree_map(key(), key().prop_map(|key| Value(key.0)), 0..8),
        mutations in prop::collection::vec(mutation(), 0..12),
        reads in prop::collection::vec((key(), range()), 1..8),
    ) {
        let (mut overlay, mut data) = (Overlay::default(), base.clone());
        for mutation in mutations {
            write(&mut overlay, &mut data, mutation);
        }
        for (key, range) in reads {
            let value = match overlay.look(&key) {
                Known::Value(value) => value,
                Known::Base(ops) => apply(base.get(&key).cloned(), &ops),
                Known::Unreadable => panic!("nothing is stamped"),
            };
            prop_assert_eq!(value.as_ref(), data.get(&key));
            let merged = overlay.merge(&range, rows(&base, &range)).unwrap();
            let expected: Data = rows(&data, &range).into_iter().map(|row| (row.key, row.value)).collect();
            prop_assert_eq!(merged, expected);
        }
    }

    /// Whatever others write outside of the dependent parts, what is read stays the same; and the
    /// parts are in the range, in order, without touching.
    #[test]
    fn only_the_dependent_parts_matter(
        base in prop::collection::btree_map(key(), key().prop_map(|key| Value(key.0)), 0..8),
        other in prop::collection::btree_map(key(), key().prop_map(|key| Value(key.0)), 0..8),
        mutations in prop::collection::vec(mutation(), 0..12),
        range in range(),
    ) {
        let (mut overlay, mut ignored) = (Overlay::default(), Data::new());
        for mutation in mutations {
            write(&mut overlay, &mut ignored, mutation);
        }
        let parts = overlay.dependent(&range);
        let inside = |key: &Key| parts.iter().any(|part| part.contains(key.as_bytes()));
        let mut changed: Data = other.into_iter().filter(|(key, _)| !inside(key)).collect();
        changed.extend(base.iter().filter(|(key, _)| inside(key)).map(|(key, value)| (key.clone(), value.clone())));
        let merged = |data: &Data| overlay.merge(&range, rows(data, &range)).unwrap();
        prop_assert_eq!(merged(&base), merged(&changed));
        prop_assert!(parts.iter().all(|part| !part.is_empty() && range.covers(part)));
        prop_assert!(parts.windows(2).all(|two| two[0].to.as_ref().is_some_and(|to| *to < two[1].from)));
    }
}

#[test]
fn what_bears_the_versionstamp_can_not_be_read() {
    let mut overlay = Overlay::default();
    overlay.stamped_value(&"v".into());
    overlay.stamped_key(KeyRange::new("k1".into(), "k2".into()));
    assert_eq!(overlay.look(&"v".into()), Known::Unreadable);
    assert_eq!(overlay.look(&"k1x".into()), Known::Unreadable);
    assert_eq!(overlay.look(&"k2".into()), Known::Base(vec![]));
    assert!(overlay.merge(&KeyRange::new("k".into(), "l".into()), vec![]).is_err());
    assert!(overlay.merge(&KeyRange::new("k2".into(), "l".into()), vec![]).is_ok());
    overlay.atomic(&"v".into(), AtomicOp::Add, &"1".into());
    assert_eq!(overlay.look(&"v".into()), Known::Unreadable);
    overlay.set(&"v".into(), Some("2".into()));
    assert_eq!(overlay.look(&"v".into()), Known::Value(Some("2".into())));
}

#[test]
fn many_writes_of_ones_own_do_not_make_many_conflict_ranges() {
    let mut overlay = Overlay::default();
    for number in 0..1_000_u16 {
        overlay.set(&Key::from(number.to_be_bytes().to_vec()), None);
    }
    assert_eq!(overlay.dependent(&KeyRange::all()), [KeyRange::all()]);
}
