//! A stream on a disk that loses power, against a full copy of the data at every version.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use plinth_api::log::{Entry, Generation, PullAnswer, TagMutations};
use plinth_runtime::Random;
use plinth_storage::Refusal;
use plinth_storage::records::{self, Position, TABLES};
use plinth_storage::stream::{Stream, Unusable, Urgency};
use plinth_storage::window::Cut;
use plinth_store::{Direction, Disk, DiskDelays, Durability, SimulatedDisk, Store, StoreError};
use plinth_types::{AtomicOp, Epoch, Key, KeyRange, Mutation, Tag, VERSION_GAP, Value, Version};
use proptest::prelude::*;

pub(crate) const TAG: Tag = Tag(1);
const WINDOW: u64 = 40;
pub(crate) const KEYS: u8 = 8;

pub(crate) type Data = BTreeMap<Key, Value>;

#[derive(Clone, Debug)]
enum Op {
    /// Something is committed, or at least logged.
    Log(Vec<Mutation>),
    /// All that is logged becomes known to be committed.
    Commit,
    /// The storage hears of up to so many entries.
    Pull(usize),
    /// A write begins.
    Flush,
    /// The write under way ends.
    Flushed,
    /// A new epoch. Of what is not known to be committed, so many entries are dropped. Whether the
    /// storage hears of it: if not, it misses the epoch.
    Recover(usize, bool),
    /// The storage's machine loses power.
    PowerLoss,
}

fn key() -> impl Strategy<Value = Key> {
    (0..KEYS).prop_map(|key| Key::from(vec![key]))
}

pub(crate) fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        4 => (key(), any::<u8>()).prop_map(|(key, value)| Mutation::Set { key, value: vec![value].into() }),
        1 => key().prop_map(|key| Mutation::Clear { key }),
        1 => (key(), key()).prop_map(|(from, to)| Mutation::ClearRange(KeyRange::new(from, to))),
        3 => (key(), prop::sample::select(&AtomicOp::ALL[..]), prop::collection::vec(0..3_u8, 0..3))
            .prop_map(|(key, op, operand)| Mutation::Atomic { key, op, operand: operand.into() }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => prop::collection::vec(mutation(), 0..4).prop_map(Op::Log),
        4 => Just(Op::Commit),
        6 => (0..5_usize).prop_map(Op::Pull),
        4 => Just(Op::Flush),
        3 => Just(Op::Flushed),
        1 => (0..4_usize, any::<bool>()).prop_map(|(dropped, heard)| Op::Recover(dropped, heard)),
        1 => Just(Op::PowerLoss),
    ]
}

/// SplitMix64.
pub(crate) struct Seeded(pub(crate) AtomicU64);

impl Random for Seeded {
    fn next_u64(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The cluster beside the storage: what the logs hold, and the data at every version.
pub(crate) struct Truth {
    pub(crate) generation: Generation,
    pub(crate) log: Vec<Entry>,
    pub(crate) end: Version,
    pub(crate) known_committed: Version,
    pub(crate) data: BTreeMap<Version, Data>,
}

impl Truth {
    pub(crate) fn new() -> Truth {
        Truth {
            generation: generation(1, Version::ZERO, Version::ZERO),
            log: Vec::new(),
            end: Version::ZERO,
            known_committed: Version::ZERO,
            data: BTreeMap::from([(Version::ZERO, Data::new())]),
        }
    }

    pub(crate) fn at(&self, version: Version) -> &Data {
        self.data.range(..=version).next_back().unwrap().1
    }

    pub(crate) fn append(&mut self, mutations: Vec<Mutation>) {
        let prev = self.end;
        let version = prev.plus(10).max(self.generation.first_version);
        let mut data = self.at(prev).clone();
        for mutation in &mutations {
            match mutation.clone() {
                Mutation::Set { key, value } => drop(data.insert(key, value)),
                Mutation::Clear { key } => drop(data.remove(&key)),
                Mutation::ClearRange(range) => {
                    data.retain(|key, _| !range.contains(key.as_bytes()))
                }
                Mutation::Atomic { key, op, operand } => match op.apply(data.get(&key), &operand) {
                    Some(value) => drop(data.insert(key, value)),
                    None => drop(data.remove(&key)),
                },
            }
        }
        self.data.insert(version, data);
        self.end = version;
        // A batch without anything for the tag is in the log, but not in an answer.
        if !mutations.is_empty() {
            let messages = vec![TagMutations { tag: TAG, mutations }];
            let (epoch, known_committed) = (self.generation.epoch, self.known_committed);
            self.log.push(Entry {
                epoch,
                prev,
                version,
                known_committed,
                messages,
                traceparent: None,
            });
        }
    }

    pub(crate) fn recover(&mut self, dropped: usize) {
        let open = self.data.range((Bound::Excluded(self.known_committed), Bound::Unbounded));
        let open: Vec<Version> = open.map(|(version, _)| *version).collect();
        let kept = open.len().saturating_sub(dropped);
        let rv = open.get(..kept).and_then(<[_]>::last).copied().unwrap_or(self.known_committed);
        self.log.retain(|entry| entry.version <= rv);
        self.data.retain(|version, _| *version <= rv);
        self.end = rv;
        let first = self.generation.first_version;
        self.generation = generation(self.generation.epoch.0 + 1, rv, first);
    }

    fn pull(&self, after: Version, limit: usize) -> PullAnswer {
        let mut entries: Vec<Entry> =
            self.log.iter().filter(|entry| entry.version > after).cloned().collect();
        let mut end = self.end.max(after);
        if entries.len() > limit {
            entries.truncate(limit);
            end = entries.last().map_or(after, |entry| entry.version);
        }
        let (known_committed, generation) = (self.known_committed, Some(self.generation));
        PullAnswer { entries, end, known_committed, generation }
    }
}

fn generation(epoch: u64, recovery_version: Version, previous_first: Version) -> Generation {
    let first_version = recovery_version.max(previous_first).plus(VERSION_GAP);
    Generation { epoch: Epoch(epoch), recovery_version, first_version }
}

/// The storage.
pub(crate) struct Replica {
    pub(crate) disk: SimulatedDisk,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) stream: Stream,
    pub(crate) writing: Option<BoxFuture<'static, Result<(), StoreError>>>,
}

impl Replica {
    pub(crate) async fn open(disk: SimulatedDisk) -> Replica {
        let store = disk.open(Path::new("/data"), &TABLES).await.unwrap();
        let found = records::read(&*store).unwrap();
        let durable = found.tags.get(&TAG).copied().unwrap_or_default();
        let stream = match found.copies.get(&TAG) {
            Some(copy) => Stream::copied(TAG, copy.clone()),
            None => Stream::restore(TAG, durable),
        };
        Replica { disk, store, stream, writing: None }
    }

    pub(crate) fn assign(&mut self, generation: Generation) {
        self.stream.assign(generation, vec![KeyRange::all()], WINDOW, false).unwrap();
    }

    pub(crate) fn pull(&mut self, truth: &Truth, limit: usize) {
        let answer = truth.pull(self.stream.version(), limit);
        match self.stream.accept(answer) {
            Ok(accepted) => {
                for entry in accepted.entries {
                    self.stream.apply(entry, &*self.store).unwrap();
                }
                self.stream.advance(accepted.end, accepted.known_committed, usize::MAX);
            }
            Err(Unusable::Superseded(epoch)) => {
                assert!(self.stream.generation().is_none_or(|held| held.epoch < epoch));
            }
            Err(error @ Unusable::Misfit { .. }) => panic!("{error}"),
        }
    }

    pub(crate) fn flush(&mut self, limit: usize) {
        if let Some(flush) = self.stream.flush(limit).unwrap() {
            self.writing = Some(self.store.write(flush.batch, Durability::Synced));
        }
    }

    pub(crate) async fn flushed(&mut self) {
        if let Some(writing) = self.writing.take() {
            writing.await.unwrap();
            self.stream.flushed(usize::MAX);
        }
    }

    fn check(&self, truth: &Truth) {
        let status = self.stream.status();
        assert!(status.durable <= status.version && status.durable <= status.known_committed);
        assert!(status.known_committed <= truth.known_committed);
        // A storage that has missed an epoch may hold what was dropped. It serves nobody then:
        // reads are of an epoch that it does not know.
        if self.stream.generation() != Some(truth.generation) {
            return;
        }
        assert!(status.oldest <= status.durable);
        let inside = truth.data.keys().copied().filter(|version| *version <= status.version);
        for version in inside.chain([status.oldest, status.version]) {
            match self.stream.readable(version) {
                Ok(()) => self.check_reads(truth.at(version), version),
                Err(Refusal::TooOld { .. }) => assert!(version < status.oldest),
                Err(refusal) => panic!("{refusal}"),
            }
        }
        let Generation { recovery_version, first_version, .. } = truth.generation;
        for none in [recovery_version.plus(1), first_version.minus(1)] {
            assert!(matches!(self.stream.readable(none), Err(Refusal::TooOld { .. })));
        }
    }

    fn check_reads(&self, data: &Data, version: Version) {
        for key in (0..KEYS).map(|key| Key::from(vec![key])) {
            let value = self.stream.get(&key, version, &*self.store).unwrap();
            assert_eq!(value.as_ref(), data.get(&key), "{key:?} at {version}");
        }
        for (range, keys) in
            [(KeyRange::all(), 3), (KeyRange::new(vec![2].into(), vec![6].into()), 100)]
        {
            let mut expected: Vec<Key> =
                data.keys().filter(|key| range.contains(key.as_bytes())).cloned().collect();
            let more = expected.len() > keys;
            for direction in [Direction::Forward, Direction::Reverse] {
                let cut = Cut { keys, bytes: usize::MAX, direction };
                let answer = self.stream.range(&range, version, cut, &*self.store).unwrap();
                let found: Vec<Key> = answer.items.into_iter().map(|item| item.key).collect();
                assert_eq!(
                    found,
                    expected[..keys.min(expected.len())],
                    "{direction:?} at {version}"
                );
                assert_eq!(answer.more, more);
                expected.reverse();
            }
        }
    }
}

async fn run(ops: Vec<Op>, seed: u64) {
    let random = Arc::new(Seeded(AtomicU64::new(seed)));
    let disk = SimulatedDisk::new("machine", random.clone(), DiskDelays::default(), None);
    let mut truth = Truth::new();
    let mut replica = Replica::open(disk).await;
    replica.assign(truth.generation);
    for op in ops {
        match op {
            Op::Log(mutations) => truth.append(mutations),
            Op::Commit => truth.known_committed = truth.end,
            Op::Pull(limit) => replica.pull(&truth, limit),
            Op::Flush => replica.flush(if random.next_u64().is_multiple_of(2) { 4 } else { 1_000 }),
            Op::Flushed => replica.flushed().await,
            Op::Recover(dropped, heard) => {
                truth.recover(dropped);
                if heard {
                    replica.assign(truth.generation);
                }
            }
            Op::PowerLoss => {
                let promised = replica.stream.durable();
                replica.disk.power_loss(&*random);
                replica = Replica::open(replica.disk.clone()).await;
                let Position { version, .. } = replica.stream.durable();
                assert!(version >= promised.version, "what was durable stays");
                replica.assign(truth.generation);
                replica.check_reads(truth.at(version), version);
            }
        }
        replica.check(&truth);
    }
    // Whatever happened, it ends where the cluster is.
    replica.assign(truth.generation);
    truth.append(Vec::new());
    truth.known_committed = truth.end;
    replica.flushed().await;
    while replica.stream.version() < truth.end {
        replica.pull(&truth, 2);
    }
    replica.pull(&truth, 2);
    while replica.stream.urgency() != Urgency::None {
        replica.flush(1_000);
        replica.flushed().await;
    }
    let expected = Position { epoch: truth.generation.epoch, version: truth.end };
    assert_eq!(replica.stream.durable(), expected);
    replica.check(&truth);
    let disk = replica.disk.clone();
    drop(replica);
    let mut reopened = Replica::open(disk).await;
    assert_eq!(reopened.stream.durable(), expected);
    reopened.assign(truth.generation);
    reopened.check_reads(truth.at(truth.end), truth.end);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_readable_version_is_what_was_committed(ops in prop::collection::vec(op(), 1..80), seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(run(ops, seed));
    }
}

#[test]
fn what_a_recovery_dropped_must_not_be_on_disk() {
    let durable = Position { epoch: Epoch(1), version: Version(70) };
    let mut stream = Stream::restore(TAG, durable);
    let next = generation(2, Version(60), Version::ZERO);
    let breach = stream.assign(next, vec![KeyRange::all()], WINDOW, false).unwrap_err();
    assert_eq!((breach.version, breach.recovery_version), (Version(70), Version(60)));
    assert_eq!(stream.generation(), None);
    stream
        .assign(generation(2, Version(70), Version::ZERO), vec![KeyRange::all()], WINDOW, false)
        .unwrap();
}
