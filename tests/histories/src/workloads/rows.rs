//! Requests and answers of transactions in few words.

use std::collections::BTreeMap;

use plinth_api::gateway::{
    Change, Clearing, Item, Operand, Operating, ReadResult, Reading, Setting, Stamping,
};
use plinth_types::{Key, Value, Versionstamp};

use crate::history::Transaction;

/// Keys with their values.
pub(super) type Rows<'a> = BTreeMap<&'a [u8], &'a [u8]>;

/// The most rows of a range.
const MOST: u32 = 10_000;

pub(super) fn key(key: &str) -> Reading {
    Reading { key: Some(key.into()), ..Reading::default() }
}

pub(super) fn prefix(prefix: &str) -> Reading {
    Reading { prefix: Some(prefix.into()), limit: Some(MOST), ..Reading::default() }
}

pub(super) fn range(from: &str, to: &str) -> Reading {
    Reading {
        from: Some(from.into()),
        to: Some(to.into()),
        limit: Some(MOST),
        ..Reading::default()
    }
}

pub(super) fn set(key: &str, value: impl Into<Value>) -> Change {
    Change::Set(Setting { key: key.into(), value: value.into() })
}

pub(super) fn clear(key: &str) -> Change {
    Change::Clear(Clearing { key: key.into() })
}

pub(super) fn operating(key: &str, operand: impl Into<Value>) -> Operating {
    Operating { key: key.into(), operand: Operand::Bytes(operand.into()) }
}

/// A key whose ten bytes after `before` become the versionstamp.
pub(super) fn stamped_key(before: &str, after: &[u8], value: &str) -> Change {
    let key = [before.as_bytes(), &[0; Versionstamp::LENGTH], after].concat();
    let offset = u32::try_from(before.len()).unwrap_or(u32::MAX);
    Change::SetVersionstampedKey(Stamping { key: Key::from(key), value: value.into(), offset })
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a read tells of all keys that begin with `prefix`; none where it does not tell all of them.
pub(super) fn rows<'a>(
    (reading, result): &'a (Reading, ReadResult),
    prefix: &str,
) -> Option<Rows<'a>> {
    let ReadResult::Range { from, to, items, more } = result else { return None };
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let covers = from.as_bytes() <= prefix.as_bytes()
        && to.as_ref().is_none_or(|to| to.as_bytes() >= &end[..]);
    if !covers || *more || reading.limit.is_none() {
        return None;
    }
    let inside = items.iter().filter(|item| item.key.as_bytes().starts_with(prefix.as_bytes()));
    Some(inside.map(|Item { key, value }| (key.as_bytes(), value.as_bytes())).collect())
}

/// Every sight of all keys that begin with `prefix`, with who had it. Those of transactions that were
/// refused count as well: what a transaction reads is of one version, whatever becomes of it. What it
/// reads after it has changed something is not everybody's.
pub(super) fn sights<'a>(
    transactions: &'a [Transaction],
    prefix: &str,
) -> Vec<(&'a Transaction, Rows<'a>)> {
    let mut sights = Vec::new();
    for transaction in transactions {
        for step in &transaction.steps {
            let seen = step.reads.iter().filter_map(|read| rows(read, prefix));
            sights.extend(seen.map(|rows| (transaction, rows)));
            if !step.changes.is_empty() {
                break;
            }
        }
    }
    sights
}
