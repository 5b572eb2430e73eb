//! What a log has on disk: which rows there are, and how they are read back.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use plinth_api::log::{Entry, Generation};
use plinth_store::record::{self, RecordError};
use plinth_store::{Batch, Direction, Store, StoreError, Table};
use plinth_system_config::{DecodeError, Recorded, decode_stored};
use plinth_types::{Epoch, Incarnation, StoreId, Tag, Version};
use serde::{Deserialize, Serialize};

/// Entries by version.
pub const ENTRIES: Table = "entries";
/// Everything else, a row each.
pub const META: Table = "meta";

const FORMAT: u8 = 1;
const LOCK: &[u8] = b"lock";
const STATE: &[u8] = b"state";
const CONFIG: &[u8] = b"config";
const SCAN: usize = 1000;

/// Who locked the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The epoch.
    pub epoch: Epoch,
    /// Its director.
    pub director: Incarnation,
}

/// What a log knows of a tag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// Everything up to here has been dropped.
    pub popped: Version,
    /// Those who must have popped before data is dropped, and how far they have.
    pub members: BTreeMap<StoreId, Version>,
    /// Whether the newest generation's assignment names the tag.
    pub assigned: bool,
}

/// What a log knows beside its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The epochs that it took part in, oldest first.
    pub generations: Vec<Generation>,
    /// Its tags.
    pub tags: BTreeMap<Tag, TagRecord>,
    /// A version that it holds, though no entry may be left that shows it.
    pub end: Version,
    /// The newest known committed version when this was written.
    pub known_committed: Version,
}

/// A change of what is on disk.
#[derive(Clone, Debug)]
pub enum Row {
    /// The lock.
    Lock(Lock),
    /// Everything beside lock, entries and configuration.
    State(State),
    /// An entry.
    Entry(Arc<Entry>),
    /// No entry up to this version is needed any more.
    DropThrough(Version),
    /// No entry above this version counts.
    DropAbove(Version),
    /// The kept configuration in its stored form.
    Config(Bytes),
}

/// What was found on disk.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The lock.
    pub lock: Option<Lock>,
    /// What is known beside the entries.
    pub state: State,
    /// The entries, oldest first.
    pub entries: Vec<Entry>,
    /// The kept configuration.
    pub config: Option<Recorded>,
}

/// Why a log's directory can't be taken up.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record is damaged.
    #[error("the record {row} is damaged")]
    Record {
        /// Which one.
        row: String,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// The kept configuration is damaged.
    #[error("the kept configuration is damaged")]
    Config(#[source] DecodeError),
    /// An entry stands under another version's key.
    #[error("the entry of version {0} stands under another version")]
    Misplaced(Version),
}

fn entry_key(version: Version) -> Bytes {
    Bytes::copy_from_slice(&version.0.to_be_bytes())
}

/// Turns rows into the batch that writes them.
///
/// # Errors
/// A row that can't be written, which is a bug.
pub fn batch(rows: &[Row]) -> Result<Batch, RecordError> {
    let mut batch = Batch::new();
    for row in rows {
        match row {
            Row::Lock(lock) => batch.put(META, LOCK, record::seal(FORMAT, lock)?),
            Row::State(state) => batch.put(META, STATE, record::seal(FORMAT, state)?),
            Row::Entry(entry) => {
                batch.put(ENTRIES, entry_key(entry.version), record::seal(FORMAT, &**entry)?)
            }
            Row::DropThrough(version) => {
                batch.delete_range(ENTRIES, Bytes::new(), entry_key(version.plus(1)))
            }
            Row::DropAbove(version) => batch.delete_range(
                ENTRIES,
                entry_key(version.plus(1)),
                Bytes::from_static(&[0xff; 9]),
            ),
            Row::Config(bytes) => batch.put(META, CONFIG, bytes.clone()),
        };
    }
    Ok(batch)
}

/// Reads the kept configuration alone: it may be whole where the rest is damaged.
///
/// # Errors
/// It can't be read.
pub fn read_config(store: &dyn Store) -> Result<Option<Recorded>, ReadError> {
    let bytes = store.get(META, CONFIG)?;
    bytes.map(|bytes| decode_stored(&bytes).map_err(ReadError::Config)).transpose()
}

/// Reads everything. A batch is written whole or not at all, so a record that does not open is
/// damage and never a torn tail.
///
/// # Errors
/// Anything that can't be read.
pub fn read(store: &dyn Store) -> Result<Found, ReadError> {
    let mut found = Found {
        lock: read_row(store, LOCK)?,
        state: read_row(store, STATE)?.unwrap_or_default(),
        entries: Vec::new(),
        config: read_config(store)?,
    };
    let mut from = Bytes::new();
    loop {
        let rows = store.scan(ENTRIES, &from, None, Direction::Forward, SCAN)?;
        let Some((last, _)) = rows.last() else {
            return Ok(found);
        };
        from = [last.as_ref(), &[0]].concat().into();
        for (key, value) in rows {
            let entry: Entry = record::open(FORMAT, &value).map_err(|source| {
                ReadError::Record { row: format!("entries/{}", key.escape_ascii()), source }
            })?;
            if key != entry_key(entry.version) {
                return Err(ReadError::Misplaced(entry.version));
            }
            found.entries.push(entry);
        }
    }
}

fn read_row<T: serde::de::DeserializeOwned>(
    store: &dyn Store,
    key: &'static [u8],
) -> Result<Option<T>, ReadError> {
    let Some(bytes) = store.get(META, key)? else {
        return Ok(None);
    };
    record::open(FORMAT, &bytes)
        .map(Some)
        .map_err(|source| ReadError::Record { row: key.escape_ascii().to_string(), source })
}
