//! When a store's writes happen: one group at a time, the next one collects meanwhile. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::{Batch, Durability, StoreError};

/// A batch that is not yet written.
pub(super) struct Pending {
    pub(super) batch: Batch,
    pub(super) durability: Durability,
    pub(super) queued_at: Instant,
    pub(super) done: oneshot::Sender<Result<(), StoreError>>,
}

/// Batches that are written, and perhaps synced, together.
pub(super) struct Group {
    pub(super) writes: Vec<Pending>,
    ends_at: Instant,
}

impl Group {
    pub(super) fn syncs(&self) -> bool {
        self.writes.iter().any(|write| write.durability == Durability::Synced)
    }
}

/// What waits and what is under way.
#[derive(Default)]
pub(super) struct Schedule {
    queue: VecDeque<Pending>,
    under_way: Option<Group>,
    free_at: Option<Instant>,
}

impl Schedule {
    pub(super) fn push(&mut self, write: Pending) {
        self.queue.push_back(write);
    }

    /// When the group under way will be done.
    pub(super) fn busy_until(&self) -> Option<Instant> {
        self.under_way.as_ref().map(|group| group.ends_at)
    }

    /// The next group that is done by `now`, in order; to be called until there is none. `delay`
    /// says how long a group takes, given whether it syncs; it is asked once a group.
    pub(super) fn finished(
        &mut self,
        now: Instant,
        delay: &mut dyn FnMut(bool) -> Duration,
    ) -> Option<Group> {
        if self.under_way.is_none() {
            self.start(delay);
        }
        if self.under_way.as_ref().is_none_or(|group| group.ends_at > now) {
            return None;
        }
        let group = self.under_way.take()?;
        self.free_at = Some(group.ends_at);
        Some(group)
    }

    /// Everything that is not written, in order; nothing is left.
    pub(super) fn abandon(&mut self) -> Vec<Pending> {
        let under_way = self.under_way.take().map(|group| group.writes).unwrap_or_default();
        under_way.into_iter().chain(self.queue.drain(..)).collect()
    }

    fn start(&mut self, delay: &mut dyn FnMut(bool) -> Duration) {
        let Some(first) = self.queue.front() else {
            return;
        };
        let starts_at = self.free_at.map_or(first.queued_at, |free| free.max(first.queued_at));
        let together = self.queue.iter().take_while(|write| write.queued_at <= starts_at).count();
        let mut group =
            Group { writes: self.queue.drain(..together).collect(), ends_at: starts_at };
        group.ends_at += delay(group.syncs());
        self.under_way = Some(group);
    }
}
