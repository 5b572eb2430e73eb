//! Newcomers that take a copy, over HTTP.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use plinth_api::commit_proxy::Peer;
use plinth_api::log::Generation;
use plinth_api::storage::{ASSIGN, CopySource, PAGE, PageRequest, READ, STATUS, Status, TagStatus};
use plinth_api::{ErrorCode, Nothing};
use plinth_runtime::{Faults, Runtime};
use plinth_storage::Limits;
use plinth_store::SimulatedDisk;
use plinth_system_config::keys;
use plinth_types::{Epoch, Key, KeyRange, Mutation, SYSTEM_SHARD, StoreId, Tag, Version};

use crate::fixture::{Log, generation};
use crate::service::{
    Running, USER, assignment, joining, new_disk, read, set, start, start_as, start_in, values,
};

/// The marks that were passed.
#[derive(Default)]
struct Marks(Mutex<Vec<String>>);

impl Marks {
    fn of(&self, mark: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|passed| *passed == mark).count()
    }
}

impl Faults for Marks {
    fn fires(&self, _point: &'static str) -> bool {
        false
    }

    fn passed(&self, mark: &dyn std::fmt::Display) {
        self.0.lock().unwrap().push(mark.to_string());
    }
}

impl Running {
    async fn source(&self) -> CopySource {
        let store = self.ask(STATUS, &Nothing {}).await.unwrap().store;
        let service = "storage-1@node-1".parse().unwrap();
        CopySource { store, peer: Peer { service, pid: self.pid.clone() } }
    }

    async fn whole_when(&self) -> Status {
        let is_whole = |status: &Status| {
            status.tags.len() == 2 && status.tags.iter().all(|tag| tag.copying.is_none())
        };
        self.status_when(is_whole).await
    }
}

/// A member with `keys` keys on disk, of which its log has nothing any more.
async fn member(log: &Log, disk: &SimulatedDisk, generation: Generation, keys: u32) -> Running {
    let storage = start(disk).await;
    storage.ask(ASSIGN, &assignment(generation, &[log])).await.unwrap();
    log.push(Tag::SYSTEM, set(keys::CONFIG, "config 1"));
    for key in 0..keys {
        log.push(USER, set(format!("key {key:04}").as_str(), &"x".repeat(100)));
    }
    let last = log.push(USER, vec![Mutation::Clear { key: "key 0000".into() }]);
    log.commit();
    storage.status_when(|status| status.tags.iter().all(|tag| tag.durable == last)).await;
    log.drop_all();
    storage
}

#[tokio::test]
async fn a_newcomer_takes_a_copy_in_pages_and_follows_the_logs_from_there() {
    let disks = [new_disk(), new_disk()];
    let first = generation(1, Version::ZERO);
    let log = Log::start("log-1@node-1", first).await;
    let source = member(&log, &disks[0], first, 500).await;
    let limits = Limits { page_bytes: 1_000, ..Limits::default() };
    let newcomer = start_as("storage-1@node-2", &disks[1], limits).await;
    let sources = [source.source().await];
    newcomer.ask(ASSIGN, &joining(first, &[&log], &sources)).await.unwrap();
    // Meanwhile it goes on.
    for key in 0..50 {
        log.push(USER, set(format!("key {key:04}").as_str(), "changed"));
    }
    let last = log.push(USER, set("key 0499", "last"));
    log.commit();
    newcomer.whole_when().await;
    newcomer.status_when(|status| status.tags[1].version >= last).await;
    let asked = ["key 0000", "key 0049", "key 0050", "key 0499"];
    // It is no member yet.
    let refused = newcomer.ask(READ, &read(1, last, &asked)).await.unwrap_err();
    assert_eq!(refused, ErrorCode::WrongShard);
    newcomer.ask(ASSIGN, &assignment(first, &[&log])).await.unwrap();
    for storage in [&source, &newcomer] {
        let answer = storage.ask(READ, &read(1, last, &asked)).await.unwrap();
        assert_eq!(values(&answer), ["changed", "changed", &"x".repeat(100), "last"]);
        let config = storage.shard_config(last).await;
        assert_eq!(config.config, Some("config 1".into()));
    }
    // It survives what a member survives.
    disks[1].power_loss(&*Runtime::real().random());
    drop(newcomer);
    let newcomer = start_as("storage-1@node-2", &disks[1], limits).await;
    newcomer.ask(ASSIGN, &assignment(first, &[&log])).await.unwrap();
    let next = log.push(USER, set("next", "1"));
    log.commit();
    let answer = newcomer.ask(READ, &read(1, next, &["next", "key 0499"])).await.unwrap();
    assert_eq!(values(&answer), ["1", "last"]);
}

#[tokio::test]
async fn a_copy_that_is_broken_off_goes_on_from_another_member_and_is_no_member_before() {
    let disks = [new_disk(), new_disk(), new_disk()];
    let first = generation(1, Version::ZERO);
    let log = Log::start("log-1@node-1", first).await;
    let one = member(&log, &disks[0], first, 300).await;
    let limits = Limits { page_bytes: 1_000, ..Limits::default() };
    let newcomer = start_as("storage-1@node-2", &disks[1], limits).await;
    // Its second page is as of a version that the source does not get: the source ends before.
    newcomer.ask(ASSIGN, &joining(first, &[&log], &[one.source().await])).await.unwrap();
    newcomer.status_when(|status| status.tags.iter().any(|tag| tag.copying.is_some())).await;
    drop(one);
    disks[1].power_loss(&*Runtime::real().random());
    drop(newcomer);

    let newcomer = start_as("storage-1@node-2", &disks[1], limits).await;
    let status = newcomer.status_when(|_| true).await;
    if status.tags.iter().any(|tag| tag.copying.is_some()) {
        // A director that takes it for a member is told better.
        let refused = newcomer.ask(ASSIGN, &assignment(first, &[&log])).await.unwrap_err();
        assert_eq!(refused, ErrorCode::InvalidRequest);
    }
    // The system's keys may be whole already.
    let is_half = |tag: &TagStatus| tag.tag == Tag::SYSTEM && tag.copying.is_some();
    if status.tags.iter().any(is_half) {
        assert_eq!(newcomer.shard_config(Version::ZERO).await.config, None);
    }
    let other = start(&disks[0]).await;
    other.ask(ASSIGN, &assignment(first, &[&log])).await.unwrap();
    // One that does not run any more, and one that does.
    let gone = CopySource { store: StoreId(77), ..other.source().await };
    let sources = [gone, other.source().await];
    newcomer.ask(ASSIGN, &joining(first, &[&log], &sources)).await.unwrap();
    newcomer.whole_when().await;
    newcomer.ask(ASSIGN, &assignment(first, &[&log])).await.unwrap();
    let last = log.push(USER, set("last", "1"));
    log.commit();
    let answer = newcomer.ask(READ, &read(1, last, &["key 0000", "key 0001", "key 0299"])).await;
    let x = "x".repeat(100);
    assert_eq!(values(&answer.unwrap()), ["-", &x, &x]);
}

#[tokio::test]
async fn a_newcomer_begins_again_where_the_logs_have_dropped_what_it_lacks() {
    let disks = [new_disk(), new_disk()];
    let first = generation(1, Version::ZERO);
    let log = Log::start("log-1@node-1", first).await;
    let source = member(&log, &disks[0], first, 10).await;
    let newcomer = start_as("storage-1@node-2", &disks[1], Limits::default()).await;
    let sources = [source.source().await];
    newcomer.ask(ASSIGN, &joining(first, &[&log], &sources)).await.unwrap();
    newcomer.whole_when().await;
    // For a while nobody counts it, and it does not run.
    drop(newcomer);
    log.push(USER, vec![Mutation::ClearRange(KeyRange::new("key 0003".into(), "key 0005".into()))]);
    let last = log.push(USER, set("key 0005", "changed"));
    log.commit();
    source.status_when(|status| status.tags.iter().all(|tag| tag.durable == last)).await;
    log.drop_all();

    let marks = Arc::new(Marks::default());
    let runtime = Runtime::real().with_faults(Arc::clone(&marks) as Arc<dyn Faults>);
    let limits = Limits { retry_delay: Duration::from_millis(1), ..Limits::default() };
    let newcomer = start_in(runtime, "storage-1@node-2", &disks[1], limits).await;
    newcomer.ask(ASSIGN, &joining(first, &[&log], &sources)).await.unwrap();
    let is_at = |version| {
        let is_there = move |tag: &plinth_api::storage::TagStatus| {
            tag.copying.is_none() && tag.durable >= version
        };
        move |status: &Status| status.tags.len() == 2 && status.tags.iter().all(is_there)
    };
    newcomer.status_when(is_at(last)).await;
    // Each tag was begun again once. Who pulled what is dropped has ended, and does not have it begun
    // anew while it follows the logs.
    assert_eq!(marks.of("storage.copy_again"), 2);
    for round in 0..20 {
        let version = log.push(USER, set("round", &round.to_string()));
        log.commit();
        newcomer.status_when(is_at(version)).await;
    }
    assert_eq!(marks.of("storage.copy_again"), 2);
    newcomer.ask(ASSIGN, &assignment(first, &[&log])).await.unwrap();
    let next = log.push(USER, set("next", "1"));
    log.commit();
    let asked = ["key 0002", "key 0003", "key 0004", "key 0005", "key 0006"];
    let answer = newcomer.ask(READ, &read(1, next, &asked)).await.unwrap();
    let x = "x".repeat(100);
    assert_eq!(values(&answer), [&x, "-", "-", "changed", &x]);
}

#[tokio::test]
async fn a_page_is_given_to_who_asks_this_directory_in_this_epoch() {
    let disk = new_disk();
    let first = generation(1, Version::ZERO);
    let log = Log::start("log-1@node-1", first).await;
    let storage = member(&log, &disk, first, 3).await;
    let source = storage.source().await.store;
    let below = KeyRange::new(Key::default(), Key::from_static(SYSTEM_SHARD));
    let good = PageRequest {
        epoch: Epoch(1),
        source,
        newcomer: StoreId(5),
        tag: USER,
        range: below,
        at_least: Version::ZERO,
        limit_bytes: 1,
        wait_ms: 0,
    };
    let page = storage.ask(PAGE, &good).await.unwrap();
    assert_eq!((page.items.len(), page.range.to.clone()), (1, Some("key 0002".into())));
    assert_eq!(page.checksum, plinth_storage::copying::checksum(&page));
    for (bad, code) in [
        (PageRequest { source: StoreId(6), ..good.clone() }, ErrorCode::WrongShard),
        (PageRequest { tag: Tag(7), ..good.clone() }, ErrorCode::WrongShard),
        (PageRequest { range: KeyRange::all(), ..good.clone() }, ErrorCode::WrongShard),
        (PageRequest { epoch: Epoch(2), ..good.clone() }, ErrorCode::NotReady),
        (PageRequest { epoch: Epoch(0), ..good.clone() }, ErrorCode::StaleEpoch),
        (
            PageRequest { at_least: page.version.plus(1_000), ..good.clone() },
            ErrorCode::FutureVersion,
        ),
    ] {
        assert_eq!(storage.ask(PAGE, &bad).await.unwrap_err(), code, "{bad:?}");
    }
}
