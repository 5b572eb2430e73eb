//! The sequencer's state: which versions have been handed out and which one was committed last.

use std::collections::BTreeMap;
use std::time::Duration;

use plinth_api::sequencer::{Assignment, CommitVersion, Status};
use plinth_api::{ErrorCode, Problem, Taken, Tenure, TenureError};
use plinth_types::{
    Epoch, Incarnation, MAX_VERSION_STEP, VERSION_GAP, VERSIONS_PER_SECOND, Version,
};

use crate::Limits;

/// Why a request is refused; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not of the epoch served.
    #[error(transparent)]
    Tenure(#[from] TenureError),
    /// The assignment's versions are not above everything handed out before.
    #[error(
        "first_version {first} must be above recovery_version {recovery} and above {handed_out}, \
         which was handed out before"
    )]
    Backwards {
        /// The first version of the assignment.
        first: Version,
        /// Its RV.
        recovery: Version,
        /// The newest version handed out in an earlier epoch.
        handed_out: Version,
    },
    /// The same director assigns the same epoch with other versions.
    #[error("epoch {0} is assigned already, with other versions")]
    Reassigned(Epoch),
    /// Requests are numbered from 1.
    #[error("request numbers start at 1")]
    Unnumbered,
    /// The answer to this request is no longer kept.
    #[error("request {request} is too far behind request {newest}, its answer is not kept")]
    Forgotten {
        /// The request's number.
        request: u64,
        /// The newest number of the same proxy.
        newest: u64,
    },
    /// More proxies ask than an epoch can have.
    #[error("{0} proxies have asked already, which is the limit")]
    Proxies(usize),
    /// Nothing is left below the next epoch's versions until something is committed.
    #[error("no version is left below {0} until a batch is committed")]
    Exhausted(Version),
    /// The version reported as committed was never handed out.
    #[error("version {reported} was never handed out, the newest one is {handed_out}")]
    NeverHandedOut {
        /// The version reported.
        reported: Version,
        /// The newest version handed out.
        handed_out: Version,
    },
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let code = match refusal {
            Refusal::Tenure(error) => return error.into(),
            Refusal::Backwards { .. }
            | Refusal::Unnumbered
            | Refusal::Forgotten { .. }
            | Refusal::NeverHandedOut { .. } => ErrorCode::InvalidRequest,
            Refusal::Reassigned(_) => ErrorCode::Superseded,
            Refusal::Proxies(_) | Refusal::Exhausted(_) => ErrorCode::Overloaded,
        };
        Problem::new(code, refusal.to_string())
    }
}

/// The answers given to one proxy, by request number.
#[derive(Clone, Debug, Default)]
struct Answers {
    newest: u64,
    kept: BTreeMap<u64, CommitVersion>,
}

/// What belongs to the epoch served.
#[derive(Clone, Debug)]
struct Reign {
    recovery_version: Version,
    first_version: Version,
    /// When the newest version was handed out; none before the first.
    handed_out_at: Option<Duration>,
    proxies: BTreeMap<Incarnation, Answers>,
}

/// The state.
#[derive(Clone, Debug)]
pub struct Sequencer {
    limits: Limits,
    tenure: Tenure,
    reign: Option<Reign>,
    /// The newest version handed out, or RV before the epoch's first.
    handed_out: Version,
    committed: Version,
}

impl Sequencer {
    /// Serves no epoch yet.
    #[must_use]
    pub fn new(limits: Limits) -> Sequencer {
        Sequencer {
            limits,
            tenure: Tenure::default(),
            reign: None,
            handed_out: Version::ZERO,
            committed: Version::ZERO,
        }
    }

    /// Takes up an epoch. A director may repeat its assignment; that changes nothing.
    ///
    /// # Errors
    /// The epoch is not above the one served, or its versions would come twice.
    pub fn assign(&mut self, assignment: &Assignment) -> Result<(), Refusal> {
        let Assignment { epoch, director, recovery_version, first_version } = *assignment;
        let mut tenure = self.tenure;
        if tenure.take(epoch, director)? == Taken::Again {
            let same = self.reign.as_ref().is_some_and(|reign| {
                (reign.recovery_version, reign.first_version) == (recovery_version, first_version)
            });
            return if same { Ok(()) } else { Err(Refusal::Reassigned(epoch)) };
        }
        if first_version <= recovery_version || first_version <= self.handed_out {
            return Err(Refusal::Backwards {
                first: first_version,
                recovery: recovery_version,
                handed_out: self.handed_out,
            });
        }
        self.tenure = tenure;
        self.handed_out = recovery_version;
        self.committed = recovery_version;
        self.reign = Some(Reign {
            recovery_version,
            first_version,
            handed_out_at: None,
            proxies: BTreeMap::new(),
        });
        Ok(())
    }

    /// Hands out the next version, or repeats what this request was answered before. `now` is
    /// monotonic, from any origin.
    ///
    /// # Errors
    /// The request is of another epoch or beyond a limit.
    pub fn commit_version(
        &mut self,
        now: Duration,
        epoch: Epoch,
        proxy: Incarnation,
        request: u64,
    ) -> Result<CommitVersion, Refusal> {
        self.tenure.serves(epoch)?;
        let Some(reign) = &mut self.reign else {
            return Err(TenureError::NotBegun { asked: epoch, serving: Epoch::ZERO }.into());
        };
        if request == 0 {
            return Err(Refusal::Unnumbered);
        }
        let known = reign.proxies.len();
        if known >= self.limits.proxies && !reign.proxies.contains_key(&proxy) {
            return Err(Refusal::Proxies(known));
        }
        let answers = reign.proxies.entry(proxy).or_default();
        if let Some(answer) = answers.kept.get(&request) {
            return Ok(*answer);
        }
        let forgotten = answers.newest.saturating_sub(self.limits.kept_answers);
        if request <= forgotten {
            return Err(Refusal::Forgotten { request, newest: answers.newest });
        }
        let prev = self.handed_out;
        let version = match reign.handed_out_at {
            None => reign.first_version,
            Some(last) => {
                let end = reign.first_version.max(self.committed).plus(VERSION_GAP);
                let room = (end.0 - 1).saturating_sub(prev.0);
                if room == 0 {
                    return Err(Refusal::Exhausted(end));
                }
                prev.plus(step(now.saturating_sub(last)).min(room))
            }
        };
        assert!(version > prev, "versions only go up: {version} after {prev}");
        reign.handed_out_at = Some(now);
        self.handed_out = version;
        let answer = CommitVersion { prev, version };
        answers.newest = answers.newest.max(request);
        answers.kept.insert(request, answer);
        let forgotten = answers.newest.saturating_sub(self.limits.kept_answers);
        answers.kept = answers.kept.split_off(&(forgotten + 1));
        Ok(answer)
    }

    /// Notes a batch as committed, and answers with the latest committed version.
    ///
    /// # Errors
    /// The report is of another epoch or of a version that was never handed out.
    pub fn report(&mut self, epoch: Epoch, version: Version) -> Result<Version, Refusal> {
        self.tenure.serves(epoch)?;
        if version > self.handed_out {
            let (reported, handed_out) = (version, self.handed_out);
            return Err(Refusal::NeverHandedOut { reported, handed_out });
        }
        self.committed = self.committed.max(version);
        Ok(self.committed)
    }

    /// The latest committed version.
    ///
    /// # Errors
    /// The request is of another epoch.
    pub fn committed(&self, epoch: Epoch) -> Result<Version, Refusal> {
        self.tenure.serves(epoch)?;
        Ok(self.committed)
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            epoch: self.tenure.epoch(),
            handed_out: self.handed_out,
            committed: self.committed,
        }
    }
}

/// The step that the clock asks for: at least 1, at most [`MAX_VERSION_STEP`].
fn step(elapsed: Duration) -> u64 {
    let versions = elapsed.as_micros().saturating_mul(u128::from(VERSIONS_PER_SECOND)) / 1_000_000;
    u64::try_from(versions).unwrap_or(u64::MAX).clamp(1, MAX_VERSION_STEP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RV: Version = Version(500);
    const FIRST: Version = Version(500 + VERSION_GAP);
    const DIRECTOR: Incarnation = Incarnation(9);
    const PROXY: Incarnation = Incarnation(1);
    const EPOCH: Epoch = Epoch(4);

    fn assignment(epoch: Epoch, recovery_version: Version) -> Assignment {
        let first_version = recovery_version.plus(VERSION_GAP);
        Assignment { epoch, director: DIRECTOR, recovery_version, first_version }
    }

    fn serving() -> Sequencer {
        let mut sequencer = Sequencer::new(Limits { proxies: 3, kept_answers: 8 });
        sequencer.assign(&assignment(EPOCH, RV)).unwrap();
        sequencer
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_batch_follows_the_recovery_version() {
        let mut sequencer = serving();
        assert_eq!(sequencer.committed(EPOCH), Ok(RV));
        let first = sequencer.commit_version(at(7), EPOCH, PROXY, 1);
        assert_eq!(first, Ok(CommitVersion { prev: RV, version: FIRST }));
        let second = sequencer.commit_version(at(9), EPOCH, PROXY, 2);
        assert_eq!(second, Ok(CommitVersion { prev: FIRST, version: FIRST.plus(2_000) }));
    }

    #[test]
    fn a_repeated_request_gets_the_same_answer_until_it_is_forgotten() {
        let mut sequencer = serving();
        let first = sequencer.commit_version(at(0), EPOCH, PROXY, 1).unwrap();
        let other = sequencer.commit_version(at(0), EPOCH, Incarnation(2), 1).unwrap();
        assert_ne!(first, other);
        assert_eq!(sequencer.commit_version(at(90), EPOCH, PROXY, 1), Ok(first));
        for request in 2..=9 {
            sequencer.commit_version(at(90), EPOCH, PROXY, request).unwrap();
        }
        let forgotten = sequencer.commit_version(at(90), EPOCH, PROXY, 1);
        assert_eq!(forgotten, Err(Refusal::Forgotten { request: 1, newest: 9 }));
        assert_eq!(sequencer.commit_version(at(90), EPOCH, PROXY, 0), Err(Refusal::Unnumbered));
    }

    #[test]
    fn requests_may_overtake_each_other() {
        let mut sequencer = serving();
        let second = sequencer.commit_version(at(0), EPOCH, PROXY, 2).unwrap();
        let first = sequencer.commit_version(at(0), EPOCH, PROXY, 1).unwrap();
        assert_eq!(first.prev, second.version);
    }

    #[test]
    fn other_epochs_are_refused() {
        let mut sequencer = serving();
        let stale = sequencer.commit_version(at(0), Epoch(3), PROXY, 1);
        assert!(matches!(stale, Err(Refusal::Tenure(TenureError::Over { .. }))));
        assert!(sequencer.report(Epoch(5), RV).is_err());
        assert!(sequencer.committed(Epoch(3)).is_err());
        let rival = Assignment { director: Incarnation(8), ..assignment(EPOCH, RV) };
        assert!(matches!(
            sequencer.assign(&rival),
            Err(Refusal::Tenure(TenureError::OtherDirector { .. }))
        ));
        assert_eq!(sequencer.assign(&assignment(EPOCH, RV)), Ok(()));
        assert_eq!(
            sequencer.assign(&assignment(EPOCH, RV.plus(1))),
            Err(Refusal::Reassigned(EPOCH))
        );
    }

    #[test]
    fn a_new_epoch_starts_above_everything_handed_out() {
        let mut sequencer = serving();
        let handed_out = sequencer.commit_version(at(0), EPOCH, PROXY, 1).unwrap().version;
        let low = Assignment { first_version: handed_out, ..assignment(EPOCH.next(), RV) };
        assert!(matches!(sequencer.assign(&low), Err(Refusal::Backwards { .. })));
        assert_eq!(sequencer.status().epoch, EPOCH);
        sequencer.assign(&assignment(EPOCH.next(), handed_out)).unwrap();
        assert_eq!(sequencer.committed(EPOCH.next()), Ok(handed_out));
    }

    #[test]
    fn only_versions_handed_out_can_be_committed_and_the_latest_stays() {
        let mut sequencer = serving();
        assert!(sequencer.report(EPOCH, FIRST).is_err());
        let first = sequencer.commit_version(at(0), EPOCH, PROXY, 1).unwrap().version;
        let second = sequencer.commit_version(at(5), EPOCH, PROXY, 2).unwrap().version;
        assert_eq!(sequencer.report(EPOCH, second), Ok(second));
        assert_eq!(sequencer.report(EPOCH, first), Ok(second));
        assert_eq!(sequencer.committed(EPOCH), Ok(second));
    }

    #[test]
    fn versions_stay_below_the_next_epochs() {
        let mut sequencer = Sequencer::new(Limits { proxies: 1, kept_answers: 1_000 });
        sequencer.assign(&assignment(EPOCH, RV)).unwrap();
        let mut now = Duration::ZERO;
        let mut newest = Version::ZERO;
        let mut refused = false;
        for request in 1..=40 {
            now += Duration::from_secs(60);
            match sequencer.commit_version(now, EPOCH, PROXY, request) {
                Ok(answer) => newest = answer.version,
                Err(refusal) => {
                    assert_eq!(refusal, Refusal::Exhausted(FIRST.plus(VERSION_GAP)));
                    refused = true;
                }
            }
        }
        assert!(refused);
        assert_eq!(newest, FIRST.plus(VERSION_GAP - 1));
        sequencer.report(EPOCH, newest).unwrap();
        assert!(sequencer.commit_version(now, EPOCH, PROXY, 41).unwrap().version > newest);
    }

    #[test]
    fn the_number_of_proxies_is_bounded() {
        let mut sequencer = serving();
        for proxy in 1..=3 {
            sequencer.commit_version(at(0), EPOCH, Incarnation(proxy), 1).unwrap();
        }
        let fourth = sequencer.commit_version(at(0), EPOCH, Incarnation(4), 1);
        assert_eq!(fourth, Err(Refusal::Proxies(3)));
    }

    proptest! {
        #[test]
        fn versions_form_one_chain(steps in proptest::collection::vec((0u64..10_000_000, 1u64..4, any::<bool>()), 1..60)) {
            let mut sequencer = Sequencer::new(Limits { proxies: 10, kept_answers: 100 });
            sequencer.assign(&assignment(EPOCH, RV)).unwrap();
            let (mut now, mut prev) = (Duration::ZERO, RV);
            let mut requests = [0u64; 4];
            for (index, (micros, proxy, report)) in steps.into_iter().enumerate() {
                now += Duration::from_micros(micros);
                let slot = &mut requests[usize::try_from(proxy).unwrap()];
                *slot += 1;
                let Ok(answer) = sequencer.commit_version(now, EPOCH, Incarnation(proxy), *slot) else {
                    prop_assert_eq!(sequencer.status().handed_out, FIRST.max(sequencer.status().committed).plus(VERSION_GAP - 1));
                    break;
                };
                prop_assert_eq!(answer.prev, prev);
                prop_assert!(answer.version > prev);
                prop_assert!(index == 0 || answer.version.0 - prev.0 <= MAX_VERSION_STEP);
                prop_assert!(answer.version < FIRST.max(sequencer.status().committed).plus(VERSION_GAP));
                prev = answer.version;
                if report {
                    prop_assert_eq!(sequencer.report(EPOCH, prev), Ok(prev));
                }
            }
        }
    }
}
