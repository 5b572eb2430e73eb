//! `fully_recovered`: the old generation is no longer needed.
//!
//! The phase lasts until every storage of the layout has everything up to RV on disk and has gone
//! past it, so that nothing of an earlier epoch is needed from the logs any more. It holds nobody
//! up: commits are accepted meanwhile. **Keeps: log data is dropped only when it is durable in every
//! recorded member** (invariant 9), which the logs see to themselves; this phase tells of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use plinth_api::Nothing;
use plinth_api::commit_proxy::Peer;
use plinth_api::storage::{STATUS, Status};
use plinth_types::{Epoch, ServiceRef, StoreId, Version};
use tokio::time::sleep;

use crate::amending::Book;
use crate::config::{ASSIGN_LIMIT, REGISTRY_PERIOD};
use crate::fatal::Fatal;
use crate::plan::Plan;
use crate::registry::Whereabouts;
use crate::reign::Reign;

pub(crate) async fn run(reign: &Reign, book: &Book) -> Result<(), Fatal> {
    let mut done = BTreeSet::new();
    loop {
        // The teams may change meanwhile: a member that never returns is replaced.
        let plan = Arc::clone(&book.borrow());
        let left = plan.members().into_iter().find(|(store, _)| !done.contains(store));
        let Some((store, service)) = left else { return Ok(()) };
        if has_caught_up(reign, &plan, store, &service).await {
            done.insert(store);
        } else {
            reign.stalled(Some(format!("{service} has not caught up past the recovery version")));
            sleep(REGISTRY_PERIOD).await;
        }
    }
}

async fn has_caught_up(reign: &Reign, plan: &Plan, store: StoreId, service: &ServiceRef) -> bool {
    let nodes = reign.nodes();
    let Whereabouts::Up(pid) = nodes.find(service, store) else { return false };
    let peer = Peer { service: service.clone(), pid: pid.clone() };
    let status = reign.call(&peer, STATUS, &Nothing {}, ASSIGN_LIMIT).await;
    status.is_ok_and(|status| is_past(&status, reign.epoch, plan.versions.recovery))
}

fn is_past(status: &Status, epoch: Epoch, recovery: Version) -> bool {
    let is_past =
        |tag: &plinth_api::storage::TagStatus| tag.durable >= recovery && tag.version > recovery;
    status.epoch == epoch && status.tags.iter().all(is_past)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_api::storage::TagStatus;
    use plinth_types::Tag;

    #[test]
    fn a_storage_is_past_when_all_its_tags_are() {
        let tag = |version, durable| TagStatus {
            tag: Tag(0),
            version: Version(version),
            durable: Version(durable),
            durable_epoch: Epoch(3),
            oldest: Version(0),
            known_committed: Version(0),
            copying: None,
        };
        for (epoch, tags, past) in [
            (3, vec![tag(700, 600), tag(700, 500)], true),
            (3, vec![tag(700, 600), tag(700, 499)], false),
            (3, vec![tag(500, 500)], false),
            (2, vec![tag(700, 600)], false),
        ] {
            let (store, epoch) = (StoreId(1), Epoch(epoch));
            let status = Status { store, epoch, tags, queue_bytes: 0, lacks: BTreeSet::new() };
            assert_eq!(is_past(&status, Epoch(3), Version(500)), past, "{status:?}");
        }
    }
}
