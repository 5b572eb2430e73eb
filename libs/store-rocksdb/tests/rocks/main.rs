//! The suite that every disk has to pass, on the real one, and what only a real one can show.

#![expect(clippy::expect_used, reason = "a failed expectation fails the test")]

mod damage;
mod full;
mod processes;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use plinth_store::{Batch, Disk, Durability, Store};
use plinth_store_rocksdb::RocksDisk;

fn fresh() -> (Arc<dyn Disk>, PathBuf, tempfile::TempDir) {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    // Without symbolic links, so that names in errors can be compared.
    let path = scratch.path().canonicalize().expect("it exists").join("disk");
    std::fs::create_dir(&path).expect("it is writable");
    (Arc::new(RocksDisk::default()), path, scratch)
}

mod conformance {
    plinth_store::conformance_tests!(super::fresh);
}

async fn open(disk: &dyn Disk, directory: &Path) -> Arc<dyn Store> {
    disk.open(directory, &["t"]).await.expect("the store opens")
}

async fn put(store: &dyn Store, key: &str, value: impl Into<Vec<u8>>) {
    let mut batch = Batch::new();
    batch.put("t", key.to_owned(), value.into());
    store.write(batch, Durability::Synced).await.expect("the write succeeds");
}

/// The files of a directory that end so, oldest first.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("it is readable");
    let paths = entries.map(|entry| entry.expect("it is readable").path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    found.sort();
    found
}
