//! Why a director ends.

use std::fmt;

use plinth_api::commit_proxy::Peer;
use plinth_api::{CallError, ErrorCode, TransportError};
use plinth_types::ServiceRef;

/// Why a director ends. Everything that can go wrong in an epoch comes to this, since nothing is
/// repaired in place. The reason names services by what survives them: the next epoch persists it
/// as its cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Fatal {
    pub(crate) reason: String,
    /// Who did not answer.
    pub(crate) suspects: Vec<ServiceRef>,
}

impl Fatal {
    pub(crate) fn new(reason: impl Into<String>) -> Fatal {
        Fatal { reason: reason.into(), suspects: Vec::new() }
    }

    /// A component of the epoch failed.
    pub(crate) fn of(service: &ServiceRef, what: impl fmt::Display) -> Fatal {
        Fatal { reason: format!("{service} {what}"), suspects: vec![service.clone()] }
    }

    /// A component could not be made to do something.
    pub(crate) fn call(peer: &Peer, doing: &str, error: &CallError) -> Fatal {
        tracing::warn!(service = %peer.service, pid = %peer.pid, %error, "{doing} failed");
        if is_superseded(error) {
            return Fatal::new(format!("superseded: {} serves a later epoch", peer.service));
        }
        Fatal::of(&peer.service, format_args!("failed at {doing}: {}", Words(error)))
    }
}

/// Whether the other side serves a later epoch or another director of this one.
pub(crate) fn is_superseded(error: &CallError) -> bool {
    matches!(error.code(), Some(ErrorCode::StaleEpoch | ErrorCode::Superseded))
}

/// An error without addresses and process ids, which must not be persisted.
pub(crate) struct Words<'a>(pub(crate) &'a CallError);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            CallError::Transport(TransportError::Connect { .. }) => f.write_str("can't be reached"),
            CallError::Transport(TransportError::Timeout { after_ms, .. }) => {
                write!(f, "no answer within {after_ms} ms")
            }
            CallError::Transport(TransportError::Broken { .. }) => {
                f.write_str("the connection broke")
            }
            CallError::Problem(problem) => f.write_str(problem.code.as_str()),
            CallError::Answer { .. } => f.write_str("its answer is not of the form agreed"),
            CallError::Request(_) => f.write_str("the request can't be written"),
        }
    }
}
