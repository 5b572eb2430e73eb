//! Which version wrote each key last: a step function over the key space.
//!
//! A boundary says: from this key up to the next boundary, this version was the last to write. So
//! a point costs a lookup, a range what lies in it, and memory grows with the distinct ranges
//! written within the window, not with keys or commits. What lies before the window is forgotten
//! step by step: each insertion looks at a few boundaries, so no batch pays for all.

use std::collections::BTreeMap;
use std::ops::Bound;

use plinth_types::{Key, KeyRange, Version};

/// Boundaries that an insertion looks at, to see whether they can go. Two are made at most, so
/// three keep the sweep ahead of the growth.
const SWEEP: usize = 3;

/// The last write of each key.
#[derive(Clone, Debug)]
pub struct ConflictSet {
    /// The version from each key on. Nothing before the first boundary counts as written.
    boundaries: BTreeMap<Key, Version>,
    /// Reads below it can't be judged.
    oldest: Version,
    /// Where the sweep goes on.
    sweep_from: Key,
}

impl ConflictSet {
    /// Nothing is known of what was written before `oldest`.
    #[must_use]
    pub fn new(oldest: Version) -> ConflictSet {
        ConflictSet { boundaries: BTreeMap::new(), oldest, sweep_from: Key::default() }
    }

    /// Reads below this version can't be judged.
    #[must_use]
    pub fn oldest(&self) -> Version {
        self.oldest
    }

    /// How many boundaries there are.
    #[must_use]
    pub fn boundaries(&self) -> usize {
        self.boundaries.len()
    }

    /// Forgets, in time, what was written at or before `version`.
    pub fn forget(&mut self, version: Version) {
        self.oldest = self.oldest.max(version);
    }

    /// Whether a key of `range` was written after `version`, which must not be below the oldest.
    #[must_use]
    pub fn written_since(&self, range: &KeyRange, version: Version) -> bool {
        if range.is_empty() {
            return false;
        }
        // The step that the range begins in, then every step that begins inside it.
        let first = self.boundaries.range::<Key, _>(..=&range.from).next_back();
        let end = range.to.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let inside = self.boundaries.range::<Key, _>((Bound::Excluded(&range.from), end));
        first.into_iter().chain(inside).any(|(_, written)| *written > version)
    }

    /// Notes that `range` was written at `version`, which must not be below an earlier one.
    pub fn insert(&mut self, range: &KeyRange, version: Version) {
        if range.is_empty() {
            return;
        }
        let after = range.to.as_ref().map(|to| (to.clone(), self.at(to)));
        match &range.to {
            // Nearly every write is of a single key: at most one boundary is inside.
            Some(to) => {
                while let Some(inside) = self.first_within(&range.from, to) {
                    self.boundaries.remove(&inside);
                }
            }
            None => {
                self.boundaries.split_off(&range.from);
            }
        }
        self.boundaries.insert(range.from.clone(), version);
        if let Some((to, before)) = after {
            self.boundaries.entry(to).or_insert(before);
        }
        self.sweep();
    }

    /// The version that wrote `key` last.
    fn at(&self, key: &Key) -> Version {
        let step = self.boundaries.range::<Key, _>(..=key).next_back();
        step.map_or(Version::ZERO, |(_, version)| *version)
    }

    fn first_within(&self, from: &Key, to: &Key) -> Option<Key> {
        self.boundaries.range::<Key, _>(from..to).next().map(|(key, _)| key.clone())
    }

    /// Looks at the next few boundaries. One goes if its step and the step before are both too old
    /// to matter: no read that can be judged tells them apart.
    fn sweep(&mut self) {
        let mut old_before = match self.boundaries.range::<Key, _>(..&self.sweep_from).next_back() {
            Some((_, version)) => *version <= self.oldest,
            None => true,
        };
        let mut gone: [Option<Key>; SWEEP] = Default::default();
        let mut seen = self.boundaries.range::<Key, _>(&self.sweep_from..);
        for slot in &mut gone {
            let Some((key, version)) = seen.next() else { break };
            let old = *version <= self.oldest;
            if old && old_before {
                *slot = Some(key.clone());
            }
            old_before = old;
        }
        let next = seen.next().map(|(key, _)| key.clone());
        for key in gone.into_iter().flatten() {
            self.boundaries.remove(&key);
        }
        self.sweep_from = next.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(from: &str, to: &str) -> KeyRange {
        KeyRange::new(from.into(), to.into())
    }

    #[test]
    fn a_write_is_seen_by_older_reads_only() {
        let mut set = ConflictSet::new(Version(10));
        set.insert(&range("b", "d"), Version(20));
        assert!(set.written_since(&range("a", "c"), Version(19)));
        assert!(!set.written_since(&range("a", "c"), Version(20)));
        assert!(!set.written_since(&range("a", "b"), Version(10)));
        assert!(!set.written_since(&range("d", "e"), Version(10)));
        assert!(set.written_since(&KeyRange::all(), Version(10)));
        assert!(!set.written_since(&range("c", "c"), Version(10)));
    }

    #[test]
    fn what_was_overwritten_in_part_keeps_its_ends() {
        let mut set = ConflictSet::new(Version(0));
        set.insert(&range("a", "z"), Version(1));
        set.insert(&range("f", "g"), Version(2));
        set.insert(&KeyRange { from: "x".into(), to: None }, Version(3));
        assert!(!set.written_since(&range("g", "x"), Version(1)));
        assert!(set.written_since(&range("ff", "fz"), Version(1)));
        assert!(set.written_since(&range("zz", "zzz"), Version(2)));
    }

    #[test]
    fn memory_is_bounded_by_what_the_window_holds() {
        let mut set = ConflictSet::new(Version(0));
        for version in 1..=20_000u64 {
            let scattered = version.wrapping_mul(2_654_435_761) % 1_000_003;
            let key = Key::from(format!("{scattered:08}").as_str());
            set.forget(Version(version.saturating_sub(100)));
            set.insert(&KeyRange::single(&key), Version(version));
        }
        assert!(set.boundaries() < 1_500, "{}", set.boundaries());
    }

    /// Every key of a small space with the version that wrote it last.
    struct Naive {
        last: BTreeMap<Vec<u8>, Version>,
        keys: Vec<Vec<u8>>,
    }

    impl Naive {
        fn new() -> Naive {
            let letters = [0u8, 1, 2, 255];
            let mut keys = vec![vec![]];
            for a in letters {
                keys.push(vec![a]);
                keys.extend(letters.map(|b| vec![a, b]));
                keys.extend(letters.map(|b| vec![a, b, 0]));
            }
            Naive { last: BTreeMap::new(), keys }
        }
        fn covered<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = &'a Vec<u8>> {
            self.keys.iter().filter(|key| range.contains(key))
        }
        fn insert(&mut self, range: &KeyRange, version: Version) {
            let keys: Vec<_> = self.covered(range).cloned().collect();
            self.last.extend(keys.into_iter().map(|key| (key, version)));
        }
        fn written_since(&self, range: &KeyRange, version: Version) -> bool {
            self.covered(range).any(|key| self.last.get(key).is_some_and(|last| *last > version))
        }
    }

    fn keys() -> impl Strategy<Value = Key> {
        proptest::collection::vec(proptest::sample::select(vec![0u8, 1, 2, 255]), 0..3)
            .prop_map(Key::from)
    }

    fn ranges() -> impl Strategy<Value = KeyRange> {
        prop_oneof![
            keys().prop_map(|key| KeyRange::single(&key)),
            (keys(), keys())
                .prop_map(|(a, b)| KeyRange { from: a.clone().min(b.clone()), to: Some(a.max(b)) }),
            keys().prop_map(|from| KeyRange { from, to: None }),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_model(
            steps in proptest::collection::vec((ranges(), ranges(), 0u64..12, 0u64..3), 1..60),
            window in 1u64..20,
        ) {
            let (mut set, mut naive) = (ConflictSet::new(Version(0)), Naive::new());
            for (index, (write, read, back, pause)) in (1u64..).zip(steps) {
                let now = Version(index * 3 + pause);
                let at = now.minus(back).max(set.oldest());
                prop_assert_eq!(set.written_since(&read, at), naive.written_since(&read, at));
                set.forget(now.minus(window));
                set.insert(&write, now);
                naive.insert(&write, now);
            }
        }
    }
}
