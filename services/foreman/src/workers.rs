//! The node's workers: who should run, who does, who has announced itself, and when to start again
//! what ended. Pure: every call takes the time as a duration since the foreman started, and what is
//! to be done is left in [`Workers::take_commands`].
//!
//! A worker is *ours* while a process runs that this foreman or the one before it started; the
//! process' end is then told by the operating system. It is *foreign* when something else started
//! it; it is then believed as long as it announces itself.

mod entry;
mod records;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plinth_api::foreman::{Announcement, CreateWorker, Health, Worker};
use plinth_types::{ClusterId, Epoch, Incarnation, NodeId, ServiceKind, ServiceName, StoreId};

use self::entry::{Entry, Life, Ours};
pub use self::records::{ProcessId, WorkerRecord};
pub use self::refusal::Refusal;

/// A process that ends sooner than this after its start died young.
const YOUNG: Duration = Duration::from_secs(2);
/// The pause before the second restart in a row of a worker that dies young; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A foreign worker that has been silent for this long is down. Workers announce every second.
const SILENCE: Duration = Duration::from_secs(3);
/// A process taken over from the foreman before must have announced itself within this time.
const MUTE: Duration = Duration::from_secs(3);

/// What the driver is to do. `number` tells the processes of a worker apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start a process.
    Start {
        /// Of which worker.
        name: ServiceName,
        /// Its number.
        number: u64,
    },
    /// End a process: ask first, then kill.
    End {
        /// Of which worker.
        name: ServiceName,
        /// Its number.
        number: u64,
    },
}

/// The machine.
#[derive(Debug)]
pub struct Workers {
    node: NodeId,
    kinds: BTreeSet<ServiceKind>,
    cluster: Option<ClusterId>,
    epoch: Epoch,
    entries: BTreeMap<ServiceName, Entry>,
    processes: u64,
    stopping: bool,
    commands: Vec<Command>,
}

impl Workers {
    /// A node without workers. `kinds` are those that can be made on request.
    #[must_use]
    pub fn new(node: NodeId, kinds: BTreeSet<ServiceKind>, cluster: Option<ClusterId>) -> Self {
        Workers {
            node,
            kinds,
            cluster,
            epoch: Epoch::ZERO,
            entries: BTreeMap::new(),
            processes: 0,
            stopping: false,
            commands: Vec::new(),
        }
    }

    /// What is to be done, in order; taken once.
    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// The cluster that the node belongs to, once it is written down.
    #[must_use]
    pub const fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// The cluster is written down.
    pub fn set_cluster(&mut self, cluster: ClusterId) {
        self.cluster = Some(cluster);
    }

    /// A newer epoch is known; an older one changes nothing.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
    }

    /// A durable worker is known to exist, by its directory or its record.
    pub fn know(&mut self, name: ServiceName, store: StoreId) {
        self.entries.entry(name).or_insert_with(Entry::new).store = Some(store);
    }

    /// Takes over a living process that the foreman before started; its number is returned.
    pub fn adopt(
        &mut self,
        now: Duration,
        name: ServiceName,
        process: ProcessId,
        expected: Option<Incarnation>,
    ) -> u64 {
        let number = self.next_number();
        let entry = self.entries.entry(name).or_insert_with(Entry::new);
        entry.keep = true;
        entry.life = Life::Ours(Ours {
            number,
            process: Some(process),
            since: now,
            adopted: true,
            expected,
            ending: false,
            pid: None,
        });
        number
    }

    /// A worker is wanted: it is started unless it runs, and again whenever it ends.
    pub fn want(&mut self, now: Duration, name: ServiceName) {
        let entry = self.entries.entry(name).or_insert_with(Entry::new);
        entry.keep = true;
        entry.removed = false;
        if matches!(entry.life, Life::Down) {
            self.start(now, name);
        }
    }

    /// A director asks for a worker.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn create(&mut self, now: Duration, request: &CreateWorker) -> Result<(), Refusal> {
        if self.stopping {
            return Err(Refusal::Stopping);
        }
        if request.epoch < self.epoch {
            return Err(Refusal::StaleEpoch { given: request.epoch, latest: self.epoch });
        }
        self.epoch = request.epoch;
        let kind = request.name.kind;
        let entry = self.entries.get(&request.name);
        if !self.kinds.contains(&kind) {
            // It may have been started by something else, which also starts it again.
            let runs = entry.is_some_and(|entry| entry.pid().is_some());
            let refusal = Refusal::KindNotMade { kind, node: self.node.clone() };
            return if runs { Ok(()) } else { Err(refusal) };
        }
        if entry.is_some() {
            self.want(now, request.name);
            return Ok(());
        }
        if kind.is_durable() && self.cluster.is_none() {
            return Err(Refusal::NoCluster);
        }
        self.want(now, request.name);
        Ok(())
    }

    /// Ends a stateless worker for good.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn remove(&mut self, name: ServiceName) -> Result<(), Refusal> {
        let unknown = || Refusal::Unknown { name, node: self.node.clone() };
        let entry = self.entries.get_mut(&name).ok_or_else(unknown)?;
        if name.kind.is_durable() {
            return Err(Refusal::Durable { name });
        }
        match &mut entry.life {
            Life::Foreign { .. } => return Err(Refusal::Foreign { name }),
            Life::Down | Life::Waiting { .. } => {
                self.entries.remove(&name);
            }
            Life::Ours(ours) => {
                entry.keep = false;
                entry.removed = true;
                if !std::mem::replace(&mut ours.ending, true) {
                    self.commands.push(Command::End { name, number: ours.number });
                }
            }
        }
        Ok(())
    }

    /// Ends a durable worker that is to be removed. It is not started again until it is resumed.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn retire(&mut self, name: ServiceName, store: StoreId) -> Result<(), Refusal> {
        let entry = self.durable(name, store)?;
        match &mut entry.life {
            Life::Foreign { .. } => return Err(Refusal::Foreign { name }),
            Life::Down => entry.keep = false,
            Life::Waiting { .. } => {
                entry.keep = false;
                entry.life = Life::Down;
            }
            Life::Ours(ours) => {
                entry.keep = false;
                if !std::mem::replace(&mut ours.ending, true) {
                    let number = ours.number;
                    self.commands.push(Command::End { name, number });
                }
            }
        }
        Ok(())
    }

    /// Forgets a durable worker that has ended: its directory is gone.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn discard(&mut self, name: ServiceName, store: StoreId) -> Result<(), Refusal> {
        let entry = self.durable(name, store)?;
        if entry.keep || !matches!(entry.life, Life::Down) {
            return Err(Refusal::Running { name });
        }
        self.entries.remove(&name);
        Ok(())
    }

    fn durable(&mut self, name: ServiceName, store: StoreId) -> Result<&mut Entry, Refusal> {
        let node = self.node.clone();
        let entry = self.entries.get_mut(&name).ok_or(Refusal::Unknown { name, node })?;
        let is_it = matches!(name.kind, ServiceKind::Log | ServiceKind::Storage)
            && entry.store == Some(store);
        if is_it { Ok(entry) } else { Err(Refusal::NotThisStore { name, given: store }) }
    }

    /// A worker makes itself known. Answers the store that is lost, where one of ours has come up
    /// with another: what is there now is new, and everybody has to hear that the old one is gone.
    /// No cold start follows from that, since the node knows its cluster.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn announce(
        &mut self,
        now: Duration,
        given: &Announcement,
    ) -> Result<Option<StoreId>, Refusal> {
        let name = given.name;
        if given.pid.node != self.node {
            let node = given.pid.node.clone();
            return Err(Refusal::OtherNode { name, node, here: self.node.clone() });
        }
        let entry = self.entries.entry(name).or_insert_with(Entry::new);
        let another = match (entry.store, given.store) {
            (Some(known), Some(given)) if known != given => Some((known, given)),
            _ => None,
        };
        match &mut entry.life {
            Life::Ours(ours) => {
                let same = match (&ours.pid, ours.expected, ours.process) {
                    (Some(pid), _, _) => pid.incarnation == given.pid.incarnation,
                    (None, Some(expected), _) => expected == given.pid.incarnation,
                    (None, None, Some(process)) => process.os_pid == given.pid.os_pid,
                    (None, None, None) => true,
                };
                if !same {
                    return Err(Refusal::OtherProcess { name });
                }
                ours.pid = Some(given.pid.clone());
            }
            Life::Down | Life::Waiting { .. } | Life::Foreign { .. } => {
                if let Some((known, given)) = another {
                    return Err(Refusal::OtherStore { name, known, given });
                }
                entry.life = Life::Foreign { pid: given.pid.clone(), heard: now };
            }
        }
        entry.store = given.store.or(entry.store);
        entry.format_level = given.format_level;
        Ok(another.map(|(lost, _)| lost))
    }

    /// A process was started.
    pub fn started(&mut self, name: ServiceName, number: u64, process: Option<ProcessId>) {
        if let Some(Life::Ours(ours)) = self.entries.get_mut(&name).map(|entry| &mut entry.life)
            && ours.number == number
        {
            ours.process = process;
        }
    }

    /// A process ended, or could not be started.
    pub fn ended(&mut self, now: Duration, name: ServiceName, number: u64, last_words: String) {
        let Some(entry) = self.entries.get_mut(&name) else { return };
        let Life::Ours(ours) = &entry.life else { return };
        if ours.number != number {
            return;
        }
        let young = now.saturating_sub(ours.since) < YOUNG;
        if entry.removed {
            self.entries.remove(&name);
            return;
        }
        entry.exits = entry.exits.saturating_add(1);
        entry.last_exit = Some(last_words);
        entry.life = Life::Down;
        entry.short_lives = if young { entry.short_lives.saturating_add(1) } else { 0 };
        if !entry.keep || self.stopping {
            return;
        }
        let pause = pause(entry.short_lives);
        if pause.is_zero() {
            self.start(now, name);
        } else {
            entry.life = Life::Waiting { until: now + pause };
        }
    }

    /// Time passes.
    pub fn tick(&mut self, now: Duration) {
        let mut to_start = Vec::new();
        for (name, entry) in &mut self.entries {
            match &mut entry.life {
                Life::Down => {}
                Life::Waiting { until } => {
                    if *until <= now {
                        to_start.push(*name);
                    }
                }
                Life::Ours(ours) => {
                    if ours.is_mute() && ours.since + MUTE <= now {
                        ours.ending = true;
                        self.commands.push(Command::End { name: *name, number: ours.number });
                    }
                }
                Life::Foreign { heard, .. } => {
                    if *heard + SILENCE <= now {
                        entry.life = Life::Down;
                        entry.exits = entry.exits.saturating_add(1);
                        entry.last_exit = Some("it no longer announces itself".to_owned());
                        if entry.keep {
                            to_start.push(*name);
                        }
                    }
                }
            }
        }
        if !self.stopping {
            for name in to_start {
                self.start(now, name);
            }
        }
    }

    /// When [`Workers::tick`] has something to do next.
    #[must_use]
    pub fn next_tick(&self) -> Option<Duration> {
        self.entries
            .values()
            .filter_map(|entry| match &entry.life {
                Life::Down => None,
                Life::Waiting { until } => Some(*until),
                Life::Ours(ours) => ours.is_mute().then(|| ours.since + MUTE),
                Life::Foreign { heard, .. } => Some(*heard + SILENCE),
            })
            .min()
    }

    /// Ends every process that is ours; nothing is started any more.
    pub fn stop(&mut self) {
        self.stopping = true;
        for (name, entry) in &mut self.entries {
            match &mut entry.life {
                Life::Ours(ours) => {
                    if !std::mem::replace(&mut ours.ending, true) {
                        self.commands.push(Command::End { name: *name, number: ours.number });
                    }
                }
                Life::Waiting { .. } => entry.life = Life::Down,
                Life::Down | Life::Foreign { .. } => {}
            }
        }
    }

    /// Whether no process of ours is left.
    #[must_use]
    pub fn all_ended(&self) -> bool {
        !self.entries.values().any(|entry| matches!(entry.life, Life::Ours(_)))
    }

    /// The workers, in the order of their names.
    #[must_use]
    pub fn list(&self) -> Vec<Worker> {
        self.entries
            .iter()
            .map(|(name, entry)| Worker {
                name: *name,
                state: entry.state(name.kind),
                pid: entry.pid().cloned(),
                store: entry.store,
                announced: matches!(entry.life, Life::Foreign { .. }),
                exits: entry.exits,
                last_exit: entry.last_exit.clone(),
                // What the process before has said says nothing about this one.
                format_level: entry.pid().and(entry.format_level),
            })
            .collect()
    }

    /// What outlives the foreman.
    #[must_use]
    pub fn records(&self) -> Vec<WorkerRecord> {
        self.entries
            .iter()
            .map(|(name, entry)| WorkerRecord {
                name: *name,
                store: entry.store,
                process: match &entry.life {
                    Life::Ours(ours) => ours.process,
                    Life::Down | Life::Waiting { .. } | Life::Foreign { .. } => None,
                },
                incarnation: entry.pid().map(|pid| pid.incarnation),
            })
            .filter(|record| record.store.is_some() || record.process.is_some())
            .collect()
    }

    /// Whether every log and storage that exists here has announced itself. Coordinators do not
    /// count: they wait for this answer themselves.
    #[must_use]
    pub fn health(&self) -> Health {
        let missing: Vec<_> = self
            .existing()
            .filter(|(_, entry)| entry.pid().is_none())
            .map(|(name, _)| *name)
            .collect();
        Health { healthy: missing.is_empty(), missing }
    }

    /// Whether every log and storage that exists here has announced itself or failed.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.existing().all(|(_, entry)| entry.pid().is_some() || entry.exits > 0)
    }

    fn existing(&self) -> impl Iterator<Item = (&ServiceName, &Entry)> {
        self.entries.iter().filter(|(name, entry)| {
            matches!(name.kind, ServiceKind::Log | ServiceKind::Storage) && entry.store.is_some()
        })
    }

    fn next_number(&mut self) -> u64 {
        self.processes += 1;
        self.processes
    }

    fn start(&mut self, now: Duration, name: ServiceName) {
        let number = self.next_number();
        let Some(entry) = self.entries.get_mut(&name) else { return };
        entry.life = Life::Ours(Ours {
            number,
            process: None,
            since: now,
            adopted: false,
            expected: None,
            ending: false,
            pid: None,
        });
        self.commands.push(Command::Start { name, number });
    }
}

/// Immediately at first, then doubling, while every life is short.
fn pause(short_lives: u32) -> Duration {
    match short_lives.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => FIRST_PAUSE
            .checked_mul(2u32.saturating_pow(doublings))
            .map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE)),
    }
}

#[cfg(test)]
mod tests;
