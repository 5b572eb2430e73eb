//! Whether the logs could be spread over zones better than they are. Pure.
//!
//! The logs of an epoch are its logs until it ends: which log has which tag never changes within one.
//! Where a zone was away when they were recruited, two of them share another zone, and a zone that
//! returns is of no use until the next recovery. So there has to be one. It is begun only once a log
//! runs in that zone and answers: a recovery takes that one first ([`crate::phases::recruiting`]), and
//! a foreman that can't make one costs no epoch.

use std::collections::{BTreeMap, BTreeSet};

use plinth_api::foreman::WorkerState;
use plinth_system_config::LogEntry;
use plinth_types::{NodeId, Pid, ServiceKind, ServiceName, ServiceRef, Tag, Zone};

use super::View;

/// A log in a zone where one is lacking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogSite {
    /// It runs, and the layout does not name it.
    Standing(ServiceRef, Pid),
    /// A foreman is to make it.
    Make(ServiceRef),
}

impl View<'_> {
    fn logs(&self) -> &[LogEntry<ServiceRef>] {
        &self.recorded.config.layout.logs
    }

    /// How many of some logs are in each zone.
    fn zones_of_logs<'l>(
        &self,
        logs: impl Iterator<Item = &'l LogEntry<ServiceRef>>,
    ) -> BTreeMap<Zone, usize> {
        let mut zones = BTreeMap::new();
        for log in logs {
            *zones.entry(self.zone(&log.service.node)).or_default() += 1;
        }
        zones
    }

    /// How many of a tag's logs are in each zone.
    pub(super) fn zones_of_logs_of(&self, tag: Tag) -> BTreeMap<Zone, usize> {
        self.zones_of_logs(self.recorded.config.layout.logs_of(tag))
    }

    /// A log with which the next epoch's would be spread better than this one's; none where there is
    /// no such place.
    pub(crate) fn better_log(&self) -> Option<LogSite> {
        let zones = self.zones_of_logs(self.logs().iter());
        let most = zones.values().copied().max()?;
        let count = |node: &NodeId| zones.get(&self.zone(node)).copied().unwrap_or(0);
        let nodes = self.nodes.nodes().filter(|report| report.settled);
        let nodes = nodes.filter(|report| self.is_usable(&report.node));
        let better = nodes.filter(|report| most >= count(&report.node) + 2);
        let sites = better.filter_map(|report| {
            let site = self.log_on(&report.node)?;
            let is_made = matches!(site, LogSite::Make(_));
            Some((count(&report.node), is_made, &report.node, site))
        });
        let best = sites.min_by(|(a, b, c, _), (x, y, z, _)| (a, b, c).cmp(&(x, y, z)));
        best.map(|(.., site)| site)
    }

    fn log_on(&self, node: &NodeId) -> Option<LogSite> {
        if self.unable.contains(node) {
            return None;
        }
        let report = self.nodes.node(node)?;
        let named: BTreeSet<&ServiceRef> = self.logs().iter().map(|log| &log.service).collect();
        let named_store = |store| self.recorded.config.layout.names_store(store);
        let logs = report.workers.iter().filter(|worker| worker.name.kind == ServiceKind::Log);
        let mut standing =
            logs.filter(|worker| worker.state == WorkerState::Up).filter_map(|log| {
                let service = ServiceRef::new(log.name, node.clone());
                let is_free = !named.contains(&service) && !named_store(log.store?);
                is_free.then_some(LogSite::Standing(service, log.pid.clone()?))
            });
        let make = || {
            let name = (1..=u32::MAX).map(|number| ServiceName::new(ServiceKind::Log, number));
            let mut free = name.filter(|name| {
                let is_taken = report.workers.iter().any(|worker| worker.name == *name);
                !is_taken && !named.contains(&ServiceRef::new(*name, node.clone()))
            });
            let is_made = report.kinds.contains(&ServiceKind::Log);
            Some(LogSite::Make(ServiceRef::new(free.next().filter(|_| is_made)?, node.clone())))
        };
        standing.next().or_else(make)
    }
}
