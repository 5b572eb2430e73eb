//! Backpressure: how many transactions may begin. Storages and logs tell how they stand, the
//! controller judges, and the commit proxies apply it. Status shows what limits.

mod controller;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use plinth_api::commit_proxy::{RATE, Rate};
use plinth_api::director::{RateStatus, StorageStanding};
use plinth_api::{Nothing, commit_proxy::Peer, log, storage};
use plinth_types::{ServiceRef, StoreId};
use tokio::time::{Instant, sleep};

use self::controller::{Controller, LogSeen, Look, StorageSeen, Verdict};
use crate::amending::Book;
use crate::plan::Plan;
use crate::registry::Whereabouts;
use crate::reign::Reign;

/// Between two looks while everybody keeps up.
const CALM: Duration = Duration::from_secs(1);
/// The same while somebody lags.
const BUSY: Duration = Duration::from_millis(200);
/// How long one may take to tell how it stands. Who takes longer is not heeded.
const LOOK_LIMIT: Duration = Duration::from_millis(500);

/// Governs the rate until the epoch ends.
pub(crate) fn start(reign: &Reign, book: &Book) {
    let governing = govern(reign.clone(), book.clone());
    drop(reign.context.scope().spawn("rate", governing));
}

async fn govern(reign: Reign, book: Book) {
    let started = Instant::now();
    let mut controller = Controller::default();
    let mut told: Option<u64> = None;
    loop {
        sleep(if controller.is_calm() { CALM } else { BUSY }).await;
        // Who only joins a team is not read, and holds up nobody.
        let plan = Arc::clone(&book.borrow());
        let storages = plan.members();
        let (storages, logs, begun) = tokio::join!(
            look_at_storages(&reign, &storages),
            look_at_logs(&reign, &plan),
            tell(&reign, &plan, told)
        );
        let at = started.elapsed();
        let verdict = controller.look(&Look { at, begun, storages, logs });
        show(&reign, &verdict);
        if verdict.per_second != told {
            match (&verdict.by, told) {
                (Some((_, why)), None) => {
                    tracing::warn!(
                        per_second = verdict.per_second,
                        why,
                        "transactions are limited"
                    );
                }
                (None, Some(_)) => tracing::info!("transactions are limited no more"),
                (_, _) => {}
            }
            told = verdict.per_second;
            tell(&reign, &plan, told).await;
        }
    }
}

async fn look_at_storages(
    reign: &Reign,
    storages: &BTreeMap<StoreId, ServiceRef>,
) -> BTreeMap<ServiceRef, StorageSeen> {
    let nodes = reign.nodes();
    let looks = storages.iter().map(async |(store, service)| {
        let Whereabouts::Up(pid) = nodes.find(service, *store) else { return None };
        let peer = Peer { service: service.clone(), pid: pid.clone() };
        let status = reign.call(&peer, storage::STATUS, &Nothing {}, LOOK_LIMIT).await.ok()?;
        let durable = status.tags.iter().map(|tag| (tag.tag, tag.durable)).collect();
        let seen = StorageSeen { durable, queue_bytes: status.queue_bytes };
        (status.epoch == reign.epoch).then(|| (service.clone(), seen))
    });
    join_all(looks).await.into_iter().flatten().collect()
}

async fn look_at_logs(reign: &Reign, plan: &Plan) -> BTreeMap<ServiceRef, LogSeen> {
    let looks = plan.recruits.logs.iter().map(async |log| {
        let status = reign.call(&log.peer, log::STATUS, &Nothing {}, LOOK_LIMIT).await.ok()?;
        let seen = LogSeen {
            committed: status.known_committed,
            queue_bytes: status.queue_bytes,
            queue_limit_bytes: status.queue_limit_bytes,
        };
        Some((log.peer.service.clone(), seen))
    });
    join_all(looks).await.into_iter().flatten().collect()
}

/// Tells the proxies the rate, each its part. Answers how many transactions have begun at all of
/// them, if all of them answer.
async fn tell(reign: &Reign, plan: &Plan, per_second: Option<u64>) -> Option<u64> {
    let proxies = &plan.recruits.commit_proxies;
    let part = per_second.map(|rate| rate.div_ceil(proxies.len().max(1) as u64));
    let director = reign.context.pid().incarnation;
    let rate = Rate { epoch: reign.epoch, director, per_second: part };
    let told = proxies.iter().map(|proxy| reign.call(proxy, RATE, &rate, LOOK_LIMIT));
    // One that does not answer ends the epoch soon, and not because of this.
    let begun = join_all(told).await.into_iter().map(|answer| Some(answer.ok()?.begun));
    begun.sum()
}

fn show(reign: &Reign, verdict: &Verdict) {
    let standing = |(service, standing): (&ServiceRef, &controller::Standing)| StorageStanding {
        service: service.clone(),
        lag_ms: u64::try_from(standing.lag.as_millis()).unwrap_or(u64::MAX),
        queue_bytes: standing.queue_bytes,
        heeded: standing.counts,
    };
    let by = verdict.by.clone();
    reign.progress.rate(RateStatus {
        per_second: verdict.per_second,
        limited_by: by.as_ref().map(|(service, _)| service.clone()),
        reason: by.map(|(_, why)| why),
        storages: verdict.standings.iter().map(standing).collect(),
    });
}
