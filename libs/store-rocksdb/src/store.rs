//! One open RocksDB.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use plinth_store::{Batch, Change, Direction, Durability, Rows, Store, StoreError, Table};
use rocksdb::{ColumnFamily, DB, DEFAULT_COLUMN_FAMILY_NAME, ErrorKind, ReadOptions};

use crate::files;
use crate::options::Tuning;
use crate::writer::Writer;

/// RocksDB and whether it can still be trusted. Shared by the store and its writer.
pub(crate) struct Engine {
    db: DB,
    directory: String,
    failed: OnceLock<StoreError>,
}

impl Engine {
    pub(crate) fn db(&self) -> &DB {
        &self.db
    }

    pub(crate) fn table(&self, table: Table) -> Result<&ColumnFamily, StoreError> {
        self.db.cf_handle(table).ok_or_else(|| {
            self.io(format!("table {table} was not declared when the store was opened"))
        })
    }

    /// Refuses everything after a write or a sync has failed: what the operating system still
    /// holds of it, and will write or not, can't be known.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.failed.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Notes that a write failed. A full disk is no such failure: RocksDB accepts writes again by
    /// itself soon after there is space.
    pub(crate) fn write_failed(&self, error: rocksdb::Error) -> StoreError {
        let error = self.error(error);
        if !matches!(error, StoreError::Full { .. }) {
            tracing::error!(%error, "a write failed: the store accepts nothing more until it is opened again");
            let detail = format!("stopped after a failed write: {error}");
            // The first failure is the one that is remembered.
            let _ = self.failed.set(self.io(detail));
        }
        error
    }

    pub(crate) fn io(&self, detail: String) -> StoreError {
        StoreError::Io { path: self.directory.clone(), detail }
    }

    fn error(&self, error: rocksdb::Error) -> StoreError {
        classify(&self.directory, error)
    }
}

/// An open store. Dropping it writes what was queued and closes it.
pub(crate) struct RocksStore {
    // The writer goes first: it ends its thread, which holds the engine too.
    writer: Writer,
    engine: Arc<Engine>,
}

impl RocksStore {
    /// Opens the store in a directory. Blocks.
    pub(crate) fn open(
        tuning: &Tuning,
        directory: &Path,
        tables: &[Table],
    ) -> Result<Self, StoreError> {
        files::create_directory(directory)?;
        let path = directory.display().to_string();
        let options = tuning.rocksdb().map_err(|error| classify(&path, error))?;
        // The family that is always there would otherwise come with RocksDB's defaults, whose large
        // buffers it would want to see free on the disk before it recovers from a full one.
        let names: BTreeSet<&str> =
            tables.iter().copied().chain([DEFAULT_COLUMN_FAMILY_NAME]).collect();
        let families = names.into_iter().map(|name| (name, options.clone()));
        let db = DB::open_cf_with_opts(&options, directory, families)
            .map_err(|error| classify(&path, error))?;
        let engine = Arc::new(Engine { db, directory: path, failed: OnceLock::new() });
        let writer = Writer::start(Arc::clone(&engine))?;
        Ok(RocksStore { writer, engine })
    }

    fn accepts(&self, batch: &Batch) -> Result<(), StoreError> {
        self.engine.check()?;
        for change in &batch.0 {
            let (Change::Put(table, ..)
            | Change::Delete(table, ..)
            | Change::DeleteRange(table, ..)) = change;
            self.engine.table(table)?;
        }
        Ok(())
    }
}

impl Store for RocksStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.engine.check()?;
        let family = self.engine.table(table)?;
        let value =
            self.engine.db.get_pinned_cf(family, key).map_err(|error| self.engine.error(error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Result<Rows, StoreError> {
        self.engine.check()?;
        let family = self.engine.table(table)?;
        let mut rows = Rows::new();
        if limit == 0 || to.is_some_and(|to| from >= to) {
            return Ok(rows);
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        let mut cursor = self.engine.db.raw_iterator_cf_opt(family, options);
        match direction {
            Direction::Forward => cursor.seek_to_first(),
            Direction::Reverse => cursor.seek_to_last(),
        }
        while let Some((key, value)) = cursor.item() {
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            if rows.len() == limit {
                return Ok(rows);
            }
            match direction {
                Direction::Forward => cursor.next(),
                Direction::Reverse => cursor.prev(),
            }
        }
        cursor.status().map_err(|error| self.engine.error(error))?;
        Ok(rows)
    }

    fn write(
        &self,
        batch: Batch,
        durability: Durability,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        if let Err(error) = self.accepts(&batch) {
            return futures::future::ready(Err(error)).boxed();
        }
        let outcome = self.writer.queue(batch, durability);
        let directory = self.engine.directory.clone();
        async move {
            outcome.await.unwrap_or_else(|_| {
                Err(StoreError::Io { path: directory, detail: "its writer has ended".to_owned() })
            })
        }
        .boxed()
    }
}

/// RocksDB's C interface gives a kind and a text; where the kind is not enough, the text has to do.
fn classify(path: &str, error: rocksdb::Error) -> StoreError {
    let path = path.to_owned();
    let kind = error.kind();
    let detail = error.into_string();
    match kind {
        ErrorKind::Corruption => StoreError::Corrupt { path, detail },
        // Incomplete: it is told so as well when the error was there before the write.
        ErrorKind::IOError | ErrorKind::Incomplete
            if detail.contains("No space left on device")
                || detail.contains("Disk quota exceeded") =>
        {
            StoreError::Full { path }
        }
        ErrorKind::IOError
            if detail.contains("lock hold by current process")
                || detail.contains("While lock file") =>
        {
            StoreError::Locked { path }
        }
        _ => StoreError::Io { path, detail },
    }
}
