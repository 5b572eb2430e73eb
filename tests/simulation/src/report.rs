//! What one history came to, as a line of JSON between processes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::findings::Violation;

/// The acknowledged commits that a seed needs to count.
pub(crate) const COMMITS: u64 = 200;
/// The epochs that a seed needs to count.
pub(crate) const EPOCHS: u64 = 2;

/// What one history came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The hash over everything that happened.
    pub hash: String,
    /// How many events it covers.
    pub events: u64,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// What users did.
    pub workloads: Vec<String>,
    /// Acknowledged commits.
    pub commits: u64,
    /// Answered reads.
    pub reads: u64,
    /// Epochs that users heard of.
    pub epochs: u64,
    /// How often each kind of fault took place.
    pub faults: BTreeMap<String, u64>,
    /// How often the deliberate faults that were switched on have fired.
    pub fired: u64,
    /// How often each mark of a rare path was passed.
    #[serde(default)]
    pub marks: BTreeMap<String, u64>,
    /// What was broken.
    pub violations: Vec<Violation>,
    /// What was done to the cluster, in order.
    pub account: Vec<String>,
}

impl Report {
    /// Whether enough has happened for the seed to count.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.commits >= COMMITS && self.epochs >= EPOCHS && !self.faults.is_empty()
    }
}
