//! What the director sees of the storages at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plinth_api::foreman::WorkerState;
use plinth_api::storage::{Status, TagStatus};
use plinth_system_config::{NodeEntry, Recorded, StorageMember, StorageTeam};
use plinth_types::{NodeId, ServiceKind, ServiceName, ServiceRef, StoreId, Tag, Zone};

use super::{Change, LAG, milliseconds};
use crate::registry::Registry;

/// What the director sees of the storages at one moment.
pub(crate) struct View<'a> {
    /// The configuration that is recorded.
    pub(crate) recorded: &'a Recorded,
    /// The nodes that report.
    pub(crate) nodes: &'a Registry,
    /// The storages that have just answered, of the layout or not.
    pub(crate) statuses: &'a BTreeMap<StoreId, Status>,
    /// How long the storages of the layout that have not answered have not.
    pub(crate) gone: &'a BTreeMap<StoreId, Duration>,
    /// How long newcomers have been whole without being members.
    pub(crate) whole: &'a BTreeMap<StoreId, Duration>,
    /// Log bytes that each storage of the layout is behind.
    pub(crate) backlogs: &'a BTreeMap<StoreId, u64>,
    /// Nodes whose foremen could lately not make a storage.
    pub(crate) unable: &'a BTreeSet<NodeId>,
}

fn is_majority(some: usize, all: usize) -> bool {
    some > all / 2
}

impl View<'_> {
    fn teams(&self) -> impl Iterator<Item = &StorageTeam<ServiceRef>> {
        self.recorded.config.layout.storage_teams.iter()
    }

    /// Every member of a team, once.
    pub(super) fn members(&self) -> BTreeMap<StoreId, ServiceRef> {
        let members = self.teams().flat_map(|team| &team.members);
        members.map(|member| (member.store, member.service.clone())).collect()
    }

    /// Every newcomer, once.
    pub(super) fn joining(&self) -> BTreeMap<StoreId, ServiceRef> {
        let joining = self.teams().flat_map(|team| &team.joining);
        joining.map(|newcomer| (newcomer.store, newcomer.service.clone())).collect()
    }

    /// The teams that a storage is a member of.
    pub(super) fn teams_of(
        &self,
        store: StoreId,
    ) -> impl Iterator<Item = &StorageTeam<ServiceRef>> {
        self.teams().filter(move |team| team.members.iter().any(|member| member.store == store))
    }

    /// How many copies there should be.
    pub(super) fn copies(&self, tag: Tag) -> usize {
        let parameters = &self.recorded.config.parameters;
        let copies =
            if tag == Tag::SYSTEM { parameters.config_team } else { parameters.replication };
        usize::try_from(copies).unwrap_or(usize::MAX)
    }

    pub(super) fn patience(&self) -> Duration {
        milliseconds(self.recorded.config.parameters.storage_lost_ms)
    }

    /// How long a storage of the layout has not answered.
    pub(super) fn gone(&self, store: StoreId) -> Duration {
        self.gone.get(&store).copied().unwrap_or_default()
    }

    /// What a storage has just said of a tag, in this epoch.
    fn status(&self, store: StoreId, tag: Tag) -> Option<&TagStatus> {
        let status = self.statuses.get(&store)?;
        let is_of_epoch = status.epoch == self.recorded.config.epoch;
        status.tags.iter().find(|status| status.tag == tag).filter(|_| is_of_epoch)
    }

    /// The members of a team that are here and have taken up the epoch.
    pub(super) fn here<'t>(
        &'t self,
        team: &'t StorageTeam<ServiceRef>,
    ) -> impl Iterator<Item = &'t StorageMember<ServiceRef>> {
        team.members.iter().filter(|member| self.status(member.store, team.tag).is_some())
    }

    /// Whether a storage has a whole copy of a tag, and is not far behind who is furthest.
    pub(super) fn is_current(&self, store: StoreId, tag: Tag) -> bool {
        let Some(status) = self.status(store, tag) else { return false };
        let members = self.recorded.config.layout.team(tag).iter();
        let newest = members.filter_map(|member| self.status(member.store, tag)).map(|s| s.version);
        let newest = newest.max().unwrap_or_default();
        status.copying.is_none() && status.version.plus(LAG) >= newest
    }

    /// Whether a newcomer has a whole copy of everything that it joins the teams of.
    pub(super) fn is_whole(&self, store: StoreId) -> bool {
        self.teams()
            .filter(|team| team.joining.iter().any(|newcomer| newcomer.store == store))
            .all(|team| self.is_current(store, team.tag))
    }

    /// Whether a newcomer has been whole for so long that whoever must confirm it is not only slow.
    pub(super) fn is_stuck(&self, store: StoreId) -> bool {
        self.whole.get(&store).is_some_and(|whole| *whole >= self.patience())
    }

    /// Why a member should have a successor.
    pub(super) fn should_leave(&self, store: StoreId) -> Option<String> {
        let gone = self.gone(store);
        (gone >= self.patience()).then(|| format!("has been gone for {} s", gone.as_secs()))
    }

    /// Whether a member is on a node that is being drained.
    pub(super) fn is_to_go(&self, store: StoreId) -> bool {
        self.members().get(&store).is_some_and(|service| !self.is_usable(&service.node))
    }

    /// Log bytes that a storage is behind.
    pub(super) fn backlog(&self, store: StoreId) -> u64 {
        self.backlogs.get(&store).copied().unwrap_or(0)
    }

    /// Whether a storage is further behind than the logs should keep data for, or do.
    pub(super) fn is_lagging(&self, store: StoreId) -> bool {
        self.lacks_data(store)
            || self.backlog(store) > self.recorded.config.parameters.max_log_backlog_bytes
    }

    /// Whether a storage has lost what it had, and the logs have dropped it since.
    pub(super) fn lacks_data(&self, store: StoreId) -> bool {
        let Some(status) = self.statuses.get(&store) else { return false };
        let is_of_epoch = status.epoch == self.recorded.config.epoch;
        // A member had a whole copy once. One that has a part of it found its disk as it was before
        // that, and takes up no epoch as a member, so it is asked whatever epoch it is of.
        let is_half = |team: &StorageTeam<ServiceRef>| {
            status.tags.iter().any(|held| held.tag == team.tag && held.copying.is_some())
        };
        (is_of_epoch && !status.lacks.is_empty()) || self.teams_of(store).any(is_half)
    }

    pub(super) fn zone(&self, node: &NodeId) -> Zone {
        match (self.nodes.node(node), self.recorded.config.nodes.get(node)) {
            (Some(report), _) => report.zone.clone(),
            (None, Some(entry)) => entry.zone.clone(),
            (None, None) => Zone::of_node(node),
        }
    }

    /// How many members of a team are in each zone.
    pub(super) fn zones_of(&self, team: &StorageTeam<ServiceRef>) -> BTreeMap<Zone, usize> {
        let mut zones = BTreeMap::new();
        for member in &team.members {
            *zones.entry(self.zone(&member.service.node)).or_default() += 1;
        }
        zones
    }

    /// Whether each team of a member is spread better with somebody on that node in its place.
    pub(super) fn is_crowded(&self, member: StoreId, node: &NodeId) -> bool {
        let to = self.zone(node);
        let is_better = |team: &StorageTeam<ServiceRef>| {
            let zones = self.zones_of(team);
            let count = |zone: &Zone| zones.get(zone).copied().unwrap_or(0);
            let from = team.members.iter().find(|one| one.store == member);
            from.is_some_and(|from| count(&self.zone(&from.service.node)) >= count(&to) + 2)
        };
        let mut teams = self.teams_of(member).peekable();
        teams.peek().is_some() && teams.all(is_better)
    }

    /// Whether there is a node where a member's copy would be spread better.
    pub(super) fn has_better_place(&self, member: StoreId) -> bool {
        self.sites().any(|site| self.is_crowded(member, site))
    }

    /// The nodes that may get a storage.
    fn sites(&self) -> impl Iterator<Item = &NodeId> {
        let can = |node: &&NodeId| {
            let makes = self.nodes.node(node).is_some_and(|report| {
                report.settled && report.kinds.contains(&ServiceKind::Storage)
            });
            (makes && !self.unable.contains(*node)) || self.blank_storage(node).is_some()
        };
        let usable = self.nodes.nodes().map(|report| &report.node);
        usable.filter(|node| self.is_usable(node)).filter(can)
    }

    /// The best node for a storage that takes these places: in the zones with the fewest copies, and
    /// then with the fewest storages.
    pub(super) fn best_site(&self, places: &[(Tag, Option<StoreId>)]) -> Option<NodeId> {
        let rank = |node: &NodeId| {
            let zone = self.zone(node);
            let in_zone = |(tag, replaces): &(Tag, Option<StoreId>)| {
                let team = self.recorded.config.layout.team(*tag).iter();
                let others = team.filter(|member| Some(member.store) != *replaces);
                others.filter(|member| self.zone(&member.service.node) == zone).count()
            };
            let crowd = places.iter().map(in_zone).max().unwrap_or(0);
            let is_used = |status: &Status| !status.tags.is_empty();
            let here = self
                .storages_on(node)
                .filter(|(store, _)| self.statuses.get(store).is_none_or(is_used))
                .count();
            (crowd, here, self.blank_storage(node).is_none(), node.clone())
        };
        self.sites().min_by_key(|node| rank(node)).cloned()
    }

    /// Whether a node has a copy already of something that is to have places.
    pub(super) fn has_copy(&self, node: &NodeId, places: &[(Tag, Option<StoreId>)]) -> bool {
        let layout = &self.recorded.config.layout;
        let mut members = places.iter().flat_map(|(tag, _)| layout.team(*tag));
        members.any(|member| member.service.node == *node)
    }

    /// A storage of a node that runs, that no layout names, neither by its directory nor by its name,
    /// and that has never had anything. The name may be that of a member whose disk was wiped: it
    /// stands for the old directory until that one has left.
    pub(super) fn blank_storage(&self, node: &NodeId) -> Option<(StoreId, ServiceRef)> {
        let layout = &self.recorded.config.layout;
        let named = self.named();
        let storages = self.storages_on(node).map(|(store, name)| {
            let service = ServiceRef::new(name, node.clone());
            (store, service)
        });
        let is_blank = |status: &Status| status.tags.is_empty();
        storages
            .filter(|(store, service)| !layout.names_store(*store) && !named.contains(service))
            .find(|(store, _)| self.statuses.get(store).is_some_and(is_blank))
    }

    /// The storages of the layout by name.
    fn named(&self) -> BTreeSet<ServiceRef> {
        self.members().into_values().chain(self.joining().into_values()).collect()
    }

    fn storages_on(&self, node: &NodeId) -> impl Iterator<Item = (StoreId, ServiceName)> {
        let workers = self.nodes.node(node).into_iter().flat_map(|report| &report.workers);
        workers
            .filter(|worker| worker.name.kind == ServiceKind::Storage)
            .filter(|worker| worker.state == WorkerState::Up)
            .filter_map(|worker| Some((worker.store?, worker.name)))
    }

    /// Storages that no layout names and that have data of an earlier time; none while a copy is
    /// lacking, as long as which nothing is thrown away. What was started by something else than a
    /// foreman, no foreman can end.
    pub(crate) fn leftovers(&self) -> Vec<(StoreId, ServiceRef)> {
        let layout = &self.recorded.config.layout;
        let mut leftovers = Vec::new();
        if !self.teams().all(|team| self.here(team).count() >= self.copies(team.tag)) {
            return leftovers;
        }
        for report in self.nodes.nodes().filter(|report| !self.is_removed(&report.node)) {
            for worker in &report.workers {
                let Some(store) = worker.store else { continue };
                let has_data =
                    self.statuses.get(&store).is_some_and(|status| !status.tags.is_empty());
                let is_ours = worker.name.kind == ServiceKind::Storage && !worker.announced;
                if is_ours && has_data && !layout.names_store(store) {
                    leftovers.push((store, ServiceRef::new(worker.name, report.node.clone())));
                }
            }
        }
        leftovers
    }

    /// The lowest name of a storage that nobody has on the node, nor is known by in the layout.
    pub(super) fn free_name(&self, node: &NodeId) -> Option<ServiceRef> {
        let report = self.nodes.node(node)?;
        let named = self.named();
        (1..=u32::MAX).find_map(|number| {
            let name = ServiceName::new(ServiceKind::Storage, number);
            let service = ServiceRef::new(name, node.clone());
            let is_free = report.workers.iter().all(|worker| worker.name != name);
            (is_free && !named.contains(&service)).then_some(service)
        })
    }

    /// Whether a majority of the config team is here that confirms a change, of the team before it and
    /// of the one after. Who leaves confirms nothing: it follows the logs no more once the change is
    /// public, which is before it is proved. So a team of two stays one of two.
    pub(super) fn is_provable(&self, change: &Change) -> bool {
        let next = change.apply(self.recorded, &BTreeMap::new());
        let staying = next.config.layout.config_team();
        [self.recorded, &next].into_iter().all(|recorded| {
            let team = recorded.config.layout.config_team();
            let here = team.iter().filter(|member| {
                let stays = staying.iter().any(|one| one.store == member.store);
                let status = self.status(member.store, Tag::SYSTEM);
                stays && status.is_some_and(|status| status.copying.is_none())
            });
            is_majority(here.count(), team.len())
        })
    }

    /// The nodes that report, as the configuration names them.
    pub(crate) fn node_entries(&self) -> BTreeMap<NodeId, NodeEntry> {
        self.nodes.nodes().map(|report| (report.node.clone(), report.entry())).collect()
    }
}
