//! The task that owns the machine, and how requests reach it.

use std::collections::BTreeMap;

use plinth_api::resolver::{Assignment, Resolution, Status, Verdict};
use plinth_api::{ErrorCode, Problem};
use plinth_service::{Context, Failure};
use tokio::sync::{mpsc, oneshot};

use crate::Limits;
use crate::machine::{Decision, Refusal, Resolver, Ticket};

/// Requests that may wait for the machine.
const QUEUE: usize = 1_024;

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

enum Event {
    Assign(Assignment, Reply<()>),
    Resolve(Resolution, Reply<Vec<Verdict>>),
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

    pub(crate) async fn resolve(&self, batch: Resolution) -> Result<Vec<Verdict>, Failure> {
        self.ask(|reply| Event::Resolve(batch, reply)).await
    }

    pub(crate) async fn status(&self) -> Result<Status, Failure> {
        self.ask(Event::Status).await
    }

    async fn ask<T>(&self, event: impl FnOnce(Reply<T>) -> Event) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let stopping = || Failure::new(ErrorCode::NotReady, "the resolver is stopping");
        self.0.send(event(reply)).await.map_err(|_| stopping())?;
        let answer = answer.await.map_err(|_| stopping())?;
        answer.map_err(|refusal| Failure::from(Problem::from(refusal)))
    }
}

/// What the machine is asked.
pub(crate) struct Events(mpsc::Receiver<Event>);

/// Owns the machine until no handle is left.
pub(crate) async fn drive(context: Context, limits: Limits, mut events: Events) {
    let mut driver =
        Driver { machine: Resolver::new(limits), replies: BTreeMap::new(), tickets: 0, context };
    while let Some(event) = events.0.recv().await {
        driver.handle(event);
    }
}

struct Driver {
    machine: Resolver,
    /// Callers whose batch is not decided yet; bounded by the machine's limit on what waits.
    replies: BTreeMap<Ticket, Reply<Vec<Verdict>>>,
    tickets: u64,
    context: Context,
}

impl Driver {
    /// A caller that has gone needs no answer: all replies may fail.
    fn handle(&mut self, event: Event) {
        match event {
            Event::Assign(assignment, reply) => {
                let result = self.machine.assign(&assignment).map(|ended| self.answer(ended));
                if result.is_ok() {
                    self.context.set_epoch(assignment.epoch);
                    self.context.set_state("assigned");
                    tracing::info!(epoch = assignment.epoch.0, "takes up the epoch");
                }
                let _ = reply.send(result);
            }
            Event::Resolve(mut batch, reply) => {
                if self.context.runtime().fault("resolver.ignore_reads") {
                    batch.transactions.iter_mut().for_each(|footprint| footprint.reads.clear());
                }
                if self.context.runtime().fault("resolver.judge_too_old") {
                    self.rejuvenate(&mut batch);
                }
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                self.replies.insert(ticket, reply);
                let decisions = self.machine.resolve(ticket, batch);
                self.answer(decisions);
            }
            Event::Status(reply) => {
                let _ = reply.send(Ok(self.machine.status()));
            }
        }
    }

    /// A deliberate fault: what read too long ago is taken to have read just now.
    fn rejuvenate(&self, batch: &mut Resolution) {
        let oldest = self.machine.oldest_at(batch.version);
        for footprint in &mut batch.transactions {
            if footprint.read_version.is_some_and(|read| read < oldest) {
                footprint.read_version = Some(batch.version.minus(1));
            }
        }
    }

    fn answer(&mut self, decisions: Vec<Decision>) {
        for Decision { ticket, result } in decisions {
            if let Some(reply) = self.replies.remove(&ticket) {
                let _ = reply.send(result);
            }
        }
    }
}
