//! `recording_layout`: from here on this is the epoch whose layout counts.
//!
//! A compare-and-set at the coordinators, accepted only if this epoch and this process are the
//! latest appointment; refused means superseded, and the director exits. Then every log and storage
//! durably keeps the whole configuration, before the first push. **Keeps: the layout is recorded
//! before any client commits** (invariant 6), and **a director that could not record its layout does
//! not go on**.

use futures::future::try_join_all;
use plinth_api::commit_proxy::Peer;
use plinth_api::coordinator::{Holding, RECORD, RecordRequest};
use plinth_api::log::KEEP;
use plinth_system_config::{Directory, Recorded};
use plinth_types::{ConfigVersion, Pid, StoreId};
use tokio::time::{Instant, sleep};

use super::starting_transaction_system::{Assigned, patiently};
use crate::config::{ASSIGN_LIMIT, RECORD_DEADLINE, RECORD_LIMIT, RETRY};
use crate::coordinators::is_refusal;
use crate::fatal::{Fatal, Words, is_superseded};
use crate::plan::Plan;
use crate::reign::Reign;

/// Records the layout, has it kept, and makes it public. Returns the storages that have taken up
/// the epoch *and* keep its configuration.
pub(crate) async fn run(
    reign: &Reign,
    plan: &Plan,
    holding: &Holding,
    assigned: Assigned,
) -> Result<Assigned, Fatal> {
    let expected = holding.recorded.as_ref().map(|recorded| recorded.config.config_version);
    record(reign, &plan.recorded, expected).await?;
    tracing::info!(stamp = %plan.recorded.stamp(), "layout recorded: {}", super::summary(plan.layout()));
    let tended = keep(reign, plan, assigned).await?;
    reign.live.publish(&plan.recorded, &directory(reign, plan, &tended));
    Ok(tended)
}

/// The compare-and-set: `recorded` in the place of the configuration with the number `expected`.
pub(crate) async fn record(
    reign: &Reign,
    recorded: &Recorded,
    expected: Option<ConfigVersion>,
) -> Result<(), Fatal> {
    let request = RecordRequest {
        epoch: reign.epoch,
        director: reign.context.pid().incarnation,
        expected,
        recorded: recorded.clone(),
    };
    let deadline = Instant::now() + RECORD_DEADLINE;
    loop {
        // Where an earlier try has taken effect although no answer came, this one is answered alike.
        let error = match reign.coordinators.call(RECORD, &request, reign.epoch, RECORD_LIMIT).await
        {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if is_refusal(&error) {
            // A deliberate fault: what is not heard changes nothing.
            if reign.context.runtime().fault("director.goes_on_unrecorded") {
                return Ok(());
            }
            tracing::warn!(%error, "the layout was refused");
            reign.mark("director.layout_refused");
            return Err(Fatal::new(format!("the layout was refused: {}", Words(&error))));
        }
        if Instant::now() >= deadline {
            return Err(Fatal::new(format!("the layout could not be recorded: {}", Words(&error))));
        }
        reign.stalled(Some(format!("no coordinator records the layout: {}", Words(&error))));
        sleep(RETRY).await;
    }
}

async fn keep(reign: &Reign, plan: &Plan, assigned: Assigned) -> Result<Assigned, Fatal> {
    let request = plan.keep_request();
    let logs = plan.recruits.logs.iter().map(|log| {
        reign.tell(&log.peer, "keeping the configuration", KEEP, &request, ASSIGN_LIMIT)
    });
    try_join_all(logs).await?;
    let storages = plan.storages();
    let kept = assigned.into_iter().filter_map(|(store, pid)| {
        let peer = Peer { service: storages.get(&store)?.clone(), pid };
        Some(keep_at_storage(reign, plan, store, peer))
    });
    patiently(kept).await
}

/// Has a storage keep the configuration. None if it does not: that is no reason to end the epoch.
pub(crate) async fn keep_at_storage(
    reign: &Reign,
    plan: &Plan,
    store: StoreId,
    peer: Peer,
) -> Result<Option<(StoreId, Pid)>, Fatal> {
    match reign.call(&peer, KEEP, &plan.keep_request(), ASSIGN_LIMIT).await {
        Ok(_) => Ok(Some((store, peer.pid))),
        Err(error) if is_superseded(&error) => {
            let by = format_args!("{} serves a later epoch", peer.service);
            Err(Fatal::superseded_says(&error, by))
        }
        Err(error) => {
            tracing::warn!(service = %peer.service, %error, "a storage does not keep the configuration");
            Ok(None)
        }
    }
}

fn directory(reign: &Reign, plan: &Plan, storages: &Assigned) -> Directory {
    let me = (reign.context.service().clone(), reign.context.pid().clone());
    let components = plan.components().map(|peer| (peer.service.clone(), peer.pid.clone()));
    let named = plan.storages();
    let storages =
        storages.iter().filter_map(|(store, pid)| Some((named.get(store)?.clone(), pid.clone())));
    std::iter::once(me).chain(components).chain(storages).collect()
}
