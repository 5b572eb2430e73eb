//! A set that elements are added to and never taken from: whoever begins to read when an addition is
//! acknowledged, or when somebody has seen the element, sees it; nobody sees one that was refused.

use std::collections::{BTreeMap, BTreeSet};

use crate::Anomaly;
use crate::history::Moment;

pub use super::lists::Outcome;

const NAME: &str = "set";

/// An element was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addition {
    /// The element, which is added once.
    pub element: u64,
    /// Before it took effect.
    pub began: Moment,
    /// After it took effect, if it is acknowledged.
    pub ended: Moment,
    /// What became of it.
    pub outcome: Outcome,
}

/// The whole set was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Before it was read.
    pub began: Moment,
    /// After it was read.
    pub ended: Moment,
    /// What was in it.
    pub elements: BTreeSet<u64>,
}

/// Answers what is wrong, each element once.
#[must_use]
pub fn check(additions: &[Addition], sights: &[Sight]) -> Vec<Anomaly> {
    let by_element: BTreeMap<u64, &Addition> =
        additions.iter().map(|addition| (addition.element, addition)).collect();
    let mut wrong: BTreeMap<u64, String> = BTreeMap::new();
    // From which moment on each element must be there.
    let mut known: BTreeMap<u64, Moment> = additions
        .iter()
        .filter(|addition| addition.outcome == Outcome::Acknowledged)
        .map(|addition| (addition.element, addition.ended))
        .collect();
    for sight in sights {
        let Sight { began, ended, elements } = sight;
        for element in elements {
            let what = match by_element.get(element) {
                None => "which nobody added",
                Some(addition) if addition.outcome == Outcome::Refused => {
                    "whose addition was refused"
                }
                Some(addition) if addition.began > *ended => "before it was added",
                Some(_) => {
                    let since = known.entry(*element).or_insert(*ended);
                    *since = (*since).min(*ended);
                    continue;
                }
            };
            let seen = format!("{element} was seen at moments {began} to {ended}, {what}");
            wrong.entry(*element).or_insert(seen);
        }
    }
    for Sight { began, ended, elements } in sights {
        for (element, since) in &known {
            if since < began && !elements.contains(element) {
                let seen = format!(
                    "{element} was there at moment {since}, and not seen at {began} to {ended}"
                );
                wrong.entry(*element).or_insert(seen);
            }
        }
    }
    wrong.into_values().map(|seen| Anomaly::new(NAME, seen)).collect()
}
