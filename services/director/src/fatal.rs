//! Why a director ends.

use std::fmt;

use plinth_api::commit_proxy::Peer;
use plinth_api::{CallError, ErrorCode, TransportError};
use plinth_types::{Epoch, ServiceRef};

/// Why a director ends. Everything that can go wrong in an epoch comes to this, since nothing is
/// repaired in place. The reason names services by what survives them: the next epoch persists it
/// as its cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Fatal {
    pub(crate) reason: String,
    /// Who did not answer.
    pub(crate) suspects: Vec<ServiceRef>,
    /// Nothing is wrong, but a later epoch or another director has taken over.
    pub(crate) superseded: bool,
    /// A later epoch that somebody has served or was locked at. The coordinators may not know it:
    /// those of before have lost their disks, and nobody has told them.
    pub(crate) later: Option<Epoch>,
}

impl Fatal {
    pub(crate) fn new(reason: impl Into<String>) -> Fatal {
        Fatal { reason: reason.into(), suspects: Vec::new(), superseded: false, later: None }
    }

    /// A later epoch, or another director of this one, has taken over.
    pub(crate) fn superseded(by: impl fmt::Display) -> Fatal {
        Fatal { superseded: true, ..Fatal::new(format!("superseded: {by}")) }
    }

    /// The same, as somebody's refusal says.
    pub(crate) fn superseded_says(error: &CallError, by: impl fmt::Display) -> Fatal {
        Fatal { later: error.latest_epoch(), ..Fatal::superseded(by) }
    }

    /// A component of the epoch failed.
    pub(crate) fn of(service: &ServiceRef, what: impl fmt::Display) -> Fatal {
        let suspects = vec![service.clone()];
        Fatal { suspects, ..Fatal::new(format!("{service} {what}")) }
    }

    /// A component of the epoch ended itself. Whom its reason names is suspected with it: a
    /// component exits when a peer does not answer it, and either end may be cut off.
    pub(crate) fn exited(service: &ServiceRef, reason: &str) -> Fatal {
        let named = reason
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '@'))
            .filter_map(|word| word.parse().ok())
            .filter(|named| named != service);
        let mut fatal = Fatal::of(service, format_args!("exited: {reason}"));
        fatal.suspects.extend(named);
        fatal
    }

    /// A component could not be made to do something.
    pub(crate) fn call(peer: &Peer, doing: &str, error: &CallError) -> Fatal {
        tracing::warn!(service = %peer.service, pid = %peer.pid, %error, "{doing} failed");
        if is_superseded(error) {
            let by = format_args!("{} serves a later epoch", peer.service);
            return Fatal::superseded_says(error, by);
        }
        Fatal::of(&peer.service, format_args!("failed at {doing}: {}", Words(error)))
    }
}

/// Whether the other side serves a later epoch or another director of this one.
pub(crate) fn is_superseded(error: &CallError) -> bool {
    matches!(error.code(), Some(ErrorCode::StaleEpoch | ErrorCode::Superseded))
}

/// Whether the other side says no only for now: it is still opening its store, or has no room at the
/// moment. Nothing is wrong with the epoch then. A connection that broke may have been an old one.
pub(crate) fn may_pass(error: &CallError) -> bool {
    match error {
        CallError::Transport(TransportError::Broken { .. }) => true,
        CallError::Transport(_) | CallError::Answer { .. } | CallError::Request(_) => false,
        CallError::Problem(problem) => matches!(
            problem.code,
            ErrorCode::NotReady | ErrorCode::Overloaded | ErrorCode::DiskFull
        ),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::service;
    use plinth_api::Problem;

    #[test]
    fn whom_an_exit_names_is_suspected_too() {
        let proxy = service("commit-proxy-1@node-2");
        let fatal = Fatal::exited(&proxy, "no answer from log-1@node-3: 1000 ms (at b@c, 10:40)");
        assert_eq!(fatal.suspects, [proxy.clone(), service("log-1@node-3")]);
        assert_eq!(Fatal::exited(&proxy, "commit-proxy-1@node-2 stops").suspects, [proxy]);
    }

    #[test]
    fn words_bear_no_address() {
        let peer = || "10.0.0.1:4000".to_owned();
        let detail = peer;
        for error in [
            CallError::Transport(TransportError::Connect { peer: peer(), detail: detail() }),
            CallError::Transport(TransportError::Timeout { peer: peer(), after_ms: 5 }),
            CallError::Transport(TransportError::Broken { peer: peer(), detail: detail() }),
            CallError::Problem(Box::new(Problem::new(ErrorCode::Internal, detail()))),
            CallError::Answer { peer: peer(), detail: detail() },
            CallError::Request(detail()),
        ] {
            let words = Words(&error).to_string();
            assert!(!words.contains("10.0.0.1"), "{words}");
        }
    }
}
