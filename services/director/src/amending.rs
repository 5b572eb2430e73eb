//! A change of the configuration within an epoch.
//!
//! One after the other, each in this order, and the next one only when the one before is done:
//!
//! 1. a compare-and-set at the coordinators, at the next number. Refused means superseded;
//! 2. every log keeps it durably, and from then on keeps and drops data by its teams. So what the logs
//!    have dropped by a configuration, they know the configuration of, and a re-founding finds it;
//! 3. it is public: storages are told what it is to them ([`crate::tending`]), clients route by it;
//! 4. one transaction rewrites it in `\xff/system`, as the epoch's first one wrote it. It is proved in
//!    the same way: durable in a majority of its own config team and of the one before;
//! 5. the coordinators hear of it: the next recovery must be confirmed by *its* config team.
//!
//! Whatever fails ends the director, and the next epoch begins from what is recorded: the
//! configuration of before or this one, whole in either case. Between 1 and 5 both config teams count,
//! which step 4 has shown to have majorities.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use plinth_api::commit_proxy::Peer;
use plinth_api::coordinator::{Recovery, TeamChange};
use plinth_api::log::KEEP;
use plinth_system_config::{LastRecovery, Recorded};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::ASSIGN_LIMIT;
use crate::fatal::Fatal;
use crate::phases::accepting_commits::tell_coordinators;
use crate::phases::recording_layout::{keep_at_storage, record};
use crate::phases::starting_transaction_system::patiently;
use crate::phases::system_transaction::persist;
use crate::plan::Plan;
use crate::reign::Reign;

/// The most changes of an epoch that are told.
const TOLD: usize = 32;

/// The plan that is in force: it changes with the recorded configuration.
pub(crate) type Book = watch::Sender<Arc<Plan>>;

/// What an epoch tells of itself, again with each change.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) last_recovery: LastRecovery,
    pub(crate) recovery: Recovery,
}

/// Puts a configuration in the place of the one that is in force. `what` says why, for people.
pub(crate) async fn amend(
    reign: &Reign,
    book: &Book,
    account: &mut Account,
    next: Recorded,
    what: String,
) -> Result<(), Fatal> {
    let before = Arc::clone(&book.borrow());
    let invalid =
        |error| Fatal::new(format!("a change of the configuration is not valid: {error}"));
    next.validate_after(&before.recorded).map_err(invalid)?;
    let plan = Arc::new(before.amended(next));
    tracing::info!(stamp = %plan.recorded.stamp(), what, "the configuration changes");

    let expected = Some(before.recorded.config.config_version);
    record(reign, &plan.recorded, expected).await?;
    let request = plan.keep_request();
    let logs = plan.recruits.logs.iter().map(|log| {
        reign.tell(&log.peer, "keeping the configuration", KEEP, &request, ASSIGN_LIMIT)
    });
    try_join_all(logs).await?;

    book.send_replace(Arc::clone(&plan));
    reign.live.amend(&plan.recorded);
    keep_at_storages(reign, &plan).await?;

    let timeout = Duration::from_millis(plan.parameters().system_transaction_timeout_ms);
    let ready = Some(&before.recorded);
    let deadline = Instant::now() + timeout;
    persist(reign, &plan, &account.last_recovery, ready, deadline).await?;

    let config_version = plan.recorded.config.config_version;
    let unix_ms = reign.context.runtime().unix_ms();
    let changes = &mut account.recovery.changes;
    changes.push(TeamChange { unix_ms, config_version, what });
    let surplus = changes.len().saturating_sub(TOLD);
    changes.drain(..surplus);
    tell_coordinators(reign, &account.recovery).await
}

/// Has the storages keep the configuration that run. Those that come later are told when they come.
async fn keep_at_storages(reign: &Reign, plan: &Plan) -> Result<(), Fatal> {
    let directory = reign.live.directory();
    let storages = plan.storages();
    let kept = storages.into_iter().filter_map(|(store, service)| {
        let pid = directory.pid_of(&service)?.clone();
        Some(keep_at_storage(reign, plan, store, Peer { service, pid }))
    });
    patiently(kept).await.map(drop)
}
