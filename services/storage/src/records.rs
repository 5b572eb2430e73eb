//! What a storage has on disk: which tables and rows there are, and how they are read back.

use std::collections::BTreeMap;

use bytes::Bytes;
use plinth_api::log::Kept;
use plinth_api::storage::KeyValue;
use plinth_service::Failure;
use plinth_store::record::{self, RecordError};
use plinth_store::{Batch, Direction, Rows, Store, StoreError, Table, get_or_damage};
use plinth_system_config::{DecodeError, Recorded, decode_or_damage, keys};
use plinth_types::{Epoch, Key, KeyRange, Tag, Value, Version};
use serde::{Deserialize, Serialize};

use crate::copying::{CopyRecord, Copying};
use crate::refusal::Refusal;
use crate::window::Base;

/// Keys of the system shard.
pub const SYSTEM: Table = "system";
/// Every other key.
pub const USER: Table = "user";
/// How far each tag's keys are, and the kept configuration.
pub const META: Table = "meta";
/// Every table.
pub const TABLES: [Table; 3] = [SYSTEM, USER, META];

/// The row of the kept configuration.
pub const CONFIG: &[u8] = b"config";

const FORMAT: u8 = 1;
const TAGS: &[u8] = b"tag/";
const TAGS_END: &[u8] = b"tag0";
const ASSIGNED: &[u8] = b"assigned/";
const ASSIGNED_END: &[u8] = b"assigned0";
const COPIES: &[u8] = b"copy/";
const COPIES_END: &[u8] = b"copy0";
const PARTS: &[u8] = b"part/";
const SCAN: usize = 1_000;

/// A version with the epoch that it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The epoch.
    pub epoch: Epoch,
    /// The version.
    pub version: Version,
}

/// What was found on disk.
#[derive(Clone, Debug)]
pub struct Found {
    /// How far each tag's keys are.
    pub tags: BTreeMap<Tag, Position>,
    /// The copies that are not whole.
    pub copies: BTreeMap<Tag, Copying>,
    /// The kept configuration, or what is wrong with it.
    pub kept: Result<Option<Recorded>, String>,
}

/// Reads everything but the tags' keys.
///
/// # Errors
/// Anything that can't be read.
pub fn read(store: &dyn Store) -> Result<Found, ReadError> {
    let (copies, kept) = (read_copies(store)?, read_config(store)?);
    let mut tags = read_tags(store)?;
    // They are never there both. If they were, the half copy would be the one to believe.
    tags.retain(|tag, _| !copies.contains_key(tag));
    Ok(Found { tags, copies, kept })
}

/// Why a storage's directory can't be taken up.
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
    /// A row that no release has written.
    #[error("the row {row} is not a tag's")]
    Stray {
        /// Which one.
        row: String,
    },
    /// The kept configuration is of a release that this one can't read.
    #[error("the kept configuration can't be read")]
    Config(#[source] DecodeError),
}

/// The table that a tag's keys are in.
#[must_use]
pub fn table(tag: Tag) -> Table {
    if tag == Tag::SYSTEM { SYSTEM } else { USER }
}

/// The row that says how far a tag's keys are.
#[must_use]
pub fn tag_key(tag: Tag) -> Bytes {
    [TAGS, &tag.0.to_be_bytes()].concat().into()
}

/// That row's value.
///
/// # Errors
/// It can't be written, which is a bug.
pub fn tag_value(position: Position) -> Result<Bytes, RecordError> {
    record::seal(FORMAT, &position)
}

/// The row that says that a tag was assigned here, which counts while [`tag_key`]'s row is not there
/// yet: of an idle tag nothing is to be made durable, and its storage must know it all the same.
#[must_use]
pub fn assigned_key(tag: Tag) -> Bytes {
    [ASSIGNED, &tag.0.to_be_bytes()].concat().into()
}

/// The row that says how far the copy of a tag is. A tag has this or [`tag_key`]'s row.
#[must_use]
pub fn copy_key(tag: Tag) -> Bytes {
    [COPIES, &tag.0.to_be_bytes()].concat().into()
}

/// That row's value.
///
/// # Errors
/// It can't be written, which is a bug.
pub fn copy_value(copy: &CopyRecord) -> Result<Bytes, RecordError> {
    record::seal(FORMAT, copy)
}

/// The row of the part of a copy that begins at a key.
#[must_use]
pub fn part_key(tag: Tag, from: &Key) -> Bytes {
    [PARTS, &tag.0.to_be_bytes(), from.as_bytes()].concat().into()
}

/// That row's value: what the part is as of.
///
/// # Errors
/// It can't be written, which is a bug.
pub fn part_value(as_of: Version) -> Result<Bytes, RecordError> {
    record::seal(FORMAT, &as_of)
}

/// Removes the rows of every part of a tag's copy.
pub fn delete_parts(batch: &mut Batch, tag: Tag) {
    let end = Tag(tag.0.saturating_add(1));
    batch.delete_range(META, part_key(tag, &Key::default()), part_key(end, &Key::default()));
}

/// The copies that are not whole, with their parts.
///
/// # Errors
/// Anything that can't be read.
pub fn read_copies(store: &dyn Store) -> Result<BTreeMap<Tag, Copying>, ReadError> {
    let mut copies = BTreeMap::new();
    for (tag, value) in rows_of_tags(store, COPIES, COPIES_END)? {
        let row = || format!("copy/{tag}");
        let copy: CopyRecord = record::open(FORMAT, &value)
            .map_err(|source| ReadError::Record { row: row(), source })?;
        copies.insert(tag, Copying::restore(copy, read_parts(store, tag)?));
    }
    Ok(copies)
}

fn read_parts(store: &dyn Store, tag: Tag) -> Result<Vec<(Key, Version)>, ReadError> {
    let prefix = part_key(tag, &Key::default());
    let end = part_key(Tag(tag.0.saturating_add(1)), &Key::default());
    let mut parts = Vec::new();
    let mut from = prefix.clone();
    loop {
        let rows = store.scan(META, &from, Some(&end), Direction::Forward, SCAN)?;
        let Some((last, _)) = rows.last() else { return Ok(parts) };
        from = [last.as_ref(), &[0]].concat().into();
        for (row, value) in rows {
            let as_of = record::open(FORMAT, &value).map_err(|source| ReadError::Record {
                row: row.escape_ascii().to_string(),
                source,
            })?;
            parts.push((Key(row.slice(prefix.len()..)), as_of));
        }
    }
}

/// The rows below a prefix, by the tag that follows it.
fn rows_of_tags(
    store: &dyn Store,
    prefix: &[u8],
    end: &[u8],
) -> Result<BTreeMap<Tag, Bytes>, ReadError> {
    let mut found = BTreeMap::new();
    let mut from = Bytes::copy_from_slice(prefix);
    loop {
        let rows = store.scan(META, &from, Some(end), Direction::Forward, SCAN)?;
        let Some((last, _)) = rows.last() else { return Ok(found) };
        from = [last.as_ref(), &[0]].concat().into();
        for (key, value) in rows {
            let number = key.strip_prefix(prefix).and_then(|tag| <[u8; 4]>::try_from(tag).ok());
            let tag = number.map(|tag| Tag(u32::from_be_bytes(tag)));
            let row = || key.escape_ascii().to_string();
            found.insert(tag.ok_or_else(|| ReadError::Stray { row: row() })?, value);
        }
    }
}

/// How far each tag's keys are: nowhere, where it was assigned and nothing came of it yet.
///
/// # Errors
/// Anything that can't be read.
pub fn read_tags(store: &dyn Store) -> Result<BTreeMap<Tag, Position>, ReadError> {
    let rows = rows_of_tags(store, TAGS, TAGS_END)?.into_iter();
    let tags = rows.map(|(tag, value)| {
        let position = record::open(FORMAT, &value)
            .map_err(|source| ReadError::Record { row: format!("tag/{tag}"), source })?;
        Ok((tag, position))
    });
    let mut tags: BTreeMap<Tag, Position> = tags.collect::<Result<_, ReadError>>()?;
    for tag in rows_of_tags(store, ASSIGNED, ASSIGNED_END)?.into_keys() {
        tags.entry(tag).or_default();
    }
    Ok(tags)
}

/// The kept configuration. One that is damaged hinders nothing: the next one takes its place. What is
/// wrong with it is in the error inside.
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

/// What is answered to the question for the kept configuration.
///
/// # Errors
/// What is wrong with the one on disk.
pub fn kept(kept: Option<&Recorded>, damage: Option<&str>) -> Result<Kept, Failure> {
    match damage {
        Some(damage) => Err(Refusal::DamagedConfig(damage.to_owned()).into()),
        None => Ok(Kept { recorded: kept.cloned() }),
    }
}

/// The configuration of the system shard: its value and the rows of the shards.
///
/// # Errors
/// The store can't be read.
pub fn read_system_rows(store: &dyn Store) -> Result<(Option<Value>, Vec<KeyValue>), StoreError> {
    let config = store.get(SYSTEM, keys::CONFIG)?.map(Value);
    let base = OnDisk { store, table: SYSTEM };
    let mut shards = Vec::new();
    let mut range = keys::shards();
    loop {
        let rows = base.scan(&range, Direction::Forward, SCAN)?;
        let Some((last, _)) = rows.last() else {
            return Ok((config, shards));
        };
        range.from = Key(last.clone()).successor();
        let rows =
            rows.into_iter().map(|(key, value)| KeyValue { key: Key(key), value: Value(value) });
        shards.extend(rows);
    }
}

/// A table's rows.
#[derive(Clone, Copy)]
pub struct OnDisk<'a> {
    /// The store.
    pub store: &'a dyn Store,
    /// The table in it.
    pub table: Table,
}

impl Base for OnDisk<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(self.table, key)
    }

    fn scan(
        &self,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Rows, StoreError> {
        let to = range.to.as_ref().map(Key::as_bytes);
        self.store.scan(self.table, range.from.as_bytes(), to, direction, limit)
    }
}
