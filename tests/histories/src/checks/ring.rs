//! A ring of keys, each of which names the next: whatever transactions do, it stays one ring.

use std::collections::BTreeMap;

use crate::Anomaly;

/// Answers the first snapshot that is no ring. Each is of all keys, and says who took it.
#[must_use]
pub fn check(snapshots: &[(String, BTreeMap<u64, u64>)]) -> Vec<Anomaly> {
    let broken = snapshots.iter().find(|(_, nexts)| !is_ring(nexts));
    let seen = |(who, nexts): &(String, BTreeMap<u64, u64>)| {
        Anomaly::new("cycle", format!("{who} saw {nexts:?}, which is no ring"))
    };
    broken.map(seen).into_iter().collect()
}

fn is_ring(nexts: &BTreeMap<u64, u64>) -> bool {
    let Some(first) = nexts.keys().next() else { return true };
    let mut at = *first;
    for step in 1..=nexts.len() {
        match nexts.get(&at) {
            Some(next) => at = *next,
            None => return false,
        }
        if at == *first {
            return step == nexts.len();
        }
    }
    false
}
