//! The machine against a vector of entries, over any history of pushes, syncs, crashes, recoveries
//! and pops.

use std::collections::BTreeMap;

use plinth_api::log::Entry;
use plinth_log::Limits;
use plinth_log::machine::Pushed;
use plinth_types::{StoreId, Tag, Version};
use proptest::prelude::*;

use crate::fixture::{Log, MEMBERS, USER, entry, versions};

#[derive(Clone, Debug)]
enum Step {
    /// Pushes so many entries, in the order that the second number says.
    Push(usize, usize, bool),
    /// Pushes an old entry again.
    PushAgain(prop::sample::Index),
    Sync,
    /// Loses power with so many unsynced writes kept, and recovers.
    Crash(usize, prop::sample::Index),
    /// Recovers at a version between what is committed and the end.
    Recover(prop::sample::Index),
    Pop(bool, bool, prop::sample::Index),
    Pull(bool, prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_usize..4, 0_usize..4, any::<bool>()).prop_map(|(count, turn, user)| Step::Push(count, turn, user)),
        1 => any::<prop::sample::Index>().prop_map(Step::PushAgain),
        3 => Just(Step::Sync),
        1 => (0_usize..3, any::<prop::sample::Index>()).prop_map(|(kept, at)| Step::Crash(kept, at)),
        1 => any::<prop::sample::Index>().prop_map(Step::Recover),
        2 => (any::<bool>(), any::<bool>(), any::<prop::sample::Index>()).prop_map(|(tag, member, at)| Step::Pop(tag, member, at)),
        2 => (any::<bool>(), any::<prop::sample::Index>()).prop_map(|(tag, at)| Step::Pull(tag, at)),
    ]
}

/// What a log is: its entries in order, and how many of them are durable.
struct Naive {
    entries: Vec<Entry>,
    durable: usize,
    epoch: u64,
    start: Version,
    popped: BTreeMap<(Tag, StoreId), Version>,
}

impl Naive {
    fn end(&self) -> Version {
        self.entries.last().map_or(self.start, |entry| entry.version)
    }

    fn durable(&self) -> Version {
        self.durable.checked_sub(1).map_or(self.start, |last| self.entries[last].version)
    }

    fn dropped(&self, tag: Tag) -> Version {
        let of = |store| self.popped.get(&(tag, store)).copied().unwrap_or_default();
        MEMBERS.into_iter().map(of).min().unwrap()
    }

    fn of_tag(&self, tag: Tag, after: Version) -> Vec<Version> {
        let holds = |entry: &&Entry| entry.messages.iter().any(|message| message.tag == tag);
        let durable = self.entries[..self.durable].iter();
        durable
            .filter(|entry| entry.version > after)
            .filter(holds)
            .map(|entry| entry.version)
            .collect()
    }

    fn known_committed(&self) -> Version {
        self.entries.iter().map(|entry| entry.known_committed).max().unwrap_or_default()
    }

    fn any_version(&self, at: &prop::sample::Index, from: Version, to: Version) -> Version {
        let between = |version: &Version| from <= *version && *version <= to;
        let mut choices: Vec<Version> =
            self.entries.iter().map(|entry| entry.version).filter(between).collect();
        choices.push(to);
        choices[at.index(choices.len())]
    }

    fn truncate(&mut self, recovery_version: Version) {
        self.entries.retain(|entry| entry.version <= recovery_version);
        self.durable = self.entries.len();
    }
}

fn recover(log: &mut Log, naive: &mut Naive, at: &prop::sample::Index) {
    naive.epoch += 1;
    let answer = log.lock(naive.epoch).unwrap();
    assert_eq!(answer.end, naive.end());
    assert!(answer.known_committed >= naive.known_committed());
    let recovery_version = naive.any_version(at, answer.known_committed, naive.end());
    log.take_up(naive.epoch, recovery_version).unwrap();
    naive.truncate(recovery_version);
    assert_eq!(log.machine.end(), recovery_version);
}

fn push(log: &mut Log, naive: &mut Naive, count: usize, turn: usize, user: bool) {
    let first_version = log.machine.generation().unwrap().first_version;
    let committed = naive.durable();
    let (mut prev, mut batch) = (naive.end(), Vec::new());
    for number in 0..count {
        let version = prev.plus(7).max(first_version);
        let tags: &[Tag] = match (user, number % 3) {
            (_, 2) => &[],
            (true, _) => &[USER],
            (false, _) => &[Tag::SYSTEM, USER],
        };
        batch.push(entry(naive.epoch, prev, version, committed, tags));
        prev = version;
    }
    naive.entries.extend(batch.iter().cloned());
    let turned = turn % batch.len();
    batch.rotate_left(turned);
    for (number, entry) in batch.into_iter().enumerate() {
        let pushed = log.machine.push(entry).unwrap();
        let waits = number < count - turned && turned > 0;
        assert_eq!(pushed, if waits { Pushed::Waiting } else { Pushed::Appended });
    }
    assert_eq!(log.machine.end(), naive.end());
}

proptest! {
    #[test]
    fn the_log_is_a_vector_of_entries(
        steps in prop::collection::vec(step(), 1..60),
        memory_bytes in prop::sample::select(vec![0, 200, u64::MAX]),
    ) {
        let mut log = Log::of_epoch_1_with(Limits { memory_bytes, ..Limits::default() });
        let mut naive =
            Naive { entries: Vec::new(), durable: 0, epoch: 1, start: Version::ZERO, popped: BTreeMap::new() };
        for step in steps {
            match step {
                Step::Push(count, turn, user) => push(&mut log, &mut naive, count, turn, user),
                Step::PushAgain(at) => {
                    let mine: Vec<Entry> =
                        naive.entries.iter().filter(|entry| entry.epoch.0 == naive.epoch).cloned().collect();
                    if !mine.is_empty() {
                        let again = mine[at.index(mine.len())].clone();
                        prop_assert_eq!(log.machine.push(again), Ok(Pushed::Duplicate));
                    }
                }
                Step::Sync => {
                    log.sync();
                    naive.durable = naive.entries.len();
                }
                Step::Crash(kept, at) => {
                    let durable = naive.durable();
                    log.crash(kept);
                    let end = log.machine.end();
                    prop_assert!(end >= durable, "what was acknowledged is there");
                    naive.entries.retain(|entry| entry.version <= end);
                    prop_assert_eq!(end, naive.end(), "and nothing but what was pushed");
                    naive.durable = naive.entries.len();
                    recover(&mut log, &mut naive, &at);
                }
                Step::Recover(at) => {
                    naive.durable = naive.entries.len();
                    recover(&mut log, &mut naive, &at);
                }
                Step::Pop(user, member, at) => {
                    let tag = if user { USER } else { Tag::SYSTEM };
                    let store = MEMBERS[usize::from(member)];
                    let version = naive.any_version(&at, Version::ZERO, naive.known_committed());
                    log.machine.pop(&plinth_api::log::PopRequest {
                        epoch: log.machine.locked(), tag, store, version,
                    }).unwrap();
                    let popped = naive.popped.entry((tag, store)).or_default();
                    *popped = (*popped).max(version);
                }
                Step::Pull(user, at) => {
                    let tag = if user { USER } else { Tag::SYSTEM };
                    let dropped = log.machine.status().tags.iter().find(|extent| extent.tag == tag).unwrap().popped;
                    prop_assert!(dropped <= naive.dropped(tag), "only what every member has is dropped");
                    let after = naive.any_version(&at, dropped, naive.durable().max(dropped));
                    let mut answer = log.pull(tag, naive.epoch, after).unwrap();
                    let mut pulled = versions(&answer);
                    // What is on disk alone comes in a piece of its own.
                    while answer.end < naive.durable() {
                        let end = answer.end;
                        answer = log.pull(tag, naive.epoch, end).unwrap();
                        prop_assert!(answer.end > end, "each piece brings the puller on");
                        pulled.extend(versions(&answer));
                    }
                    prop_assert_eq!(pulled, naive.of_tag(tag, after));
                    prop_assert_eq!(answer.end, naive.durable().max(after));
                    prop_assert!(answer.known_committed >= naive.known_committed().min(naive.durable()));
                }
            }
            prop_assert_eq!(log.machine.durable(), naive.durable());
        }
    }

    #[test]
    fn a_tag_read_in_small_pieces_is_the_same_tag(
        sizes in prop::collection::vec(0_u8..3, 1..40),
        limit in 1_u64..400,
        memory_bytes in prop::sample::select(vec![0, 300, u64::MAX]),
    ) {
        let mut log = Log::of_epoch_1_with(Limits { memory_bytes, ..Limits::default() });
        for size in sizes {
            let tags: &[Tag] = match size { 0 => &[], 1 => &[Tag::SYSTEM], _ => &[Tag::SYSTEM, USER] };
            log.append(tags);
        }
        let end = log.machine.durable();
        let whole = log.disk.0.entries.iter().filter_map(|entry| {
            let message = entry.messages.iter().find(|message| message.tag == USER)?;
            Some((entry.version, message.clone()))
        });
        let whole: Vec<_> = whole.collect();
        let (mut after, mut pieces) = (Version::ZERO, Vec::new());
        while after < end {
            let mut query = crate::fixture::pull_query(USER, 1, after);
            query.limit_bytes = limit;
            let piece = log.machine.pull(&query, &log.disk).unwrap().unwrap();
            prop_assert!(piece.end > after, "each piece brings the puller on");
            after = piece.end;
            pieces.extend(piece.entries.into_iter().map(|entry| (entry.version, entry.messages[0].clone())));
        }
        prop_assert_eq!(pieces, whole);
    }
}
