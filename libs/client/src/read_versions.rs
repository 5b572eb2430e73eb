//! Read versions, in rounds: while one request is under way, the next ones collect, and the next
//! round serves them all. A round serves only who asked before it was sent, so that what it answers
//! is not older than the question.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plinth_api::commit_proxy::{READ_VERSION, ReadVersion, ReadVersionRequest};
use plinth_api::{CallError, ErrorCode, Problem, Target};
use plinth_runtime::Scope;
use plinth_service::Peers;
use plinth_types::{Epoch, Version};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::{Followed, Topology};

/// Waiting readers, at most. More wait in line for a place.
const QUEUE: usize = 4_096;

type Answer = Result<Version, CallError>;

struct Request {
    topology: Arc<Topology>,
    /// Nobody waits any longer than this.
    until: Instant,
    span: tracing::Span,
    answer: oneshot::Sender<Answer>,
}

/// A version that is known to be committed, of which epoch, and since when it is known.
#[derive(Clone, Copy)]
struct Learnt {
    epoch: Epoch,
    version: Version,
    at: Instant,
}

/// Asks for read versions on behalf of many.
#[derive(Clone)]
pub(crate) struct ReadVersions {
    requests: mpsc::Sender<Request>,
    newest: Arc<Mutex<Option<Learnt>>>,
}

impl ReadVersions {
    pub(crate) fn new(scope: &Scope, peers: Peers, followed: Followed) -> ReadVersions {
        let (requests, mut queue) = mpsc::channel::<Request>(QUEUE);
        let versions = ReadVersions { requests, newest: Arc::default() };
        let learning = Arc::clone(&versions.newest);
        drop(scope.spawn("read versions", async move {
            let mut waiting = Vec::new();
            // Whom the last round left over goes first in the next one.
            while !waiting.is_empty() || queue.recv_many(&mut waiting, QUEUE).await > 0 {
                while waiting.len() < QUEUE
                    && let Ok(request) = queue.try_recv()
                {
                    waiting.push(request);
                }
                if let Some((epoch, version)) = serve(&peers, &followed, &mut waiting).await {
                    learn(&learning, epoch, version);
                }
            }
        }));
        versions
    }

    /// Notes a version that a commit was answered with.
    pub(crate) fn learn(&self, epoch: Epoch, version: Version) {
        learn(&self.newest, epoch, version);
    }

    /// The newest version of an epoch that is known to be committed, if it was learnt so recently.
    pub(crate) fn recent(&self, epoch: Epoch, age: Duration) -> Option<Version> {
        let newest = *self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let Learnt { epoch: of, version, at } = newest?;
        (of == epoch && at.elapsed() <= age).then_some(version)
    }

    /// A version to read at, in the epoch of `topology`. None where no proxy of it runs or the
    /// service ends.
    pub(crate) async fn get(&self, topology: &Arc<Topology>, limit: Duration) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        let topology = Arc::clone(topology);
        let span = tracing::Span::current();
        let until = Instant::now() + limit;
        self.requests.send(Request { topology, until, span, answer }).await.ok()?;
        answered.await.ok()
    }
}

fn learn(newest: &Mutex<Option<Learnt>>, epoch: Epoch, version: Version) {
    let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
    let known = newest.map(|known| (known.epoch, known.version));
    if known.is_none_or(|known| known <= (epoch, version)) {
        *newest = Some(Learnt { epoch, version, at: Instant::now() });
    }
}

/// One round: everybody who waits gets what a proxy of the newest topology says. Where that lets
/// only some begin, the others are left for the next round.
async fn serve(
    peers: &Peers,
    followed: &Followed,
    waiting: &mut Vec<Request>,
) -> Option<(Epoch, Version)> {
    let now = Instant::now();
    let (waits, late): (Vec<_>, Vec<_>) = waiting
        .drain(..)
        .filter(|request| !request.answer.is_closed())
        .partition(|request| request.until > now);
    *waiting = waits;
    for request in late {
        let detail = "others were let begin first: /v1/status says what limits them";
        let _ = request.answer.send(Err(Problem::new(ErrorCode::Overloaded, detail).into()));
    }
    let newest = waiting.iter().max_by_key(|request| request.topology.epoch());
    let (topology, span) =
        newest.map(|request| (Arc::clone(&request.topology), request.span.clone()))?;
    let until = waiting.iter().map(|request| request.until).max().unwrap_or(now);
    let limit = until.saturating_duration_since(now);
    let Some(proxy) = topology.commit_proxies().next() else {
        waiting.clear();
        return None;
    };
    let epoch = topology.epoch();
    let count = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
    let request = ReadVersionRequest { epoch, count };
    let target = Target::from(proxy);
    let call = async { peers.call(&target, &READ_VERSION, &request, Some(epoch), limit).await };
    let answer = tokio::select! {
        biased;
        answer = call.instrument(span) => answer,
        // Nobody waits for a proxy that can't answer any more.
        () = followed.superseded(epoch) => {
            let detail = format!("epoch {epoch} is over");
            Err(CallError::Problem(Box::new(Problem::new(ErrorCode::StaleEpoch, detail))))
        }
    };
    let granted = match &answer {
        Ok(ReadVersion { granted: Some(granted), .. }) => {
            usize::try_from(*granted).unwrap_or(usize::MAX).clamp(1, waiting.len())
        }
        Ok(ReadVersion { granted: None, .. }) | Err(_) => waiting.len(),
    };
    let answer = answer.map(|answer| answer.version);
    for request in waiting.drain(..granted) {
        let _ = request.answer.send(answer.clone());
    }
    answer.ok().map(|version| (epoch, version))
}
