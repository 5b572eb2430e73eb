//! The nodes that have reported lately. In memory only: a node that does not report any more is
//! gone, and a coordinator that starts knows nobody.

use std::collections::{BTreeMap, BTreeSet};

use plinth_api::coordinator::ProcessRow;
use plinth_api::foreman::{NodeReport, Worker, WorkerState};
use plinth_system_config::Standing;
use plinth_types::{
    ClusterId, Incarnation, NodeId, Pid, ServiceKind, ServiceName, ServiceRef, StoreId,
};
use tokio::time::Instant;

use crate::config::REPORT_LIFE;

/// A director that stands by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Which service.
    pub(crate) service: ServiceRef,
    /// Which process.
    pub(crate) pid: Pid,
}

/// Node reports, each kept for [`REPORT_LIFE`].
#[derive(Debug, Default)]
pub(crate) struct Registry {
    reports: BTreeMap<NodeId, (Instant, NodeReport)>,
}

impl Registry {
    /// Takes up a report. Answers whether it says something new.
    pub(crate) fn report(&mut self, now: Instant, report: NodeReport) -> bool {
        self.expire(now);
        let before = self.reports.insert(report.node.clone(), (now, report.clone()));
        before.is_none_or(|(_, before)| before != report)
    }

    /// Forgets who has not reported for too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.reports.retain(|_, (at, _)| now.saturating_duration_since(*at) < REPORT_LIFE);
    }

    /// The reports that count now, in the order of nodes.
    pub(crate) fn nodes(&self, now: Instant) -> impl Iterator<Item = &NodeReport> {
        self.reports
            .values()
            .filter(move |(at, _)| now.saturating_duration_since(*at) < REPORT_LIFE)
            .map(|(_, report)| report)
    }

    /// The nodes of `wanted` that have not reported this cluster's id as written.
    #[must_use]
    pub(crate) fn without_id(
        &self,
        now: Instant,
        wanted: &BTreeSet<NodeId>,
        cluster: ClusterId,
    ) -> Vec<NodeId> {
        let written: BTreeSet<&NodeId> = self
            .nodes(now)
            .filter(|report| report.cluster == Some(cluster))
            .map(|report| &report.node)
            .collect();
        wanted.iter().filter(|node| !written.contains(node)).cloned().collect()
    }

    /// The directories of the durable workers that run.
    #[must_use]
    pub(crate) fn living_stores(&self, now: Instant) -> BTreeSet<StoreId> {
        let workers = self.nodes(now).flat_map(|report| &report.workers);
        let living = workers.filter(|worker| worker.state == WorkerState::Up);
        living.filter_map(|worker| worker.store).collect()
    }

    /// The director to appoint next: one that stands by and is none of `spent`, on the preferred
    /// node if there is one. A node that is being drained is the last choice, one that was removed
    /// none.
    #[must_use]
    pub(crate) fn candidate(
        &self,
        now: Instant,
        spent: &BTreeSet<Incarnation>,
        prefer: &NodeId,
        standing: impl Fn(&NodeId) -> Standing,
    ) -> Option<Candidate> {
        let mut found: Vec<Candidate> = self
            .nodes(now)
            .flat_map(|report| report.workers.iter().map(move |worker| (&report.node, worker)))
            .filter(|(_, worker)| worker.name.kind == ServiceKind::Director)
            .filter(|(_, worker)| worker.state == WorkerState::Up)
            .filter_map(|(node, worker)| Some((node, worker, worker.pid.as_ref()?)))
            .filter(|(_, _, pid)| !spent.contains(&pid.incarnation))
            .filter(|(node, ..)| standing(node) != Standing::Removed)
            .map(|(node, worker, pid)| Candidate {
                service: ServiceRef::new(worker.name, node.clone()),
                pid: pid.clone(),
            })
            .collect();
        found.sort_by_key(|candidate| {
            let node = &candidate.service.node;
            (standing(node), node != prefer, candidate.service.clone())
        });
        found.into_iter().next()
    }

    /// Every living process that a foreman knows, and the foremen, in the order of node and name.
    #[must_use]
    pub(crate) fn processes(
        &self,
        now: Instant,
        role: impl Fn(&ServiceRef, &Pid) -> &'static str,
    ) -> Vec<ProcessRow> {
        let row = |service: ServiceRef, pid: &Pid| ProcessRow {
            service: service.name.to_string(),
            node: service.node.clone(),
            os_pid: pid.os_pid,
            url: format!("http://{}", pid.address),
            role: role(&service, pid).to_owned(),
        };
        let mut rows = Vec::new();
        for report in self.nodes(now) {
            let mut living: Vec<(ServiceName, &Pid)> =
                vec![(ServiceName::new(ServiceKind::Foreman, 1), &report.foreman)];
            living.extend(
                report.workers.iter().filter(|worker| worker.state == WorkerState::Up).filter_map(
                    |worker: &Worker| worker.pid.as_ref().map(|pid| (worker.name, pid)),
                ),
            );
            living.sort_by_key(|(name, _)| name.to_string());
            rows.extend(
                living
                    .into_iter()
                    .map(|(name, pid)| row(ServiceRef::new(name, report.node.clone()), pid)),
            );
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::Zone;
    use std::time::Duration;

    fn pid(node: &NodeId, incarnation: u64) -> Pid {
        Pid {
            node: node.clone(),
            os_pid: 1,
            incarnation: Incarnation(incarnation),
            address: format!("{node}:{incarnation}"),
        }
    }

    fn report(node: &str, directors: &[u64], cluster: Option<ClusterId>) -> NodeReport {
        let node: NodeId = node.parse().unwrap();
        let workers = directors
            .iter()
            .enumerate()
            .map(|(index, incarnation)| Worker {
                name: ServiceName::new(ServiceKind::Director, index as u32 + 1),
                state: WorkerState::Up,
                pid: Some(pid(&node, *incarnation)),
                store: None,
                announced: true,
                exits: 0,
                last_exit: None,
                format_level: None,
            })
            .collect();
        NodeReport {
            zone: Zone::of_node(&node),
            foreman: pid(&node, 1_000),
            node,
            cluster,
            kinds: vec![],
            workers,
            settled: true,
            format_level: None,
        }
    }

    const fn in_use(_: &NodeId) -> Standing {
        Standing::InUse
    }

    #[test]
    fn a_report_counts_for_three_seconds() {
        let mut registry = Registry::default();
        let start = Instant::now();
        assert!(registry.report(start, report("a", &[1], None)));
        assert!(!registry.report(start + Duration::from_secs(2), report("a", &[1], None)));
        assert!(registry.report(start + Duration::from_secs(2), report("a", &[2], None)));
        assert_eq!(registry.nodes(start + Duration::from_millis(4_999)).count(), 1);
        assert_eq!(registry.nodes(start + Duration::from_secs(5)).count(), 0);
    }

    #[test]
    fn a_spent_director_is_never_chosen_again() {
        let mut registry = Registry::default();
        let now = Instant::now();
        registry.report(now, report("a", &[1], None));
        registry.report(now, report("b", &[2], None));
        let prefer: NodeId = "b".parse().unwrap();
        let mut spent = BTreeSet::new();
        let mut chosen = Vec::new();
        while let Some(candidate) = registry.candidate(now, &spent, &prefer, in_use) {
            spent.insert(candidate.pid.incarnation);
            chosen.push(candidate.pid.incarnation.0);
        }
        assert_eq!(chosen, [2, 1]);
    }

    #[test]
    fn a_director_on_a_node_that_is_to_go_is_the_last_choice_or_none() {
        let mut registry = Registry::default();
        let now = Instant::now();
        for (node, incarnation) in [("a", 1), ("b", 2), ("c", 3)] {
            registry.report(now, report(node, &[incarnation], None));
        }
        let standing = |node: &NodeId| match node.as_str() {
            "a" => Standing::Draining,
            "b" => Standing::Removed,
            _ => Standing::InUse,
        };
        let prefer: NodeId = "a".parse().unwrap();
        let mut spent = BTreeSet::new();
        let mut chosen = Vec::new();
        while let Some(candidate) = registry.candidate(now, &spent, &prefer, standing) {
            spent.insert(candidate.pid.incarnation);
            chosen.push(candidate.pid.incarnation.0);
        }
        assert_eq!(chosen, [3, 1]);
    }

    #[test]
    fn a_node_counts_only_with_this_clusters_id_written() {
        let mut registry = Registry::default();
        let now = Instant::now();
        registry.report(now, report("a", &[], Some(ClusterId(1))));
        registry.report(now, report("b", &[], None));
        registry.report(now, report("c", &[], Some(ClusterId(2))));
        let wanted: BTreeSet<NodeId> =
            ["a", "b", "c", "d"].map(|name| name.parse().unwrap()).into();
        let missing = registry.without_id(now, &wanted, ClusterId(1));
        assert_eq!(missing.iter().map(NodeId::as_str).collect::<Vec<_>>(), ["b", "c", "d"]);
    }
}
