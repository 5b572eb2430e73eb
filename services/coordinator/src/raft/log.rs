//! Raft's log, votes included, in the store. What Raft takes for durable is synced.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{
    Entry, ErrorSubject, ErrorVerb, LogId, OptionalSend, RaftLogReader, StorageError,
    StorageIOError, Vote,
};
use plinth_runtime::Runtime;
use plinth_store::{Batch, Direction, Durability, Store};

use super::{COMMITTED_KEY, LOG_TABLE, META_TABLE, PURGED_KEY, TypeConfig, VOTE_KEY};
use crate::records::{self, RecordError};

/// The log in a store. A clone reads the same one.
#[derive(Clone)]
pub(crate) struct LogStore {
    store: Arc<dyn Store>,
    /// Whose fault points count; none where the log is only looked at.
    runtime: Option<Runtime>,
}

pub(super) type Failure = StorageError<u64>;

/// A failed read or write as openraft takes it: the end of this Raft.
pub(super) fn failure(
    subject: ErrorSubject<u64>,
    verb: ErrorVerb,
) -> impl FnOnce(RecordError) -> Failure {
    move |error| StorageIOError::new(subject, verb, openraft::AnyError::new(&error)).into()
}

fn key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

impl LogStore {
    /// The log in this store.
    #[must_use]
    pub(crate) fn new(store: Arc<dyn Store>) -> LogStore {
        LogStore { store, runtime: None }
    }

    /// The same, with this runtime's fault points.
    #[must_use]
    pub(crate) fn with_faults_of(self, runtime: &Runtime) -> LogStore {
        LogStore { runtime: Some(runtime.clone()), ..self }
    }

    /// The entries from `from` (inclusive) to `to` (exclusive; none: the end).
    ///
    /// # Errors
    /// The disk's refusal, or a damaged entry.
    pub(crate) fn entries(
        &self,
        from: u64,
        to: Option<u64>,
    ) -> Result<Vec<Entry<TypeConfig>>, RecordError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(Vec::new());
        }
        let to = to.map(key);
        let to = to.as_ref().map(|to| to.as_slice());
        let rows = self.store.scan(LOG_TABLE, &key(from), to, Direction::Forward, usize::MAX)?;
        rows.iter().map(|(key, bytes)| records::decode(key, bytes)).collect()
    }

    /// Whether anything was ever voted or entered.
    ///
    /// # Errors
    /// The disk's refusal, or a damaged record.
    pub(crate) fn is_used(&self) -> Result<bool, RecordError> {
        let vote: Option<Vote<u64>> = records::read(&*self.store, META_TABLE, VOTE_KEY)?;
        let purged: Option<LogId<u64>> = records::read(&*self.store, META_TABLE, PURGED_KEY)?;
        let first = self.store.scan(LOG_TABLE, &[], None, Direction::Forward, 1)?;
        Ok(vote.is_some() || purged.is_some() || !first.is_empty())
    }

    fn last(&self) -> Result<Option<LogId<u64>>, RecordError> {
        let rows = self.store.scan(LOG_TABLE, &[], None, Direction::Reverse, 1)?;
        let Some((key, bytes)) = rows.first() else { return Ok(None) };
        let entry: Entry<TypeConfig> = records::decode(key, bytes)?;
        Ok(Some(entry.log_id))
    }

    async fn put<T: serde::Serialize>(
        &self,
        key: &'static [u8],
        value: &T,
        durability: Durability,
    ) -> Result<(), RecordError> {
        let mut batch = Batch::new();
        batch.put(META_TABLE, key, records::encode(key, value)?);
        Ok(self.store.write(batch, durability).await?)
    }

    async fn write(&self, batch: Batch, durability: Durability) -> Result<(), RecordError> {
        Ok(self.store.write(batch, durability).await?)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<TypeConfig>>, Failure> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(from) => from.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(to) => to.checked_add(1),
            Bound::Excluded(to) => Some(*to),
            Bound::Unbounded => None,
        };
        self.entries(from, to).map_err(failure(ErrorSubject::Logs, ErrorVerb::Read))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, Failure> {
        let purged: Option<LogId<u64>> = records::read(&*self.store, META_TABLE, PURGED_KEY)
            .map_err(failure(ErrorSubject::Logs, ErrorVerb::Read))?;
        let last = self.last().map_err(failure(ErrorSubject::Logs, ErrorVerb::Read))?;
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.or(purged) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), Failure> {
        // A deliberate fault: a vote that is given is forgotten by whoever starts again.
        if self.runtime.as_ref().is_some_and(|it| it.fault("coordinator.vote_not_persisted")) {
            return Ok(());
        }
        self.put(VOTE_KEY, vote, Durability::Synced)
            .await
            .map_err(failure(ErrorSubject::Vote, ErrorVerb::Write))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, Failure> {
        records::read(&*self.store, META_TABLE, VOTE_KEY)
            .map_err(failure(ErrorSubject::Vote, ErrorVerb::Read))
    }

    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Result<(), Failure> {
        // Only spares a restart the wait for a leader; an older one is as true.
        self.put(COMMITTED_KEY, &committed, Durability::Buffered)
            .await
            .map_err(failure(ErrorSubject::Logs, ErrorVerb::Write))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<u64>>, Failure> {
        let read: Option<Option<LogId<u64>>> =
            records::read(&*self.store, META_TABLE, COMMITTED_KEY)
                .map_err(failure(ErrorSubject::Logs, ErrorVerb::Read))?;
        Ok(read.flatten())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        flushed: LogFlushed<TypeConfig>,
    ) -> Result<(), Failure>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = Batch::new();
        for entry in entries {
            let key = key(entry.log_id.index).to_vec();
            let bytes = records::encode(&key, &entry)
                .map_err(failure(ErrorSubject::Log(entry.log_id), ErrorVerb::Write))?;
            batch.put(LOG_TABLE, key, bytes);
        }
        self.write(batch, Durability::Synced)
            .await
            .map_err(failure(ErrorSubject::Logs, ErrorVerb::Write))?;
        flushed.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), Failure> {
        let mut batch = Batch::new();
        batch.delete_range(LOG_TABLE, key(log_id.index).to_vec(), &[0xff; 9][..]);
        self.write(batch, Durability::Synced)
            .await
            .map_err(failure(ErrorSubject::Log(log_id), ErrorVerb::Delete))
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), Failure> {
        // The snapshot that replaces these entries is synced, and writes keep their order.
        let written = async {
            let mut batch = Batch::new();
            batch.put(META_TABLE, PURGED_KEY, records::encode(PURGED_KEY, &log_id)?);
            let end = key(log_id.index.saturating_add(1)).to_vec();
            batch.delete_range(LOG_TABLE, key(0).to_vec(), end);
            self.write(batch, Durability::Buffered).await
        };
        written.await.map_err(failure(ErrorSubject::Log(log_id), ErrorVerb::Delete))
    }
}
