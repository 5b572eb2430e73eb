//! A worker as the machine knows it: whether it should run, and what does.

use std::time::Duration;

use plinth_api::foreman::WorkerState;
use plinth_types::{Incarnation, Pid, ServiceKind, StoreId};

use super::ProcessId;

/// A process that this foreman or the one before it started.
#[derive(Debug)]
pub(super) struct Ours {
    pub(super) number: u64,
    pub(super) process: Option<ProcessId>,
    pub(super) since: Duration,
    /// Taken over from the foreman before; it must announce itself soon.
    pub(super) adopted: bool,
    /// The incarnation that an adopted process announced to the foreman before.
    pub(super) expected: Option<Incarnation>,
    pub(super) ending: bool,
    pub(super) pid: Option<Pid>,
}

impl Ours {
    /// Taken over, it has neither announced itself nor been asked to end.
    pub(super) const fn is_mute(&self) -> bool {
        self.adopted && self.pid.is_none() && !self.ending
    }
}

/// What runs of a worker, if anything.
#[derive(Debug)]
pub(super) enum Life {
    Down,
    Waiting { until: Duration },
    Ours(Ours),
    Foreign { pid: Pid, heard: Duration },
}

/// A worker as the machine knows it.
#[derive(Debug)]
pub(super) struct Entry {
    /// Whether it is started again when it ends.
    pub(super) keep: bool,
    /// Whether it is forgotten when it ends.
    pub(super) removed: bool,
    pub(super) life: Life,
    pub(super) store: Option<StoreId>,
    /// What the process reads that has announced itself last.
    pub(super) format_level: Option<u32>,
    pub(super) exits: u32,
    pub(super) last_exit: Option<String>,
    pub(super) short_lives: u32,
}

impl Entry {
    pub(super) fn new() -> Self {
        Entry {
            keep: false,
            removed: false,
            life: Life::Down,
            store: None,
            format_level: None,
            exits: 0,
            last_exit: None,
            short_lives: 0,
        }
    }

    pub(super) fn pid(&self) -> Option<&Pid> {
        match &self.life {
            Life::Ours(ours) => ours.pid.as_ref(),
            Life::Foreign { pid, .. } => Some(pid),
            Life::Down | Life::Waiting { .. } => None,
        }
    }

    /// A log or storage is up only once it has announced its store: before, nobody can use it.
    pub(super) fn state(&self, kind: ServiceKind) -> WorkerState {
        let waits_for_store =
            matches!(kind, ServiceKind::Log | ServiceKind::Storage) && self.store.is_none();
        match &self.life {
            Life::Down | Life::Waiting { .. } => WorkerState::Down,
            Life::Ours(_) | Life::Foreign { .. } if waits_for_store => WorkerState::Starting,
            Life::Ours(Ours { pid: None, .. }) => WorkerState::Starting,
            Life::Ours(_) | Life::Foreign { .. } => WorkerState::Up,
        }
    }
}
