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
    #[error("the transaction is older than the window")]
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
    /// The cluster refuses it, now and later.
    #[error("{0}")]
    Refused(Box<Problem>),
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Problem {
        let code = match &error {
            ClientError::Unavailable { .. } | ClientError::NoStorage { .. } => ErrorCode::NotReady,
            ClientError::Conflict => ErrorCode::Conflict,
            ClientError::TooOld => ErrorCode::TransactionTooOld,
            ClientError::CommitUnknownResult(_) => ErrorCode::CommitUnknownResult,
            ClientError::Refused(problem) => return (**problem).clone(),
        };
        Problem::new(code, error.to_string())
    }
}
