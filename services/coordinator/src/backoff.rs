//! How long the next appointment waits: not at all at first, and longer and longer only while
//! epochs keep failing without having become ready.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// How long to wait before an epoch is begun, after `failed` epochs in a row that never became
/// ready. `random` spreads the delay over three quarters to all of it, so that clusters that failed
/// together do not try together.
#[must_use]
pub(crate) fn delay(failed: u64, random: u64) -> Duration {
    let Some(doublings) = failed.checked_sub(2) else { return Duration::ZERO };
    let factor = 1u32.checked_shl(u32::try_from(doublings).unwrap_or(u32::MAX)).unwrap_or(u32::MAX);
    let full = FIRST.saturating_mul(factor).min(LONGEST);
    full - full.mul_f64((random % 1_000) as f64 / 4_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_from_a_second_to_thirty() {
        let seconds: Vec<u64> = (0..=9).map(|failed| delay(failed, 0).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(delay(u64::MAX, 0), LONGEST);
    }

    #[test]
    fn jitter_takes_at_most_a_quarter() {
        for failed in 2..12 {
            let full = delay(failed, 0);
            for random in [1, 500, 999, u64::MAX] {
                let jittered = delay(failed, random);
                assert!(jittered <= full && jittered >= full.mul_f64(0.75), "{failed} {random}");
            }
        }
    }
}
