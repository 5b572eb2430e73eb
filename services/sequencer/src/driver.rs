//! The task that owns the machine, and how requests reach it.

use std::future::Future;

use plinth_api::sequencer::{Assignment, CommitVersion, CommitVersionRequest, Status};
use plinth_api::{ErrorCode, Problem};
use plinth_service::{Context, Failure};
use plinth_types::{Epoch, Version};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::Limits;
use crate::machine::{Refusal, Sequencer};

/// Requests that may wait for the machine. Each is answered without waiting for anything, so the
/// queue is short-lived.
const QUEUE: usize = 1_024;

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

enum Event {
    Assign(Assignment, Reply<()>),
    CommitVersion(CommitVersionRequest, Reply<CommitVersion>),
    Report(Epoch, Version, Reply<Version>),
    Committed(Epoch, Reply<Version>),
    Status(Reply<Status>),
}

/// Asks the machine. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle(mpsc::Sender<Event>);

impl Handle {
    /// A handle and the events that come through it.
    pub(crate) fn new() -> (Handle, Events) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Handle(sender), Events(receiver))
    }

    pub(crate) async fn assign(&self, assignment: Assignment) -> Result<(), Failure> {
        self.ask(|reply| Event::Assign(assignment, reply)).await
    }

    pub(crate) async fn commit_version(
        &self,
        request: CommitVersionRequest,
    ) -> Result<CommitVersion, Failure> {
        self.ask(|reply| Event::CommitVersion(request, reply)).await
    }

    pub(crate) async fn report(&self, epoch: Epoch, version: Version) -> Result<Version, Failure> {
        self.ask(|reply| Event::Report(epoch, version, reply)).await
    }

    pub(crate) async fn committed(&self, epoch: Epoch) -> Result<Version, Failure> {
        self.ask(|reply| Event::Committed(epoch, reply)).await
    }

    pub(crate) async fn status(&self) -> Result<Status, Failure> {
        self.ask(Event::Status).await
    }

    async fn ask<T>(&self, event: impl FnOnce(Reply<T>) -> Event) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let stopping = || Failure::new(ErrorCode::NotReady, "the sequencer is stopping");
        self.0.send(event(reply)).await.map_err(|_| stopping())?;
        let answer = answer.await.map_err(|_| stopping())?;
        answer.map_err(|refusal| Failure::from(Problem::from(refusal)))
    }
}

/// What the machine is asked.
pub(crate) struct Events(mpsc::Receiver<Event>);

/// Owns the machine until no handle is left.
pub(crate) fn drive(context: Context, limits: Limits, events: Events) -> impl Future<Output = ()> {
    let mut events = events.0;
    async move {
        let started = Instant::now();
        let mut machine = Sequencer::new(limits);
        while let Some(event) = events.recv().await {
            // A caller that has gone needs no answer: all replies may fail.
            match event {
                Event::Assign(assignment, reply) => {
                    let result = machine.assign(&assignment);
                    if result.is_ok() {
                        context.set_epoch(assignment.epoch);
                        context.set_state("assigned");
                        tracing::info!(epoch = assignment.epoch.0, "takes up the epoch");
                    }
                    let _ = reply.send(result);
                }
                Event::CommitVersion(request, reply) => {
                    let CommitVersionRequest { epoch, proxy, request } = request;
                    let now = started.elapsed();
                    let _ = reply.send(machine.commit_version(now, epoch, proxy, request));
                }
                Event::Report(_, version, reply)
                    if context.runtime().fault("sequencer.forget_report") =>
                {
                    let _ = reply.send(Ok(version));
                }
                Event::Report(epoch, version, reply) => {
                    let _ = reply.send(machine.report(epoch, version));
                }
                Event::Committed(epoch, reply) => {
                    let _ = reply.send(machine.committed(epoch));
                }
                Event::Status(reply) => {
                    let _ = reply.send(Ok(machine.status()));
                }
            }
        }
    }
}
