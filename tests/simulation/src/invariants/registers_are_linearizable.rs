//! Every read shows the newest write at or below its version; an acknowledged write is there from its
//! version on (invariant 5), a refused one never, and one of unknown fate at most once.
//!
//! Commit versions give the order of writes, so no search is needed: each key's writes and reads are
//! gone through in the order of versions. That this order also fits real time is
//! [`super::versions_follow_real_time`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use plinth_types::Version;

use crate::history::{Read, Write};
use crate::user::Fate;

/// Its name.
pub const NAME: &str = "registers_are_linearizable";

#[derive(Default)]
struct Register<'a> {
    committed: BTreeMap<Version, Vec<&'a Bytes>>,
    unknown: BTreeSet<&'a Bytes>,
    refused: BTreeSet<&'a Bytes>,
    reads: BTreeMap<Version, Vec<&'a Read>>,
}

/// Answers the first breach of each key.
#[must_use]
pub fn check(writes: &[Write], reads: &[Read]) -> Vec<String> {
    let mut registers: BTreeMap<&str, Register<'_>> = BTreeMap::new();
    for write in writes {
        let register = registers.entry(&write.key).or_default();
        match &write.fate {
            Fate::Committed(version) => {
                register.committed.entry(*version).or_default().push(&write.value);
            }
            Fate::Unknown(_) => _ = register.unknown.insert(&write.value),
            Fate::NotCommitted(_) => _ = register.refused.insert(&write.value),
        }
    }
    for read in reads {
        let register = registers.entry(&read.key).or_default();
        register.reads.entry(read.version).or_default().push(read);
    }
    registers.into_iter().filter_map(|(key, register)| breach(key, register)).collect()
}

fn breach(key: &str, mut register: Register<'_>) -> Option<String> {
    let mut writes = register.committed.iter().peekable();
    // What the key may hold now: of writes of one version it is not known which was the last.
    let mut possible: Vec<Option<&Bytes>> = vec![None];
    let mut since = Version::ZERO;
    for (version, reads) in &register.reads {
        while let Some((written, values)) = writes.next_if(|(written, _)| *written <= version) {
            since = *written;
            possible = values.iter().map(|value| Some(*value)).collect();
        }
        for read in reads {
            let value = read.value.as_ref();
            // One of unknown fate takes effect once: it can't come back after another value.
            let mut is_late = || value.is_some_and(|value| register.unknown.remove(value));
            if !possible.contains(&value) && !is_late() {
                let told = match value {
                    Some(value) if register.refused.contains(value) => "whose write was refused",
                    Some(value) if register.committed.values().flatten().any(|v| *v == value) => {
                        "which belongs to another version"
                    }
                    Some(_) => "which was written before, or by nobody",
                    None => "though it was written",
                };
                return Some(format!(
                    "{key} read at {version} (moments {} to {}) is {value:?}, {told}; since {since} it is {possible:?}",
                    read.began, read.ended
                ));
            }
            possible = vec![value];
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(value: &'static str, fate: Fate) -> Write {
        Write { key: "k".to_owned(), value: value.into(), began: 0, ended: 0, fate }
    }

    fn committed(value: &'static str, version: u64) -> Write {
        write(value, Fate::Committed(Version(version)))
    }

    fn read(value: Option<&'static str>, version: u64) -> Read {
        let value = value.map(Bytes::from);
        Read { key: "k".to_owned(), value, version: Version(version), began: 0, ended: 0 }
    }

    #[test]
    fn reads_show_the_newest_write_at_their_version() {
        let writes = [committed("a", 10), committed("b", 20)];
        let good = [read(None, 9), read(Some("a"), 10), read(Some("a"), 19), read(Some("b"), 20)];
        assert!(check(&writes, &good).is_empty());
        for bad in [read(Some("a"), 20), read(None, 10), read(Some("b"), 19), read(Some("c"), 30)] {
            assert_eq!(check(&writes, std::slice::from_ref(&bad)).len(), 1, "{bad:?}");
        }
    }

    #[test]
    fn of_two_writes_of_one_version_all_reads_show_the_same() {
        let writes = [committed("a", 10), committed("b", 10)];
        assert!(check(&writes, &[read(Some("b"), 10), read(Some("b"), 11)]).is_empty());
        assert_eq!(check(&writes, &[read(Some("b"), 10), read(Some("a"), 11)]).len(), 1);
    }

    #[test]
    fn a_write_of_unknown_fate_takes_effect_at_most_once_and_a_refused_one_never() {
        let unknown = write("u", Fate::Unknown(String::new()));
        let writes = [committed("a", 10), unknown, committed("b", 20)];
        assert!(
            check(&writes, &[read(Some("a"), 10), read(Some("u"), 11), read(Some("b"), 20)])
                .is_empty()
        );
        assert!(check(&writes, &[read(Some("a"), 11), read(Some("u"), 21)]).is_empty());
        assert_eq!(
            check(&writes, &[read(Some("u"), 11), read(Some("b"), 20), read(Some("u"), 21)]).len(),
            1
        );
        assert_eq!(check(&writes, &[read(Some("u"), 11), read(Some("a"), 12)]).len(), 1);
        let refused = write("r", Fate::NotCommitted(String::new()));
        assert_eq!(check(&[refused], &[read(Some("r"), 1)]).len(), 1);
    }
}
