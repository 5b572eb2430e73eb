//! What was found to be broken.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which one, by the name of its module.
    pub invariant: String,
    /// What was seen.
    pub seen: String,
    /// When it was found, in simulated milliseconds.
    pub at_ms: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (found at {} ms)", self.invariant, self.seen, self.at_ms)
    }
}

/// Where broken promises are reported. A clone is the same place.
#[derive(Clone, Default)]
pub struct Findings(Arc<Mutex<Vec<Violation>>>);

impl Findings {
    /// Reports one.
    pub fn report(&self, invariant: &str, seen: impl Into<String>) {
        let at = now().unwrap_or_default();
        let violation = Violation {
            invariant: invariant.to_owned(),
            seen: seen.into(),
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(violation);
    }

    /// Reports what a check has found.
    pub fn report_all(&self, invariant: &str, found: impl IntoIterator<Item = String>) {
        for seen in found {
            self.report(invariant, seen);
        }
    }

    /// All of them, in the order in which they were found.
    #[must_use]
    pub fn all(&self) -> Vec<Violation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// Simulated time, within a host.
pub(crate) fn now() -> Option<Duration> {
    tokio::runtime::Handle::try_current().ok()?;
    turmoil::sim_elapsed()
}
