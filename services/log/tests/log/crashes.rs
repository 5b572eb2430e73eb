//! Rows on a disk that loses power, and on one that is damaged.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plinth_log::Limits;
use plinth_log::machine::Machine;
use plinth_log::records::{self, ENTRIES, META, OnDisk, ReadError};
use plinth_runtime::Random;
use plinth_store::{Disk, DiskDelays, Durability, SimulatedDisk, Store, StoreError};
use plinth_types::{Epoch, Version};
use proptest::prelude::*;

use crate::fixture::{STORE, USER, assignment, entry, lock_request};

/// SplitMix64.
struct Seeded(AtomicU64);

impl Random for Seeded {
    fn next_u64(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Bytes of entries in memory: of a few entries, the others are left to the disk.
const MEMORY: u64 = 300;

fn limits() -> Limits {
    Limits { memory_bytes: MEMORY, ..Limits::default() }
}

fn directory() -> &'static Path {
    Path::new("/log")
}

async fn open(disk: &SimulatedDisk) -> (Arc<dyn Store>, Machine) {
    let store = disk.open(directory(), &[ENTRIES, META]).await.unwrap();
    let machine = Machine::new(STORE, limits(), records::read(&*store, MEMORY).unwrap());
    (store, machine)
}

/// Writes what the machine has queued; waits for it only if `wait`.
async fn write(store: &Arc<dyn Store>, machine: &mut Machine, wait: bool) {
    if let Some((rows, mark)) = machine.take_rows() {
        let durability = if mark.urgent() { Durability::Synced } else { Durability::Buffered };
        let done = store.write(records::batch(&rows).unwrap(), durability);
        if wait {
            done.await.unwrap();
            machine.synced(mark);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Epochs of pushes, each ended by a loss of power at an arbitrary point: whatever was
    /// acknowledged is there, in order, and the lock still stands.
    #[test]
    fn what_was_acknowledged_survives_the_loss_of_power(seed: u64, epochs in prop::collection::vec(
        prop::collection::vec(any::<bool>(), 0..12), 1..6))
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let random = Arc::new(Seeded(AtomicU64::new(seed)));
            let disk = SimulatedDisk::new("node-1", random.clone(), DiskDelays::default(), None);
            let mut acknowledged: Vec<Version> = Vec::new();
            for (number, pushes) in epochs.iter().enumerate() {
                let epoch = number as u64 + 1;
                let (store, mut machine) = open(&disk).await;
                prop_assert_eq!(machine.locked(), Epoch(epoch - 1));
                let last = acknowledged.last().copied().unwrap_or_default();
                prop_assert!(machine.end() >= last);
                let held: Vec<Version> = records::read(&*store, u64::MAX).unwrap().entries.iter().map(|entry| entry.version).collect();
                prop_assert!(acknowledged.iter().all(|version| held.contains(version)));
                machine.lock(&lock_request(epoch)).unwrap();
                write(&store, &mut machine, true).await;
                // Others have only what was acknowledged: the rest goes.
                let take_up = assignment(epoch, last);
                machine.take_up(&take_up, Vec::new()).unwrap();
                write(&store, &mut machine, true).await;
                prop_assert_eq!(machine.end(), last);
                for wait in pushes {
                    let prev = machine.end();
                    let version = prev.plus(10).max(take_up.generation.first_version);
                    machine.push(entry(epoch, prev, version, machine.durable(), &[USER])).unwrap();
                    write(&store, &mut machine, *wait).await;
                    if *wait {
                        let new = held_since(&store, &machine, &acknowledged);
                        acknowledged.extend(new);
                    }
                }
                disk.power_loss(&*random);
            }
            Ok(())
        })?;
    }
}

/// The versions that are acknowledged beyond the given ones: everything up to what is durable.
fn held_since(store: &Arc<dyn Store>, machine: &Machine, acknowledged: &[Version]) -> Vec<Version> {
    let last = acknowledged.last().copied().unwrap_or_default();
    let mut query = crate::fixture::pull_query(USER, machine.locked().0, last);
    let mut versions = Vec::new();
    while let Some(answer) = machine.pull(&query, &OnDisk(&**store)).unwrap() {
        versions.extend(answer.entries.iter().map(|entry| entry.version));
        if answer.end <= query.after {
            break;
        }
        query.after = answer.end;
    }
    versions
}

async fn with_three_entries(disk: &SimulatedDisk) -> Vec<Version> {
    let (store, mut machine) = open(disk).await;
    machine.take_up(&assignment(1, Version::ZERO), Vec::new()).unwrap();
    let mut versions = Vec::new();
    for _ in 0..3 {
        write(&store, &mut machine, true).await;
        let prev = machine.end();
        let version = prev.plus(10).max(machine.generation().unwrap().first_version);
        machine.push(entry(1, prev, version, machine.durable(), &[USER])).unwrap();
        versions.push(version);
    }
    write(&store, &mut machine, true).await;
    versions
}

fn new_disk() -> SimulatedDisk {
    SimulatedDisk::new("node-1", Arc::new(Seeded(AtomicU64::new(7))), DiskDelays::none(), None)
}

/// Failure 22: a record that can't be read is damage, wherever it stands, and not an end.
#[tokio::test]
async fn a_damaged_entry_is_damage_and_not_a_shorter_log() {
    for damaged in 0..3 {
        let disk = new_disk();
        let versions = with_three_entries(&disk).await;
        assert!(disk.corrupt_row(directory(), ENTRIES, &versions[damaged].0.to_be_bytes()));
        let store = disk.open(directory(), &[ENTRIES, META]).await.unwrap();
        let read = records::read(&*store, MEMORY);
        assert!(matches!(read, Err(ReadError::Store(StoreError::Corrupt { .. }))), "{read:?}");
    }
}

/// The same, where the disk does not notice: the record's own checksum does.
#[tokio::test]
async fn a_turned_bit_in_an_entry_is_damage() {
    let disk = new_disk();
    let versions = with_three_entries(&disk).await;
    let store = disk.open(directory(), &[ENTRIES, META]).await.unwrap();
    let key = versions[1].0.to_be_bytes();
    let mut bytes = store.get(ENTRIES, &key).unwrap().unwrap().to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let mut batch = plinth_store::Batch::new();
    batch.put(ENTRIES, key.to_vec(), bytes);
    store.write(batch, Durability::Synced).await.unwrap();
    assert!(matches!(records::read(&*store, MEMORY), Err(ReadError::Record { .. })));
}
