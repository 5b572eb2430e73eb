//! Read versions never go backwards, for any two users in real time; and a commit that begins when
//! another is known gets a later version (invariant 8).

use std::collections::BTreeMap;

use plinth_types::Version;

use crate::history::{Moment, Read, Write};
use crate::user::Fate;

/// Its name.
pub const NAME: &str = "versions_follow_real_time";

enum Event<'a> {
    Began,
    Ended { began: Moment, version: Version, is_commit: bool, what: &'a str },
}

/// Answers the first breach.
#[must_use]
pub fn check(writes: &[Write], reads: &[Read]) -> Option<String> {
    let mut events = BTreeMap::new();
    for read in reads {
        let (began, version, what) = (read.began, read.version, read.key.as_str());
        events.insert(began, Event::Began);
        events.insert(read.ended, Event::Ended { began, version, is_commit: false, what });
    }
    for write in writes {
        if let Fate::Committed(version) = write.fate {
            let (began, what) = (write.began, write.key.as_str());
            events.insert(began, Event::Began);
            events.insert(write.ended, Event::Ended { began, version, is_commit: true, what });
        }
    }
    // The newest version that was known to anybody when each operation began.
    let mut known = (Version::ZERO, String::new());
    let mut floors = BTreeMap::new();
    for (moment, event) in events {
        match event {
            Event::Began => _ = floors.insert(moment, known.clone()),
            Event::Ended { began, version, is_commit, what } => {
                let (floor, by) = floors.remove(&began)?;
                let kind = if is_commit { "commit" } else { "read" };
                if version < floor || (is_commit && version == floor) {
                    return Some(format!(
                        "the {kind} of {what} has version {version}, and when it began {by} had ended with {floor}"
                    ));
                }
                if version > known.0 {
                    known = (version, format!("the {kind} of {what}"));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(version: u64, began: u64, ended: u64) -> Read {
        Read { key: "k".to_owned(), value: None, version: Version(version), began, ended }
    }

    fn commit(version: u64, began: u64, ended: u64) -> Write {
        let fate = Fate::Committed(Version(version));
        Write { key: "k".to_owned(), value: "v".into(), began, ended, fate }
    }

    #[test]
    fn what_has_ended_is_a_floor_for_what_begins() {
        assert_eq!(check(&[], &[read(5, 1, 2), read(5, 3, 4)]), None);
        assert_eq!(check(&[], &[read(5, 1, 3), read(4, 2, 4)]), None);
        assert!(check(&[], &[read(5, 1, 2), read(4, 3, 4)]).is_some());
        assert_eq!(check(&[commit(6, 3, 4)], &[read(5, 1, 2), read(6, 5, 6)]), None);
        assert!(check(&[commit(5, 3, 4)], &[read(5, 1, 2)]).is_some());
        assert!(check(&[commit(6, 1, 2)], &[read(5, 3, 4)]).is_some());
    }
}
