//! A transaction: reads at one version, writes kept here until the commit, and what conflicts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plinth_api::commit_proxy::{Committed, StampPart, StampPlace};
use plinth_api::storage::KeyValue;
use plinth_types::{
    AtomicOp, KEY_LIMIT, Key, KeyRange, Mutation, SYSTEM_KEYSPACE, TRANSACTION_LIMIT,
    TRANSACTION_PARTS, VALUE_LIMIT, Value, Version, Versionstamp,
};

use crate::attempts::Deadline;
use crate::committing::Commit;
use crate::idempotency::{IdempotencyId, Outcome};
use crate::overlay::{Known, Overlay, apply};
use crate::{ClientError, Database, KeySelector};

/// Rows that are asked for at a time.
const CHUNK: usize = 1_000;

/// Whether what is read conflicts with concurrent writes to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// It does: the transaction is only committed if it would read the same then.
    #[default]
    Serializable,
    /// It does not. It is still of the transaction's one version.
    Snapshot,
}

/// How much of a range is read, and how.
#[derive(Clone, Copy, Debug)]
pub struct RangeOptions {
    /// At most so many keys; at least 1.
    pub limit: usize,
    /// About so many bytes of keys and values, but at least one key.
    pub limit_bytes: usize,
    /// From the end of the range.
    pub reverse: bool,
    /// Whether it conflicts.
    pub isolation: Isolation,
}

impl Default for RangeOptions {
    fn default() -> Self {
        RangeOptions {
            limit: usize::MAX,
            limit_bytes: usize::MAX,
            reverse: false,
            isolation: Isolation::Serializable,
        }
    }
}

/// What was read of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// In the order asked for.
    pub items: Vec<KeyValue>,
    /// Whether a limit was reached, so that there may be more.
    pub more: bool,
}

/// A transaction. A clone is the same transaction; its reads may be made at the same time.
#[derive(Clone)]
pub struct Transaction {
    database: Database,
    deadline: Deadline,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    read_version: Option<Version>,
    overlay: Overlay,
    reads: Vec<KeyRange>,
    writes: Vec<KeyRange>,
    mutations: Vec<Mutation>,
    stamps: Vec<StampPlace>,
    bytes: usize,
    is_marked: bool,
    reads_system: bool,
    ignores_own: bool,
    /// What a transaction sees of its own writes where it ignores them.
    nothing: Overlay,
    committed: Option<Committed>,
    ended: bool,
}

impl Transaction {
    pub(crate) fn new(database: Database, deadline: Deadline) -> Transaction {
        Transaction { database, deadline, state: Arc::default() }
    }

    fn state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets it read the system's keys, from `\xff` on.
    pub fn read_system_keys(&self) {
        self.state(|state| state.reads_system = true);
    }

    /// From now on it reads what others have committed, and nothing of what it has written itself.
    pub fn ignore_own_writes(&self) {
        self.state(|state| state.ignores_own = true);
    }

    /// Reads at this version, and not at one asked for at the first read.
    pub fn set_read_version(&self, version: Version) {
        self.state(|state| state.read_version = Some(version));
    }

    /// The version that it reads at, asked for when it is first needed.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] at the deadline, as with every other read.
    pub async fn read_version(&self) -> Result<Version, ClientError> {
        if let Some(version) = self.state(|state| state.may_go_on().map(|()| state.read_version))? {
            return Ok(version);
        }
        let version = self.database.read_version_by(self.deadline).await?;
        // Of several reads that began together, one decides.
        Ok(self.state(|state| *state.read_version.get_or_insert(version)))
    }

    /// A key's value.
    ///
    /// # Errors
    /// As [`Transaction::read_version`]; [`ClientError::TooOld`] once the version is older than the
    /// window, [`ClientError::Unreadable`] where the value depends on the versionstamp.
    pub async fn get(&self, key: &Key) -> Result<Option<Value>, ClientError> {
        self.get_with(key, Isolation::Serializable).await
    }

    /// A key's value, with a choice of whether that conflicts.
    ///
    /// # Errors
    /// As [`Transaction::get`].
    pub async fn get_with(
        &self,
        key: &Key,
        isolation: Isolation,
    ) -> Result<Option<Value>, ClientError> {
        let known = self.state(|state| {
            state.may_go_on()?;
            state.may_read(&KeyRange::single(key))?;
            Ok::<_, ClientError>(state.own().look(key))
        })?;
        let ops = match known {
            Known::Value(value) => return Ok(value),
            Known::Unreadable => return Err(ClientError::Unreadable),
            Known::Base(ops) => ops,
        };
        let version = self.read_version().await?;
        let value = self.database.get_at(version, key, self.deadline).await?;
        if isolation == Isolation::Serializable {
            self.state(|state| state.reads.push(KeyRange::single(key)));
        }
        Ok(apply(value, &ops))
    }

    /// Values of many keys, in order: the storages are asked for them together.
    ///
    /// # Errors
    /// As [`Transaction::get`].
    pub async fn get_many(
        &self,
        keys: &[Key],
        isolation: Isolation,
    ) -> Result<Vec<Option<Value>>, ClientError> {
        let known = self.state(|state| {
            state.may_go_on()?;
            keys.iter().try_for_each(|key| state.may_read(&KeyRange::single(key)))?;
            Ok::<_, ClientError>(keys.iter().map(|key| state.own().look(key)).collect::<Vec<_>>())
        })?;
        if known.contains(&Known::Unreadable) {
            return Err(ClientError::Unreadable);
        }
        let asked: Vec<Key> = known
            .iter()
            .zip(keys)
            .filter(|(known, _)| matches!(known, Known::Base(_)))
            .map(|(_, key)| key.clone())
            .collect();
        let mut found = Vec::new();
        if !asked.is_empty() {
            let version = self.read_version().await?;
            found = self.database.get_many_at(version, &asked, self.deadline).await?;
            if isolation == Isolation::Serializable {
                self.state(|state| state.reads.extend(asked.iter().map(KeyRange::single)));
            }
        }
        let mut found = found.into_iter();
        let value = |known| match known {
            Known::Value(value) => value,
            Known::Base(ops) => apply(found.next().flatten(), &ops),
            Known::Unreadable => None,
        };
        Ok(known.into_iter().map(value).collect())
    }

    /// The keys of a range with their values.
    ///
    /// # Errors
    /// As [`Transaction::get`]; [`ClientError::InvertedRange`].
    pub async fn get_range(
        &self,
        range: &KeyRange,
        options: RangeOptions,
    ) -> Result<RangeResult, ClientError> {
        self.state(|state| {
            state.may_go_on()?;
            state.may_read(range)
        })?;
        if range.to.as_ref().is_some_and(|to| *to < range.from) {
            return Err(ClientError::InvertedRange);
        }
        let version = self.read_version().await?;
        let RangeOptions { limit, limit_bytes, reverse, isolation } = options;
        let mut result = RangeResult::default();
        let mut bytes = 0;
        let mut rest = Some(range.clone()).filter(|range| !range.is_empty());
        'whole: while let Some(left) = rest {
            let wanted = limit.saturating_sub(result.items.len()).clamp(1, CHUNK);
            let chunk =
                self.database.chunk_at(version, &left, wanted, reverse, self.deadline).await?;
            let merged = self.state(|state| state.own().merge(&chunk.part, chunk.items))?;
            let rows: Box<dyn Iterator<Item = (Key, Value)> + Send> = if reverse {
                Box::new(merged.into_iter().rev())
            } else {
                Box::new(merged.into_iter())
            };
            for (key, value) in rows {
                bytes += key.0.len() + value.0.len();
                result.items.push(KeyValue { key, value });
                if result.items.len() >= limit || bytes >= limit_bytes {
                    result.more = true;
                    break 'whole;
                }
            }
            rest = chunk.rest;
        }
        if isolation == Isolation::Serializable {
            let read = read_part(range, &result, reverse);
            self.state(|state| {
                let dependent = state.own().dependent(&read);
                state.reads.extend(dependent);
            });
        }
        Ok(result)
    }

    /// The key that a selector names.
    ///
    /// # Errors
    /// As [`Transaction::get`].
    pub async fn get_key(
        &self,
        selector: &KeySelector,
        isolation: Isolation,
    ) -> Result<Key, ClientError> {
        let all = if self.state(|state| state.reads_system) {
            KeyRange::all()
        } else {
            KeyRange::user_keys()
        };
        let (range, reverse, mut number) = selector.search(&all);
        number += usize::from(self.database.runtime.fault("client.selector_off_by_one"));
        let options = RangeOptions { limit: number, reverse, isolation, ..RangeOptions::default() };
        let found = self.get_range(&range, options).await?;
        let key = found.items.into_iter().nth(number.saturating_sub(1)).map(|item| item.key);
        Ok(key.unwrap_or_else(|| match (reverse, all.to) {
            (true, _) => all.from,
            (false, Some(to)) => to,
            (false, None) => Key::from_static(SYSTEM_KEYSPACE),
        }))
    }

    /// Gives a key a value.
    ///
    /// # Errors
    /// [`ClientError::SystemKey`], [`ClientError::Limit`], as with every other write.
    pub fn set(&self, key: &Key, value: &Value) -> Result<(), ClientError> {
        self.state(|state| {
            state.may_write(key, value)?;
            state.overlay.set(key, Some(value.clone()));
            state.mutate(Mutation::Set { key: key.clone(), value: value.clone() })
        })
    }

    /// Takes a key its value.
    ///
    /// # Errors
    /// As [`Transaction::set`].
    pub fn clear(&self, key: &Key) -> Result<(), ClientError> {
        self.state(|state| {
            state.may_write(key, &Value::default())?;
            state.overlay.set(key, None);
            state.mutate(Mutation::Clear { key: key.clone() })
        })
    }

    /// Takes every key of a range its value.
    ///
    /// # Errors
    /// As [`Transaction::set`]; [`ClientError::InvertedRange`].
    pub fn clear_range(&self, range: &KeyRange) -> Result<(), ClientError> {
        self.state(|state| {
            state.may_go_on()?;
            state.may_change(range)?;
            if range.is_empty() {
                return Ok(());
            }
            state.overlay.clear_range(range);
            state.mutate(Mutation::ClearRange(range.clone()))
        })
    }

    /// Makes a key's value of what it is at the commit. Nothing is read, so nothing conflicts.
    ///
    /// # Errors
    /// As [`Transaction::set`].
    pub fn atomic(&self, key: &Key, op: AtomicOp, operand: &Value) -> Result<(), ClientError> {
        self.state(|state| {
            state.may_write(key, operand)?;
            state.overlay.atomic(key, op, operand);
            let (key, operand) = (key.clone(), operand.clone());
            state.mutate(Mutation::Atomic { key, op, operand })
        })
    }

    /// Gives a key a value; ten bytes of the key, from `offset` on, become the versionstamp.
    ///
    /// # Errors
    /// As [`Transaction::set`]; [`ClientError::StampPlace`].
    pub fn set_versionstamped_key(
        &self,
        key: &Key,
        offset: usize,
        value: &Value,
    ) -> Result<(), ClientError> {
        self.state(|state| {
            state.may_write(key, value)?;
            let place = state.stamp_place(StampPart::Key, key.as_bytes(), offset)?;
            let with = |byte: u8| {
                let mut key = key.as_bytes().to_vec();
                key.iter_mut().skip(offset).take(Versionstamp::LENGTH).for_each(|b| *b = byte);
                Key::from(key)
            };
            state.overlay.stamped_key(KeyRange::new(with(0), with(0xff).successor()));
            state.stamps.push(place);
            state.mutate(Mutation::Set { key: key.clone(), value: value.clone() })
        })
    }

    /// Gives a key a value of which ten bytes, from `offset` on, become the versionstamp.
    ///
    /// # Errors
    /// As [`Transaction::set`]; [`ClientError::StampPlace`].
    pub fn set_versionstamped_value(
        &self,
        key: &Key,
        value: &Value,
        offset: usize,
    ) -> Result<(), ClientError> {
        self.state(|state| {
            state.may_write(key, value)?;
            let place = state.stamp_place(StampPart::Value, value.as_bytes(), offset)?;
            state.overlay.stamped_value(key);
            state.stamps.push(place);
            state.mutate(Mutation::Set { key: key.clone(), value: value.clone() })
        })
    }

    /// Lets the transaction conflict with writes to a range, as if it had been read.
    ///
    /// # Errors
    /// [`ClientError::InvertedRange`].
    pub fn add_read_conflict(&self, range: &KeyRange) -> Result<(), ClientError> {
        self.state(|state| state.conflict(range, |state| &mut state.reads))
    }

    /// Lets others that have read a range conflict with the transaction, as if it were written.
    ///
    /// # Errors
    /// [`ClientError::InvertedRange`].
    pub fn add_write_conflict(&self, range: &KeyRange) -> Result<(), ClientError> {
        self.state(|state| state.conflict(range, |state| &mut state.writes))
    }

    /// What an idempotency id stands for: where a transaction with it was committed, and what it
    /// came to. None where there is none yet.
    ///
    /// # Errors
    /// As [`Transaction::get`].
    pub async fn outcome(
        &self,
        id: &IdempotencyId,
    ) -> Result<Option<(Versionstamp, Outcome)>, ClientError> {
        let key = id.key();
        let version = self.read_version().await?;
        let value = self.database.get_at(version, &key, self.deadline).await?;
        if !self.database.runtime.fault("client.id_not_read") {
            self.state(|state| state.reads.push(KeyRange::single(&key)));
        }
        Ok(value.and_then(|value| Outcome::from_value(&value)))
    }

    /// Commits with the transaction what its idempotency id stands for. [`Transaction::outcome`]
    /// must have said that it stands for nothing yet.
    ///
    /// # Errors
    /// [`ClientError::Limit`] where the outcome is too large to be kept.
    pub fn set_outcome(&self, id: &IdempotencyId, outcome: &Outcome) -> Result<(), ClientError> {
        let value = outcome.to_value().map_err(|_| ClientError::Ended)?;
        limit("what the idempotency id stands for", value.0.len(), VALUE_LIMIT)?;
        let now = self.database.runtime.unix_ms();
        self.state(|state| {
            let place = state.stamp_place(StampPart::Value, value.as_bytes(), 0)?;
            state.stamps.push(place);
            state.is_marked = true;
            state.mutations.push(Mutation::Set { key: id.key(), value });
            let (key, value) = (id.expiry_key(now), Value::default());
            state.mutations.push(Mutation::Set { key, value });
            Ok(())
        })
    }

    /// Commits. A transaction that changes nothing and adds no write conflict is committed without
    /// asking anyone: all that it read was so at its read version.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] where what it read was written since, [`ClientError::TooOld`];
    /// [`ClientError::CommitUnknownResult`] where its fate is not known at the deadline.
    pub async fn commit(&self) -> Result<(), ClientError> {
        self.commit_by(self.deadline).await
    }

    /// The same, with so much time from now on.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub async fn commit_within(&self, within: Duration) -> Result<(), ClientError> {
        self.commit_by(Deadline::after(within)).await
    }

    async fn commit_by(&self, deadline: Deadline) -> Result<(), ClientError> {
        let commit = self.state(|state| {
            state.may_go_on()?;
            state.ended = true;
            state.limit_parts()?;
            let is_blind = state.reads.is_empty();
            let commit = Commit {
                read_version: state.read_version.filter(|_| !is_blind),
                reads: std::mem::take(&mut state.reads),
                writes: std::mem::take(&mut state.writes),
                mutations: std::mem::take(&mut state.mutations),
                stamps: std::mem::take(&mut state.stamps),
                is_marked: state.is_marked,
            };
            Ok::<_, ClientError>(commit)
        })?;
        if commit.mutations.is_empty() && commit.writes.is_empty() {
            return Ok(());
        }
        let committed = self.database.commit_once(commit, deadline).await?;
        self.state(|state| state.committed = Some(committed));
        Ok(())
    }

    /// The version that it reads at, where it has one yet.
    #[must_use]
    pub fn known_read_version(&self) -> Option<Version> {
        self.state(|state| state.read_version)
    }

    /// Where it was committed; none before that, and none where it changed nothing.
    #[must_use]
    pub fn versionstamp(&self) -> Option<Versionstamp> {
        self.state(|state| state.committed.map(|committed| committed.versionstamp()))
    }

    /// Bytes of keys and values written so far.
    #[must_use]
    pub fn size(&self) -> usize {
        self.state(|state| state.bytes)
    }
}

impl State {
    /// Its own writes, as far as its reads see them.
    fn own(&self) -> &Overlay {
        if self.ignores_own { &self.nothing } else { &self.overlay }
    }

    fn may_go_on(&self) -> Result<(), ClientError> {
        if self.ended { Err(ClientError::Ended) } else { Ok(()) }
    }

    fn may_read(&self, range: &KeyRange) -> Result<(), ClientError> {
        if self.reads_system || KeyRange::user_keys().covers(range) {
            Ok(())
        } else {
            Err(ClientError::SystemKey)
        }
    }

    fn may_change(&self, range: &KeyRange) -> Result<(), ClientError> {
        if range.to.as_ref().is_some_and(|to| *to < range.from) {
            return Err(ClientError::InvertedRange);
        }
        limit("the key", range.from.0.len(), KEY_LIMIT)?;
        if KeyRange::user_keys().covers(range) { Ok(()) } else { Err(ClientError::SystemKey) }
    }

    fn may_write(&self, key: &Key, value: &Value) -> Result<(), ClientError> {
        self.may_go_on()?;
        self.may_change(&KeyRange::single(key))?;
        limit("the value", value.0.len(), VALUE_LIMIT)
    }

    fn mutate(&mut self, mutation: Mutation) -> Result<(), ClientError> {
        self.bytes += mutation.size();
        self.mutations.push(mutation);
        limit("the transaction", self.bytes, TRANSACTION_LIMIT)?;
        self.limit_parts()
    }

    /// Checks how many parts the commit will have.
    fn limit_parts(&self) -> Result<(), ClientError> {
        let actual = self.mutations.len() + self.reads.len() + self.writes.len();
        if actual > TRANSACTION_PARTS {
            let what = "mutations and conflict ranges of the transaction";
            return Err(ClientError::TooMany { what, actual, limit: TRANSACTION_PARTS });
        }
        Ok(())
    }

    /// The ten bytes from `offset` on of the key or value of the next mutation.
    fn stamp_place(
        &self,
        part: StampPart,
        bytes: &[u8],
        offset: usize,
    ) -> Result<StampPlace, ClientError> {
        let fits = offset.checked_add(Versionstamp::LENGTH).is_some_and(|end| end <= bytes.len());
        match (u32::try_from(self.mutations.len()), u32::try_from(offset)) {
            (Ok(mutation), Ok(offset)) if fits => Ok(StampPlace { mutation, part, offset }),
            _ => Err(ClientError::StampPlace),
        }
    }

    fn conflict(
        &mut self,
        range: &KeyRange,
        list: impl FnOnce(&mut State) -> &mut Vec<KeyRange>,
    ) -> Result<(), ClientError> {
        self.may_go_on()?;
        if range.to.as_ref().is_some_and(|to| *to < range.from) {
            return Err(ClientError::InvertedRange);
        }
        if !range.is_empty() {
            self.bytes += range.from.0.len() + range.to.as_ref().map_or(0, |to| to.0.len());
            limit("the transaction", self.bytes, TRANSACTION_LIMIT)?;
            list(self).push(range.clone());
        }
        self.limit_parts()
    }
}

/// The part of a range that an answer tells about: up to its last key, where a limit was reached.
fn read_part(range: &KeyRange, result: &RangeResult, reverse: bool) -> KeyRange {
    match result.items.last().filter(|_| result.more) {
        None => range.clone(),
        Some(last) if reverse => KeyRange { from: last.key.clone(), to: range.to.clone() },
        Some(last) => KeyRange { from: range.from.clone(), to: Some(last.key.successor()) },
    }
}

fn limit(what: &'static str, actual: usize, limit: usize) -> Result<(), ClientError> {
    if actual > limit { Err(ClientError::Limit { what, actual, limit }) } else { Ok(()) }
}
