//! How the transaction system leaves nodes that are being drained. Pure.
//!
//! Storages move while the epoch lasts ([`super::next`]). The other components are the epoch's until it
//! ends, so there has to be another one. It is begun only once everything that would be lacking stands by
//! on other nodes and answers: a recovery takes whoever runs there before it takes anybody on a node that
//! is being drained ([`crate::phases::recruiting`]), and a foreman that can't make a worker costs no
//! epoch. A copy that is under way would have to be taken up again, so copies come first.

use std::collections::{BTreeMap, BTreeSet};

use plinth_api::foreman::{NodeReport, WorkerState};
use plinth_system_config::Standing;
use plinth_types::{NodeId, Pid, ServiceKind, ServiceName, ServiceRef};

use super::View;

/// What is next for what is on nodes that are being drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// A foreman is to make this, which stands by then.
    Make(ServiceRef),
    /// These stand by, so that the next epoch needs nobody on such a node.
    Ready(Vec<(ServiceRef, Pid)>),
}

impl View<'_> {
    /// Whether a node may get something new.
    pub(super) fn is_usable(&self, node: &NodeId) -> bool {
        self.recorded.config.standing(node).is_in_use()
    }

    /// Whether a node was removed: nothing that is on it is of any use.
    pub(super) fn is_removed(&self, node: &NodeId) -> bool {
        self.recorded.config.standing(node) == Standing::Removed
    }

    /// What is next for what is on nodes that are being drained; nothing where nothing but storages is,
    /// or where no other node can have it. `director` is who serves the epoch.
    pub(crate) fn leaving(&self, director: &ServiceRef) -> Option<Leaving> {
        let storages = self.members().into_values().chain(self.joining().into_values());
        let is_busy = !self.joining().is_empty();
        if is_busy || storages.into_iter().any(|storage| !self.is_usable(&storage.node)) {
            return None;
        }
        let mut displaced: BTreeMap<ServiceKind, usize> = BTreeMap::new();
        for (kind, service) in self.recorded.config.layout.services() {
            let is_of_epoch = !matches!(kind, ServiceKind::Storage | ServiceKind::Director);
            if is_of_epoch && !self.is_usable(&service.node) {
                *displaced.entry(kind).or_default() += 1;
            }
        }
        if displaced.contains_key(&ServiceKind::Log) && !self.has_nodes_for_logs() {
            return None;
        }
        let mut standing = Vec::new();
        for (kind, count) in &displaced {
            let here = self.standing_by(*kind);
            if here.len() < *count {
                return self.site_for(*kind).map(Leaving::Make);
            }
            standing.extend(here.into_iter().take(*count));
        }
        if !self.is_usable(&director.node) {
            // Where there is no other one, the next would be on such a node again.
            let other = self.standing_by(ServiceKind::Director).into_iter().next();
            standing.extend(other);
        }
        (!standing.is_empty()).then_some(Leaving::Ready(standing))
    }

    /// The workers of a kind that run on nodes in use and that the layout does not name, those on the
    /// nodes with the fewest of the layout's first.
    fn standing_by(&self, kind: ServiceKind) -> Vec<(ServiceRef, Pid)> {
        let (named, crowd) = (self.named_of(kind), self.crowd(kind));
        let mut found = Vec::new();
        for report in self.usable_nodes() {
            for worker in &report.workers {
                let service = ServiceRef::new(worker.name, report.node.clone());
                let is_free = worker.name.kind == kind
                    && worker.state == WorkerState::Up
                    && !named.contains(&service)
                    && (worker.store.is_some() || !kind.is_durable())
                    && worker
                        .store
                        .is_none_or(|store| !self.recorded.config.layout.names_store(store));
                if is_free && let Some(pid) = worker.pid.clone() {
                    found.push((service, pid));
                }
            }
        }
        found.sort_by_key(|(service, _)| (crowd.get(&service.node).copied(), service.clone()));
        found
    }

    /// What a foreman is to make of a kind: where the layout has the fewest of it. One that can't now is
    /// waited for, rather than two in one zone.
    fn site_for(&self, kind: ServiceKind) -> Option<ServiceRef> {
        let crowd = self.crowd(kind);
        let makes = |report: &&NodeReport| report.kinds.contains(&kind);
        let least =
            self.usable_nodes().filter(makes).map(|report| crowd.get(&report.node)).min()?;
        let sites = self.usable_nodes().filter(makes).filter(|report| {
            let is_able = report.settled && !self.unable.contains(&report.node);
            is_able && crowd.get(&report.node) == least
        });
        let here = |report: &NodeReport| {
            let workers = report.workers.iter().filter(|worker| worker.name.kind == kind);
            workers.count()
        };
        let best = sites.min_by_key(|report| (here(report), &report.node))?;
        let named = self.named_of(kind);
        let mut names = (1..=u32::MAX).map(|number| ServiceName::new(kind, number));
        names.find_map(|name| {
            let service = ServiceRef::new(name, best.node.clone());
            let is_taken = best.workers.iter().any(|worker| worker.name == name);
            (!is_taken && !named.contains(&service)).then_some(service)
        })
    }

    /// Whether the next recovery leaves the logs that are on nodes that are being drained: each copy of a
    /// tag can have a node of its own without them.
    fn has_nodes_for_logs(&self) -> bool {
        let can = |report: &&NodeReport| {
            let mut logs = report.workers.iter().filter(|w| w.name.kind == ServiceKind::Log);
            report.kinds.contains(&ServiceKind::Log)
                || logs.any(|log| log.state == WorkerState::Up && log.store.is_some())
        };
        let copies = self.recorded.config.parameters.replication;
        self.usable_nodes().filter(can).count() >= usize::try_from(copies).unwrap_or(usize::MAX)
    }

    fn usable_nodes(&self) -> impl Iterator<Item = &NodeReport> {
        self.nodes.nodes().filter(|report| self.is_usable(&report.node))
    }

    fn named_of(&self, kind: ServiceKind) -> BTreeSet<ServiceRef> {
        let named = self.recorded.config.layout.services();
        named.filter(|(of, _)| *of == kind).map(|(_, service)| service.clone()).collect()
    }

    /// How many of a kind the layout names on each node in use, those of its zone included.
    fn crowd(&self, kind: ServiceKind) -> BTreeMap<NodeId, usize> {
        let mut zones = BTreeMap::new();
        for service in self.named_of(kind).iter().filter(|service| self.is_usable(&service.node)) {
            *zones.entry(self.zone(&service.node)).or_insert(0) += 1;
        }
        let crowd = self
            .usable_nodes()
            .map(|report| (report.node.clone(), zones.get(&report.zone).copied().unwrap_or(0)));
        crowd.collect()
    }
}
