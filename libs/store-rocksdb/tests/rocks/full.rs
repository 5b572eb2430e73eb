//! A full disk, seen with a real one: a small file system in memory, mounted where only one child
//! process sees it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use plinth_store::{Batch, Disk, Durability, Store, StoreError};
use plinth_store_rocksdb::{RocksDisk, RocksOptions};
use tokio::time::{Instant, sleep};

use crate::{fresh, open, put};

const DIRECTORY: &str = "STORE_TEST_FULL_DIRECTORY";

#[test]
fn a_full_disk_is_reported_and_recovers_when_there_is_space() {
    let (_, directory, _guard) = fresh();
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-ec", script]);
        command
            .env(DIRECTORY, &directory)
            .env("SELF", std::env::current_exe().expect("this executable"));
        command.output()
    };
    let mount = format!("mount -t tmpfs -o size=16m none \"${DIRECTORY}\"");
    if !unshare(&mount).is_ok_and(|output| output.status.success()) {
        println!("not run: this machine lets no test mount a file system");
        return;
    }
    let output = unshare(&format!("{mount}; exec \"$SELF\" --exact full::child --nocapture"))
        .expect("it starts");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Not a test by itself: the process that sees the small file system, when its directory is set.
#[tokio::test]
async fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let directory = Path::new(&directory);
    let disk = RocksDisk::new(RocksOptions { write_buffer: 1 << 20, ..RocksOptions::default() });
    let ballast = directory.join("ballast");
    std::fs::write(&ballast, vec![0; 4 << 20]).expect("there is space");
    let store = open(&disk, &directory.join("store")).await;
    put(&*store, "before", "v").await;

    let mut written = 0_u32;
    let refusal = loop {
        assert!(written < 10_000, "the disk never fills");
        match store.write(large(written), Durability::Synced).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refusal, StoreError::Full { .. }), "{refusal:?}");
    // RocksDB may have given back some space by now, but not as much as the whole file system has.
    let file = disk.write_file(&directory.join("file"), &vec![0; 16 << 20]);
    assert!(matches!(file, Err(StoreError::Full { .. })), "{file:?}");
    assert!(store.get("t", b"before").expect("reads go on").is_some());

    std::fs::remove_file(&ballast).expect("it is removable");
    let deadline = Instant::now() + Duration::from_secs(60);
    let freed = Instant::now();
    while let Err(error) = store.write(large(written), Durability::Synced).await {
        assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
        assert!(Instant::now() < deadline, "it does not recover");
        sleep(Duration::from_millis(50)).await;
    }
    println!("accepted again after {:?}", freed.elapsed());
    put(&*store, "after", "v").await;
    drop(store);
    let store = open(&disk, &directory.join("store")).await;
    assert_everything(&*store, written);
}

fn large(number: u32) -> Batch {
    let mut batch = Batch::new();
    batch.put("t", number.to_be_bytes().to_vec(), vec![0x77; 32 << 10]);
    batch
}

fn assert_everything(store: &dyn Store, written: u32) {
    for key in ["before", "after"] {
        assert!(store.get("t", key.as_bytes()).expect("it is readable").is_some(), "{key}");
    }
    for number in 0..=written {
        assert!(
            store.get("t", &number.to_be_bytes()).expect("it is readable").is_some(),
            "{number}"
        );
    }
}
