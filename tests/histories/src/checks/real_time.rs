//! The order of versions is that of real time: whoever begins when somebody has been told a version
//! reads at no lower one, and commits at a higher one.

use std::collections::BTreeMap;

use plinth_types::Version;

use crate::Anomaly;
use crate::history::{Fate, Moment, Transaction};

const NAME: &str = "real time";

enum Event {
    Began,
    Ended,
}

/// Answers the first transaction whose version is too low.
#[must_use]
pub fn check(transactions: &[Transaction]) -> Vec<Anomaly> {
    let mut events: BTreeMap<Moment, (Event, Version, &Transaction)> = BTreeMap::new();
    for transaction in transactions {
        if let Fate::Committed { version, .. } = transaction.fate {
            events.insert(transaction.began, (Event::Began, version, transaction));
            // Of one whose fate was found out later nobody was told a version.
            if !transaction.is_late {
                events.insert(transaction.ended, (Event::Ended, version, transaction));
            }
        }
    }
    let mut known: Option<(Version, &Transaction)> = None;
    for (event, version, transaction) in events.into_values() {
        let changes = matches!(transaction.fate, Fate::Committed { stamp: Some(_), .. });
        match (event, known) {
            (Event::Began, Some((floor, before)))
                if version < floor || (changes && version == floor) =>
            {
                let seen = format!("{transaction} began after the end of {before}");
                return vec![Anomaly::new(NAME, seen)];
            }
            (Event::Ended, known_before)
                if known_before.is_none_or(|(floor, _)| version > floor) =>
            {
                known = Some((version, transaction));
            }
            (Event::Began | Event::Ended, _) => {}
        }
    }
    Vec::new()
}
