//! A cluster, as a client sees it.

use std::sync::Arc;
use std::time::Duration;

use plinth_api::commit_proxy::Committed;
use plinth_api::{CallError, ErrorCode};
use plinth_runtime::{Runtime, Scope, ScopeGuard};
use plinth_service::{KnownCoordinators, Peers};
use plinth_types::{Key, Mutation, Value, Version};
use tokio::time::sleep;

use crate::attempts::{Attempt, Attempts, Deadline};
use crate::committing::Commit;
use crate::key_reads::KeyReads;
use crate::read_versions::ReadVersions;
use crate::reading::PEER;
use crate::{ClientError, Followed, Topology, Transaction, TransactionError, follow};

/// The longest that a transaction waits before it is run again for the second time; it doubles each
/// time.
const BACKOFF: Duration = Duration::from_millis(4);
/// The longest wait of all.
const MAX_BACKOFF: Duration = Duration::from_millis(500);
/// How old a version may be that a snapshot is read at.
const SNAPSHOT_AGE: Duration = Duration::from_secs(1);

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
    pub(crate) runtime: Runtime,
    pub(crate) peers: Peers,
    pub(crate) followed: Followed,
    pub(crate) read_versions: ReadVersions,
    pub(crate) key_reads: KeyReads,
    /// Keeps the tasks of a connection from outside; a service's live in its own scope.
    pub(crate) connection: Option<Arc<ScopeGuard>>,
}

impl Database {
    /// A client that finds the cluster by these coordinators. Its tasks live in `scope`.
    #[must_use]
    pub fn new(
        runtime: &Runtime,
        scope: &Scope,
        peers: Peers,
        coordinators: impl Into<KnownCoordinators>,
    ) -> Database {
        let followed = follow(scope, peers.clone(), coordinators.into());
        let read_versions = ReadVersions::new(scope, peers.clone(), followed.clone());
        let key_reads = KeyReads::new(scope, peers.clone());
        let runtime = runtime.clone();
        Database { runtime, peers, followed, read_versions, key_reads, connection: None }
    }

    /// Who does what now, as far as it is known.
    #[must_use]
    pub fn topology(&self) -> Option<Arc<Topology>> {
        self.followed.newest()
    }

    /// A transaction, which must have been committed after `within`.
    #[must_use]
    pub fn begin(&self, within: Duration) -> Transaction {
        Transaction::new(self.clone(), Deadline::after(within))
    }

    /// Runs `body` in a transaction and commits it. Where that conflicts, or took longer than the
    /// window, both are done again, after a wait that grows with each attempt and is drawn by lot.
    /// The transaction takes effect once, whatever fails on the way, so `body` itself should change
    /// nothing else.
    ///
    /// # Errors
    /// What `body` answers, or the last [`ClientError`] at the deadline.
    pub async fn run<T, E, F, Fut>(&self, within: Duration, mut body: F) -> Result<T, E>
    where
        E: TransactionError,
        F: FnMut(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let deadline = Deadline::after(within);
        let mut backoff = BACKOFF;
        loop {
            let transaction = Transaction::new(self.clone(), deadline);
            let error = match body(transaction.clone()).await {
                Ok(value) => match transaction.commit().await {
                    Ok(_) => return Ok(value),
                    Err(error) => E::from(error),
                },
                Err(error) => error,
            };
            let again = error.client_error().is_some_and(ClientError::is_retryable);
            let wait = self.jitter(backoff);
            if !again || wait >= deadline.left() {
                return Err(error);
            }
            sleep(wait).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// Anything up to `most`.
    pub(crate) fn jitter(&self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.runtime.random_u64() % most.saturating_add(1))
    }

    /// The key's value, strictly serializable: no commit acknowledged before the call is missed.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] at the deadline, [`ClientError::Refused`] where the cluster
    /// will never serve it.
    pub async fn get(&self, key: &Key, within: Duration) -> Result<Read, ClientError> {
        let mut attempts = Attempts::new(&self.followed, Deadline::after(within));
        loop {
            let (topology, left) = attempts.next().await?;
            let version = match self.try_read_version(&topology, left).await? {
                Attempt::Done(version) => version,
                Attempt::Again(why) => {
                    attempts.failed(why);
                    continue;
                }
            };
            match self.try_get(&topology, key, version, left).await {
                Ok(Attempt::Done(value)) => return Ok(Read { version, value }),
                Ok(Attempt::Again(why)) => attempts.failed(why),
                Err(ClientError::TooOld) => attempts.failed(ClientError::TooOld.to_string()),
                Err(error) => return Err(error),
            }
        }
    }

    /// The key's value at a version that this client knows to be committed and that is at most a
    /// second old: commits of the last second may be missed, but it costs no question for a version.
    ///
    /// # Errors
    /// As [`Database::get`].
    pub async fn get_snapshot(&self, key: &Key, within: Duration) -> Result<Read, ClientError> {
        let known = self.topology().and_then(|topology| {
            let version = self.read_versions.recent(topology.epoch(), SNAPSHOT_AGE)?;
            Some((topology, version))
        });
        if let Some((topology, version)) = known
            && let Ok(Attempt::Done(value)) =
                self.try_get(&topology, key, version, PEER.min(within)).await
        {
            return Ok(Read { version, value });
        }
        self.get(key, within).await
    }

    /// The key's value as some storage has it: the newest version that the storage knows to be
    /// committed, however old that is. Served without quorum, and while the cluster recovers.
    ///
    /// # Errors
    /// As [`Database::get`].
    pub async fn get_stale(&self, key: &Key, within: Duration) -> Result<Read, ClientError> {
        let mut attempts = Attempts::new(&self.followed, Deadline::after(within));
        loop {
            let (topology, left) = attempts.next_in_any_state().await?;
            match self.try_get_newest(&topology, key, left).await? {
                Attempt::Done(read) => return Ok(read),
                Attempt::Again(why) => attempts.failed(why),
            }
        }
    }

    /// A version to read at: no commit acknowledged before the call is above it.
    ///
    /// # Errors
    /// As [`Database::get`].
    pub async fn read_version(&self, within: Duration) -> Result<Version, ClientError> {
        self.read_version_by(Deadline::after(within)).await
    }

    pub(crate) async fn read_version_by(&self, deadline: Deadline) -> Result<Version, ClientError> {
        let mut attempts = Attempts::new(&self.followed, deadline);
        loop {
            let (topology, left) = attempts.next().await?;
            match self.try_read_version(&topology, left).await? {
                Attempt::Done(version) => return Ok(version),
                Attempt::Again(why) => attempts.failed(why),
            }
        }
    }

    pub(crate) async fn try_read_version(
        &self,
        topology: &Arc<Topology>,
        left: Duration,
    ) -> Result<Attempt<Version>, ClientError> {
        if self.runtime.fault("client.old_read_version")
            && let Some(version) = self.read_versions.recent(topology.epoch(), SNAPSHOT_AGE)
        {
            return Ok(Attempt::Done(version));
        }
        match self.read_versions.get(topology, left.min(PEER)).await {
            Some(Ok(version)) => Ok(Attempt::Done(version)),
            Some(Err(error)) => retry_read(error),
            None => Ok(Attempt::Again("no commit proxy runs".to_owned())),
        }
    }

    /// Commits blind writes, once: mutations that depend on nothing read. A commit whose fate is
    /// not known is settled by another attempt.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] at the deadline; [`ClientError::CommitUnknownResult`] if an
    /// attempt's fate is not known even then.
    pub async fn write(
        &self,
        mutations: Vec<Mutation>,
        within: Duration,
    ) -> Result<Committed, ClientError> {
        let commit = Commit { mutations, ..Commit::default() };
        self.commit_once(commit, Deadline::after(within)).await
    }
}

/// An attempt that had no effect is worth another one, unless the cluster will always refuse it.
pub(crate) fn retry<T>(error: CallError) -> Result<Attempt<T>, ClientError> {
    match error {
        CallError::Problem(problem) if !problem.retryable => Err(ClientError::Refused(problem)),
        other => Ok(Attempt::Again(other.to_string())),
    }
}

/// Reads have no effect, so whatever happened they are worth another attempt.
pub(crate) fn retry_read<T>(error: CallError) -> Result<Attempt<T>, ClientError> {
    match error {
        CallError::Problem(problem)
            if !problem.retryable && problem.code != ErrorCode::DeadlineExceeded =>
        {
            Err(ClientError::Refused(problem))
        }
        other => Ok(Attempt::Again(other.to_string())),
    }
}
