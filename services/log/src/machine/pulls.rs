//! What pullers get, from memory and from disk.

use std::sync::Arc;

use plinth_api::log::{Entry, PullAnswer, PullQuery, TagMutations};
use plinth_types::{Tag, Version};

use super::{ENTRY_OVERHEAD, Held, Machine, message_bytes};
use crate::refusal::Refusal;

/// Entries that are read from disk at a time; each may be as large as a batch.
const READ: usize = 16;
/// The most entries that one pull reads from disk, which nothing else is done during.
const READ_MOST: usize = 1_000;

/// The entries on disk.
pub trait Spilled {
    /// Up to `limit` entries above `after` and up to `through`, in their order.
    ///
    /// # Errors
    /// They can't be read.
    fn read(&self, after: Version, through: Version, limit: usize) -> Result<Vec<Entry>, Refusal>;
}

/// An answer while it grows.
struct Page<'a> {
    tag: Tag,
    entries: Vec<Entry>,
    walked: usize,
    most: usize,
    bytes: u64,
    limit: u64,
    query: &'a PullQuery,
}

impl Page<'_> {
    /// Takes what an entry has of the tag. Where the page is full, where it ends.
    fn take(&mut self, entry: &Entry) -> Result<(), Version> {
        let message = entry.messages.iter().find(|message| message.tag == self.tag);
        let size = message.map_or(0, |message| message_bytes(message) + ENTRY_OVERHEAD);
        let is_full = self.bytes + size > self.limit && !self.entries.is_empty();
        if self.walked >= self.most || is_full {
            // Nothing of the tag is between the entry before this one and here.
            debug_assert!(entry.prev < entry.version);
            return Err(entry.prev.max(self.query.after));
        }
        self.walked += 1;
        self.bytes += size;
        self.entries.extend(message.map(|message| of_tag(entry, message)));
        Ok(())
    }
}

impl Machine {
    /// Answers a pull, or nothing as long as there is nothing new.
    ///
    /// A puller of a superseded epoch gets nothing above the lowest recovery version of the
    /// generations that it does not know, and is told it.
    ///
    /// # Errors
    /// The tag is not held here, what is asked for has been dropped, or it can't be read.
    pub fn pull(
        &self,
        query: &PullQuery,
        spilled: &dyn Spilled,
    ) -> Result<Option<PullAnswer>, Refusal> {
        let record = self.tags.get(&query.tag).ok_or(Refusal::UnknownTag(query.tag))?;
        if query.after < record.popped {
            return Err(Refusal::Dropped { tag: query.tag, popped: record.popped });
        }
        let mut generation = self.generation();
        let unknown = self.generations.iter().filter(|generation| generation.epoch > query.epoch);
        let limit = unknown.map(|generation| generation.recovery_version).min();
        if let (Some(newest), Some(limit)) = (generation.as_mut(), limit) {
            newest.recovery_version = limit;
        }
        let ceiling = limit.map_or(self.durable, |limit| limit.min(self.durable));
        let known_committed = self.known_committed.min(ceiling);
        if limit.is_none() && query.after >= ceiling && known_committed <= query.known_committed {
            return Ok(None);
        }
        let (entries, end) = self.entries_after(query, ceiling, spilled)?;
        Ok(Some(PullAnswer { entries, end, known_committed, generation }))
    }

    fn entries_after(
        &self,
        query: &PullQuery,
        ceiling: Version,
        spilled: &dyn Spilled,
    ) -> Result<(Vec<Entry>, Version), Refusal> {
        let mut page = Page {
            tag: query.tag,
            entries: Vec::new(),
            walked: 0,
            most: self.limits.pull_entries,
            bytes: 0,
            limit: query.limit_bytes.min(self.limits.pull_bytes),
            query,
        };
        if query.after >= ceiling {
            return Ok((page.entries, query.after));
        }
        if query.after < self.spilled {
            page.most = page.most.min(READ_MOST);
            let through = self.spilled.min(ceiling);
            let mut after = query.after;
            loop {
                let read = spilled.read(after, through, READ)?;
                let is_last = read.len() < READ;
                for entry in read {
                    if let Err(end) = page.take(&entry) {
                        return Ok((page.entries, end));
                    }
                    after = entry.version;
                }
                if is_last {
                    // The rest is in memory, for the next pull.
                    return Ok((page.entries, through));
                }
            }
        }
        for held in self.entries.range(query.after.plus(1)..=ceiling).map(|(_, held)| held) {
            if let Err(end) = page.take(&held.entry) {
                return Ok((page.entries, end));
            }
        }
        Ok((page.entries, ceiling))
    }

    /// The answer to a pull that has waited in vain.
    #[must_use]
    pub fn nothing_new(&self, query: &PullQuery) -> PullAnswer {
        PullAnswer {
            entries: Vec::new(),
            end: query.after,
            known_committed: self.known_committed.min(self.durable),
            generation: self.generation(),
        }
    }

    /// The version up to which entries are on disk alone; 0 where none are.
    #[must_use]
    pub fn spilled(&self) -> Version {
        self.spilled
    }

    /// Leaves the oldest entries to the disk alone, as long as memory holds too much. Only what no
    /// recovery truncates.
    pub(super) fn spill(&mut self) {
        let sure = self.known_committed.min(self.durable);
        while self.bytes > self.limits.memory_bytes
            && let Some(first) = self.entries.first_entry()
            && *first.key() <= sure
        {
            self.spilled = *first.key();
            self.bytes -= first.remove().bytes;
        }
    }

    /// Takes everything that was spilled into memory again. It is spilled anew with the next write.
    ///
    /// # Errors
    /// It can't be read.
    pub fn take_back(&mut self, spilled: &dyn Spilled) -> Result<(), Refusal> {
        if self.spilled > Version::ZERO {
            for entry in spilled.read(Version::ZERO, self.spilled, usize::MAX)? {
                let held = Held::new(Arc::new(entry));
                self.bytes += held.bytes;
                self.entries.insert(held.entry.version, held);
            }
            self.spilled = Version::ZERO;
        }
        Ok(())
    }
}

/// An entry with nothing but this tag's mutations.
fn of_tag(entry: &Entry, message: &TagMutations) -> Entry {
    Entry {
        epoch: entry.epoch,
        prev: entry.prev,
        version: entry.version,
        known_committed: entry.known_committed,
        messages: vec![message.clone()],
        traceparent: entry.traceparent.clone(),
    }
}
