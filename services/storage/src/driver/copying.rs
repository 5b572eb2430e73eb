//! Copies of tags: pages that this storage gives to newcomers, and pages that it gets.

use std::time::Duration;

use futures::FutureExt as _;
use plinth_api::Target;
use plinth_api::storage::{Joining, Page, PageRequest};
use plinth_service::{Exit, Failure};
use plinth_store::{Durability, StoreError};
use plinth_types::{Epoch, Tag};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Driver, LONGEST_WAIT, Reply, Written};
use crate::copying::{Copying, Want};
use crate::fetching::{self, Fetch, Fetched, NextPage};
use crate::paging;
use crate::refusal::Refusal;

/// Bytes of a page, where a simulation wants many of them.
const SMALL_PAGE: u64 = 500;

/// A page that a newcomer waits for.
pub(super) struct WaitingPage {
    request: PageRequest,
    reply: Reply<Page>,
    deadline: Instant,
}

/// A page that is being written.
pub(super) struct PageWrite {
    tag: Tag,
    /// What was asked for: what has become of the copy since is told by it.
    want: Want,
    next: Copying,
    taken: oneshot::Sender<NextPage>,
    result: Result<(), StoreError>,
}

impl Driver {
    /// Gives a page, or lets the newcomer wait for it: until this storage has the version on disk,
    /// and no write is under way, so that the page is all of one version.
    pub(super) fn page(&mut self, mut request: PageRequest, reply: Reply<Page>) {
        if self.context.runtime().fault("storage.small_pages") {
            // So that a simulation's little data makes many of them.
            request.limit_bytes = SMALL_PAGE;
        }
        let wait = Duration::from_millis(request.wait_ms).min(LONGEST_WAIT);
        let deadline = Instant::now() + wait;
        self.give_page(WaitingPage { request, reply, deadline });
    }

    fn give_page(&mut self, page: WaitingPage) {
        let result = match self.tenure.serves(page.request.epoch) {
            Ok(()) => {
                paging::page(self.id, &self.streams, &*self.store, &page.request, self.limits)
            }
            Err(error) => Err(error.into()),
        };
        match result {
            Err(Refusal::Future { .. }) if Instant::now() < page.deadline => {
                if self.pages.len() < self.limits.pages {
                    self.pages.push(page);
                } else {
                    let refusal = Refusal::Waiting(self.pages.len());
                    let _ = page.reply.send(Err(refusal.into()));
                }
            }
            result => drop(page.reply.send(result.map_err(Failure::from))),
        }
    }

    /// Looks again at the pages that newcomers wait for.
    pub(super) fn give_pages(&mut self) {
        for page in std::mem::take(&mut self.pages) {
            self.give_page(page);
        }
    }

    /// When the first newcomer is told that its page is not there in time.
    pub(super) fn pages_due(&self) -> Option<Instant> {
        self.pages.iter().map(|page| page.deadline).min()
    }

    /// Starts to fetch what is still to come of a copy.
    pub(super) fn fetch(&mut self, tag: Tag, epoch: Epoch, joining: &Joining) {
        let Some(want) = self.streams.get(&tag).and_then(|stream| stream.copy()?.want()) else {
            return;
        };
        let sources = joining.sources.iter();
        let sources: Vec<_> =
            sources.map(|source| (source.store, Target::from(&source.peer.pid))).collect();
        if sources.is_empty() {
            let detail = "no member of its team runs that it could be copied from".to_owned();
            self.stuck.insert(tag, detail);
            return;
        }
        let newcomer = self.id;
        let fetch = Fetch { session: self.session, epoch, tag, newcomer, sources, want };
        let task = fetching::fetch(&self.context, self.limits, fetch, self.sender.clone());
        self.tasks.push(task);
    }

    /// A page has come: it is written together with how far the copy is.
    pub(super) fn fetched(&mut self, fetched: Fetched) -> Result<(), Exit> {
        let Fetched { session, tag, page, taken } = fetched;
        let Some(stream) = self.streams.get_mut(&tag).filter(|_| session == self.session) else {
            return Ok(());
        };
        let Some(copy) = stream.copy() else { return Ok(()) };
        let Some(want) = copy.want() else { return Ok(()) };
        if stream.is_writing() {
            // A page that was fetched under an earlier assignment.
            let _ = taken.send(NextPage::Later(want));
            return Ok(());
        }
        let mut next = match copy.with(&page) {
            Ok(next) => next,
            Err(fault) => {
                tracing::error!(%tag, source = %page.source, %fault, "a page of a copy is refused");
                let _ = taken.send(NextPage::Other(want));
                return Ok(());
            }
        };
        if self.context.runtime().fault("storage.whole_too_early") {
            next.pretend_whole();
        }
        let batch = copy
            .batch(tag, page, &next)
            .map_err(|error| Exit::failure(format!("a record can't be written: {error}")))?;
        stream.begin_page();
        let write = self.store.write(batch, Durability::Synced);
        let done = write.map(move |result| {
            Written::Page(Box::new(PageWrite { tag, want, next, taken, result }))
        });
        self.writes.push(done.boxed());
        if self.stuck.remove(&tag).is_some() {
            self.show_streams();
        }
        Ok(())
    }

    /// A page is durable, or could not be made so.
    pub(super) fn page_written(&mut self, write: PageWrite) -> Result<(), Exit> {
        let PageWrite { tag, want, next, taken, result } = write;
        let Some(stream) = self.streams.get_mut(&tag) else { return Ok(()) };
        if stream.copy().and_then(Copying::want).as_ref() != Some(&want) {
            return Ok(());
        }
        if let Err(error) = result {
            stream.unflushed();
            self.cannot_write(tag, &error)?;
            let _ = taken.send(NextPage::Later(want));
            return Ok(());
        }
        let progress = next.status();
        stream.take_copy(next);
        match stream.copy().and_then(Copying::want) {
            Some(want) => drop(taken.send(NextPage::Go(want))),
            None => {
                let (keys, bytes) = (progress.keys, progress.bytes);
                tracing::info!(%tag, keys, bytes, "a copy has come, and follows the logs now");
                let logs = self.logs_of(tag);
                self.follow(tag, self.tenure.epoch(), logs);
            }
        }
        Ok(())
    }

    /// The logs have dropped what a tag needs: a newcomer begins its copy again, and whoever pulled
    /// for it ends. Anybody else can only ask again, and say what it has lost: the director has it
    /// take a copy.
    pub(super) fn dropped(
        &mut self,
        session: u64,
        tag: Tag,
        detail: String,
        retry: oneshot::Sender<()>,
    ) {
        if session != self.session {
            return;
        }
        let joining = self.joining.get(&tag).cloned();
        if joining.is_none() && self.lacks.insert(tag) {
            tracing::error!(%tag, detail, "what was durable here is not there any more");
        }
        // A write that is under way would be taken for one of the new copy's.
        let stream = self.streams.get_mut(&tag).filter(|stream| !stream.is_writing());
        let (Some(stream), Some(joining)) = (stream, joining) else {
            self.stuck.insert(tag, detail);
            self.show_streams();
            let _ = retry.send(());
            return;
        };
        tracing::warn!(%tag, detail, "the copy is begun again");
        self.context.runtime().mark("storage.copy_again");
        let ranges = stream.ranges().to_vec();
        stream.begin_copy(ranges);
        self.held.remove(&tag);
        self.due.remove(&tag);
        self.fetch(tag, self.tenure.epoch(), &joining);
        self.show_streams();
    }
}
