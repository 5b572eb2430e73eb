//! How a log takes up an epoch: what is above the recovery version goes, what it lacks comes in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plinth_api::log::{Assignment, Entry};
use plinth_types::{Tag, Version};

use super::{AssignStep, Machine, Sizes};
use crate::records::{Row, TagRecord};
use crate::refusal::Refusal;

/// A tag's data as another log had it.
#[derive(Clone, Debug)]
pub struct Copied {
    /// The tag.
    pub tag: Tag,
    /// Everything up to here is durable in every member.
    pub popped: Version,
    /// The newest known committed version of the other log.
    pub known_committed: Version,
    /// The entries above `popped`, at least up to RV, with this tag's mutations only.
    pub entries: Vec<Entry>,
}

impl Machine {
    /// Takes up an epoch, with the copies that it asked for. Durable with what is queued now.
    /// Copies are merged into what is held, so nothing may be spilled then: see
    /// [`Machine::spilled`].
    ///
    /// # Errors
    /// As [`Machine::assign`]; a later epoch may have locked the log while it copied.
    pub fn take_up(&mut self, assignment: &Assignment, copied: Vec<Copied>) -> Result<(), Refusal> {
        if self.assign(assignment)? == AssignStep::Done {
            return Ok(());
        }
        let generation = assignment.generation;
        let recovery_version = generation.recovery_version;
        if self.end < recovery_version {
            // What it has is of a time that it was not there to see the end of.
            self.entries.clear();
            self.spilled = Version::ZERO;
            self.bytes = 0;
            self.sizes = Sizes::default();
            self.tags.clear();
            self.queue(Row::DropAbove(Version::ZERO));
        }
        self.truncate(recovery_version);
        self.merge(copied, recovery_version);
        self.end = recovery_version;
        for record in self.tags.values_mut() {
            record.assigned = false;
        }
        for team in &assignment.tags {
            let record = self.tags.entry(team.tag).or_default();
            record.assigned = true;
            // Those of before count on until the layout is recorded that names them no more.
            for store in &team.members {
                record.members.entry(*store).or_insert(record.popped);
            }
        }
        self.generations.retain(|old| old.epoch < generation.epoch);
        self.generations.push(generation);
        self.open = true;
        self.queue(Row::State(self.state()));
        Ok(())
    }

    fn truncate(&mut self, recovery_version: Version) {
        let void = self.entries.split_off(&recovery_version.plus(1));
        self.bytes -= void.values().map(|held| held.bytes).sum::<u64>();
        self.sizes.drop_above(recovery_version);
        // A recovery keeps what is committed, and nothing else was spilled.
        debug_assert!(self.spilled <= recovery_version, "something spilled is truncated");
        self.waiting.clear();
        self.truncations += 1;
        self.durable = self.durable.min(recovery_version);
        if !void.is_empty() {
            self.queue(Row::DropAbove(recovery_version));
        }
    }

    /// Puts copies in the place of what was held of their tags.
    fn merge(&mut self, copied: Vec<Copied>, recovery_version: Version) {
        if copied.is_empty() {
            return;
        }
        // What others have kept for longer comes back.
        self.dropped = Version::ZERO;
        let tags: BTreeSet<Tag> = copied.iter().map(|copy| copy.tag).collect();
        let mut changed: BTreeMap<Version, Entry> = BTreeMap::new();
        for (version, held) in &self.entries {
            if held.entry.messages.iter().any(|message| tags.contains(&message.tag)) {
                let mut entry = (*held.entry).clone();
                entry.messages.retain(|message| !tags.contains(&message.tag));
                changed.insert(*version, entry);
            }
        }
        for copy in copied {
            self.tags.insert(copy.tag, TagRecord { popped: copy.popped, ..TagRecord::default() });
            self.known_committed =
                self.known_committed.max(copy.known_committed.min(recovery_version));
            for entry in copy.entries {
                if entry.version > recovery_version || entry.version <= copy.popped {
                    continue;
                }
                let mine = changed.entry(entry.version).or_insert_with(|| {
                    match self.entries.get(&entry.version) {
                        Some(held) => (*held.entry).clone(),
                        None => Entry { messages: Vec::new(), ..entry.clone() },
                    }
                });
                mine.messages
                    .extend(entry.messages.into_iter().filter(|message| message.tag == copy.tag));
                mine.messages.sort_by_key(|message| message.tag);
            }
        }
        for entry in changed.into_values() {
            self.hold(Arc::new(entry));
        }
        // Entries have come in between others: they are counted anew, in their order.
        self.sizes = Sizes::of(self.entries.values().map(|held| &*held.entry), &self.tags);
    }
}
