//! Durable storage as services see it: small files, directory locks, and an ordered key-value store
//! with tables. The seam behind which RocksDB and the simulated disk stand.
//!
//! Reads are synchronous and see every write whose call was made before them and whose future has
//! completed. Writes take effect in the order in which [`Store::write`] was called. A write whose
//! future completed with [`Durability::Synced`] survives the loss of power, and with it every write
//! called before it.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod record;
mod simulated;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

pub use simulated::{DiskCounts, DiskDelays, DiskEvent, DiskHook, Image, SimulatedDisk};

/// What went wrong at the disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the directory.
    #[error("{path} is in use by another process: stop that one, or name another directory")]
    Locked {
        /// The directory.
        path: String,
    },
    /// Bytes that do not match their checksum, or a structure that can't be.
    #[error("{path} is damaged: {detail}")]
    Corrupt {
        /// The directory or file.
        path: String,
        /// What was found.
        detail: String,
    },
    /// No space is left.
    #[error("no space left at {path}: free some, the operation can then be tried again")]
    Full {
        /// The directory.
        path: String,
    },
    /// Any other refusal of the disk. After a failed write or sync nothing more is accepted.
    #[error("{path}: {detail}")]
    Io {
        /// The directory or file.
        path: String,
        /// What the operating system or the engine said.
        detail: String,
    },
}

/// A named ordered map within a store. Tables are declared when the store is opened.
pub type Table = &'static str;

/// One change of a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a key.
    Put(Table, Bytes, Bytes),
    /// Removes a key.
    Delete(Table, Bytes),
    /// Removes the keys from the first (inclusive) to the second (exclusive).
    DeleteRange(Table, Bytes, Bytes),
}

/// Changes that happen together or not at all, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch(pub Vec<Change>);

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Batch::default()
    }
    /// Adds a put.
    pub fn put(
        &mut self,
        table: Table,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> &mut Self {
        self.0.push(Change::Put(table, key.into(), value.into()));
        self
    }
    /// Adds a removal.
    pub fn delete(&mut self, table: Table, key: impl Into<Bytes>) -> &mut Self {
        self.0.push(Change::Delete(table, key.into()));
        self
    }
    /// Adds the removal of a range.
    pub fn delete_range(
        &mut self,
        table: Table,
        from: impl Into<Bytes>,
        to: impl Into<Bytes>,
    ) -> &mut Self {
        self.0.push(Change::DeleteRange(table, from.into(), to.into()));
        self
    }
    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How much a completed write promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives the process, not the loss of power.
    Buffered,
    /// Survives the loss of power (fdatasync or fsync has returned).
    Synced,
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Reverse,
}

/// Keys and values, in the order of a scan.
pub type Rows = Vec<(Bytes, Bytes)>;

/// An ordered key-value store with tables, in one directory, held by one process.
pub trait Store: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] or [`StoreError::Io`].
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Up to `limit` rows from `from` (inclusive) to `to` (exclusive; `None`: the end).
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] or [`StoreError::Io`].
    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Result<Rows, StoreError>;

    /// Applies a batch atomically. Calls take effect in their order even if their futures are
    /// polled in another; the write is queued by the call itself, not by the first poll.
    /// Concurrent synced writes share one sync.
    fn write(
        &self,
        batch: Batch,
        durability: Durability,
    ) -> BoxFuture<'static, Result<(), StoreError>>;
}

/// The value of a key, or what is wrong with it where that alone is damaged.
///
/// # Errors
/// Any other reason why it can't be read.
pub fn get_or_damage(
    store: &dyn Store,
    table: Table,
    key: &[u8],
) -> Result<Result<Option<Bytes>, String>, StoreError> {
    match store.get(table, key) {
        Ok(value) => Ok(Ok(value)),
        Err(error @ StoreError::Corrupt { .. }) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

/// A held directory. Dropping it lets the next process in.
pub trait DirectoryLock: Send + Sync {}

/// Directories, small files and stores. Paths are below what the process was given.
pub trait Disk: Send + Sync {
    /// A small file's bytes, or `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn read_file(&self, path: &Path) -> Result<Option<Bytes>, StoreError>;

    /// Replaces a small file, atomically and durably; makes its directories.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`]; the old content then stands.
    fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError>;

    /// The names in a directory, sorted; none where there is no such directory.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn list(&self, directory: &Path) -> Result<Vec<String>, StoreError>;

    /// Makes a directory and those above it, durably.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`].
    fn create_directory(&self, directory: &Path) -> Result<(), StoreError>;

    /// Renames a file or directory, durably.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError>;

    /// Removes a file, or a directory with all that is in it.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn remove(&self, path: &Path) -> Result<(), StoreError>;

    /// Takes a directory for this process alone, making it where it is missing.
    ///
    /// # Errors
    /// [`StoreError::Locked`] where another process has it.
    fn lock(&self, directory: &Path) -> Result<Box<dyn DirectoryLock>, StoreError>;

    /// Opens the store in a directory, making it where it is missing. `tables` must hold every
    /// table that was ever opened there.
    fn open(
        &self,
        directory: &Path,
        tables: &[Table],
    ) -> BoxFuture<'static, Result<Arc<dyn Store>, StoreError>>;
}
