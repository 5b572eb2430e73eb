//! What outlives a process, seen with real ones: `kill -9` frees locks and loses nothing that was
//! acknowledged.

use std::io::{BufRead as _, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use plinth_store::{Batch, Direction, Disk, Durability, StoreError};
use plinth_store_rocksdb::RocksDisk;

use crate::{fresh, open};

const DIRECTORY: &str = "STORE_TEST_DIRECTORY";

struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts this executable's [`child`] on a directory.
    fn start(directory: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this executable"));
        command.args(["--exact", "processes::child", "--nocapture"]).env(DIRECTORY, directory);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Running { child, lines }
    }

    /// The next number it acknowledged.
    fn acknowledged(&mut self) -> u32 {
        let mut numbers = self.lines.by_ref().map_while(Result::ok);
        numbers
            .find_map(|line| line.strip_prefix("acknowledged ")?.parse().ok())
            .expect("it goes on")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has then failed on.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test by itself: the other process of the tests below, when its directory is set. It locks
/// the directory and then writes numbers until it is killed.
#[tokio::test]
async fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let disk = RocksDisk::default();
    let directory = Path::new(&directory);
    let _lock = disk.lock(directory).expect("the lock is free");
    let store = open(&disk, &directory.join("store")).await;
    for number in 0_u32.. {
        let mut batch = Batch::new();
        batch.put("t", number.to_be_bytes().to_vec(), "");
        let durability =
            if number.is_multiple_of(3) { Durability::Synced } else { Durability::Buffered };
        store.write(batch, durability).await.expect("the write succeeds");
        println!("acknowledged {number}");
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_acknowledged_and_frees_its_locks() {
    let (disk, directory, _guard) = fresh();
    let mut running = Running::start(&directory);
    while running.acknowledged() < 50 {}

    let locked = |result: Option<StoreError>, held: &Path| {
        assert_eq!(result, Some(StoreError::Locked { path: held.display().to_string() }));
    };
    locked(disk.lock(&directory).err(), &directory);
    let store = directory.join("store");
    locked(disk.open(&store, &["t"]).await.err(), &store);

    let last = running.acknowledged();
    drop(running);
    let _lock = disk.lock(&directory).expect("the lock is free again");
    let store = open(&*disk, &store).await;
    let rows = store.scan("t", b"", None, Direction::Forward, usize::MAX).expect("it is readable");
    assert!(rows.len() > last as usize, "{} of more than {last}", rows.len());
    for (number, (key, _)) in (0_u32..).zip(&rows) {
        assert_eq!(key[..], number.to_be_bytes(), "what is there is a first part, without a gap");
    }
}
