//! Calls to the peers of an epoch, which all take a repeated request for the same request.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use plinth_api::commit_proxy::{Assignment, Peer};
use plinth_api::log::{CONFIRM, ConfirmQuery, Entry, PUSH};
use plinth_api::resolver::{RESOLVE, Resolution, Verdict};
use plinth_api::sequencer::{
    COMMIT_VERSION, COMMITTED, CommitVersion, CommitVersionRequest, CommittedRequest, READ_VERSION,
    ReadVersionQuery,
};
use plinth_api::{CallError, Endpoint, ErrorCode, Target, TransportError};
use plinth_service::Peers;
use plinth_types::{Epoch, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::command::{PeerFailure, Work};

/// The first pause before a request is repeated; doubled each time.
const PAUSE: Duration = Duration::from_millis(1);

/// What a call has brought.
pub(crate) enum Done {
    Versioned(Work, CommitVersion),
    Resolved(Work, Vec<Vec<Verdict>>),
    Logged(Work),
    Reported(Work),
    Read(Work, Version),
    Failed(Work, PeerFailure),
}

fn done<T>(work: Work, result: Result<T, PeerFailure>, make: impl FnOnce(Work, T) -> Done) -> Done {
    match result {
        Ok(brought) => make(work, brought),
        Err(failure) => Done::Failed(work, failure),
    }
}

pub(crate) async fn ask_version(
    peers: Peers,
    members: Arc<Assignment>,
    batch: Work,
    request: CommitVersionRequest,
) -> Done {
    let caller = Caller::new(&peers, &members);
    let result = caller.call(&members.sequencer, &COMMIT_VERSION, &request).await;
    done(batch, result, Done::Versioned)
}

pub(crate) async fn resolve(
    peers: Peers,
    members: Arc<Assignment>,
    batch: Work,
    requests: Vec<Resolution>,
) -> Done {
    let caller = Caller::new(&peers, &members);
    let asked = members.resolvers.iter().zip(&requests).map(async |(resolver, request)| {
        let answer = caller.call(&resolver.peer, &RESOLVE, request).await?;
        Ok(answer.verdicts)
    });
    done(batch, try_join_all(asked).await, Done::Resolved)
}

/// Pushes to every log, but for the first `skipped`: none outside of a simulation of that fault.
pub(crate) async fn push(
    peers: Peers,
    members: Arc<Assignment>,
    batch: Work,
    entries: Vec<Entry>,
    skipped: usize,
) -> Done {
    let caller = Caller::new(&peers, &members);
    let pushed = members.logs.iter().zip(&entries).skip(skipped).map(async |(log, entry)| {
        let answer = caller.call(&log.peer, &PUSH, entry).await?;
        if answer.durable >= entry.version {
            return Ok(());
        }
        let detail =
            format!("acknowledged {} while only {} is durable", entry.version, answer.durable);
        Err(PeerFailure { peer: log.peer.service.clone(), detail })
    });
    done(batch, try_join_all(pushed).await, |batch, _| Done::Logged(batch))
}

pub(crate) async fn report(
    peers: Peers,
    members: Arc<Assignment>,
    batch: Work,
    request: CommittedRequest,
) -> Done {
    let caller = Caller::new(&peers, &members);
    let result = caller.call(&members.sequencer, &COMMITTED, &request).await;
    done(batch, result, |batch, _| Done::Reported(batch))
}

/// Asks the sequencer for the version and, at the same time, every log for its confirmation.
pub(crate) async fn read_version(
    peers: Peers,
    members: Arc<Assignment>,
    round: Work,
    confirm: bool,
) -> Done {
    let caller = Caller::new(&peers, &members);
    let query = ReadVersionQuery { epoch: members.epoch };
    let question = ConfirmQuery { epoch: members.epoch };
    let version = async { caller.call(&members.sequencer, &READ_VERSION, &query).await };
    let logs = members.logs.iter().filter(|_| confirm);
    let confirmations =
        try_join_all(logs.map(async |log| caller.call(&log.peer, &CONFIRM, &question).await));
    let result = futures::try_join!(version, confirmations);
    done(round, result, |round, (answer, _)| Done::Read(round, answer.version))
}

struct Caller<'a> {
    peers: &'a Peers,
    epoch: Epoch,
    limit: Duration,
}

impl<'a> Caller<'a> {
    fn new(peers: &'a Peers, members: &Assignment) -> Caller<'a> {
        let limit = Duration::from_millis(members.peer_timeout_ms);
        Caller { peers, epoch: members.epoch, limit }
    }

    /// Calls a peer, and again while it is busy or a connection breaks, until its time is over.
    async fn call<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        peer: &Peer,
        endpoint: &Endpoint<Req, Resp>,
        request: &Req,
    ) -> Result<Resp, PeerFailure> {
        let end = Instant::now() + self.limit;
        let target = Target::from(&peer.pid);
        let mut pause = PAUSE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let answer = self.peers.call(&target, endpoint, request, Some(self.epoch), left).await;
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) if may_pass(&error) && Instant::now() + pause < end => {
                    sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => {
                    return Err(PeerFailure {
                        peer: peer.service.clone(),
                        detail: error.to_string(),
                    });
                }
            }
        }
    }
}

/// Whether the same request may succeed in a moment. A process that refuses connections is dead.
fn may_pass(error: &CallError) -> bool {
    match error {
        CallError::Transport(TransportError::Broken { .. }) => true,
        CallError::Transport(_) | CallError::Answer { .. } | CallError::Request(_) => false,
        CallError::Problem(problem) => matches!(
            problem.code,
            ErrorCode::NotReady | ErrorCode::Overloaded | ErrorCode::DiskFull
        ),
    }
}
