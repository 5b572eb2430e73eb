//! What a transaction has written, laid over what the storages hold. Pure.

use std::collections::BTreeMap;
use std::ops::Bound;

use plinth_api::storage::KeyValue;
use plinth_types::{AtomicOp, Key, KeyRange, Value};

use crate::ClientError;

/// So many conflict ranges at most stand for one range that was read.
const PIECES: usize = 100;

/// What a transaction has done to a key.
#[derive(Clone, Debug)]
enum Written {
    /// It has this value, or none, whatever is there.
    Value(Option<Value>),
    /// Its value is made of what is there.
    Atomics(Vec<(AtomicOp, Value)>),
    /// Its value bears the versionstamp.
    Unreadable,
}

/// What is known of a key before it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Its value; nothing is to be read.
    Value(Option<Value>),
    /// These operations are to be applied to what is read; often none.
    Base(Vec<(AtomicOp, Value)>),
    /// That can't be told before the commit.
    Unreadable,
}

/// A transaction's writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    keys: BTreeMap<Key, Written>,
    /// Ranges cleared, by their first key: disjoint. Keys in them may have been written since.
    cleared: BTreeMap<Key, Option<Key>>,
    /// Where keys that bear the versionstamp may come to lie.
    unreadable: Vec<KeyRange>,
}

impl Overlay {
    pub(crate) fn set(&mut self, key: &Key, value: Option<Value>) {
        self.keys.insert(key.clone(), Written::Value(value));
    }

    pub(crate) fn clear_range(&mut self, range: &KeyRange) {
        if range.is_empty() {
            return;
        }
        let inside: Vec<Key> =
            self.keys.range::<Key, _>(bounds(range)).map(|(key, _)| key.clone()).collect();
        for key in inside {
            self.keys.remove(&key);
        }
        let (mut from, mut to) = (range.from.clone(), range.to.clone());
        let touching: Vec<Key> = self
            .cleared
            .iter()
            .filter(|(start, end)| {
                to.as_ref().is_none_or(|to| *start <= to)
                    && end.as_ref().is_none_or(|end| *end >= from)
            })
            .map(|(start, _)| start.clone())
            .collect();
        for start in touching {
            if let Some(end) = self.cleared.remove(&start) {
                from = from.min(start);
                to = to.zip(end).map(|(a, b)| a.max(b));
            }
        }
        self.cleared.insert(from, to);
    }

    pub(crate) fn atomic(&mut self, key: &Key, op: AtomicOp, operand: &Value) {
        let after = match self.look(key) {
            Known::Value(before) => Written::Value(op.apply(before.as_ref(), operand)),
            Known::Base(mut ops) => {
                ops.push((op, operand.clone()));
                Written::Atomics(ops)
            }
            Known::Unreadable => Written::Unreadable,
        };
        self.keys.insert(key.clone(), after);
    }

    /// The key's value bears the versionstamp.
    pub(crate) fn stamped_value(&mut self, key: &Key) {
        self.keys.insert(key.clone(), Written::Unreadable);
    }

    /// A key somewhere in the range, which bears the versionstamp, is set.
    pub(crate) fn stamped_key(&mut self, range: KeyRange) {
        self.unreadable.push(range);
    }

    pub(crate) fn look(&self, key: &Key) -> Known {
        if self.unreadable.iter().any(|range| range.contains(key.as_bytes())) {
            return Known::Unreadable;
        }
        match self.keys.get(key) {
            Some(Written::Value(value)) => Known::Value(value.clone()),
            Some(Written::Atomics(ops)) => Known::Base(ops.clone()),
            Some(Written::Unreadable) => Known::Unreadable,
            None if self.is_cleared(key) => Known::Value(None),
            None => Known::Base(Vec::new()),
        }
    }

    fn is_cleared(&self, key: &Key) -> bool {
        let before = self.cleared.range::<Key, _>(..=key).next_back();
        before.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < end))
    }

    /// What a part of the key space holds, of which the storages hold exactly these rows.
    ///
    /// # Errors
    /// [`ClientError::Unreadable`].
    pub(crate) fn merge(
        &self,
        part: &KeyRange,
        rows: Vec<KeyValue>,
    ) -> Result<BTreeMap<Key, Value>, ClientError> {
        let mut merged: BTreeMap<Key, Value> =
            rows.into_iter().map(|row| (row.key, row.value)).collect();
        if part.is_empty() {
            return Ok(merged);
        }
        if self.unreadable.iter().any(|range| range.intersection(part).is_some()) {
            return Err(ClientError::Unreadable);
        }
        if !self.cleared.is_empty() {
            merged.retain(|key, _| !self.is_cleared(key));
        }
        for (key, written) in self.keys.range::<Key, _>(bounds(part)) {
            let value = match written {
                Written::Value(value) => value.clone(),
                Written::Atomics(ops) => apply(merged.get(key).cloned(), ops),
                Written::Unreadable => return Err(ClientError::Unreadable),
            };
            match value {
                Some(value) => merged.insert(key.clone(), value),
                None => merged.remove(key),
            };
        }
        Ok(merged)
    }

    /// The parts of a range whose content depends on what the storages hold: reading the range
    /// conflicts with writes to them, and to nothing else.
    pub(crate) fn dependent(&self, range: &KeyRange) -> Vec<KeyRange> {
        if range.is_empty() {
            return Vec::new();
        }
        let mut own: Vec<KeyRange> = self
            .keys
            .range::<Key, _>(bounds(range))
            .filter(|(_, written)| matches!(written, Written::Value(_)))
            .map(|(key, _)| KeyRange::single(key))
            .collect();
        let cleared = self.cleared.iter();
        own.extend(cleared.filter_map(|(from, to)| {
            range.intersection(&KeyRange { from: from.clone(), to: to.clone() })
        }));
        if own.len() > PIECES {
            return vec![range.clone()];
        }
        own.sort();
        let mut parts = Vec::new();
        let mut rest = range.clone();
        for KeyRange { from, to } in own {
            let before = KeyRange { from: rest.from.clone(), to: Some(from) };
            if !before.is_empty() {
                parts.push(before);
            }
            match to {
                Some(to) => rest.from = rest.from.max(to),
                None => return parts,
            }
        }
        if !rest.is_empty() {
            parts.push(rest);
        }
        parts
    }
}

/// A value after some operations.
pub(crate) fn apply(before: Option<Value>, ops: &[(AtomicOp, Value)]) -> Option<Value> {
    ops.iter().fold(before, |value, (op, operand)| op.apply(value.as_ref(), operand))
}

fn bounds(range: &KeyRange) -> (Bound<&Key>, Bound<&Key>) {
    let to = range.to.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    (Bound::Included(&range.from), to)
}

#[cfg(test)]
#[path = "overlay_tests.rs"]
mod tests;
