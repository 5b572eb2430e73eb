//! Storages come and go within an epoch: none of them is a cause for recovery. One that has a new
//! process is given the epoch and its configuration again; the live layout follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use plinth_api::commit_proxy::Peer;
use plinth_types::{Pid, ServiceRef, StoreId};
use tokio::time::sleep;

use crate::config::RETRY;
use crate::fatal::Fatal;
use crate::phases::recording_layout::keep_at_storage;
use crate::phases::starting_transaction_system::{Assigned, assign_storage};
use crate::plan::Plan;
use crate::registry::{Registry, Whereabouts};
use crate::reign::Reign;

/// The storages of a layout and the processes that have taken up the epoch. Pure.
struct Roll {
    storages: BTreeMap<StoreId, ServiceRef>,
    tended: Assigned,
    /// Being given the epoch.
    under_way: BTreeSet<StoreId>,
}

/// What the registry calls for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Due {
    /// It has another process: give it the epoch.
    Tend(StoreId, Peer),
    /// It does not run.
    Gone(ServiceRef),
}

impl Roll {
    fn due(&mut self, nodes: &Registry) -> Vec<Due> {
        let mut due = Vec::new();
        for (store, service) in &self.storages {
            match nodes.find(service, *store) {
                Whereabouts::Up(pid) => {
                    let is_tended = self
                        .tended
                        .get(store)
                        .is_some_and(|known| known.incarnation == pid.incarnation);
                    if !is_tended && self.under_way.insert(*store) {
                        let peer = Peer { service: service.clone(), pid: pid.clone() };
                        due.push(Due::Tend(*store, peer));
                    }
                }
                Whereabouts::Lost(_) | Whereabouts::Coming => {
                    if self.tended.remove(store).is_some() {
                        due.push(Due::Gone(service.clone()));
                    }
                }
                // Its foreman is silent, which says nothing about the storage.
                Whereabouts::Unknown => {}
            }
        }
        due
    }

    /// A storage was given the epoch, or was not. Returns what the live layout should say.
    fn took(&mut self, store: StoreId, pid: Option<Pid>) -> Option<(ServiceRef, Pid)> {
        self.under_way.remove(&store);
        let pid = pid?;
        self.tended.insert(store, pid.clone());
        Some((self.storages.get(&store)?.clone(), pid))
    }
}

/// Tends the storages until the epoch ends. `tended` are those that have taken it up already.
pub(crate) fn start(reign: &Reign, plan: &Plan, tended: Assigned) {
    let roll = Roll { storages: plan.storages(), tended, under_way: BTreeSet::new() };
    let (scope, reign, plan) =
        (reign.context.scope().clone(), reign.clone(), Arc::new(plan.clone()));
    let task = async move {
        let fatal = tend(&reign, &plan, roll).await;
        reign.fail(fatal);
    };
    drop(scope.spawn("tending", task));
}

async fn tend(reign: &Reign, plan: &Plan, mut roll: Roll) -> Fatal {
    let mut registry = reign.registry();
    let mut under_way = FuturesUnordered::new();
    loop {
        let nodes = registry.borrow_and_update().clone();
        for due in roll.due(&nodes) {
            match due {
                Due::Gone(service) => {
                    tracing::warn!(%service, "a storage is down");
                    reign.live.place(&service, None);
                }
                Due::Tend(store, peer) => under_way.push(give(reign, plan, store, peer)),
            }
        }
        tokio::select! {
            biased;
            Some((store, result)) = under_way.next() => match result {
                Ok(pid) => if let Some((service, pid)) = roll.took(store, pid) {
                    tracing::info!(%service, %pid, "a storage has taken up the epoch");
                    reign.live.place(&service, Some(pid));
                },
                Err(fatal) => return fatal,
            },
            changed = registry.changed() => if changed.is_err() {
                return Fatal::new("the registry is no longer followed");
            },
        }
    }
}

/// Gives a storage the epoch and its configuration.
async fn give(
    reign: &Reign,
    plan: &Plan,
    store: StoreId,
    peer: Peer,
) -> (StoreId, Result<Option<Pid>, Fatal>) {
    let result = async {
        let Peer { service, pid } = &peer;
        let assigned = assign_storage(reign, plan, store, service, pid.clone()).await?;
        if assigned.is_none() {
            return Ok(None);
        }
        let kept = keep_at_storage(reign, plan, store, peer.clone()).await?;
        Ok(kept.map(|(_, pid)| pid))
    };
    let result = result.await;
    if matches!(result, Ok(None)) {
        // The next try follows when this one is taken.
        sleep(RETRY).await;
    }
    (store, result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{node, pid, service, worker};
    use plinth_api::foreman::NodeReport;

    const STORE: StoreId = StoreId(11);

    fn nodes(incarnation: Option<u64>) -> Registry {
        let pid = incarnation.map(|incarnation| pid("node-1", incarnation));
        let workers = vec![worker("storage-1", Some(STORE), pid)];
        Registry::new(vec![NodeReport { workers, ..node("node-1", "a", &[]) }])
    }

    fn tend(incarnation: u64) -> Due {
        let pid = pid("node-1", incarnation);
        Due::Tend(STORE, Peer { service: service("storage-1@node-1"), pid })
    }

    #[test]
    fn a_storage_with_another_process_is_given_the_epoch_once() {
        let storage = service("storage-1@node-1");
        let mut roll = Roll {
            storages: BTreeMap::from([(STORE, storage.clone())]),
            tended: BTreeMap::from([(STORE, pid("node-1", 1))]),
            under_way: BTreeSet::new(),
        };
        assert_eq!(roll.due(&nodes(Some(1))), []);
        // A silent foreman says nothing.
        assert_eq!(roll.due(&Registry::default()), []);
        assert_eq!(roll.due(&nodes(None)), [Due::Gone(storage.clone())]);
        assert_eq!(roll.due(&nodes(None)), []);
        assert_eq!(roll.due(&nodes(Some(2))), [tend(2)]);
        assert_eq!(roll.due(&nodes(Some(2))), []);
        // It did not take it up: once more.
        assert_eq!(roll.took(STORE, None), None);
        assert_eq!(roll.due(&nodes(Some(2))), [tend(2)]);
        assert_eq!(roll.took(STORE, Some(pid("node-1", 2))), Some((storage, pid("node-1", 2))));
        assert_eq!(roll.due(&nodes(Some(2))), []);
        assert_eq!(roll.due(&nodes(Some(3))), [tend(3)]);
    }
}
