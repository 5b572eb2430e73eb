//! The director: one epoch's recovery, its system transaction, and the watch over it.
//!
//! A director stands by until a coordinator appoints it to an epoch (`PUT /v1/appointment`). It then
//! goes once through the phases of a recovery, each a module of `phases` that says what it does
//! and which invariant it keeps:
//!
//! | phase | does |
//! |---|---|
//! | `phases::reading_layout` | a linearizable read of the last layout |
//! | `phases::locking` | locks its logs: no earlier epoch acknowledges anything any more |
//! | `phases::choosing_version` | how far the committed history goes |
//! | `phases::recruiting` | keeps the healthy, fills vacancies |
//! | `phases::replaying` | every log has exactly what survives |
//! | `phases::starting_transaction_system` | everybody takes up the epoch, closed to clients |
//! | `phases::recording_layout` | compare-and-set at the coordinators; logs and storages keep it |
//! | `phases::monitoring` | a watch on every component |
//! | `phases::system_transaction` | the configuration goes into storage; proves the pipeline |
//! | `phases::accepting_commits` | clients may commit |
//! | `phases::fully_recovered` | storages have caught up, the old generation is not needed |
//!
//! Decisions are pure and apart from I/O: which logs count and when they are enough
//! (`locking::machine`), the versions (`choosing_version`), who sits where
//! (`recruiting::placement`), what everybody is told (`plan`), when the system transaction is proved
//! (`system_transaction::proof`), which storage has to be told again (`tending`), who joins and who
//! leaves a storage team (`teams`), how many transactions may begin (`rate::controller`).
//!
//! While the epoch lasts, storages are no cause to end it. One that is gone for good is replaced
//! meanwhile: another one is given a copy and takes its place, each step a change of the recorded
//! configuration (`replicating`, `amending`). Parameters are changed in the same way (`changing`); where
//! that asks for other components, the epoch ends once the change is durable.
//!
//! **What it refuses to do.** It repairs nothing in place: whatever fails, it tells the coordinators
//! why (`fatal`) and exits, and the next epoch begins with another director. It serves one epoch in
//! its life. It never goes on with a layout that it could not record, never counts a log by its name
//! alone, and never takes silence for an answer: where something is lacking, it waits `stalled` and
//! says so. Storages, gateways, foremen and coordinators are no cause to end an epoch.

mod amending;
mod changing;
mod config;
mod coordinators;
mod desk;
mod fatal;
mod http;
mod live;
mod meters;
mod phases;
mod plan;
mod progress;
mod rate;
mod registry;
mod reign;
mod replicating;
#[cfg(test)]
mod samples;
mod teams;
mod tending;

use std::sync::Arc;

use plinth_api::coordinator::{FAREWELL, Farewell};
use plinth_service::{Context, Exit, Host, KnownCoordinators, announce};
use tokio::time::timeout;

pub use config::Config;

use crate::config::FAREWELL_LIMIT;
use crate::desk::Desk;
use crate::fatal::Fatal;
use crate::reign::Reign;

/// The director's OpenAPI document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    http::routes().openapi()
}

/// Stands by, and then serves one epoch. The exit says why it ended.
pub async fn serve(host: Host, config: Config) -> Exit {
    let context = host.context();
    let desk = Desk::new(context.clone());
    let routes = http::routes().with_state(desk.clone());
    host.run(routes, direct(context, config, desk)).await
}

async fn direct(context: Context, config: Config, desk: Desk) -> Exit {
    if config.coordinators.is_empty() {
        return Exit::usage("no coordinator is named: a director can't serve without one");
    }
    context.set_state(progress::STANDBY);
    let mut coordinators = KnownCoordinators::new(config.coordinators);
    if let Some(foreman) = config.foreman {
        coordinators = coordinators.with_news(announce(&context, foreman, None));
    }
    let accepted = tokio::select! {
        biased;
        () = context.stopping() => return Exit::clean(),
        accepted = desk.appointed() => accepted,
        reason = desk.dismissed(None) => {
            return Exit::failure(format!("dismissed while it stood by: {reason}"));
        }
    };
    let parameters = Arc::new(config.parameters);
    let mut reign = Reign::begin(context.clone(), accepted, coordinators, parameters, &desk);
    reign.first_shards = Arc::new(config.shards);
    let mut stopping = false;
    let fatal = tokio::select! {
        biased;
        () = context.stopping() => {
            stopping = true;
            Fatal::new("the director was asked to stop")
        }
        later = desk.superseded(reign.epoch) => Fatal::superseded(format_args!("epoch {later} has begun")),
        reason = desk.dismissed(Some(reign.epoch)) => Fatal::superseded(format_args!("dismissed: {reason}")),
        Err(fatal) = phases::recover(&reign) => fatal,
    };
    tracing::warn!(epoch = reign.epoch.0, reason = fatal.reason, "the epoch ends");
    let how = if fatal.superseded { "superseded" } else { "failed" };
    reign.mark(format_args!("director.{how}.{}", reign.progress.status().phase));
    // The coordinators first: the next epoch begins on it.
    farewell(&reign, &fatal).await;
    if stopping { Exit::clean() } else { Exit::failure(fatal.reason) }
}

async fn farewell(reign: &Reign, fatal: &Fatal) {
    let words = Farewell {
        epoch: reign.epoch,
        director: reign.context.pid().incarnation,
        reason: fatal.reason.clone(),
        suspects: fatal.suspects.clone(),
        later: fatal.later,
    };
    let told = reign.coordinators.call(FAREWELL, &words, reign.epoch, FAREWELL_LIMIT);
    match timeout(FAREWELL_LIMIT, told).await {
        Ok(Ok(_)) => {}
        // The monitor stream ends with the reason too.
        Ok(Err(error)) => tracing::warn!(%error, "no coordinator took the farewell"),
        Err(_) => tracing::warn!("no coordinator took the farewell in time"),
    }
}
