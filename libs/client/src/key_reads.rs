//! Reads of keys, sent together: while one request to a storage is under way, the next reads for it
//! collect, and go in one request. A lone read goes at once. Each storage has a queue of its own,
//! so that one that is slow or gone holds up nobody who asks another one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plinth_api::storage::{KeysAnswer, KeysRead, READ_BATCH, READ_BATCH_KEYS, ReadBatch};
use plinth_api::{CallError, ErrorCode, Problem, Target, TransportError};
use plinth_runtime::Scope;
use plinth_service::Peers;
use plinth_types::{Epoch, Key, Value, Version};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, Span};

/// Reads that may wait for one storage. Whoever comes beyond that asks another replica.
const QUEUE: usize = 4_096;

/// What is read for one reader: at most [`READ_BATCH_KEYS`] keys.
#[derive(Clone, Debug)]
pub(crate) struct KeyRead {
    pub(crate) epoch: Epoch,
    pub(crate) version: Version,
    /// Rather at the newest version that the storage knows to be committed.
    pub(crate) newest: bool,
    pub(crate) keys: Vec<Key>,
}

/// A value a key, and the version they were read at.
pub(crate) type Found = (Version, Vec<Option<Value>>);
type Answer = Result<Found, CallError>;

struct Request {
    read: KeyRead,
    /// Nobody waits any longer than this.
    until: Instant,
    span: Span,
    answer: oneshot::Sender<Answer>,
}

/// Asks storages on behalf of many. Cheap to clone.
#[derive(Clone)]
pub(crate) struct KeyReads {
    scope: Scope,
    peers: Peers,
    queues: Arc<Mutex<BTreeMap<Target, mpsc::Sender<Request>>>>,
}

impl KeyReads {
    pub(crate) fn new(scope: &Scope, peers: Peers) -> KeyReads {
        KeyReads { scope: scope.clone(), peers, queues: Arc::default() }
    }

    /// Asks one storage.
    ///
    /// # Errors
    /// The storage's, for this read alone; `overloaded` where too many wait for it already.
    pub(crate) async fn get(&self, storage: &Target, read: KeyRead, limit: Duration) -> Answer {
        let (answer, answered) = oneshot::channel();
        let until = Instant::now() + limit;
        let request = Request { read, until, span: Span::current(), answer };
        if self.queue(storage).try_send(request).is_err() {
            let detail = format!("{QUEUE} reads wait for {} already", storage.address);
            return Err(Problem::new(ErrorCode::Overloaded, detail).into());
        }
        let late = || {
            let after_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            TransportError::Timeout { peer: storage.address.clone(), after_ms }
        };
        match timeout_at(until, answered).await {
            Ok(Ok(answer)) => answer,
            // The task ends with the service.
            Ok(Err(_)) | Err(_) => Err(late().into()),
        }
    }

    /// Forgets storages that are in no layout any more.
    pub(crate) fn keep_only(&self, storages: &BTreeSet<Target>) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|storage, _| storages.contains(storage));
    }

    fn queue(&self, storage: &Target) -> mpsc::Sender<Request> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(storage.clone()).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let serving = serve(self.peers.clone(), storage.clone(), receiver);
            drop(self.scope.spawn("reads of a storage", serving));
            sender
        });
        queue.clone()
    }
}

async fn serve(peers: Peers, storage: Target, mut queue: mpsc::Receiver<Request>) {
    let mut waiting = VecDeque::new();
    let mut arrived = Vec::new();
    loop {
        if waiting.is_empty() && queue.recv_many(&mut arrived, QUEUE).await == 0 {
            return;
        }
        while arrived.len() < QUEUE
            && let Ok(request) = queue.try_recv()
        {
            arrived.push(request);
        }
        waiting.extend(arrived.drain(..));
        // Who has been served by another replica waits no more.
        waiting.retain(|request: &Request| !request.answer.is_closed());
        if let Some(batch) = Batch::take(&mut waiting) {
            batch.ask(&peers, &storage).await;
        }
    }
}

/// What goes in one request.
struct Batch {
    epoch: Epoch,
    /// Readers by what they share: version, and whether a newer one is welcome.
    groups: BTreeMap<(Version, bool), Vec<Request>>,
}

impl Batch {
    /// The first that waits, and whoever of the same epoch fits in with it, in order.
    fn take(waiting: &mut VecDeque<Request>) -> Option<Batch> {
        let epoch = waiting.front()?.read.epoch;
        let mut groups: BTreeMap<_, Vec<Request>> = BTreeMap::new();
        let mut keys = 0;
        while let Some(next) = waiting.front()
            && next.read.epoch == epoch
            && (keys == 0 || keys + next.read.keys.len() <= READ_BATCH_KEYS)
            && let Some(request) = waiting.pop_front()
        {
            keys += request.read.keys.len();
            groups.entry((request.read.version, request.read.newest)).or_default().push(request);
        }
        Some(Batch { epoch, groups })
    }

    fn reads(&self) -> Vec<KeysRead> {
        let groups = self.groups.iter().map(|(&(version, newest), requests)| KeysRead {
            version,
            newest,
            keys: requests.iter().flat_map(|request| request.read.keys.iter().cloned()).collect(),
        });
        groups.collect()
    }

    async fn ask(self, peers: &Peers, storage: &Target) {
        let requests = || self.groups.values().flatten();
        let until = requests().map(|request| request.until).max().unwrap_or_else(Instant::now);
        let limit = until.saturating_duration_since(Instant::now());
        let span = requests().next().map_or_else(Span::none, |request| request.span.clone());
        let batch = ReadBatch { epoch: self.epoch, reads: self.reads() };
        let call =
            async { peers.call(storage, &READ_BATCH, &batch, Some(self.epoch), limit).await };
        match call.instrument(span).await {
            Ok(answer) => self.answer(&storage.address, answer.reads),
            Err(error) => {
                for request in self.groups.into_values().flatten() {
                    let _ = request.answer.send(Err(error.clone()));
                }
            }
        }
    }

    /// Gives each reader its part.
    fn answer(self, peer: &str, answers: Vec<KeysAnswer>) {
        let mut answers = answers.into_iter();
        for requests in self.groups.into_values() {
            let mut answer = answers.next();
            let mut values = answer.as_mut().map(|answer| std::mem::take(&mut answer.values));
            for request in requests {
                let count = request.read.keys.len();
                let part = match (&answer, &mut values) {
                    (Some(KeysAnswer { problem: Some(problem), .. }), _) => {
                        Err(CallError::Problem(Box::new(problem.clone())))
                    }
                    (Some(KeysAnswer { version, .. }), Some(values)) if values.len() >= count => {
                        Ok((*version, values.drain(..count).collect()))
                    }
                    _ => Err(CallError::Answer {
                        peer: peer.to_owned(),
                        detail: "it has fewer values than were asked for".to_owned(),
                    }),
                };
                // Who does not wait any more needs no answer.
                let _ = request.answer.send(part);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(epoch: u64, version: u64, keys: &[&str]) -> (Request, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        let read = KeyRead {
            epoch: Epoch(epoch),
            version: Version(version),
            newest: false,
            keys: keys.iter().map(|key| Key::from(*key)).collect(),
        };
        (Request { read, until: Instant::now(), span: Span::none(), answer }, answered)
    }

    fn values(texts: &[&str]) -> Vec<Option<Value>> {
        texts.iter().map(|text| Some(Value::from(*text))).collect()
    }

    #[tokio::test]
    async fn readers_of_one_version_are_asked_for_together_and_each_is_given_its_own() {
        let (first, first_answer) = request(3, 20, &["a", "b"]);
        let (second, second_answer) = request(3, 10, &["c"]);
        let (third, third_answer) = request(3, 20, &["d"]);
        let (later, _later_answer) = request(4, 20, &["e"]);
        let mut waiting = VecDeque::from([first, second, third, later]);
        let batch = Batch::take(&mut waiting).expect("somebody waits");
        assert_eq!((batch.epoch, waiting.len()), (Epoch(3), 1), "another epoch waits");
        let reads = batch.reads();
        let asked: Vec<_> = reads.iter().map(|read| (read.version.0, read.keys.len())).collect();
        assert_eq!(asked, [(10, 1), (20, 3)]);
        let problem = Problem::new(ErrorCode::TransactionTooOld, "forgotten");
        batch.answer(
            "storage",
            vec![
                KeysAnswer { version: Version(10), values: vec![], problem: Some(problem) },
                KeysAnswer { version: Version(20), values: values(&["1", "2"]), problem: None },
            ],
        );
        assert_eq!(first_answer.await.unwrap(), Ok((Version(20), values(&["1", "2"]))));
        let code = second_answer.await.unwrap().unwrap_err().code();
        assert_eq!(code, Some(ErrorCode::TransactionTooOld));
        let short = third_answer.await.unwrap();
        assert!(matches!(short, Err(CallError::Answer { .. })), "{short:?}");
    }

    #[tokio::test]
    async fn a_batch_is_bounded_and_a_large_read_goes_all_the_same() {
        let many: Vec<&str> = vec!["k"; READ_BATCH_KEYS - 1];
        let requests = [request(3, 1, &many), request(3, 1, &["a"]), request(3, 1, &["b"])];
        let mut waiting: VecDeque<_> = requests.into_iter().map(|(request, _)| request).collect();
        let sizes: Vec<usize> = std::iter::from_fn(|| Batch::take(&mut waiting))
            .map(|batch| batch.reads().iter().map(|read| read.keys.len()).sum())
            .collect();
        assert_eq!(sizes, [READ_BATCH_KEYS, 1]);
        let mut waiting = VecDeque::from([request(3, 1, &vec!["k"; READ_BATCH_KEYS + 1]).0]);
        assert!(Batch::take(&mut waiting).is_some() && waiting.is_empty());
    }
}
