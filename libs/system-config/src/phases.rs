//! The phases of a recovery: one name each, used alike in code, API, traces, logs and documents.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A phase of a recovery, in the order in which a director goes through them.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryPhase {
    /// A linearizable read of the last layout at the coordinators.
    ReadingLayout,
    /// Locking the logs of that layout at the new epoch.
    Locking,
    /// Choosing the recovery version from what the locked logs answered.
    ChoosingVersion,
    /// Keeping healthy workers and filling the vacancies.
    Recruiting,
    /// New logs copy what they need; kept ones truncate.
    Replaying,
    /// Starting sequencer, resolvers and proxies, closed to clients.
    StartingTransactionSystem,
    /// Compare-and-set of the layout at the coordinators; then every log and storage keeps it.
    RecordingLayout,
    /// Watches on every component.
    Monitoring,
    /// The system transaction.
    SystemTransaction,
    /// Commits are accepted.
    AcceptingCommits,
    /// Storages have caught up and the old generation is no longer needed.
    FullyRecovered,
}

/// A text that names no phase.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a phase of a recovery")]
pub struct UnknownPhase(pub String);

impl RecoveryPhase {
    /// Every phase, in order.
    pub const ALL: [RecoveryPhase; 11] = [
        RecoveryPhase::ReadingLayout,
        RecoveryPhase::Locking,
        RecoveryPhase::ChoosingVersion,
        RecoveryPhase::Recruiting,
        RecoveryPhase::Replaying,
        RecoveryPhase::StartingTransactionSystem,
        RecoveryPhase::RecordingLayout,
        RecoveryPhase::Monitoring,
        RecoveryPhase::SystemTransaction,
        RecoveryPhase::AcceptingCommits,
        RecoveryPhase::FullyRecovered,
    ];

    /// The name of the phase, as in JSON, spans and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            RecoveryPhase::ReadingLayout => "reading_layout",
            RecoveryPhase::Locking => "locking",
            RecoveryPhase::ChoosingVersion => "choosing_version",
            RecoveryPhase::Recruiting => "recruiting",
            RecoveryPhase::Replaying => "replaying",
            RecoveryPhase::StartingTransactionSystem => "starting_transaction_system",
            RecoveryPhase::RecordingLayout => "recording_layout",
            RecoveryPhase::Monitoring => "monitoring",
            RecoveryPhase::SystemTransaction => "system_transaction",
            RecoveryPhase::AcceptingCommits => "accepting_commits",
            RecoveryPhase::FullyRecovered => "fully_recovered",
        }
    }

    /// Whether clients may commit in it.
    #[must_use]
    pub fn is_ready(self) -> bool {
        self >= RecoveryPhase::AcceptingCommits
    }
}

impl fmt::Display for RecoveryPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RecoveryPhase {
    type Err = UnknownPhase;
    fn from_str(text: &str) -> Result<Self, UnknownPhase> {
        RecoveryPhase::ALL
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or_else(|| UnknownPhase(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_everywhere_and_in_order() {
        for phase in RecoveryPhase::ALL {
            let name = phase.as_str();
            assert_eq!(serde_json::to_value(phase).unwrap(), name);
            assert_eq!(phase.to_string(), name);
            assert_eq!(name.parse(), Ok(phase));
        }
        assert!(RecoveryPhase::ALL.is_sorted());
        assert!("stalled".parse::<RecoveryPhase>().is_err());
    }
}
