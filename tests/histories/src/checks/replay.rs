//! Replay: in the order of their places, one after the other, committed transactions must read what
//! they have read. So the order of versions is a serial order that explains everything that was seen.
//!
//! It needs the fate of every transaction that changed something ([`crate::settle`]).

use std::collections::BTreeMap;

use plinth_api::gateway::{Action, Item, ReadResult, Reading};
use plinth_types::{Key, Value, Version, Versionstamp};

use crate::Anomaly;
use crate::history::{Fate, Transaction};

const NAME: &str = "replay";
/// No more than so many differences are told.
const MOST: usize = 5;

/// Where a transaction stands: at its versionstamp, or, where it changed nothing, after everything of
/// its version.
type Place = (Version, u32);

fn place(transaction: &Transaction) -> Option<Place> {
    match transaction.fate {
        Fate::Committed { stamp: Some(stamp), .. } => Some((stamp.version, u32::from(stamp.index))),
        Fate::Committed { version, stamp: None } => Some((version, u32::MAX)),
        Fate::Refused(_) | Fate::Unknown(_) => None,
    }
}

/// Answers the first reads that the replay does not explain.
#[must_use]
pub fn check(transactions: &[Transaction]) -> Vec<Anomaly> {
    let mut order: Vec<(Place, &Transaction)> = transactions
        .iter()
        .filter_map(|transaction| Some((place(transaction)?, transaction)))
        .collect();
    order.sort_by_key(|(place, transaction)| (*place, transaction.began));
    let mut wrong = Vec::new();
    let mut state = State::default();
    let mut before: Option<&Transaction> = None;
    for (_, transaction) in order {
        if let Fate::Committed { stamp: Some(stamp), .. } = transaction.fate {
            if let Some(before) = before.filter(|before| before.fate == transaction.fate) {
                let seen = format!("{before} and {transaction} have the versionstamp {stamp}");
                wrong.push(Anomaly::new("versionstamps are unique", seen));
            }
            before = Some(transaction);
        }
        let stamp = match transaction.fate {
            Fate::Committed { stamp, .. } => stamp.unwrap_or_default(),
            Fate::Refused(_) | Fate::Unknown(_) => continue,
        };
        for step in &transaction.steps {
            for (reading, result) in &step.reads {
                if let Some(difference) = state.difference(reading, result) {
                    wrong.push(Anomaly::new(NAME, format!("{transaction} {difference}")));
                }
            }
            for change in &step.changes {
                state.apply(change.clone().into(), stamp);
            }
        }
        if wrong.len() >= MOST {
            break;
        }
    }
    wrong
}

/// Every key with its value.
#[derive(Default)]
struct State(BTreeMap<Key, Value>);

impl State {
    fn apply(&mut self, action: Action, stamp: Versionstamp) {
        match action {
            Action::Set(key, value) => _ = self.0.insert(key, value),
            Action::Clear(key) => _ = self.0.remove(&key),
            Action::ClearRange(range) => self.0.retain(|key, _| !range.contains(key.as_bytes())),
            Action::Atomic(key, op, operand) => match op.apply(self.0.get(&key), &operand) {
                Some(value) => _ = self.0.insert(key, value),
                None => _ = self.0.remove(&key),
            },
            Action::StampedKey(key, offset, value) => {
                let key = Key::from(stamped(key.as_bytes(), offset, stamp));
                self.0.insert(key, value);
            }
            Action::StampedValue(key, value, offset) => {
                let value = Value::from(stamped(value.as_bytes(), offset, stamp));
                self.0.insert(key, value);
            }
        }
    }

    /// What a read should have been, where it was not that.
    fn difference(&self, reading: &Reading, result: &ReadResult) -> Option<String> {
        match result {
            ReadResult::Key { key, value } => {
                let expected = self.0.get(key);
                (expected != value.as_ref())
                    .then(|| format!("read {value:?} of {key}; by the replay it is {expected:?}"))
            }
            ReadResult::Range { from, to, items, more } => {
                let limit =
                    reading.limit.map_or(1_000, |limit| usize::try_from(limit).unwrap_or(0));
                let is_in = |key: &Key| key >= from && to.as_ref().is_none_or(|to| key < to);
                let inside = self.0.iter().filter(|(key, _)| is_in(key));
                let item =
                    |(key, value): (&Key, &Value)| Item { key: key.clone(), value: value.clone() };
                let mut expected: Vec<Item> = inside.map(item).collect();
                if reading.reverse {
                    expected.reverse();
                }
                let expects_more = expected.len() > limit;
                expected.truncate(limit);
                if *items == expected && *more == expects_more {
                    return None;
                }
                let lacking = expected.iter().find(|item| !items.contains(item));
                let strange = items.iter().find(|item| !expected.contains(item));
                Some(format!(
                    "read {} rows of {reading:?} (more: {more}); by the replay it is {} (more: \
                     {expects_more}); the first that lacks is {lacking:?}, the first that should \
                     not be there is {strange:?}",
                    items.len(),
                    expected.len()
                ))
            }
        }
    }
}

fn stamped(bytes: &[u8], offset: usize, stamp: Versionstamp) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (to, from) in bytes.iter_mut().skip(offset).zip(stamp.to_bytes()) {
        *to = from;
    }
    bytes
}
