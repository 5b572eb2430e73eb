//! The log: the ordered, fsynced record of committed batches.
//!
//! Every log of an epoch gets every batch, in the order of the chain `prev` → `version`; what comes
//! early waits. A push is answered once its entry, and with it all before, is fsynced; pushes that
//! arrive during one write share the next. Storages pull their tags by long poll and see only what
//! is durable. When every recorded member of a tag's team has popped a version, the tag's data up
//! to there is dropped.
//!
//! An epoch begins with a lock and an assignment. The lock is on disk before it is answered, and
//! from then on, restarts included, nothing of an earlier epoch is accepted, nor anything of
//! another director of the same one. The assignment truncates what is above the recovery version
//! RV, fetches what the log lacks from those that have it, and opens the log to the epoch's pushes:
//! the first leads from RV to the generation's first version. A restarted log stays closed until
//! the next epoch takes it up.
//!
//! # Invariants
//!
//! - A lock's epoch is durable before it is answered; lower epochs, and equal ones of another
//!   director, are refused ever after.
//! - A locked log accepts nothing of an earlier epoch. What it acknowledges after a lock is within
//!   the end that the lock's answer named.
//! - Acknowledged means fsynced. Pullers see nothing that is not.
//! - An entry follows the entry before it: no gaps, no two entries with one version. No answer ends
//!   strictly between RV and the first version.
//! - Data is dropped only up to what every recorded member has popped, newcomers that are given a
//!   copy included; a member counts until a recorded layout no longer names it. Of tags that the
//!   assignment no longer names only once a commit shows that the new layout was recorded.
//!
//! # What it refuses to do
//!
//! It does not decide what is committed, nor what the recovery version is. It does not serve a
//! damaged directory: it then says so and still answers the configuration that it keeps.

mod config;
mod copying;
mod driver;
mod http;
pub mod machine;
mod opening;
pub mod records;
mod refusal;

use std::sync::Arc;

use plinth_service::{Exit, Host};
use plinth_store::Disk;
use tokio::sync::mpsc;

pub use config::{Config, LONGEST_WAIT, Limits};
pub use refusal::Refusal;

use crate::http::Handle;

/// What the endpoints look like.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    http::routes().openapi()
}

/// Serves until it is asked to stop or the disk fails.
pub async fn serve(host: Host, config: Config, disk: Arc<dyn Disk>) -> Exit {
    let context = host.context();
    let (sender, mut commands) = mpsc::channel(config.limits.commands);
    let routes = http::routes().with_state(Handle(sender));
    let main = async move {
        tokio::select! {
            biased;
            () = context.stopping() => Exit::clean(),
            exit = opening::run(context.clone(), config, disk, &mut commands) => exit,
        }
    };
    host.run(routes, main).await
}
