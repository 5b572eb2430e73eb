//! Problems as answers.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use plinth_api::{CallError, ErrorCode, Problem};

use crate::Json;

/// The media type of problem documents.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// How long a caller should wait before it tries again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A request that is answered with a problem. The shell fills in the request's and the trace's id.
#[derive(Clone, Debug)]
pub struct Failure(pub Box<Problem>);

/// What a handler returns.
pub type Answer<T> = Result<Json<T>, Failure>;

impl Failure {
    /// A problem of this code. `detail` says what happened, and what to do.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Failure {
        Failure(Box::new(Problem::new(code, detail)))
    }

    /// The same with one more fact.
    #[must_use]
    pub fn with(self, name: &str, value: impl ToString) -> Failure {
        Failure(Box::new(self.0.with(name, value)))
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure(Box::new(problem))
    }
}

/// A problem of a peer is passed on as it is. A peer that could not be reached is
/// `peer_unavailable` where the request surely had no effect, else `deadline_exceeded`.
impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        match error {
            CallError::Problem(problem) => Failure(problem),
            CallError::Request(_) => Failure::new(ErrorCode::Internal, error.to_string()),
            CallError::Transport(_) | CallError::Answer { .. } => {
                let code = if error.had_no_effect() {
                    ErrorCode::PeerUnavailable
                } else {
                    ErrorCode::DeadlineExceeded
                };
                Failure::new(code, error.to_string())
            }
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = document(&self.0);
        response.extensions_mut().insert(self);
        response
    }
}

/// A problem as a response, with the headers that its code asks for.
pub(crate) fn document(problem: &Problem) -> Response {
    let status = problem.code.status();
    let body = serde_json::to_vec(problem).unwrap_or_default();
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    let waits = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
    if waits && problem.retryable {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The code for an error that some extractor answered with a bare status.
pub(crate) fn code_of_status(status: StatusCode) -> ErrorCode {
    match status {
        StatusCode::UNAUTHORIZED => ErrorCode::Unauthenticated,
        StatusCode::FORBIDDEN => ErrorCode::Forbidden,
        StatusCode::NOT_FOUND => ErrorCode::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ErrorCode::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::LimitExceeded,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::UnsupportedMediaType,
        StatusCode::TOO_MANY_REQUESTS => ErrorCode::Overloaded,
        StatusCode::SERVICE_UNAVAILABLE => ErrorCode::NotReady,
        StatusCode::GATEWAY_TIMEOUT => ErrorCode::DeadlineExceeded,
        status if status.is_client_error() => ErrorCode::InvalidRequest,
        _ => ErrorCode::Internal,
    }
}
