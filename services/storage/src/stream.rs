//! One tag: what has been applied of its stream, what is durable, and what may be read.
//!
//! `durable` is never above `version`, nor above `known_committed`. Reads are answered in
//! `[oldest, version]`; the store holds `durable`; the changes after `oldest` are in the window.
//!
//! While a copy of the tag is taken from another storage ([`crate::copying`]), none of that holds:
//! nothing is read until the copy is whole, and then from the version on that made it so.

use std::collections::BTreeSet;

use plinth_api::TenureError;
use plinth_api::log::{Entry, Generation, PullAnswer};
use plinth_api::storage::{RangeAnswer, TagStatus};
use plinth_store::record::RecordError;
use plinth_store::{Batch, Store, StoreError};
use plinth_types::{Epoch, Key, KeyRange, Mutation, Tag, Value, Version};

use crate::copying::Copying;
use crate::records::{self, OnDisk, Position};
use crate::refusal::{Breach, Refusal};
use crate::window::{Cut, Window};

/// Why a log's answer is not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The log has begun a newer epoch: what it says is for a later assignment.
    #[error("the log has begun epoch {0}")]
    Superseded(Epoch),
    /// No log in order can say this.
    #[error("version {version} of epoch {epoch} can't follow version {after}")]
    Misfit {
        /// The version that does not fit.
        version: Version,
        /// Its epoch.
        epoch: Epoch,
        /// The version before it.
        after: Version,
    },
}

/// A log's answer, once it has been checked.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Entries to apply, in order.
    pub entries: Vec<Entry>,
    /// Nothing but the entries is up to here.
    pub end: Version,
    /// The newest known committed version.
    pub known_committed: Version,
}

/// A step of the durable state.
#[derive(Clone, Debug)]
pub struct Flush {
    /// Where the store is afterwards.
    pub position: Position,
    /// What to write, atomically.
    pub batch: Batch,
}

/// How soon the durable state is to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Nothing is to be written, or a write is under way.
    None,
    /// It may wait for more.
    Soon,
    /// At once.
    Now,
}

/// What the stream is assigned to.
#[derive(Clone, Debug)]
struct Term {
    generation: Generation,
    ranges: Vec<KeyRange>,
    window_versions: u64,
    /// Whether the storage only joins the team: it is not to be read.
    joining: bool,
}

/// A tag's stream.
#[derive(Clone, Debug)]
pub struct Stream {
    tag: Tag,
    term: Option<Term>,
    durable: Position,
    writing: Option<Position>,
    version: Version,
    known_committed: Version,
    oldest: Version,
    window: Window,
    /// The copy that it is taken from, until that is whole.
    copy: Option<Copying>,
}

impl Stream {
    /// A tag as the disk knows it. Nothing older is readable.
    #[must_use]
    pub fn restore(tag: Tag, durable: Position) -> Stream {
        Stream {
            tag,
            term: None,
            durable,
            writing: None,
            version: durable.version,
            known_committed: durable.version,
            oldest: durable.version,
            window: Window::default(),
            copy: None,
        }
    }

    /// A tag of which a copy is being taken.
    #[must_use]
    pub fn copied(tag: Tag, copy: Copying) -> Stream {
        let mut stream = Stream::restore(tag, Position::default());
        stream.take_copy(copy);
        stream
    }

    /// The copy that is being taken; none where there is a whole one.
    #[must_use]
    pub fn copy(&self) -> Option<&Copying> {
        self.copy.as_ref()
    }

    /// Forgets what is here: a copy of these keys is taken from the beginning.
    pub fn begin_copy(&mut self, ranges: Vec<KeyRange>) {
        self.window = Window::default();
        self.take_copy(Copying::begin(ranges));
    }

    /// The copy is durable as far as this. The logs are followed once it has everything.
    pub fn take_copy(&mut self, copy: Copying) {
        let (applied, newest) = (copy.record().applied, copy.record().newest.version);
        self.durable = if copy.has_everything() { applied } else { Position::default() };
        self.writing = None;
        self.version = self.durable.version;
        self.known_committed = self.durable.version;
        self.oldest = newest;
        self.copy = (!copy.is_whole_at(applied.version)).then_some(copy);
    }

    /// A page of the copy is being written.
    pub fn begin_page(&mut self) {
        self.writing = Some(self.durable);
    }

    /// Whether the storage only joins the tag's team.
    #[must_use]
    pub fn is_joining(&self) -> bool {
        self.term.as_ref().is_some_and(|term| term.joining)
    }

    /// Everything up to here is applied.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The store holds this.
    #[must_use]
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// The newest known committed version.
    #[must_use]
    pub fn known_committed(&self) -> Version {
        self.known_committed
    }

    /// Its keys; none while it is not assigned.
    #[must_use]
    pub fn ranges(&self) -> &[KeyRange] {
        self.term.as_ref().map_or(&[], |term| &term.ranges)
    }

    /// The generation that it is assigned to.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        self.term.as_ref().map(|term| term.generation)
    }

    /// Whether a write is under way.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Bytes in memory.
    #[must_use]
    pub fn window_bytes(&self) -> usize {
        self.window.bytes()
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> TagStatus {
        TagStatus {
            tag: self.tag,
            version: self.version,
            durable: self.durable.version,
            durable_epoch: self.durable.epoch,
            oldest: self.oldest,
            known_committed: self.known_committed,
            copying: self.copy.as_ref().map(Copying::status),
        }
    }

    /// Whether what is here agrees with a generation that is to begin.
    ///
    /// # Errors
    /// A recovery dropped what is durable or known to be committed.
    pub fn check(&self, generation: Generation) -> Result<(), Breach> {
        let Generation { epoch, recovery_version, .. } = generation;
        let held = self.held_epoch();
        if held >= epoch {
            return Ok(());
        }
        let newest = self.writing.unwrap_or(self.durable).version;
        let copied = self.copy.as_ref().map_or(Version::ZERO, |copy| copy.record().newest.version);
        let facts = [
            (newest, "on disk"),
            (copied, "in a copy"),
            (self.known_committed, "as known to be committed"),
        ];
        match facts.into_iter().find(|(version, _)| *version > recovery_version) {
            None => Ok(()),
            Some((version, what)) => {
                let (tag, version_epoch) = (self.tag, held);
                Err(Breach { tag, what, version, version_epoch, recovery_version, epoch })
            }
        }
    }

    /// The newest epoch that anything here is of.
    fn held_epoch(&self) -> Epoch {
        let copied = self.copy.as_ref().map_or(Epoch::ZERO, |copy| copy.record().newest.epoch);
        self.generation().map_or(self.durable.epoch.max(copied), |held| held.epoch)
    }

    /// Begins a generation, or goes on in it with other ranges.
    ///
    /// When it begins, whatever is in memory and not known to be committed is dropped. RV alone
    /// would not do: a stream that missed an epoch may hold versions that were void by that
    /// epoch's RV, and yet are below the one of this.
    ///
    /// # Errors
    /// As [`Stream::check`]; nothing has changed.
    pub fn assign(
        &mut self,
        generation: Generation,
        ranges: Vec<KeyRange>,
        window_versions: u64,
        joining: bool,
    ) -> Result<(), Breach> {
        self.check(generation)?;
        // A process that starts anew within an epoch has nothing in memory that could be void.
        if self.held_epoch() < generation.epoch {
            let sure = self.known_committed.min(generation.recovery_version);
            self.window.drop_above(sure);
            self.version = self.version.min(sure);
        }
        self.begin(generation, ranges, window_versions, joining);
        Ok(())
    }

    /// Begins a generation with all that is in memory, void or not: a part of [`Stream::assign`], and
    /// alone a deliberate fault.
    pub(crate) fn begin(
        &mut self,
        generation: Generation,
        ranges: Vec<KeyRange>,
        window_versions: u64,
        joining: bool,
    ) {
        self.term = Some(Term { generation, ranges, window_versions, joining });
    }

    /// Ends the stream's part in an epoch: nothing is served or made durable until it is assigned
    /// again.
    pub fn release(&mut self) {
        self.term = None;
    }

    /// Checks a log's answer to a pull after [`Stream::version`].
    ///
    /// # Errors
    /// It is of a newer epoch, or can't be.
    pub fn accept(&self, answer: PullAnswer) -> Result<Accepted, Unusable> {
        let PullAnswer { mut entries, mut end, known_committed, generation: newest } = answer;
        let after = self.version;
        let Some(generation) = self.generation() else {
            return Err(Unusable::Misfit { version: end, epoch: Epoch::ZERO, after });
        };
        let begun = newest.map_or(Epoch::ZERO, |newest| newest.epoch);
        if begun > generation.epoch {
            return Err(Unusable::Superseded(begun));
        }
        if begun < generation.epoch {
            // The log has not dropped yet what lies above RV.
            entries.retain(|entry| entry.version <= generation.recovery_version);
            end = end.min(generation.recovery_version);
        }
        // No version is between RV and the first one: to be there is to be at RV.
        if end < generation.first_version {
            end = end.min(generation.recovery_version);
        }
        let mut previous = after;
        for &Entry { epoch, version, .. } in &entries {
            let belongs = if version >= generation.first_version {
                epoch == generation.epoch
            } else {
                version <= generation.recovery_version && epoch < generation.epoch
            };
            if version <= previous || version > end || !belongs {
                return Err(Unusable::Misfit { version, epoch, after: previous });
            }
            previous = version;
        }
        Ok(Accepted { entries, end, known_committed })
    }

    /// Applies one of the entries of [`Stream::accept`].
    ///
    /// # Errors
    /// The store can't be read; nothing was applied.
    pub fn apply(&mut self, entry: Entry, store: &dyn Store) -> Result<(), StoreError> {
        let ranges = self.ranges();
        // What a page of a copy has already must not be done twice.
        let settled = self.copy.as_ref().and_then(|copy| copy.settled_from(entry.version));
        let mutations: Vec<Mutation> = entry
            .messages
            .into_iter()
            .filter(|message| message.tag == self.tag)
            .flat_map(|message| message.mutations)
            .flat_map(|mutation| within(ranges, settled, mutation))
            .collect();
        let base = OnDisk { store, table: records::table(self.tag) };
        if !self.window.apply(&base, entry.epoch, entry.version, &mutations)? {
            self.oldest = entry.version;
        }
        self.version = entry.version;
        Ok(())
    }

    /// Everything up to `end` has been applied.
    pub fn advance(&mut self, end: Version, known_committed: Version, window_bytes: usize) {
        self.version = self.version.max(end);
        self.known_committed = self.known_committed.max(known_committed);
        self.evict(window_bytes);
    }

    /// Everything up to here is applied and known to be committed.
    #[must_use]
    pub fn committed(&self) -> Version {
        self.version.min(self.known_committed)
    }

    /// Whether memory holds too much of what a flush would free: to pull more would only add to it.
    /// What is not known to be committed does not count, since a pull tells of that.
    #[must_use]
    pub fn is_congested(&self, window_bytes: usize) -> bool {
        self.window.bytes() > window_bytes && self.committed() > self.durable.version
    }

    /// The keys that change once so much is applied, of which so much is known to be committed.
    #[must_use]
    pub fn newly_committed(&self, end: Version, known_committed: Version) -> BTreeSet<Key> {
        let committed = self.version.max(end).min(self.known_committed.max(known_committed));
        self.window.changed_keys(self.committed(), committed)
    }

    /// How soon a [`Stream::flush`] is due.
    #[must_use]
    pub fn urgency(&self) -> Urgency {
        let (durable, target) = (self.durable.version, self.committed());
        if self.writing.is_some() || target <= durable || self.term.is_none() {
            Urgency::None
        } else if self.tag == Tag::SYSTEM && self.window.changed(durable, target) {
            Urgency::Now
        } else {
            Urgency::Soon
        }
    }

    /// Begins the next step of the durable state, of about `limit` bytes; one at a time.
    /// [`Stream::flushed`] or [`Stream::unflushed`] follows.
    ///
    /// # Errors
    /// The record can't be written, which is a bug.
    pub fn flush(&mut self, limit: usize) -> Result<Option<Flush>, RecordError> {
        if self.urgency() == Urgency::None {
            return Ok(None);
        }
        let (version, changes) = self.window.changes(self.durable.version, self.committed(), limit);
        let position = Position { epoch: self.epoch_at(version), version };
        assert!(
            version <= self.known_committed,
            "only what is known to be committed is made durable"
        );
        let table = records::table(self.tag);
        let mut batch = Batch::new();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put(table, key.0, value.0),
                None => batch.delete(table, key.0),
            };
        }
        match &mut self.copy {
            Some(copy) => {
                copy.applied(position);
                copy.put(&mut batch, self.tag)?;
            }
            None => {
                let value = records::tag_value(position)?;
                batch.put(records::META, records::tag_key(self.tag), value);
            }
        }
        self.writing = Some(position);
        Ok(Some(Flush { position, batch }))
    }

    fn epoch_at(&self, version: Version) -> Epoch {
        match self.generation() {
            Some(generation) if version >= generation.first_version => generation.epoch,
            _ => self.window.epoch_at(version).unwrap_or_default().max(self.durable.epoch),
        }
    }

    /// The step that was under way is durable.
    pub fn flushed(&mut self, window_bytes: usize) {
        if let Some(position) = self.writing.take() {
            self.durable = position;
            self.copy.take_if(|copy| copy.is_whole_at(position.version));
            self.evict(window_bytes);
        }
    }

    /// The step that was under way did not happen.
    pub fn unflushed(&mut self) {
        self.writing = None;
    }

    fn evict(&mut self, window_bytes: usize) {
        let wanted = match &self.term {
            Some(term) if self.window.bytes() <= window_bytes => {
                self.version.minus(term.window_versions)
            }
            _ => self.version,
        };
        let mut oldest = wanted.min(self.durable.version);
        if let Some(Generation { recovery_version, first_version, .. }) = self.generation()
            && oldest > recovery_version
        {
            // Nothing that is durable is in between.
            oldest = oldest.max(first_version);
        }
        self.oldest = self.oldest.max(oldest);
        self.window.evict(self.oldest.min(self.durable.version));
    }

    /// Whether a version can be read now.
    ///
    /// # Errors
    /// [`Refusal::Future`] if it may be read later, [`Refusal::TooOld`] if it never will.
    pub fn readable(&self, version: Version) -> Result<(), Refusal> {
        let Some(Generation { recovery_version, first_version, .. }) = self.generation() else {
            let (asked, serving) = (Epoch::ZERO, Epoch::ZERO);
            return Err(Refusal::Tenure(TenureError::NotBegun { asked, serving }));
        };
        if self.is_joining() || self.copy.is_some() {
            return Err(Refusal::Joining(self.tag));
        }
        let in_gap = version > recovery_version && version < first_version;
        if version < self.oldest || in_gap {
            Err(Refusal::TooOld { asked: version, oldest: self.oldest })
        } else if version > self.version {
            Err(Refusal::Future { asked: version, at: self.version })
        } else {
            Ok(())
        }
    }

    /// A key's value at a readable version.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn get(
        &self,
        key: &Key,
        version: Version,
        store: &dyn Store,
    ) -> Result<Option<Value>, StoreError> {
        let base = OnDisk { store, table: records::table(self.tag) };
        self.window.get(&base, key, version)
    }

    /// A range at a readable version.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn range(
        &self,
        range: &KeyRange,
        version: Version,
        cut: Cut,
        store: &dyn Store,
    ) -> Result<RangeAnswer, StoreError> {
        let base = OnDisk { store, table: records::table(self.tag) };
        self.window.range(&base, range, version, cut)
    }
}

/// A mutation as far as it is about these ranges, and about keys below `settled`: a table is shared
/// with other tags.
fn within(ranges: &[KeyRange], settled: Option<&Key>, mutation: Mutation) -> Vec<Mutation> {
    let is_settled = |key: &Key| settled.is_some_and(|settled| key >= settled);
    match mutation {
        Mutation::ClearRange(cleared) => {
            let open = KeyRange { from: Key::default(), to: settled.cloned() };
            let ranges = ranges.iter().filter_map(|range| range.intersection(&cleared));
            let ranges = ranges.filter_map(|range| range.intersection(&open));
            ranges.map(Mutation::ClearRange).collect()
        }
        Mutation::Set { ref key, .. }
        | Mutation::Clear { ref key }
        | Mutation::Atomic { ref key, .. }
            if is_settled(key) =>
        {
            Vec::new()
        }
        mutation @ (Mutation::Set { .. } | Mutation::Clear { .. } | Mutation::Atomic { .. }) => {
            vec![mutation]
        }
    }
}
