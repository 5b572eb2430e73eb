//! How many transactions may begin: a bucket that fills at a rate. Pure.

use std::time::Duration;

/// A whole transaction, in the parts that are counted.
const WHOLE: u64 = 1_000_000;
/// The bucket holds what comes in within so many milliseconds, and one transaction at least: what
/// was not used for longer must not come in one burst.
const BURST_MS: u64 = 100;

/// The bucket; without a rate it never lacks anything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Throttle {
    per_second: Option<u64>,
    /// In millionths of a transaction.
    available: u64,
    filled_at: Duration,
}

impl Throttle {
    /// Sets the rate, at least 1 a second; none lets everything through. `now` never goes back.
    pub(crate) fn set(&mut self, now: Duration, per_second: Option<u64>) {
        self.fill(now);
        if self.per_second.is_none() {
            self.available = 0;
        }
        self.per_second = per_second.map(|rate| rate.max(1));
    }

    pub(crate) fn per_second(&self) -> Option<u64> {
        self.per_second
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.filled_at);
        self.filled_at = now;
        let Some(rate) = self.per_second else { return };
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        let most = (rate.saturating_mul(WHOLE) / 1_000).saturating_mul(BURST_MS).max(WHOLE);
        self.available = self.available.saturating_add(rate.saturating_mul(micros)).min(most);
    }

    /// How many may begin now.
    pub(crate) fn available(&mut self, now: Duration) -> u64 {
        self.fill(now);
        match self.per_second {
            Some(_) => self.available / WHOLE,
            None => u64::MAX,
        }
    }

    /// So many begin, which are available.
    pub(crate) fn take(&mut self, count: u64) {
        if self.per_second.is_some() {
            self.available = self.available.saturating_sub(count.saturating_mul(WHOLE));
        }
    }

    /// When one more may begin, if none may now.
    pub(crate) fn next(&self) -> Option<Duration> {
        let rate = self.per_second?;
        let missing = WHOLE.saturating_sub(self.available);
        Some(self.filled_at + Duration::from_micros(missing.div_ceil(rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn without_a_rate_everything_goes() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.available(at(0)), u64::MAX);
        throttle.take(1_000);
        assert_eq!((throttle.available(at(0)), throttle.next()), (u64::MAX, None));
    }

    #[test]
    fn as_many_begin_as_the_rate_says_and_no_burst_makes_up_for_silence() {
        let mut throttle = Throttle::default();
        throttle.set(at(0), Some(200));
        let mut begun = 0;
        for ms in 0..=1_000 {
            let available = throttle.available(at(ms));
            throttle.take(available);
            begun += available;
        }
        assert_eq!(begun, 200);
        assert_eq!(throttle.available(at(60_000)), 20, "a tenth of a second's worth");
        throttle.set(at(60_000), None);
        assert_eq!(throttle.available(at(60_000)), u64::MAX);
    }

    #[test]
    fn a_slow_rate_says_when_the_next_one_may_begin() {
        let mut throttle = Throttle::default();
        throttle.set(at(500), Some(2));
        assert_eq!((throttle.available(at(500)), throttle.next()), (0, Some(at(1_000))));
        assert_eq!(throttle.available(at(1_000)), 1);
        assert_eq!(throttle.available(at(9_000)), 1, "one at least, and no more");
    }
}
