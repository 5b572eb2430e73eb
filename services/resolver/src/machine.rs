//! The resolver's state: batches in the order of their chain, each decided once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use plinth_api::resolver::{Assignment, Footprint, Resolution, Status, Verdict};
use plinth_api::{ErrorCode, Problem, Taken, Tenure, TenureError};
use plinth_types::{Epoch, Version};

use crate::Limits;
use crate::conflict_set::ConflictSet;

/// Who waits for an answer; the driver gives each request its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The answer to a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whose it is.
    pub ticket: Ticket,
    /// The verdicts, or why there are none.
    pub result: Result<Vec<Verdict>, Refusal>,
}

/// Why a request is refused; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not of the epoch served.
    #[error(transparent)]
    Tenure(#[from] TenureError),
    /// A new epoch began while the batch waited for the one before it.
    #[error("epoch {0} has begun: the batch will never be decided")]
    Superseded(Epoch),
    /// The first version of the assignment is not above its RV.
    #[error("first_version {first} must be above recovery_version {recovery}")]
    Backwards {
        /// The first version.
        first: Version,
        /// RV.
        recovery: Version,
    },
    /// The same director assigns the same epoch with other versions.
    #[error("epoch {0} is assigned already, with other versions")]
    Reassigned(Epoch),
    /// A batch must be above the one before it.
    #[error("version {version} must be above prev {prev}")]
    Order {
        /// The version before.
        prev: Version,
        /// The version.
        version: Version,
    },
    /// The batch is not in the chain: another one follows the same version.
    #[error("batch ({prev}, {version}) is not in the chain of this epoch's batches")]
    Fork {
        /// The version before.
        prev: Version,
        /// The version.
        version: Version,
    },
    /// The batch was decided, and its verdicts are no longer kept.
    #[error("batch {version} was decided, but its verdicts are not kept: the newest is {newest}")]
    Forgotten {
        /// The version.
        version: Version,
        /// The newest batch decided.
        newest: Version,
    },
    /// Too many batches wait for one that has not come.
    #[error("{0} batches wait for the one that follows {1}")]
    Waiting(usize, Version),
    /// A transaction reads without saying at which version.
    #[error("transactions[{0}] has reads, so it needs a read_version")]
    NoReadVersion(usize),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let code = match refusal {
            Refusal::Tenure(error) => return error.into(),
            Refusal::Superseded(_) => ErrorCode::StaleEpoch,
            Refusal::Reassigned(_) => ErrorCode::Superseded,
            Refusal::Backwards { .. }
            | Refusal::Order { .. }
            | Refusal::Fork { .. }
            | Refusal::Forgotten { .. }
            | Refusal::NoReadVersion(_) => ErrorCode::InvalidRequest,
            Refusal::Waiting(..) => ErrorCode::Overloaded,
        };
        Problem::new(code, refusal.to_string())
    }
}

/// A batch that waits for the one before it.
#[derive(Clone, Debug)]
struct Waiting {
    version: Version,
    transactions: Vec<Footprint>,
    tickets: Vec<Ticket>,
}

/// Verdicts that may be asked for again.
#[derive(Clone, Debug)]
struct Decided {
    prev: Version,
    verdicts: Vec<Verdict>,
}

/// What belongs to the epoch served.
#[derive(Clone, Debug)]
struct Reign {
    recovery_version: Version,
    first_version: Version,
    window: u64,
    /// The newest batch decided; RV before the first.
    newest: Version,
    history: ConflictSet,
    /// By the version they wait for.
    waiting: BTreeMap<Version, Waiting>,
    /// By version, the newest ones.
    decided: BTreeMap<Version, Decided>,
}

/// The state.
#[derive(Clone, Debug)]
pub struct Resolver {
    limits: Limits,
    tenure: Tenure,
    reign: Option<Reign>,
}

impl Resolver {
    /// Serves no epoch yet.
    #[must_use]
    pub fn new(limits: Limits) -> Resolver {
        Resolver { limits, tenure: Tenure::default(), reign: None }
    }

    /// Takes up an epoch with an empty history, and refuses what waited in the one before. A
    /// director may repeat its assignment; that changes nothing.
    ///
    /// # Errors
    /// The epoch is not above the one served, or its versions are out of order.
    pub fn assign(&mut self, assignment: &Assignment) -> Result<Vec<Decision>, Refusal> {
        let (recovery, first) = (assignment.recovery_version, assignment.first_version);
        let mut tenure = self.tenure;
        if tenure.take(assignment.epoch, assignment.director)? == Taken::Again {
            let same = self.reign.as_ref().is_some_and(|reign| {
                (reign.recovery_version, reign.first_version) == (recovery, first)
            });
            return if same { Ok(vec![]) } else { Err(Refusal::Reassigned(assignment.epoch)) };
        }
        if first <= recovery {
            return Err(Refusal::Backwards { first, recovery });
        }
        self.tenure = tenure;
        let ended = self.reign.replace(Reign {
            recovery_version: recovery,
            first_version: first,
            window: assignment.window_versions,
            newest: recovery,
            history: ConflictSet::new(first),
            waiting: BTreeMap::new(),
            decided: BTreeMap::new(),
        });
        let waited = ended.into_iter().flat_map(|reign| reign.waiting.into_values());
        let refusal = Refusal::Superseded(assignment.epoch);
        Ok(waited
            .flat_map(|batch| batch.tickets)
            .map(|ticket| Decision { ticket, result: Err(refusal) })
            .collect())
    }

    /// Takes a batch. It and those that waited for it are decided at once; one that comes early
    /// waits; one that comes again gets the verdicts it got.
    pub fn resolve(&mut self, ticket: Ticket, batch: Resolution) -> Vec<Decision> {
        match self.try_resolve(ticket, batch) {
            Ok(decisions) => decisions,
            Err(refusal) => vec![Decision { ticket, result: Err(refusal) }],
        }
    }

    fn try_resolve(&mut self, ticket: Ticket, batch: Resolution) -> Result<Vec<Decision>, Refusal> {
        let Resolution { epoch, prev, version, transactions } = batch;
        self.tenure.serves(epoch)?;
        let Some(reign) = &mut self.reign else {
            return Err(TenureError::NotBegun { asked: epoch, serving: Epoch::ZERO }.into());
        };
        if version <= prev {
            return Err(Refusal::Order { prev, version });
        }
        if let Some(index) = transactions
            .iter()
            .position(|footprint| !footprint.reads.is_empty() && footprint.read_version.is_none())
        {
            return Err(Refusal::NoReadVersion(index));
        }
        if prev < reign.newest {
            return match reign.decided.get(&version) {
                Some(decided) if decided.prev == prev => {
                    Ok(vec![Decision { ticket, result: Ok(decided.verdicts.clone()) }])
                }
                Some(_) => Err(Refusal::Fork { prev, version }),
                None if version > reign.newest => Err(Refusal::Fork { prev, version }),
                None => Err(Refusal::Forgotten { version, newest: reign.newest }),
            };
        }
        let room = reign.waiting.len() < self.limits.waiting_batches;
        let newest = reign.newest;
        match reign.waiting.entry(prev) {
            Entry::Occupied(mut same) if same.get().version == version => {
                same.get_mut().tickets.push(ticket);
            }
            Entry::Occupied(_) => return Err(Refusal::Fork { prev, version }),
            Entry::Vacant(place) if room || prev == newest => {
                place.insert(Waiting { version, transactions, tickets: vec![ticket] });
            }
            Entry::Vacant(_) => {
                return Err(Refusal::Waiting(self.limits.waiting_batches, newest));
            }
        }
        let mut decisions = Vec::new();
        while let Some(next) = reign.waiting.remove(&reign.newest) {
            let verdicts = reign.decide(next.version, &next.transactions);
            decisions.extend(
                next.tickets
                    .into_iter()
                    .map(|ticket| Decision { ticket, result: Ok(verdicts.clone()) }),
            );
            reign.keep(next.version, verdicts, self.limits.kept_verdicts);
        }
        Ok(decisions)
    }

    /// The least version that a transaction of the batch with this version may have read at.
    #[must_use]
    pub fn oldest_at(&self, version: Version) -> Version {
        let reign = self.reign.as_ref();
        reign.map_or(Version::ZERO, |reign| reign.history.oldest().max(version.minus(reign.window)))
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let reign = self.reign.as_ref();
        Status {
            epoch: self.tenure.epoch(),
            version: reign.map_or(Version::ZERO, |reign| reign.newest),
            boundaries: reign.map_or(0, |reign| reign.history.boundaries() as u64),
        }
    }
}

impl Reign {
    /// Decides a batch: each transaction against the history and the winners before it in the same
    /// batch, whose writes bear a version above every read.
    fn decide(&mut self, version: Version, transactions: &[Footprint]) -> Vec<Verdict> {
        assert!(version > self.newest, "batches come in order: {version} after {}", self.newest);
        self.history.forget(version.minus(self.window));
        let oldest = self.history.oldest();
        transactions
            .iter()
            .map(|footprint| {
                let verdict = match footprint.read_version {
                    _ if footprint.reads.is_empty() => Verdict::Commit,
                    Some(read) if read < oldest => Verdict::TooOld,
                    // Nobody can have read what is not committed yet.
                    Some(read) if read >= version => Verdict::Conflict,
                    Some(read) => {
                        let written = |range| self.history.written_since(range, read);
                        if footprint.reads.iter().any(written) {
                            Verdict::Conflict
                        } else {
                            Verdict::Commit
                        }
                    }
                    None => Verdict::TooOld,
                };
                if verdict == Verdict::Commit {
                    for range in &footprint.writes {
                        self.history.insert(range, version);
                    }
                }
                verdict
            })
            .collect()
    }

    fn keep(&mut self, version: Version, verdicts: Vec<Verdict>, most: usize) {
        self.decided.insert(version, Decided { prev: self.newest, verdicts });
        self.newest = version;
        while self.decided.len() > most {
            self.decided.pop_first();
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
