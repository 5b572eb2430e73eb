//! What happened, as it happens: counts, latencies and the longest time without a success.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::Operation;

/// Latencies are kept in microseconds to three significant digits, up to this one.
const MAX_LATENCY_US: u64 = 120_000_000;

/// Counts of one kind of operation.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) latencies: Histogram<u64>,
    pub(crate) errors: BTreeMap<String, u64>,
}

/// Everything since it was made or reset.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    pub(crate) operations: BTreeMap<Operation, Counts>,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) since: Instant,
    last_success: Instant,
    longest_gap: Duration,
}

impl Recorder {
    pub(crate) fn new(now: Instant) -> Recorder {
        Recorder {
            operations: BTreeMap::new(),
            sent: 0,
            answered: 0,
            since: now,
            last_success: now,
            longest_gap: Duration::ZERO,
        }
    }

    /// Forgets what was counted; what is under way stays under way.
    pub(crate) fn reset(&mut self, now: Instant) {
        let under_way = self.under_way();
        *self = Recorder { sent: under_way, last_success: self.last_success, ..Recorder::new(now) };
    }

    pub(crate) fn sent(&mut self) {
        self.sent += 1;
    }

    /// Requests without an answer so far.
    pub(crate) fn under_way(&self) -> u64 {
        self.sent - self.answered
    }

    pub(crate) fn succeeded(&mut self, operation: Operation, took: Duration, now: Instant) {
        self.answered += 1;
        self.longest_gap = self.longest_gap(now);
        self.last_success = now;
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(counts) = self.counts(operation) {
            counts.latencies.saturating_record(took);
        }
    }

    pub(crate) fn failed(&mut self, operation: Operation, code: String) {
        self.answered += 1;
        if let Some(counts) = self.counts(operation) {
            *counts.errors.entry(code).or_default() += 1;
        }
    }

    /// The longest time without a success, the time since the last one included.
    pub(crate) fn longest_gap(&self, now: Instant) -> Duration {
        self.longest_gap.max(now.saturating_duration_since(self.last_success.max(self.since)))
    }

    fn counts(&mut self, operation: Operation) -> Option<&mut Counts> {
        Some(match self.operations.entry(operation) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(empty) => {
                // The bounds are constants that the histogram takes.
                let latencies = Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).ok()?;
                empty.insert(Counts { latencies, errors: BTreeMap::new() })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_counts_from_the_start_and_to_now() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut recorder = Recorder::new(start);
        let success = |recorder: &mut Recorder, now| {
            recorder.sent();
            recorder.succeeded(Operation::Put, Duration::from_millis(1), now);
        };
        assert_eq!(recorder.longest_gap(at(5)), Duration::from_millis(5));
        success(&mut recorder, at(30));
        success(&mut recorder, at(40));
        assert_eq!(recorder.longest_gap(at(41)), Duration::from_millis(30));
        assert_eq!(recorder.longest_gap(at(90)), Duration::from_millis(50));
        recorder.sent();
        recorder.failed(Operation::Put, "timeout".to_owned());
        assert_eq!(recorder.longest_gap(at(100)), Duration::from_millis(60));
    }

    #[test]
    fn a_reset_keeps_what_is_under_way() {
        let start = Instant::now();
        let mut recorder = Recorder::new(start);
        recorder.sent();
        recorder.sent();
        recorder.succeeded(Operation::Get, Duration::from_millis(1), start);
        recorder.reset(start + Duration::from_secs(9));
        assert_eq!(recorder.under_way(), 1);
        assert!(recorder.operations.is_empty());
        // A gap before the reset is not counted again.
        assert_eq!(recorder.longest_gap(start + Duration::from_secs(10)), Duration::from_secs(1));
    }
}
