//! The task that owns the streams and the store: everything that a storage does passes through it,
//! in one order. Each tag has at most one write under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use plinth_api::log::{Entry, KeepRequest, Kept};
use plinth_api::storage::{
    Assignment, ReadAnswer, ReadRequest, ShardConfig, ShardConfigQuery, Status, WatchAnswer,
    WatchRequest,
};
use plinth_api::{Nothing, Target, Tenure};
use plinth_service::{Context, Exit, Failure};
use plinth_store::{Batch, Durability, Store, StoreError};
use plinth_system_config::{Recorded, encode_stored};
use plinth_telemetry::{deferred_span, record_epoch, record_version, set_parent_from_traceparent};
use plinth_types::{Epoch, StoreId, Tag, Version};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use crate::config::Limits;
use crate::meters::Meters;
use crate::pulling::{self, Next, Place, Pop, Pull, Pulled, Task};
use crate::reading;
use crate::records::{self, Position};
use crate::refusal::{Breach, Refusal};
use crate::stream::{Accepted, Stream, Unusable, Urgency};
use crate::waiting::Waiting;
use crate::watching::Watches;

/// The check of `/readyz` that says whether the logs' streams arrive.
const CHECK: &str = "streams";
/// The check of `/readyz` that says whether the disk takes what is written.
const DISK: &str = "disk";
/// How long to wait before a full disk is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(200);
/// What is made durable at a time, and how long that takes, where a simulation wants a slow disk.
const SLOW_BYTES: usize = 2 << 10;
const SLOW_FLUSH: Duration = Duration::from_millis(200);
/// The longest that a question for the configuration may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Where the answer goes. A caller that has gone needs none, so sending may fail.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// A watch and where its answer goes.
type Watch = (WatchRequest, Reply<WatchAnswer>);

/// What the storage is asked.
pub(crate) enum Command {
    Assign(Assignment, Reply<Nothing>),
    Read(ReadRequest, Reply<ReadAnswer>),
    Watch(WatchRequest, Reply<WatchAnswer>),
    ShardConfig(ShardConfigQuery, Reply<ShardConfig>),
    Keep(Box<KeepRequest>, Reply<Nothing>),
    Kept(Reply<Kept>),
    Status(Reply<Status>),
    /// A log has answered a pull.
    Pulled(Pulled),
    /// No log of a tag brings anything.
    Stuck {
        session: u64,
        tag: Tag,
        detail: String,
    },
}

impl Command {
    /// Answers that there is no storage yet.
    pub(crate) fn refuse(self, reason: &'static str) {
        let failure = || Failure::from(Refusal::Starting(reason));
        match self {
            Command::Assign(_, reply) | Command::Keep(_, reply) => drop(reply.send(Err(failure()))),
            Command::Read(_, reply) => drop(reply.send(Err(failure()))),
            Command::Watch(_, reply) => drop(reply.send(Err(failure()))),
            Command::ShardConfig(_, reply) => drop(reply.send(Err(failure()))),
            Command::Kept(reply) => drop(reply.send(Err(failure()))),
            Command::Status(reply) => drop(reply.send(Err(failure()))),
            Command::Pulled(_) | Command::Stuck { .. } => {}
        }
    }
}

/// A write that has ended.
enum Written {
    Tag(Tag, Result<(), StoreError>),
    Kept(Box<Recorded>, Reply<Nothing>, Result<(), StoreError>),
}

/// Owns the streams and the store.
pub(crate) struct Driver {
    context: Context,
    service: String,
    limits: Limits,
    id: StoreId,
    store: Arc<dyn Store>,
    sender: mpsc::Sender<Command>,
    tenure: Tenure,
    /// The newest epoch that the disk or a caller spoke of; lower ones are over.
    seen: Epoch,
    kept: Option<Recorded>,
    /// The newest configuration that was ordered to be written; it may not be durable yet.
    keeping: Option<Recorded>,
    /// What is wrong with the configuration on disk, until another one has taken its place.
    damage: Option<String>,
    streams: BTreeMap<Tag, Stream>,
    /// What is durable, for those who pop.
    durable: BTreeMap<Tag, watch::Sender<Version>>,
    /// Pullers and poppers of the assignment.
    tasks: Vec<Task>,
    session: u64,
    /// Pullers that wait until the disk has taken some of what they brought.
    held: BTreeMap<Tag, oneshot::Sender<Next>>,
    /// Tags that no log brings, each with the reason.
    stuck: BTreeMap<Tag, String>,
    writes: FuturesUnordered<BoxFuture<'static, Written>>,
    /// When each tag that has something to make durable is to do so.
    due: BTreeMap<Tag, Instant>,
    reads: Waiting<(ReadRequest, Reply<ReadAnswer>)>,
    watches: Watches<Watch>,
    /// Watches from a version on that has not arrived.
    early_watches: Waiting<Watch>,
    configs: Waiting<Reply<ShardConfig>>,
    meters: Meters,
}

impl Driver {
    pub(crate) fn new(
        context: Context,
        limits: Limits,
        id: StoreId,
        store: Arc<dyn Store>,
        sender: mpsc::Sender<Command>,
        tags: BTreeMap<Tag, Position>,
        kept: Result<Option<Recorded>, String>,
    ) -> Driver {
        let damage = kept.as_ref().err().cloned();
        let kept = kept.unwrap_or_default();
        let meters = Meters::new(context.metrics());
        meters.show_damage(damage.is_some());
        let kept_epoch = kept.as_ref().map_or(Epoch::ZERO, |kept| kept.stamp().epoch);
        let seen = tags.values().map(|position| position.epoch).fold(kept_epoch, Epoch::max);
        Driver {
            service: context.service().to_string(),
            meters,
            context,
            limits,
            id,
            store,
            sender,
            tenure: Tenure::default(),
            seen,
            keeping: kept.clone(),
            kept,
            damage,
            streams: tags
                .into_iter()
                .map(|(tag, durable)| (tag, Stream::restore(tag, durable)))
                .collect(),
            durable: BTreeMap::new(),
            tasks: Vec::new(),
            session: 0,
            held: BTreeMap::new(),
            stuck: BTreeMap::new(),
            writes: FuturesUnordered::new(),
            due: BTreeMap::new(),
            reads: Waiting::default(),
            watches: Watches::default(),
            early_watches: Waiting::default(),
            configs: Waiting::default(),
        }
    }

    /// Works until the disk fails, or an invariant is found broken.
    pub(crate) async fn run(mut self, commands: &mut mpsc::Receiver<Command>) -> Exit {
        loop {
            // Questions for the configuration are not answered while it is being written.
            let writing = self.streams.get(&Tag::SYSTEM).is_some_and(Stream::is_writing);
            let deadlines = [
                self.due.values().min().copied(),
                self.reads.deadline(),
                self.watches.deadline(),
                self.early_watches.deadline(),
                self.configs.deadline().filter(|_| !writing),
            ];
            let deadline = deadlines.into_iter().flatten().min();
            let step = tokio::select! {
                biased;
                Some(written) = self.writes.next() => self.written(written),
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    self.expire();
                    self.flush()
                }
                command = commands.recv() => match command {
                    Some(command) => self.handle(command),
                    None => return Exit::clean(),
                },
            };
            if let Err(exit) = step {
                return exit;
            }
        }
    }

    fn handle(&mut self, command: Command) -> Result<(), Exit> {
        match command {
            Command::Assign(assignment, reply) => {
                let result = self.assign(assignment)?;
                let _ = reply.send(result.map(|()| Nothing {}).map_err(Failure::from));
            }
            Command::Read(request, reply) => {
                let deadline = Instant::now() + self.limits.read_wait;
                self.read(request, reply, deadline);
            }
            Command::Watch(request, reply) => {
                let wait = Duration::from_millis(request.wait_ms).min(LONGEST_WAIT);
                self.watch((request, reply), Instant::now() + wait);
            }
            Command::ShardConfig(query, reply) => self.shard_config(query, reply),
            Command::Keep(request, reply) => self.keep(*request, reply),
            Command::Kept(reply) => {
                let _ = reply.send(records::kept(self.kept.as_ref(), self.damage.as_deref()));
            }
            Command::Status(reply) => {
                let _ = reply.send(Ok(self.status()));
            }
            Command::Pulled(pulled) => self.pulled(pulled)?,
            Command::Stuck { session, tag, detail } => {
                if session == self.session {
                    self.stuck.insert(tag, detail);
                    self.show_streams();
                }
            }
        }
        Ok(())
    }

    fn status(&self) -> Status {
        let tags = self.streams.values().map(Stream::status).collect();
        let queue_bytes: usize = self.streams.values().map(Stream::window_bytes).sum();
        let queue_bytes = u64::try_from(queue_bytes).unwrap_or(u64::MAX);
        Status { store: self.id, epoch: self.tenure.epoch(), tags, queue_bytes }
    }

    fn fence(&self, asked: Epoch) -> Result<(), Refusal> {
        if asked < self.seen { Err(Refusal::Over { asked, seen: self.seen }) } else { Ok(()) }
    }

    fn assign(&mut self, assignment: Assignment) -> Result<Result<(), Refusal>, Exit> {
        let mut tenure = self.tenure;
        if let Err(refusal) = self.may_assign(&assignment, &mut tenure) {
            return Ok(Err(refusal));
        }
        let Assignment { epoch, generation, tags, logs, window_versions, .. } = assignment;
        for tag in &tags {
            let fresh = || Stream::restore(tag.tag, Position::default());
            self.streams.entry(tag.tag).or_insert_with(fresh);
        }
        let breach = self.streams.values().find_map(|stream| stream.check(generation).err());
        if let Some(breach) = breach {
            return Err(breached(&breach));
        }
        self.tenure = tenure;
        self.seen = epoch;
        self.session += 1;
        self.tasks.clear();
        self.held.clear();
        self.stuck.clear();
        self.due.clear();
        let mut left: Vec<Tag> = self.streams.keys().copied().collect();
        for tag in tags {
            left.retain(|other| *other != tag.tag);
            let targets: Vec<Target> = logs
                .iter()
                .filter(|log| log.tags.contains(&tag.tag))
                .map(|log| Target::from(&log.peer.pid))
                .collect();
            let keeps_void = self.context.runtime().fault("storage.keep_void");
            if let Some(stream) = self.streams.get_mut(&tag.tag) {
                let applied = stream.version();
                if keeps_void {
                    stream.begin(generation, tag.ranges.clone(), window_versions);
                }
                stream
                    .assign(generation, tag.ranges, window_versions)
                    .map_err(|breach| breached(&breach))?;
                if stream.version() < applied {
                    self.context.runtime().mark("storage.dropped_back");
                }
            }
            self.follow(tag.tag, epoch, targets);
        }
        for tag in left {
            if let Some(stream) = self.streams.get_mut(&tag) {
                stream.release();
            }
        }
        self.context.set_epoch(epoch);
        self.context.set_state("assigned");
        self.show_streams();
        tracing::info!(
            epoch = epoch.0,
            recovery_version = generation.recovery_version.0,
            first_version = generation.first_version.0,
            "takes up the epoch"
        );
        // Whoever waits is of an earlier epoch, and hears of it now.
        for (deadline, (request, reply)) in self.reads.take_all() {
            self.read(request, reply, deadline);
        }
        let watches = [self.watches.take_all(), self.early_watches.take_all()];
        for (deadline, watch) in watches.into_iter().flatten() {
            self.watch(watch, deadline);
        }
        self.flush()?;
        Ok(Ok(()))
    }

    fn may_assign(&self, assignment: &Assignment, tenure: &mut Tenure) -> Result<(), Refusal> {
        let Assignment { epoch, director, generation, tags, logs, .. } = assignment;
        self.fence(*epoch)?;
        tenure.take(*epoch, *director)?;
        let invalid = |detail: String| Err(Refusal::Assignment(detail));
        if generation.epoch != *epoch {
            return invalid(format!("its generation is of epoch {}", generation.epoch));
        }
        if generation.first_version <= generation.recovery_version {
            return invalid("its first version is not above its recovery version".to_owned());
        }
        if let Some(tag) =
            tags.iter().find(|tag| !logs.iter().any(|log| log.tags.contains(&tag.tag)))
        {
            return invalid(format!("no log holds tag {}", tag.tag));
        }
        let same = |stream: &Stream| {
            stream.generation().is_none_or(|held| held.epoch != *epoch || held == *generation)
        };
        if self.streams.values().all(same) { Ok(()) } else { Err(Refusal::Reassigned(*epoch)) }
    }

    /// Starts to pull a tag, and to pop it from every log that holds it.
    fn follow(&mut self, tag: Tag, epoch: Epoch, mut logs: Vec<Target>) {
        let Some(stream) = self.streams.get(&tag) else { return };
        let durable = watch::Sender::new(stream.durable().version);
        for log in logs.clone() {
            let pop = Pop { epoch, tag, store: self.id, log, durable: durable.subscribe() };
            self.tasks.push(pulling::pop(&self.context, self.limits, pop));
        }
        self.durable.insert(tag, durable);
        // A tag's storages begin at different logs, so that the load spreads.
        let count = logs.len() as u128;
        if let Some(first) =
            self.id.0.checked_rem(count).and_then(|first| usize::try_from(first).ok())
        {
            logs.rotate_left(first);
            let pull = Pull { session: self.session, epoch, tag, logs, from: place(stream) };
            self.tasks.push(pulling::pull(&self.context, self.limits, pull, self.sender.clone()));
        }
    }

    fn pulled(&mut self, pulled: Pulled) -> Result<(), Exit> {
        let Pulled { session, tag, answer, next } = pulled;
        // An answer to an assignment that is over is dropped, and its puller ends.
        let Some(stream) = self.streams.get_mut(&tag).filter(|_| session == self.session) else {
            return Ok(());
        };
        let accepted = match stream.accept(answer) {
            // A deliberate fault: whatever a log has counts as committed.
            Ok(accepted) if self.context.runtime().fault("storage.take_all_for_committed") => {
                Accepted { known_committed: accepted.end, ..accepted }
            }
            Ok(accepted) => accepted,
            Err(unusable @ Unusable::Superseded(_)) => {
                tracing::info!(%tag, %unusable, "nothing more is applied in this epoch");
                return Ok(());
            }
            Err(unusable @ Unusable::Misfit { .. }) => {
                tracing::error!(%tag, %unusable, "a log's answer is refused");
                let _ = next.send(Next::Other(place(stream)));
                return Ok(());
            }
        };
        for entry in accepted.entries {
            if self.context.runtime().fault("storage.skip_entry") {
                continue;
            }
            let span = entry
                .traceparent
                .as_deref()
                .map(|parent| apply_span(&self.service, parent, &entry));
            let _entered = span.as_ref().map(tracing::Span::enter);
            stream.apply(entry, &*self.store).map_err(|error| disk_failed(&error))?;
        }
        let watching = self.watches.len() + self.early_watches.len() > 0
            && !self.context.runtime().fault("storage.forget_watches");
        // What is older than the window is forgotten by `advance`.
        let changed = if watching {
            stream.newly_committed(accepted.end, accepted.known_committed)
        } else {
            BTreeSet::new()
        };
        stream.advance(accepted.end, accepted.known_committed, self.limits.window_bytes);
        let (version, committed) = (stream.version(), stream.committed());
        if self.context.runtime().fault("storage.pop_above_durable")
            && let Some(watched) = self.durable.get(&tag)
        {
            watched.send_replace(committed);
        }
        if stream.is_congested(self.limits.window_bytes) {
            self.held.insert(tag, next);
        } else {
            let _ = next.send(Next::Go(place(stream)));
        }
        if self.stuck.remove(&tag).is_some() {
            self.show_streams();
        }
        let newest = self.streams.values().map(Stream::version).max();
        self.context.set_version(newest.unwrap_or(version));
        for (deadline, (request, reply)) in self.reads.take_through(version) {
            self.read(request, reply, deadline);
        }
        let mut watches: Vec<_> = changed.iter().flat_map(|key| self.watches.take(key)).collect();
        watches.extend(self.early_watches.take_through(committed));
        for (deadline, watch) in watches {
            self.watch(watch, deadline);
        }
        self.meters.show(&self.streams);
        self.flush()
    }

    fn show_streams(&self) {
        let result = match self.stuck.first_key_value() {
            None => Ok(()),
            Some((tag, detail)) => Err(format!("tag {tag} can't be pulled from any log: {detail}")),
        };
        self.context.set_check(CHECK, result);
    }

    /// Begins the writes that are due.
    fn flush(&mut self) -> Result<(), Exit> {
        let now = Instant::now();
        for (tag, stream) in &mut self.streams {
            let due = match stream.urgency() {
                Urgency::None => {
                    self.due.remove(tag);
                    continue;
                }
                Urgency::Now => now,
                Urgency::Soon => *self.due.entry(*tag).or_insert(now + self.limits.flush_delay),
            };
            if due > now {
                continue;
            }
            self.due.remove(tag);
            // A disk that is too slow for what comes, in a simulation of that.
            let slow = self.context.runtime().fault("storage.slow_flush");
            let flush = stream.flush(if slow { SLOW_BYTES } else { self.limits.flush_bytes });
            let Some(flush) = flush.map_err(|error| Exit::failure(error.to_string()))? else {
                continue;
            };
            let careless = self.context.runtime().fault("storage.durable_before_sync");
            let durability = if careless { Durability::Buffered } else { Durability::Synced };
            let write = self.store.write(flush.batch, durability);
            let tag = *tag;
            let write = async move {
                if slow {
                    sleep(SLOW_FLUSH).await;
                }
                Written::Tag(tag, write.await)
            };
            self.writes.push(write.boxed());
        }
        Ok(())
    }

    fn written(&mut self, written: Written) -> Result<(), Exit> {
        match written {
            Written::Tag(tag, Ok(())) => {
                self.context.set_check(DISK, Ok(()));
                self.durable(tag);
            }
            Written::Tag(tag, Err(error)) => {
                if !matches!(error, StoreError::Full { .. }) {
                    return Err(disk_failed(&error));
                }
                tracing::warn!(%tag, %error, "nothing can be made durable; it is tried again");
                self.context.set_check(DISK, Err(error.to_string()));
                if let Some(stream) = self.streams.get_mut(&tag) {
                    stream.unflushed();
                }
                self.due.insert(tag, Instant::now() + FULL_PAUSE);
                return Ok(());
            }
            Written::Kept(recorded, reply, Ok(())) => {
                // Of two writes the later may be heard of first.
                if self.kept.as_ref().is_none_or(|kept| kept.stamp() <= recorded.stamp()) {
                    self.kept = Some(*recorded);
                }
                self.damage = None;
                self.meters.show_damage(false);
                let _ = reply.send(Ok(Nothing {}));
            }
            Written::Kept(_, reply, Err(error)) => {
                let full = matches!(error, StoreError::Full { .. });
                let exit = disk_failed(&error);
                let _ = reply.send(Err(Refusal::Store(error).into()));
                self.keeping.clone_from(&self.kept);
                return if full { Ok(()) } else { Err(exit) };
            }
        }
        self.flush()
    }

    fn durable(&mut self, tag: Tag) {
        let Some(stream) = self.streams.get_mut(&tag) else { return };
        stream.flushed(self.limits.window_bytes);
        let durable = stream.durable();
        if !stream.is_congested(self.limits.window_bytes)
            && let Some(next) = self.held.remove(&tag)
        {
            let _ = next.send(Next::Go(place(stream)));
        }
        if let Some(watched) = self.durable.get(&tag) {
            watched.send_replace(durable.version);
        }
        if tag == Tag::SYSTEM {
            for (_, reply) in self.configs.take_through(durable.version) {
                let _ = reply.send(self.read_config());
            }
        }
        self.meters.show(&self.streams);
    }

    fn keep(&mut self, request: KeepRequest, reply: Reply<Nothing>) {
        match self.keepable(&request) {
            Ok(batch) => {
                self.seen = self.seen.max(request.epoch);
                let recorded = Box::new(request.recorded);
                self.keeping = Some((*recorded).clone());
                let write = self.store.write(batch, Durability::Synced);
                let done = write.map(move |result| Written::Kept(recorded, reply, result));
                self.writes.push(done.boxed());
            }
            Err(refusal) => drop(reply.send(Err(refusal.into()))),
        }
    }

    fn keepable(&self, request: &KeepRequest) -> Result<Batch, Refusal> {
        let KeepRequest { epoch, director, recorded } = request;
        self.fence(*epoch)?;
        // It may come before the epoch's assignment, but not from another director than that.
        if *epoch <= self.tenure.epoch() {
            self.tenure.holds(*epoch, *director)?;
        }
        if let Some(kept) = &self.keeping
            && (kept.stamp() > recorded.stamp()
                || (kept.stamp() == recorded.stamp() && kept != recorded))
        {
            let (kept, asked) = (kept.stamp().to_string(), recorded.stamp().to_string());
            return Err(Refusal::OlderConfig { kept, asked });
        }
        let mut batch = Batch::new();
        batch.put(records::META, records::CONFIG, encode_stored(recorded)?);
        Ok(batch)
    }

    /// Answers a read, or lets it wait until its deadline.
    fn read(&mut self, mut request: ReadRequest, reply: Reply<ReadAnswer>, deadline: Instant) {
        if self.context.runtime().fault("storage.read_too_early") {
            let applied = self.streams.values().map(Stream::version).max().unwrap_or_default();
            request.version = request.version.min(applied);
        }
        request.newest |= self.context.runtime().fault("storage.read_newest");
        let result = match self.tenure.serves(request.epoch) {
            Ok(()) => reading::read(&self.streams, &*self.store, &request, self.limits),
            Err(error) => Err(error.into()),
        };
        let result = match result {
            Err(Refusal::Future { .. }) if Instant::now() < deadline => {
                let waiting = self.reads.len();
                if waiting < self.limits.waiting {
                    return self.reads.add(request.version, deadline, (request, reply));
                }
                Err(Refusal::Waiting(waiting))
            }
            result => result,
        };
        self.meters.count_read(result.is_ok());
        let _ = reply.send(result.map_err(Failure::from));
    }

    /// Answers a watch whose key has changed, or lets it wait until its deadline.
    fn watch(&mut self, (request, reply): Watch, deadline: Instant) {
        let now = self.watched(&request);
        match now {
            Err(Refusal::Future { .. }) => {
                if self.early_watches.len() >= self.limits.waiting {
                    let refusal = Refusal::Waiting(self.limits.waiting);
                    return drop(reply.send(Err(refusal.into())));
                }
                self.early_watches.add(request.from, deadline, (request, reply));
            }
            Ok(answer) if !answer.changed => {
                if self.watches.len() >= self.limits.watches {
                    let refusal = Refusal::Watches(self.limits.watches);
                    return drop(reply.send(Err(refusal.into())));
                }
                self.watches.add(request.key.clone(), deadline, (request, reply));
            }
            answer => drop(reply.send(answer.map_err(Failure::from))),
        }
    }

    /// What a watched key is like now, as far as that is known to be committed.
    fn watched(&self, request: &WatchRequest) -> Result<WatchAnswer, Refusal> {
        self.tenure.serves(request.epoch)?;
        let key = &request.key;
        let stream =
            reading::holder(&self.streams, key).ok_or_else(|| Refusal::WrongShard(key.clone()))?;
        let version = match self.context.runtime().fault("storage.watch_uncommitted") {
            false => stream.committed(),
            true => stream.version(),
        };
        if version < request.from {
            return Err(Refusal::Future { asked: request.from, at: version });
        }
        stream.readable(version)?;
        let value = stream.get(key, version, &*self.store)?;
        let changed = value != request.seen;
        Ok(WatchAnswer { changed, value: value.filter(|_| changed), version })
    }

    /// Answers that nothing has changed by the deadline.
    fn unchanged(&self, (request, reply): Watch) {
        let answer = match self.watched(&request) {
            Err(Refusal::Future { at, .. }) => {
                Ok(WatchAnswer { changed: false, value: None, version: at })
            }
            answer => answer.map_err(Failure::from),
        };
        let _ = reply.send(answer);
    }

    fn shard_config(&mut self, query: ShardConfigQuery, reply: Reply<ShardConfig>) {
        let system = self.streams.get(&Tag::SYSTEM);
        let durable = system.map_or(Version::ZERO, |stream| stream.durable().version);
        let asked = query.version.unwrap_or(Version::ZERO);
        let wait = Duration::from_millis(query.wait_ms).min(LONGEST_WAIT);
        let deadline = Instant::now() + wait;
        let writing = system.is_some_and(Stream::is_writing);
        if !writing && (asked <= durable || wait.is_zero()) {
            let _ = reply.send(self.read_config());
        } else if self.configs.len() >= self.limits.waiting {
            let _ = reply.send(Err(Refusal::Waiting(self.limits.waiting).into()));
        } else {
            self.configs.add(asked, deadline, reply);
        }
    }

    /// No write of the system shard may be under way: rows and version must belong together.
    fn read_config(&self) -> Result<ShardConfig, Failure> {
        let durable = self.streams.get(&Tag::SYSTEM).map(Stream::durable).unwrap_or_default();
        let (config, shards) = records::read_system_rows(&*self.store).map_err(Refusal::Store)?;
        let Position { epoch, version } = durable;
        Ok(ShardConfig { store: self.id, version, epoch, config, shards })
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for (request, reply) in self.reads.take_expired(now) {
            // Its deadline is over, so it can't wait again.
            self.read(request, reply, now);
        }
        let unchanged = [self.watches.take_expired(now), self.early_watches.take_expired(now)];
        unchanged.into_iter().flatten().for_each(|watch| self.unchanged(watch));
        if !self.streams.get(&Tag::SYSTEM).is_some_and(Stream::is_writing) {
            for reply in self.configs.take_expired(now) {
                let _ = reply.send(self.read_config());
            }
        }
    }
}

fn place(stream: &Stream) -> Place {
    Place { after: stream.version(), known_committed: stream.known_committed() }
}

/// The span of an entry's application, in the trace of the transaction that it carries.
fn apply_span(service: &str, traceparent: &str, entry: &Entry) -> tracing::Span {
    let span = deferred_span("apply", service);
    set_parent_from_traceparent(&span, traceparent);
    record_epoch(&span, entry.epoch.0);
    record_version(&span, entry.version.0);
    span
}

fn disk_failed(error: &StoreError) -> Exit {
    tracing::error!(%error, "the disk fails");
    Exit::failure(format!("the disk fails: {error}"))
}

fn breached(breach: &Breach) -> Exit {
    tracing::error!(%breach, "an invariant is broken");
    Exit::failure(breach.to_string())
}
