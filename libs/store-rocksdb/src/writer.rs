//! The thread that writes to a store. It takes all that is queued, writes it as one and, if any of
//! it asked, syncs it once; meanwhile the next group collects. So a lone write waits for no timer
//! and a thousand at once share one sync.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use plinth_store::{Batch, Change, Durability, StoreError};
use rocksdb::{ErrorKind, WriteBatch, WriteOptions};
use tokio::sync::oneshot;

use crate::store::Engine;

/// A group takes no further batch once it holds this many bytes, so that a single write is never
/// behind more than one long one.
const GROUP_BYTES: usize = 8 << 20;

/// How long a write waits before it is tried again while RocksDB is behind with writing out memory.
const STALL_RETRY: Duration = Duration::from_millis(1);

type Outcome = Result<(), StoreError>;

struct Job {
    batch: Batch,
    durability: Durability,
    done: oneshot::Sender<Outcome>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    /// Nothing that holds the queue can panic half-way through a change of it.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next group, in order; none when the queue is closed and empty.
    fn next_group(&self) -> Option<Vec<Job>> {
        let mut queue = self.lock();
        while queue.jobs.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let mut bytes = 0;
        let fitting = queue.jobs.iter().take_while(|job| {
            let before = bytes;
            bytes += size(&job.batch);
            before < GROUP_BYTES
        });
        let count = fitting.count();
        if count == queue.jobs.len() {
            return Some(mem::take(&mut queue.jobs).into());
        }
        Some(queue.jobs.drain(..count).collect())
    }
}

/// The queue's near end. Dropping it lets the thread write what is queued, and waits for its end.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(engine: Arc<Engine>) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::default());
        let far_end = FarEnd(Arc::clone(&shared));
        let refused = Arc::clone(&engine);
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(&far_end, &engine));
        let thread =
            thread.map_err(|error| refused.io(format!("its writer can't be started: {error}")))?;
        Ok(Writer { shared, thread: Some(thread) })
    }

    /// Queues a batch. The receiver fails if the thread is gone.
    pub(crate) fn queue(&self, batch: Batch, durability: Durability) -> oneshot::Receiver<Outcome> {
        let (done, outcome) = oneshot::channel();
        let mut queue = self.shared.lock();
        if !queue.closed {
            queue.jobs.push_back(Job { batch, durability, done });
            // It sleeps only on an empty queue.
            if queue.jobs.len() == 1 {
                self.shared.changed.notify_one();
            }
        }
        outcome
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the hook, and whoever waited has been told.
            let _ = thread.join();
        }
    }
}

/// The thread's end of the queue: when the thread ends, by a panic too, nobody waits in vain.
struct FarEnd(Arc<Shared>);

impl Drop for FarEnd {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.closed = true;
        queue.jobs.clear();
    }
}

fn run(far_end: &FarEnd, engine: &Engine) {
    while let Some(jobs) = far_end.0.next_group() {
        let outcome = write(engine, &jobs);
        for job in jobs {
            // Nobody may be waiting any more.
            let _ = job.done.send(outcome.clone());
        }
    }
}

fn write(engine: &Engine, jobs: &[Job]) -> Outcome {
    let mut options = WriteOptions::default();
    options.set_sync(jobs.iter().any(|job| job.durability == Durability::Synced));
    // A write that waits inside RocksDB for memory to be written out stands in the way of RocksDB's
    // own recovery from a full disk, and both wait for ever. So it is told not to wait, and tried again.
    options.set_no_slowdown(true);
    loop {
        engine.check()?;
        match engine.db().write_opt(merge(engine, jobs)?, &options) {
            Ok(()) => return Ok(()),
            Err(error) if is_stalled(&error) => thread::park_timeout(STALL_RETRY),
            Err(error) => return Err(engine.write_failed(error)),
        }
    }
}

fn is_stalled(error: &rocksdb::Error) -> bool {
    error.kind() == ErrorKind::Incomplete && error.as_ref().contains("Write stall")
}

fn merge(engine: &Engine, jobs: &[Job]) -> Result<WriteBatch, StoreError> {
    let mut together = WriteBatch::default();
    for change in jobs.iter().flat_map(|job| &job.batch.0) {
        match change {
            Change::Put(table, key, value) => together.put_cf(engine.table(table)?, key, value),
            Change::Delete(table, key) => together.delete_cf(engine.table(table)?, key),
            // RocksDB takes a reversed range for an error.
            Change::DeleteRange(_, from, to) if from >= to => {}
            Change::DeleteRange(table, from, to) => {
                together.delete_range_cf(engine.table(table)?, from, to)
            }
        }
    }
    Ok(together)
}

fn size(batch: &Batch) -> usize {
    let sizes = batch.0.iter().map(|change| match change {
        Change::Put(_, key, value) => key.len() + value.len(),
        Change::Delete(_, key) => key.len(),
        Change::DeleteRange(_, from, to) => from.len() + to.len(),
    });
    sizes.sum()
}
