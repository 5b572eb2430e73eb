//! The task that owns the machine and the store: everything that a log does passes through it, in
//! one order. One write is under way at a time; whatever comes meanwhile goes into the next one.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use plinth_api::log::{
    Assignment, Entry, KeepRequest, Kept, LockAnswer, LockRequest, PopRequest, PullAnswer,
    PullQuery, PushAnswer, Status,
};
use plinth_api::{ErrorCode, Nothing, Problem};
use plinth_service::{Context, Exit};
use plinth_store::{Durability, Store, StoreError};
use plinth_telemetry::{Histogram, LATENCY_SECONDS, record_epoch, record_version, step_span};
use plinth_types::{Epoch, Version};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::Span;

use crate::config::{LONGEST_WAIT, Limits};
use crate::copying;
use crate::machine::{AssignStep, Copied, Machine, Mark};
use crate::records::{self, OnDisk, Row};
use crate::refusal::Refusal;

/// How long to wait before a full disk is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(200);
/// Commands that are handled before the next write is begun.
const ROUND: usize = 1024;

/// Where the answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Problem>>;

/// What the log is asked.
pub(crate) enum Command {
    Lock(LockRequest, Reply<LockAnswer>),
    Assign(Assignment, Reply<Nothing>),
    Push(Entry, Span, Reply<PushAnswer>),
    Pull(PullQuery, Reply<PullAnswer>),
    Pop(PopRequest, Reply<Nothing>),
    Confirm(Epoch, Reply<Nothing>),
    Keep(Box<KeepRequest>, Reply<Nothing>),
    Kept(Reply<Kept>),
    Status(Reply<Status>),
}

impl Command {
    /// Answers a command that there is no machine for: what is kept, if that is known, and a
    /// refusal to everything else.
    pub(crate) fn answer_without_machine(self, refusal: &Refusal, kept: Option<Kept>) {
        match self {
            Command::Kept(reply) => answer(reply, kept.ok_or_else(|| refusal.clone())),
            Command::Lock(_, reply) => answer(reply, Err(refusal.clone())),
            Command::Assign(_, reply)
            | Command::Pop(_, reply)
            | Command::Confirm(_, reply)
            | Command::Keep(_, reply) => {
                answer(reply, Err(refusal.clone()));
            }
            Command::Push(_, _, reply) => answer(reply, Err(refusal.clone())),
            Command::Pull(_, reply) => answer(reply, Err(refusal.clone())),
            Command::Status(reply) => answer(reply, Err(refusal.clone())),
        }
    }
}

/// A caller that has gone needs no answer.
fn answer<T>(reply: Reply<T>, result: Result<T, Refusal>) {
    let _ = reply.send(result.map_err(Problem::from));
}

/// What is answered once everything queued before it is durable.
enum Promise {
    Lock(LockRequest, Reply<LockAnswer>),
    Done(Reply<Nothing>),
}

struct WaitingPull {
    query: PullQuery,
    deadline: Instant,
    reply: Reply<PullAnswer>,
}

struct WaitingPush {
    reply: Reply<PushAnswer>,
    epoch: Epoch,
    span: Span,
}

/// A write under way.
struct Write {
    rows: Vec<Row>,
    mark: Mark,
    began: Instant,
    /// Open until the write is durable: an `fsync` below each push that it serves.
    spans: Vec<Span>,
    done: BoxFuture<'static, Result<(), StoreError>>,
}

/// An assignment that waits for its copies.
struct Copying {
    assignment: Assignment,
    replies: Vec<Reply<Nothing>>,
    done: BoxFuture<'static, Result<Vec<Copied>, Problem>>,
}

/// Owns the machine and the store.
pub(crate) struct Driver {
    context: Context,
    limits: Limits,
    service: String,
    store: Arc<dyn Store>,
    machine: Machine,
    pushes: BTreeMap<Version, Vec<WaitingPush>>,
    pulls: Vec<WaitingPull>,
    /// By the sequence of the rows that must be written before.
    promises: VecDeque<(u64, Promise)>,
    written: u64,
    write: Option<Write>,
    copying: Option<Copying>,
    full: bool,
    /// What of the store can't be read back.
    damage: Option<String>,
    fsync_seconds: Option<Histogram>,
}

impl Driver {
    pub(crate) fn new(
        context: Context,
        limits: Limits,
        store: Arc<dyn Store>,
        machine: Machine,
    ) -> Driver {
        let fsync_seconds = context
            .metrics()
            .histogram(
                "log_fsync_seconds",
                "How long a group of writes took until it was durable",
                &LATENCY_SECONDS,
            )
            .ok();
        Driver {
            service: context.service().to_string(),
            context,
            limits,
            store,
            machine,
            pushes: BTreeMap::new(),
            pulls: Vec::new(),
            promises: VecDeque::new(),
            written: 0,
            write: None,
            copying: None,
            full: false,
            damage: None,
            fsync_seconds,
        }
    }

    /// Works until the disk fails, or does not give back what was written. Whoever opens the store then
    /// finds it damaged, and says so when it is to be locked: it counts as missing, and nobody is left to
    /// recruit it again and again for what it can't give.
    pub(crate) async fn run(mut self, commands: &mut mpsc::Receiver<Command>) -> Exit {
        loop {
            if let Some(damage) = self.damage.take() {
                return Exit::failure(format!("what was written can't be read back: {damage}"));
            }
            if let Err(exit) = self.begin_write() {
                return exit;
            }
            let deadline = self.pulls.iter().map(|pull| pull.deadline).min();
            tokio::select! {
                biased;
                result = wait_for(self.write.as_mut().map(|write| &mut write.done)) => {
                    if let Err(exit) = self.finish_write(result) {
                        return exit;
                    }
                }
                copied = wait_for(self.copying.as_mut().map(|copying| &mut copying.done)) => self.copied(copied),
                command = commands.recv() => {
                    let Some(command) = command else {
                        return Exit::clean();
                    };
                    self.handle(command);
                    for _ in 1..ROUND {
                        let Ok(command) = commands.try_recv() else { break };
                        self.handle(command);
                    }
                }
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    self.end_pulls();
                }
            }
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Lock(request, reply) => self.lock(request, reply),
            Command::Assign(assignment, reply) => self.assign(assignment, reply),
            Command::Push(entry, span, reply) => self.push(entry, span, reply),
            Command::Pull(query, reply) => self.pull(query, reply),
            Command::Pop(request, reply) => {
                let result = self.machine.pop(&request);
                answer(reply, result.map(|()| Nothing {}));
            }
            Command::Confirm(epoch, reply) => {
                let result = match self.context.runtime().fault("log.confirm_stale") {
                    true => Ok(()),
                    false => self.machine.confirm(epoch),
                };
                answer(reply, result.map(|()| Nothing {}));
            }
            Command::Keep(request, reply) => {
                let result = self.machine.keep(*request);
                if result.is_ok() {
                    self.machine.take_members();
                }
                if self.context.runtime().fault("log.forgets_newcomers") {
                    self.machine.forget_newcomers();
                }
                self.promise(result, Promise::Done, reply);
            }
            Command::Kept(reply) => {
                let kept = self.machine.config().map(Option::<&_>::cloned);
                answer(reply, kept.map(|recorded| Kept { recorded }));
            }
            Command::Status(reply) => {
                answer(reply, Ok(Status { disk_full: self.full, ..self.machine.status() }));
            }
        }
    }

    /// Answers a refusal at once, and a success when everything queued so far is durable.
    fn promise<T>(
        &mut self,
        result: Result<(), Refusal>,
        promise: impl FnOnce(Reply<T>) -> Promise,
        reply: Reply<T>,
    ) {
        match result {
            Err(refusal) => answer(reply, Err(refusal)),
            Ok(()) if self.full => {
                let _ = reply.send(Err(disk_full()));
            }
            Ok(()) => {
                self.promises.push_back((self.machine.sequence(), promise(reply)));
                self.keep_promises();
            }
        }
    }

    fn lock(&mut self, request: LockRequest, reply: Reply<LockAnswer>) {
        let before = self.machine.locked();
        let result = self.machine.lock(&request);
        self.after_fence(before);
        self.promise(result, |reply| Promise::Lock(request, reply), reply);
    }

    /// Whoever waits for an epoch that is over now is told so.
    fn after_fence(&mut self, before: Epoch) {
        let locked = self.machine.locked();
        if locked == before {
            return;
        }
        self.context.set_epoch(locked);
        self.context.set_state("locked");
        tracing::info!(epoch = locked.0, end = self.machine.end().0, "locked");
        for push in self.pushes.split_off(&self.machine.end().plus(1)).into_values().flatten() {
            answer(push.reply, Err(Refusal::Stale { asked: push.epoch, locked }));
        }
        if let Some(copying) = self.copying.take_if(|copying| copying.assignment.epoch < locked) {
            for reply in copying.replies {
                answer(reply, Err(Refusal::Stale { asked: copying.assignment.epoch, locked }));
            }
        }
    }

    fn assign(&mut self, assignment: Assignment, reply: Reply<Nothing>) {
        let before = self.machine.locked();
        let step = self.machine.assign(&assignment);
        self.after_fence(before);
        match step {
            Err(refusal) => answer(reply, Err(refusal)),
            Ok(AssignStep::Done) => self.promise(Ok(()), Promise::Done, reply),
            Ok(AssignStep::Copy) if assignment.copy.is_empty() => {
                self.copying = None;
                self.take_up(&assignment, Vec::new(), vec![reply]);
            }
            Ok(AssignStep::Copy) => self.begin_copying(assignment, reply),
        }
    }

    fn begin_copying(&mut self, assignment: Assignment, reply: Reply<Nothing>) {
        match &mut self.copying {
            // The director asks again because it has had no answer; one copy is enough.
            Some(copying) if copying.assignment.generation == assignment.generation => {
                copying.replies.push(reply)
            }
            Some(_) | None => {
                self.context.set_state("copying");
                let done =
                    copying::copy(self.context.clone(), self.limits, assignment.clone()).boxed();
                self.copying = Some(Copying { assignment, replies: vec![reply], done });
            }
        }
    }

    fn copied(&mut self, result: Result<Vec<Copied>, Problem>) {
        let Some(Copying { assignment, replies, .. }) = self.copying.take() else {
            return;
        };
        match result {
            Ok(mut copied) => {
                if self.context.runtime().fault("log.copy_nothing") {
                    copied.iter_mut().for_each(|copy| copy.entries.clear());
                }
                self.take_up(&assignment, copied, replies);
            }
            Err(problem) => {
                tracing::warn!(epoch = assignment.epoch.0, %problem, "can't copy what the epoch needs");
                for reply in replies {
                    let _ = reply.send(Err(problem.clone()));
                }
            }
        }
    }

    fn take_up(
        &mut self,
        assignment: &Assignment,
        copied: Vec<Copied>,
        replies: Vec<Reply<Nothing>>,
    ) {
        // Copies are merged into what is in memory.
        let ready = match copied.is_empty() {
            true => Ok(()),
            false => self.machine.take_back(&OnDisk(&*self.store)),
        };
        self.note_damage(&ready);
        let result = ready.and_then(|()| self.machine.take_up(assignment, copied));
        if result.is_ok() {
            self.context.set_state("open");
            let generation = assignment.generation;
            tracing::info!(
                epoch = generation.epoch.0,
                recovery_version = generation.recovery_version.0,
                first_version = generation.first_version.0,
                "takes up the epoch"
            );
        }
        for reply in replies {
            self.promise(result.clone(), Promise::Done, reply);
        }
    }

    fn push(&mut self, entry: Entry, span: Span, reply: Reply<PushAnswer>) {
        if self.full {
            let _ = reply.send(Err(disk_full()));
            return;
        }
        let (epoch, version) = (entry.epoch, entry.version);
        match self.machine.push(entry) {
            // A deliberate fault: nobody has told it that the epoch is over.
            Err(Refusal::Stale { .. })
                if self.context.runtime().fault("log.locked_takes_pushes") =>
            {
                answer(reply, Ok(PushAnswer { durable: version }));
            }
            Err(refusal) => answer(reply, Err(refusal)),
            Ok(_) if version <= self.machine.durable() => {
                answer(reply, Ok(PushAnswer { durable: self.machine.durable() }));
            }
            Ok(_) => {
                self.pushes.entry(version).or_default().push(WaitingPush { reply, epoch, span })
            }
        }
    }

    fn pull(&mut self, mut query: PullQuery, reply: Reply<PullAnswer>) {
        if self.context.runtime().fault("log.forgets_newcomers") {
            // It does not even say that something is missing.
            query.after = query.after.max(self.machine.popped(query.tag));
        }
        let found = self.machine.pull(&query, &OnDisk(&*self.store));
        self.note_damage(&found);
        match found {
            Err(refusal) => answer(reply, Err(refusal)),
            Ok(Some(found)) => answer(reply, Ok(found)),
            Ok(None) if query.wait_ms == 0 => answer(reply, Ok(self.machine.nothing_new(&query))),
            Ok(None) => {
                if self.pulls.len() >= self.limits.pulls {
                    self.pulls.retain(|pull| !pull.reply.is_closed());
                }
                if self.pulls.len() >= self.limits.pulls {
                    return answer(reply, Err(Refusal::Full { what: "pulls that wait" }));
                }
                let deadline =
                    Instant::now() + Duration::from_millis(query.wait_ms).min(LONGEST_WAIT);
                self.pulls.push(WaitingPull { query, deadline, reply });
            }
        }
    }

    fn note_damage<T>(&mut self, read: &Result<T, Refusal>) {
        if let Err(Refusal::Damaged(damage)) = read {
            self.damage = Some(damage.clone());
        }
    }

    fn end_pulls(&mut self) {
        let now = Instant::now();
        let (over, waiting) =
            std::mem::take(&mut self.pulls).into_iter().partition(|pull| pull.deadline <= now);
        self.pulls = waiting;
        let over: Vec<WaitingPull> = over;
        for pull in over {
            let nothing = self.machine.nothing_new(&pull.query);
            answer(pull.reply, Ok(nothing));
        }
    }

    fn wake_pulls(&mut self) {
        for pull in std::mem::take(&mut self.pulls) {
            let found = self.machine.pull(&pull.query, &OnDisk(&*self.store));
            self.note_damage(&found);
            match found {
                Ok(None) => self.pulls.push(pull),
                Ok(Some(found)) => answer(pull.reply, Ok(found)),
                Err(refusal) => answer(pull.reply, Err(refusal)),
            }
        }
    }

    fn begin_write(&mut self) -> Result<(), Exit> {
        if self.write.is_some() {
            return Ok(());
        }
        let Some((mut rows, mark)) = self.machine.take_rows() else {
            return Ok(());
        };
        if self.context.runtime().fault("log.lock_not_persisted") {
            rows.retain(|row| !matches!(row, Row::Lock(_)));
        }
        if self.context.runtime().fault("log.lose_entry") {
            rows.retain(|row| !matches!(row, Row::Entry(_)));
        }
        let spans = self.fsync_spans(&rows);
        let done = self.store_write(&rows, mark)?;
        self.write = Some(Write { rows, mark, began: Instant::now(), spans, done });
        Ok(())
    }

    fn store_write(
        &self,
        rows: &[Row],
        mark: Mark,
    ) -> Result<BoxFuture<'static, Result<(), StoreError>>, Exit> {
        let batch = records::batch(rows)
            .map_err(|error| Exit::failure(format!("a record can't be written: {error}")))?;
        let careless = self.context.runtime().fault("log.ack_before_sync");
        let durability =
            if mark.urgent() && !careless { Durability::Synced } else { Durability::Buffered };
        Ok(self.store.write(batch, durability))
    }

    fn fsync_spans(&self, rows: &[Row]) -> Vec<Span> {
        let versions = rows.iter().filter_map(|row| match row {
            Row::Entry(entry) => Some(entry.version),
            _ => None,
        });
        versions
            .filter_map(|version| self.pushes.get(&version).map(|pushes| (version, pushes)))
            .flat_map(|(version, pushes)| pushes.iter().map(move |push| (version, push)))
            .map(|(version, push)| {
                let span = push.span.in_scope(|| step_span("fsync", &self.service));
                record_epoch(&span, push.epoch.0);
                record_version(&span, version.0);
                span
            })
            .collect()
    }

    fn finish_write(&mut self, result: Result<(), StoreError>) -> Result<(), Exit> {
        let Some(write) = self.write.take() else {
            return Ok(());
        };
        match result {
            Ok(()) => {}
            Err(error @ StoreError::Full { .. }) => return self.try_again(write, &error),
            Err(error) => return Err(Exit::failure(format!("the disk failed: {error}"))),
        }
        if std::mem::take(&mut self.full) {
            self.context.set_check("disk", Ok(()));
        }
        if let Some(seconds) = self.fsync_seconds.as_ref().filter(|_| write.mark.urgent()) {
            seconds.observe(write.began.elapsed().as_secs_f64());
        }
        drop(write.spans);
        self.machine.synced(write.mark);
        let durable = self.machine.durable();
        self.context.set_version(durable);
        let waiting = self.pushes.split_off(&durable.plus(1));
        for push in std::mem::replace(&mut self.pushes, waiting).into_values().flatten() {
            answer(push.reply, Ok(PushAnswer { durable }));
        }
        self.written = write.mark.sequence();
        self.keep_promises();
        self.wake_pulls();
        Ok(())
    }

    /// A full disk changes nothing and may have room again: the same rows are written then.
    fn try_again(&mut self, write: Write, error: &StoreError) -> Result<(), Exit> {
        if !std::mem::replace(&mut self.full, true) {
            tracing::error!(%error, "the disk is full: pushes wait until there is room");
            self.context.set_check("disk", Err(error.to_string()));
        }
        let batch = records::batch(&write.rows)
            .map_err(|error| Exit::failure(format!("a record can't be written: {error}")))?;
        let store = Arc::clone(&self.store);
        let durability =
            if write.mark.urgent() { Durability::Synced } else { Durability::Buffered };
        let done = async move {
            tokio::time::sleep(FULL_PAUSE).await;
            store.write(batch, durability).await
        }
        .boxed();
        self.write = Some(Write { done, ..write });
        Ok(())
    }

    /// Answers whatever waited for what is written by now.
    fn keep_promises(&mut self) {
        while let Some((_, promise)) =
            self.promises.pop_front_if(|(sequence, _)| *sequence <= self.written)
        {
            match promise {
                Promise::Lock(request, reply) => answer(reply, self.machine.lock_answer(&request)),
                Promise::Done(reply) => answer(reply, Ok(Nothing {})),
            }
        }
    }
}

fn disk_full() -> Problem {
    Problem::new(
        ErrorCode::DiskFull,
        "the log's disk is full: free some space, it goes on by itself then",
    )
}

/// Waits for what there is, or for ever.
async fn wait_for<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
