//! Transactions against a copy of the data, and what conflicts.

use plinth_client::{ClientError, Isolation, KeySelector, RangeOptions, Transaction};
use plinth_types::{AtomicOp, Epoch, Key, KeyRange, Mutation, Value, Versionstamp};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use crate::memory::{Data, Memory, changed, rows};
use crate::world::{WITHIN, World};

pub(crate) async fn remembering() -> World {
    let world = World::new().await;
    world.first.script(|script| script.memory = Some(Memory::default()));
    world.appoint(Epoch(5), 0);
    world
}

#[derive(Clone, Debug)]
enum Step {
    Write(Mutation),
    Get(Key, Isolation),
    Range(KeyRange, usize, bool, Isolation),
    Select(KeySelector, Isolation),
}

fn key() -> impl Strategy<Value = Key> {
    prop::collection::vec(0..3_u8, 0..4).prop_map(Key::from)
}

fn range() -> impl Strategy<Value = KeyRange> {
    (key(), key()).prop_map(|(a, b)| KeyRange::new(a.clone().min(b.clone()), a.max(b)))
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let value = || prop::collection::vec(0..4_u8, 0..3).prop_map(Value::from);
    prop_oneof![
        3 => (key(), value()).prop_map(|(key, value)| Mutation::Set { key, value }),
        1 => key().prop_map(|key| Mutation::Clear { key }),
        1 => range().prop_map(Mutation::ClearRange),
        3 => (key(), prop::sample::select(&AtomicOp::ALL[..]), value())
            .prop_map(|(key, op, operand)| Mutation::Atomic { key, op, operand }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let isolation = || prop::sample::select(vec![Isolation::Serializable, Isolation::Snapshot]);
    prop_oneof![
        4 => mutation().prop_map(Step::Write),
        2 => (key(), isolation()).prop_map(|(key, isolation)| Step::Get(key, isolation)),
        2 => (range(), 1..12_usize, any::<bool>(), isolation())
            .prop_map(|(range, limit, reverse, isolation)| Step::Range(range, limit, reverse, isolation)),
        2 => (key(), any::<bool>(), -6..7_i32, isolation()).prop_map(|(key, or_equal, offset, isolation)| {
            Step::Select(KeySelector { key, or_equal, offset }, isolation)
        }),
    ]
}

fn write(transaction: &Transaction, mutation: &Mutation) {
    match mutation {
        Mutation::Set { key, value } => transaction.set(key, value),
        Mutation::Clear { key } => transaction.clear(key),
        Mutation::ClearRange(range) => transaction.clear_range(range),
        Mutation::Atomic { key, op, operand } => transaction.atomic(key, *op, operand),
    }
    .unwrap();
}

/// What a selector names, counted out in full.
fn select(data: &Data, selector: &KeySelector) -> Key {
    let keys: Vec<&Key> = data.keys().collect();
    let below = |key: &&&Key| **key < &selector.key || selector.or_equal && ***key == selector.key;
    let base = keys.iter().filter(below).count() as i64 - 1;
    let place = base + i64::from(selector.offset);
    match usize::try_from(place) {
        Err(_) => Key::default(),
        Ok(place) => keys.get(place).map_or(Key::from_static(b"\xff"), |key| (*key).clone()),
    }
}

/// With its own writes in what it reads, or without.
async fn play(world: &World, base: Data, steps: Vec<Step>, with_own: bool) {
    let initial =
        base.iter().map(|(key, value)| Mutation::Set { key: key.clone(), value: value.clone() });
    world.first.script(|script| {
        let memory = script.memory.as_mut().unwrap();
        memory.write(vec![Mutation::ClearRange(KeyRange::all())]);
        memory.write(initial.collect());
    });
    let transaction = world.database.begin(WITHIN);
    let mut data = base.clone();
    transaction.read_version().await.unwrap();
    if !with_own {
        transaction.ignore_own_writes();
    }
    for step in &steps {
        let seen = if with_own { data.clone() } else { base.clone() };
        match step {
            Step::Write(mutation) => {
                write(&transaction, mutation);
                data = changed(data, std::slice::from_ref(mutation));
            }
            Step::Get(key, isolation) => {
                let value = transaction.get_with(key, *isolation).await.unwrap();
                assert_eq!(value.as_ref(), seen.get(key), "{key} after {steps:?}");
            }
            Step::Range(range, limit, reverse, isolation) => {
                let options = RangeOptions {
                    limit: *limit,
                    reverse: *reverse,
                    isolation: *isolation,
                    ..RangeOptions::default()
                };
                let result = transaction.get_range(range, options).await.unwrap();
                let mut expected = rows(&seen, range, *reverse);
                assert_eq!(result.more, expected.len() >= *limit, "{range:?} after {steps:?}");
                expected.truncate(*limit);
                assert_eq!(result.items, expected, "{range:?} after {steps:?}");
            }
            Step::Select(selector, isolation) => {
                let key = transaction.get_key(selector, *isolation).await.unwrap();
                assert_eq!(key, select(&seen, selector), "{selector:?} after {steps:?}");
            }
        }
    }
    transaction.commit().await.unwrap();
    let committed = world.first.script(|script| script.memory.as_ref().unwrap().users());
    assert_eq!(committed, data, "after {steps:?}");
}

#[tokio::test]
async fn whatever_is_read_is_the_data_with_the_transactions_own_writes_or_without() {
    let world = remembering().await;
    let mut runner = TestRunner::new(Config::default());
    let base = prop::collection::btree_map(key(), key().prop_map(|key| Value(key.0)), 0..12);
    let steps = prop::collection::vec(step(), 1..14);
    for _ in 0..150 {
        let base = base.new_tree(&mut runner).unwrap().current();
        let steps = steps.new_tree(&mut runner).unwrap().current();
        play(&world, base.clone(), steps.clone(), true).await;
        play(&world, base, steps, false).await;
    }
}

/// Reads, then another transaction writes a key, then this one commits something.
async fn conflicts<F: Future<Output = ()>>(
    world: &World,
    written: &str,
    act: impl FnOnce(Transaction) -> F,
) -> bool {
    let transaction = world.database.begin(WITHIN);
    transaction.read_version().await.unwrap();
    act(transaction.clone()).await;
    let other = vec![Mutation::Set { key: written.into(), value: "other".into() }];
    world.first.script(|script| script.memory.as_mut().unwrap().write(other));
    transaction.set(&"result/0".into(), &"r".into()).unwrap();
    match transaction.commit().await {
        Ok(()) => false,
        Err(ClientError::Conflict) => true,
        Err(error) => panic!("{error}"),
    }
}

fn keys(from: &str, to: &str) -> KeyRange {
    KeyRange::new(from.into(), to.into())
}

#[tokio::test]
async fn what_was_read_conflicts_and_nothing_else() {
    let world = remembering().await;
    let data = ["b0", "d0", "f0"].map(|key| Mutation::Set { key: key.into(), value: "v".into() });
    world.first.script(|script| script.memory.as_mut().unwrap().write(data.to_vec()));
    let get = async |tx: Transaction| drop(tx.get(&"b0".into()).await.unwrap());
    assert!(conflicts(&world, "b0", get).await);
    assert!(!conflicts(&world, "b00", get).await);
    let absent = async |tx: Transaction| drop(tx.get(&"c0".into()).await.unwrap());
    assert!(conflicts(&world, "c0", absent).await);
    let snapshot =
        async |tx: Transaction| drop(tx.get_with(&"b0".into(), Isolation::Snapshot).await.unwrap());
    assert!(!conflicts(&world, "b0", snapshot).await);

    // No phantoms: the whole range that was read, but not what a limit left unread.
    let whole = async |tx: Transaction| {
        drop(tx.get_range(&keys("a0", "e0"), RangeOptions::default()).await.unwrap())
    };
    assert!(conflicts(&world, "a5", whole).await && !conflicts(&world, "e0", whole).await);
    let limit = |reverse| RangeOptions { limit: 1, reverse, ..RangeOptions::default() };
    let first =
        async |tx: Transaction| drop(tx.get_range(&keys("b0", "z0"), limit(false)).await.unwrap());
    assert!(conflicts(&world, "b0", first).await && !conflicts(&world, "b5", first).await);
    let last =
        async |tx: Transaction| drop(tx.get_range(&keys("b0", "f00"), limit(true)).await.unwrap());
    assert!(conflicts(&world, "f0", last).await && !conflicts(&world, "e5", last).await);

    // A selector conflicts with what would make it name another key.
    let next = KeySelector::first_greater_than("d0".into());
    let select =
        async |tx: Transaction| drop(tx.get_key(&next, Isolation::Serializable).await.unwrap());
    assert!(!conflicts(&world, "d0", select).await && conflicts(&world, "d2", select).await);

    // One's own writes depend on nobody; atomic operations do once they are read.
    let own = async |tx: Transaction| {
        tx.set(&"b0".into(), &"mine".into()).unwrap();
        tx.get(&"b0".into()).await.unwrap();
    };
    assert!(!conflicts(&world, "b0", own).await);
    let unread =
        async |tx: Transaction| tx.atomic(&"b0".into(), AtomicOp::Add, &"1".into()).unwrap();
    assert!(!conflicts(&world, "b0", unread).await);
    let atomic = async |tx: Transaction| {
        tx.atomic(&"b0".into(), AtomicOp::Add, &"1".into()).unwrap();
        tx.get(&"b0".into()).await.unwrap();
    };
    assert!(conflicts(&world, "b0", atomic).await);
    let declared = async |tx: Transaction| tx.add_read_conflict(&keys("x0", "y0")).unwrap();
    assert!(conflicts(&world, "x5", declared).await && !conflicts(&world, "y0", declared).await);
    let for_others = world.database.begin(WITHIN);
    for_others.get(&"b0".into()).await.unwrap();
    let writer = world.database.begin(WITHIN);
    writer.add_write_conflict(&keys("b0", "b00")).unwrap();
    writer.commit().await.unwrap();
    for_others.set(&"result/0".into(), &"r".into()).unwrap();
    assert!(matches!(for_others.commit().await, Err(ClientError::Conflict)));
}

#[tokio::test]
async fn versionstamps_are_of_the_commit_and_can_not_be_read_before() {
    let world = remembering().await;
    let transaction = world.database.begin(WITHIN);
    transaction.set_versionstamped_key(&"job/0123456789".into(), 4, &"j".into()).unwrap();
    transaction.set_versionstamped_value(&"at0".into(), &"<0123456789>".into(), 1).unwrap();
    let unreadable = transaction.get(&"at0".into()).await;
    assert!(matches!(unreadable, Err(ClientError::Unreadable)), "{unreadable:?}");
    let unreadable = transaction.get_range(&keys("job/", "job0"), RangeOptions::default()).await;
    assert!(matches!(unreadable, Err(ClientError::Unreadable)), "{unreadable:?}");
    let place = transaction.set_versionstamped_key(&"job/012345678".into(), 4, &"j".into());
    assert!(matches!(place, Err(ClientError::StampPlace)));
    assert_eq!(transaction.versionstamp(), None);
    transaction.commit().await.unwrap();
    let stamp = transaction.versionstamp().unwrap();
    let data = world.first.script(|script| script.memory.as_ref().unwrap().users());
    let with = |before: &[u8], after: &[u8]| [before, &stamp.to_bytes(), after].concat();
    assert_eq!(data.get(&Key::from(with(b"job/", b""))), Some(&"j".into()));
    assert_eq!(data.get(&Key::from("at0")), Some(&Value::from(with(b"<", b">"))));
    assert_eq!(Versionstamp::from_prefix(&stamp.to_bytes()), Some(stamp));
    let ended = transaction.set(&"k".into(), &"v".into());
    assert!(matches!(ended, Err(ClientError::Ended)));
}

#[tokio::test]
async fn limits_are_errors_that_name_them() {
    let world = remembering().await;
    let transaction = world.database.begin(WITHIN);
    let limit = |result: Result<(), ClientError>| match result {
        Err(ClientError::Limit { actual, limit, .. }) => (actual, limit),
        other => panic!("{other:?}"),
    };
    let long = Key::from(vec![b'k'; 10_001]);
    assert_eq!(limit(transaction.set(&long, &"v".into())), (10_001, 10_000));
    let large = Value::from(vec![0; 100_001]);
    assert_eq!(limit(transaction.set(&"k".into(), &large)), (100_001, 100_000));
    let most = Value::from(vec![0; 100_000]);
    for _ in 0..99 {
        transaction.set(&"k".into(), &most).unwrap();
    }
    assert_eq!(
        limit(
            transaction.set(&"kk".into(), &most).and_then(|()| transaction.set(&"k".into(), &most))
        )
        .1,
        10_000_000
    );
    for system in [&b"\xff"[..], b"\xff/system/config", b"\xff/idempotency/x"] {
        let key = Key::from(system);
        assert!(matches!(transaction.set(&key, &"v".into()), Err(ClientError::SystemKey)));
        assert!(matches!(transaction.get(&key).await, Err(ClientError::SystemKey)));
    }
    let all = KeyRange::all();
    assert!(matches!(transaction.clear_range(&all), Err(ClientError::SystemKey)));
    let inverted = transaction.clear_range(&KeyRange { from: "b".into(), to: Some("a".into()) });
    assert!(matches!(inverted, Err(ClientError::InvertedRange)));
    transaction.read_system_keys();
    assert!(transaction.get_range(&all, RangeOptions::default()).await.is_ok());
}

#[tokio::test]
async fn a_body_runs_again_until_it_commits() {
    use crate::memory::Mishap;
    let world = remembering().await;
    world.first.script(|script| {
        script.memory.as_mut().unwrap().mishaps = vec![Mishap::Overtaken, Mishap::Overtaken];
    });
    let runs = std::sync::atomic::AtomicUsize::new(0);
    let seen = world
        .database
        .run(WITHIN, |transaction| {
            runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async move {
                let seen = transaction.get(&"k0".into()).await?;
                transaction.set(&"copy0".into(), &seen.clone().unwrap_or_default())?;
                Ok::<_, ClientError>(seen)
            }
        })
        .await
        .unwrap();
    assert_eq!(runs.into_inner(), 3);
    assert_eq!(seen, Some("overtaken".into()));
}
