//! A machine with a disk of plain rows.

use plinth_api::log::{
    Assignment, Entry, Generation, LockAnswer, LockRequest, PopRequest, PullAnswer, PullQuery,
    TagMembers, TagMutations,
};
use plinth_log::machine::{AssignStep, Copied, Machine, Mark, Pushed, Sizes, Spilled};
use plinth_log::records::{Found, Row};
use plinth_log::{Limits, Refusal};
use plinth_system_config::{Recorded, decode_stored};
use plinth_types::{
    ConfigVersion, Epoch, Incarnation, Mutation, StoreId, Tag, VERSION_GAP, Version,
};

pub(crate) const STORE: StoreId = StoreId(0x10);
pub(crate) const MEMBERS: [StoreId; 2] = [StoreId(0xa), StoreId(0xb)];
pub(crate) const USER: Tag = Tag(1);

/// The director of an epoch, in tests where each has one.
pub(crate) fn director(epoch: u64) -> Incarnation {
    Incarnation(epoch + 1_000)
}

pub(crate) fn lock_request(epoch: u64) -> LockRequest {
    LockRequest { epoch: Epoch(epoch), director: director(epoch) }
}

pub(crate) fn generation(epoch: u64, recovery_version: Version) -> Generation {
    let first_version = Version(recovery_version.0.max(epoch * 10 * VERSION_GAP) + VERSION_GAP);
    Generation { epoch: Epoch(epoch), recovery_version, first_version }
}

pub(crate) fn assignment(epoch: u64, recovery_version: Version) -> Assignment {
    let members = MEMBERS.to_vec();
    Assignment {
        epoch: Epoch(epoch),
        director: director(epoch),
        generation: generation(epoch, recovery_version),
        tags: [Tag::SYSTEM, USER].map(|tag| TagMembers { tag, members: members.clone() }).to_vec(),
        copy: Vec::new(),
    }
}

pub(crate) fn entry(
    epoch: u64,
    prev: Version,
    version: Version,
    known_committed: Version,
    tags: &[Tag],
) -> Entry {
    let mutation = |tag: Tag| Mutation::Set {
        key: format!("{tag}/{version}").as_str().into(),
        value: format!("of epoch {epoch}").as_str().into(),
    };
    Entry {
        epoch: Epoch(epoch),
        prev,
        version,
        known_committed,
        messages: tags
            .iter()
            .map(|&tag| TagMutations { tag, mutations: vec![mutation(tag)] })
            .collect(),
        traceparent: None,
    }
}

pub(crate) fn pull_query(tag: Tag, epoch: u64, after: Version) -> PullQuery {
    PullQuery {
        tag,
        epoch: Epoch(epoch),
        after,
        known_committed: Version(u64::MAX),
        wait_ms: 0,
        limit_bytes: 1 << 20,
    }
}

pub(crate) fn recorded(epoch: u64, config_version: u64) -> Recorded {
    let golden =
        include_bytes!("../../../../libs/system-config/tests/golden/recorded-level-1.json");
    let mut recorded: Recorded = decode_stored(golden).unwrap();
    recorded.config.epoch = Epoch(epoch);
    recorded.config.config_version = ConfigVersion(config_version);
    recorded
}

/// What rows leave behind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows(pub(crate) Found);

impl Rows {
    pub(crate) fn write(&mut self, rows: &[Row]) {
        for row in rows {
            let Rows(found) = self;
            match row {
                Row::Lock(lock) => found.lock = Some(*lock),
                Row::State(state) => found.state = state.clone(),
                Row::Entry(entry) => {
                    found.entries.retain(|old| old.version != entry.version);
                    found.entries.push((**entry).clone());
                    found.entries.sort_by_key(|entry| entry.version);
                }
                Row::DropThrough { after, through } => found
                    .entries
                    .retain(|entry| entry.version <= *after || entry.version > *through),
                Row::DropAbove(version) => found.entries.retain(|entry| entry.version <= *version),
                Row::Config(bytes) => found.config = Some(decode_stored(bytes).unwrap()),
            }
        }
    }
}

impl Spilled for Rows {
    fn read(&self, after: Version, through: Version, limit: usize) -> Result<Vec<Entry>, Refusal> {
        let between = |entry: &&Entry| after < entry.version && entry.version <= through;
        Ok(self.0.entries.iter().filter(between).take(limit).cloned().collect())
    }
}

/// A log whose disk syncs when the test says so.
pub(crate) struct Log {
    pub(crate) machine: Machine,
    pub(crate) disk: Rows,
    /// The ranges of versions that were deleted from the disk, each `(after, through]`.
    pub(crate) deleted: Vec<(Version, Version)>,
    unsynced: Vec<(Vec<Row>, Mark)>,
    limits: Limits,
}

impl Log {
    pub(crate) fn new() -> Log {
        Log::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Log {
        Log {
            machine: Machine::new(STORE, limits, Found::default()),
            disk: Rows::default(),
            deleted: Vec::new(),
            unsynced: Vec::new(),
            limits,
        }
    }

    /// A log that serves epoch 1, which begins with nothing.
    pub(crate) fn of_epoch_1() -> Log {
        Log::of_epoch_1_with(Limits::default())
    }

    pub(crate) fn of_epoch_1_with(limits: Limits) -> Log {
        let mut log = Log::with(limits);
        log.lock(1).unwrap();
        log.take_up(1, Version::ZERO).unwrap();
        log
    }

    pub(crate) fn take_rows(&mut self) {
        self.unsynced.extend(self.machine.take_rows());
    }

    pub(crate) fn sync(&mut self) {
        self.take_rows();
        for (rows, mark) in std::mem::take(&mut self.unsynced) {
            self.disk.write(&rows);
            self.deleted.extend(rows.iter().filter_map(|row| match row {
                Row::DropThrough { after, through } => Some((*after, *through)),
                _ => None,
            }));
            self.machine.synced(mark);
        }
    }

    /// Power is lost: of what was not synced, some first writes are there.
    pub(crate) fn crash(&mut self, kept: usize) {
        self.take_rows();
        for (rows, _) in std::mem::take(&mut self.unsynced).into_iter().take(kept) {
            self.disk.write(&rows);
        }
        let mut found = self.disk.0.clone();
        found.sizes = Sizes::of(&found.entries, &found.state.tags);
        self.machine = Machine::new(STORE, self.limits, found);
    }

    pub(crate) fn lock(&mut self, epoch: u64) -> Result<LockAnswer, Refusal> {
        self.machine.lock(&lock_request(epoch))?;
        self.sync();
        self.machine.lock_answer(&lock_request(epoch))
    }

    pub(crate) fn take_up(&mut self, epoch: u64, recovery_version: Version) -> Result<(), Refusal> {
        self.take_up_with(&assignment(epoch, recovery_version), Vec::new())
    }

    pub(crate) fn take_up_with(
        &mut self,
        assignment: &Assignment,
        copied: Vec<Copied>,
    ) -> Result<(), Refusal> {
        if self.machine.assign(assignment)? == AssignStep::Copy {
            if !copied.is_empty() {
                self.machine.take_back(&self.disk)?;
            }
            self.machine.take_up(assignment, copied)?;
        }
        self.sync();
        Ok(())
    }

    /// Appends an entry after the newest one and answers its version.
    pub(crate) fn append(&mut self, tags: &[Tag]) -> Version {
        let generation = self.machine.generation().unwrap();
        let prev = self.machine.end();
        let version = prev.plus(10).max(generation.first_version);
        let committed = self.machine.durable();
        let pushed =
            self.machine.push(entry(generation.epoch.0, prev, version, committed, tags)).unwrap();
        assert_eq!(pushed, Pushed::Appended);
        self.sync();
        version
    }

    pub(crate) fn pull(&self, tag: Tag, epoch: u64, after: Version) -> Result<PullAnswer, Refusal> {
        let query = pull_query(tag, epoch, after);
        Ok(self
            .machine
            .pull(&query, &self.disk)?
            .unwrap_or_else(|| self.machine.nothing_new(&query)))
    }

    pub(crate) fn pop(
        &mut self,
        tag: Tag,
        store: StoreId,
        version: Version,
    ) -> Result<(), Refusal> {
        let epoch = self.machine.locked();
        self.machine.pop(&PopRequest { epoch, tag, store, version })?;
        self.sync();
        Ok(())
    }
}

pub(crate) fn versions(answer: &PullAnswer) -> Vec<Version> {
    answer.entries.iter().map(|entry| entry.version).collect()
}
