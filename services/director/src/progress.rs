//! What the director shows of its recovery: the phases with their times, and why it waits.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plinth_api::director::{CopyProgress, PhaseTime, RateStatus, Status};
use plinth_system_config::{PhaseDuration, RecoveryPhase};
use plinth_types::Epoch;

/// The state shown before an appointment.
pub(crate) const STANDBY: &str = "standby";

#[derive(Default)]
struct Timeline {
    epoch: Epoch,
    stalled: Option<String>,
    phases: Vec<(RecoveryPhase, Duration, Option<Duration>)>,
    rate: Option<RateStatus>,
    copies: Vec<CopyProgress>,
    degraded: Vec<String>,
}

/// The course of a recovery. Times count from the appointment.
#[derive(Default)]
pub(crate) struct Progress(Mutex<Timeline>);

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Progress {
    fn timeline(&self) -> MutexGuard<'_, Timeline> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn appointed(&self, epoch: Epoch) {
        self.timeline().epoch = epoch;
    }

    pub(crate) fn enter(&self, phase: RecoveryPhase, at: Duration) {
        self.timeline().phases.push((phase, at, None));
    }

    /// The phase that was entered last has ended.
    pub(crate) fn leave(&self, at: Duration) {
        let mut timeline = self.timeline();
        timeline.stalled = None;
        if let Some((_, since, took @ None)) = timeline.phases.last_mut() {
            *took = Some(at.saturating_sub(*since));
        }
    }

    /// Why the phase waits, or that it goes on. Answers the phase where that is news.
    pub(crate) fn stall(&self, reason: Option<String>) -> Option<RecoveryPhase> {
        let mut timeline = self.timeline();
        let news = timeline.stalled != reason;
        timeline.stalled = reason;
        timeline.phases.last().filter(|_| news).map(|(phase, ..)| *phase)
    }

    /// How many transactions may begin.
    pub(crate) fn rate(&self, rate: RateStatus) {
        self.timeline().rate = Some(rate);
    }

    /// How far the copies are, and where copies are lacking. What has changed is logged.
    pub(crate) fn show_copies(&self, copies: Vec<CopyProgress>, degraded: Vec<String>) {
        let mut timeline = self.timeline();
        if timeline.degraded != degraded {
            match degraded.is_empty() {
                true => tracing::info!("every copy is there"),
                false => tracing::warn!(degraded = degraded.join("; "), "copies are lacking"),
            }
        }
        (timeline.copies, timeline.degraded) = (copies, degraded);
    }

    pub(crate) fn status(&self) -> Status {
        let timeline = self.timeline();
        let phase = timeline.phases.last().map_or(STANDBY, |(phase, ..)| phase.as_str());
        Status {
            epoch: timeline.epoch,
            phase: phase.to_owned(),
            stalled: timeline.stalled.clone(),
            rate: timeline.rate.clone(),
            copies: timeline.copies.clone(),
            degraded: timeline.degraded.clone(),
            phases: timeline
                .phases
                .iter()
                .map(|(phase, since, took)| PhaseTime {
                    name: phase.as_str().to_owned(),
                    started_ms: ms(*since),
                    duration_ms: took.map(ms),
                })
                .collect(),
        }
    }

    /// The phases that have ended.
    pub(crate) fn durations(&self) -> Vec<PhaseDuration> {
        let timeline = self.timeline();
        let ended = timeline.phases.iter().filter_map(|(name, _, took)| {
            Some(PhaseDuration { name: *name, duration_ms: ms((*took)?) })
        });
        ended.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_tells_phases_with_times() {
        let progress = Progress::default();
        assert_eq!(progress.status().phase, STANDBY);
        progress.appointed(Epoch(7));
        progress.enter(RecoveryPhase::ReadingLayout, Duration::from_millis(1));
        progress.leave(Duration::from_millis(5));
        progress.enter(RecoveryPhase::Locking, Duration::from_millis(5));
        assert!(progress.stall(Some("no logs".to_owned())).is_some());
        assert_eq!(progress.stall(Some("no logs".to_owned())), None);
        let status = progress.status();
        assert_eq!((status.epoch, status.phase.as_str()), (Epoch(7), "locking"));
        assert_eq!(status.stalled.as_deref(), Some("no logs"));
        let times: Vec<_> = status.phases.iter().map(|p| (p.started_ms, p.duration_ms)).collect();
        assert_eq!(times, [(1, Some(4)), (5, None)]);
        assert_eq!(progress.durations().len(), 1);
        progress.leave(Duration::from_millis(9));
        assert_eq!(progress.status().stalled, None);
    }
}
