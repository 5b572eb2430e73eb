//! The coordinators' registry of nodes, as the director asks it: where is this worker, and is there
//! any use in waiting for it?

use std::collections::BTreeMap;

use plinth_api::foreman::{NodeReport, Worker, WorkerState};
use plinth_types::{NodeId, Pid, ServiceRef, StoreId, Zone};

/// The nodes that have reported lately, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registry {
    nodes: BTreeMap<NodeId, NodeReport>,
}

/// Where a durable worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts<'a> {
    /// It runs.
    Up(&'a Pid),
    /// It does not run yet; its foreman may still bring it.
    Coming,
    /// Its foreman says that it does not run, or that its directory is gone.
    Lost(String),
    /// Its node has not reported lately, which says nothing about the worker: workers outlive their
    /// foreman.
    Unknown,
}

impl Registry {
    pub(crate) fn new(reports: Vec<NodeReport>) -> Registry {
        Registry { nodes: reports.into_iter().map(|node| (node.node.clone(), node)).collect() }
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &NodeReport> {
        self.nodes.values()
    }

    pub(crate) fn node(&self, node: &NodeId) -> Option<&NodeReport> {
        self.nodes.get(node)
    }

    /// What a node fails together with. One that nobody knows is its own zone.
    pub(crate) fn zone(&self, node: &NodeId) -> Zone {
        self.node(node).map_or_else(|| Zone::of_node(node), |report| report.zone.clone())
    }

    /// Whether the node has reported, and all that it may bring is there.
    pub(crate) fn is_settled(&self, node: &NodeId) -> bool {
        self.node(node).is_some_and(|report| report.settled)
    }

    fn worker(&self, service: &ServiceRef) -> Option<&Worker> {
        self.node(&service.node)?.workers.iter().find(|worker| worker.name == service.name)
    }

    /// The process that has this name, whatever its directory: for a deliberate fault.
    pub(crate) fn named(&self, service: &ServiceRef) -> Option<&Pid> {
        self.worker(service)?.pid.as_ref()
    }

    /// Where the worker with this name *and* this directory is. Another directory under the same
    /// name is another, empty worker.
    pub(crate) fn find(&self, service: &ServiceRef, store: StoreId) -> Whereabouts<'_> {
        let Some(node) = self.node(&service.node) else { return Whereabouts::Unknown };
        match self.worker(service) {
            Some(Worker { store: Some(other), .. }) if *other != store => {
                Whereabouts::Lost(format!("another directory, {other}, has its name"))
            }
            Some(Worker { state: WorkerState::Up, pid: Some(pid), store: Some(_), .. }) => {
                Whereabouts::Up(pid)
            }
            Some(Worker { state: WorkerState::Down, .. }) if node.settled => {
                Whereabouts::Lost("it does not run".to_owned())
            }
            None if node.settled => Whereabouts::Lost("its node has no such worker".to_owned()),
            Some(_) | None => Whereabouts::Coming,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{node, pid, service, worker};

    const STORE: StoreId = StoreId(1);

    fn find(workers: Vec<Worker>, settled: bool) -> String {
        let registry =
            Registry::new(vec![NodeReport { workers, settled, ..node("node-1", "a", &[]) }]);
        match registry.find(&service("log-1@node-1"), STORE) {
            Whereabouts::Up(pid) => format!("up {}", pid.incarnation.0),
            Whereabouts::Coming => "coming".to_owned(),
            Whereabouts::Lost(reason) => format!("lost: {reason}"),
            Whereabouts::Unknown => "unknown".to_owned(),
        }
    }

    #[test]
    fn a_worker_is_its_name_and_its_directory() {
        let up = worker("log-1", Some(STORE), Some(pid("node-1", 7)));
        let down = worker("log-1", Some(STORE), None);
        let wiped = worker("log-1", Some(StoreId(2)), Some(pid("node-1", 7)));
        for settled in [true, false] {
            assert_eq!(find(vec![up.clone()], settled), "up 7");
            assert!(find(vec![wiped.clone()], settled).starts_with("lost: another directory"));
        }
        assert_eq!(find(vec![down.clone()], true), "lost: it does not run");
        assert_eq!(find(vec![down], false), "coming");
        assert_eq!(find(vec![], true), "lost: its node has no such worker");
        assert_eq!(find(vec![], false), "coming");
        let elsewhere = Registry::new(vec![node("node-2", "a", &[])]);
        assert_eq!(elsewhere.find(&service("log-1@node-1"), STORE), Whereabouts::Unknown);
    }
}
