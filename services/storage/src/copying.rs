//! A copy of a tag that is taken from a member of its team. Pure: pages in, rows to be written out.
//!
//! The copy is taken in pages, in the order of keys. A page is what a member has *on disk* for a
//! range of keys, all of it as of one version, which is known to be committed. Pages need not be as
//! of the same version, nor come from the same member: the source keeps nothing for the newcomer,
//! may restart, and another member may go on where it left off. What makes one copy of them:
//!
//! - each page is as of the version of the one before or a later one. F is the first page's, W the
//!   last one's;
//! - the logs are followed from F on, and at version v only those keys are changed whose page is as of
//!   a version below v; the others have that change already. Since versions ascend with keys, these
//!   are all keys below one boundary ([`Copying::settled_from`]);
//! - so once everything up to W has been applied, every key is as every other member has it, and the
//!   copy is *whole*. Before that it is no state that the cluster ever had, and nothing of it is read.
//!
//! The logs must hold the tag from F on. They do when they count this storage among the tag's members
//! before the first page is asked for: what they have dropped by then is durable in every member, and
//! so in the one that the first page comes from; what comes later they keep until this storage pops it.
//! Where they have dropped more, a pull says so, and the copy is begun again.
//!
//! A crash half-way is seen: while a copy is not whole, its tag has a `copy` row and no `tag` row, and
//! each page is written together with the row that says how far the copy is. The last step that makes
//! it whole replaces the one by the other, atomically. After a restart the copy goes on from the last
//! page that is durable.
//!
//! Memory is bounded: one page is under way at a time, and of a page only its first key and version
//! are kept, of pages as of one version only the first one's.

use bytes::Bytes;
use plinth_api::storage::{CopyStatus, KeyValue, Page};
use plinth_store::Batch;
use plinth_store::record::RecordError;
use plinth_types::{KEY_LIMIT, Key, KeyRange, StoreId, Tag, Version};
use serde::{Deserialize, Serialize};

use crate::records::{self, Position};

/// How far a copy is, as it stands on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRecord {
    /// The tag's keys.
    pub ranges: Vec<KeyRange>,
    /// The logs have been followed to here; F at first, 0 before the first page.
    pub applied: Position,
    /// What the newest page is as of.
    pub newest: Position,
    /// Where the next page begins; none once everything has come.
    pub next: Option<Key>,
    /// Keys that have come.
    pub keys: u64,
    /// Bytes of keys and values that have come.
    pub bytes: u64,
}

/// What is to be asked for next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// The keys.
    pub range: KeyRange,
    /// As of this version at the earliest.
    pub at_least: Version,
}

/// Why a page is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    /// Its bytes are not those that were sent.
    #[error("its checksum is {found:#010x}, and its content has {expected:#010x}")]
    Checksum {
        /// What it says.
        found: u32,
        /// What it should say.
        expected: u32,
    },
    /// It is not what was asked for.
    #[error("it is not the page that was asked for: {0}")]
    Other(&'static str),
}

/// A copy while it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copying {
    record: CopyRecord,
    /// Where the keys begin that have come as of each version. Both ascend.
    parts: Vec<(Key, Version)>,
}

impl Copying {
    /// Nothing has come yet.
    #[must_use]
    pub fn begin(mut ranges: Vec<KeyRange>) -> Copying {
        ranges.retain(|range| !range.is_empty());
        ranges.sort();
        let next = ranges.first().map(|range| range.from.clone());
        let record = CopyRecord {
            ranges,
            applied: Position::default(),
            newest: Position::default(),
            next,
            keys: 0,
            bytes: 0,
        };
        Copying { record, parts: Vec::new() }
    }

    /// A copy as the disk has it. `parts` are in the order of keys.
    #[must_use]
    pub fn restore(record: CopyRecord, parts: Vec<(Key, Version)>) -> Copying {
        Copying { record, parts }
    }

    /// The copy's state on disk.
    #[must_use]
    pub fn record(&self) -> &CopyRecord {
        &self.record
    }

    /// Whether it is a copy of these keys.
    #[must_use]
    pub fn is_of(&self, ranges: &[KeyRange]) -> bool {
        Copying::begin(ranges.to_vec()).record.ranges == self.record.ranges
    }

    /// Whether every page has come.
    #[must_use]
    pub fn has_everything(&self) -> bool {
        self.record.next.is_none()
    }

    /// Whether the copy is whole once everything up to this version has been applied.
    #[must_use]
    pub fn is_whole_at(&self, applied: Version) -> bool {
        self.has_everything() && applied >= self.record.newest.version
    }

    /// What is to be asked for next; none once every page has come.
    #[must_use]
    pub fn want(&self) -> Option<Want> {
        let next = self.record.next.as_ref()?;
        let range = self.record.ranges.iter().find(|range| range.contains(next.as_bytes()))?;
        let range = KeyRange { from: next.clone(), to: range.to.clone() };
        Some(Want { range, at_least: self.record.newest.version })
    }

    /// From which key on a change of this version is in the pages already.
    #[must_use]
    pub fn settled_from(&self, version: Version) -> Option<&Key> {
        let below = self.parts.partition_point(|(_, as_of)| *as_of < version);
        self.parts.get(below).map(|(from, _)| from)
    }

    /// How far it is.
    #[must_use]
    pub fn status(&self) -> CopyStatus {
        CopyStatus {
            keys: self.record.keys,
            bytes: self.record.bytes,
            catching_up: self.has_everything(),
            whole_at: self.record.newest.version,
        }
    }

    /// The copy with one page more.
    ///
    /// # Errors
    /// The page is damaged, or not the one that was asked for.
    pub fn with(&self, page: &Page) -> Result<Copying, PageFault> {
        let expected = checksum(page);
        if page.checksum != expected {
            return Err(PageFault::Checksum { found: page.checksum, expected });
        }
        let want = self.want().ok_or(PageFault::Other("everything has come"))?;
        if page.range.from != want.range.from {
            return Err(PageFault::Other("it begins at another key"));
        }
        if page.range.is_empty() || !want.range.covers(&page.range) {
            return Err(PageFault::Other("it ends where it must not"));
        }
        let position = Position { epoch: page.epoch, version: page.version };
        let newest = self.record.newest;
        if position.version < newest.version || position.epoch < newest.epoch {
            return Err(PageFault::Other("it is as of an earlier version than the page before"));
        }
        let inside = |item: &KeyValue| page.range.contains(item.key.as_bytes());
        if !page.items.iter().all(inside) || !page.items.is_sorted_by(|a, b| a.key < b.key) {
            return Err(PageFault::Other("its keys are not those of its range in their order"));
        }
        let mut next = self.clone();
        if self.parts.is_empty() {
            next.record.applied = position;
        }
        if self.parts.last().is_none_or(|(_, as_of)| *as_of < position.version) {
            next.parts.push((page.range.from.clone(), position.version));
        }
        next.record.newest = position;
        next.record.keys += page.items.len() as u64;
        next.record.bytes += page.items.iter().map(size).sum::<u64>();
        next.record.next = match &page.range.to {
            Some(to) if Some(to) != want.range.to.as_ref() => Some(to.clone()),
            _ => self.range_after(&want.range.from),
        };
        Ok(next)
    }

    /// Where the range begins that follows the one with this key.
    fn range_after(&self, key: &Key) -> Option<Key> {
        self.record.ranges.iter().map(|range| &range.from).find(|from| *from > key).cloned()
    }

    /// Writes a page, together with how far `next`, the copy with it, is. The first page of a copy
    /// removes whatever was there of the tag.
    ///
    /// # Errors
    /// The record can't be written, which is a bug.
    pub fn batch(&self, tag: Tag, page: Page, next: &Copying) -> Result<Batch, RecordError> {
        let table = records::table(tag);
        let mut batch = Batch::new();
        if self.parts.is_empty() {
            for range in &self.record.ranges {
                let to = range.to.as_ref().map_or_else(beyond, |to| to.0.clone());
                batch.delete_range(table, range.from.0.clone(), to);
            }
            batch.delete(records::META, records::tag_key(tag));
            records::delete_parts(&mut batch, tag);
        }
        for KeyValue { key, value } in page.items {
            batch.put(table, key.0, value.0);
        }
        if let Some((from, as_of)) = next.parts.get(self.parts.len()) {
            batch.put(records::META, records::part_key(tag, from), records::part_value(*as_of)?);
        }
        next.put(&mut batch, tag)?;
        Ok(batch)
    }

    /// What a careless storage would do: take the copy for whole as soon as everything has come, and
    /// as of the newest page at that. For a test that shows that this is found out.
    pub(crate) fn pretend_whole(&mut self) {
        if self.has_everything() {
            self.record.applied = self.record.newest;
        }
    }

    /// The logs have been followed to here.
    pub(crate) fn applied(&mut self, applied: Position) {
        self.record.applied = applied;
    }

    /// Says on disk how far the copy is. A whole one is a tag like any other from then on.
    ///
    /// # Errors
    /// The record can't be written, which is a bug.
    pub fn put(&self, batch: &mut Batch, tag: Tag) -> Result<(), RecordError> {
        let applied = self.record.applied;
        if self.is_whole_at(applied.version) {
            batch.put(records::META, records::tag_key(tag), records::tag_value(applied)?);
            batch.delete(records::META, records::copy_key(tag));
            records::delete_parts(batch, tag);
        } else {
            batch.put(records::META, records::copy_key(tag), records::copy_value(&self.record)?);
        }
        Ok(())
    }
}

fn size(item: &KeyValue) -> u64 {
    (item.key.0.len() + item.value.0.len()) as u64
}

/// A key that is above every key.
fn beyond() -> Bytes {
    vec![0xff; KEY_LIMIT + 1].into()
}

/// The checksum that a page must bear.
#[must_use]
pub fn checksum(page: &Page) -> u32 {
    let Page { source, newcomer, tag, version, epoch, range, items, checksum: _ } = page;
    let mut sum = Checksum(0);
    let StoreId(source) = source;
    let StoreId(newcomer) = newcomer;
    sum.add(&source.to_be_bytes()).add(&newcomer.to_be_bytes()).add(&tag.0.to_be_bytes());
    sum.add(&version.0.to_be_bytes()).add(&epoch.0.to_be_bytes());
    sum.bytes(range.from.as_bytes());
    match &range.to {
        Some(to) => sum.add(&[1]).bytes(to.as_bytes()),
        None => sum.add(&[0]),
    };
    for KeyValue { key, value } in items {
        sum.bytes(key.as_bytes()).bytes(value.as_bytes());
    }
    sum.0
}

/// CRC-32C over parts, each that has no length of its own with its length.
struct Checksum(u32);

impl Checksum {
    fn add(&mut self, bytes: &[u8]) -> &mut Self {
        self.0 = crc32c::crc32c_append(self.0, bytes);
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.add(&(bytes.len() as u64).to_be_bytes()).add(bytes)
    }
}
