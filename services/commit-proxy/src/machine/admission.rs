//! Who may begin, where the director has set a rate: requests for read versions, and commits that
//! have asked for none.

use std::time::Duration;

use plinth_api::commit_proxy::Rate;

use super::{CommitProxy, Reign};
use crate::command::{Command, Ticket};
use crate::refusal::Refusal;

/// A request for a version to read at, on behalf of so many.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingRead {
    pub(super) ticket: Ticket,
    pub(super) count: u32,
    pub(super) since: Duration,
}

/// Whom a round serves, and how many of those who wait for it.
pub(super) type Granted = (Ticket, u32);

impl CommitProxy {
    /// Sets how many transactions a second may begin. Answers how many have since the epoch began.
    ///
    /// # Errors
    /// The order is of another epoch, or another director's.
    pub fn set_rate(&mut self, rate: &Rate) -> Result<(u64, Vec<Command>), Refusal> {
        self.tenure.holds(rate.epoch, rate.director)?;
        let now = self.now;
        let reign = self.reign_of(rate.epoch)?;
        reign.throttle.set(now, rate.per_second);
        let begun = reign.begun;
        Ok((begun, self.tick()))
    }

    /// Time has passed: lets begin what the rate lets begin, and refuses what has waited too long.
    pub fn tick(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        let (now, limit) = (self.now, self.limits.rate_wait);
        if let Some(reign) = &mut self.reign {
            reign.admit(now);
        }
        self.start_round(&mut commands);
        if let Some(reign) = &mut self.reign {
            reign.refuse_late(now, limit, &mut commands);
        }
        self.start_batches(&mut commands);
        commands
    }

    /// When [`CommitProxy::tick`] has something to do.
    #[must_use]
    pub fn next_tick(&self) -> Option<Duration> {
        let reign = self.reign.as_ref()?;
        let waits =
            !reign.held.is_empty() || (reign.round.is_none() && !reign.waiting_reads.is_empty());
        reign.throttle.next().filter(|_| waits)
    }
}

impl Reign {
    /// Lets commits begin, as many as the rate lets. Where requests for read versions wait too, each
    /// kind gets its share.
    pub(super) fn admit(&mut self, now: Duration) {
        let available = self.throttle.available(now);
        let held = self.held.len() as u64;
        let reads: u64 = self.waiting_reads.iter().map(|read| u64::from(read.count)).sum();
        let mut share = available.saturating_mul(held).div_ceil((held + reads).max(1));
        if available == 1 && held > 0 && reads > 0 {
            // One at a time, they take turns.
            self.reads_next = !self.reads_next;
            share = u64::from(!self.reads_next);
        }
        for _ in 0..share.min(available).min(held) {
            let Some((ticket, transaction, _)) = self.held.pop_front() else { break };
            self.waiting.push_back((ticket, transaction));
            self.throttle.take(1);
            self.begun += 1;
        }
    }

    /// Whom the next round serves: as many as the rate lets begin.
    pub(super) fn grant(&mut self, now: Duration) -> Vec<Granted> {
        let mut granted = Vec::new();
        let mut available = self.throttle.available(now);
        while available > 0
            && let Some(WaitingRead { ticket, count, .. }) = self.waiting_reads.pop_front()
        {
            let part = u32::try_from(available).unwrap_or(u32::MAX).min(count);
            available -= u64::from(part);
            self.throttle.take(u64::from(part));
            self.begun += u64::from(part);
            granted.push((ticket, part));
        }
        granted
    }

    /// Whoever has waited for too long is told to come again.
    pub(super) fn refuse_late(
        &mut self,
        now: Duration,
        limit: Duration,
        commands: &mut Vec<Command>,
    ) {
        let Some(per_second) = self.throttle.per_second() else { return };
        let late = |since: Duration| since + limit <= now;
        while self.held.front().is_some_and(|(_, _, since)| late(*since))
            && let Some((ticket, transaction, _)) = self.held.pop_front()
        {
            self.waiting_bytes -= transaction.bytes;
            let result = Err(Refusal::Throttled { per_second });
            commands.push(Command::AnswerCommit { ticket, result });
        }
        while self.waiting_reads.front().is_some_and(|read| late(read.since))
            && let Some(WaitingRead { ticket, .. }) = self.waiting_reads.pop_front()
        {
            let result = Err(Refusal::Throttled { per_second });
            commands.push(Command::AnswerRead { ticket, result });
        }
    }
}
