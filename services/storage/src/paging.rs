//! Pages of what is on disk, for a storage that takes a copy.

use std::collections::BTreeMap;

use plinth_api::storage::{KeyValue, Page, PageRequest};
use plinth_store::{Direction, Store};
use plinth_types::{Key, KeyRange, StoreId, Tag, Value};

use crate::config::Limits;
use crate::copying::checksum;
use crate::records::{self, OnDisk};
use crate::refusal::Refusal;
use crate::stream::Stream;
use crate::window::Base as _;

/// Rows that one scan of the disk asks for; each may be as large as a value.
const SCAN: usize = 64;

/// Reads a page. Only where no write of the tag is under way: all of it is then as of the durable
/// version, and that is known to be committed.
///
/// # Errors
/// It is asked of another directory, there is no whole copy of the keys here, or the disk fails.
/// [`Refusal::Future`] may pass: the version is not durable yet, or a write is under way.
pub fn page(
    here: StoreId,
    streams: &BTreeMap<Tag, Stream>,
    store: &dyn Store,
    request: &PageRequest,
    limits: Limits,
) -> Result<Page, Refusal> {
    let PageRequest { source, newcomer, tag, range, at_least, limit_bytes, .. } = request;
    if *source != here {
        return Err(Refusal::OtherStore { asked: *source, here });
    }
    let lacking = || Refusal::NoCopy(*tag);
    let stream = streams.get(tag).ok_or_else(lacking)?;
    let is_held = stream.ranges().iter().any(|held| held.covers(range));
    if !is_held || range.is_empty() || stream.copy().is_some() {
        return Err(lacking());
    }
    let durable = stream.durable();
    if durable.version < *at_least || stream.is_writing() {
        return Err(Refusal::Future { asked: *at_least, at: durable.version });
    }
    let limit = usize::try_from(*limit_bytes).unwrap_or(usize::MAX).min(limits.page_bytes);
    let (items, end) = rows(store, *tag, range, limit)?;
    let mut page = Page {
        source: here,
        newcomer: *newcomer,
        tag: *tag,
        version: durable.version,
        epoch: durable.epoch,
        range: KeyRange { from: range.from.clone(), to: end },
        items,
        checksum: 0,
    };
    page.checksum = checksum(&page);
    Ok(page)
}

/// The rows of a range up to about `limit` bytes, at least one, and where they end.
fn rows(
    store: &dyn Store,
    tag: Tag,
    range: &KeyRange,
    limit: usize,
) -> Result<(Vec<KeyValue>, Option<Key>), Refusal> {
    let base = OnDisk { store, table: records::table(tag) };
    let mut items: Vec<KeyValue> = Vec::new();
    let mut bytes = 0;
    let mut rest = range.clone();
    loop {
        let rows = base.scan(&rest, Direction::Forward, SCAN)?;
        let is_last = rows.len() < SCAN;
        for (key, value) in rows {
            let size = key.len() + value.len();
            if bytes + size > limit && !items.is_empty() {
                return Ok((items, Some(Key(key))));
            }
            bytes += size;
            rest.from = Key(key.clone()).successor();
            items.push(KeyValue { key: Key(key), value: Value(value) });
        }
        if is_last {
            return Ok((items, range.to.clone()));
        }
    }
}
