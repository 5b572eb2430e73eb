//! A machine's disk in memory: deterministic, and as unkind as a real one may be.
//!
//! One [`SimulatedDisk`] made with [`SimulatedDisk::new`] is one machine's disk; [`SimulatedDisk::process`]
//! gives another process of that machine its own view, whose locks and open stores are its own.
//!
//! A store works as the real one does: calls queue their batches, one group at a time is written
//! (and synced, if any of it asked), the next one collects meanwhile. What has been written but not
//! synced is lost from some batch on when power fails; what was still queued or under way may or may
//! not be there after a crash. A batch is never half there.
//!
//! Time is only read inside calls and futures of an open store, so a simulation may crash a machine
//! from outside of any runtime. Two hosts of a simulation have clocks that can't be compared; a
//! store's schedule therefore begins anew whenever it is opened.

mod content;
mod platter;
mod schedule;
mod store;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use plinth_runtime::Random;

use crate::{Batch, DirectoryLock, Disk, Durability, Store, StoreError, Table};
use platter::{Backup, Platter};
use store::SimulatedStore;

/// How long the disk takes. Drawn anew for each operation, uniformly between the bounds.
#[derive(Clone, Debug)]
pub struct DiskDelays {
    /// Opening a store.
    pub open: RangeInclusive<Duration>,
    /// Writing a group in which nothing asked to be synced.
    pub write: RangeInclusive<Duration>,
    /// Writing and syncing a group.
    pub sync: RangeInclusive<Duration>,
}

impl DiskDelays {
    /// A disk that takes no time at all.
    #[must_use]
    pub fn none() -> Self {
        DiskDelays {
            open: Duration::ZERO..=Duration::ZERO,
            write: Duration::ZERO..=Duration::ZERO,
            sync: Duration::ZERO..=Duration::ZERO,
        }
    }
}

impl Default for DiskDelays {
    /// About what an SSD takes.
    fn default() -> Self {
        DiskDelays {
            open: Duration::from_millis(2)..=Duration::from_millis(20),
            write: Duration::ZERO..=Duration::ZERO,
            sync: Duration::from_millis(1)..=Duration::from_millis(4),
        }
    }
}

/// Something that happened at a disk.
#[derive(Debug)]
pub enum DiskEvent<'a> {
    /// A store was opened.
    Opened {
        /// Its directory.
        directory: &'a Path,
    },
    /// A batch was handed to a store. It is not yet written.
    Queued {
        /// The store's directory.
        directory: &'a Path,
        /// The batch.
        batch: &'a Batch,
        /// What was asked for.
        durability: Durability,
    },
    /// A group of batches was written.
    Written {
        /// The store's directory.
        directory: &'a Path,
        /// How many batches.
        batches: usize,
    },
    /// Everything written to a store so far was synced.
    Synced {
        /// The store's directory.
        directory: &'a Path,
        /// How many batches had been waiting for it.
        batches: usize,
    },
    /// A small file was replaced.
    FileWritten {
        /// The file.
        path: &'a Path,
        /// Its new content.
        bytes: &'a [u8],
    },
    /// A file or directory got another name.
    Renamed {
        /// The old name.
        from: &'a Path,
        /// The new name.
        to: &'a Path,
    },
    /// A file or directory was removed.
    Removed {
        /// Its name.
        path: &'a Path,
    },
    /// A process of the machine died.
    ProcessCrashed,
    /// The machine lost power.
    PowerLost,
}

/// Called for each event with the machine's name, in the order of events. It must not call the disk.
pub type DiskHook = Arc<dyn Fn(&str, &DiskEvent<'_>) + Send + Sync>;

/// How much a disk has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Batches written to stores.
    pub writes: u64,
    /// Syncs of stores.
    pub syncs: u64,
    /// Small files replaced.
    pub files: u64,
}

/// What a directory had on the disk at one moment. A clone is the same one.
#[derive(Clone)]
pub struct Image {
    directory: PathBuf,
    backup: Arc<Backup>,
}

impl Image {
    /// The directory that it is of.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// One process's view of one machine's disk. A clone is the same process.
#[derive(Clone)]
pub struct SimulatedDisk {
    platter: SharedPlatter,
    process: u64,
}

impl SimulatedDisk {
    /// An empty disk for a machine of this name. `random` decides delays and what outlives a crash.
    #[must_use]
    pub fn new(
        machine: &str,
        random: Arc<dyn Random>,
        delays: DiskDelays,
        hook: Option<DiskHook>,
    ) -> Self {
        let mut platter = Platter::new(machine, random, delays, hook);
        let process = platter.new_process();
        SimulatedDisk { platter: SharedPlatter(Arc::new(Mutex::new(platter))), process }
    }

    /// The same disk as another process of the machine sees it.
    #[must_use]
    pub fn process(&self) -> SimulatedDisk {
        let process = self.platter.lock().new_process();
        SimulatedDisk { platter: self.platter.clone(), process }
    }

    /// `kill -9` of this process: its locks are free, its stores closed, their old handles fail.
    /// What was written stays; of what was not yet written, some first part may stay. The view
    /// itself goes on, for the process that is started next.
    pub fn process_crash(&self) {
        self.platter.lock().process_crash(self.process);
    }

    /// The machine loses power: every process of it dies, and of each store's batches that were not
    /// synced only some first part, as `random` says, is there afterwards.
    pub fn power_loss(&self, random: &dyn Random) {
        self.platter.lock().power_loss(random);
    }

    /// Makes a file unreadable. Answers whether there is one. Writing it again heals it.
    pub fn corrupt_file(&self, path: &Path) -> bool {
        self.platter.lock().corrupt_file(path)
    }

    /// Turns one bit of a file, as a disk does that does not notice. Answers whether there is a
    /// file that has any.
    pub fn flip_bit(&self, path: &Path, random: &dyn Random) -> bool {
        self.platter.lock().flip_bit(path, random)
    }

    /// Makes one row of a store unreadable, to [`Store::get`] and to any scan that meets it. Answers
    /// whether there is such a row. Writing or removing the row heals it.
    pub fn corrupt_row(&self, directory: &Path, table: Table, key: &[u8]) -> bool {
        self.platter.lock().corrupt_row(directory, table, key)
    }

    /// Damages a block of a store: some neighbouring rows of a table, as `random` says, can't be read
    /// any more, as with [`SimulatedDisk::corrupt_row`]. Where it is not to be `noticed`, a bit of each
    /// row's value is turned instead, and they are read as if nothing were wrong: what a store without
    /// checksums would do. Answers the table, the first row and how many there are; none where the
    /// store has no row.
    pub fn corrupt_block(
        &self,
        directory: &Path,
        random: &dyn Random,
        noticed: bool,
    ) -> Option<(Table, Bytes, usize)> {
        self.platter.lock().corrupt_block(directory, random, noticed)
    }

    /// Damages a store as a whole: it can't be opened any more. Answers whether there is one.
    pub fn corrupt_store(&self, directory: &Path) -> bool {
        self.platter.lock().corrupt_store(directory)
    }

    /// What a directory has on the disk now: as after the loss of power, without what is not synced.
    #[must_use]
    pub fn image(&self, directory: &Path) -> Image {
        let backup = self.platter.lock().back_up(directory);
        Image { directory: directory.to_owned(), backup: Arc::new(backup) }
    }

    /// Puts a directory back as it was, as a restored backup does, or a disk that lied of what it had
    /// synced. Whoever has it open meets errors from then on.
    ///
    /// # Errors
    /// What is there can't be removed.
    pub fn put_back(&self, image: &Image) -> Result<(), StoreError> {
        self.platter.lock().put_back(&image.directory, &image.backup)
    }

    /// Whether the disk is full. While it is, writes fail with [`StoreError::Full`] and change
    /// nothing; afterwards they succeed again.
    pub fn set_full(&self, full: bool) {
        self.platter.lock().full = full;
    }

    /// The next sync of the open store in a directory fails, and the store refuses everything
    /// until it is opened again. Answers whether one is open there.
    pub fn fail_next_sync(&self, directory: &Path) -> bool {
        self.platter.lock().fail_next_sync(directory)
    }

    /// Other delays, from the next group on.
    pub fn set_delays(&self, delays: DiskDelays) {
        self.platter.lock().delays = delays;
    }

    /// How much it has done so far.
    #[must_use]
    pub fn counts(&self) -> DiskCounts {
        self.platter.lock().counts
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedDisk").field("process", &self.process).finish_non_exhaustive()
    }
}

impl Disk for SimulatedDisk {
    fn read_file(&self, path: &Path) -> Result<Option<Bytes>, StoreError> {
        self.platter.lock().read_file(path)
    }

    fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        self.platter.lock().write_file(path, bytes)
    }

    fn list(&self, directory: &Path) -> Result<Vec<String>, StoreError> {
        self.platter.lock().list(directory)
    }

    fn create_directory(&self, directory: &Path) -> Result<(), StoreError> {
        self.platter.lock().create_directory(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        self.platter.lock().rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        self.platter.lock().remove(path)
    }

    fn lock(&self, directory: &Path) -> Result<Box<dyn DirectoryLock>, StoreError> {
        let id = self.platter.lock().lock_directory(directory, self.process)?;
        Ok(Box::new(HeldLock { platter: self.platter.clone(), id }))
    }

    fn open(
        &self,
        directory: &Path,
        tables: &[Table],
    ) -> BoxFuture<'static, Result<Arc<dyn Store>, StoreError>> {
        let platter = self.platter.clone();
        let process = self.process;
        let directory = directory.to_path_buf();
        let tables = tables.to_vec();
        let (life, delay) = {
            let platter = platter.lock();
            (platter.life(process), platter.open_delay())
        };
        async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let handle = platter.lock().open_store(&directory, &tables, process, life)?;
            Ok(Arc::new(SimulatedStore::new(platter, directory, handle)) as Arc<dyn Store>)
        }
        .boxed()
    }
}

#[derive(Clone)]
struct SharedPlatter(Arc<Mutex<Platter>>);

impl SharedPlatter {
    /// A test that panicked while it held the disk has failed already; others may still look at it.
    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct HeldLock {
    platter: SharedPlatter,
    id: u64,
}

impl DirectoryLock for HeldLock {}

impl Drop for HeldLock {
    fn drop(&mut self) {
        self.platter.lock().unlock(self.id);
    }
}
