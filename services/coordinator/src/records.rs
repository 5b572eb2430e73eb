//! The coordinator's durable records beside the Raft log: its identity and its part in the ballots.

use std::sync::Arc;

use bytes::Bytes;
use plinth_api::coordinator::Founding;
use plinth_runtime::Runtime;
use plinth_store::{Batch, Durability, Store, StoreError, Table};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::founding::Acceptor;
use crate::raft;

const TABLE: Table = "coordinator";
const RAFT_ID: &[u8] = b"raft_id";
const PART: &[u8] = b"part";

/// Every table of a coordinator's store.
pub(crate) const TABLES: &[Table] = &[TABLE, raft::LOG_TABLE, raft::META_TABLE];

/// A record can't be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// The disk refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bytes are not what they should be.
    #[error("the record {name} of the coordinator's store is damaged: {detail}")]
    Damaged {
        /// Which record.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// Reads a record.
///
/// # Errors
/// The disk's refusal, or bytes that are no such record.
pub(crate) fn read<T: DeserializeOwned>(
    store: &dyn Store,
    table: Table,
    key: &[u8],
) -> Result<Option<T>, RecordError> {
    store.get(table, key)?.map(|bytes| decode(key, &bytes)).transpose()
}

/// A record from its bytes.
///
/// # Errors
/// Bytes that are no such record.
pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, RecordError> {
    serde_json::from_slice(bytes).map_err(|error| damaged(key, &error))
}

/// A record's bytes.
///
/// # Errors
/// A value that JSON can't express.
pub(crate) fn encode<T: Serialize>(key: &[u8], value: &T) -> Result<Bytes, RecordError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| damaged(key, &error))
}

fn damaged(key: &[u8], error: &serde_json::Error) -> RecordError {
    RecordError::Damaged {
        name: String::from_utf8_lossy(key).into_owned(),
        detail: error.to_string(),
    }
}

/// A coordinator's part in the ballots, and the founding of its group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Its part in the ballots.
    pub(crate) acceptor: Acceptor,
    /// The founding of its group; none where it has joined a group that was founded without it.
    pub(crate) founding: Option<Founding>,
    /// Whether the group has yet to take it in: until then it counts as one without a group.
    #[serde(default)]
    pub(crate) is_joining: bool,
}

/// The durable records. Every change is synced before it is answered.
pub(crate) struct Records {
    store: Arc<dyn Store>,
    raft_id: u64,
    part: Part,
}

impl Records {
    /// Reads the records, and makes the identity of a new store.
    ///
    /// # Errors
    /// The disk's refusal, or a damaged record.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        runtime: &Runtime,
    ) -> Result<Records, RecordError> {
        let part = read(&*store, TABLE, PART)?.unwrap_or_default();
        let raft_id = match read(&*store, TABLE, RAFT_ID)? {
            Some(raft_id) => raft_id,
            None => {
                let raft_id = runtime.random_u64();
                let mut batch = Batch::new();
                batch.put(TABLE, RAFT_ID, encode(RAFT_ID, &raft_id)?);
                store.write(batch, Durability::Synced).await?;
                raft_id
            }
        };
        Ok(Records { store, raft_id, part })
    }

    /// Its identity in Raft.
    #[must_use]
    pub(crate) const fn raft_id(&self) -> u64 {
        self.raft_id
    }

    /// Its part in the ballots.
    #[must_use]
    pub(crate) const fn part(&self) -> &Part {
        &self.part
    }

    /// The store.
    #[must_use]
    pub(crate) const fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Writes another part.
    ///
    /// # Errors
    /// The disk's refusal.
    pub(crate) async fn set(&mut self, part: Part) -> Result<(), RecordError> {
        if part != self.part {
            self.write(part, Batch::new(), self.raft_id).await?;
        }
        Ok(())
    }

    /// Writes a part in another group: what Raft has of the one before goes in the same batch.
    ///
    /// # Errors
    /// The disk's refusal.
    pub(crate) async fn enter(&mut self, part: Part) -> Result<(), RecordError> {
        let mut batch = Batch::new();
        raft::erase(&mut batch);
        self.write(part, batch, self.raft_id).await
    }

    /// The same under a new identity, for one whose votes may be lost.
    ///
    /// # Errors
    /// The disk's refusal.
    pub(crate) async fn enter_as(&mut self, raft_id: u64, part: Part) -> Result<(), RecordError> {
        let mut batch = Batch::new();
        raft::erase(&mut batch);
        batch.put(TABLE, RAFT_ID, encode(RAFT_ID, &raft_id)?);
        self.write(part, batch, raft_id).await
    }

    async fn write(&mut self, part: Part, mut batch: Batch, id: u64) -> Result<(), RecordError> {
        batch.put(TABLE, PART, encode(PART, &part)?);
        self.store.write(batch, Durability::Synced).await?;
        self.raft_id = id;
        self.part = part;
        Ok(())
    }
}
