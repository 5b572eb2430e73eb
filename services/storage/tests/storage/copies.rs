//! A copy that is taken page by page, from sources that go on meanwhile and machines that lose power,
//! against a full copy of the data at every version.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures::future::BoxFuture;
use plinth_api::storage::{Page, PageRequest};
use plinth_storage::copying::{Copying, PageFault, checksum};
use plinth_storage::records;
use plinth_storage::{Limits, Refusal, paging};
use plinth_store::{Batch, DiskDelays, Durability, SimulatedDisk, StoreError};
use plinth_types::{Epoch, Key, KeyRange, Mutation, StoreId, Version};
use proptest::prelude::*;

use crate::model::{Data, KEYS, Replica, Seeded, TAG, Truth, mutation};

const SOURCES: [StoreId; 2] = [StoreId(1), StoreId(2)];
const NEWCOMER: StoreId = StoreId(9);
const WINDOW: u64 = 40;

#[derive(Clone, Debug)]
enum Op {
    /// Something is committed, or at least logged.
    Log(Vec<Mutation>),
    /// All that is logged becomes known to be committed.
    Commit,
    /// A source makes durable what is committed.
    Advance(usize),
    /// A source gives a page of about so many bytes.
    Page(usize, u64),
    /// The page is durable at the newcomer.
    Paged,
    /// The newcomer follows the logs by so many entries, as soon as it may.
    Pull(usize),
    /// The newcomer makes that durable.
    Flush,
    /// A new epoch. Of what is not known to be committed, so many entries are dropped.
    Recover(usize),
    /// The newcomer's machine loses power.
    PowerLoss,
    /// The logs no longer have what the newcomer needs, and it begins again.
    Again,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => prop::collection::vec(mutation(), 0..4).prop_map(Op::Log),
        4 => Just(Op::Commit),
        4 => (0..2_usize).prop_map(Op::Advance),
        6 => (0..2_usize, 0..6_u64).prop_map(|(source, bytes)| Op::Page(source, bytes)),
        6 => Just(Op::Paged),
        4 => (1..5_usize).prop_map(Op::Pull),
        3 => Just(Op::Flush),
        1 => (0..4_usize).prop_map(Op::Recover),
        1 => Just(Op::PowerLoss),
        1 => Just(Op::Again),
    ]
}

fn ranges() -> Vec<KeyRange> {
    // As a shard with another one in its middle.
    vec![
        KeyRange::new(Key::default(), Key::from(vec![3])),
        KeyRange { from: Key::from(vec![3]), to: None },
    ]
}

struct Newcomer {
    replica: Replica,
    page: Option<(Copying, BoxFuture<'static, Result<(), StoreError>>)>,
    random: Arc<Seeded>,
}

impl Newcomer {
    async fn open(disk: SimulatedDisk, random: Arc<Seeded>, truth: &Truth) -> Newcomer {
        let replica = Replica::open(disk).await;
        let mut newcomer = Newcomer { replica, page: None, random };
        newcomer.check_disk(truth);
        if newcomer.replica.stream.copy().is_none()
            && newcomer.replica.stream.durable().version == Version::ZERO
        {
            newcomer.replica.stream.begin_copy(ranges());
        }
        newcomer.assign(truth);
        newcomer
    }

    fn assign(&mut self, truth: &Truth) {
        self.replica.stream.assign(truth.generation, ranges(), WINDOW, true).unwrap();
    }

    /// What says on disk that it is whole is whole.
    fn check_disk(&self, truth: &Truth) {
        let found = records::read(&*self.replica.store).unwrap();
        assert!(found.tags.is_empty() || found.copies.is_empty());
        if let Some(position) = found.tags.get(&TAG) {
            assert_eq!(self.on_disk(), *truth.at(position.version), "at {}", position.version);
        }
    }

    fn on_disk(&self) -> Data {
        let keys = (0..KEYS).map(|key| Key::from(vec![key]));
        let get = |key: Key| {
            let value = self.replica.store.get(records::table(TAG), key.as_bytes()).unwrap();
            value.map(|value| (key, value.into_iter().collect::<Vec<u8>>().into()))
        };
        keys.filter_map(get).collect()
    }

    /// A page of an earlier epoch than the one before is refused, and another source asked.
    fn take(&mut self, page: Page) -> Result<(), PageFault> {
        let Some(copy) = self.replica.stream.copy() else { return Ok(()) };
        let next = copy.with(&page)?;
        let batch: Batch = copy.batch(TAG, page, &next).unwrap();
        self.replica.stream.begin_page();
        self.page = Some((next, self.replica.store.write(batch, Durability::Synced)));
        Ok(())
    }

    async fn paged(&mut self) {
        if let Some((next, written)) = self.page.take() {
            written.await.unwrap();
            self.replica.stream.take_copy(next);
        }
    }

    fn wants(&self) -> Option<(KeyRange, Version)> {
        let want = self.replica.stream.copy()?.want()?;
        Some((want.range, want.at_least))
    }

    /// It follows the logs only once everything has come.
    fn pull(&mut self, truth: &Truth, limit: usize) {
        if self.wants().is_none() && self.page.is_none() {
            self.replica.pull(truth, limit);
        }
    }

    fn check(&self, truth: &Truth) {
        let stream = &self.replica.stream;
        for version in [stream.durable().version, stream.version()] {
            assert!(matches!(stream.readable(version), Err(Refusal::Joining(_))));
        }
        if stream.copy().is_none() && stream.generation() == Some(truth.generation) {
            let data = truth.at(stream.version());
            for key in (0..KEYS).map(|key| Key::from(vec![key])) {
                let value = stream.get(&key, stream.version(), &*self.replica.store).unwrap();
                assert_eq!(value.as_ref(), data.get(&key), "{key:?} at {}", stream.version());
            }
        }
    }
}

async fn advance(source: &mut Replica, truth: &Truth) {
    source.pull(truth, 1_000);
    // Once more: what is known to be committed may have come with nothing else.
    source.pull(truth, 1_000);
    source.flush(1_000);
    source.flushed().await;
}

fn request(index: usize, range: KeyRange, at_least: Version, limit_bytes: u64) -> PageRequest {
    let (source, newcomer, epoch) = (SOURCES[index], NEWCOMER, Epoch(1));
    PageRequest { epoch, source, newcomer, tag: TAG, range, at_least, limit_bytes, wait_ms: 0 }
}

fn give(index: usize, source: &Replica, request: &PageRequest) -> Result<Page, Refusal> {
    let streams = BTreeMap::from([(TAG, source.stream.clone())]);
    paging::page(SOURCES[index], &streams, &*source.store, request, Limits::default())
}

async fn run(ops: Vec<Op>, seed: u64) {
    let random = Arc::new(Seeded(AtomicU64::new(seed)));
    let disk = |name: &str| SimulatedDisk::new(name, random.clone(), DiskDelays::default(), None);
    let mut truth = Truth::new();
    let mut sources = [Replica::open(disk("one")).await, Replica::open(disk("two")).await];
    for source in &mut sources {
        source.assign(truth.generation);
    }
    truth.append(vec![Mutation::Set { key: vec![1].into(), value: "first".into() }]);
    truth.known_committed = truth.end;
    for source in &mut sources {
        advance(source, &truth).await;
    }
    let mut newcomer = Newcomer::open(disk("new"), random.clone(), &truth).await;
    for op in ops {
        match op {
            Op::Log(mutations) => truth.append(mutations),
            Op::Commit => truth.known_committed = truth.end,
            Op::Advance(source) => advance(&mut sources[source], &truth).await,
            Op::Page(index, bytes) => {
                if let Some((range, at_least)) =
                    newcomer.wants().filter(|_| newcomer.page.is_none())
                {
                    match give(index, &sources[index], &request(index, range, at_least, bytes)) {
                        Ok(page) => drop(newcomer.take(page)),
                        // The other source was further when the last page was given.
                        Err(Refusal::Future { .. }) => {}
                        Err(refusal) => panic!("{refusal}"),
                    }
                }
            }
            Op::Paged => newcomer.paged().await,
            Op::Pull(limit) => newcomer.pull(&truth, limit),
            Op::Flush => {
                newcomer.replica.flush(4);
                newcomer.replica.flushed().await;
            }
            Op::Recover(dropped) => {
                truth.recover(dropped);
                sources.iter_mut().for_each(|source| source.assign(truth.generation));
                newcomer.assign(&truth);
            }
            Op::PowerLoss => {
                newcomer.replica.disk.power_loss(&*newcomer.random);
                let Newcomer { replica, random, .. } = newcomer;
                newcomer = Newcomer::open(replica.disk, random, &truth).await;
            }
            Op::Again => {
                newcomer.paged().await;
                newcomer.replica.stream.begin_copy(ranges());
                newcomer.assign(&truth);
            }
        }
        newcomer.check(&truth);
    }
    // Whatever happened, it ends whole, and where the cluster is.
    newcomer.paged().await;
    truth.append(Vec::new());
    truth.known_committed = truth.end;
    advance(&mut sources[0], &truth).await;
    while let Some((range, at_least)) = newcomer.wants() {
        newcomer.take(give(0, &sources[0], &request(0, range, at_least, 3)).unwrap()).unwrap();
        newcomer.paged().await;
    }
    while newcomer.replica.stream.durable().version < truth.end {
        newcomer.pull(&truth, 2);
        newcomer.pull(&truth, 2);
        newcomer.replica.flush(1_000);
        newcomer.replica.flushed().await;
    }
    assert_eq!(newcomer.replica.stream.copy(), None);
    newcomer.check(&truth);
    newcomer.check_disk(&truth);
    assert_eq!(newcomer.on_disk(), *truth.at(truth.end));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_is_whole_or_known_not_to_be(ops in prop::collection::vec(op(), 1..100), seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(run(ops, seed));
    }
}

fn page(from: u8, to: Option<u8>, version: u64) -> Page {
    let mut page = Page {
        source: SOURCES[0],
        newcomer: NEWCOMER,
        tag: TAG,
        version: Version(version),
        epoch: Epoch(1),
        range: KeyRange { from: Key::from(vec![from]), to: to.map(|to| Key::from(vec![to])) },
        items: vec![],
        checksum: 0,
    };
    page.checksum = checksum(&page);
    page
}

#[test]
fn only_the_page_that_was_asked_for_is_taken() {
    let copy =
        Copying::begin(vec![KeyRange { from: Key::from(vec![1]), to: Some(vec![9].into()) }]);
    let first = copy.with(&page(1, Some(4), 70)).unwrap();
    assert!(!first.is_whole_at(Version(1_000)));
    for (wrong, why) in [
        (page(1, Some(4), 70), "it begins at another key"),
        (page(4, None, 70), "it ends where it must not"),
        (page(4, Some(4), 70), "it ends where it must not"),
        (page(4, Some(6), 69), "it is as of an earlier version than the page before"),
    ] {
        assert_eq!(first.with(&wrong), Err(PageFault::Other(why)));
    }
    let damaged = Page { version: Version(71), ..page(4, Some(6), 70) };
    assert!(matches!(first.with(&damaged), Err(PageFault::Checksum { .. })));
    let last = first.with(&page(4, Some(9), 90)).unwrap();
    assert_eq!(last.want(), None);
    // F is the first page's version, and the copy is whole at the last one's.
    assert_eq!(last.record().applied.version, Version(70));
    assert!(!last.is_whole_at(Version(89)) && last.is_whole_at(Version(90)));
    // A change at 80 is in the second page already, and one at 70 in both.
    assert_eq!(last.settled_from(Version(70)), Some(&Key::from(vec![1])));
    assert_eq!(last.settled_from(Version(80)), Some(&Key::from(vec![4])));
    assert_eq!(last.settled_from(Version(91)), None);
    assert!(last.with(&page(9, None, 90)).is_err());
}
