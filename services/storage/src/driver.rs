//! The task that owns the streams and the store: everything that a storage does passes through it,
//! in one order. Each tag has at most one write under way.

mod answering;
mod assigning;
mod copying;
mod following;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use plinth_api::commit_proxy::LogPeer;
use plinth_api::log::{KeepRequest, Kept};
use plinth_api::storage::{
    Assignment, Joining, Page, PageRequest, ReadAnswer, ReadRequest, ShardConfig, ShardConfigQuery,
    Status, WatchAnswer, WatchRequest,
};
use plinth_api::{Nothing, Tenure};
use plinth_service::{Context, Exit, Failure};
use plinth_store::{Store, StoreError};
use plinth_system_config::Recorded;
use plinth_types::{Epoch, StoreId, Tag, Version};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::copying::{PageWrite, WaitingPage};
use crate::config::Limits;
use crate::fetching::Fetched;
use crate::meters::Meters;
use crate::pulling::{Next, Pulled, Task};
use crate::records::{self, Found};
use crate::refusal::{Breach, Refusal};
use crate::stream::Stream;
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
    /// No log of a tag brings anything, or no member gives a page.
    Stuck {
        session: u64,
        tag: Tag,
        detail: String,
    },
    /// Every log of a tag has dropped what is to come next.
    Dropped {
        session: u64,
        tag: Tag,
        detail: String,
        /// Told where there is nothing to do but to ask the logs again; dropped otherwise.
        retry: oneshot::Sender<()>,
    },
    Page(PageRequest, Reply<Page>),
    /// A member has given a page.
    Fetched(Fetched),
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
            Command::Page(_, reply) => drop(reply.send(Err(failure()))),
            Command::Pulled(_)
            | Command::Stuck { .. }
            | Command::Dropped { .. }
            | Command::Fetched(_) => {}
        }
    }
}

/// A write that has ended.
enum Written {
    Tag(Tag, Result<(), StoreError>),
    Kept(Box<Recorded>, Reply<Nothing>, Result<(), StoreError>),
    Page(Box<PageWrite>),
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
    /// Tags of which it has lost what it had made durable.
    lacks: BTreeSet<Tag>,
    writes: FuturesUnordered<BoxFuture<'static, Written>>,
    /// When each tag that has something to make durable is to do so.
    due: BTreeMap<Tag, Instant>,
    reads: Waiting<(ReadRequest, Reply<ReadAnswer>)>,
    watches: Watches<Watch>,
    /// Watches from a version on that has not arrived.
    early_watches: Waiting<Watch>,
    configs: Waiting<Reply<ShardConfig>>,
    /// Pages that newcomers wait for.
    pages: Vec<WaitingPage>,
    /// Where the tags come from that this storage joins the teams of.
    joining: BTreeMap<Tag, Joining>,
    /// The logs of the assignment.
    logs: Vec<LogPeer>,
    meters: Meters,
}

impl Driver {
    pub(crate) fn new(
        context: Context,
        limits: Limits,
        id: StoreId,
        store: Arc<dyn Store>,
        sender: mpsc::Sender<Command>,
        found: Found,
    ) -> Driver {
        let Found { tags, copies, kept } = found;
        let damage = kept.as_ref().err().cloned();
        let kept = kept.unwrap_or_default();
        let meters = Meters::new(context.metrics());
        meters.show_damage(damage.is_some());
        let kept_epoch = kept.as_ref().map_or(Epoch::ZERO, |kept| kept.stamp().epoch);
        let copied = copies.values().map(|copy| copy.record().newest);
        let positions = tags.values().copied().chain(copied);
        let seen = positions.map(|position| position.epoch).fold(kept_epoch, Epoch::max);
        let whole = tags.into_iter().map(|(tag, durable)| (tag, Stream::restore(tag, durable)));
        let copies = copies.into_iter().map(|(tag, copy)| (tag, Stream::copied(tag, copy)));
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
            streams: whole.chain(copies).collect(),
            durable: BTreeMap::new(),
            tasks: Vec::new(),
            session: 0,
            held: BTreeMap::new(),
            stuck: BTreeMap::new(),
            lacks: BTreeSet::new(),
            writes: FuturesUnordered::new(),
            due: BTreeMap::new(),
            reads: Waiting::default(),
            watches: Watches::default(),
            early_watches: Waiting::default(),
            configs: Waiting::default(),
            pages: Vec::new(),
            joining: BTreeMap::new(),
            logs: Vec::new(),
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
                self.pages_due(),
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
            Command::Dropped { session, tag, detail, retry } => {
                self.dropped(session, tag, detail, retry);
            }
            Command::Page(request, reply) => self.page(request, reply),
            Command::Fetched(fetched) => self.fetched(fetched)?,
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
        let (epoch, lacks) = (self.tenure.epoch(), self.lacks.clone());
        Status { store: self.id, epoch, tags, queue_bytes, lacks }
    }

    fn fence(&self, asked: Epoch) -> Result<(), Refusal> {
        if asked < self.seen { Err(Refusal::Over { asked, seen: self.seen }) } else { Ok(()) }
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
        self.give_pages();
    }
}

fn disk_failed(error: &StoreError) -> Exit {
    tracing::error!(%error, "the disk fails");
    Exit::failure(format!("the disk fails: {error}"))
}

fn breached(breach: &Breach) -> Exit {
    tracing::error!(%breach, "an invariant is broken");
    Exit::failure(breach.to_string())
}
