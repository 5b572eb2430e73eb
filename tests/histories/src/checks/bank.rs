//! A bank: transfers between accounts leave the total as it is, in every snapshot.

use crate::Anomaly;

/// Answers the first snapshot with another total. Each is of all accounts, and says who took it.
#[must_use]
pub fn check(total: i64, snapshots: &[(String, Vec<i64>)]) -> Vec<Anomaly> {
    let other = snapshots.iter().find(|(_, balances)| balances.iter().sum::<i64>() != total);
    let seen = |(who, balances): &(String, Vec<i64>)| {
        let sum = balances.iter().sum::<i64>();
        Anomaly::new("bank", format!("{who} saw {balances:?}, {sum} together and not {total}"))
    };
    other.map(seen).into_iter().collect()
}
