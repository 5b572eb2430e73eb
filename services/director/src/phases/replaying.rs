//! `replaying`: every log of the new epoch has exactly what survives.
//!
//! A new log is locked like the old ones, then copies (popped, RV] of each of its tags from a
//! survivor that holds that tag; a kept log truncates above RV and copies nothing. **Keeps: what was
//! not acknowledged is either wholly there or not at all** (invariant 5), **nothing above RV
//! survives** (invariant 7).

use futures::future::try_join_all;
use plinth_api::log::{ASSIGN, Assignment, LOCK, LockRequest};

use crate::config::{LOCK_LIMIT, REPLAY_LIMIT};
use crate::fatal::Fatal;
use crate::plan::{LogRecruit, Plan};
use crate::reign::Reign;

pub(crate) async fn run(reign: &Reign, plan: &Plan) -> Result<(), Fatal> {
    let logs = plan.recruits.logs.iter().zip(plan.log_assignments());
    let replays = logs.map(|(log, (_, assignment))| replay(reign, plan, log, assignment));
    try_join_all(replays).await.map(drop)
}

async fn replay(
    reign: &Reign,
    plan: &Plan,
    log: &LogRecruit,
    assignment: Assignment,
) -> Result<(), Fatal> {
    if log.holds.is_empty() {
        lock(reign, plan, log).await?;
    }
    reign.tell(&log.peer, "replaying", ASSIGN, &assignment, REPLAY_LIMIT).await?;
    Ok(())
}

async fn lock(reign: &Reign, plan: &Plan, log: &LogRecruit) -> Result<(), Fatal> {
    let request = LockRequest { epoch: reign.epoch, director: reign.context.pid().incarnation };
    let answer = reign.tell(&log.peer, "locking", LOCK, &request, LOCK_LIMIT).await?;
    if answer.store != log.store {
        return Err(Fatal::of(&log.peer.service, "has changed its directory"));
    }
    // A log that left an earlier layout keeps an older configuration. A newer one of this cluster
    // would mean that this epoch builds on a stale layout.
    let ours = &plan.recorded;
    let newer = answer.config.filter(|kept| {
        kept.config.cluster_id == ours.config.cluster_id && kept.stamp() >= ours.stamp()
    });
    match newer {
        Some(kept) => Err(Fatal::of(
            &log.peer.service,
            format_args!("keeps a newer configuration, of {}", kept.stamp()),
        )),
        None => Ok(()),
    }
}
