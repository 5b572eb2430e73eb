//! The task that fetches a copy of a tag from the members of its team, page by page.

use std::time::Duration;

use plinth_api::Target;
use plinth_api::storage::{PAGE, Page, PageRequest};
use plinth_service::Context;
use plinth_types::{Epoch, StoreId, Tag};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::config::Limits;
use crate::copying::Want;
use crate::driver::Command;
use crate::pulling::{Task, pause};

/// The pause between two pages, where a simulation wants something to happen between them.
const SLOW_PAGE: Duration = Duration::from_millis(100);

/// How the driver took a page.
pub(crate) enum NextPage {
    /// It is durable; this is next.
    Go(Want),
    /// It was not taken now; this is still to come.
    Later(Want),
    /// It was not taken; another member may do better.
    Other(Want),
}

/// A page that has come, for the driver to write.
pub(crate) struct Fetched {
    /// The assignment that it belongs to.
    pub(crate) session: u64,
    pub(crate) tag: Tag,
    pub(crate) page: Page,
    /// Dropped where nothing more is to be fetched.
    pub(crate) taken: oneshot::Sender<NextPage>,
}

/// What is to be fetched.
pub(crate) struct Fetch {
    pub(crate) session: u64,
    pub(crate) epoch: Epoch,
    pub(crate) tag: Tag,
    /// Who asks.
    pub(crate) newcomer: StoreId,
    /// Whom to ask, best first; at least one.
    pub(crate) sources: Vec<(StoreId, Target)>,
    pub(crate) want: Want,
}

/// Fetches until the driver wants no more.
pub(crate) fn fetch(
    context: &Context,
    limits: Limits,
    fetch: Fetch,
    commands: mpsc::Sender<Command>,
) -> Task {
    let task = fetch_on(context.clone(), limits, fetch, commands);
    Task::new(context.scope().spawn("fetching", task))
}

async fn fetch_on(context: Context, limits: Limits, fetch: Fetch, commands: mpsc::Sender<Command>) {
    let Fetch { session, epoch, tag, newcomer, sources, mut want } = fetch;
    let wait_ms = u64::try_from(limits.pull_wait.as_millis()).unwrap_or(u64::MAX);
    let time_limit = limits.pull_wait + limits.peer_timeout;
    let mut failures = 0;
    for (source, target) in sources.iter().cycle() {
        let detail = loop {
            let request = PageRequest {
                epoch,
                source: *source,
                newcomer,
                tag,
                range: want.range.clone(),
                at_least: want.at_least,
                limit_bytes: limits.page_bytes as u64,
                wait_ms,
            };
            let page = match context
                .peers()
                .call(target, &PAGE, &request, Some(epoch), time_limit)
                .await
            {
                Ok(page) if page.source == *source && page.newcomer == newcomer => page,
                Ok(page) => break format!("{} answers instead of {source}", page.source),
                Err(error) => break error.to_string(),
            };
            let (taken, next) = oneshot::channel();
            let fetched = Fetched { session, tag, page, taken };
            if commands.send(Command::Fetched(fetched)).await.is_err() {
                return;
            }
            match next.await {
                Ok(NextPage::Go(next)) => {
                    (want, failures) = (next, 0);
                    if context.runtime().fault("storage.slow_copy") {
                        sleep(SLOW_PAGE).await;
                    }
                }
                Ok(NextPage::Later(next)) => {
                    want = next;
                    sleep(limits.retry_delay).await;
                }
                Ok(NextPage::Other(next)) => {
                    want = next;
                    break "no page that can be taken".to_owned();
                }
                Err(_) => return,
            }
        };
        failures += 1;
        // Each member is tried once before there is a pause.
        if failures >= sources.len() {
            tracing::warn!(source = target.address, %tag, detail, "no member gives a page");
            if commands.send(Command::Stuck { session, tag, detail }).await.is_err() {
                return;
            }
            sleep(pause(limits.retry_delay, failures / sources.len())).await;
        }
    }
}
