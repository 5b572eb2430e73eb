//! The log as a pure machine: requests in, rows to be written out, answers once they are.
//!
//! It knows no time and no disk. Requests change what it holds in memory and queue [`Row`]s; the
//! driver takes these with [`Machine::take_rows`], writes them in order, and says so with
//! [`Machine::synced`]. Whatever promises durability is answered after that, and pullers see
//! nothing before it.
//!
//! Memory holds the newest entries. Older ones that are durable and known to be committed are
//! spilled: they stay on disk alone until every member has popped them, and are read from there.
//! So a storage that stays down costs disk space, and not the log.

mod backlog;
mod members;
mod pulls;
mod take_up;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use plinth_api::log::{
    Assignment, Entry, Generation, KeepRequest, LockAnswer, LockRequest, PopRequest, Status,
    TagExtent, TagMutations,
};
use plinth_system_config::{Recorded, encode_stored};
use plinth_types::{Epoch, Incarnation, StoreId, Tag, Version};

use crate::config::Limits;
use crate::records::{Found, Lock, Row, State, TagRecord};
use crate::refusal::Refusal;

pub use self::backlog::Sizes;
pub use self::pulls::Spilled;
pub use self::take_up::Copied;

/// What an entry costs beside its mutations, in bytes.
const ENTRY_OVERHEAD: u64 = 64;

/// How an accepted push stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was appended; it counts once it is durable.
    Appended,
    /// It waits for the entry before it.
    Waiting,
    /// It was there already.
    Duplicate,
}

/// What an assignment still needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignStep {
    /// It was taken up before.
    Done,
    /// The copies that it names come first, if any; then [`Machine::take_up`].
    Copy,
}

/// Names what [`Machine::take_rows`] handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    sequence: u64,
    urgent: bool,
    truncations: u64,
    end: Version,
}

impl Mark {
    /// Counts up: whatever was queued when the machine was at this sequence is written with it.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether somebody waits until it is durable. Else it may be lost with the power: what has
    /// been popped is popped again.
    #[must_use]
    pub fn urgent(&self) -> bool {
        self.urgent
    }
}

#[derive(Debug)]
struct Held {
    entry: Arc<Entry>,
    bytes: u64,
}

impl Held {
    fn new(entry: Arc<Entry>) -> Held {
        let bytes = entry_bytes(&entry);
        Held { entry, bytes }
    }
}

/// What an entry costs in memory, about, in bytes.
#[must_use]
pub fn entry_bytes(entry: &Entry) -> u64 {
    entry.messages.iter().map(message_bytes).sum::<u64>() + ENTRY_OVERHEAD
}

fn message_bytes(message: &TagMutations) -> u64 {
    message.mutations.iter().map(|mutation| mutation.size() as u64 + 8).sum()
}

/// The log.
#[derive(Debug)]
pub struct Machine {
    store: StoreId,
    limits: Limits,
    lock: Option<Lock>,
    /// Whether the pushes of the newest generation are accepted.
    open: bool,
    generations: Vec<Generation>,
    tags: BTreeMap<Tag, TagRecord>,
    entries: BTreeMap<Version, Held>,
    /// Entries up to here that were not dropped are on disk alone.
    spilled: Version,
    /// Nothing up to here is left on disk, as far as is known since the epoch was taken up.
    dropped: Version,
    /// Entries by the version that they wait for.
    waiting: BTreeMap<Version, Arc<Entry>>,
    bytes: u64,
    sizes: Sizes,
    end: Version,
    durable: Version,
    known_committed: Version,
    config: Option<Recorded>,
    /// What is wrong with the configuration on disk, until another one has taken its place.
    config_damage: Option<String>,
    rows: VecDeque<Row>,
    /// Whether somebody waits for what is queued.
    urgent: bool,
    sequence: u64,
    truncations: u64,
}

impl Machine {
    /// Takes up what was found on disk. It accepts no pushes before it is assigned anew.
    #[must_use]
    pub fn new(store: StoreId, limits: Limits, found: Found) -> Machine {
        let State { generations, tags, end, known_committed } = found.state;
        let entries: BTreeMap<_, _> = found
            .entries
            .into_iter()
            .map(|entry| (entry.version, Held::new(Arc::new(entry))))
            .collect();
        let end = entries.keys().next_back().copied().unwrap_or_default().max(end);
        let heard = entries.values().map(|held| held.entry.known_committed).max();
        Machine {
            store,
            limits,
            lock: found.lock,
            open: false,
            generations,
            tags,
            bytes: entries.values().map(|held| held.bytes).sum(),
            entries,
            sizes: found.sizes,
            spilled: found.spilled,
            dropped: Version::ZERO,
            waiting: BTreeMap::new(),
            end,
            durable: end,
            known_committed: heard.unwrap_or_default().max(known_committed),
            config: found.config,
            config_damage: found.config_damage,
            rows: VecDeque::new(),
            urgent: false,
            sequence: 0,
            truncations: 0,
        }
    }

    /// The epoch that locked the log; 0 before the first.
    #[must_use]
    pub fn locked(&self) -> Epoch {
        self.lock.map_or(Epoch::ZERO, |lock| lock.epoch)
    }

    /// The newest version that it holds, perhaps not yet durably.
    #[must_use]
    pub fn end(&self) -> Version {
        self.end
    }

    /// The newest version that it holds durably.
    #[must_use]
    pub fn durable(&self) -> Version {
        self.durable
    }

    /// The newest known committed version that it has heard of.
    #[must_use]
    pub fn known_committed(&self) -> Version {
        self.known_committed
    }

    /// The newest generation, if it ever took part in one.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        self.generations.last().copied()
    }

    /// The configuration that it keeps.
    ///
    /// # Errors
    /// The one on disk can't be read.
    pub fn config(&self) -> Result<Option<&Recorded>, Refusal> {
        match &self.config_damage {
            Some(damage) => {
                Err(Refusal::Damaged(format!("the kept configuration can't be read: {damage}")))
            }
            None => Ok(self.config.as_ref()),
        }
    }

    /// The rows that were queued since the last call, to be written in this order.
    pub fn take_rows(&mut self) -> Option<(Vec<Row>, Mark)> {
        if self.rows.is_empty() {
            return None;
        }
        let urgent = std::mem::take(&mut self.urgent);
        let mark =
            Mark { sequence: self.sequence, urgent, truncations: self.truncations, end: self.end };
        Some((self.rows.drain(..).collect(), mark))
    }

    /// The rows of this mark, and all before, are durable.
    pub fn synced(&mut self, mark: Mark) {
        if mark.urgent && mark.truncations == self.truncations {
            self.durable = self.durable.max(mark.end);
        }
        debug_assert!(self.durable <= self.end, "more is durable than there is");
        self.spill();
    }

    /// What is queued now is durable once a mark of at least this sequence is.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    fn queue(&mut self, row: Row) {
        self.urgent = true;
        self.queue_lazily(row);
    }

    fn queue_lazily(&mut self, row: Row) {
        self.rows.push_back(row);
        self.sequence += 1;
    }

    fn state(&self) -> State {
        State {
            generations: self.generations.clone(),
            tags: self.tags.clone(),
            end: self.end,
            known_committed: self.known_committed,
        }
    }

    /// Locks the log for an epoch: from now on it accepts nothing of an earlier one. To be answered
    /// with [`Machine::lock_answer`] once durable. The same lock again changes nothing.
    ///
    /// # Errors
    /// The epoch is over, or another director's.
    pub fn lock(&mut self, request: &LockRequest) -> Result<(), Refusal> {
        self.fence(request.epoch, request.director)
    }

    /// Raises the lock to an epoch and its director, or checks that it stands there.
    fn fence(&mut self, epoch: Epoch, director: Incarnation) -> Result<(), Refusal> {
        match self.lock {
            Some(lock) if epoch < lock.epoch => {
                Err(Refusal::Stale { asked: epoch, locked: lock.epoch })
            }
            Some(lock) if epoch == lock.epoch && director != lock.director => {
                Err(Refusal::OtherDirector { epoch })
            }
            Some(lock) if epoch == lock.epoch => Ok(()),
            Some(_) | None => {
                let lock = Lock { epoch, director };
                self.lock = Some(lock);
                self.open = false;
                self.waiting.clear();
                self.queue(Row::Lock(lock));
                Ok(())
            }
        }
    }

    /// The answer to a lock that has become durable.
    ///
    /// # Errors
    /// A later epoch has locked the log meanwhile.
    pub fn lock_answer(&self, request: &LockRequest) -> Result<LockAnswer, Refusal> {
        let locked = self.locked();
        if locked != request.epoch {
            return Err(Refusal::Stale { asked: request.epoch, locked });
        }
        Ok(LockAnswer {
            store: self.store,
            end: self.durable,
            known_committed: self.known_committed,
            generation: self.generation(),
            tags: self.extents(),
            config: self.config.clone(),
            config_damaged: self.config_damage.is_some(),
        })
    }

    fn extents(&self) -> Vec<TagExtent> {
        self.tags.iter().map(|(&tag, record)| TagExtent { tag, popped: record.popped }).collect()
    }

    /// Begins to take up an epoch. An epoch that never locked the log does so now.
    ///
    /// # Errors
    /// The epoch is over or another director's, or the log lacks data and has no source for it.
    pub fn assign(&mut self, assignment: &Assignment) -> Result<AssignStep, Refusal> {
        let (epoch, generation) = (assignment.epoch, assignment.generation);
        if generation.epoch != epoch || generation.first_version <= generation.recovery_version {
            return Err(Refusal::Misfit {
                prev: generation.recovery_version,
                version: generation.first_version,
                reason: "a generation is of its assignment's epoch and begins above its recovery version",
            });
        }
        self.fence(epoch, assignment.director)?;
        if self.open {
            return if self.generation() == Some(generation) {
                Ok(AssignStep::Done)
            } else {
                Err(Refusal::OtherGeneration { epoch })
            };
        }
        let recovery_version = generation.recovery_version;
        if self.end < recovery_version && !copies_everything(assignment) {
            return Err(Refusal::Behind { end: self.end, recovery_version });
        }
        Ok(AssignStep::Copy)
    }

    fn hold(&mut self, entry: Arc<Entry>) {
        let held = Held::new(Arc::clone(&entry));
        self.bytes += held.bytes;
        if let Some(replaced) = self.entries.insert(entry.version, held) {
            self.bytes -= replaced.bytes;
        }
        self.queue(Row::Entry(entry));
    }

    /// Takes an entry. To be answered once [`Machine::durable`] has reached its version.
    ///
    /// # Errors
    /// It is of another epoch than the log serves, or does not fit in.
    pub fn push(&mut self, entry: Entry) -> Result<Pushed, Refusal> {
        let generation = self.serves(entry.epoch)?;
        let (prev, version) = (entry.prev, entry.version);
        let misfit = |reason| Err(Refusal::Misfit { prev, version, reason });
        let first = prev == generation.recovery_version;
        if first != (version == generation.first_version) || version < generation.first_version {
            return misfit(
                "the first entry of an epoch leads from its recovery version to its first version",
            );
        }
        if version <= prev {
            return misfit("its version is not above the one before");
        }
        if version <= self.end {
            return match self.entries.get(&version) {
                Some(held) if !same(&held.entry, &entry) => {
                    misfit("another entry has this version")
                }
                None if version > self.oldest() => {
                    misfit("the chain of entries passes over this version")
                }
                Some(_) | None => Ok(Pushed::Duplicate),
            };
        }
        if prev < self.end {
            return misfit("another entry follows the one before it");
        }
        if entry.known_committed > self.durable {
            return misfit("it claims as committed what this log has not acknowledged");
        }
        self.known_committed = self.known_committed.max(entry.known_committed);
        if prev > self.end {
            return self.wait_for(entry);
        }
        if self.bytes >= self.limits.queue_bytes {
            return Err(Refusal::Full { what: "entries that storages have not made durable" });
        }
        self.append(Arc::new(entry));
        while let Some(next) = self.waiting.remove(&self.end) {
            self.append(next);
        }
        Ok(Pushed::Appended)
    }

    /// The version of the oldest entry in memory. Those before it are dropped or on disk alone.
    fn oldest(&self) -> Version {
        self.entries.keys().next().copied().unwrap_or(self.end)
    }

    fn wait_for(&mut self, entry: Entry) -> Result<Pushed, Refusal> {
        if let Some(other) = self.waiting.get(&entry.prev) {
            return if same(other, &entry) {
                Ok(Pushed::Waiting)
            } else {
                let (prev, version) = (entry.prev, entry.version);
                Err(Refusal::Misfit {
                    prev,
                    version,
                    reason: "another entry waits for the one before it",
                })
            };
        }
        if self.waiting.len() >= self.limits.waiting_entries {
            return Err(Refusal::Full { what: "entries that wait for the one before them" });
        }
        self.waiting.insert(entry.prev, Arc::new(entry));
        Ok(Pushed::Waiting)
    }

    fn append(&mut self, entry: Arc<Entry>) {
        debug_assert!(self.open && entry.prev == self.end && entry.version > self.end);
        debug_assert!(self.generation().is_some_and(|generation| generation.epoch == entry.epoch));
        self.end = entry.version;
        self.sizes.add(&entry);
        self.hold(entry);
    }

    /// Whether the log serves an epoch: assigned to it, and not locked by a later one.
    ///
    /// # Errors
    /// It does not.
    pub fn confirm(&self, epoch: Epoch) -> Result<(), Refusal> {
        self.serves(epoch).map(|_| ())
    }

    fn serves(&self, epoch: Epoch) -> Result<Generation, Refusal> {
        let locked = self.locked();
        if epoch < locked {
            return Err(Refusal::Stale { asked: epoch, locked });
        }
        match self.generation() {
            Some(generation) if self.open && generation.epoch == epoch => Ok(generation),
            Some(_) | None => Err(Refusal::NotOpen { asked: epoch, locked }),
        }
    }

    /// Notes that a member has everything up to a version, and drops what every member has.
    ///
    /// # Errors
    /// The epoch is not the one served, the tag is not held, or the version is not there yet.
    pub fn pop(&mut self, request: &PopRequest) -> Result<(), Refusal> {
        self.serves(request.epoch)?;
        if request.version > self.durable {
            return Err(Refusal::PopAhead { version: request.version, durable: self.durable });
        }
        let record = self.tags.get_mut(&request.tag).ok_or(Refusal::UnknownTag(request.tag))?;
        // Whoever is no recorded member has no say in what may be dropped.
        let Some(popped) = record.members.get_mut(&request.store) else {
            return Ok(());
        };
        *popped = (*popped).max(request.version);
        let least = record.members.values().copied().min().unwrap_or(record.popped);
        if least > record.popped {
            record.popped = least;
            self.sizes.drop_through(request.tag, least);
            self.drop_what_is_popped();
        }
        Ok(())
    }

    fn drop_what_is_popped(&mut self) {
        if let Some(newest) = self.generation()
            && self.known_committed >= newest.first_version
        {
            // A commit of this generation is known: its layout is recorded, and no recovery will
            // ask for what only earlier layouts name.
            self.tags.retain(|_, record| record.assigned);
        }
        let mut through = None;
        if self.spilled > Version::ZERO {
            // Which tags an entry on disk has is not known: it is needed until all have popped it.
            let least = self.tags.values().map(|record| record.popped).min();
            let least = least.unwrap_or(self.spilled).min(self.spilled);
            through = (least > Version::ZERO).then_some(least);
            if least >= self.spilled {
                self.spilled = Version::ZERO;
            }
        }
        while self.spilled == Version::ZERO
            && let Some(first) = self.entries.first_entry()
        {
            let entry = &first.get().entry;
            let needed = entry.messages.iter().any(|message| {
                self.tags.get(&message.tag).is_some_and(|record| record.popped < entry.version)
            });
            if needed || entry.version > self.known_committed || entry.version > self.durable {
                break;
            }
            through = Some(entry.version);
            self.bytes -= first.remove().bytes;
        }
        if let Some(through) = through {
            self.forget_generations(through);
            if through > self.dropped {
                let after = std::mem::replace(&mut self.dropped, through);
                self.queue_lazily(Row::DropThrough { after, through });
            }
        }
        self.queue_lazily(Row::State(self.state()));
    }

    /// A puller that knows none of the generations that began before the dropped data ended lacks
    /// data anyhow.
    fn forget_generations(&mut self, through: Version) {
        let newest = self.generations.len().saturating_sub(1);
        let over = self.generations[..newest]
            .iter()
            .take_while(|old| old.first_version <= through)
            .count();
        let keep_one = over.saturating_sub(1);
        self.generations.drain(..keep_one);
    }

    /// Keeps a configuration. Durable with what is queued now.
    ///
    /// # Errors
    /// The epoch is over, another director's, or a newer configuration is kept.
    pub fn keep(&mut self, request: KeepRequest) -> Result<(), Refusal> {
        match self.lock {
            Some(lock) if request.epoch < lock.epoch => {
                return Err(Refusal::Stale { asked: request.epoch, locked: lock.epoch });
            }
            Some(lock) if request.epoch == lock.epoch && request.director != lock.director => {
                return Err(Refusal::OtherDirector { epoch: request.epoch });
            }
            Some(_) | None => {}
        }
        if let Some(kept) = &self.config
            && request.recorded.stamp() < kept.stamp()
        {
            return Err(Refusal::OlderConfig { kept: kept.stamp().to_string() });
        }
        let bytes = encode_stored(&request.recorded)
            .map_err(|error| Refusal::BadConfig(error.to_string()))?;
        self.config = Some(request.recorded);
        self.config_damage = None;
        self.queue(Row::Config(bytes));
        Ok(())
    }

    /// Where the log stands.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            store: self.store,
            locked: self.locked(),
            open: self.open,
            end: self.durable,
            known_committed: self.known_committed,
            generations: self.generations.clone(),
            tags: self.extents(),
            queue_bytes: self.bytes,
            queue_limit_bytes: self.limits.queue_bytes,
            disk_full: false,
            backlogs: self.backlogs(),
            config: self
                .config
                .as_ref()
                .map(|kept| (kept.config.epoch, kept.config.config_version)),
        }
    }
}

fn copies_everything(assignment: &Assignment) -> bool {
    let copied: BTreeSet<Tag> =
        assignment.copy.iter().flat_map(|source| source.tags.iter().copied()).collect();
    assignment.tags.iter().all(|team| copied.contains(&team.tag))
}

/// Whether two entries carry the same; whose trace they belong to and what their senders knew to be
/// committed does not matter.
fn same(a: &Entry, b: &Entry) -> bool {
    a.epoch == b.epoch && a.prev == b.prev && a.version == b.version && a.messages == b.messages
}
