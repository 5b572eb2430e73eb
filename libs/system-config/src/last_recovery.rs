//! What a recovery leaves behind for whoever asks later.

use plinth_types::{Epoch, ServiceRef, Version};
use serde::{Deserialize, Serialize};

use crate::{BootstrapSource, RecoveryPhase};

/// The last recovery, as its system transaction writes it. It names services only by what survives
/// them, in `cause` too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LastRecovery {
    /// The epoch that it began.
    pub epoch: Epoch,
    /// Why the epoch before it ended.
    pub cause: String,
    /// When it began, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// How long it took up to the system transaction, in milliseconds.
    pub duration_ms: u64,
    /// RV: nothing above it survives of earlier epochs.
    pub recovery_version: Version,
    /// The version of the epoch's first batch.
    pub first_version: Version,
    /// Durable workers taken up again.
    pub reused: Vec<ServiceRef>,
    /// Durable workers made anew.
    pub made: Vec<ServiceRef>,
    /// Where the coordinators had the configuration from.
    pub source: BootstrapSource,
    /// The phases that it went through, in order.
    pub phases: Vec<PhaseDuration>,
}

/// How long a phase took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PhaseDuration {
    /// The phase.
    pub name: RecoveryPhase,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}
