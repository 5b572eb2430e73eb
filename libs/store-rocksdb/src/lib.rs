//! The real disk: files of the operating system, and RocksDB for stores.
//!
//! The only crate that depends on RocksDB. What it promises is in [`plinth_store`], whose suite its
//! tests run.

mod files;
mod options;
mod store;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use plinth_store::{DirectoryLock, Disk, Store, StoreError, Table};

pub use options::RocksOptions;

use options::Tuning;
use store::RocksStore;

/// The file system of this machine. A clone shares the caches.
#[derive(Clone)]
pub struct RocksDisk {
    tuning: Arc<Tuning>,
    /// One small file is replaced at a time, so that each has one fixed temporary name and a crash
    /// leaves no litter that grows.
    replacing: Arc<Mutex<()>>,
}

impl RocksDisk {
    /// A disk whose stores share these limits.
    #[must_use]
    pub fn new(options: RocksOptions) -> Self {
        RocksDisk { tuning: Arc::new(Tuning::new(options)), replacing: Arc::default() }
    }
}

impl Default for RocksDisk {
    fn default() -> Self {
        RocksDisk::new(RocksOptions::default())
    }
}

impl Disk for RocksDisk {
    fn read_file(&self, path: &Path) -> Result<Option<Bytes>, StoreError> {
        files::read(path)
    }

    fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        // The guard holds no data, so there is nothing that a panic could have left half done.
        let _one_at_a_time =
            self.replacing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        files::replace(path, bytes)
    }

    fn list(&self, directory: &Path) -> Result<Vec<String>, StoreError> {
        files::list(directory)
    }

    fn create_directory(&self, directory: &Path) -> Result<(), StoreError> {
        files::create_directory(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        files::rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        files::remove(path)
    }

    fn lock(&self, directory: &Path) -> Result<Box<dyn DirectoryLock>, StoreError> {
        files::lock(directory)
    }

    fn open(
        &self,
        directory: &Path,
        tables: &[Table],
    ) -> BoxFuture<'static, Result<Arc<dyn Store>, StoreError>> {
        let tuning = Arc::clone(&self.tuning);
        let directory = directory.to_path_buf();
        let tables = tables.to_vec();
        async move {
            let path = directory.clone();
            let opened =
                tokio::task::spawn_blocking(move || RocksStore::open(&tuning, &directory, &tables))
                    .await;
            match opened {
                Ok(opened) => opened.map(|store| Arc::new(store) as Arc<dyn Store>),
                Err(error) => Err(StoreError::Io {
                    path: path.display().to_string(),
                    detail: format!("opening it ended: {error}"),
                }),
            }
        }
        .boxed()
    }
}
