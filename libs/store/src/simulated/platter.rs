//! The state of one machine's disk.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plinth_runtime::Random;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::content::{Content, Tables, undeclared_table};
use super::schedule::{Group, Pending, Schedule};
use super::{DiskCounts, DiskDelays, DiskEvent, DiskHook};
use crate::{Batch, Durability, StoreError, Table};

/// The most rows that a damaged block has.
const BLOCK_ROWS: usize = 8;

#[derive(Clone)]
enum Node {
    Directory,
    File { bytes: Bytes, damaged: bool },
}

/// What a directory has on the disk at one moment.
pub(super) struct Backup {
    nodes: BTreeMap<PathBuf, Node>,
    stores: BTreeMap<PathBuf, Tables>,
}

struct Holder {
    process: u64,
    id: u64,
}

/// A store in its directory, open or not.
#[derive(Default)]
struct StoreState {
    content: Content,
    schedule: Schedule,
    holder: Option<Holder>,
    damaged: bool,
    fail_next_sync: bool,
    /// Why it refuses everything until it is opened again.
    failed: Option<String>,
}

pub(super) struct Platter {
    machine: String,
    random: Arc<dyn Random>,
    hook: Option<DiskHook>,
    pub(super) delays: DiskDelays,
    pub(super) full: bool,
    pub(super) counts: DiskCounts,
    nodes: BTreeMap<PathBuf, Node>,
    stores: BTreeMap<PathBuf, StoreState>,
    locks: BTreeMap<PathBuf, Holder>,
    /// How often each process has died.
    lives: Vec<u64>,
    next_id: u64,
}

impl Platter {
    pub(super) fn new(
        machine: &str,
        random: Arc<dyn Random>,
        delays: DiskDelays,
        hook: Option<DiskHook>,
    ) -> Self {
        Platter {
            machine: machine.to_owned(),
            random,
            hook,
            delays,
            full: false,
            counts: DiskCounts::default(),
            nodes: BTreeMap::new(),
            stores: BTreeMap::new(),
            locks: BTreeMap::new(),
            lives: Vec::new(),
            next_id: 0,
        }
    }

    pub(super) fn new_process(&mut self) -> u64 {
        self.lives.push(0);
        self.lives.len() as u64 - 1
    }

    /// Which life of a process this is.
    pub(super) fn life(&self, process: u64) -> u64 {
        usize::try_from(process).ok().and_then(|index| self.lives.get(index)).copied().unwrap_or(0)
    }

    pub(super) fn open_delay(&self) -> Duration {
        draw(&*self.random, &self.delays.open)
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn emit(&self, event: &DiskEvent<'_>) {
        emit(self.hook.as_ref(), &self.machine, event);
    }

    fn refuse_if_full(&self, path: &Path) -> Result<(), StoreError> {
        if self.full { Err(StoreError::Full { path: path.display().to_string() }) } else { Ok(()) }
    }
}

/// Files, directories and locks.
impl Platter {
    pub(super) fn read_file(&self, path: &Path) -> Result<Option<Bytes>, StoreError> {
        match self.nodes.get(path) {
            None => Ok(None),
            Some(Node::Directory) => Err(io(path, "is a directory")),
            Some(Node::File { damaged: true, .. }) => Err(StoreError::Corrupt {
                path: path.display().to_string(),
                detail: "a sector can't be read".to_owned(),
            }),
            Some(Node::File { bytes, .. }) => Ok(Some(bytes.clone())),
        }
    }

    pub(super) fn write_file(&mut self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        if matches!(self.nodes.get(path), Some(Node::Directory)) {
            return Err(io(path, "is a directory"));
        }
        self.refuse_if_full(path)?;
        self.make_parents(path)?;
        let file = Node::File { bytes: Bytes::copy_from_slice(bytes), damaged: false };
        self.nodes.insert(path.to_path_buf(), file);
        self.counts.files += 1;
        self.emit(&DiskEvent::FileWritten { path, bytes });
        Ok(())
    }

    pub(super) fn list(&self, directory: &Path) -> Result<Vec<String>, StoreError> {
        if matches!(self.nodes.get(directory), Some(Node::File { .. })) {
            return Err(io(directory, "is not a directory"));
        }
        let below = self.nodes.range(directory.to_path_buf()..).map(|(path, _)| path);
        let mut names: Vec<String> = below
            .take_while(|path| path.starts_with(directory))
            .filter(|path| path.parent() == Some(directory))
            .filter_map(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        names.sort();
        Ok(names)
    }

    pub(super) fn create_directory(&mut self, directory: &Path) -> Result<(), StoreError> {
        match self.nodes.get(directory) {
            Some(Node::Directory) => Ok(()),
            Some(Node::File { .. }) => Err(io(directory, "is a file")),
            None => {
                self.refuse_if_full(directory)?;
                self.make_parents(directory)?;
                self.nodes.insert(directory.to_path_buf(), Node::Directory);
                Ok(())
            }
        }
    }

    fn make_parents(&mut self, path: &Path) -> Result<(), StoreError> {
        let parents = || path.ancestors().skip(1);
        if let Some(file) =
            parents().find(|parent| matches!(self.nodes.get(*parent), Some(Node::File { .. })))
        {
            return Err(io(file, "is not a directory"));
        }
        for parent in parents() {
            self.nodes.entry(parent.to_path_buf()).or_insert(Node::Directory);
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), StoreError> {
        if !self.nodes.contains_key(from) {
            return Err(io(from, "no such file or directory"));
        }
        if from == to {
            return Ok(());
        }
        if to.starts_with(from) {
            return Err(io(to, "is within what is to be renamed"));
        }
        let is_file = matches!(self.nodes.get(from), Some(Node::File { .. }));
        let parent = to.parent().unwrap_or(Path::new(""));
        match (is_file, self.nodes.get(to)) {
            _ if !matches!(self.nodes.get(parent), Some(Node::Directory)) => {
                return Err(io(parent, "no such directory"));
            }
            (true, Some(Node::Directory)) => return Err(io(to, "is a directory")),
            (false, Some(Node::File { .. })) => return Err(io(to, "is not a directory")),
            (false, Some(Node::Directory)) if !self.list(to)?.is_empty() => {
                return Err(io(to, "is a directory with something in it"));
            }
            _ => {}
        }
        move_keys(&mut self.nodes, from, to);
        move_keys(&mut self.locks, from, to);
        move_keys(&mut self.stores, from, to);
        // An engine whose files are moved away under it can't go on.
        for store in
            self.stores.range_mut(to.to_path_buf()..).take_while(|(path, _)| path.starts_with(to))
        {
            store.1.close(&*self.random);
        }
        self.emit(&DiskEvent::Renamed { from, to });
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> Result<(), StoreError> {
        self.nodes.retain(|other, _| !other.starts_with(path));
        self.stores.retain(|other, _| !other.starts_with(path));
        self.locks.retain(|other, _| !other.starts_with(path));
        self.emit(&DiskEvent::Removed { path });
        Ok(())
    }

    pub(super) fn lock_directory(
        &mut self,
        directory: &Path,
        process: u64,
    ) -> Result<u64, StoreError> {
        if self.locks.contains_key(directory) {
            return Err(StoreError::Locked { path: directory.display().to_string() });
        }
        self.create_directory(directory)?;
        let id = self.fresh_id();
        self.locks.insert(directory.to_path_buf(), Holder { process, id });
        Ok(id)
    }

    pub(super) fn unlock(&mut self, id: u64) {
        self.locks.retain(|_, holder| holder.id != id);
    }
}

/// Stores.
impl Platter {
    pub(super) fn open_store(
        &mut self,
        directory: &Path,
        tables: &[Table],
        process: u64,
        life: u64,
    ) -> Result<u64, StoreError> {
        if self.life(process) != life {
            return Err(io(directory, "the process that wanted to open it has died"));
        }
        if !self.stores.contains_key(directory) {
            self.refuse_if_full(directory)?;
        }
        self.create_directory(directory)?;
        // A directory with a store in it is not an empty one.
        let pointer = Node::File { bytes: Bytes::from_static(b"simulated"), damaged: false };
        self.nodes.entry(directory.join("CURRENT")).or_insert(pointer);
        let id = self.fresh_id();
        let store = self.stores.entry(directory.to_path_buf()).or_default();
        if store.holder.is_some() {
            return Err(StoreError::Locked { path: directory.display().to_string() });
        }
        if store.damaged {
            return Err(StoreError::Corrupt {
                path: directory.display().to_string(),
                detail: "a record of the write-ahead log does not match its checksum".to_owned(),
            });
        }
        store.content.declare(tables).map_err(|table| {
            io(directory, &format!("table {table} exists there and was not declared"))
        })?;
        store.schedule = Schedule::default();
        store.failed = None;
        store.fail_next_sync = false;
        store.holder = Some(Holder { process, id });
        self.emit(&DiskEvent::Opened { directory });
        Ok(id)
    }

    /// The content of an open store as of now, for reading.
    pub(super) fn readable(
        &mut self,
        directory: &Path,
        handle: u64,
        now: Instant,
    ) -> Result<&Content, StoreError> {
        self.advance(directory, handle, now);
        let store = self.stores.get(directory).filter(|store| store.is_held_by(handle));
        let store = store.ok_or_else(|| handle_is_gone(directory))?;
        match &store.failed {
            Some(detail) => Err(io(directory, detail)),
            None => Ok(&store.content),
        }
    }

    /// Queues a batch. Whoever holds the receiver learns how it went.
    pub(super) fn queue_write(
        &mut self,
        directory: &Path,
        handle: u64,
        batch: Batch,
        durability: Durability,
        now: Instant,
    ) -> Result<oneshot::Receiver<Result<(), StoreError>>, StoreError> {
        let content = self.readable(directory, handle, now)?;
        if let Some(table) = content.undeclared(&batch) {
            return Err(undeclared_table(directory, table));
        }
        self.emit(&DiskEvent::Queued { directory, batch: &batch, durability });
        let (done, receiver) = oneshot::channel();
        if let Some(store) = self.stores.get_mut(directory) {
            store.schedule.push(Pending { batch, durability, queued_at: now, done });
        }
        self.advance(directory, handle, now);
        Ok(receiver)
    }

    /// Does what is due by now at an open store, and answers until when it is busy.
    pub(super) fn advance(
        &mut self,
        directory: &Path,
        handle: u64,
        now: Instant,
    ) -> Option<Instant> {
        let store = self.stores.get_mut(directory).filter(|store| store.is_held_by(handle))?;
        let (random, delays) = (&*self.random, &self.delays);
        let mut delay =
            |syncs: bool| draw(random, if syncs { &delays.sync } else { &delays.write });
        while let Some(group) = store.schedule.finished(now, &mut delay) {
            let mut report = |event: &DiskEvent<'_>| emit(self.hook.as_ref(), &self.machine, event);
            store.finish(directory, group, self.full, &mut self.counts, &mut report);
        }
        store.schedule.busy_until()
    }

    /// The handle of a store was dropped.
    pub(super) fn close_store(&mut self, directory: &Path, handle: u64) {
        let store = self.stores.get_mut(directory).filter(|store| store.is_held_by(handle));
        if let Some(store) = store {
            store.close(&*self.random);
        }
    }
}

/// What goes wrong.
impl Platter {
    pub(super) fn process_crash(&mut self, process: u64) {
        self.end_life(process);
        self.locks.retain(|_, holder| holder.process != process);
        for store in self.stores.values_mut() {
            if store.holder.as_ref().is_some_and(|holder| holder.process == process) {
                store.close(&*self.random);
            }
        }
        self.emit(&DiskEvent::ProcessCrashed);
    }

    pub(super) fn power_loss(&mut self, random: &dyn Random) {
        for process in 0..self.lives.len() as u64 {
            self.end_life(process);
        }
        self.locks.clear();
        for store in self.stores.values_mut() {
            store.close(random);
            let kept = at_most(random, store.content.unsynced());
            store.content.lose_power(kept);
        }
        self.emit(&DiskEvent::PowerLost);
    }

    fn end_life(&mut self, process: u64) {
        if let Some(life) =
            usize::try_from(process).ok().and_then(|index| self.lives.get_mut(index))
        {
            *life += 1;
        }
    }

    pub(super) fn corrupt_file(&mut self, path: &Path) -> bool {
        match self.nodes.get_mut(path) {
            Some(Node::File { damaged, .. }) => {
                *damaged = true;
                true
            }
            _ => false,
        }
    }

    pub(super) fn flip_bit(&mut self, path: &Path, random: &dyn Random) -> bool {
        match self.nodes.get_mut(path) {
            Some(Node::File { bytes, .. }) if !bytes.is_empty() => {
                let mut changed = bytes.to_vec();
                let bit = at_most(random, changed.len() * 8 - 1);
                changed[bit / 8] ^= 1 << (bit % 8);
                *bytes = changed.into();
                true
            }
            _ => false,
        }
    }

    pub(super) fn corrupt_row(&mut self, directory: &Path, table: Table, key: &[u8]) -> bool {
        self.stores.get_mut(directory).is_some_and(|store| store.content.damage(table, key))
    }

    pub(super) fn corrupt_block(
        &mut self,
        directory: &Path,
        random: &dyn Random,
        noticed: bool,
    ) -> Option<(Table, Bytes, usize)> {
        let content = &mut self.stores.get_mut(directory)?.content;
        let first = at_most(random, content.rows_count().checked_sub(1)?);
        let most = 1 + at_most(random, BLOCK_ROWS - 1);
        let (table, keys) = content.block(first, most)?;
        for key in &keys {
            match noticed {
                true => _ = content.damage(table, key),
                false => _ = content.flip(table, key, at_most(random, usize::MAX - 1)),
            }
        }
        let rows = keys.len();
        keys.into_iter().next().map(|first| (table, first, rows))
    }

    /// What is in a directory and would be there after the loss of power.
    pub(super) fn back_up(&self, directory: &Path) -> Backup {
        let nodes = self.nodes.iter().filter(|(path, _)| path.starts_with(directory));
        let stores = self.stores.iter().filter(|(path, _)| path.starts_with(directory));
        Backup {
            nodes: nodes.map(|(path, node)| (path.clone(), node.clone())).collect(),
            stores: stores
                .map(|(path, store)| (path.clone(), store.content.synced().clone()))
                .collect(),
        }
    }

    pub(super) fn put_back(&mut self, directory: &Path, backup: &Backup) -> Result<(), StoreError> {
        self.remove(directory)?;
        self.nodes.extend(backup.nodes.iter().map(|(path, node)| (path.clone(), node.clone())));
        let store = |tables: &Tables| StoreState {
            content: Content::of(tables.clone()),
            ..StoreState::default()
        };
        self.stores
            .extend(backup.stores.iter().map(|(path, tables)| (path.clone(), store(tables))));
        Ok(())
    }

    pub(super) fn corrupt_store(&mut self, directory: &Path) -> bool {
        self.stores.get_mut(directory).map(|store| store.damaged = true).is_some()
    }

    pub(super) fn fail_next_sync(&mut self, directory: &Path) -> bool {
        let store = self.stores.get_mut(directory).filter(|store| store.holder.is_some());
        store.map(|store| store.fail_next_sync = true).is_some()
    }
}

impl StoreState {
    fn is_held_by(&self, handle: u64) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.id == handle)
    }

    fn finish(
        &mut self,
        directory: &Path,
        group: Group,
        full: bool,
        counts: &mut DiskCounts,
        report: &mut dyn FnMut(&DiskEvent<'_>),
    ) {
        let syncs = group.syncs();
        if let Err(error) = self.accept(directory, full, syncs) {
            for write in group.writes {
                // Nobody may be waiting any more.
                let _ = write.done.send(Err(error.clone()));
            }
            return;
        }
        let batches = group.writes.len();
        let mut waiting = Vec::with_capacity(batches);
        for write in group.writes {
            self.content.write(write.batch);
            waiting.push(write.done);
        }
        counts.writes += batches as u64;
        report(&DiskEvent::Written { directory, batches });
        if syncs {
            counts.syncs += 1;
            let batches = self.content.sync();
            report(&DiskEvent::Synced { directory, batches });
        }
        for done in waiting {
            let _ = done.send(Ok(()));
        }
    }

    fn accept(&mut self, directory: &Path, full: bool, syncs: bool) -> Result<(), StoreError> {
        if let Some(detail) = &self.failed {
            return Err(io(directory, detail));
        }
        if full {
            return Err(StoreError::Full { path: directory.display().to_string() });
        }
        if syncs && self.fail_next_sync {
            let detail = "a sync failed: nothing more is accepted until it is opened again";
            self.failed = Some(detail.to_owned());
            return Err(io(directory, detail));
        }
        Ok(())
    }

    /// The holder is gone. Some first part of what was not yet written may have been.
    fn close(&mut self, random: &dyn Random) {
        let pending = self.schedule.abandon();
        let kept = if self.failed.is_none() { at_most(random, pending.len()) } else { 0 };
        for write in pending.into_iter().take(kept) {
            self.content.write(write.batch);
        }
        self.holder = None;
    }
}

fn emit(hook: Option<&DiskHook>, machine: &str, event: &DiskEvent<'_>) {
    if let Some(hook) = hook {
        hook(machine, event);
    }
}

fn move_keys<T>(map: &mut BTreeMap<PathBuf, T>, from: &Path, to: &Path) {
    let moved: Vec<PathBuf> = map
        .range(from.to_path_buf()..)
        .map(|(path, _)| path)
        .take_while(|path| path.starts_with(from))
        .cloned()
        .collect();
    for path in moved {
        let Some(value) = map.remove(&path) else {
            continue;
        };
        let below = path.strip_prefix(from).unwrap_or(Path::new(""));
        let target = if below.as_os_str().is_empty() { to.to_path_buf() } else { to.join(below) };
        map.insert(target, value);
    }
}

fn draw(random: &dyn Random, bounds: &RangeInclusive<Duration>) -> Duration {
    let width = bounds.end().saturating_sub(*bounds.start());
    if width.is_zero() {
        return *bounds.start();
    }
    let nanos = u64::try_from(width.as_nanos()).unwrap_or(u64::MAX);
    *bounds.start() + Duration::from_nanos(random.next_u64() % nanos.saturating_add(1))
}

/// A number from 0 to `most`; none is drawn where there is no choice.
fn at_most(random: &dyn Random, most: usize) -> usize {
    if most == 0 {
        return 0;
    }
    let drawn = random.next_u64() % (most as u64 + 1);
    usize::try_from(drawn).unwrap_or(most)
}

fn io(path: &Path, detail: &str) -> StoreError {
    StoreError::Io { path: path.display().to_string(), detail: detail.to_owned() }
}

/// The answer to a handle whose process has died or whose store was moved away.
pub(super) fn handle_is_gone(directory: &Path) -> StoreError {
    io(directory, "the process that opened it has died, or it was moved away")
}
