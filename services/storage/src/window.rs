//! The versions of keys that memory holds: what is not on disk yet, and what the disk has replaced
//! within the window. Pure; the disk is behind [`Base`].
//!
//! A key that changed within the window has a chain of values, the first being the one before the
//! first change. A key without a chain has had the disk's value throughout the window. So a read at
//! any version of the window needs the disk only for keys without a chain, and those are the same
//! before and after any write to disk that is under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use plinth_api::storage::{KeyValue, RangeAnswer};
use plinth_store::{Direction, Rows, StoreError};
use plinth_types::{Epoch, Key, KeyRange, Mutation, Value, Version};

/// What is on disk.
pub trait Base {
    /// The value of a key.
    ///
    /// # Errors
    /// The disk's.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Up to `limit` rows of a range.
    ///
    /// # Errors
    /// The disk's.
    fn scan(
        &self,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Rows, StoreError>;
}

/// Rows that one scan of the disk asks for.
const SCAN: usize = 1000;
/// What a value in a chain costs beside its bytes.
const OVERHEAD: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    version: Version,
    value: Option<Value>,
}

impl Change {
    fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, |value| value.0.len()) + OVERHEAD
    }
}

/// What one version changed.
#[derive(Clone, Debug)]
struct Step {
    version: Version,
    epoch: Epoch,
    keys: BTreeSet<Key>,
}

/// How much of a range to read.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// At most so many keys.
    pub keys: usize,
    /// About so many bytes, but at least one key.
    pub bytes: usize,
    /// From which end.
    pub direction: Direction,
}

/// Keys with their new values; none where they have none any more.
pub type Changes = BTreeMap<Key, Option<Value>>;

/// The window of one tag.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// The first item of a chain holds from before everything in the window.
    chains: BTreeMap<Key, Vec<Change>>,
    steps: VecDeque<Step>,
    bytes: usize,
}

impl Window {
    /// Bytes that it holds, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Applies what a version does. Versions come in ascending order.
    ///
    /// Answers whether every earlier value is known. One that is damaged on disk is overwritten all
    /// the same; then only this version and later ones can be read. But an atomic operation on a
    /// damaged value is an error: its result would differ from the other replicas'.
    ///
    /// # Errors
    /// The disk's; the window is then unchanged.
    pub fn apply(
        &mut self,
        base: &dyn Base,
        epoch: Epoch,
        version: Version,
        mutations: &[Mutation],
    ) -> Result<bool, StoreError> {
        let last = self.steps.back().map(|last| last.version);
        assert!(last.is_none_or(|last| last < version), "versions are applied in their order");
        let mut known = true;
        let mut changed: BTreeMap<Key, Option<Value>> = BTreeMap::new();
        let mut befores: BTreeMap<Key, Option<Value>> = BTreeMap::new();
        for mutation in mutations {
            match mutation {
                Mutation::Set { key, value } => {
                    known &= self.note_before(base, key, &mut befores)?;
                    changed.insert(key.clone(), Some(value.clone()));
                }
                Mutation::Clear { key } => {
                    known &= self.note_before(base, key, &mut befores)?;
                    changed.insert(key.clone(), None);
                }
                Mutation::Atomic { key, op, operand } => {
                    if !changed.contains_key(key) {
                        let now = self.newest(base, key, &mut befores)?;
                        changed.insert(key.clone(), now);
                    }
                    if let Some(value) = changed.get_mut(key) {
                        *value = op.apply(value.as_ref(), operand);
                    }
                }
                Mutation::ClearRange(range) if range.is_empty() => {}
                Mutation::ClearRange(range) => {
                    for (_, value) in changed.range_mut::<Key, _>(bounds(range)) {
                        *value = None;
                    }
                    for key in self.present(base, range, &mut befores)? {
                        changed.insert(key, None);
                    }
                }
            }
        }
        for (key, before) in befores {
            let first = Change { version: Version::ZERO, value: before };
            self.bytes += first.bytes() + key.0.len();
            self.chains.insert(key, vec![first]);
        }
        let keys: BTreeSet<Key> = changed.keys().cloned().collect();
        for (key, value) in changed {
            let change = Change { version, value };
            self.bytes += change.bytes();
            self.chains.entry(key).or_default().push(change);
        }
        self.steps.push_back(Step { version, epoch, keys });
        Ok(known)
    }

    /// A key's newest value, noted where the key has no chain.
    fn newest(
        &self,
        base: &dyn Base,
        key: &Key,
        befores: &mut BTreeMap<Key, Option<Value>>,
    ) -> Result<Option<Value>, StoreError> {
        if let Some(chain) = self.chains.get(key) {
            return Ok(chain.last().and_then(|last| last.value.clone()));
        }
        if let Some(before) = befores.get(key) {
            return Ok(before.clone());
        }
        let before = base.get(key.as_bytes())?.map(Value);
        befores.insert(key.clone(), before.clone());
        Ok(before)
    }

    /// Reads what a key without a chain has had so far. Answers whether that could be done.
    fn note_before(
        &self,
        base: &dyn Base,
        key: &Key,
        befores: &mut BTreeMap<Key, Option<Value>>,
    ) -> Result<bool, StoreError> {
        if self.chains.contains_key(key) || befores.contains_key(key) {
            return Ok(true);
        }
        let (before, known) = match base.get(key.as_bytes()) {
            Err(StoreError::Corrupt { path, detail }) => {
                tracing::error!(%key, path, detail, "a damaged value is overwritten");
                (None, false)
            }
            before => (before?, true),
        };
        befores.insert(key.clone(), before.map(Value));
        Ok(known)
    }

    /// The keys of a range that have a value at the newest version, their values noted where they
    /// had no chain.
    fn present(
        &self,
        base: &dyn Base,
        range: &KeyRange,
        befores: &mut BTreeMap<Key, Option<Value>>,
    ) -> Result<Vec<Key>, StoreError> {
        let mut keys: Vec<Key> = Vec::new();
        for (key, chain) in self.chains.range::<Key, _>(bounds(range)) {
            if chain.last().is_some_and(|last| last.value.is_some()) {
                keys.push(key.clone());
            }
        }
        let mut rest = range.clone();
        loop {
            let rows = base.scan(&rest, Direction::Forward, SCAN)?;
            let last = rows.last().map(|(key, _)| Key(key.clone()).successor());
            let whole = rows.len() < SCAN;
            for (key, value) in rows {
                let key = Key(key);
                if !self.chains.contains_key(&key) {
                    befores.entry(key.clone()).or_insert(Some(Value(value)));
                    keys.push(key);
                }
            }
            match last {
                Some(next) if !whole => rest.from = next,
                Some(_) | None => return Ok(keys),
            }
        }
    }

    fn at(chain: &[Change], version: Version) -> Option<&Value> {
        let after = chain.partition_point(|change| change.version <= version);
        after
            .checked_sub(1)
            .and_then(|last| chain.get(last))
            .and_then(|change| change.value.as_ref())
    }

    /// The value of a key at a version of the window.
    ///
    /// # Errors
    /// The disk's.
    pub fn get(
        &self,
        base: &dyn Base,
        key: &Key,
        version: Version,
    ) -> Result<Option<Value>, StoreError> {
        match self.chains.get(key) {
            Some(chain) => Ok(Window::at(chain, version).cloned()),
            None => Ok(base.get(key.as_bytes())?.map(Value)),
        }
    }

    /// The keys with values of a range at a version of the window, from one end on.
    ///
    /// # Errors
    /// The disk's.
    pub fn range(
        &self,
        base: &dyn Base,
        range: &KeyRange,
        version: Version,
        cut: Cut,
    ) -> Result<RangeAnswer, StoreError> {
        let Cut { keys: limit, bytes: limit_bytes, direction } = cut;
        let mut page = RangeAnswer { items: Vec::new(), more: false };
        let mut bytes = 0;
        let mut rest = range.clone();
        while !rest.is_empty() {
            let chunk = limit.saturating_sub(page.items.len()).saturating_add(1).min(SCAN);
            let rows = base.scan(&rest, direction, chunk)?;
            let (part, next) = split(&rest, &rows, direction, chunk);
            for (key, value) in self.overlay(rows, &part, version, direction) {
                let size = key.0.len() + value.0.len();
                if page.items.len() >= limit
                    || (bytes + size > limit_bytes && !page.items.is_empty())
                {
                    page.more = true;
                    return Ok(page);
                }
                bytes += size;
                page.items.push(KeyValue { key, value });
            }
            match next {
                Some(next) => rest = next,
                None => break,
            }
        }
        Ok(page)
    }

    /// The rows of the disk in `part`, with what chains say instead.
    fn overlay(
        &self,
        rows: Rows,
        part: &KeyRange,
        version: Version,
        direction: Direction,
    ) -> Vec<(Key, Value)> {
        let mut merged: BTreeMap<Key, Value> =
            rows.into_iter().map(|(key, value)| (Key(key), Value(value))).collect();
        if !part.is_empty() {
            for (key, chain) in self.chains.range::<Key, _>(bounds(part)) {
                match Window::at(chain, version) {
                    Some(value) => merged.insert(key.clone(), value.clone()),
                    None => merged.remove(key),
                };
            }
        }
        match direction {
            Direction::Forward => merged.into_iter().collect(),
            Direction::Reverse => merged.into_iter().rev().collect(),
        }
    }

    fn between(&self, from: Version, to: Version) -> impl Iterator<Item = &Step> {
        let first = self.steps.partition_point(|step| step.version <= from);
        self.steps.range(first..).take_while(move |step| step.version <= to)
    }

    /// What lifts the disk from version `from` up to `to`, or to an earlier version once more than
    /// `limit` bytes have come together; and that version.
    #[must_use]
    pub fn changes(&self, from: Version, to: Version, limit: usize) -> (Version, Changes) {
        let mut changes = Changes::new();
        let mut bytes = 0;
        for step in self.between(from, to) {
            for key in &step.keys {
                let value = self.chains.get(key).and_then(|chain| Window::at(chain, step.version));
                bytes += key.0.len() + value.map_or(0, |value| value.0.len());
                changes.insert(key.clone(), value.cloned());
            }
            if bytes > limit {
                return (step.version, changes);
            }
        }
        (to, changes)
    }

    /// Whether a key changed after `from`, up to `to`.
    #[must_use]
    pub fn changed(&self, from: Version, to: Version) -> bool {
        self.between(from, to).any(|step| !step.keys.is_empty())
    }

    /// The keys that changed after `from`, up to `to`.
    #[must_use]
    pub fn changed_keys(&self, from: Version, to: Version) -> BTreeSet<Key> {
        self.between(from, to).flat_map(|step| step.keys.iter().cloned()).collect()
    }

    /// The epoch of the newest version up to this one that is in the window.
    #[must_use]
    pub fn epoch_at(&self, version: Version) -> Option<Epoch> {
        let after = self.steps.partition_point(|step| step.version <= version);
        after.checked_sub(1).and_then(|last| self.steps.get(last)).map(|step| step.epoch)
    }

    /// Forgets what is above a version.
    pub fn drop_above(&mut self, version: Version) {
        while let Some(step) = self.steps.pop_back_if(|step| step.version > version) {
            for key in step.keys {
                self.trim(&key, |chain| {
                    let keep = chain.partition_point(|change| change.version <= version);
                    chain.drain(keep..).map(|change| change.bytes()).sum()
                });
            }
        }
    }

    /// Forgets what no read at `oldest` or later needs. The disk must be current at `oldest` at
    /// least.
    pub fn evict(&mut self, oldest: Version) {
        while let Some(step) = self.steps.pop_front_if(|step| step.version <= oldest) {
            for key in step.keys {
                self.trim(&key, |chain| {
                    let replaced =
                        chain.partition_point(|change| change.version <= oldest).saturating_sub(1);
                    chain.drain(..replaced).map(|change| change.bytes()).sum()
                });
            }
        }
    }

    /// Shortens a chain by what `shorten` drops from it. A chain of one value is what the disk has.
    fn trim(&mut self, key: &Key, shorten: impl FnOnce(&mut Vec<Change>) -> usize) {
        let Some(chain) = self.chains.get_mut(key) else {
            return;
        };
        let mut freed = shorten(chain);
        if let [only] = chain.as_slice() {
            freed += only.bytes() + key.0.len();
            self.chains.remove(key);
        }
        self.bytes = self.bytes.saturating_sub(freed);
    }
}

fn bounds(range: &KeyRange) -> (Bound<&Key>, Bound<&Key>) {
    (Bound::Included(&range.from), range.to.as_ref().map_or(Bound::Unbounded, Bound::Excluded))
}

/// The part of a range that the rows of one scan cover, and the part that is left.
fn split(
    range: &KeyRange,
    rows: &Rows,
    direction: Direction,
    asked: usize,
) -> (KeyRange, Option<KeyRange>) {
    let last = rows.last().filter(|_| rows.len() >= asked).map(|(key, _)| Key(key.clone()));
    match (last, direction) {
        (None, _) => (range.clone(), None),
        (Some(last), Direction::Forward) => {
            let middle = last.successor();
            let part = KeyRange { from: range.from.clone(), to: Some(middle.clone()) };
            (part, Some(KeyRange { from: middle, to: range.to.clone() }))
        }
        (Some(last), Direction::Reverse) => {
            let part = KeyRange { from: last.clone(), to: range.to.clone() };
            (part, Some(KeyRange { from: range.from.clone(), to: Some(last) }))
        }
    }
}
