//! Requests that wait for a version, each until its deadline.

use std::collections::BTreeMap;

use plinth_types::Version;
use tokio::time::Instant;

/// Requests by the version that they wait for.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    requests: BTreeMap<(Version, u64), (Instant, T)>,
    deadlines: BTreeMap<(Instant, u64), Version>,
    added: u64,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Waiting { requests: BTreeMap::new(), deadlines: BTreeMap::new(), added: 0 }
    }
}

impl<T> Waiting<T> {
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn add(&mut self, version: Version, deadline: Instant, request: T) {
        self.added += 1;
        self.deadlines.insert((deadline, self.added), version);
        self.requests.insert((version, self.added), (deadline, request));
    }

    /// Takes out those that wait for `version` or an earlier one, with their deadlines.
    pub(crate) fn take_through(&mut self, version: Version) -> Vec<(Instant, T)> {
        let later = self.requests.split_off(&(version.plus(1), 0));
        let due = std::mem::replace(&mut self.requests, later);
        due.into_iter()
            .map(|((_, number), (deadline, request))| {
                self.deadlines.remove(&(deadline, number));
                (deadline, request)
            })
            .collect()
    }

    /// Takes out those whose deadline has come.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Vec<T> {
        let mut expired = Vec::new();
        while let Some(first) = self.deadlines.first_entry()
            && first.key().0 <= now
        {
            let ((_, number), version) = first.remove_entry();
            expired.extend(self.requests.remove(&(version, number)).map(|(_, request)| request));
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
        self.deadlines.first_key_value().map(|((deadline, _), _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_leave_by_version_or_by_deadline() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut waiting = Waiting::default();
        waiting.add(Version(5), at(3), 'a');
        waiting.add(Version(7), at(1), 'b');
        waiting.add(Version(5), at(2), 'c');
        waiting.add(Version(9), at(2), 'd');
        assert_eq!(waiting.deadline(), Some(at(1)));
        assert_eq!(waiting.take_through(Version(4)), vec![]);
        assert_eq!(waiting.take_through(Version(5)), vec![(at(3), 'a'), (at(2), 'c')]);
        assert_eq!(waiting.take_expired(start), Vec::<char>::new());
        assert_eq!(waiting.take_expired(at(1)), vec!['b']);
        assert_eq!(waiting.len(), 1);
        assert_eq!(waiting.take_all(), vec![(at(2), 'd')]);
        assert_eq!(waiting.deadline(), None);
    }
}
