//! Reads over all of a storage's tags.

use std::collections::BTreeMap;

use plinth_api::storage::{RangeAnswer, RangeRead, ReadAnswer, ReadRequest};
use plinth_store::{Direction, Store};
use plinth_types::{Key, KeyRange, Tag, Version};

use crate::config::Limits;
use crate::refusal::Refusal;
use crate::stream::Stream;
use crate::window::Cut;

/// Answers a read at its version, wholly or not at all.
///
/// # Errors
/// Any reason for which it can't be answered now; [`Refusal::Future`] may pass.
pub(crate) fn read(
    streams: &BTreeMap<Tag, Stream>,
    store: &dyn Store,
    request: &ReadRequest,
    limits: Limits,
) -> Result<ReadAnswer, Refusal> {
    let asked = request.keys.len() + request.ranges.len();
    if asked > limits.read_parts {
        return Err(Refusal::TooMuch { asked, limit: limits.read_parts });
    }
    let version = if request.newest {
        newest(streams, request)?.max(request.version)
    } else {
        request.version
    };
    let mut bytes = 0;
    let mut values = Vec::with_capacity(request.keys.len());
    for key in &request.keys {
        let stream = holder(streams, key).ok_or_else(|| Refusal::WrongShard(key.clone()))?;
        stream.readable(version)?;
        let value = stream.get(key, version, store)?;
        bytes += value.as_ref().map_or(0, |value| value.0.len());
        if bytes > limits.value_bytes {
            return Err(Refusal::TooLarge(limits.value_bytes));
        }
        values.push(value);
    }
    let mut ranges = Vec::with_capacity(request.ranges.len());
    for range in &request.ranges {
        let rest = limits.read_bytes.saturating_sub(bytes);
        let answer = read_range(streams, store, range, version, rest)?;
        let size = answer.items.iter().map(|item| item.key.0.len() + item.value.0.len());
        bytes += size.sum::<usize>();
        ranges.push(answer);
    }
    Ok(ReadAnswer { version, values, ranges })
}

/// The newest version that is known to be committed in every tag that a read is about.
fn newest(streams: &BTreeMap<Tag, Stream>, request: &ReadRequest) -> Result<Version, Refusal> {
    let mut newest: Option<Version> = None;
    let mut lower = |stream: &Stream| {
        newest = Some(newest.map_or(stream.committed(), |least| least.min(stream.committed())));
    };
    for key in &request.keys {
        lower(holder(streams, key).ok_or_else(|| Refusal::WrongShard(key.clone()))?);
    }
    for read in &request.ranges {
        parts(streams, &read.range)?.into_iter().for_each(|(stream, _)| lower(stream));
    }
    Ok(newest.unwrap_or(Version::ZERO))
}

pub(crate) fn holder<'a>(streams: &'a BTreeMap<Tag, Stream>, key: &Key) -> Option<&'a Stream> {
    let holds =
        |stream: &&Stream| stream.ranges().iter().any(|range| range.contains(key.as_bytes()));
    streams.values().find(holds)
}

fn read_range(
    streams: &BTreeMap<Tag, Stream>,
    store: &dyn Store,
    read: &RangeRead,
    version: Version,
    bytes: usize,
) -> Result<RangeAnswer, Refusal> {
    let mut parts = parts(streams, &read.range)?;
    for (stream, _) in &parts {
        stream.readable(version)?;
    }
    let direction = if read.reverse {
        parts.reverse();
        Direction::Reverse
    } else {
        Direction::Forward
    };
    let limit = usize::try_from(read.limit).unwrap_or(usize::MAX);
    let mut answer = RangeAnswer { items: Vec::new(), more: false };
    let mut size = 0;
    for (stream, range) in parts {
        let keys = limit.saturating_sub(answer.items.len());
        let cut = Cut { keys, bytes: bytes.saturating_sub(size), direction };
        let part = stream.range(&range, version, cut, store)?;
        size += part.items.iter().map(|item| item.key.0.len() + item.value.0.len()).sum::<usize>();
        answer.items.extend(part.items);
        answer.more = part.more;
        if answer.more {
            break;
        }
    }
    Ok(answer)
}

/// The parts of a range by who holds them, in order. All of it must be held.
fn parts<'a>(
    streams: &'a BTreeMap<Tag, Stream>,
    range: &KeyRange,
) -> Result<Vec<(&'a Stream, KeyRange)>, Refusal> {
    let mut parts = Vec::new();
    let mut rest = range.clone();
    while !rest.is_empty() {
        let held = streams.values().find_map(|stream| {
            let shard =
                stream.ranges().iter().find(|shard| shard.contains(rest.from.as_bytes()))?;
            Some((stream, shard.intersection(&rest)?))
        });
        let (stream, part) = held.ok_or_else(|| Refusal::WrongShard(rest.from.clone()))?;
        let end = part.to.clone();
        parts.push((stream, part));
        match end {
            Some(end) => rest.from = end,
            None => break,
        }
    }
    Ok(parts)
}
