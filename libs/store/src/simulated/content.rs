//! What a simulated store holds, in memory and beyond the loss of power. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;

use crate::{Batch, Change, Direction, Rows, StoreError, Table};

type Rowset = BTreeMap<Bytes, Bytes>;
/// The tables of a store, by their names.
pub(super) type Tables = BTreeMap<Table, Rowset>;
type Bounds<'a> = (&'a [u8], Option<&'a [u8]>);
type KeyRange<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The tables of one store, twice: as they are, and as they would be after the loss of power.
#[derive(Default)]
pub(super) struct Content {
    current: Tables,
    synced: Tables,
    unsynced: Vec<Batch>,
    damaged: BTreeSet<(Table, Bytes)>,
}

impl Content {
    /// One that has these tables, on the disk too.
    pub(super) fn of(tables: Tables) -> Content {
        Content { current: tables.clone(), synced: tables, ..Content::default() }
    }

    /// The tables as they are on the disk.
    pub(super) fn synced(&self) -> &Tables {
        &self.synced
    }

    /// Declares the tables of an open store; the ones that exist must be among them.
    pub(super) fn declare(&mut self, tables: &[Table]) -> Result<(), Table> {
        if let Some(missing) = self.current.keys().find(|table| !tables.contains(table)) {
            return Err(missing);
        }
        for table in tables {
            self.current.entry(table).or_default();
            self.synced.entry(table).or_default();
        }
        Ok(())
    }

    /// A table of a batch that was not declared, if there is any.
    pub(super) fn undeclared(&self, batch: &Batch) -> Option<Table> {
        let tables = batch.0.iter().map(|change| match change {
            Change::Put(table, ..) | Change::Delete(table, ..) | Change::DeleteRange(table, ..) => {
                *table
            }
        });
        tables.into_iter().find(|table| !self.current.contains_key(table))
    }

    pub(super) fn write(&mut self, batch: Batch) {
        for change in &batch.0 {
            self.heal(change);
        }
        apply(&mut self.current, &batch);
        self.unsynced.push(batch);
    }

    /// Makes durable what was written. Answers how many batches that were.
    pub(super) fn sync(&mut self) -> usize {
        let count = self.unsynced.len();
        for batch in self.unsynced.drain(..) {
            apply(&mut self.synced, &batch);
        }
        count
    }

    /// How many batches the loss of power would endanger.
    pub(super) fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// What is left after the loss of power, when the first `kept` of the unsynced batches reached the disk.
    pub(super) fn lose_power(&mut self, kept: usize) {
        for batch in self.unsynced.drain(..).take(kept) {
            apply(&mut self.synced, &batch);
        }
        self.current.clone_from(&self.synced);
        let current = &self.current;
        self.damaged
            .retain(|(table, key)| current.get(table).is_some_and(|rows| rows.contains_key(key)));
    }

    /// Damages a row, if there is one.
    pub(super) fn damage(&mut self, table: Table, key: &[u8]) -> bool {
        let row = self.current.get(table).and_then(|rows| rows.get_key_value(key));
        let Some((key, _)) = row else {
            return false;
        };
        self.damaged.insert((table, key.clone()));
        true
    }

    /// Turns a bit of a row's value, as a disk does that does not notice. Answers whether the row has
    /// a value with any.
    pub(super) fn flip(&mut self, table: Table, key: &[u8], bit: usize) -> bool {
        let mut flipped = false;
        for tables in [&mut self.current, &mut self.synced] {
            let value = tables.get_mut(table).and_then(|rows| rows.get_mut(key));
            let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
            let mut changed = value.to_vec();
            let bit = bit % (changed.len() * 8);
            changed[bit / 8] ^= 1 << (bit % 8);
            *value = changed.into();
            flipped = true;
        }
        flipped
    }

    /// How many rows there are.
    pub(super) fn rows_count(&self) -> usize {
        self.current.values().map(BTreeMap::len).sum()
    }

    /// The row of this number in the order of tables and keys, and those of its table that follow it,
    /// `most` rows in all at most.
    pub(super) fn block(&self, first: usize, most: usize) -> Option<(Table, Vec<Bytes>)> {
        let mut before = 0;
        for (table, rows) in &self.current {
            if first < before + rows.len() {
                let keys = rows.keys().skip(first - before).take(most).cloned().collect();
                return Some((table, keys));
            }
            before += rows.len();
        }
        None
    }

    pub(super) fn get(
        &self,
        directory: &Path,
        table: Table,
        key: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        let row = self.rows(directory, table)?.get_key_value(key);
        row.map(|(key, value)| self.intact(directory, table, key, value).map(|(_, value)| value))
            .transpose()
    }

    pub(super) fn scan(
        &self,
        directory: &Path,
        table: Table,
        (from, to): Bounds<'_>,
        direction: Direction,
        limit: usize,
    ) -> Result<Rows, StoreError> {
        let rows = self.rows(directory, table)?;
        let Some(bounds) = bounds(from, to) else {
            return Ok(Rows::new());
        };
        let range = rows.range::<[u8], _>(bounds);
        let check = |(key, value)| self.intact(directory, table, key, value);
        match direction {
            Direction::Forward => range.take(limit).map(check).collect(),
            Direction::Reverse => range.rev().take(limit).map(check).collect(),
        }
    }

    fn rows(&self, directory: &Path, table: Table) -> Result<&Rowset, StoreError> {
        self.current.get(table).ok_or_else(|| undeclared_table(directory, table))
    }

    fn intact(
        &self,
        directory: &Path,
        table: Table,
        key: &Bytes,
        value: &Bytes,
    ) -> Result<(Bytes, Bytes), StoreError> {
        if !self.damaged.is_empty() && self.damaged.contains(&(table, key.clone())) {
            return Err(StoreError::Corrupt {
                path: directory.display().to_string(),
                detail: format!("a block of table {table} does not match its checksum"),
            });
        }
        Ok((key.clone(), value.clone()))
    }

    fn heal(&mut self, change: &Change) {
        match change {
            _ if self.damaged.is_empty() => {}
            Change::Put(table, key, _) | Change::Delete(table, key) => {
                self.damaged.remove(&(*table, key.clone()));
            }
            Change::DeleteRange(table, from, to) => {
                self.damaged.retain(|(damaged, key)| damaged != table || key < from || key >= to);
            }
        }
    }
}

/// The refusal of a table that was not named when the store was opened.
pub(super) fn undeclared_table(directory: &Path, table: Table) -> StoreError {
    StoreError::Io {
        path: directory.display().to_string(),
        detail: format!("table {table} was not declared when the store was opened"),
    }
}

fn apply(tables: &mut Tables, batch: &Batch) {
    for change in &batch.0 {
        match change {
            Change::Put(table, key, value) => {
                tables.entry(table).or_default().insert(key.clone(), value.clone());
            }
            Change::Delete(table, key) => {
                tables.entry(table).or_default().remove(key);
            }
            Change::DeleteRange(table, from, to) => {
                let rows = tables.entry(table).or_default();
                let Some(bounds) = bounds(from, Some(to)) else {
                    continue;
                };
                let gone: Vec<Bytes> =
                    rows.range::<[u8], _>(bounds).map(|(key, _)| key.clone()).collect();
                for key in gone {
                    rows.remove(&key);
                }
            }
        }
    }
}

/// The bounds of a range, or `None` where nothing can be in it (which `BTreeMap::range` would not take).
fn bounds<'a>(from: &'a [u8], to: Option<&'a [u8]>) -> Option<KeyRange<'a>> {
    match to {
        Some(to) if from >= to => None,
        Some(to) => Some((Bound::Included(from), Bound::Excluded(to))),
        None => Some((Bound::Included(from), Bound::Unbounded)),
    }
}
