//! What has happened, as one running hash.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plinth_store::{Batch, Change, DiskEvent};

use crate::time;

/// The hash of everything up to some event.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceHash(u64);

impl fmt::Display for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The record of a simulation. A clone writes into the same one.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<State>>);

struct State {
    hasher: DefaultHasher,
    events: u64,
    now: Duration,
    kept: VecDeque<String>,
    keep: usize,
}

/// Bytes of an event's part that are shown in the dump.
const SHOWN: usize = 64;

impl Trace {
    pub(crate) fn new(keep: usize) -> Self {
        let state = State {
            hasher: DefaultHasher::new(),
            events: 0,
            now: Duration::ZERO,
            kept: VecDeque::new(),
            keep,
        };
        Trace(Arc::new(Mutex::new(state)))
    }

    /// Adds an event: where, what, and the bytes that tell it from others. Its time is the
    /// simulation's, or that of the event before where no host is running.
    pub fn record(&self, place: &str, what: &str, parts: &[&[u8]]) {
        let now = time::elapsed();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(now) = now {
            state.now = now;
        }
        state.record(place, what, parts);
    }

    /// Adds what happened at a disk.
    pub(crate) fn disk(&self, machine: &str, event: &DiskEvent<'_>) {
        match event {
            DiskEvent::Opened { directory } => self.record(machine, "open", &[path(directory)]),
            DiskEvent::Queued { directory, batch, durability } => {
                let durability = format!("{durability:?}");
                self.record(
                    machine,
                    "queue",
                    &[path(directory), durability.as_bytes(), &encode(batch)],
                );
            }
            DiskEvent::Written { directory, batches } => {
                self.record(machine, "write", &[path(directory), &batches.to_be_bytes()]);
            }
            DiskEvent::Synced { directory, batches } => {
                self.record(machine, "sync", &[path(directory), &batches.to_be_bytes()]);
            }
            DiskEvent::FileWritten { path: file, bytes } => {
                self.record(machine, "file", &[path(file), bytes])
            }
            DiskEvent::Renamed { from, to } => {
                self.record(machine, "rename", &[path(from), path(to)])
            }
            DiskEvent::Removed { path: gone } => self.record(machine, "remove", &[path(gone)]),
            DiskEvent::ProcessCrashed => self.record(machine, "process crash", &[]),
            DiskEvent::PowerLost => self.record(machine, "power loss", &[]),
        }
    }

    /// The hash of all events so far.
    #[must_use]
    pub fn hash(&self) -> TraceHash {
        TraceHash(self.0.lock().unwrap_or_else(PoisonError::into_inner).hasher.finish())
    }

    /// How many events there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).events
    }

    /// The last events as text, one a line, with the hash after each: where two runs part is the
    /// first line that differs.
    #[must_use]
    pub fn dump(&self) -> String {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.kept.iter().fold(String::new(), |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        })
    }
}

impl State {
    fn record(&mut self, place: &str, what: &str, parts: &[&[u8]]) {
        let nanos = u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX);
        self.hasher.write_u64(nanos);
        for part in [place.as_bytes(), what.as_bytes()].iter().chain(parts) {
            // With its length, so that no two lists of parts are the same bytes.
            self.hasher.write_usize(part.len());
            self.hasher.write(part);
        }
        self.hasher.write_usize(parts.len());
        self.events += 1;
        if self.keep == 0 {
            return;
        }
        if self.kept.len() == self.keep {
            self.kept.pop_front();
        }
        let shown: Vec<String> = parts
            .iter()
            .map(|part| part[..part.len().min(SHOWN)].escape_ascii().to_string())
            .collect();
        let (index, now, hash) = (self.events, self.now, self.hasher.finish());
        self.kept
            .push_back(format!("{index} {now:?} {place}: {what} {} {hash:016x}", shown.join(" ")));
    }
}

fn path(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

/// The bytes of a batch, each field with its length.
fn encode(batch: &Batch) -> Vec<u8> {
    let mut bytes = Vec::new();
    for change in &batch.0 {
        let (kind, table, fields): (u8, &str, [&[u8]; 2]) = match change {
            Change::Put(table, key, value) => (0, table, [key, value]),
            Change::Delete(table, key) => (1, table, [key, &[]]),
            Change::DeleteRange(table, from, to) => (2, table, [from, to]),
        };
        bytes.push(kind);
        for field in [table.as_bytes(), fields[0], fields[1]] {
            bytes.extend_from_slice(&field.len().to_be_bytes());
            bytes.extend_from_slice(field);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(events: &[(&str, &str, &[&[u8]])]) -> TraceHash {
        let trace = Trace::new(0);
        for (place, what, parts) in events {
            trace.record(place, what, parts);
        }
        trace.hash()
    }

    #[test]
    fn the_order_of_events_and_the_limits_of_their_parts_count() {
        let (first, second): (_, (&str, &str, &[&[u8]])) =
            (("a", "sent", &[b"1".as_slice()][..]), ("b", "sent", &[b"2"]));
        assert_eq!(hash(&[first, second]), hash(&[first, second]));
        assert_ne!(hash(&[first, second]), hash(&[second, first]));
        assert_ne!(hash(&[("a", "sent", &[b"12"])]), hash(&[("a", "sent", &[b"1", b"2"])]));
        assert_ne!(hash(&[("a", "sent", &[])]), hash(&[]));
    }

    #[test]
    fn the_dump_holds_the_last_events() {
        let trace = Trace::new(2);
        for number in [1_u8, 2, 3] {
            trace.record("place", "event", &[&[number]]);
        }
        let dump = trace.dump();
        assert_eq!(dump.lines().count(), 2);
        assert!(dump.contains("\\x03") && !dump.contains("\\x01"), "{dump}");
        assert!(dump.trim_end().ends_with(&trace.hash().to_string()), "{dump}");
        assert_eq!(trace.events(), 3);
    }
}
