//! Reads and commits against a cluster.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use plinth_api::commit_proxy::{COMMIT, CommitRequest, Committed};
use plinth_api::storage::{READ, ReadRequest};
use plinth_api::{CallError, ErrorCode, Target};
use plinth_runtime::Scope;
use plinth_service::Peers;
use plinth_types::{Epoch, Key, KeyRange, Mutation, Pid, Value, Version};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::read_versions::ReadVersions;
use crate::{ClientError, Followed, Topology, follow};

/// The longest that one peer may take before another one is tried.
const PEER: Duration = Duration::from_millis(1_500);
/// How long one replica may take before the next one is asked as well.
const HEDGE: Duration = Duration::from_millis(100);
/// How long the proxy of an epoch that is over may take to say what became of a commit.
const LAST_WORD: Duration = Duration::from_millis(200);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(5);
/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// What was read, and when in the order of commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The version it was read at.
    pub version: Version,
    /// The value; none where the key has none.
    pub value: Option<Value>,
}

/// A cluster, as a client sees it. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    peers: Peers,
    followed: Followed,
    read_versions: ReadVersions,
}

/// What an attempt came to.
enum Attempt<T> {
    Done(T),
    Again(String),
}

impl Database {
    /// A client that finds the cluster by these coordinators. Its tasks live in `scope`.
    #[must_use]
    pub fn new(scope: &Scope, peers: Peers, coordinators: Vec<Target>) -> Database {
        let followed = follow(scope, peers.clone(), coordinators);
        let read_versions = ReadVersions::new(scope, peers.clone(), followed.clone());
        Database { peers, followed, read_versions }
    }

    /// Who does what now, as far as it is known.
    #[must_use]
    pub fn topology(&self) -> Option<Arc<Topology>> {
        self.followed.newest()
    }

    /// The key's value, strictly serializable: no commit acknowledged before the call is missed.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] at the deadline, [`ClientError::Refused`] where the cluster
    /// will never serve it.
    pub async fn get(&self, key: &Key, within: Duration) -> Result<Read, ClientError> {
        let mut attempts = self.attempts(within);
        loop {
            let (topology, left) = attempts.next().await?;
            match self.try_get(&topology, key, left).await? {
                Attempt::Done(read) => return Ok(read),
                Attempt::Again(why) => attempts.failed(why),
            }
        }
    }

    async fn try_get(
        &self,
        topology: &Arc<Topology>,
        key: &Key,
        left: Duration,
    ) -> Result<Attempt<Read>, ClientError> {
        let version = match self.read_versions.get(topology, left.min(PEER)).await {
            Some(Ok(version)) => version,
            Some(Err(error)) => return retry_read(error),
            None => return Ok(Attempt::Again("no commit proxy runs".to_owned())),
        };
        self.read_at(topology, key, version, left).await
    }

    async fn read_at(
        &self,
        topology: &Topology,
        key: &Key,
        version: Version,
        left: Duration,
    ) -> Result<Attempt<Read>, ClientError> {
        let no_storage = || ClientError::NoStorage { key: key.clone(), version };
        let tag = topology.tag_of(key.as_bytes()).ok_or_else(no_storage)?;
        let epoch = topology.epoch();
        let request = ReadRequest { epoch, version, keys: vec![key.clone()], ranges: Vec::new() };
        let mut replicas: Vec<&Pid> = topology.storages(tag).collect();
        if replicas.is_empty() {
            return Ok(Attempt::Again(no_storage().to_string()));
        }
        // Spread over the replicas by key. One that is slow or gone costs a short wait, since the
        // next one is asked beside it.
        let start = usize::from(key.as_bytes().last().copied().unwrap_or(0)) % replicas.len();
        replicas.rotate_left(start);
        let mut unasked = replicas.into_iter();
        let mut asked = FuturesUnordered::new();
        let mut last = String::new();
        loop {
            if let Some(replica) = unasked.next() {
                asked.push(self.read_from(replica, &request, left.min(PEER)));
            }
            let hedge = async {
                match unasked.len() {
                    0 => std::future::pending().await,
                    _ => sleep(HEDGE).await,
                }
            };
            tokio::select! {
                biased;
                answer = asked.next() => match answer {
                    Some(Ok(value)) => return Ok(Attempt::Done(Read { version, value })),
                    Some(Err(why)) => last = why,
                    None => return Ok(Attempt::Again(last)),
                },
                () = hedge => {}
            }
        }
    }

    /// What one replica says.
    async fn read_from(
        &self,
        replica: &Pid,
        request: &ReadRequest,
        limit: Duration,
    ) -> Result<Option<Value>, String> {
        let target = Target::from(replica);
        let answer = self.peers.call(&target, &READ, request, Some(request.epoch), limit).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let value = answer.values.into_iter().next();
        value.ok_or_else(|| format!("{} answers without a value", target.address))
    }

    /// Commits blind writes: mutations that depend on nothing read.
    ///
    /// # Errors
    /// [`ClientError::CommitUnknownResult`] where the commit may have taken effect; it is not tried
    /// again, since the first attempt could then take effect twice.
    pub async fn write(
        &self,
        mutations: Vec<Mutation>,
        within: Duration,
    ) -> Result<Committed, ClientError> {
        self.commit(None, Vec::new(), mutations, within).await
    }

    /// Commits a transaction that read `reads` at `read_version`.
    ///
    /// # Errors
    /// As [`Database::write`]; [`ClientError::Conflict`] and [`ClientError::TooOld`] where the
    /// transaction must be run again from its reads on.
    pub async fn commit(
        &self,
        read_version: Option<Version>,
        reads: Vec<KeyRange>,
        mutations: Vec<Mutation>,
        within: Duration,
    ) -> Result<Committed, ClientError> {
        let mut attempts = self.attempts(within);
        let mut request = CommitRequest {
            epoch: Epoch::ZERO,
            read_version,
            reads,
            writes: Vec::new(),
            mutations,
            system: false,
        };
        loop {
            let (topology, left) = attempts.next().await?;
            request.epoch = topology.epoch();
            match self.try_commit(&topology, &request, left).await? {
                Attempt::Done(committed) => return Ok(committed),
                Attempt::Again(why) => attempts.failed(why),
            }
        }
    }

    async fn try_commit(
        &self,
        topology: &Topology,
        request: &CommitRequest,
        left: Duration,
    ) -> Result<Attempt<Committed>, ClientError> {
        let Some(proxy) = topology.commit_proxies().next() else {
            return Ok(Attempt::Again("no commit proxy runs".to_owned()));
        };
        let target = Target::from(proxy);
        let epoch = request.epoch;
        let call = async { self.peers.call(&target, &COMMIT, request, Some(epoch), left).await };
        let over = async {
            self.followed.superseded(epoch).await;
            sleep(LAST_WORD).await;
        };
        let answer = tokio::select! {
            biased;
            answer = call => answer,
            () = over => {
                let detail = format!("epoch {epoch} ended before {} answered", target.address);
                return Err(ClientError::CommitUnknownResult(detail));
            }
        };
        match answer {
            Ok(committed) => Ok(Attempt::Done(committed)),
            Err(error) => match error.code() {
                Some(ErrorCode::Conflict) => Err(ClientError::Conflict),
                Some(ErrorCode::TransactionTooOld) => Err(ClientError::TooOld),
                _ if !error.had_no_effect() => {
                    Err(ClientError::CommitUnknownResult(error.to_string()))
                }
                _ => retry(error),
            },
        }
    }

    fn attempts(&self, within: Duration) -> Attempts {
        Attempts {
            topology: self.followed.watch(),
            followed: self.followed.clone(),
            within,
            deadline: Instant::now() + within,
            pause: None,
            last: "no director tells the layout".to_owned(),
        }
    }
}

/// Attempts, on ever newer knowledge of the layout, until one is done or time is up.
struct Attempts {
    topology: watch::Receiver<Option<Arc<Topology>>>,
    followed: Followed,
    within: Duration,
    deadline: Instant,
    /// How long to wait before the next attempt; none before the first.
    pause: Option<Duration>,
    last: String,
}

impl Attempts {
    /// What to make the next attempt on, and the time that is left for it.
    async fn next(&mut self) -> Result<(Arc<Topology>, Duration), ClientError> {
        if let Some(pause) = self.pause {
            // A new layout is worth an attempt at once; else the same peers get a moment.
            tokio::select! {
                biased;
                _ = self.topology.changed() => self.pause = Some(PAUSE),
                () = sleep_until((Instant::now() + pause).min(self.deadline)) => {}
            }
        }
        let open = self.topology.wait_for(|topology| {
            topology.as_ref().is_some_and(|topology| topology.live.accepting_commits)
        });
        let current = match timeout_at(self.deadline, open).await {
            Ok(Ok(current)) => current.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        match current {
            Some(topology) if !left.is_zero() => Ok((topology, left)),
            _ => Err(ClientError::Unavailable {
                within_ms: u64::try_from(self.within.as_millis()).unwrap_or(u64::MAX),
                detail: std::mem::take(&mut self.last),
            }),
        }
    }

    fn failed(&mut self, why: String) {
        self.followed.doubt();
        self.last = why;
        self.pause = Some(self.pause.map_or(PAUSE, |pause| (pause * 2).min(MAX_PAUSE)));
    }
}

/// An attempt that had no effect is worth another one, unless the cluster will always refuse it.
fn retry<T>(error: CallError) -> Result<Attempt<T>, ClientError> {
    match error {
        CallError::Problem(problem) if !problem.retryable => Err(ClientError::Refused(problem)),
        other => Ok(Attempt::Again(other.to_string())),
    }
}

/// Reads have no effect, so whatever happened they are worth another attempt.
fn retry_read<T>(error: CallError) -> Result<Attempt<T>, ClientError> {
    match error {
        CallError::Problem(problem)
            if !problem.retryable && problem.code != ErrorCode::DeadlineExceeded =>
        {
            Err(ClientError::Refused(problem))
        }
        other => Ok(Attempt::Again(other.to_string())),
    }
}
