//! What a log refuses, and how the wire says it.

use plinth_api::{ErrorCode, Problem};
use plinth_types::{Epoch, Tag, Version};

/// Why a request is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A later epoch has locked the log.
    #[error("epoch {asked} is over: epoch {locked} has locked this log")]
    Stale {
        /// The request's epoch.
        asked: Epoch,
        /// The epoch that locked the log.
        locked: Epoch,
    },
    /// Another director locked the log for the same epoch.
    #[error("another director has locked this log for epoch {epoch}")]
    OtherDirector {
        /// The epoch.
        epoch: Epoch,
    },
    /// The log does not serve this epoch yet.
    #[error(
        "this log does not serve epoch {asked}: it is locked by epoch {locked} and not assigned to it"
    )]
    NotOpen {
        /// The request's epoch.
        asked: Epoch,
        /// The epoch that locked the log.
        locked: Epoch,
    },
    /// The log lacks data that the assignment takes for granted.
    #[error(
        "this log ends at {end}, below the recovery version {recovery_version}, and was given nothing to copy from"
    )]
    Behind {
        /// The newest version that it holds.
        end: Version,
        /// RV.
        recovery_version: Version,
    },
    /// Another assignment of the epoch was taken up.
    #[error("epoch {epoch} was assigned to this log with another generation")]
    OtherGeneration {
        /// The epoch.
        epoch: Epoch,
    },
    /// The entry's versions do not fit in.
    #[error("an entry ({prev}, {version}] does not fit in: {reason}")]
    Misfit {
        /// The version before it.
        prev: Version,
        /// Its version.
        version: Version,
        /// Why not.
        reason: &'static str,
    },
    /// Too many entries wait, or too much is held.
    #[error("this log holds as much as it may: {what}")]
    Full {
        /// What there is too much of.
        what: &'static str,
    },
    /// The tag is not held here.
    #[error("this log does not hold tag {0}")]
    UnknownTag(Tag),
    /// What is asked for has been dropped.
    #[error("tag {tag} has been dropped up to {popped}, after every member of its team had it")]
    Dropped {
        /// The tag.
        tag: Tag,
        /// Dropped up to here.
        popped: Version,
    },
    /// A pop of what is not there yet.
    #[error("version {version} can't be popped: this log has only {durable}")]
    PopAhead {
        /// The version.
        version: Version,
        /// The newest durable version.
        durable: Version,
    },
    /// The configuration is older than the one kept.
    #[error("a newer configuration is kept already ({kept})")]
    OlderConfig {
        /// The stamp of the one kept.
        kept: String,
    },
    /// The configuration can't be written.
    #[error("the configuration can't be kept: {0}")]
    BadConfig(String),
    /// The directory's content is damaged.
    #[error("{0}")]
    Damaged(String),
    /// The log is starting.
    #[error("{0}")]
    Starting(&'static str),
}

impl Refusal {
    /// The code that says it on the wire.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Refusal::Stale { .. } => ErrorCode::StaleEpoch,
            Refusal::OtherDirector { .. }
            | Refusal::OtherGeneration { .. }
            | Refusal::OlderConfig { .. } => ErrorCode::Superseded,
            Refusal::NotOpen { .. } | Refusal::Starting(_) => ErrorCode::NotReady,
            Refusal::Misfit { .. } | Refusal::PopAhead { .. } | Refusal::BadConfig(_) => {
                ErrorCode::InvalidRequest
            }
            Refusal::Full { .. } => ErrorCode::Overloaded,
            Refusal::UnknownTag(_) => ErrorCode::NotFound,
            Refusal::Dropped { .. } => ErrorCode::TransactionTooOld,
            Refusal::Behind { .. } | Refusal::Damaged(_) => ErrorCode::Damaged,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let problem = Problem::new(refusal.code(), refusal.to_string());
        match refusal {
            Refusal::Stale { locked, .. } => problem.with_latest_epoch(locked),
            _ => problem,
        }
    }
}
