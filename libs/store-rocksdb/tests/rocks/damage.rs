//! Damage is reported; only what was cut off at the end of the log is dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plinth_store::{Batch, Direction, Disk, Durability, Store, StoreError};
use plinth_store_rocksdb::{RocksDisk, RocksOptions};
use tokio::time::{Instant, sleep};

use crate::{files, fresh, open, put};

/// Three synced writes of a kilobyte each, and the log file that holds them.
async fn three_writes(disk: &dyn Disk, directory: &Path) -> PathBuf {
    let store = open(disk, directory).await;
    for key in ["a", "b", "c"] {
        put(&*store, key, vec![0x5a; 1024]).await;
    }
    drop(store);
    files(directory, ".log").pop().expect("there is a log")
}

#[tokio::test]
async fn a_record_that_was_cut_off_is_dropped() {
    let (disk, directory, _guard) = fresh();
    let log = three_writes(&*disk, &directory).await;
    let bytes = fs::read(&log).expect("it is readable");
    fs::write(&log, &bytes[..bytes.len() - 100]).expect("it is writable");
    let store = open(&*disk, &directory).await;
    for (key, is_there) in [("a", true), ("b", true), ("c", false)] {
        assert_eq!(
            store.get("t", key.as_bytes()).expect("it is readable").is_some(),
            is_there,
            "{key}"
        );
    }
    put(&*store, "d", "").await;
    drop(store);
    // The torn log is no longer the last one, and still no damage.
    let store = open(&*disk, &directory).await;
    assert_eq!(store.scan("t", b"", None, Direction::Forward, 9).expect("it is readable").len(), 3);
}

#[tokio::test]
async fn a_damaged_record_with_others_after_it_is_reported() {
    let (disk, directory, _guard) = fresh();
    let log = three_writes(&*disk, &directory).await;
    let mut bytes = fs::read(&log).expect("it is readable");
    bytes[500] ^= 1;
    fs::write(&log, &bytes).expect("it is writable");
    let refusal = disk.open(&directory, &["t"]).await.err();
    assert!(
        matches!(&refusal, Some(StoreError::Corrupt { path, .. }) if Path::new(path) == directory),
        "{refusal:?}"
    );
    assert!(!files(&directory, ".log").is_empty(), "what is damaged is kept for inspection");
}

#[tokio::test]
async fn a_lost_log_file_is_reported() {
    let (_, directory, _guard) = fresh();
    let disk = RocksDisk::new(RocksOptions { write_buffer: 1 << 20, ..RocksOptions::default() });
    let store = disk.open(&directory, &["t", "other"]).await.expect("the store opens");
    // The first log is closed when the one table is written out, and kept for this row of the other.
    let mut batch = Batch::new();
    batch.put("other", "k", "v");
    store.write(batch, Durability::Synced).await.expect("the write succeeds");
    fill_until_a_table_file_is_in_use(&*store, &directory).await;
    drop(store);
    let logs = files(&directory, ".log");
    assert!(logs.len() > 1, "{logs:?}");
    fs::remove_file(&logs[0]).expect("it is removable");
    let refusal = disk.open(&directory, &["t", "other"]).await.err();
    assert!(matches!(refusal, Some(StoreError::Corrupt { .. })), "{refusal:?}");
}

#[tokio::test]
async fn a_damaged_block_of_a_table_is_reported() {
    let (_, directory, _guard) = fresh();
    let disk = RocksDisk::new(RocksOptions { write_buffer: 1 << 20, ..RocksOptions::default() });
    let store = open(&disk, &directory).await;
    fill_until_a_table_file_is_in_use(&*store, &directory).await;
    drop(store);
    for table in files(&directory, ".sst") {
        let mut bytes = fs::read(&table).expect("it is readable");
        bytes[100] ^= 1;
        fs::write(&table, &bytes).expect("it is writable");
    }
    let store = open(&disk, &directory).await;
    let scan = store.scan("t", b"", None, Direction::Forward, usize::MAX);
    assert!(matches!(scan, Err(StoreError::Corrupt { .. })), "{:?}", scan.map(|rows| rows.len()));
    let get = store.get("t", b"000000");
    assert!(matches!(get, Err(StoreError::Corrupt { .. })), "{get:?}");
}

/// One after the other is written: when the second appears, the first is complete and in use.
async fn fill_until_a_table_file_is_in_use(store: &dyn Store, directory: &Path) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut number = 0;
    while files(directory, ".sst").len() < 2 {
        assert!(Instant::now() < deadline, "no table file in use after {number} writes");
        put(store, &format!("{number:06}"), vec![0x33; 4096]).await;
        number += 1;
        sleep(Duration::from_millis(1)).await;
    }
}
