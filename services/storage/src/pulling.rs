//! The tasks that speak to the logs: one pulls a tag, one a log and tag pops.

use std::time::Duration;

use plinth_api::log::{POP, PULL, PopRequest, PullAnswer, PullQuery};
use plinth_api::{ErrorCode, Target};
use plinth_service::Context;
use plinth_types::{Epoch, StoreId, Tag, Version};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::config::Limits;
use crate::driver::Command;

/// A task that ends when nobody wants its work any more.
pub(crate) struct Task(JoinHandle<Option<()>>);

impl Task {
    pub(crate) const fn new(task: JoinHandle<Option<()>>) -> Task {
        Task(task)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// From where to pull on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) after: Version,
    pub(crate) known_committed: Version,
}

/// How the driver took an answer.
pub(crate) enum Next {
    /// It was applied.
    Go(Place),
    /// It could not be: another log may do better.
    Other(Place),
}

/// What a pull brought, for the driver to apply.
pub(crate) struct Pulled {
    /// The assignment that the pull belongs to.
    pub(crate) session: u64,
    pub(crate) tag: Tag,
    pub(crate) answer: PullAnswer,
    /// Dropped where there is nothing more to pull.
    pub(crate) next: oneshot::Sender<Next>,
}

/// What a puller is to do.
pub(crate) struct Pull {
    pub(crate) session: u64,
    pub(crate) epoch: Epoch,
    pub(crate) tag: Tag,
    /// Logs that hold the tag, best first; at least one.
    pub(crate) logs: Vec<Target>,
    pub(crate) from: Place,
}

/// Pulls a tag until the driver wants no more.
pub(crate) fn pull(
    context: &Context,
    limits: Limits,
    pull: Pull,
    commands: mpsc::Sender<Command>,
) -> Task {
    let task = pull_on(context.clone(), limits, pull, commands);
    Task(context.scope().spawn("pulling", task))
}

async fn pull_on(context: Context, limits: Limits, pull: Pull, commands: mpsc::Sender<Command>) {
    let Pull { session, epoch, tag, logs, mut from } = pull;
    let wait_ms = u64::try_from(limits.pull_wait.as_millis()).unwrap_or(u64::MAX);
    let time_limit = limits.pull_wait + limits.peer_timeout;
    let mut failures = 0;
    let mut last_error = None;
    // Logs in a row that have dropped what is to come next.
    let mut dropped = 0;
    for log in logs.iter().cycle() {
        loop {
            let Place { after, known_committed } = from;
            let limit_bytes = limits.pull_bytes;
            let query = PullQuery { tag, epoch, after, known_committed, wait_ms, limit_bytes };
            let answer = match context
                .peers()
                .call(log, &PULL, &query, Some(epoch), time_limit)
                .await
            {
                Ok(answer) => answer,
                Err(error) => {
                    // Said once, not at each attempt.
                    if failures < logs.len() {
                        tracing::warn!(log = log.address, %tag, %error, "the log can't be pulled from");
                    }
                    let is_dropped = error.code() == Some(ErrorCode::TransactionTooOld);
                    dropped = if is_dropped { dropped + 1 } else { 0 };
                    last_error = Some(error);
                    break;
                }
            };
            let (next, taken) = oneshot::channel();
            let pulled = Pulled { session, tag, answer, next };
            if commands.send(Command::Pulled(pulled)).await.is_err() {
                return;
            }
            match taken.await {
                Ok(Next::Go(on)) => {
                    (from, failures, dropped, last_error) = (on, 0, 0, None);
                }
                Ok(Next::Other(on)) => {
                    from = on;
                    break;
                }
                Err(_) => return,
            }
        }
        failures += 1;
        // Each log is tried once before there is a pause.
        if failures >= logs.len() {
            let detail = last_error
                .as_ref()
                .map_or("no answer that can be applied".to_owned(), ToString::to_string);
            if dropped >= logs.len() {
                let (retry, retried) = oneshot::channel();
                let command = Command::Dropped { session, tag, detail, retry };
                // What begins a copy again follows the logs anew, by another puller.
                if commands.send(command).await.is_err() || retried.await.is_err() {
                    return;
                }
            } else if commands.send(Command::Stuck { session, tag, detail }).await.is_err() {
                return;
            }
            sleep(pause(limits.retry_delay, failures / logs.len())).await;
        }
    }
}

/// Longer from round to round, up to 16 times.
pub(crate) fn pause(first: Duration, round: usize) -> Duration {
    let doublings = u32::try_from(round.saturating_sub(1)).unwrap_or(u32::MAX).min(4);
    first.saturating_mul(1 << doublings)
}

/// What a popper is to do.
pub(crate) struct Pop {
    pub(crate) epoch: Epoch,
    pub(crate) tag: Tag,
    pub(crate) store: StoreId,
    pub(crate) log: Target,
    /// What is durable.
    pub(crate) durable: watch::Receiver<Version>,
}

/// Tells a log what is durable, whenever that changes.
pub(crate) fn pop(context: &Context, limits: Limits, pop: Pop) -> Task {
    Task(context.scope().spawn("popping", pop_on(context.clone(), limits, pop)))
}

async fn pop_on(context: Context, limits: Limits, pop: Pop) {
    let Pop { epoch, tag, store, log, mut durable } = pop;
    let mut popped = Version::ZERO;
    let mut round = 0;
    while durable.wait_for(|version| *version > popped).await.is_ok() {
        let version = *durable.borrow();
        let request = PopRequest { epoch, tag, store, version };
        match context.peers().call(&log, &POP, &request, Some(epoch), limits.peer_timeout).await {
            Ok(_) => (popped, round) = (version, 0),
            Err(error) => {
                tracing::debug!(log = log.address, %tag, %error, "the log can't be popped");
                round += 1;
                sleep(pause(limits.retry_delay, round)).await;
            }
        }
    }
}
