//! The shard map: which tag each key belongs to.

use plinth_types::{Key, KeyRange, SYSTEM_SHARD, SYSTEM_SHARD_END, Tag};

use crate::{ShardMap, ShardSummary};

/// What is wrong with a shard map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardProblem {
    /// There is no shard.
    #[error("there is no shard")]
    Empty,
    /// Keys before the first shard belong to nobody.
    #[error("the first shard starts at {0:?} and not at the empty key")]
    FirstKey(Key),
    /// A start key is not above the one before it.
    #[error("the shard that starts at {next:?} follows the one that starts at {previous:?}")]
    Order {
        /// The start key before.
        previous: Key,
        /// The start key that should be above it.
        next: Key,
    },
    /// A key of the system shard has the tag of user data.
    #[error("keys of the system shard from {from:?} on have tag {tag} and not tag {}", Tag::SYSTEM)]
    SystemKeysElsewhere {
        /// The first such key.
        from: Key,
        /// The tag they have.
        tag: Tag,
    },
    /// A user's key has the system's tag.
    #[error("keys outside the system shard from {from:?} on have the system's tag")]
    UserKeysInSystem {
        /// The first such key.
        from: Key,
    },
}

impl ShardMap {
    /// The map of a new cluster: the configuration apart, everything else in one shard's tag.
    #[must_use]
    pub fn initial() -> ShardMap {
        let data = Tag(1);
        ShardMap(vec![
            (Key::default(), data),
            (Key::from_static(SYSTEM_SHARD), Tag::SYSTEM),
            (Key::from_static(SYSTEM_SHARD_END), data),
        ])
    }

    /// The tag of a key; none only if the map is not valid.
    #[must_use]
    pub fn tag_of(&self, key: &[u8]) -> Option<Tag> {
        let after = self.0.partition_point(|(start, _)| start.as_bytes() <= key);
        self.0.get(after.checked_sub(1)?).map(|(_, tag)| *tag)
    }

    /// Every shard, as the range of its keys and their tag, in order.
    pub fn shards(&self) -> impl Iterator<Item = (KeyRange, Tag)> {
        self.0.iter().enumerate().map(|(index, (start, tag))| {
            let to = self.0.get(index + 1).map(|(next, _)| next.clone());
            (KeyRange { from: start.clone(), to }, *tag)
        })
    }

    /// The parts of `range` by shard, in order, each with its tag.
    pub fn within<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = (KeyRange, Tag)> + 'a {
        let first = self.0.partition_point(|(start, _)| *start <= range.from).saturating_sub(1);
        self.shards()
            .skip(first)
            .take_while(|(shard, _)| range.to.as_ref().is_none_or(|to| shard.from < *to))
            .filter_map(|(shard, tag)| Some((shard.intersection(range)?, tag)))
    }

    /// The ranges of a tag, in order.
    pub fn ranges_of(&self, tag: Tag) -> impl Iterator<Item = KeyRange> {
        self.shards().filter(move |(_, of)| *of == tag).map(|(range, _)| range)
    }

    /// Every tag, once, in order.
    #[must_use]
    pub fn tags(&self) -> Vec<Tag> {
        let mut tags: Vec<Tag> = self.0.iter().map(|(_, tag)| *tag).collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    /// What stands in the configuration for this map. The checksum covers, for each shard, the
    /// length of its start key, the key and the tag, so that no byte can move from one to the next.
    #[must_use]
    pub fn summary(&self) -> ShardSummary {
        let checksum = self.0.iter().fold(0, |checksum, (start, tag)| {
            let length = (start.as_bytes().len() as u64).to_le_bytes();
            let checksum = crc32c::crc32c_append(checksum, &length);
            let checksum = crc32c::crc32c_append(checksum, start.as_bytes());
            crc32c::crc32c_append(checksum, &tag.0.to_le_bytes())
        });
        ShardSummary { count: u32::try_from(self.0.len()).unwrap_or(u32::MAX), checksum }
    }

    /// Everything that is wrong with the map: it must cover every key once, with the system's tag
    /// on exactly the system shard.
    #[must_use]
    pub fn problems(&self) -> Vec<ShardProblem> {
        let mut problems = Vec::new();
        match self.0.first() {
            None => problems.push(ShardProblem::Empty),
            Some((start, _)) if !start.as_bytes().is_empty() => {
                problems.push(ShardProblem::FirstKey(start.clone()));
            }
            Some(_) => {}
        }
        for pair in self.0.windows(2) {
            if let [(previous, _), (next, _)] = pair
                && previous >= next
            {
                problems
                    .push(ShardProblem::Order { previous: previous.clone(), next: next.clone() });
            }
        }
        let system = KeyRange::system_shard();
        let before = KeyRange::new(Key::default(), Key::from_static(SYSTEM_SHARD));
        let after = KeyRange { from: Key::from_static(SYSTEM_SHARD_END), to: None };
        for (shard, tag) in self.shards() {
            if tag != Tag::SYSTEM {
                problems.extend(
                    shard
                        .intersection(&system)
                        .map(|keys| ShardProblem::SystemKeysElsewhere { from: keys.from, tag }),
                );
                continue;
            }
            for users in [&before, &after] {
                problems.extend(
                    shard
                        .intersection(users)
                        .map(|keys| ShardProblem::UserKeysInSystem { from: keys.from }),
                );
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_map_keeps_the_configuration_apart() {
        let map = ShardMap::initial();
        assert_eq!(map.problems(), []);
        assert_eq!(map.tag_of(b""), Some(Tag(1)));
        assert_eq!(map.tag_of(b"\xff/system"), Some(Tag(1)));
        assert_eq!(map.tag_of(b"\xff/system/"), Some(Tag::SYSTEM));
        assert_eq!(map.tag_of(b"\xff/system/\xff"), Some(Tag::SYSTEM));
        assert_eq!(map.tag_of(b"\xff/system0"), Some(Tag(1)));
        assert_eq!(map.tags(), [Tag(0), Tag(1)]);
        assert_eq!(map.ranges_of(Tag::SYSTEM).collect::<Vec<_>>(), [KeyRange::system_shard()]);
    }

    #[test]
    fn problems_are_all_named() {
        assert_eq!(ShardMap(vec![]).problems(), [ShardProblem::Empty]);
        let map = ShardMap(vec![("b".into(), Tag(0)), ("a".into(), Tag(2))]);
        assert_eq!(
            map.problems(),
            [
                ShardProblem::FirstKey("b".into()),
                ShardProblem::Order { previous: "b".into(), next: "a".into() },
                ShardProblem::SystemKeysElsewhere {
                    from: Key::from_static(SYSTEM_SHARD),
                    tag: Tag(2)
                },
            ]
        );
        let whole = ShardMap(vec![(Key::default(), Tag::SYSTEM)]);
        assert_eq!(whole.problems().len(), 2);
    }

    fn maps() -> impl Strategy<Value = ShardMap> {
        proptest::collection::btree_map(proptest::collection::vec(0u8..4, 1..4), 0u32..3, 0..6)
            .prop_map(|starts| {
                let rest = starts.into_iter().map(|(key, tag)| (Key::from(key), Tag(tag)));
                ShardMap(std::iter::once((Key::default(), Tag(1))).chain(rest).collect())
            })
    }

    fn keys() -> impl Strategy<Value = Key> {
        proptest::collection::vec(0u8..4, 0..4).prop_map(Key::from)
    }

    proptest! {
        #[test]
        fn parts_of_a_range_agree_with_lookups(map in maps(), a in keys(), b in keys(), open: bool, probe in keys()) {
            let (from, to) = if a <= b { (a, b) } else { (b, a) };
            let range = KeyRange { from, to: (!open).then_some(to) };
            let parts: Vec<_> = map.within(&range).collect();
            let hits: Vec<Tag> = parts
                .iter()
                .filter(|(part, _)| part.contains(probe.as_bytes()))
                .map(|(_, tag)| *tag)
                .collect();
            let expected: Vec<Tag> =
                range.contains(probe.as_bytes()).then(|| map.tag_of(probe.as_bytes())).flatten().into_iter().collect();
            prop_assert_eq!(hits, expected);
            prop_assert!(parts.iter().all(|(part, _)| !part.is_empty()));
        }

        #[test]
        fn the_summary_tells_maps_apart(a in maps(), b in maps()) {
            prop_assert_eq!(a == b, a.summary() == b.summary());
        }
    }
}
