//! The suite that every disk has to pass, on the real one.

#![expect(clippy::expect_used, reason = "a failed expectation fails the test")]

use std::path::PathBuf;
use std::sync::Arc;

use plinth_store::Disk;
use plinth_store_rocksdb::RocksDisk;

fn fresh() -> (Arc<dyn Disk>, PathBuf, tempfile::TempDir) {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    // Without symbolic links, and with a child that no other test shares.
    let path = scratch.path().canonicalize().expect("it exists").join("disk");
    std::fs::create_dir(&path).expect("it is writable");
    (Arc::new(RocksDisk::default()), path, scratch)
}

plinth_store::conformance_tests!(fresh);
