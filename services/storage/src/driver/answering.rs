//! Reads, watches, and questions for the configuration.

use std::time::Duration;

use plinth_api::storage::{
    ReadAnswer, ReadRequest, ShardConfig, ShardConfigQuery, WatchAnswer, WatchRequest,
};
use plinth_service::Failure;
use plinth_types::{Tag, Version};
use tokio::time::Instant;

use super::{Driver, LONGEST_WAIT, Reply, Watch};
use crate::reading;
use crate::records::{self, Position};
use crate::refusal::Refusal;
use crate::stream::Stream;

impl Driver {
    /// Answers a read, or lets it wait until its deadline.
    pub(super) fn read(
        &mut self,
        mut request: ReadRequest,
        reply: Reply<ReadAnswer>,
        deadline: Instant,
    ) {
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
    pub(super) fn watch(&mut self, (request, reply): Watch, deadline: Instant) {
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
    pub(super) fn unchanged(&self, (request, reply): Watch) {
        let answer = match self.watched(&request) {
            Err(Refusal::Future { at, .. }) => {
                Ok(WatchAnswer { changed: false, value: None, version: at })
            }
            answer => answer.map_err(Failure::from),
        };
        let _ = reply.send(answer);
    }

    pub(super) fn shard_config(&mut self, query: ShardConfigQuery, reply: Reply<ShardConfig>) {
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
    pub(super) fn read_config(&self) -> Result<ShardConfig, Failure> {
        let system = self.streams.get(&Tag::SYSTEM);
        if system.is_some_and(|system| system.copy().is_some()) {
            // Rows of several versions are no configuration.
            let Position { epoch, version } = Position::default();
            let (store, shards) = (self.id, Vec::new());
            return Ok(ShardConfig { store, version, epoch, config: None, shards });
        }
        let durable = system.map(Stream::durable).unwrap_or_default();
        let (config, shards) = records::read_system_rows(&*self.store).map_err(Refusal::Store)?;
        let Position { epoch, version } = durable;
        Ok(ShardConfig { store: self.id, version, epoch, config, shards })
    }
}
