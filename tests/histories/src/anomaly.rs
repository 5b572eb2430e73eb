//! What is wrong with a history.

use std::fmt;

/// Something that a strictly serializable store can't have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// The check that found it, and where it tells several apart the kind: `bank`, `lists: G1a`.
    pub name: String,
    /// What was seen, for people to read.
    pub seen: String,
}

impl Anomaly {
    /// An anomaly of this name.
    #[must_use]
    pub fn new(name: impl Into<String>, seen: impl Into<String>) -> Anomaly {
        Anomaly { name: name.into(), seen: seen.into() }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.seen)
    }
}
