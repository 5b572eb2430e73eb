//! The members of the tags' teams: those that the log keeps data for.
//!
//! The assignment names them before its layout is recorded, and the layout may yet be refused; so what
//! counts then are those that counted before *and* those of the assignment. Once the log is told to
//! keep a configuration of the epoch, that one is recorded, and its layout says who counts: members
//! and newcomers that are given a copy. A newcomer counts from the version on that the tag has been
//! dropped up to; whoever is none of them any more counts no longer. This is durable together with the
//! configuration, before that is answered. So whoever has heard that every log keeps a configuration
//! knows that all data is there from where a member's disk ends, for everybody whom it names.

use plinth_api::log::{MemberBacklog, PopRequest};
use plinth_system_config::StorageTeam;
use plinth_types::{StoreId, Tag, Version};

use super::Machine;
use crate::records::Row;

impl Machine {
    /// Takes the members from the configuration that is kept, where that is of the epoch served.
    /// Durable with what is queued now.
    pub fn take_members(&mut self) {
        let epoch = self.generation().map(|generation| generation.epoch);
        let Some(kept) = &self.config else { return };
        if !self.open || Some(kept.config.layout.epoch) != epoch {
            return;
        }
        let mut is_dropped = false;
        for team in &kept.config.layout.storage_teams {
            let Some(record) = self.tags.get_mut(&team.tag).filter(|record| record.assigned) else {
                continue;
            };
            let stores: Vec<StoreId> =
                StorageTeam::everybody(team).map(|(store, _)| store).collect();
            let popped = |store: &StoreId| record.members.get(store).copied();
            let members =
                stores.iter().map(|store| (*store, popped(store).unwrap_or(record.popped)));
            record.members = members.collect();
            let least = record.members.values().copied().min().unwrap_or(record.popped);
            if least > record.popped {
                record.popped = least;
                self.sizes.drop_through(team.tag, least);
                is_dropped = true;
            }
        }
        if is_dropped {
            self.drop_what_is_popped();
        }
        self.queue(Row::State(self.state()));
    }

    /// What a careless log would do: as soon as somebody joins, it forgets who is to be replaced, and
    /// keeps nothing for who joins. For a test that shows that this is found out.
    pub(crate) fn forget_newcomers(&mut self) {
        let Some(kept) = &self.config else { return };
        let mut popped = Vec::new();
        for StorageTeam { tag, joining, .. } in &kept.config.layout.storage_teams {
            let Some(record) = self.tags.get_mut(tag) else { continue };
            let is_gone = |store: &StoreId| {
                joining.iter().any(|one| one.store == *store || one.replaces == Some(*store))
            };
            record.members.retain(|store, _| !is_gone(store));
            popped.extend(record.members.iter().map(|(store, version)| (*tag, *store, *version)));
        }
        let epoch = self.locked();
        for (tag, store, version) in popped {
            // A log that is not open takes no pops, and the next ones do the same.
            let _ = self.pop(&PopRequest { epoch, tag, store, version });
        }
    }

    /// Up to where a tag has been dropped; 0 where it is not held.
    #[must_use]
    pub fn popped(&self, tag: Tag) -> Version {
        self.tags.get(&tag).map_or(Version::ZERO, |record| record.popped)
    }

    /// How far each member is behind.
    pub(super) fn backlogs(&self) -> Vec<MemberBacklog> {
        let tags = self.tags.iter().filter(|(_, record)| record.assigned);
        let backlogs = tags.flat_map(|(&tag, record)| {
            record.members.iter().map(move |(&store, &popped)| {
                let bytes = self.sizes.above(tag, popped);
                MemberBacklog { tag, store, popped, bytes }
            })
        });
        backlogs.collect()
    }
}
