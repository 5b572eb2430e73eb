//! A cluster's data at every version, with conflicts, and with answers that get lost.

use std::collections::BTreeMap;

use plinth_api::ErrorCode;
use plinth_api::commit_proxy::{CommitRequest, Committed, StampPart, StampPlace};
use plinth_api::storage::{KeyValue, RangeAnswer, ReadAnswer, ReadRequest};
use plinth_system_config::ShardMap;
use plinth_types::{
    Key, KeyRange, Mutation, SYSTEM_SHARD, SYSTEM_SHARD_END, Tag, Value, Version, Versionstamp,
};

pub(crate) type Data = BTreeMap<Key, Value>;

/// Rows of one answer: few, so that ranges take several.
const PAGE: usize = 3;

/// Users' keys in two shards.
pub(crate) fn shards() -> ShardMap {
    ShardMap(vec![
        (Key::default(), Tag(1)),
        (Key::from(&[1, 1][..]), Tag(2)),
        (Key::from_static(SYSTEM_SHARD), Tag::SYSTEM),
        (Key::from_static(SYSTEM_SHARD_END), Tag(1)),
    ])
}

/// What becomes of a commit beside being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// It is done, but the answer does not get through.
    AnswerLost,
    /// It is not done, and nobody knows.
    RequestLost,
    /// It arrives after the next one.
    Delayed,
    /// What it read was written just before.
    Overtaken,
}

#[derive(Default)]
pub(crate) struct Memory {
    versions: BTreeMap<Version, Data>,
    writes: Vec<(Version, KeyRange)>,
    /// Reads below it are too old.
    pub(crate) oldest: Version,
    /// For the next commits, the last one first.
    pub(crate) mishaps: Vec<Mishap>,
    delayed: Vec<CommitRequest>,
    /// What became of those.
    pub(crate) late: Vec<Result<Committed, ErrorCode>>,
}

impl Memory {
    pub(crate) fn version(&self) -> Version {
        self.versions.last_key_value().map_or(Version(100), |(version, _)| *version)
    }

    fn at(&self, version: Version) -> Data {
        let newest = self.versions.range(..=version).next_back();
        newest.map(|(_, data)| data.clone()).unwrap_or_default()
    }

    /// Everything that users wrote.
    pub(crate) fn users(&self) -> Data {
        let users = KeyRange::user_keys();
        self.at(self.version())
            .into_iter()
            .filter(|(key, _)| users.contains(key.as_bytes()))
            .collect()
    }

    pub(crate) fn everything(&self) -> Data {
        self.at(self.version())
    }

    /// Writes without anything that could conflict.
    pub(crate) fn write(&mut self, mutations: Vec<Mutation>) {
        let version = self.version().plus(10);
        let data = changed(self.at(self.version()), &mutations);
        self.writes.extend(mutations.iter().map(|mutation| (version, mutation.range())));
        self.versions.insert(version, data);
    }

    pub(crate) fn commit(&mut self, request: CommitRequest) -> Result<Committed, ErrorCode> {
        let result = match self.mishaps.pop() {
            None => self.decide(request),
            Some(Mishap::AnswerLost) => {
                let _ = self.decide(request);
                Err(ErrorCode::CommitUnknownResult)
            }
            Some(Mishap::RequestLost) => Err(ErrorCode::CommitUnknownResult),
            Some(Mishap::Delayed) => {
                self.delayed.push(request);
                return Err(ErrorCode::CommitUnknownResult);
            }
            Some(Mishap::Overtaken) => {
                let read = request.reads[0].from.clone();
                self.write(vec![Mutation::Set { key: read, value: "overtaken".into() }]);
                self.decide(request)
            }
        };
        for delayed in std::mem::take(&mut self.delayed) {
            let late = self.decide(delayed);
            self.late.push(late);
        }
        result
    }

    fn decide(&mut self, request: CommitRequest) -> Result<Committed, ErrorCode> {
        let CommitRequest { read_version, reads, writes, mut mutations, stamps, .. } = request;
        if !reads.is_empty() {
            let read = read_version.expect("who reads says when");
            if read < self.oldest {
                return Err(ErrorCode::TransactionTooOld);
            }
            let conflict = self.writes.iter().any(|(version, written)| {
                *version > read && reads.iter().any(|range| range.intersection(written).is_some())
            });
            if conflict {
                return Err(ErrorCode::Conflict);
            }
        }
        let committed = Committed { version: self.version().plus(10), index: 3 };
        for StampPlace { mutation, part, offset } in stamps {
            let Mutation::Set { key, value } = &mut mutations[mutation as usize] else { panic!() };
            let bytes = if part == StampPart::Key { &mut key.0 } else { &mut value.0 };
            let mut stamped = bytes.to_vec();
            stamped[offset as usize..][..Versionstamp::LENGTH]
                .copy_from_slice(&committed.versionstamp().to_bytes());
            *bytes = stamped.into();
        }
        self.writes.extend(writes.into_iter().map(|range| (committed.version, range)));
        self.write(mutations);
        Ok(committed)
    }

    pub(crate) fn read(&self, request: &ReadRequest) -> Result<ReadAnswer, ErrorCode> {
        let version = if request.newest { self.version() } else { request.version };
        if version < self.oldest {
            return Err(ErrorCode::TransactionTooOld);
        }
        let data = self.at(version);
        let values = request.keys.iter().map(|key| data.get(key).cloned()).collect();
        let ranges = request.ranges.iter().map(|read| {
            let shard = shards().within(&read.range).count();
            assert_eq!(shard, 1, "one shard at a time");
            let limit = (read.limit as usize).min(PAGE);
            let mut items = rows(&data, &read.range, read.reverse);
            let more = items.len() > limit;
            items.truncate(limit);
            RangeAnswer { items, more }
        });
        Ok(ReadAnswer { version, values, ranges: ranges.collect() })
    }
}

/// A range of the data.
pub(crate) fn rows(data: &Data, range: &KeyRange, reverse: bool) -> Vec<KeyValue> {
    let held = data.iter().filter(|(key, _)| range.contains(key.as_bytes()));
    let row = |(key, value): (&Key, &Value)| KeyValue { key: key.clone(), value: value.clone() };
    if reverse { held.rev().map(row).collect() } else { held.map(row).collect() }
}

/// The data after some mutations.
pub(crate) fn changed(mut data: Data, mutations: &[Mutation]) -> Data {
    for mutation in mutations {
        match mutation {
            Mutation::Set { key, value } => drop(data.insert(key.clone(), value.clone())),
            Mutation::Clear { key } => drop(data.remove(key)),
            Mutation::ClearRange(range) => data.retain(|key, _| !range.contains(key.as_bytes())),
            Mutation::Atomic { key, op, operand } => match op.apply(data.get(key), operand) {
                Some(value) => drop(data.insert(key.clone(), value)),
                None => drop(data.remove(key)),
            },
        }
    }
    data
}
