//! Every appointment is a fresh epoch: no epoch is ever told with two directors (invariant 1).

use std::collections::BTreeMap;

use plinth_types::{Epoch, Incarnation};

/// Its name.
pub const NAME: &str = "epochs_have_one_director";

/// Answers the first breach.
#[must_use]
pub fn check(directors: &BTreeMap<Epoch, BTreeMap<Incarnation, String>>) -> Option<String> {
    let (epoch, named) = directors.iter().find(|(_, named)| named.len() > 1)?;
    Some(format!("epoch {epoch} has the directors {named:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_one_epoch_are_a_breach() {
        let one = BTreeMap::from([(Incarnation(1), "director-1@a".to_owned())]);
        let mut two = one.clone();
        two.insert(Incarnation(2), "director-1@b".to_owned());
        assert_eq!(
            check(&BTreeMap::from([(Epoch(1), one.clone()), (Epoch(2), one.clone())])),
            None
        );
        assert!(check(&BTreeMap::from([(Epoch(1), one), (Epoch(2), two)])).is_some());
    }
}
