//! What a log has on disk: which rows there are, and how they are read back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use plinth_api::log::{Entry, Generation};
use plinth_store::record::{self, RecordError};
use plinth_store::{Batch, Direction, Store, StoreError, Table, get_or_damage};
use plinth_system_config::{DecodeError, Recorded, decode_or_damage};
use plinth_types::{Epoch, Incarnation, StoreId, Tag, Version};
use serde::{Deserialize, Serialize};

use crate::machine::{Sizes, Spilled, entry_bytes};
use crate::refusal::Refusal;

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
    /// No entry up to a version is needed any more.
    DropThrough {
        /// Up to here nothing is left on disk. It keeps these ranges apart: a store that holds many
        /// deleted ranges, each of which covers those before it, takes a second to read anything.
        after: Version,
        /// Up to here.
        through: Version,
    },
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
    /// The newest entries, oldest first.
    pub entries: Vec<Entry>,
    /// Entries up to here are left on disk; 0 where none are.
    pub spilled: Version,
    /// The sizes of all entries, those on disk alone included.
    pub sizes: Sizes,
    /// The kept configuration.
    pub config: Option<Recorded>,
    /// What is wrong with it, where it can't be read.
    pub config_damage: Option<String>,
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
    /// The kept configuration is of a release that this one can't read.
    #[error("the kept configuration can't be read")]
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
            Row::DropThrough { after, through } => {
                batch.delete_range(ENTRIES, entry_key(after.plus(1)), entry_key(through.plus(1)))
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

/// Reads the kept configuration alone: it may be whole where the rest is damaged, and the rest where
/// it is. What is wrong with a damaged one is in the error inside.
///
/// # Errors
/// The store can't be read, or the configuration is of a release that this one can't read.
pub fn read_config(store: &dyn Store) -> Result<Result<Option<Recorded>, String>, ReadError> {
    match get_or_damage(store, META, CONFIG)? {
        Ok(Some(bytes)) => {
            decode_or_damage(&bytes).map(|read| read.map(Some)).map_err(ReadError::Config)
        }
        Ok(None) => Ok(Ok(None)),
        Err(damage) => Ok(Err(damage)),
    }
}

/// Reads everything, and checks it. A batch is written whole or not at all, so a record that does
/// not open is damage and never a torn tail. Of entries that are known to be committed only the
/// newest are kept in memory, as long as they have `memory_bytes` together.
///
/// # Errors
/// Anything that can't be read.
pub fn read(store: &dyn Store, memory_bytes: u64) -> Result<Found, ReadError> {
    let mut state: State = read_row(store, STATE)?.unwrap_or_default();
    let mut entries = VecDeque::new();
    let (mut bytes, mut spilled, mut sizes) = (0, Version::ZERO, Sizes::default());
    let mut after = Version::ZERO;
    loop {
        let read = read_entries(store, after, None, SCAN)?;
        let Some(last) = read.last() else { break };
        after = last.version;
        for entry in read {
            state.known_committed = state.known_committed.max(entry.known_committed);
            bytes += entry_bytes(&entry);
            sizes.add(&entry);
            entries.push_back(entry);
            let is_sure = |first: &mut Entry| first.version <= state.known_committed;
            while bytes > memory_bytes
                && let Some(first) = entries.pop_front_if(is_sure)
            {
                bytes -= entry_bytes(&first);
                spilled = first.version;
            }
        }
    }
    for (tag, record) in &state.tags {
        sizes.drop_through(*tag, record.popped);
    }
    let lock = read_row(store, LOCK)?;
    let (config, config_damage) = match read_config(store)? {
        Ok(config) => (config, None),
        Err(damage) => (None, Some(damage)),
    };
    Ok(Found { lock, state, entries: entries.into(), spilled, sizes, config, config_damage })
}

/// Up to `limit` entries above `after` and up to `through`, or to the end.
fn read_entries(
    store: &dyn Store,
    after: Version,
    through: Option<Version>,
    limit: usize,
) -> Result<Vec<Entry>, ReadError> {
    let (from, to) = (entry_key(after.plus(1)), through.map(|last| entry_key(last.plus(1))));
    let rows = store.scan(ENTRIES, &from, to.as_deref(), Direction::Forward, limit)?;
    let open = |(key, value): (Bytes, Bytes)| {
        let entry: Entry = record::open(FORMAT, &value).map_err(|source| ReadError::Record {
            row: format!("entries/{}", key.escape_ascii()),
            source,
        })?;
        if key != entry_key(entry.version) {
            return Err(ReadError::Misplaced(entry.version));
        }
        Ok(entry)
    };
    rows.into_iter().map(open).collect()
}

/// The entries of a store.
pub struct OnDisk<'a>(pub &'a dyn Store);

impl Spilled for OnDisk<'_> {
    fn read(&self, after: Version, through: Version, limit: usize) -> Result<Vec<Entry>, Refusal> {
        read_entries(self.0, after, Some(through), limit).map_err(|error| {
            tracing::error!(%error, "entries can't be read back");
            Refusal::Damaged(error.to_string())
        })
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
