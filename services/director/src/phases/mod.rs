//! The phases of a recovery, a module each, in their order. Each module says what its phase does
//! and which invariant it keeps; [`recover`] is the whole recovery on one page.

pub(crate) mod accepting_commits;
pub(crate) mod choosing_version;
pub(crate) mod fully_recovered;
pub(crate) mod locking;
pub(crate) mod monitoring;
pub(crate) mod reading_layout;
pub(crate) mod recording_layout;
pub(crate) mod recruiting;
pub(crate) mod replaying;
pub(crate) mod starting_transaction_system;
pub(crate) mod system_transaction;

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use plinth_system_config::{Layout, RecoveryPhase as Phase};
use plinth_types::VERSION_GAP;
use tokio::sync::watch;

use crate::amending::Account;
use crate::fatal::Fatal;
use crate::plan::{Frame, Plan};
use crate::reign::Reign;
use crate::{rate, replicating, tending};

/// Recovers, and then tends the epoch until it ends. There is no other way into the writable state,
/// and no way back: whatever fails ends the director.
pub(crate) async fn recover(reign: &Reign) -> Result<Infallible, Fatal> {
    let read = reign.phase(Phase::ReadingLayout, reading_layout::run(reign)).await?;
    let mut locked = reign.phase(Phase::Locking, locking::run(reign, &read.holding)).await?;
    if let Some(recorded) = &mut locked.recorded
        && reign.context.runtime().fault("director.write_old_parameters_back")
    {
        recorded.config.parameters = (*reign.first_parameters).clone();
    }
    let floor = read.holding.version_floor;
    let mut versions = choosing_version::choose(&locked, floor).map_err(Fatal::new);
    if let Ok(versions) = &mut versions
        && reign.context.runtime().fault("director.recover_to_known_committed")
    {
        versions.recovery = versions.known_committed;
    }
    if let Ok(versions) = &mut versions
        && reign.context.runtime().fault("director.forgets_first_version")
    {
        versions.first = versions.recovery.plus(VERSION_GAP);
    }
    let versions = reign.phase(Phase::ChoosingVersion, ready(versions)).await?;
    for log in &locked.logs {
        tracing::info!(log = %log.service, end = %log.answer.end, "locked");
    }
    tracing::info!(?versions, "versions chosen");

    let plan = reign.phase(Phase::Recruiting, async {
        let recruits = recruiting::run(reign, &read.holding, &locked).await?;
        let frame = frame(reign, &read, &locked);
        Plan::draw_up(&frame, locked.recorded.as_ref(), versions, &locked.logs, recruits)
            .map_err(|error| Fatal::new(error.to_string()))
    });
    let plan = plan.await?;
    reign.phase(Phase::Replaying, replaying::run(reign, &plan)).await?;
    let started = starting_transaction_system::run(reign, &plan);
    let assigned = reign.phase(Phase::StartingTransactionSystem, started).await?;

    let recording = recording_layout::run(reign, &plan, &read.holding, assigned);
    let tended = reign.phase(Phase::RecordingLayout, recording).await?;
    let book = watch::Sender::new(Arc::new(plan.clone()));
    tending::start(reign, &book, tended);
    reign.phase(Phase::Monitoring, monitoring::run(reign, &book)).await?;
    let proving = async {
        if reign.context.runtime().fault("director.skip_system_transaction") {
            return Ok(None);
        }
        system_transaction::run(reign, &plan, &read).await.map(Some)
    };
    let last_recovery = reign.phase(Phase::SystemTransaction, proving).await?;
    let opening = accepting_commits::run(reign, &plan);
    let recovery = reign.phase(Phase::AcceptingCommits, opening).await?;
    rate::start(reign, &book);
    if let Some(last_recovery) = last_recovery {
        replicating::start(reign, &book, Account { last_recovery, recovery });
    }
    reign.phase(Phase::FullyRecovered, fully_recovered::run(reign, &book)).await?;
    Err(reign.failed().await)
}

fn frame(reign: &Reign, read: &reading_layout::Read, locked: &locking::Locked) -> Frame {
    // A configuration that a log kept may be newer than the coordinators'.
    let kept = locked.recorded.as_ref().map(|recorded| recorded.config.config_version);
    Frame {
        cluster: read.holding.cluster,
        group: read.holding.group,
        coordinators: read.holding.coordinators.clone(),
        next_coordinators: read.holding.next_coordinators.clone(),
        epoch: reign.epoch,
        director: reign.context.service().clone(),
        incarnation: reign.context.pid().incarnation,
        follows: kept.max(read.expected()).unwrap_or_default(),
        first_parameters: (*reign.first_parameters).clone(),
        first_shards: (*reign.first_shards).clone(),
    }
}

/// The words for a layout in logs.
fn summary<S>(layout: &Layout<S>) -> String {
    format!(
        "{} logs, {} storage teams, {} commit proxies, {} resolvers",
        layout.logs.len(),
        layout.storage_teams.len(),
        layout.commit_proxies.len(),
        layout.resolvers.len()
    )
}
