//! The conformance suite on the simulated disk, and what only a simulated disk can be made to do.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use plinth_runtime::Random;
use proptest::prelude::*;

use super::{DiskCounts, DiskDelays, SimulatedDisk};
use crate::{Batch, Direction, Disk, Durability, Store, StoreError};

mod conformance {
    use super::*;

    fn fresh() -> (Arc<dyn Disk>, PathBuf, ()) {
        (Arc::new(disk(1, DiskDelays::default())), PathBuf::from("/data"), ())
    }

    crate::conformance_tests!(fresh);
}

mod conformance_without_delays {
    use super::*;

    fn fresh() -> (Arc<dyn Disk>, PathBuf, ()) {
        (Arc::new(disk(1, DiskDelays::none())), PathBuf::from("/data"), ())
    }

    crate::conformance_tests!(fresh);
}

/// SplitMix64.
struct Seeded(AtomicU64);

impl Random for Seeded {
    fn next_u64(&self) -> u64 {
        let mut z = self
            .0
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
            .wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn seeded(seed: u64) -> Arc<Seeded> {
    Arc::new(Seeded(AtomicU64::new(seed)))
}

fn disk(seed: u64, delays: DiskDelays) -> SimulatedDisk {
    SimulatedDisk::new("machine", seeded(seed), delays, None)
}

fn here() -> &'static Path {
    Path::new("/data")
}

async fn open(disk: &SimulatedDisk) -> Arc<dyn Store> {
    disk.open(here(), &["t"]).await.unwrap()
}

fn put(key: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put("t", key.to_vec(), "v");
    batch
}

fn has(store: &dyn Store, key: &[u8]) -> bool {
    store.get("t", key).unwrap().is_some()
}

#[tokio::test(start_paused = true)]
async fn synced_writes_survive_the_loss_of_power_and_others_are_cut_from_the_end() {
    let mut kept_counts = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let disk = disk(seed, DiskDelays::default());
        let store = open(&disk).await;
        store.write(put(b"0"), Durability::Buffered).await.unwrap();
        store.write(put(b"1"), Durability::Synced).await.unwrap();
        for key in [b"2", b"3", b"4"] {
            store.write(put(key), Durability::Buffered).await.unwrap();
        }
        disk.power_loss(&*seeded(seed));
        let store = open(&disk).await;
        let kept = store.scan("t", b"", None, Direction::Forward, 9).unwrap().len();
        for (index, key) in [b"0", b"1", b"2", b"3", b"4"].into_iter().enumerate() {
            assert_eq!(has(&*store, key), index < kept);
        }
        assert!(kept >= 2);
        kept_counts.insert(kept);
    }
    assert_eq!(kept_counts.into_iter().collect::<Vec<_>>(), [2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_never_half_there() {
    for seed in 0..40 {
        let disk = disk(seed, DiskDelays::default());
        let store = open(&disk).await;
        let mut pending = Vec::new();
        for number in 0..6_u8 {
            let mut batch = Batch::new();
            batch.put("t", vec![number, 0], "v").put("t", vec![number, 1], "v");
            pending.push(store.write(batch, Durability::Synced));
        }
        disk.power_loss(&*seeded(seed));
        let store = open(&disk).await;
        for number in 0..6 {
            assert_eq!(has(&*store, &[number, 0]), has(&*store, &[number, 1]));
        }
        for write in pending {
            assert!(write.await.is_err(), "a write that was cut off is not acknowledged");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_crash_keeps_what_was_written_and_ends_handles_and_locks() {
    let mine = disk(1, DiskDelays::default());
    let theirs = mine.process();
    let store = open(&mine).await;
    let their_store = theirs.open(Path::new("/theirs"), &["t"]).await.unwrap();
    let _lock = mine.lock(here()).unwrap();
    let _their_lock = theirs.lock(Path::new("/theirs")).unwrap();
    store.write(put(b"k"), Durability::Buffered).await.unwrap();
    assert!(matches!(theirs.lock(here()), Err(StoreError::Locked { .. })));

    mine.process_crash();
    assert!(matches!(store.get("t", b"k"), Err(StoreError::Io { .. })));
    assert!(matches!(
        store.write(put(b"late"), Durability::Synced).await,
        Err(StoreError::Io { .. })
    ));
    assert!(has(
        &*{
            their_store.write(put(b"k"), Durability::Synced).await.unwrap();
            their_store
        },
        b"k"
    ));
    assert!(matches!(mine.lock(Path::new("/theirs")), Err(StoreError::Locked { .. })));

    let _next_lock = mine.lock(here()).unwrap();
    let next = open(&mine).await;
    assert!(has(&*next, b"k"));
    assert!(!has(&*next, b"late"));
    drop(store);
    assert!(has(&*next, b"k"), "a dead handle's end is no end of the living one");
}

#[tokio::test(start_paused = true)]
async fn an_old_guard_does_not_free_a_new_lock() {
    let disk = disk(1, DiskDelays::none());
    let old = disk.lock(here()).unwrap();
    disk.process_crash();
    let _new = disk.lock(here()).unwrap();
    drop(old);
    assert!(matches!(disk.lock(here()), Err(StoreError::Locked { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_opening_does_not_outlive_its_process() {
    let disk = disk(1, DiskDelays::default());
    let opening = disk.open(here(), &["t"]);
    disk.process_crash();
    assert!(matches!(opening.await, Err(StoreError::Io { .. })));
    open(&disk).await;
}

#[tokio::test(start_paused = true)]
async fn writes_that_wait_share_one_sync() {
    let delay = Duration::from_millis(10);
    let delays = DiskDelays { sync: delay..=delay, ..DiskDelays::none() };
    let disk = disk(1, delays);
    let store = open(&disk).await;
    let start = tokio::time::Instant::now();
    let first = store.write(put(b"first"), Durability::Synced);
    let others: Vec<_> =
        (0..5_u8).map(|key| store.write(put(&[key]), Durability::Synced)).collect();
    assert!(!has(&*store, b"first"), "it is not seen before it is written");
    first.await.unwrap();
    assert_eq!(start.elapsed(), delay);
    for other in others {
        other.await.unwrap();
    }
    assert_eq!(start.elapsed(), 2 * delay);
    assert_eq!(disk.counts(), DiskCounts { writes: 6, syncs: 2, files: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_damaged_row_is_reported_until_it_is_written_again() {
    let disk = disk(1, DiskDelays::none());
    let store = open(&disk).await;
    for key in [b"a", b"b", b"c"] {
        store.write(put(key), Durability::Synced).await.unwrap();
    }
    assert!(!disk.corrupt_row(here(), "t", b"x"));
    assert!(disk.corrupt_row(here(), "t", b"b"));
    assert!(matches!(store.get("t", b"b"), Err(StoreError::Corrupt { .. })));
    assert!(matches!(
        store.scan("t", b"a", None, Direction::Forward, 9),
        Err(StoreError::Corrupt { .. })
    ));
    assert!(store.scan("t", b"a", Some(b"b"), Direction::Forward, 9).is_ok());
    assert!(has(&*store, b"c"));
    store.write(put(b"b"), Durability::Synced).await.unwrap();
    assert!(has(&*store, b"b"));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_block_is_some_neighbouring_rows_and_an_unnoticed_one_reads_as_something_else() {
    let mut sizes = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let disk = disk(seed, DiskDelays::none());
        let store = open(&disk).await;
        assert_eq!(disk.corrupt_block(here(), &*seeded(seed), true), None, "there is no row");
        for key in 0..20_u8 {
            store.write(put(&[key]), Durability::Synced).await.unwrap();
        }
        let (table, first, rows) = disk.corrupt_block(here(), &*seeded(seed), true).unwrap();
        let is_damaged =
            |key: u8| matches!(store.get(table, &[key]), Err(StoreError::Corrupt { .. }));
        let damaged: Vec<u8> = (0..20).filter(|key| is_damaged(*key)).collect();
        assert_eq!((damaged.len(), damaged[0]), (rows, first[0]));
        assert_eq!(usize::from(damaged[rows - 1] - damaged[0]), rows - 1, "they are neighbours");
        sizes.insert(rows);
    }
    assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8]);

    let disk = disk(1, DiskDelays::none());
    let store = open(&disk).await;
    store.write(put(b"k"), Durability::Synced).await.unwrap();
    assert!(disk.corrupt_block(here(), &*seeded(1), false).is_some());
    assert_ne!(store.get("t", b"k").unwrap().unwrap(), "v");
    disk.power_loss(&*seeded(1));
    assert_ne!(open(&disk).await.get("t", b"k").unwrap().unwrap(), "v");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_store_is_not_opened() {
    let disk = disk(1, DiskDelays::none());
    drop(open(&disk).await);
    assert!(disk.corrupt_store(here()));
    assert!(matches!(disk.open(here(), &["t"]).await.err(), Some(StoreError::Corrupt { .. })));
}

#[test]
fn a_damaged_file_is_reported_and_a_turned_bit_is_not() {
    let disk = disk(1, DiskDelays::none());
    let path = here().join("file");
    assert!(!disk.corrupt_file(&path));
    disk.write_file(&path, b"content").unwrap();
    assert!(disk.corrupt_file(&path));
    assert!(matches!(disk.read_file(&path), Err(StoreError::Corrupt { .. })));
    disk.write_file(&path, b"content").unwrap();
    assert!(disk.flip_bit(&path, &*seeded(1)));
    let flipped = disk.read_file(&path).unwrap().unwrap();
    let differing: u32 = flipped.iter().zip(b"content").map(|(a, b)| (a ^ b).count_ones()).sum();
    assert_eq!(differing, 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_writes_until_it_has_space() {
    let disk = disk(1, DiskDelays::default());
    let store = open(&disk).await;
    store.write(put(b"before"), Durability::Synced).await.unwrap();
    disk.set_full(true);
    let full = |result: Result<(), StoreError>| matches!(result, Err(StoreError::Full { .. }));
    assert!(full(store.write(put(b"during"), Durability::Synced).await));
    assert!(full(disk.write_file(&here().join("file"), b"x")));
    assert!(full(disk.create_directory(Path::new("/new"))));
    assert!(full(disk.open(Path::new("/store"), &["t"]).await.map(|_| ())));
    assert!(has(&*store, b"before") && !has(&*store, b"during"));
    disk.set_full(false);
    store.write(put(b"after"), Durability::Synced).await.unwrap();
    assert!(has(&*store, b"after") && !has(&*store, b"during"));
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_sync_nothing_is_accepted() {
    let disk = disk(1, DiskDelays::default());
    let store = open(&disk).await;
    store.write(put(b"before"), Durability::Synced).await.unwrap();
    assert!(disk.fail_next_sync(here()));
    assert!(matches!(store.write(put(b"k"), Durability::Synced).await, Err(StoreError::Io { .. })));
    assert!(store.write(put(b"k"), Durability::Buffered).await.is_err());
    assert!(store.get("t", b"before").is_err());
    drop(store);
    let store = open(&disk).await;
    assert!(has(&*store, b"before") && !has(&*store, b"k"));
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_directory_is_taken_away_goes_on_no_more() {
    let disk = disk(1, DiskDelays::none());
    let store = open(&disk).await;
    disk.rename(here(), Path::new("/elsewhere")).unwrap();
    assert!(store.write(put(b"k"), Durability::Synced).await.is_err());
    let other = open(&disk).await;
    disk.remove(here()).unwrap();
    assert!(other.get("t", b"k").is_err());
}

#[tokio::test(start_paused = true)]
async fn a_directory_is_put_back_as_it_was_durably() {
    let disk = disk(1, DiskDelays::default());
    let store = open(&disk).await;
    store.write(put(b"synced"), Durability::Synced).await.unwrap();
    store.write(put(b"written"), Durability::Buffered).await.unwrap();
    disk.write_file(&here().join("name"), b"before").unwrap();
    let image = disk.image(here());
    store.write(put(b"later"), Durability::Synced).await.unwrap();
    disk.write_file(&here().join("name"), b"after").unwrap();
    disk.write_file(&here().join("more"), b"after").unwrap();

    disk.put_back(&image).unwrap();
    let refused = store.write(put(b"too late"), Durability::Synced).await;
    assert!(refused.is_err(), "{refused:?}");
    let store = open(&disk).await;
    let keys: [&[u8]; 3] = [b"synced", b"written", b"later"];
    assert_eq!(keys.map(|key| has(&*store, key)), [true, false, false]);
    assert_eq!(disk.read_file(&here().join("name")).unwrap().unwrap(), "before");
    assert_eq!(disk.read_file(&here().join("more")).unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_events() {
    async fn events(seed: u64) -> Vec<String> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let start = tokio::time::Instant::now();
        let hook = move |machine: &str, event: &super::DiskEvent<'_>| {
            let at = start.elapsed().as_nanos();
            sink.lock().unwrap().push(format!("{at} {machine} {event:?}"));
        };
        let disk =
            SimulatedDisk::new("m", seeded(seed), DiskDelays::default(), Some(Arc::new(hook)));
        let store = open(&disk).await;
        for number in 0..20_u8 {
            let first = store.write(put(&[number]), Durability::Synced);
            let second = store.write(put(&[number, 1]), Durability::Buffered);
            let _ = futures::future::join(second, first).await;
        }
        disk.write_file(Path::new("/file"), b"x").unwrap();
        disk.power_loss(&*seeded(seed));
        drop(store);
        let seen = seen.lock().unwrap();
        seen.clone()
    }
    assert_eq!(events(7).await, events(7).await);
    assert_ne!(events(7).await, events(8).await);
}

#[derive(Clone, Debug)]
enum Step {
    Write { key: u8, durability: Durability, wait: bool },
    PowerLoss,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let durability = prop_oneof![Just(Durability::Buffered), Just(Durability::Synced)];
    let step = prop_oneof![
        8 => (0..4_u8, durability, any::<bool>()).prop_map(|(key, durability, wait)| Step::Write { key, durability, wait }),
        1 => Just(Step::PowerLoss),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// After any history, what is there is the outcome of some first part of the calls, and of all
    /// that were acknowledged as promised.
    #[test]
    fn what_survives_is_a_first_part_that_holds_every_promise(steps in steps(), seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let disk = disk(seed, DiskDelays::default());
            let random = seeded(!seed);
            let mut store = open(&disk).await;
            // Each write sets its key to its number; a log of (key, number) of those that may count.
            let mut history: Vec<(u8, u8)> = Vec::new();
            let (mut written, mut synced) = (0, 0);
            let mut pending = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                let number = u8::try_from(number).unwrap();
                match step {
                    Step::Write { key, durability, wait } => {
                        let mut batch = Batch::new();
                        batch.put("t", vec![key], vec![number]).put("t", vec![key + 100], vec![number]);
                        history.push((key, number));
                        let write = store.write(batch, durability);
                        if wait {
                            write.await.unwrap();
                            written = history.len();
                            if durability == Durability::Synced {
                                synced = history.len();
                            }
                        } else {
                            pending.push(write);
                        }
                    }
                    Step::PowerLoss | Step::Crash => {
                        let promised = if matches!(step, Step::Crash) {
                            disk.process_crash();
                            written
                        } else {
                            disk.power_loss(&*random);
                            synced
                        };
                        pending.clear();
                        store = open(&disk).await;
                        let survived = (promised..=history.len()).find(|count| agrees(&*store, &history[..*count]));
                        prop_assert!(survived.is_some(), "no first part explains what is there");
                        history.truncate(survived.unwrap_or_default());
                        written = history.len();
                        synced = synced.min(written);
                    }
                }
            }
            Ok(())
        })?;
    }
}

fn agrees(store: &dyn Store, history: &[(u8, u8)]) -> bool {
    (0..4_u8).all(|key| {
        let last = history
            .iter()
            .rev()
            .find(|(other, _)| *other == key)
            .map(|(_, number)| Bytes::from(vec![*number]));
        store.get("t", &[key]).unwrap() == last && store.get("t", &[key + 100]).unwrap() == last
    })
}
