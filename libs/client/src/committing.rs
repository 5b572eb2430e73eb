//! Commits, each of which takes effect once.
//!
//! A commit bears a marker: a key of its own below `\xff/idempotency/`, in what it reads as well as
//! in what it writes. So of several attempts at most one is committed, and what became of one whose
//! answer was lost can be told: another attempt at the same read version either is committed, or
//! is refused, and then a later read of the marker says whether the first one was. Nothing of the
//! first one can come after the second is decided: where the second conflicts or is too old, so is
//! whatever of the first arrives later.

use std::sync::Arc;
use std::time::Duration;

use plinth_api::commit_proxy::{COMMIT, CommitRequest, Committed, StampPart, StampPlace};
use plinth_api::{ErrorCode, Target};
use plinth_types::{Epoch, Key, KeyRange, Mutation, Value, Version, Versionstamp};
use tokio::time::sleep;

use crate::attempts::{Attempt, Attempts, Deadline};
use crate::database::retry;
use crate::{ClientError, Database, Topology, idempotency};

/// How long the proxy of an epoch that is over may take to say what became of a commit.
const LAST_WORD: Duration = Duration::from_millis(200);
/// How old the read version of a blind write may be. The marker is new, so any version will do that
/// resolvers still remember.
const BLIND_AGE: Duration = Duration::from_secs(2);

/// What is to be committed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commit {
    /// The version that was read at; none for blind writes.
    pub(crate) read_version: Option<Version>,
    pub(crate) reads: Vec<KeyRange>,
    pub(crate) writes: Vec<KeyRange>,
    pub(crate) mutations: Vec<Mutation>,
    pub(crate) stamps: Vec<StampPlace>,
    /// It writes and reads a key of its own already, or does no harm when it is done twice.
    pub(crate) is_marked: bool,
}

impl From<Commit> for CommitRequest {
    /// Of no epoch yet.
    fn from(commit: Commit) -> CommitRequest {
        let Commit { read_version, reads, writes, mutations, stamps, is_marked: _ } = commit;
        CommitRequest {
            epoch: Epoch::ZERO,
            read_version,
            reads,
            writes,
            mutations,
            stamps,
            system: false,
            begins: false,
        }
    }
}

impl Database {
    /// Commits, and tries again until it is known what became of it.
    ///
    /// # Errors
    /// [`ClientError::CommitUnknownResult`] only if that can't be told before the deadline. Where
    /// the commit is marked by its caller, [`ClientError::Conflict`] may mean that an earlier
    /// attempt took effect: the caller looks at its mark.
    pub(crate) async fn commit_once(
        &self,
        commit: Commit,
        deadline: Deadline,
    ) -> Result<Committed, ClientError> {
        let (read_version, is_marked) = (commit.read_version, commit.is_marked);
        let mut request = CommitRequest::from(commit);
        let is_blind = read_version.is_none();
        let mut marker: Option<Key> = None;
        let mut unknown: Option<String> = None;
        let mut fresh = false;
        let mut attempts = Attempts::new(&self.followed, deadline);
        loop {
            let (topology, left) = match attempts.next().await {
                Ok(next) => next,
                Err(error) => return Err(unknown.map_or(error, ClientError::CommitUnknownResult)),
            };
            // While an attempt's fate is open the version stays: at a later one, what it may have
            // written would not count as a conflict.
            if is_blind && unknown.is_none() {
                match self.blind_version(&topology, fresh, left).await? {
                    Attempt::Done((version, begun)) => {
                        request.read_version = Some(version);
                        request.begins = !begun;
                    }
                    Attempt::Again(why) => {
                        attempts.failed(why);
                        continue;
                    }
                }
            }
            if marker.is_none() && !is_marked {
                let version = request.read_version.unwrap_or_default();
                marker = Some(mark(&mut request, version, self.runtime.random_u128()));
                if self.runtime.fault("client.mark_not_read") {
                    request.reads.pop();
                }
            }
            request.epoch = topology.epoch();
            let error = match self.try_commit(&topology, &request, left).await {
                Ok(Attempt::Done(committed)) => {
                    self.read_versions.learn(request.epoch, committed.version);
                    return Ok(committed);
                }
                Ok(Attempt::Again(why)) => {
                    attempts.failed(why);
                    continue;
                }
                Err(ClientError::CommitUnknownResult(_))
                    if self.runtime.fault("client.conflict_for_unknown") =>
                {
                    return Err(ClientError::Conflict);
                }
                Err(ClientError::CommitUnknownResult(why)) => {
                    attempts.failed(why.clone());
                    unknown = Some(why);
                    continue;
                }
                Err(error @ (ClientError::Conflict | ClientError::TooOld)) => error,
                Err(error) => return Err(error),
            };
            if unknown.take().is_some()
                && let Some(marker) = &marker
                && let Some(committed) = self.marked(marker, deadline).await?
            {
                return Ok(committed);
            }
            if !is_blind {
                return Err(error);
            }
            // No attempt at a blind write took effect; this one read too long ago.
            fresh = true;
            attempts.failed(error.to_string());
        }
    }

    /// A version that a blind write may say it read at, and whether it was asked for to that end.
    async fn blind_version(
        &self,
        topology: &Arc<Topology>,
        fresh: bool,
        left: Duration,
    ) -> Result<Attempt<(Version, bool)>, ClientError> {
        if let Some(version) =
            self.read_versions.recent(topology.epoch(), BLIND_AGE).filter(|_| !fresh)
        {
            return Ok(Attempt::Done((version, false)));
        }
        if fresh {
            self.runtime.mark("client.blind_write_again");
        }
        Ok(match self.try_read_version(topology, left).await? {
            Attempt::Done(version) => Attempt::Done((version, true)),
            Attempt::Again(why) => Attempt::Again(why),
        })
    }

    /// What the marker says of the attempts that are decided by now.
    async fn marked(
        &self,
        marker: &Key,
        deadline: Deadline,
    ) -> Result<Option<Committed>, ClientError> {
        let late = |error| match error {
            ClientError::Unavailable { detail, .. } => ClientError::CommitUnknownResult(detail),
            error => error,
        };
        loop {
            let version = self.read_version_by(deadline).await.map_err(late)?;
            match self.get_at(version, marker, deadline).await {
                Ok(value) => {
                    let stamp = value.and_then(|value| Versionstamp::from_prefix(value.as_bytes()));
                    if stamp.is_some() {
                        self.runtime.mark("client.unknown_commit_found");
                    }
                    return Ok(
                        stamp.map(|Versionstamp { version, index }| Committed { version, index })
                    );
                }
                // The epoch has changed in between.
                Err(ClientError::TooOld) => {}
                Err(error) => return Err(late(error)),
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
}

/// Gives a commit a marker, which its versionstamp is written to.
fn mark(request: &mut CommitRequest, version: Version, random: u128) -> Key {
    let key = idempotency::attempt_key(version, random);
    let mutation = u32::try_from(request.mutations.len()).unwrap_or(u32::MAX);
    request.reads.push(KeyRange::single(&key));
    request.stamps.push(StampPlace { mutation, part: StampPart::Value, offset: 0 });
    let value = Value::from(vec![0; Versionstamp::LENGTH]);
    request.mutations.push(Mutation::Set { key: key.clone(), value });
    key
}
