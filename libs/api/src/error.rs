//! What can go wrong, as the wire tells it: RFC 9457 problems with a stable code.

use std::collections::BTreeMap;

use http::StatusCode;
use plinth_types::Epoch;
use serde::{Deserialize, Serialize};

/// The fact that names the latest epoch, where a request's is over.
const LATEST_EPOCH: &str = "latest_epoch";

/// Whether the request took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did.
    Committed,
    /// It did not and never will.
    NotCommitted,
    /// It may have, or still may.
    Unknown,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident => $text:literal, $status:ident, $retryable:literal, $outcome:ident;)*) => {
        /// Every problem code there is. Status, retryability and outcome are total functions of it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant),*];

            /// The code as it stands in a problem.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$variant => $text,)* }
            }
            /// The HTTP status that carries it.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(ErrorCode::$variant => StatusCode::$status,)* }
            }
            /// Whether the same request may succeed later.
            #[must_use]
            pub const fn retryable(self) -> bool {
                match self { $(ErrorCode::$variant => $retryable,)* }
            }
            /// Whether the request took effect.
            #[must_use]
            pub const fn outcome(self) -> Outcome {
                match self { $(ErrorCode::$variant => Outcome::$outcome,)* }
            }
        }
    };
}

codes! {
    /// The request is not of the form that the endpoint takes.
    InvalidRequest => "invalid_request", BAD_REQUEST, false, NotCommitted;
    /// No proof of who calls, or a wrong one.
    Unauthenticated => "unauthenticated", UNAUTHORIZED, false, NotCommitted;
    /// This caller may not do this.
    Forbidden => "forbidden", FORBIDDEN, false, NotCommitted;
    /// A user's request names a key of the system.
    SystemKey => "system_key", FORBIDDEN, false, NotCommitted;
    /// No such resource.
    NotFound => "not_found", NOT_FOUND, false, NotCommitted;
    /// No such key.
    KeyNotFound => "key_not_found", NOT_FOUND, false, NotCommitted;
    /// The resource is there, the method is not.
    MethodNotAllowed => "method_not_allowed", METHOD_NOT_ALLOWED, false, NotCommitted;
    /// The request is for another life of this process.
    WrongIncarnation => "wrong_incarnation", CONFLICT, true, NotCommitted;
    /// The request is for another cluster.
    WrongCluster => "wrong_cluster", CONFLICT, false, NotCommitted;
    /// The request is for another founding of the coordinators' group.
    WrongGroup => "wrong_group", CONFLICT, false, NotCommitted;
    /// The request is of an epoch that is over.
    StaleEpoch => "stale_epoch", CONFLICT, true, NotCommitted;
    /// The appointment or configuration it builds on is no longer the latest.
    Superseded => "superseded", CONFLICT, false, NotCommitted;
    /// The worker's name is taken by another store.
    DuplicateName => "duplicate_name", CONFLICT, false, NotCommitted;
    /// A concurrent transaction wrote what this one read.
    Conflict => "conflict", CONFLICT, true, NotCommitted;
    /// The read version is older than the window.
    TransactionTooOld => "transaction_too_old", CONFLICT, true, NotCommitted;
    /// A check of the transaction does not hold.
    CheckFailed => "check_failed", CONFLICT, false, NotCommitted;
    /// A condition in a header does not hold.
    PreconditionFailed => "precondition_failed", PRECONDITION_FAILED, false, NotCommitted;
    /// A write that needs a condition has none.
    PreconditionRequired => "precondition_required", PRECONDITION_REQUIRED, false, NotCommitted;
    /// It can't be satisfied as things are: by the nodes that report, or before a node is drained.
    Unsatisfiable => "unsatisfiable", CONFLICT, false, NotCommitted;
    /// The idempotency id stands for another request.
    IdempotencyMismatch => "idempotency_mismatch", UNPROCESSABLE_ENTITY, false, NotCommitted;
    /// The interactive transaction has been committed or given up, has expired, or is not known.
    TransactionEnded => "transaction_ended", GONE, true, NotCommitted;
    /// The version asked for is not there yet.
    FutureVersion => "future_version", SERVICE_UNAVAILABLE, true, NotCommitted;
    /// The storage does not hold that shard now.
    WrongShard => "wrong_shard", CONFLICT, true, NotCommitted;
    /// It is not known whether the transaction was committed.
    CommitUnknownResult => "commit_unknown_result", CONFLICT, true, Unknown;
    /// Over a stated limit.
    LimitExceeded => "limit_exceeded", PAYLOAD_TOO_LARGE, false, NotCommitted;
    /// A body of a type that is not taken.
    UnsupportedMediaType => "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, false, NotCommitted;
    /// Too many requests are under way.
    Overloaded => "overloaded", TOO_MANY_REQUESTS, true, NotCommitted;
    /// Not built yet.
    NotImplemented => "not_implemented", NOT_IMPLEMENTED, false, NotCommitted;
    /// No majority of the coordinators answers.
    NoQuorum => "no_quorum", SERVICE_UNAVAILABLE, true, NotCommitted;
    /// The cluster or the service is not ready for this.
    NotReady => "not_ready", SERVICE_UNAVAILABLE, true, NotCommitted;
    /// A peer did not answer.
    PeerUnavailable => "peer_unavailable", SERVICE_UNAVAILABLE, true, NotCommitted;
    /// The deadline passed; a write may still take effect.
    DeadlineExceeded => "deadline_exceeded", GATEWAY_TIMEOUT, true, Unknown;
    /// The disk is full.
    DiskFull => "disk_full", INSUFFICIENT_STORAGE, true, NotCommitted;
    /// A durable record is damaged.
    Damaged => "damaged", SERVICE_UNAVAILABLE, false, NotCommitted;
    /// A bug.
    Internal => "internal", INTERNAL_SERVER_ERROR, false, Unknown;
}

impl utoipa::PartialSchema for ErrorCode {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("Every problem code there is."))
            .enum_values(Some(ErrorCode::ALL.iter().map(|code| code.as_str())))
            .into()
    }
}
impl utoipa::ToSchema for ErrorCode {}

/// RFC 9457 problem details.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// `urn:plinth:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: ErrorCode,
    /// What happened, and what to do.
    pub detail: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Whether the request took effect.
    pub outcome: Outcome,
    /// The request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The trace that shows it, where it is sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Facts that belong to the code, such as a limit and the actual size.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

impl Problem {
    /// A problem of this code.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Problem {
        Problem {
            kind: format!("urn:plinth:problem:{}", code.as_str()),
            title: code.as_str().replace('_', " "),
            status: code.status().as_u16(),
            code,
            detail: detail.into(),
            retryable: code.retryable(),
            outcome: code.outcome(),
            request_id: None,
            trace_id: None,
            facts: BTreeMap::new(),
        }
    }

    /// The same of a request of an epoch that is over, with the latest epoch that is known.
    #[must_use]
    pub fn with_latest_epoch(self, epoch: Epoch) -> Problem {
        self.with(LATEST_EPOCH, epoch.0)
    }

    /// The latest epoch that is known to whoever refuses, where it says so.
    #[must_use]
    pub fn latest_epoch(&self) -> Option<Epoch> {
        self.facts.get(LATEST_EPOCH)?.parse().ok().map(Epoch)
    }

    /// The same with one more fact.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Problem {
        self.facts.insert(name.to_owned(), value.to_string());
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}
impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_client_errors_never_claim_an_effect() {
        let mut texts: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert!(code.status().as_u16() >= 400);
            assert_eq!(serde_json::to_value(code).expect("json"), code.as_str());
        }
    }
}
