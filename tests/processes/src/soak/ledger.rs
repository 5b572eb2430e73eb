//! What writers were told, and whether what is there agrees with it. Pure.

use std::collections::BTreeMap;

/// What a writer knows of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was acknowledged.
    Acknowledged,
    /// It was refused, and will never be there.
    Refused,
    /// Nobody told.
    Unknown,
}

/// All that one writer has written. Each key is written once; the register is overwritten with
/// rising numbers; the counter is added one to, each time under an idempotency id of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Keys that are written once, with their value.
    pub once: BTreeMap<String, (String, Fate)>,
    /// What the register was set to, in order.
    pub register: Vec<(u64, Fate)>,
    /// The additions.
    pub additions: Vec<Fate>,
}

impl Ledger {
    /// How many writes were acknowledged, were refused, and neither.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        let once = self.once.values().map(|(_, fate)| *fate);
        let register = self.register.iter().map(|(_, fate)| *fate);
        let fates: Vec<Fate> = once.chain(register).chain(self.additions.iter().copied()).collect();
        [Fate::Acknowledged, Fate::Refused, Fate::Unknown]
            .map(|wanted| fates.iter().filter(|fate| **fate == wanted).count())
    }

    /// Everything in which what is there differs from what the writer was told.
    #[must_use]
    pub fn differences(
        &self,
        there: &BTreeMap<String, String>,
        register: Option<u64>,
        counter: Option<u64>,
    ) -> Vec<String> {
        let mut found = Vec::new();
        for (key, (value, fate)) in &self.once {
            match (fate, there.get(key)) {
                (Fate::Acknowledged, None) => {
                    found.push(format!("{key} was acknowledged and is missing"));
                }
                (Fate::Refused, Some(_)) => found.push(format!("{key} was refused and is there")),
                (_, Some(other)) if other != value => {
                    found.push(format!("{key} is {other:?}, and {value:?} was written"));
                }
                _ => {}
            }
        }
        for key in there.keys().filter(|key| !self.once.contains_key(*key)) {
            found.push(format!("{key} is there and nobody wrote it"));
        }
        found.extend(self.wrong_register(register));
        found.extend(self.wrong_counter(counter));
        found
    }

    /// The register holds the last acknowledged value or a later one that was not refused.
    fn wrong_register(&self, register: Option<u64>) -> Option<String> {
        let last = self.register.iter().rposition(|(_, fate)| *fate == Fate::Acknowledged);
        let possible: Vec<u64> = self.register[last.unwrap_or(0)..]
            .iter()
            .filter(|(_, fate)| *fate != Fate::Refused)
            .map(|(value, _)| *value)
            .collect();
        let is_possible = register.map_or(last.is_none(), |value| possible.contains(&value));
        (!is_possible).then(|| format!("the register is {register:?}, and not one of {possible:?}"))
    }

    /// The counter has every acknowledged addition, and no refused one.
    fn wrong_counter(&self, counter: Option<u64>) -> Option<String> {
        let of =
            |wanted: Fate| self.additions.iter().filter(|fate| **fate == wanted).count() as u64;
        let (least, unknown) = (of(Fate::Acknowledged), of(Fate::Unknown));
        let most = least + unknown;
        let is_possible = (least..=most).contains(&counter.unwrap_or(0));
        (!is_possible).then(|| format!("the counter is {counter:?}, and not in {least} to {most}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Fate::{Acknowledged, Refused, Unknown};
    use super::*;

    fn ledger() -> Ledger {
        let once = [("a", Acknowledged), ("r", Refused), ("u", Unknown)];
        Ledger {
            once: once.map(|(key, fate)| (key.to_owned(), (format!("{key}!"), fate))).into(),
            register: vec![
                (1, Acknowledged),
                (2, Unknown),
                (3, Acknowledged),
                (4, Refused),
                (5, Unknown),
            ],
            additions: vec![Acknowledged, Unknown, Acknowledged, Refused],
        }
    }

    fn there(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_agrees_is_not_complained_of() {
        for keys in [&[("a", "a!")][..], &[("a", "a!"), ("u", "u!")]] {
            for register in [3, 5] {
                for counter in [2, 3] {
                    let found = ledger().differences(&there(keys), Some(register), Some(counter));
                    assert_eq!(found, Vec::<String>::new());
                }
            }
        }
        assert_eq!(ledger().counts(), [5, 3, 4]);
        assert!(Ledger::default().differences(&there(&[]), None, None).is_empty());
    }

    #[test]
    fn each_difference_is_found() {
        let find = |keys: &[(&str, &str)], register, counter| {
            ledger().differences(&there(keys), register, counter)
        };
        let good = [("a", "a!")];
        for (found, word) in [
            (find(&[], Some(3), Some(2)), "a was acknowledged and is missing"),
            (find(&[("a", "b!")], Some(3), Some(2)), "a is \"b!\""),
            (find(&[("a", "a!"), ("r", "r!")], Some(3), Some(2)), "r was refused and is there"),
            (find(&[("a", "a!"), ("x", "x!")], Some(3), Some(2)), "x is there"),
            (find(&good, Some(2), Some(2)), "the register"),
            (find(&good, Some(4), Some(2)), "the register"),
            (find(&good, None, Some(2)), "the register"),
            (find(&good, Some(3), Some(1)), "the counter"),
            (find(&good, Some(3), Some(4)), "the counter"),
            (find(&good, Some(3), None), "the counter"),
        ] {
            let [found] = found.as_slice() else { panic!("{word}: {found:?}") };
            assert!(found.starts_with(word), "{found} is not {word}");
        }
    }
}
