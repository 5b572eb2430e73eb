//! Removing the directory of a storage or log that the layout names no more.
//!
//! A director orders it, but the foreman obeys only what it has itself read at the coordinators,
//! linearizably: that the director's epoch is the latest, and that the recorded layout does not name
//! the directory. It looks twice: before it ends the worker, and when the worker's process has ended.
//! Who does not run can't be taken into a team as a whole copy, so between the second look and the
//! renaming nothing can come to depend on the directory. It is renamed, and deleted an hour later.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plinth_api::Nothing;
use plinth_api::coordinator::HOLDING;
use plinth_api::foreman::{RetireWorker, WorkerState};
use plinth_service::{Context, Failure};
use plinth_store::{Disk, StoreError};
use plinth_types::{ServiceName, StoreId};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::coordinators::Targets;
use crate::driver::Message;
use crate::http::Handle;
use crate::workers::Refusal;

/// How long a coordinator may take to tell what is recorded.
const ASK: Duration = Duration::from_secs(1);
/// How long a worker may take to end.
const END: Duration = Duration::from_secs(8);
/// How long a directory is kept that nothing needs any more.
const KEPT: Duration = Duration::from_secs(3_600);
/// Time between two looks at such directories.
const LOOK: Duration = Duration::from_secs(600);
/// How a removed directory's name begins; the time in milliseconds since 1970 follows.
const REMOVED: &str = "removed-";

/// Carries out an order to its end, even where whoever gave it has gone.
pub(crate) async fn retire(
    context: &Context,
    coordinators: Targets,
    handle: Handle,
    request: RetireWorker,
) -> Result<(), Failure> {
    let (done, result) = oneshot::channel();
    let work = {
        let context = context.clone();
        async move {
            let retired = retire_now(&context, &coordinators, &handle, &request).await;
            // Whoever asked may have gone.
            let _ = done.send(retired);
        }
    };
    drop(context.scope().spawn("retiring", work));
    result.await.unwrap_or_else(|_| Err(Refusal::Stopping.into()))
}

async fn retire_now(
    context: &Context,
    coordinators: &Targets,
    handle: &Handle,
    request: &RetireWorker,
) -> Result<(), Failure> {
    let RetireWorker { name, store, .. } = *request;
    check(context, coordinators, request).await?;
    handle.ask(|answer| Message::Retire(name, store, answer)).await?;
    let has_ended = handle.ended(name, END).await;
    let checked = match has_ended {
        true => check(context, coordinators, request).await,
        false => Err(Refusal::Running { name }.into()),
    };
    match checked {
        Ok(()) => handle.ask(|answer| Message::Discard(name, store, answer)).await,
        Err(failure) => {
            handle.ask(|answer| Message::Resume(name, answer)).await?;
            Err(failure)
        }
    }
}

/// Whether the coordinators agree that the directory is no longer needed.
async fn check(
    context: &Context,
    coordinators: &Targets,
    request: &RetireWorker,
) -> Result<(), Failure> {
    let RetireWorker { name, store, epoch } = *request;
    // A deliberate fault: whoever orders is believed.
    if context.runtime().fault("foreman.retire_unread") {
        return Ok(());
    }
    let mut last = Refusal::NoCoordinator { name, detail: "none is known".to_owned() };
    let targets = coordinators.borrow().clone();
    for coordinator in &targets {
        let held = context.peers().call(coordinator, &HOLDING, &Nothing {}, Some(epoch), ASK).await;
        let holding = match held {
            Ok(holding) => holding,
            Err(error) => {
                last = Refusal::NoCoordinator { name, detail: error.to_string() };
                continue;
            }
        };
        let latest = holding.appointed.map(|appointed| appointed.epoch).unwrap_or_default();
        if latest != epoch {
            return Err(Refusal::StaleEpoch { given: epoch, latest }.into());
        }
        return match holding.recorded {
            Some(recorded) if !recorded.config.layout.names_store(store) => Ok(()),
            Some(_) | None => Err(Refusal::Named { name, store }.into()),
        };
    }
    Err(last.into())
}

/// Puts a directory out of the way.
pub(crate) fn set_aside(
    disk: &dyn Disk,
    directory: &Path,
    name: ServiceName,
    store: StoreId,
    unix_ms: u64,
) -> Result<(), StoreError> {
    let name = name.to_string();
    if !disk.list(directory)?.contains(&name) {
        // Somebody else has taken it away.
        return Ok(());
    }
    disk.rename(
        &directory.join(&name),
        &directory.join(format!("{REMOVED}{unix_ms}-{name}-{store}")),
    )
}

/// Deletes directories that were set aside an hour ago.
pub(crate) async fn clean(context: Context, disk: Arc<dyn Disk>, directory: PathBuf) {
    loop {
        let now = context.runtime().unix_ms();
        let kept_ms = u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX);
        for entry in disk.list(&directory).unwrap_or_default() {
            let Some(removed) = removed_at(&entry) else { continue };
            if removed.saturating_add(kept_ms) <= now {
                match disk.remove(&directory.join(&entry)) {
                    Ok(()) => tracing::info!(entry, "a removed worker's directory is deleted"),
                    Err(error) => tracing::warn!(entry, %error, "a directory can't be deleted"),
                }
            }
        }
        sleep(LOOK).await;
    }
}

/// When a directory was set aside, by its name.
fn removed_at(entry: &str) -> Option<u64> {
    entry.strip_prefix(REMOVED)?.split('-').next()?.parse().ok()
}

impl Handle {
    /// Waits until a worker does not run, for at most `limit`. Whether it does not.
    async fn ended(&self, name: ServiceName, limit: Duration) -> bool {
        let is_down = |worker: Option<plinth_api::foreman::Worker>| {
            worker.is_none_or(|worker| worker.state == WorkerState::Down)
        };
        self.wait(limit, |snapshot| {
            let mut workers = snapshot.report.workers.iter();
            is_down(workers.find(|worker| worker.name == name).cloned())
        })
        .await;
        is_down(self.worker(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_set_aside_is_ever_deleted() {
        let name = format!("{REMOVED}1700000000000-storage-1-00ff");
        assert_eq!(removed_at(&name), Some(1_700_000_000_000));
        for other in ["storage-1", "workers.json", "removed-", "removed-storage-1", "cluster"] {
            assert_eq!(removed_at(other), None, "{other}");
        }
        assert!(name.parse::<ServiceName>().is_err());
    }
}
