//! What a storage refuses, and how the wire says it.

use plinth_api::{ErrorCode, Problem, TenureError};
use plinth_service::Failure;
use plinth_store::StoreError;
use plinth_system_config::EncodeError;
use plinth_types::{Epoch, Key, StoreId, Tag, Version};

/// Why a request is refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is not of the epoch served.
    #[error(transparent)]
    Tenure(#[from] TenureError),
    /// Its epoch is below one that this storage has seen, on its disk or in a request.
    #[error("epoch {asked} is over: this storage has seen epoch {seen}")]
    Over {
        /// The request's epoch.
        asked: Epoch,
        /// The newest epoch that it has seen.
        seen: Epoch,
    },
    /// An assignment that can't be.
    #[error("the assignment can't be: {0}")]
    Assignment(String),
    /// The same director assigns the same epoch with another generation.
    #[error("epoch {0} is assigned already, with another generation")]
    Reassigned(Epoch),
    /// The version has not arrived.
    #[error("version {asked} has not arrived at this storage, which is at {at}: ask again shortly")]
    Future {
        /// The version asked for.
        asked: Version,
        /// How far the storage is.
        at: Version,
    },
    /// The version is no longer readable, or never was.
    #[error(
        "version {asked} is not readable, the oldest that is is {oldest}: begin the transaction again"
    )]
    TooOld {
        /// The version asked for.
        asked: Version,
        /// The oldest readable version.
        oldest: Version,
    },
    /// The key is not held here.
    #[error("the shard of key {0:?} is not held here: read the layout again")]
    WrongShard(Key),
    /// The storage has no copy of the key that may be read.
    #[error("tag {0} is still being copied to this storage: ask a member of its team")]
    Joining(Tag),
    /// A member is assigned of whose tag there is only a part.
    #[error("only a part of tag {0} is here: this storage can't be a member of its team yet")]
    HalfCopy(Tag),
    /// A copy of a tag would begin while something else of it is being written.
    #[error("tag {0} is being written: its copy can't begin yet")]
    Writing(Tag),
    /// Another directory is asked for.
    #[error("this storage has directory {here}, not {asked}")]
    OtherStore {
        /// The directory that is asked for.
        asked: StoreId,
        /// The one that is here.
        here: StoreId,
    },
    /// A part of a tag that is not held here, or not wholly.
    #[error("there is no whole copy of these keys of tag {0} here")]
    NoCopy(Tag),
    /// More is asked for than one read may.
    #[error("a read may ask for {limit} keys and ranges, not {asked}")]
    TooMuch {
        /// How many are asked for.
        asked: usize,
        /// How many may be.
        limit: usize,
    },
    /// The values asked for are more than one answer holds.
    #[error("the values of one read may have {0} bytes together: ask for fewer keys at a time")]
    TooLarge(usize),
    /// Too many requests wait.
    #[error("{0} requests wait for a version already")]
    Waiting(usize),
    /// Too many watches wait.
    #[error("{0} watches wait already: watch fewer keys, or try again later")]
    Watches(usize),
    /// A newer configuration is kept.
    #[error("the configuration of {kept} is kept already, and is not replaced by that of {asked}")]
    OlderConfig {
        /// The stamp of what is kept.
        kept: String,
        /// The stamp of what should be.
        asked: String,
    },
    /// The configuration can't be written.
    #[error("the configuration can't be kept")]
    BadConfig(#[from] EncodeError),
    /// The kept configuration can't be read.
    #[error("the kept configuration can't be read: {0}")]
    DamagedConfig(String),
    /// The disk refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no store yet.
    #[error("{0}")]
    Starting(&'static str),
}

impl Refusal {
    /// The code that says it on the wire.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Refusal::Tenure(error) => Problem::from(*error).code,
            Refusal::Over { .. } => ErrorCode::StaleEpoch,
            Refusal::Assignment(_) | Refusal::BadConfig(_) | Refusal::HalfCopy(_) => {
                ErrorCode::InvalidRequest
            }
            Refusal::Reassigned(_) | Refusal::OlderConfig { .. } => ErrorCode::Superseded,
            Refusal::Future { .. } => ErrorCode::FutureVersion,
            Refusal::TooOld { .. } => ErrorCode::TransactionTooOld,
            Refusal::WrongShard(_)
            | Refusal::Joining(_)
            | Refusal::OtherStore { .. }
            | Refusal::NoCopy(_) => ErrorCode::WrongShard,
            Refusal::TooMuch { .. } | Refusal::TooLarge(_) => ErrorCode::LimitExceeded,
            Refusal::Waiting(_) | Refusal::Watches(_) => ErrorCode::Overloaded,
            Refusal::Store(StoreError::Full { .. }) => ErrorCode::DiskFull,
            Refusal::DamagedConfig(_)
            | Refusal::Store(
                StoreError::Corrupt { .. } | StoreError::Io { .. } | StoreError::Locked { .. },
            ) => ErrorCode::Damaged,
            Refusal::Starting(_) | Refusal::Writing(_) => ErrorCode::NotReady,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let detail = match &refusal {
            Refusal::BadConfig(source) => format!("{refusal}: {source}"),
            _ => refusal.to_string(),
        };
        let problem = Problem::new(refusal.code(), detail);
        match refusal {
            Refusal::Tenure(error) => Problem::from(error).into(),
            Refusal::Over { seen, .. } => problem.with_latest_epoch(seen).into(),
            _ => problem.into(),
        }
    }
}

/// Something that must never happen did. Whoever sees it stops, rather than spread it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "tag {tag} has version {version} of epoch {version_epoch} {what}, above the recovery version \
     {recovery_version} of epoch {epoch}"
)]
pub struct Breach {
    /// The tag.
    pub tag: Tag,
    /// What the version is: `on disk` or `as known to be committed`.
    pub what: &'static str,
    /// The version.
    pub version: Version,
    /// The epoch that it was heard in.
    pub version_epoch: Epoch,
    /// RV.
    pub recovery_version: Version,
    /// The epoch that begins.
    pub epoch: Epoch,
}
