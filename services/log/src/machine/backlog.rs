//! How much of a tag its members have yet to make durable, in bytes: what the log can't drop for
//! them. Counted in chunks, so that it costs little to know.

use std::collections::{BTreeMap, VecDeque};

use plinth_api::log::Entry;
use plinth_types::{Tag, Version};

use super::message_bytes;
use crate::records::TagRecord;

/// Bytes that are counted together.
const CHUNK: u64 = 64 << 10;

/// The sizes of what was pushed, by tag.
#[derive(Clone, Debug, Default)]
pub struct Sizes(BTreeMap<Tag, VecDeque<Chunk>>);

/// Some entries in a row.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    /// The version of the last one.
    last: Version,
    bytes: u64,
}

impl Sizes {
    /// The sizes of entries in their order, without what has been dropped of each tag.
    #[must_use]
    pub fn of<'e>(
        entries: impl IntoIterator<Item = &'e Entry>,
        tags: &BTreeMap<Tag, TagRecord>,
    ) -> Sizes {
        let mut sizes = Sizes::default();
        entries.into_iter().for_each(|entry| sizes.add(entry));
        for (tag, record) in tags {
            sizes.drop_through(*tag, record.popped);
        }
        sizes
    }

    /// Counts an entry. Entries come in ascending order.
    pub fn add(&mut self, entry: &Entry) {
        for message in &entry.messages {
            let (chunks, bytes) = (self.0.entry(message.tag).or_default(), message_bytes(message));
            match chunks.back_mut() {
                Some(chunk) if chunk.bytes < CHUNK => {
                    chunk.last = entry.version;
                    chunk.bytes += bytes;
                }
                Some(_) | None => chunks.push_back(Chunk { last: entry.version, bytes }),
            }
        }
    }

    /// What is up to here of a tag has been dropped.
    pub fn drop_through(&mut self, tag: Tag, popped: Version) {
        if let Some(chunks) = self.0.get_mut(&tag) {
            while chunks.pop_front_if(|chunk| chunk.last <= popped).is_some() {}
        }
    }

    /// Everything above this version has been dropped.
    pub fn drop_above(&mut self, version: Version) {
        for chunks in self.0.values_mut() {
            while chunks.pop_back_if(|chunk| chunk.last > version).is_some() {}
        }
    }

    /// Bytes of a tag above a version, about.
    #[must_use]
    pub fn above(&self, tag: Tag, version: Version) -> u64 {
        let chunks = self.0.get(&tag).into_iter().flatten().rev();
        chunks.take_while(|chunk| chunk.last > version).map(|chunk| chunk.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_api::log::TagMutations;
    use plinth_types::{Epoch, Mutation};

    fn entry(version: u64, bytes: usize) -> Entry {
        let set = Mutation::Set { key: "k".into(), value: vec![0; bytes].into() };
        Entry {
            epoch: Epoch(1),
            prev: Version(version - 1),
            version: Version(version),
            known_committed: Version(0),
            messages: vec![TagMutations { tag: Tag(1), mutations: vec![set] }],
            traceparent: None,
        }
    }

    #[test]
    fn a_member_is_behind_by_what_it_has_not_popped() {
        let mut sizes = Sizes::default();
        for version in 1..=10 {
            sizes.add(&entry(version, 100_000));
        }
        let all = sizes.above(Tag(1), Version(0));
        assert!((1_000_000..1_001_000).contains(&all), "{all}");
        assert_eq!(sizes.above(Tag(1), Version(10)), 0);
        assert_eq!(sizes.above(Tag(2), Version(0)), 0);
        let half = sizes.above(Tag(1), Version(5));
        assert!((500_000..501_000).contains(&half), "{half}");
        sizes.drop_through(Tag(1), Version(5));
        assert_eq!(sizes.above(Tag(1), Version(0)), half);
        sizes.drop_above(Version(5));
        assert_eq!(sizes.above(Tag(1), Version(0)), 0);
    }
}
