//! How many transactions may begin, from what is seen of storages and logs. Pure.
//!
//! Nothing is limited while everybody keeps up. What counts of a storage is its delay: how long it
//! will take for what waits for it, at the speed at which it gets things done. Once less than a
//! second is left of the delay allowed, as many transactions may begin as it gets done, times a
//! factor that is large there, 1 at the delay allowed and one half beyond it: so the delay settles
//! there, and with it what logs and storages hold. The limit goes up by little at a time, lest
//! what was held back comes in one burst, and ends when it limits nothing any more.
//!
//! What waits is counted in transactions, by how many had begun when a version was committed. A
//! delay counts only once something has waited for a while: a cluster that was idle has no speed,
//! and its versions jump.
//!
//! A storage counts from when it has caught up first until it is lost: one that was away, or never
//! catches up, is a matter for the team and not for the rate. Of a tag that no storage keeps up
//! with, the one that lags least counts, since it is the best copy that there is. One that does not
//! answer does not count: who is gone must hold up nobody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use plinth_types::{ServiceRef, Tag, Version};

/// The delay that is allowed. Read versions stay readable for 5 s, and a storage behind its logs holds
/// in memory what it can't make durable.
const TARGET: Duration = Duration::from_secs(2);
/// How long before that the rate is limited.
const SPRING: Duration = Duration::from_secs(1);
/// A storage that lags more and gets nothing done is lost, as far as the rate goes.
const LOST: Duration = Duration::from_secs(30);
/// How long something must have waited before its delay is estimated.
const WAITED: Duration = Duration::from_millis(500);
/// How long looks are remembered.
const MEMORY: Duration = Duration::from_secs(120);
/// How much the limit goes up from one look to the next.
const RISE: f64 = 1.1;
/// What speeds are measured over, about.
const MEASURED: Duration = Duration::from_secs(2);
/// No less than this many transactions a second begin, whatever lags.
const FLOOR: f64 = 10.0;
/// The part of a queue's bound at which the rate begins to be limited.
const QUEUE_FREE: f64 = 0.25;

/// A look at a storage.
#[derive(Clone, Debug, Default)]
pub(crate) struct StorageSeen {
    /// What is durable of each tag.
    pub(crate) durable: BTreeMap<Tag, Version>,
    pub(crate) queue_bytes: u64,
}

/// A look at a log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogSeen {
    pub(crate) committed: Version,
    pub(crate) queue_bytes: u64,
    /// Beyond this it takes no more; 0 where it does not say.
    pub(crate) queue_limit_bytes: u64,
}

/// What was seen at a time. Who did not answer is missing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// Since some moment.
    pub(crate) at: Duration,
    /// Transactions that the proxies have let begin; none where one of them does not say.
    pub(crate) begun: Option<u64>,
    pub(crate) storages: BTreeMap<ServiceRef, StorageSeen>,
    pub(crate) logs: BTreeMap<ServiceRef, LogSeen>,
}

/// How a storage stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) lag: Duration,
    pub(crate) queue_bytes: u64,
    /// Whether the rate heeds it.
    pub(crate) counts: bool,
}

/// What follows from the looks so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Transactions a second; none where nothing is limited.
    pub(crate) per_second: Option<u64>,
    /// Who limits them, and why.
    pub(crate) by: Option<(ServiceRef, String)>,
    pub(crate) standings: BTreeMap<ServiceRef, Standing>,
}

/// What is remembered of a look.
#[derive(Clone, Debug)]
struct Past {
    at: Duration,
    committed: Version,
    begun: u64,
    durable: BTreeMap<ServiceRef, Version>,
}

/// Remembers looks and judges.
#[derive(Clone, Debug, Default)]
pub(crate) struct Controller {
    past: VecDeque<Past>,
    keeps_up: BTreeSet<ServiceRef>,
    limit: Option<f64>,
    verdict: Verdict,
}

impl Controller {
    /// Whether nobody is near a limit: the next look can wait.
    pub(crate) fn is_calm(&self) -> bool {
        let free = TARGET.saturating_sub(SPRING) / 2;
        self.verdict.per_second.is_none()
            && self.verdict.standings.values().all(|one| !one.counts || one.lag < free)
    }

    /// Judges by one more look. Looks come in the order of their times.
    pub(crate) fn look(&mut self, look: &Look) -> Verdict {
        let newest = look.logs.values().map(|log| log.committed).max().unwrap_or_default();
        let before = self.past.back().map(|past| (past.committed, past.begun));
        let (before, begun) = before.unwrap_or_default();
        let committed = newest.max(before);
        let begun = look.begun.unwrap_or(begun).max(begun);
        let least = |seen: &StorageSeen| seen.durable.values().min().copied();
        let durable = look.storages.iter();
        let durable = durable.filter_map(|(who, seen)| Some((who.clone(), least(seen)?))).collect();
        self.past.push_back(Past { at: look.at, committed, begun, durable });
        while self.past.len() > 2
            && self.past.get(1).is_some_and(|second| second.at + MEMORY < look.at)
        {
            self.past.pop_front();
        }
        let standings = self.standings(look);
        let mut verdict = Verdict { standings, ..Verdict::default() };
        let mut least: Option<f64> = None;
        for (who, pressure, per_second, why) in self.limits(look, &verdict.standings) {
            let limit = (per_second / pressure).max(FLOOR);
            if least.is_none_or(|least| limit < least) {
                least = Some(limit);
                verdict.by = Some((who, why));
            }
        }
        let limit = self.rising(least);
        if limit.is_some() && verdict.by.is_none() {
            verdict.by.clone_from(&self.verdict.by);
        }
        self.limit = limit;
        verdict.per_second = limit.map(whole);
        self.verdict = verdict.clone();
        verdict
    }

    /// The limit, given what there should be one for: it goes up by little at a time.
    fn rising(&self, wanted: Option<f64>) -> Option<f64> {
        let Some(last) = self.limit else { return wanted };
        let most = last * RISE;
        match wanted {
            Some(wanted) => Some(wanted.min(most)),
            // It limits nothing any more.
            None if self.begun_per_second().is_none_or(|begun| begun * 2.0 < most) => None,
            None => Some(most),
        }
    }

    fn standings(&mut self, look: &Look) -> BTreeMap<ServiceRef, Standing> {
        let mut best: BTreeMap<Tag, (Duration, &ServiceRef)> = BTreeMap::new();
        let mut tags: BTreeMap<Tag, bool> = BTreeMap::new();
        let mut standings = BTreeMap::new();
        for (who, seen) in &look.storages {
            let lag = seen.durable.values().map(|durable| self.lag(look.at, *durable)).max();
            let lag = lag.unwrap_or_default();
            let is_stuck = || self.done_per_second(who).is_none_or(|done| done <= 0.0);
            if lag > LOST && is_stuck() {
                self.keeps_up.remove(who);
            } else if lag < TARGET.saturating_sub(SPRING) {
                self.keeps_up.insert(who.clone());
            }
            let counts = self.keeps_up.contains(who);
            for (tag, durable) in &seen.durable {
                *tags.entry(*tag).or_default() |= counts;
                let here = (self.lag(look.at, *durable), who);
                best.entry(*tag).and_modify(|best| *best = here.min(*best)).or_insert(here);
            }
            let queue_bytes = seen.queue_bytes;
            standings.insert(who.clone(), Standing { lag, queue_bytes, counts });
        }
        for (tag, (_, who)) in best {
            if tags.get(&tag) == Some(&false)
                && let Some(standing) = standings.get_mut(who)
            {
                standing.counts = true;
            }
        }
        standings
    }

    /// How long ago something was first seen to be committed that is above this version.
    fn lag(&self, now: Duration, durable: Version) -> Duration {
        let first = self.past.iter().find(|past| past.committed > durable);
        first.map_or(Duration::ZERO, |past| now.saturating_sub(past.at))
    }

    /// Who is near a limit: how near, what it gets done in transactions a second, and in words.
    fn limits(
        &self,
        look: &Look,
        standings: &BTreeMap<ServiceRef, Standing>,
    ) -> Vec<(ServiceRef, f64, f64, String)> {
        let mut limits = Vec::new();
        for (who, standing) in standings.iter().filter(|(_, standing)| standing.counts) {
            let Some(done) = self.done_per_second(who) else { continue };
            let lag = standing.lag.as_secs_f64();
            let delay = if standing.lag < WAITED { lag } else { lag.max(self.waiting(who) / done) };
            let over = delay - TARGET.saturating_sub(SPRING).as_secs_f64();
            let pressure = (over / SPRING.as_secs_f64()).min(2.0);
            if pressure > 0.0 {
                let why = format!(
                    "{who} makes {done:.0} transactions a second durable, and is {lag:.1} s behind"
                );
                limits.push((who.clone(), pressure, done, why));
            }
        }
        for (who, log) in &look.logs {
            if log.queue_limit_bytes == 0 {
                continue;
            }
            let full = log.queue_bytes as f64 / log.queue_limit_bytes as f64;
            let pressure = ((full - QUEUE_FREE) / QUEUE_FREE).min(2.0);
            if pressure > 0.0 {
                let why = format!(
                    "{who} holds {} of at most {} bytes in memory",
                    log.queue_bytes, log.queue_limit_bytes
                );
                if let Some(begun) = self.begun_per_second() {
                    limits.push((who.clone(), pressure, begun, why));
                }
            }
        }
        limits
    }

    /// The look that speeds are measured from.
    fn measured_from(&self, has: impl Fn(&Past) -> bool) -> Option<&Past> {
        let newest = self.past.back()?;
        let fits = |past: &&Past| past.at + MEASURED >= newest.at && has(past);
        self.past.iter().find(fits).filter(|past| past.at < newest.at)
    }

    fn begun_per_second(&self) -> Option<f64> {
        let newest = self.past.back()?;
        let from = self.measured_from(|_| true)?;
        let begun = newest.begun.saturating_sub(from.begun);
        Some(begun as f64 / newest.at.saturating_sub(from.at).as_secs_f64())
    }

    /// How many transactions a storage makes durable in a second.
    fn done_per_second(&self, who: &ServiceRef) -> Option<f64> {
        let newest = self.past.back()?;
        let from = self.measured_from(|past| past.durable.contains_key(who))?;
        let done = self.begun_by(*newest.durable.get(who)?);
        let done = done - self.begun_by(*from.durable.get(who)?);
        Some(done / newest.at.saturating_sub(from.at).as_secs_f64())
    }

    /// How many transactions wait for a storage to make them durable.
    fn waiting(&self, who: &ServiceRef) -> f64 {
        let durable = self.past.back().and_then(|newest| {
            let durable = newest.durable.get(who)?;
            Some(newest.begun as f64 - self.begun_by(*durable))
        });
        durable.unwrap_or_default().max(0.0)
    }

    /// How many transactions had begun when a version was committed, about: in proportion between two
    /// looks, and before the first one as after it.
    fn begun_by(&self, version: Version) -> f64 {
        let after = self.past.iter().position(|past| past.committed >= version);
        let after = after.unwrap_or(self.past.len().saturating_sub(1)).max(1);
        let (Some(low), Some(high)) = (self.past.get(after - 1), self.past.get(after)) else {
            return self.past.front().map_or(0.0, |past| past.begun as f64);
        };
        let versions = high.committed.0.saturating_sub(low.committed.0).max(1) as f64;
        let part = (version.0 as f64 - low.committed.0 as f64) / versions;
        low.begun as f64 + part.min(1.0) * high.begun.saturating_sub(low.begun) as f64
    }
}

/// A rate in whole transactions. One far above what there is limits nothing.
fn whole(per_second: f64) -> u64 {
    per_second.clamp(FLOOR, 1e12) as u64
}

#[cfg(test)]
#[path = "controller_tests.rs"]
mod tests;
