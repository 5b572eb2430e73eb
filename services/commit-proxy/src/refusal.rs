//! Why a request to the proxy is refused.

use plinth_api::resolver::Verdict;
use plinth_api::{ErrorCode, Problem, TenureError};
use plinth_types::Epoch;

/// Why a request is refused. But for [`Refusal::Unknown`] it had no effect and never will.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not of the epoch served.
    #[error(transparent)]
    Tenure(#[from] TenureError),
    /// The assignment is not one that commits can go on with.
    #[error("{problem}")]
    Assignment {
        /// What is wrong.
        problem: String,
    },
    /// The epoch is not open to clients yet.
    #[error("epoch {0} does not accept commits yet: its recovery goes on; try again shortly")]
    Closed(Epoch),
    /// The queue is full.
    #[error("{waiting} requests wait already; slow down and try again")]
    Full {
        /// How many wait.
        waiting: usize,
    },
    /// So many may not begin.
    #[error(
        "{per_second} transactions a second may begin here, because the cluster can't keep up with \
         more (/v1/status says what lags), and others wait already: slow down and try again"
    )]
    Throttled {
        /// The rate.
        per_second: u64,
    },
    /// What it read was written since.
    #[error("a concurrent transaction wrote what this one read; try again with a new read version")]
    Conflict,
    /// It read too long ago.
    #[error("it read too long ago for conflicts to be detected; try again with a new read version")]
    TooOld,
    /// The epoch ended before any log was given the transaction.
    #[error("not committed: {reason}; try again")]
    GivenUp {
        /// Why.
        reason: String,
    },
    /// The epoch ended after some log may have been given the transaction.
    #[error("it is not known whether the transaction was committed: {reason}")]
    Unknown {
        /// Why.
        reason: String,
    },
}

impl Refusal {
    /// What a verdict refuses; nothing where it commits.
    #[must_use]
    pub fn of_verdict(verdict: Verdict) -> Option<Refusal> {
        match verdict {
            Verdict::Commit => None,
            Verdict::Conflict => Some(Refusal::Conflict),
            Verdict::TooOld => Some(Refusal::TooOld),
        }
    }

    /// The code that tells it to the caller.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Refusal::Tenure(error) => Problem::from(*error).code,
            Refusal::Assignment { .. } => ErrorCode::InvalidRequest,
            Refusal::Closed(_) => ErrorCode::NotReady,
            Refusal::Full { .. } | Refusal::Throttled { .. } => ErrorCode::Overloaded,
            Refusal::Conflict => ErrorCode::Conflict,
            Refusal::TooOld => ErrorCode::TransactionTooOld,
            Refusal::GivenUp { .. } => ErrorCode::PeerUnavailable,
            Refusal::Unknown { .. } => ErrorCode::CommitUnknownResult,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        Problem::new(refusal.code(), refusal.to_string())
    }
}
