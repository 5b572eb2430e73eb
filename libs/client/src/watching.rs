//! Watches: waiting for a key to change.

use std::time::Duration;

use plinth_api::storage::{WATCH, WatchAnswer, WatchRequest};
use plinth_api::{ErrorCode, Target};
use plinth_types::{Key, Pid};

use crate::attempts::{Attempts, Deadline};
use crate::{ClientError, Database, Read};

/// The longest that one storage is asked to wait; then another one may be.
const POLL: Duration = Duration::from_secs(10);
/// How much longer its answer may take.
const GRACE: Duration = Duration::from_millis(1_500);

impl Database {
    /// Waits until a key has another value than was seen, and that value is committed. A value that
    /// changes and changes back may go by unseen. Answers what the key has then; none if nothing
    /// has changed in time.
    ///
    /// A watch survives epochs: it begins again at the new one's storages.
    ///
    /// # Errors
    /// [`ClientError::Refused`] where the cluster will never serve it.
    pub async fn watch(
        &self,
        key: &Key,
        seen: &Read,
        within: Duration,
    ) -> Result<Option<Read>, ClientError> {
        let deadline = Deadline::after(within);
        let mut attempts = Attempts::new(&self.followed, deadline);
        let mut from = seen.version;
        let mut turn = usize::from(key.as_bytes().last().copied().unwrap_or(0));
        loop {
            let (topology, left) = match attempts.next().await {
                Ok(next) => next,
                Err(ClientError::Unavailable { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let epoch = topology.epoch();
            let tag = topology.tag_of(key.as_bytes());
            let replicas: Vec<&Pid> =
                tag.map(|tag| topology.storages(tag).collect()).unwrap_or_default();
            let Some(replica) =
                turn.checked_rem(replicas.len()).and_then(|index| replicas.get(index))
            else {
                attempts.failed("no storage of the key runs".to_owned());
                continue;
            };
            let wait = left.min(POLL);
            let request = WatchRequest {
                epoch,
                key: key.clone(),
                seen: seen.value.clone(),
                from,
                wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            };
            let target = Target::from(*replica);
            let call = async {
                let limit = wait + GRACE;
                self.peers.call(&target, &WATCH, &request, Some(epoch), limit).await
            };
            let mut news = self.followed.watch();
            let over = news.wait_for(|newest| {
                newest.as_ref().is_some_and(|topology| topology.epoch() > epoch)
            });
            let answer = tokio::select! {
                biased;
                answer = call => answer,
                // A storage that has not heard of the epoch might wait on in the last one.
                _ = over => continue,
            };
            match answer {
                Ok(WatchAnswer { changed: true, value, version }) => {
                    return Ok(Some(Read { version, value }));
                }
                Ok(WatchAnswer { changed: false, version, .. }) => from = from.max(version),
                Err(error) => {
                    turn = turn.wrapping_add(1);
                    if let plinth_api::CallError::Problem(problem) = &error
                        && !problem.retryable
                        && problem.code != ErrorCode::DeadlineExceeded
                    {
                        return Err(ClientError::Refused(problem.clone()));
                    }
                    attempts.failed(error.to_string());
                }
            }
        }
    }
}
