//! Watches: requests that wait for a key to change, each until its deadline.

use std::collections::{BTreeMap, BTreeSet};

use plinth_types::Key;
use tokio::time::Instant;

/// Requests by the key that they wait for.
#[derive(Debug)]
pub(crate) struct Watches<T> {
    requests: BTreeMap<(Key, u64), (Instant, T)>,
    deadlines: BTreeSet<(Instant, u64, Key)>,
    added: u64,
}

impl<T> Default for Watches<T> {
    fn default() -> Self {
        Watches { requests: BTreeMap::new(), deadlines: BTreeSet::new(), added: 0 }
    }
}

impl<T> Watches<T> {
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn add(&mut self, key: Key, deadline: Instant, request: T) {
        self.added += 1;
        self.deadlines.insert((deadline, self.added, key.clone()));
        self.requests.insert((key, self.added), (deadline, request));
    }

    /// Takes out those of a key, with their deadlines.
    pub(crate) fn take(&mut self, key: &Key) -> Vec<(Instant, T)> {
        let mut taken = Vec::new();
        let from = (key.clone(), 0);
        while let Some(((of, number), _)) = self.requests.range(from.clone()..).next()
            && of == key
        {
            let place = (of.clone(), *number);
            if let Some((deadline, request)) = self.requests.remove(&place) {
                self.deadlines.remove(&(deadline, place.1, place.0));
                taken.push((deadline, request));
            }
        }
        taken
    }

    /// Takes out those whose deadline has come.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Vec<T> {
        let mut expired = Vec::new();
        while self.deadlines.first().is_some_and(|(deadline, _, _)| *deadline <= now)
            && let Some((_, number, key)) = self.deadlines.pop_first()
        {
            expired.extend(self.requests.remove(&(key, number)).map(|(_, request)| request));
        }
        expired
    }

    /// Takes out all.
    pub(crate) fn take_all(&mut self) -> Vec<(Instant, T)> {
        self.deadlines.clear();
        std::mem::take(&mut self.requests).into_values().collect()
    }

    /// The next deadline.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_leave_by_key_or_by_deadline() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watches = Watches::default();
        watches.add("a".into(), at(3), 1);
        watches.add("b".into(), at(1), 2);
        watches.add("a".into(), at(2), 3);
        watches.add("a\0".into(), at(2), 4);
        assert_eq!(watches.deadline(), Some(at(1)));
        assert_eq!(watches.take(&"".into()), []);
        assert_eq!(watches.take(&"a".into()), [(at(3), 1), (at(2), 3)]);
        assert_eq!(watches.take_expired(start), [0; 0]);
        assert_eq!(watches.take_expired(at(1)), [2]);
        assert_eq!((watches.len(), watches.deadline()), (1, Some(at(2))));
        assert_eq!(watches.take_all(), [(at(2), 4)]);
        assert_eq!(watches.deadline(), None);
    }
}
