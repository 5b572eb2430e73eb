//! How a transaction can fail.

use plinth_api::{ErrorCode, Problem};
use plinth_types::{Key, Version};

/// Why a read or a commit did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The cluster did not serve it before the deadline. It had no effect.
    #[error("not served within {within_ms} ms: {detail}")]
    Unavailable {
        /// The time given.
        within_ms: u64,
        /// The last thing that was in the way.
        detail: String,
    },
    /// A concurrent transaction wrote what this one read.
    #[error("a concurrent transaction wrote what this one read")]
    Conflict,
    /// The transaction read at a version older than the window.
    #[error("the transaction is older than the window of 5 s")]
    TooOld,
    /// It is not known whether the commit took effect.
    #[error("it is not known whether the commit took effect: {0}")]
    CommitUnknownResult(String),
    /// The layout has no storage for a key.
    #[error("no storage holds {key} at version {version}")]
    NoStorage {
        /// The key.
        key: Key,
        /// The version.
        version: Version,
    },
    /// Something is larger than a limit.
    #[error("{what} has {actual} bytes; the limit is {limit}")]
    Limit {
        /// What.
        what: &'static str,
        /// Its size, in bytes.
        actual: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// There are more of something than a limit allows.
    #[error("{what}: {actual}; the limit is {limit}")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many.
        actual: usize,
        /// The limit.
        limit: usize,
    },
    /// A write names a key of the system.
    #[error("keys from \\xff on belong to the system: use another key")]
    SystemKey,
    /// A range ends before it begins.
    #[error("the range ends before it begins")]
    InvertedRange,
    /// A key or value is too short for a versionstamp at that place.
    #[error("a versionstamp needs ten bytes from the offset on")]
    StampPlace,
    /// What is read depends on a versionstamp that the commit will make.
    #[error("what is read depends on the versionstamp of this transaction, which is not known yet")]
    Unreadable,
    /// The transaction has been committed or given up.
    #[error("the transaction has ended")]
    Ended,
    /// The cluster refuses it, now and later.
    #[error("{0}")]
    Refused(Box<Problem>),
}

impl ClientError {
    /// Whether the transaction may succeed when it is run again from its reads on. Nothing of the
    /// failed attempt has taken effect.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, ClientError::Conflict | ClientError::TooOld)
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Problem {
        let code = match &error {
            ClientError::Unavailable { .. } | ClientError::NoStorage { .. } => ErrorCode::NotReady,
            ClientError::Conflict => ErrorCode::Conflict,
            ClientError::TooOld => ErrorCode::TransactionTooOld,
            ClientError::CommitUnknownResult(_) => ErrorCode::CommitUnknownResult,
            ClientError::Limit { .. } | ClientError::TooMany { .. } => ErrorCode::LimitExceeded,
            ClientError::SystemKey => ErrorCode::SystemKey,
            ClientError::InvertedRange | ClientError::StampPlace | ClientError::Unreadable => {
                ErrorCode::InvalidRequest
            }
            ClientError::Ended => ErrorCode::TransactionEnded,
            ClientError::Refused(problem) => return (**problem).clone(),
        };
        let problem = Problem::new(code, error.to_string());
        match error {
            ClientError::Limit { actual, limit, .. } => {
                problem.with("limit_bytes", limit).with("actual_bytes", actual)
            }
            ClientError::TooMany { actual, limit, .. } => {
                problem.with("limit", limit).with("actual", actual)
            }
            _ => problem,
        }
    }
}

/// An error that a transaction's body may end with. Where a [`ClientError`] that is worth another
/// attempt is at its root, [`Database::run`](crate::Database::run) runs the body again.
pub trait TransactionError: From<ClientError> {
    /// The client's error in it.
    fn client_error(&self) -> Option<&ClientError>;
}

impl TransactionError for ClientError {
    fn client_error(&self) -> Option<&ClientError> {
        Some(self)
    }
}
