//! `accepting_commits`: clients may commit.
//!
//! The coordinators hear that the epoch is ready *before* the proxies are opened: the config team of
//! every epoch that acknowledged a commit must confirm the next ready epoch's system transaction, so
//! the coordinators must know of such an epoch before its first acknowledgement. Refused means
//! superseded. **Keeps: the configuration in storage is never older than the last epoch that
//! acknowledged a commit** (invariants 6 and 11).

use futures::future::try_join_all;
use plinth_api::commit_proxy::{OPEN, Opening};
use plinth_api::coordinator::{READY, ReadyRequest, Recovery};
use tokio::time::{Instant, sleep};

use crate::config::{ASSIGN_LIMIT, RECORD_DEADLINE, RECORD_LIMIT, RETRY};
use crate::coordinators::is_refusal;
use crate::fatal::{Fatal, Words};
use crate::plan::Plan;
use crate::reign::Reign;

/// Opens the epoch. Returns what the coordinators were told of it.
pub(crate) async fn run(reign: &Reign, plan: &Plan) -> Result<Recovery, Fatal> {
    let recovery = recovery(reign, plan);
    tell_coordinators(reign, &recovery).await?;
    let told = Opening { epoch: reign.epoch, director: reign.context.pid().incarnation };
    let proxies = plan.recruits.commit_proxies.iter();
    let open = proxies.map(|proxy| reign.tell(proxy, "opening", OPEN, &told, ASSIGN_LIMIT));
    try_join_all(open).await?;
    reign.live.accept_commits();
    tracing::info!(epoch = reign.epoch.0, elapsed = ?reign.elapsed(), "commits are accepted");
    Ok(recovery)
}

/// Tells the coordinators that the configuration recorded last is ready, and what the epoch tells of
/// itself.
pub(crate) async fn tell_coordinators(reign: &Reign, recovery: &Recovery) -> Result<(), Fatal> {
    let request = ReadyRequest {
        epoch: reign.epoch,
        director: reign.context.pid().incarnation,
        recovery: recovery.clone(),
    };
    let deadline = Instant::now() + RECORD_DEADLINE;
    loop {
        let told = reign.coordinators.call(READY, &request, reign.epoch, RECORD_LIMIT).await;
        let Err(error) = told else { break };
        if is_refusal(&error) {
            return Err(Fatal::new(format!(
                "the coordinators refuse the epoch: {}",
                Words(&error)
            )));
        }
        if Instant::now() >= deadline {
            return Err(Fatal::new(format!("no coordinator answers: {}", Words(&error))));
        }
        reign.stalled(Some(format!("no coordinator answers: {}", Words(&error))));
        sleep(RETRY).await;
    }
    reign.stalled(None);
    Ok(())
}

fn recovery(reign: &Reign, plan: &Plan) -> Recovery {
    Recovery {
        epoch: reign.epoch,
        director: reign.context.service().clone(),
        cause: reign.accepted.appointment.cause.clone(),
        started_unix_ms: reign.accepted.unix_ms,
        duration_ms: u64::try_from(reign.elapsed().as_millis()).unwrap_or(u64::MAX),
        recovery_version: plan.versions.recovery,
        first_version: plan.versions.first,
        reused: plan.recruits.reused.clone(),
        made: plan.recruits.made.clone(),
        phases: reign.progress.status().phases,
        trace_id: reign.accepted.trace_id.clone(),
        changes: Vec::new(),
    }
}
