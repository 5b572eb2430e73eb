//! The rows of the configuration agree with each other, whatever stood there before.

use std::collections::BTreeMap;

use plinth_system_config::{
    DecodeError, LastRecovery, Recorded, decode_stored, keys, recorded_from_rows, system_mutations,
    system_rows,
};
use plinth_types::{Key, KeyRange, Mutation, Value};
use proptest::prelude::*;

use crate::arbitrary::{InMemory, in_memory, leak, recorded};
use crate::samples;

type Rows = BTreeMap<Key, Value>;

fn apply(rows: &mut Rows, mutations: Vec<Mutation>) {
    for mutation in mutations {
        assert_eq!(
            mutation.range().intersection(&KeyRange::system_shard()),
            Some(mutation.range())
        );
        match mutation {
            Mutation::Set { key, value } => {
                rows.insert(key, value);
            }
            Mutation::Clear { key } => {
                rows.remove(&key);
            }
            Mutation::ClearRange(range) => rows.retain(|key, _| !range.contains(key.as_bytes())),
            Mutation::Atomic { .. } => unreachable!("rows are set and cleared, nothing else"),
        }
    }
}

fn read(rows: &Rows) -> Result<Recorded, DecodeError> {
    let shards = rows.iter().filter(|(key, _)| keys::shards().contains(key.as_bytes()));
    recorded_from_rows(&rows[keys::CONFIG].0, shards.map(|(key, value)| (key, &value.0)))
}

/// A shard map as a map: rows have one value a key and no order of their own.
fn with_distinct_shards(mut recorded: Recorded) -> Recorded {
    let shards: BTreeMap<_, _> = recorded.shards.0.into_iter().collect();
    recorded.shards.0 = shards.into_iter().collect();
    Recorded::new(recorded.config, recorded.shards)
}

proptest! {
    #[test]
    fn one_configuration_wholly_replaces_another(before in recorded(), after in recorded()) {
        let (before, after) = (with_distinct_shards(before), with_distinct_shards(after));
        let last = samples::last_recovery();
        let mut rows = Rows::new();
        apply(&mut rows, system_mutations(&before, &last).unwrap());
        apply(&mut rows, system_mutations(&after, &last).unwrap());
        prop_assert_eq!(&rows, &system_rows(&after, &last).unwrap());
        prop_assert_eq!(read(&rows).unwrap(), after);
    }

    #[test]
    fn nothing_that_dies_with_a_process_is_in_a_row(memory in in_memory()) {
        let InMemory { config, directory, recorded } = memory;
        let stored = Recorded::new(config.to_stored(&directory).unwrap(), recorded.shards);
        let stored = with_distinct_shards(stored);
        for (key, value) in system_rows(&stored, &samples::last_recovery()).unwrap() {
            prop_assert_eq!(leak(key.as_bytes(), &directory), None);
            prop_assert_eq!(leak(&value.0, &directory), None);
        }
    }
}

#[test]
fn every_fact_has_its_row() {
    let recorded = samples::recorded(2, 5);
    let last = samples::last_recovery();
    let rows = system_rows(&recorded, &last).unwrap();
    let json = |key: &str| -> serde_json::Value {
        let key = [b"\xff/system/", key.as_bytes()].concat();
        serde_json::from_slice(&rows[&Key::from(key)].0).unwrap()
    };
    assert_eq!(json("epoch"), 2);
    assert_eq!(serde_json::from_value::<LastRecovery>(json("last_recovery")).unwrap(), last);
    assert_eq!(json("cluster/id"), "000000000000000000000000000000c1");
    assert_eq!(json("cluster/config_version"), 5);
    assert_eq!(json("cluster/coordinators")[2]["service"], "coordinator-1@node-3");
    assert_eq!(json("parameters/failure_timeout_ms"), 400);
    assert_eq!(json("nodes/node-2")["zone"], "node-2");
    assert_eq!(json("layout/sequencer"), "sequencer-1@node-2");
    assert_eq!(json("layout/commit_proxies")[0], "commit-proxy-1@node-3");
    assert_eq!(json("layout/resolvers")[0]["range"]["from"], "");
    assert_eq!(json("layout/logs/00000000000000000000000000001001")["service"], "log-1@node-1");
    assert_eq!(json("layout/storage/0")["members"][1]["service"], "storage-1@node-2");
    assert_eq!(json("layout/shards/"), 1);
    let config = decode_stored(&rows[keys::CONFIG].0);
    assert_eq!(recorded.config, config.unwrap());
}

#[test]
fn the_same_input_gives_the_same_mutations() {
    let (recorded, last) = (samples::recorded(2, 5), samples::last_recovery());
    assert_eq!(
        system_mutations(&recorded, &last).unwrap(),
        system_mutations(&recorded.clone(), &last.clone()).unwrap()
    );
}

#[test]
fn a_shard_that_is_missing_or_foreign_is_seen() {
    let good = system_rows(&samples::recorded(2, 5), &samples::last_recovery()).unwrap();
    let system = keys::shard(&Key::from_static(plinth_types::SYSTEM_SHARD));

    let mut rows = good.clone();
    rows.remove(&system);
    assert!(matches!(read(&rows), Err(DecodeError::Shards(_))));

    let mut rows = good.clone();
    rows.insert(system.clone(), Value::from("7"));
    assert!(matches!(read(&rows), Err(DecodeError::Shards(_))));

    let mut rows = good.clone();
    rows.insert(system, Value::from("not a tag"));
    assert!(matches!(read(&rows), Err(DecodeError::ShardRow { .. })));

    let config = &good[keys::CONFIG].0;
    let foreign = [(keys::EPOCH, b"1")];
    assert!(matches!(recorded_from_rows(config, foreign), Err(DecodeError::ShardRow { .. })));
}
