//! The task that owns the machine, and how requests reach it. Calls to peers run in tasks of their
//! own; what they bring comes back here as an event.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use plinth_api::commit_proxy::{
    Assignment, Committed, Opening, Rate, RateAnswer, ReadVersion, ReadVersionRequest, Status,
};
use plinth_api::{ErrorCode, Problem};
use plinth_service::{Context, Failure};
use plinth_types::Epoch;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument as _, Span};

use crate::Limits;
use crate::calls::{self, Done};
use crate::command::{Command, Ticket, Work};
use crate::faults;
use crate::machine::CommitProxy;
use crate::meters::Meters;
use crate::refusal::Refusal;
use crate::transaction::Transaction;

/// Requests that may wait for the machine, which bounds what waits inside it.
const QUEUE: usize = 1_024;

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

enum Event {
    Assign(Box<Assignment>, Reply<()>),
    Open(Opening, Reply<()>),
    Commit(Epoch, Transaction, Waiting<Committed>),
    ReadVersion(ReadVersionRequest, Waiting<ReadVersion>),
    Rate(Rate, Reply<RateAnswer>),
    Status(Reply<Status>),
}

/// A caller that waits, and the span of its request.
struct Waiting<T> {
    reply: Reply<T>,
    span: Span,
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
        self.ask(|reply| Event::Assign(Box::new(assignment), reply)).await
    }

    pub(crate) async fn open(&self, opening: Opening) -> Result<(), Failure> {
        self.ask(|reply| Event::Open(opening, reply)).await
    }

    pub(crate) async fn commit(
        &self,
        epoch: Epoch,
        transaction: Transaction,
    ) -> Result<Committed, Failure> {
        let span = Span::current();
        let event = |reply| Event::Commit(epoch, transaction, Waiting { reply, span });
        self.ask_or(ErrorCode::CommitUnknownResult, event).await
    }

    pub(crate) async fn read_version(
        &self,
        request: ReadVersionRequest,
    ) -> Result<ReadVersion, Failure> {
        let span = Span::current();
        self.ask(|reply| Event::ReadVersion(request, Waiting { reply, span })).await
    }

    pub(crate) async fn rate(&self, rate: Rate) -> Result<RateAnswer, Failure> {
        self.ask(|reply| Event::Rate(rate, reply)).await
    }

    pub(crate) async fn status(&self) -> Result<Status, Failure> {
        self.ask(Event::Status).await
    }

    async fn ask<T>(&self, event: impl FnOnce(Reply<T>) -> Event) -> Result<T, Failure> {
        self.ask_or(ErrorCode::NotReady, event).await
    }

    /// `lost` is the code where the driver ends with the request in hand: what had been done about
    /// it can't be told.
    async fn ask_or<T>(
        &self,
        lost: ErrorCode,
        event: impl FnOnce(Reply<T>) -> Event,
    ) -> Result<T, Failure> {
        let ended = |code| Failure::new(code, "the commit proxy is stopping");
        let (reply, answer) = oneshot::channel();
        self.0.send(event(reply)).await.map_err(|_| ended(ErrorCode::NotReady))?;
        let answer = answer.await.map_err(|_| ended(lost))?;
        answer.map_err(|refusal| Failure::from(Problem::from(refusal)))
    }
}

/// What the machine is asked.
pub(crate) struct Events(mpsc::Receiver<Event>);

/// Owns the machine until the epoch can't go on; the result says why.
pub(crate) async fn drive(
    context: Context,
    limits: Limits,
    meters: Meters,
    events: Events,
) -> String {
    let mut events = events.0;
    let mut driver = Driver {
        machine: CommitProxy::new(limits, context.pid().incarnation),
        context,
        meters,
        tickets: 0,
        commits: BTreeMap::new(),
        reads: BTreeMap::new(),
        spans: BTreeMap::new(),
        last_batch: None,
        calls: FuturesUnordered::new(),
        started: Instant::now(),
        exit: None,
    };
    loop {
        let tick = driver.machine.next_tick().map(|at| driver.started + at);
        tokio::select! {
            biased;
            Some(done) = driver.calls.next() => {
                // Neither a panic nor the end of the scope is answered here: both end the service.
                if let Ok(Some(done)) = done {
                    driver.done(done);
                }
            }
            () = sleep_until(tick.unwrap_or(driver.started)), if tick.is_some() => driver.tick(),
            event = events.recv() => match event {
                Some(event) => driver.event(event),
                None => return "nobody can ask any more".to_owned(),
            },
        }
        if let Some(reason) = driver.exit.take() {
            return reason;
        }
    }
}

struct Driver {
    machine: CommitProxy,
    context: Context,
    meters: Meters,
    tickets: u64,
    /// Callers by ticket; the machine answers each once.
    commits: BTreeMap<Ticket, Waiting<Committed>>,
    reads: BTreeMap<Ticket, Waiting<ReadVersion>>,
    /// The span that a batch's calls belong to.
    spans: BTreeMap<Work, Span>,
    /// The trace of the newest batch with transactions: the empty batch that follows joins it. Not
    /// its span, which must end with the batch to be exported.
    last_batch: Option<String>,
    calls: FuturesUnordered<JoinHandle<Option<Done>>>,
    /// The moment that the machine counts from.
    started: Instant,
    exit: Option<String>,
}

impl Driver {
    fn tick(&mut self) {
        self.machine.set_time(self.started.elapsed());
        let commands = self.machine.tick();
        self.carry_out(commands);
    }

    fn event(&mut self, event: Event) {
        self.machine.set_time(self.started.elapsed());
        let commands = match event {
            Event::Assign(assignment, reply) => {
                let epoch = assignment.epoch;
                let result = self.machine.assign(*assignment);
                if result.is_ok() {
                    self.context.set_epoch(epoch);
                    self.context.set_state("assigned");
                    tracing::info!(epoch = epoch.0, "takes up the epoch, closed");
                }
                let (commands, result) = match result {
                    Ok(commands) => (commands, Ok(())),
                    Err(refusal) => (vec![], Err(refusal)),
                };
                let _ = reply.send(result);
                commands
            }
            Event::Open(opening, reply) => {
                let result = self.machine.open(&opening);
                if result.is_ok() {
                    self.context.set_state("open");
                    tracing::info!(epoch = opening.epoch.0, "accepts commits");
                }
                let _ = reply.send(result);
                vec![]
            }
            Event::Commit(epoch, mut transaction, waiting) => {
                faults::on_commit(self.context.runtime(), &mut transaction);
                let ticket = self.ticket();
                self.commits.insert(ticket, waiting);
                self.machine.commit(ticket, epoch, transaction)
            }
            Event::ReadVersion(ReadVersionRequest { epoch, count }, waiting) => {
                let ticket = self.ticket();
                self.reads.insert(ticket, waiting);
                self.machine.read_version(ticket, epoch, count)
            }
            Event::Rate(rate, reply) => match self.machine.set_rate(&rate) {
                Ok((begun, commands)) => {
                    self.meters.rate(rate.per_second);
                    let _ = reply.send(Ok(RateAnswer { begun }));
                    commands
                }
                Err(refusal) => {
                    let _ = reply.send(Err(refusal));
                    vec![]
                }
            },
            Event::Status(reply) => {
                let _ = reply.send(Ok(self.machine.status()));
                vec![]
            }
        };
        self.carry_out(commands);
    }

    fn done(&mut self, done: Done) {
        self.machine.set_time(self.started.elapsed());
        let commands = match done {
            Done::Versioned(batch, place) => self.machine.versioned(batch, place),
            Done::Resolved(batch, mut verdicts) => {
                faults::on_verdicts(self.context.runtime(), &mut verdicts);
                self.machine.resolved(batch, &verdicts)
            }
            Done::Logged(batch) => self.machine.logged(batch),
            Done::Reported(batch) => {
                self.spans.remove(&batch);
                let commands = self.machine.reported(batch);
                self.context.set_version(self.machine.status().committed);
                commands
            }
            Done::Read(round, version) => self.machine.read(round, version),
            Done::Failed(work, failure) => self.machine.failed(work, failure),
        };
        self.carry_out(commands);
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn carry_out(&mut self, commands: Vec<Command>) {
        for command in faults::on_commands(self.context.runtime(), commands) {
            match command {
                Command::AskVersion { batch, tickets, members, request } => {
                    self.meters.batch(tickets.len());
                    let span = self.batch_span(&tickets, members.epoch);
                    self.spans.insert(batch, span.clone());
                    let call = calls::ask_version(self.peers(), members, batch, request);
                    self.spawn("version", call.instrument(span));
                }
                Command::Resolve { batch, members, requests } => {
                    let span = self.span_of(batch);
                    if let Some(request) = requests.first() {
                        plinth_telemetry::record_version(&span, request.version.0);
                    }
                    let call = calls::resolve(self.peers(), members, batch, requests);
                    self.spawn("resolution", call.instrument(span));
                }
                Command::Push { batch, members, mut entries } => {
                    let span = self.span_of(batch);
                    let traceparent = plinth_telemetry::traceparent(&span);
                    for entry in &mut entries {
                        entry.traceparent.clone_from(&traceparent);
                    }
                    let faults = self.context.runtime();
                    let skipped = usize::from(faults.fault("commit_proxy.skip_log"));
                    let rash = faults.fault("commit_proxy.answer_before_logged");
                    let call = calls::push(self.peers(), members, batch, entries, skipped);
                    if rash {
                        drop(self.context.scope().spawn("push", call));
                        self.spawn("no push", std::future::ready(Done::Logged(batch)));
                    } else {
                        self.spawn("push", call.instrument(span));
                    }
                }
                Command::Report { batch, members, request } => {
                    let span = self.span_of(batch);
                    let call = calls::report(self.peers(), members, batch, request);
                    if self.context.runtime().fault("commit_proxy.answer_before_reported") {
                        drop(self.context.scope().spawn("report", faults::late(call)));
                        self.spawn("no report", std::future::ready(Done::Reported(batch)));
                    } else {
                        self.spawn("report", call.instrument(span));
                    }
                }
                Command::AskReadVersion { round, tickets, members } => {
                    let spans = tickets.iter().filter_map(|ticket| self.reads.get(ticket));
                    let span = parent(spans.map(|waiting| &waiting.span));
                    let confirm = !self.context.runtime().fault("commit_proxy.skip_confirmation");
                    let call = calls::read_version(self.peers(), members, round, confirm);
                    self.spawn("read version", call.instrument(span));
                }
                Command::AnswerCommit { ticket, result } => {
                    self.meters.answer(result.as_ref().err());
                    if let Some(waiting) = self.commits.remove(&ticket) {
                        let result = faults::on_answer(self.context.runtime(), result);
                        // A caller that has gone needs no answer.
                        let _ = waiting.reply.send(result);
                    }
                }
                Command::AnswerRead { ticket, result } => {
                    if let Some(waiting) = self.reads.remove(&ticket) {
                        let result = result.map(|(version, granted)| {
                            let granted = Some(granted);
                            ReadVersion { version, granted }
                        });
                        let _ = waiting.reply.send(result);
                    }
                }
                Command::Exit { reason } => self.exit = Some(reason),
            }
        }
    }

    fn peers(&self) -> plinth_service::Peers {
        self.context.peers().clone()
    }

    fn spawn(&mut self, name: &'static str, call: impl Future<Output = Done> + Send + 'static) {
        self.calls.push(self.context.scope().spawn(name, call));
    }

    /// The batch's own span, in the trace of its first sampled transaction.
    fn batch_span(&mut self, tickets: &[Ticket], epoch: Epoch) -> Span {
        let service = self.context.service().to_string();
        let span = || plinth_telemetry::step_span("commit_batch", &service);
        let span = if tickets.is_empty() {
            let span = span();
            if let Some(last) = self.last_batch.take() {
                plinth_telemetry::set_parent_from_traceparent(&span, &last);
            }
            span
        } else {
            let spans = tickets.iter().filter_map(|ticket| self.commits.get(ticket));
            let span = parent(spans.map(|waiting| &waiting.span)).in_scope(span);
            self.last_batch = plinth_telemetry::traceparent(&span);
            span
        };
        plinth_telemetry::record_epoch(&span, epoch.0);
        span
    }

    fn span_of(&self, batch: Work) -> Span {
        self.spans.get(&batch).cloned().unwrap_or_else(Span::none)
    }
}

/// The first span that is sampled, else the first.
fn parent<'a>(spans: impl Iterator<Item = &'a Span> + Clone) -> Span {
    let sampled = spans.clone().find(|span| plinth_telemetry::traceparent(span).is_some());
    sampled.or_else(|| spans.clone().next()).cloned().unwrap_or_else(Span::none)
}
