//! Reads and writes on a cluster with parts that fall silent.

use std::time::Duration;

use plinth_api::ErrorCode;
use plinth_client::{ClientError, Isolation, Read};
use plinth_runtime::Scope;
use plinth_types::{Epoch, Key, Mutation, Value, Version};
use tokio::time::{Instant, timeout};

use crate::world::{WITHIN, World};

fn set() -> Vec<Mutation> {
    vec![Mutation::Set { key: Key::from("k"), value: Value::from("v") }]
}

#[tokio::test]
async fn reads_and_writes_wait_for_a_layout() {
    let world = World::new().await;
    let early = world.database.get(&Key::from("k"), Duration::from_millis(50)).await;
    assert!(matches!(early, Err(ClientError::Unavailable { .. })), "{early:?}");
    let (key, none) = (Key::from("k"), Key::from("none"));
    let read = world.database.get(&key, WITHIN);
    world.appoint(Epoch(5), 0);
    let read = read.await.unwrap();
    assert_eq!((read.version, read.value), (Version(500), Some(Value::from("v"))));
    assert_eq!(world.database.get(&none, WITHIN).await.unwrap().value, None);
    let committed = world.database.write(set(), WITHIN).await.unwrap();
    assert_eq!(committed.version, Version(900));
}

#[tokio::test]
async fn a_commit_that_is_refused_for_now_is_repeated() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    let refusals = [ErrorCode::Overloaded, ErrorCode::NotReady];
    world.first.script(|script| script.refusals = refusals.to_vec());
    assert!(world.database.write(set(), WITHIN).await.is_ok());
    assert_eq!(world.first.script(|script| script.commits.len()), 3);
    world.first.script(|script| script.refusals = vec![ErrorCode::LimitExceeded]);
    let refused = world.database.write(set(), WITHIN).await;
    assert!(matches!(refused, Err(ClientError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn a_silent_replica_costs_little() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    world.second.script(|script| script.storage_silent = true);
    let started = Instant::now();
    // Keys begin at different replicas, so some of these begin at the silent one.
    for key in ["a", "b", "c", "d"] {
        world.database.get(&Key::from(key), WITHIN).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_millis(2_500), "{:?}", started.elapsed());
}

#[tokio::test]
async fn reads_collect_while_one_is_under_way_and_a_lone_one_goes_at_once() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    let (open, hold) = tokio::sync::watch::channel(false);
    world.first.script(|script| script.hold = Some(hold.clone()));
    world.second.script(|script| script.hold = Some(hold));
    let transaction = world.database.begin(WITHIN);
    transaction.read_version().await.unwrap();
    // All of them end alike, so the same storage is asked first.
    let (scope, _end) = Scope::new();
    let read = |number: usize| {
        let transaction = transaction.clone();
        scope.spawn("reading", async move {
            transaction.get(&Key::from(format!("{number:03}b").as_str())).await
        })
    };
    let all = futures::future::join_all((0..100).map(read).collect::<Vec<_>>());
    let batches = || world.first.script(|s| s.batches.clone()).into_iter();
    let counted = async {
        // The first one is under way, the others wait for its answer.
        loop {
            tokio::task::yield_now().await;
            let sent = batches().count() + world.second.script(|script| script.batches.len());
            if sent > 0 {
                break open.send(true).unwrap();
            }
        }
    };
    let (values, ()) = tokio::join!(all, counted);
    for value in values {
        assert_eq!(value.unwrap().unwrap().unwrap(), Some(Value::from("v")));
    }
    let sizes: Vec<usize> =
        batches().chain(world.second.script(|script| script.batches.clone())).collect();
    assert!(sizes.iter().sum::<usize>() >= 100 && sizes.len() < 20, "{sizes:?}");
    let lone = world.database.get(&Key::from("b"), WITHIN).await.unwrap();
    assert_eq!(lone.value, Some(Value::from("v")));
}

#[tokio::test]
async fn whom_a_round_does_not_let_begin_is_served_by_the_next_ones() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    world.first.script(|script| script.granted = Some(3));
    let ask = |_| world.database.read_version(WITHIN);
    let versions = futures::future::join_all((0..10).map(ask)).await;
    assert!(versions.iter().all(|version| *version.as_ref().unwrap() == Version(500)));
    let asked_for = world.first.script(|script| script.asked_for.clone());
    assert!(asked_for.len() >= 4, "three of ten at a time: {asked_for:?}");
    assert!(asked_for.iter().all(|count| (1..=10).contains(count)), "{asked_for:?}");
}

#[tokio::test]
async fn a_read_that_is_early_in_its_batch_is_made_alone() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    world.first.script(|script| script.batches_are_early = true);
    world.second.script(|script| script.batches_are_early = true);
    let read = world.database.get(&Key::from("k"), WITHIN).await.unwrap();
    assert_eq!(read.value, Some(Value::from("v")));
}

#[tokio::test]
async fn many_keys_are_read_in_their_order_in_few_requests() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    let transaction = world.database.begin(WITHIN);
    transaction.set(&Key::from("own"), &Value::from("mine")).unwrap();
    let mut keys: Vec<Key> =
        (0..600).map(|number| Key::from(format!("{number}").as_str())).collect();
    keys.insert(3, Key::from("none"));
    keys.insert(5, Key::from("own"));
    let values = transaction.get_many(&keys, Isolation::Serializable).await.unwrap();
    assert_eq!(values.len(), keys.len());
    for (key, value) in keys.iter().zip(&values) {
        let expected = match key.as_bytes() {
            b"none" => None,
            b"own" => Some(Value::from("mine")),
            _ => Some(Value::from("v")),
        };
        assert_eq!(*value, expected, "{key}");
    }
    let batches = [&world.first, &world.second].map(|played| played.script(|s| s.batches.clone()));
    let batches = batches.concat();
    assert!(batches.iter().all(|size| *size <= 256) && batches.len() <= 6, "{batches:?}");
    transaction.commit().await.unwrap();
    let commit = world.first.script(|script| script.commits.pop().unwrap());
    assert_eq!(commit.reads.len(), 601 + 1, "what was read, and the marker; own writes are not");
}

#[tokio::test]
async fn a_silent_director_is_doubted_and_its_successor_found() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    world.database.get(&Key::from("k"), WITHIN).await.unwrap();
    // The first process freezes, its coordinator excepted; a new epoch begins at the second.
    world.first.script(|script| {
        script.director_silent = true;
        script.proxy_silent = true;
    });
    world.appoint(Epoch(6), 1);
    let key = Key::from("k");
    let read = timeout(Duration::from_secs(8), world.database.get(&key, WITHIN));
    assert_eq!(read.await.expect("long before the poll ends").unwrap().version, Version(600));
}

#[tokio::test]
async fn nobody_waits_for_the_commit_of_an_epoch_that_is_over() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    world.database.get(&Key::from("k"), WITHIN).await.unwrap();
    world.first.script(|script| script.proxy_silent = true);
    let write = timeout(Duration::from_secs(8), world.database.write(set(), WITHIN));
    let epoch_ends = async {
        while world.first.script(|script| script.commits.is_empty()) {
            tokio::task::yield_now().await;
        }
        world.first.script(|script| script.director_silent = true);
        world.appoint(Epoch(6), 1);
    };
    let (written, ()) = tokio::join!(write, epoch_ends);
    // Its fate is settled at the new epoch's proxy, by the same marker.
    assert!(written.expect("long before the deadline").is_ok());
    let marker = |played: &crate::world::Played| {
        played.script(|script| script.commits.last().unwrap().mutations.last().unwrap().clone())
    };
    assert_eq!(marker(&world.first), marker(&world.second));
}

#[tokio::test]
async fn readers_share_rounds() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    world.database.get(&Key::from("k"), WITHIN).await.unwrap();
    let before = world.first.script(|script| script.read_versions);
    let key = Key::from("k");
    let reads = (0..100).map(async |_| world.database.get(&key, WITHIN).await);
    for read in futures::future::join_all(reads).await {
        read.unwrap();
    }
    let rounds = world.first.script(|script| script.read_versions) - before;
    assert!(rounds < 100, "{rounds} rounds for 100 concurrent reads");
}

#[tokio::test]
async fn a_watch_answers_what_has_changed_or_that_nothing_has() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    let key = Key::from("k");
    let seen = |value: Option<&str>| Read { version: Version(7), value: value.map(Value::from) };
    let changed = world.database.watch(&key, &seen(None), WITHIN).await.unwrap();
    assert_eq!(changed, Some(Read { version: Version(8), value: Some("v".into()) }));
    let short = Duration::from_millis(100);
    let nothing = world.database.watch(&key, &seen(Some("v")), short).await.unwrap();
    assert_eq!(nothing, None);
    let gone = world.database.watch(&Key::from("none"), &seen(Some("v")), WITHIN).await.unwrap();
    assert_eq!(gone.unwrap().value, None);
}

#[tokio::test]
async fn snapshots_need_no_question_for_a_version_and_stale_reads_no_proxy() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    let key = Key::from("k");
    let strict = world.database.get(&key, WITHIN).await.unwrap();
    world.first.script(|script| script.proxy_silent = true);
    let snapshot = world.database.get_snapshot(&key, WITHIN).await.unwrap();
    assert_eq!(snapshot, strict);
    assert_eq!(world.database.get_stale(&key, WITHIN).await.unwrap().value, strict.value);
}
