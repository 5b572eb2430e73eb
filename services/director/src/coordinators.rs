//! The coordinators as the director calls them: all of them in turn until one answers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plinth_api::{CallError, Endpoint, ErrorCode};
use plinth_service::{Context, KnownCoordinators};
use plinth_types::Epoch;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The coordinators. Any of them answers for the group, or says that it can't.
pub(crate) struct Coordinators {
    context: Context,
    known: KnownCoordinators,
    /// The one that answered last.
    favourite: AtomicUsize,
}

impl Coordinators {
    pub(crate) fn new(context: Context, known: KnownCoordinators) -> Coordinators {
        Coordinators { context, known, favourite: AtomicUsize::new(0) }
    }

    /// Asks one coordinator after the other, beginning with the one that answered last, each within
    /// `limit`.
    ///
    /// # Errors
    /// The group's refusal, or, where nobody speaks for the group, the last error. After an error
    /// that is not a refusal, a write may still take effect.
    pub(crate) async fn call<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        endpoint: Endpoint<Req, Resp>,
        request: &Req,
        epoch: Epoch,
        limit: Duration,
    ) -> Result<Resp, CallError> {
        let first = self.favourite.load(Ordering::Relaxed);
        let mut last = CallError::Request("no coordinator is known".to_owned());
        let targets = self.known.targets();
        for offset in 0..targets.len() {
            let index = (first + offset) % targets.len();
            let Some(target) = targets.get(index) else { continue };
            let answer =
                self.context.peers().call(target, &endpoint, request, Some(epoch), limit).await;
            match answer {
                Err(error) if !is_refusal(&error) => last = error,
                answer => {
                    self.favourite.store(index, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(last)
    }
}

/// Whether the group itself has said no. Otherwise another coordinator, or the same one later, may
/// say yes.
pub(crate) fn is_refusal(error: &CallError) -> bool {
    match error.code() {
        None => false,
        Some(
            ErrorCode::NoQuorum
            | ErrorCode::NotReady
            | ErrorCode::PeerUnavailable
            | ErrorCode::Overloaded
            | ErrorCode::DeadlineExceeded
            | ErrorCode::Internal,
        ) => false,
        Some(_) => true,
    }
}
