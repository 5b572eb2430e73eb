//! Storages come and go within an epoch: none of them is a cause for recovery. One that has a new
//! process is given the epoch and its configuration again; the live layout follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use plinth_api::commit_proxy::Peer;
use plinth_api::storage::{ASSIGN, TagAssignment};
use plinth_types::{Pid, ServiceRef, StoreId};
use tokio::time::sleep;

use crate::amending::Book;
use crate::config::{ASSIGN_LIMIT, RETRY};
use crate::fatal::Fatal;
use crate::phases::recording_layout::keep_at_storage;
use crate::phases::starting_transaction_system::{Assigned, assign_storage};
use crate::plan::Plan;
use crate::registry::{Registry, Whereabouts};
use crate::reign::Reign;

/// What a storage is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    service: ServiceRef,
    tags: Vec<TagAssignment>,
}

/// The storages that have taken up the epoch: by which process, and what it was told. Pure.
struct Roll {
    tended: BTreeMap<StoreId, (Pid, Told)>,
    /// Being given the epoch.
    under_way: BTreeSet<StoreId>,
}

/// What the registry calls for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Due {
    /// It has another process, or holds something else now: give it the epoch.
    Tend(StoreId, Peer, Vec<TagAssignment>),
    /// It does not run.
    Gone(ServiceRef),
    /// It is no part of the layout any more.
    Release(Peer),
}

impl Roll {
    fn due(&mut self, wanted: &BTreeMap<StoreId, Told>, nodes: &Registry) -> Vec<Due> {
        let mut due = Vec::new();
        let left = self.tended.extract_if(.., |store, _| !wanted.contains_key(store));
        for (_, (pid, Told { service, .. })) in left {
            due.push(Due::Release(Peer { service, pid }));
        }
        for (store, told) in wanted {
            let service = &told.service;
            match nodes.find(service, *store) {
                Whereabouts::Up(pid) => {
                    let is_tended = self.tended.get(store).is_some_and(|(known, known_told)| {
                        known.incarnation == pid.incarnation && known_told == told
                    });
                    if !is_tended && self.under_way.insert(*store) {
                        let peer = Peer { service: service.clone(), pid: pid.clone() };
                        due.push(Due::Tend(*store, peer, told.tags.clone()));
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
    fn took(&mut self, gift: Gift) -> Option<(ServiceRef, Pid)> {
        let Gift { store, told, pid } = gift;
        self.under_way.remove(&store);
        let pid = pid?;
        let service = told.service.clone();
        self.tended.insert(store, (pid.clone(), told));
        Some((service, pid))
    }
}

/// What became of giving a storage the epoch.
struct Gift {
    store: StoreId,
    told: Told,
    /// The process that took it; none if it did not.
    pid: Option<Pid>,
}

fn wanted(plan: &Plan, nodes: &Registry) -> BTreeMap<StoreId, Told> {
    let storages = plan.storages().into_iter();
    let told = storages.map(|(store, service)| {
        let tags = plan.tags_of(store, nodes);
        (store, Told { service, tags })
    });
    told.collect()
}

/// Tends the storages until the epoch ends. `tended` are those that have taken it up already.
pub(crate) fn start(reign: &Reign, book: &Book, tended: Assigned) {
    let wanted = wanted(&book.borrow(), &reign.nodes());
    let tended = tended
        .into_iter()
        .filter_map(|(store, pid)| Some((store, (pid, wanted.get(&store)?.clone()))));
    let roll = Roll { tended: tended.collect(), under_way: BTreeSet::new() };
    let (scope, reign, book) = (reign.context.scope().clone(), reign.clone(), book.clone());
    let task = async move {
        let fatal = tend(&reign, &book, roll).await;
        reign.fail(fatal);
    };
    drop(scope.spawn("tending", task));
}

async fn tend(reign: &Reign, book: &Book, mut roll: Roll) -> Fatal {
    let mut registry = reign.registry();
    let mut plans = book.subscribe();
    let mut under_way = FuturesUnordered::new();
    loop {
        let nodes = registry.borrow_and_update().clone();
        let plan = Arc::clone(&plans.borrow_and_update());
        for due in roll.due(&wanted(&plan, &nodes), &nodes) {
            match due {
                Due::Gone(service) => {
                    tracing::warn!(%service, "a storage is down");
                    reign.live.place(&service, None);
                }
                Due::Tend(store, peer, tags) => {
                    under_way.push(give(reign, Arc::clone(&plan), store, peer, tags));
                }
                Due::Release(peer) => {
                    reign.live.place(&peer.service, None);
                    let release = release(reign.clone(), Arc::clone(&plan), peer);
                    drop(reign.context.scope().spawn("releasing", release));
                }
            }
        }
        tokio::select! {
            biased;
            Some(given) = under_way.next() => match given {
                Ok(gift) => if let Some((service, pid)) = roll.took(gift) {
                    tracing::info!(%service, %pid, "a storage has taken up the epoch");
                    reign.live.place(&service, Some(pid));
                },
                Err(fatal) => return fatal,
            },
            changed = registry.changed() => if changed.is_err() {
                return Fatal::new("the registry is no longer followed");
            },
            changed = plans.changed() => if changed.is_err() {
                return Fatal::new("the plan is no longer followed");
            },
        }
    }
}

/// Gives a storage the epoch and its configuration.
async fn give(
    reign: &Reign,
    plan: Arc<Plan>,
    store: StoreId,
    peer: Peer,
    tags: Vec<TagAssignment>,
) -> Result<Gift, Fatal> {
    let told = Told { service: peer.service.clone(), tags: tags.clone() };
    let given = async {
        let Peer { service, pid } = &peer;
        let assigned = assign_storage(reign, &plan, store, service, pid.clone(), tags).await?;
        if assigned.is_none() {
            return Ok(None);
        }
        let kept = keep_at_storage(reign, &plan, store, peer.clone()).await?;
        Ok(kept.map(|(_, pid)| pid))
    };
    let pid = given.await?;
    if pid.is_none() {
        // The next try follows when this one is taken.
        sleep(RETRY).await;
    }
    Ok(Gift { store, told, pid })
}

/// Tells a storage that it holds nothing any more. One that does not hear it does no harm: it can
/// answer only what was true, and the next epoch does not know it.
async fn release(reign: Reign, plan: Arc<Plan>, peer: Peer) {
    let told = plan.storage_assignment(Vec::new());
    match reign.call(&peer, ASSIGN, &told, ASSIGN_LIMIT).await {
        Ok(_) => tracing::info!(service = %peer.service, "a storage has left the layout"),
        Err(error) => {
            tracing::info!(service = %peer.service, %error, "a storage has left the layout, and does not know");
        }
    }
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

    fn told(tag: u32) -> Told {
        let tag = TagAssignment { tag: plinth_types::Tag(tag), ranges: vec![], joining: None };
        Told { service: service("storage-1@node-1"), tags: vec![tag] }
    }

    fn tend(incarnation: u64, tag: u32) -> Due {
        let Told { service, tags } = told(tag);
        Due::Tend(STORE, Peer { service, pid: pid("node-1", incarnation) }, tags)
    }

    fn took(roll: &mut Roll, tag: u32, incarnation: Option<u64>) -> Option<(ServiceRef, Pid)> {
        let pid = incarnation.map(|incarnation| pid("node-1", incarnation));
        roll.took(Gift { store: STORE, told: told(tag), pid })
    }

    #[test]
    fn a_storage_with_another_process_or_part_is_given_the_epoch_once() {
        let storage = service("storage-1@node-1");
        let mut roll = Roll {
            tended: BTreeMap::from([(STORE, (pid("node-1", 1), told(1)))]),
            under_way: BTreeSet::new(),
        };
        let wanted = BTreeMap::from([(STORE, told(1))]);
        assert_eq!(roll.due(&wanted, &nodes(Some(1))), []);
        // A silent foreman says nothing.
        assert_eq!(roll.due(&wanted, &Registry::default()), []);
        assert_eq!(roll.due(&wanted, &nodes(None)), [Due::Gone(storage.clone())]);
        assert_eq!(roll.due(&wanted, &nodes(None)), []);
        assert_eq!(roll.due(&wanted, &nodes(Some(2))), [tend(2, 1)]);
        assert_eq!(roll.due(&wanted, &nodes(Some(2))), []);
        // It did not take it up: once more.
        assert_eq!(took(&mut roll, 1, None), None);
        assert_eq!(roll.due(&wanted, &nodes(Some(2))), [tend(2, 1)]);
        assert_eq!(took(&mut roll, 1, Some(2)), Some((storage.clone(), pid("node-1", 2))));
        assert_eq!(roll.due(&wanted, &nodes(Some(2))), []);
        // It holds something else now, which another change overtakes.
        let other = BTreeMap::from([(STORE, told(2))]);
        assert_eq!(roll.due(&other, &nodes(Some(2))), [tend(2, 2)]);
        assert_eq!(took(&mut roll, 2, Some(2)), Some((storage.clone(), pid("node-1", 2))));
        assert_eq!(roll.due(&wanted, &nodes(Some(2))), [tend(2, 1)]);
        assert_eq!(took(&mut roll, 1, Some(2)), Some((storage.clone(), pid("node-1", 2))));
        assert_eq!(roll.due(&wanted, &nodes(Some(3))), [tend(3, 1)]);
        assert_eq!(took(&mut roll, 1, Some(3)), Some((storage.clone(), pid("node-1", 3))));
        // It is no part of the layout any more.
        let peer = Peer { service: storage, pid: pid("node-1", 3) };
        assert_eq!(roll.due(&BTreeMap::new(), &nodes(Some(3))), [Due::Release(peer)]);
        assert_eq!(roll.due(&BTreeMap::new(), &nodes(Some(3))), []);
    }
}
