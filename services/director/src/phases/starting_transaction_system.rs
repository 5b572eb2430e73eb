//! `starting_transaction_system`: everybody takes up the epoch, closed to clients.
//!
//! The sequencer and the resolvers begin at (RV, first version), the resolvers with an empty
//! history, so that older reads are too old; then the proxies, which know them all; then the
//! storages, which drop back to RV where they are past it and pull from the new logs. **Keeps: a
//! component serves one epoch** — the assignment goes to the incarnation that was recruited — and
//! **no storage's state exceeds RV** (invariant 7).
//!
//! A storage that does not answer stops nothing: after [`STORAGE_PATIENCE`] the recovery goes on
//! without it, and it is tended once the layout is recorded.

use std::collections::BTreeMap;
use std::future::Future;

use futures::future::{join_all, try_join, try_join_all};
use plinth_api::commit_proxy::Peer;
use plinth_api::storage::TagAssignment;
use plinth_api::{commit_proxy, resolver, sequencer, storage};
use plinth_types::{Pid, ServiceRef, StoreId};
use tokio::time::{Instant, timeout_at};

use crate::config::{ASSIGN_LIMIT, STORAGE_PATIENCE};
use crate::fatal::{Fatal, is_superseded};
use crate::plan::Plan;
use crate::registry::Whereabouts;
use crate::reign::Reign;

/// The storages that have taken up the epoch, with their processes.
pub(crate) type Assigned = BTreeMap<StoreId, Pid>;

pub(crate) async fn run(reign: &Reign, plan: &Plan) -> Result<Assigned, Fatal> {
    let told = plan.sequencer_assignment();
    let sequencer = &plan.recruits.sequencer;
    let sequencer =
        reign.tell(sequencer, "taking up the epoch", sequencer::ASSIGN, &told, ASSIGN_LIMIT);
    let resolvers = plan.resolver_assignments().into_iter().map(|(peer, told)| async move {
        reign.tell(&peer, "taking up the epoch", resolver::ASSIGN, &told, ASSIGN_LIMIT).await
    });
    try_join(sequencer, try_join_all(resolvers)).await?;

    let told = plan.proxy_assignment();
    let proxies = plan.recruits.commit_proxies.iter().map(|proxy| {
        reign.tell(proxy, "taking up the epoch", commit_proxy::ASSIGN, &told, ASSIGN_LIMIT)
    });
    try_join_all(proxies).await?;

    let nodes = reign.nodes();
    let storages = plan.storages();
    let storages =
        storages.iter().filter_map(|(store, service)| match nodes.find(service, *store) {
            Whereabouts::Up(pid) => {
                let tags = plan.tags_of(*store, &nodes);
                Some(assign_storage(reign, plan, *store, service, pid.clone(), tags))
            }
            Whereabouts::Lost(_) | Whereabouts::Coming | Whereabouts::Unknown => None,
        });
    patiently(storages).await
}

/// Waits for what storages do, but not for one that takes too long.
pub(crate) async fn patiently(
    work: impl Iterator<Item = impl Future<Output = Result<Option<(StoreId, Pid)>, Fatal>>>,
) -> Result<Assigned, Fatal> {
    let deadline = Instant::now() + STORAGE_PATIENCE;
    let work = work.map(|one| async move { timeout_at(deadline, one).await.unwrap_or(Ok(None)) });
    let done = join_all(work).await.into_iter().collect::<Result<Vec<_>, Fatal>>()?;
    Ok(done.into_iter().flatten().collect())
}

/// Has a storage take up the epoch. None if it does not: that is no reason to end the epoch.
pub(crate) async fn assign_storage(
    reign: &Reign,
    plan: &Plan,
    store: StoreId,
    service: &ServiceRef,
    pid: Pid,
    tags: Vec<TagAssignment>,
) -> Result<Option<(StoreId, Pid)>, Fatal> {
    let peer = Peer { service: service.clone(), pid };
    let told = plan.storage_assignment(tags);
    match reign.call(&peer, storage::ASSIGN, &told, ASSIGN_LIMIT).await {
        Ok(_) => Ok(Some((store, peer.pid))),
        Err(error) if is_superseded(&error) => {
            let by = format_args!("{service} serves a later epoch");
            Err(Fatal::superseded_says(&error, by))
        }
        Err(error) => {
            tracing::warn!(%service, %error, "a storage does not take up the epoch");
            Ok(None)
        }
    }
}
