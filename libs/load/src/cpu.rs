//! Processor time of processes, as Linux accounts for it.

use std::collections::BTreeMap;
use std::time::Duration;

/// The unit of `/proc/*/stat`, which is the same on every architecture that Linux still has.
const TICK: Duration = Duration::from_millis(10);

/// Measures how much processor time some processes take, all their threads together, to 10 ms each.
#[derive(Clone, Debug)]
pub struct CpuMeter {
    /// Where each stood at the start.
    start: BTreeMap<u32, Duration>,
    /// The newest reading: of a process that has ended since, its last one.
    last: BTreeMap<u32, Duration>,
}

impl CpuMeter {
    /// Begins to measure. A process that is not there, or not on Linux, counts nothing.
    #[must_use]
    pub fn start(processes: &[u32]) -> CpuMeter {
        let start: BTreeMap<u32, Duration> =
            processes.iter().filter_map(|process| Some((*process, used(*process)?))).collect();
        CpuMeter { last: start.clone(), start }
    }

    /// What they took since the start; none where none of them could be measured.
    pub fn read(&mut self) -> Option<Duration> {
        for (process, last) in &mut self.last {
            if let Some(now) = used(*process) {
                *last = now;
            }
        }
        let taken = |(process, last): (&u32, &Duration)| last.saturating_sub(self.start[process]);
        (!self.last.is_empty()).then(|| self.last.iter().map(taken).sum())
    }
}

/// User and system time of a process so far.
fn used(process: u32) -> Option<Duration> {
    parse(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// Fields 14 and 15, counted from 1. The second one is the command in parentheses, which may
/// contain anything.
fn parse(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.checked_add(system)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 99 0 0 0 250 31 0 0 20 0 9 0 80 1 2 3";
        assert_eq!(parse(stat), Some(Duration::from_millis(2_810)));
        assert_eq!(parse("7 (a) S 1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn what_is_not_there_counts_nothing() {
        assert_eq!(CpuMeter::start(&[u32::MAX]).read(), None);
        assert!(CpuMeter::start(&[std::process::id()]).read().is_some());
    }
}
