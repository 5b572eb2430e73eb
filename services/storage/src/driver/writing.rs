//! What is made durable, and what follows from it.

use bytes::Bytes;
use futures::FutureExt as _;
use plinth_api::Nothing;
use plinth_api::log::KeepRequest;
use plinth_service::Exit;
use plinth_store::{Batch, Durability, StoreError};
use plinth_system_config::encode_stored;
use plinth_types::Tag;
use tokio::time::{Instant, sleep};

use super::following::place;
use super::{DISK, Driver, FULL_PAUSE, Reply, SLOW_BYTES, SLOW_FLUSH, Written, disk_failed};
use crate::pulling::Next;
use crate::records;
use crate::refusal::Refusal;
use crate::stream::{Stream, Urgency};

impl Driver {
    /// Begins the writes that are due.
    pub(super) fn flush(&mut self) -> Result<(), Exit> {
        let now = Instant::now();
        for (tag, stream) in &mut self.streams {
            let due = match stream.urgency() {
                Urgency::None => {
                    self.due.remove(tag);
                    continue;
                }
                Urgency::Now => now,
                // Nothing more is pulled before it, so there is nothing to wait for.
                Urgency::Soon if stream.is_congested(self.limits.window_bytes) => now,
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

    pub(super) fn written(&mut self, written: Written) -> Result<(), Exit> {
        match written {
            Written::Tag(tag, Ok(())) => {
                self.context.set_check(DISK, Ok(()));
                self.durable(tag);
            }
            Written::Tag(tag, Err(error)) => {
                self.cannot_write(tag, &error)?;
                if let Some(stream) = self.streams.get_mut(&tag) {
                    stream.unflushed();
                }
                self.due.insert(tag, Instant::now() + FULL_PAUSE);
                return Ok(());
            }
            Written::Page(write) => self.page_written(*write)?,
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

    /// Takes it that the disk is full. Anything else ends the storage.
    pub(super) fn cannot_write(&self, tag: Tag, error: &StoreError) -> Result<(), Exit> {
        if !matches!(error, StoreError::Full { .. }) {
            return Err(disk_failed(error));
        }
        tracing::warn!(%tag, %error, "nothing can be made durable; it is tried again");
        self.context.set_check(DISK, Err(error.to_string()));
        Ok(())
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
        // Before the next write begins: a page is all of one version.
        self.give_pages();
        self.meters.show(&self.streams);
    }

    pub(super) fn keep(&mut self, request: KeepRequest, reply: Reply<Nothing>) {
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
        // Those of the epoch, that is: of others it may only have heard once.
        let is_here = |stream: &Stream| stream.generation().is_some() && stream.copy().is_none();
        for (tag, _) in self.streams.iter().filter(|(_, stream)| is_here(stream)) {
            batch.put(records::META, records::assigned_key(*tag), Bytes::new());
        }
        Ok(batch)
    }
}
