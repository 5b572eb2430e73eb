//! What a watch tells of a key at a version is what the key had at that version, so it is committed.

use crate::history::{Sight, Write};
use crate::user::Fate;

pub(crate) const NAME: &str = "watches_tell_what_is";

/// Answers what watches told that can't have been. Keys are written, and never cleared.
#[must_use]
pub fn check(writes: &[Write], sights: &[Sight]) -> Vec<String> {
    sights.iter().filter_map(|sight| difference(writes, sight)).collect()
}

fn difference(writes: &[Write], sight: &Sight) -> Option<String> {
    let Sight { key, value, version } = sight;
    let of_key = || writes.iter().filter(|write| write.key == *key);
    let committed = of_key().filter_map(|write| match write.fate {
        Fate::Committed(at) if at <= *version => Some(at),
        _ => None,
    });
    let told = format!("a watch told {value:?} of {key} at {version}");
    let newest = committed.max();
    let Some(value) = value else {
        return newest.map(|at| format!("{told}; something was committed there at {at}"));
    };
    match of_key().find(|write| write.value == *value).map(|write| &write.fate) {
        None => Some(format!("{told}, which nobody has written")),
        Some(Fate::NotCommitted(why)) => Some(format!("{told}, which was refused: {why}")),
        Some(Fate::Committed(at)) if *at > *version => {
            Some(format!("{told}, which was committed only at {at}"))
        }
        Some(Fate::Committed(at)) => newest
            .filter(|newest| newest > at)
            .map(|newest| format!("{told}, which was overwritten at {newest}")),
        // It may have been committed at any version.
        Some(Fate::Unknown(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use plinth_types::Version;

    use super::*;

    fn write(value: &'static str, fate: Fate) -> Write {
        let value = Bytes::from_static(value.as_bytes());
        Write { key: "k".to_owned(), value, began: 0, ended: 0, fate }
    }

    fn is_well(value: Option<&'static str>, version: u64) -> bool {
        let writes = [
            write("a", Fate::Committed(Version(10))),
            write("b", Fate::NotCommitted("why".to_owned())),
            write("c", Fate::Unknown("why".to_owned())),
            write("d", Fate::Committed(Version(20))),
        ];
        let value = value.map(|value| Bytes::from_static(value.as_bytes()));
        let sight = Sight { key: "k".to_owned(), value, version: Version(version) };
        check(&writes, &[sight]).is_empty()
    }

    #[test]
    fn what_the_key_had_may_be_told_and_nothing_else() {
        assert!(is_well(None, 9) && !is_well(None, 10));
        assert!(!is_well(Some("a"), 9) && is_well(Some("a"), 10) && is_well(Some("a"), 19));
        assert!(!is_well(Some("a"), 20) && is_well(Some("d"), 20) && !is_well(Some("d"), 19));
        assert!(!is_well(Some("b"), 15) && is_well(Some("c"), 15) && !is_well(Some("e"), 15));
    }
}
