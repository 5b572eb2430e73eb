//! What users asked of the store and were told, as it is recorded and checked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plinth_api::gateway::{Change, ReadResult, Reading};
use plinth_types::{Version, Versionstamp};

use crate::Anomaly;

/// A point in the order in which the users, who share a clock, began and ended what they did.
pub type Moment = u64;

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was committed.
    Committed {
        /// At this version. Where it changed nothing, it read at this version.
        version: Version,
        /// At this place; not there where it changed nothing.
        stamp: Option<Versionstamp>,
    },
    /// It was not, and never will be.
    Refused(String),
    /// It may have been, or may still be.
    Unknown(String),
}

/// Reads, all of which were answered, then changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// What was read, with what was asked for.
    pub reads: Vec<(Reading, ReadResult)>,
    /// What was changed, in order.
    pub changes: Vec<Change>,
}

/// A transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction {
    /// Its number, which no other one has.
    pub id: u64,
    /// The workload that it belongs to.
    pub workload: &'static str,
    /// Before it took effect.
    pub began: Moment,
    /// After its fate was told.
    pub ended: Moment,
    /// Its fate.
    pub fate: Fate,
    /// Whether its fate was found out after its end: it may have taken effect later than that.
    pub is_late: bool,
    /// The key that it writes its versionstamp to, if it changes anything.
    pub mark: Option<String>,
    /// What it did, in order.
    pub steps: Vec<Step>,
}

impl Transaction {
    /// Every read, in order.
    pub fn reads(&self) -> impl Iterator<Item = &(Reading, ReadResult)> {
        self.steps.iter().flat_map(|step| &step.reads)
    }

    /// Every change, in order.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.steps.iter().flat_map(|step| &step.changes)
    }

    /// Whether it is known to have been committed.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        matches!(self.fate, Fate::Committed { .. })
    }

    /// Whether it is known not to have been.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.fate, Fate::Refused(_))
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Transaction { id, workload, began, ended, fate, .. } = self;
        write!(f, "T{id} of {workload} (moments {began} to {ended}, ")?;
        match fate {
            Fate::Committed { version, stamp: None } => write!(f, "read at {version})"),
            Fate::Committed { stamp: Some(stamp), .. } => {
                write!(f, "committed at {}.{})", stamp.version, stamp.index)
            }
            Fate::Refused(why) => write!(f, "refused: {why})"),
            Fate::Unknown(why) => write!(f, "of unknown fate: {why})"),
        }
    }
}

#[derive(Default)]
struct Record {
    moment: Moment,
    transactions: Vec<Transaction>,
    complaints: Vec<Anomaly>,
}

/// Where all users note what they do. A clone is the same one.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<Record>>);

impl Journal {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present, which no other event shares.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let mut record = self.record();
        record.moment += 1;
        record.moment
    }

    /// Notes a transaction.
    pub fn note(&self, transaction: Transaction) {
        self.record().transactions.push(transaction);
    }

    /// Notes what a user has seen to be wrong at once.
    pub fn complain(&self, anomaly: Anomaly) {
        self.record().complaints.push(anomaly);
    }

    /// What users have seen to be wrong at once.
    #[must_use]
    pub fn complaints(&self) -> Vec<Anomaly> {
        self.record().complaints.clone()
    }

    /// Everything so far, in the order in which it began.
    #[must_use]
    pub fn transactions(&self) -> Vec<Transaction> {
        let mut transactions = self.record().transactions.clone();
        transactions.sort_by_key(|transaction| transaction.began);
        transactions
    }

    /// How many transactions that change something were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        let is_commit = |transaction: &&Transaction| {
            matches!(transaction.fate, Fate::Committed { stamp: Some(_), .. })
        };
        self.record().transactions.iter().filter(is_commit).count()
    }
}

/// Settles what became of every transaction by the marks that were there when all was over: whoever
/// changed something has left one with its versionstamp, and nobody else has. Answers where that is
/// not what users were told.
pub fn settle(
    transactions: &mut [Transaction],
    marks: &BTreeMap<String, Versionstamp>,
) -> Vec<Anomaly> {
    let mut wrong = Vec::new();
    for transaction in transactions {
        let Some(mark) = &transaction.mark else { continue };
        let found = marks.get(mark).copied();
        let settled = match (&transaction.fate, found) {
            (Fate::Unknown(_), Some(stamp)) => {
                Fate::Committed { version: stamp.version, stamp: Some(stamp) }
            }
            (Fate::Unknown(why), None) => Fate::Refused(format!("found out later; {why}")),
            (Fate::Committed { .. }, None) => {
                wrong.push(Anomaly::new("acknowledged is there", format!("{transaction} is gone")));
                continue;
            }
            (Fate::Committed { stamp, .. }, Some(there)) if *stamp != Some(there) => {
                let seen = format!("{transaction} has the versionstamp {there}");
                wrong.push(Anomaly::new("versionstamps are told", seen));
                continue;
            }
            (Fate::Refused(_), Some(there)) => {
                let seen = format!("{transaction} was committed at {there}");
                wrong.push(Anomaly::new("refused is not there", seen));
                continue;
            }
            (Fate::Committed { .. }, Some(_)) | (Fate::Refused(_), None) => continue,
        };
        transaction.fate = settled;
        transaction.is_late = true;
    }
    wrong
}
