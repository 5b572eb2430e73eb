//! The logs' streams, as they arrive.

use std::collections::BTreeSet;

use plinth_api::Target;
use plinth_api::log::Entry;
use plinth_service::Exit;
use plinth_telemetry::{deferred_span, record_epoch, record_version, set_parent_from_traceparent};
use plinth_types::{Epoch, Tag};
use tokio::sync::watch;

use super::{CHECK, Driver, disk_failed};
use crate::pulling::{self, Next, Place, Pop, Pull, Pulled};
use crate::stream::{Accepted, Stream, Unusable};

impl Driver {
    /// Starts to pull a tag, and to pop it from every log that holds it.
    pub(super) fn follow(&mut self, tag: Tag, epoch: Epoch, mut logs: Vec<Target>) {
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

    pub(super) fn pulled(&mut self, pulled: Pulled) -> Result<(), Exit> {
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
        self.lacks.remove(&tag);
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

    pub(super) fn show_streams(&self) {
        let result = match self.stuck.first_key_value() {
            None => Ok(()),
            Some((tag, detail)) => Err(format!("tag {tag} can't be pulled from any log: {detail}")),
        };
        self.context.set_check(CHECK, result);
    }
}

pub(super) fn place(stream: &Stream) -> Place {
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
