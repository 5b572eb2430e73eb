//! Interactive transactions of other gateways: requests for them are passed on.

use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use plinth_api::{
    ErrorCode, HEADER_INCARNATION, HEADER_SERVED_BY, HEADER_VERSION, Problem, Target, TimeLimit,
    TransportError, coordinator,
};
use plinth_service::Failure;
use tower::ServiceExt as _;

use crate::http::Gateway;
use crate::sessions::{SessionId, ended};
use crate::values::IDEMPOTENCY_KEY;

/// How much longer than its own deadline another gateway may take.
const GRACE: Duration = Duration::from_secs(1);

/// Where a transaction is.
pub(crate) enum Place {
    Here(u64),
    Elsewhere(Target),
}

impl Gateway {
    /// Finds a transaction by its id. Only gateways of this cluster are ever forwarded to, whatever
    /// an id says.
    pub(crate) async fn place_of(&self, id: &str) -> Result<Place, Failure> {
        let id = SessionId::parse(id).ok_or_else(ended)?;
        let context = self.context();
        if id.gateway == *context.service() {
            let this = id.incarnation == context.pid().incarnation;
            return if this { Ok(Place::Here(id.number)) } else { Err(ended()) };
        }
        let processes = self.ask(&coordinator::PROCESSES).await?.body.processes;
        let row = processes.into_iter().find(|row| {
            format!("{}@{}", row.service, row.node) == id.gateway.to_string()
                && row.service.starts_with("gateway-")
        });
        let row = row.ok_or_else(ended)?;
        let target = Target { incarnation: Some(id.incarnation), ..Target::address(&row.url) };
        Ok(Place::Elsewhere(target))
    }

    /// Passes a request on to the gateway that keeps the transaction.
    ///
    /// # Errors
    /// `transaction_ended` where that gateway has gone, and the transaction with it. A commit that
    /// it may have begun is `commit_unknown_result`.
    pub(crate) async fn forward(
        &self,
        target: Target,
        method: Method,
        (uri, headers): (&Uri, &HeaderMap),
        body: Bytes,
    ) -> Result<Response, Failure> {
        let path = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        let commits = method == Method::POST && uri.path().ends_with("/commit");
        let internal = |error: http::Error| Failure::new(ErrorCode::Internal, error.to_string());
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", target.address))
            .body(body)
            .map_err(internal)?;
        copy(headers, request.headers_mut(), &["accept", "content-type", IDEMPOTENCY_KEY]);
        if let Some(incarnation) = target.incarnation
            && let Ok(value) = HeaderValue::try_from(incarnation.to_string())
        {
            request.headers_mut().insert(HEADER_INCARNATION, value);
        }
        request.extensions_mut().insert(TimeLimit(self.deadline() + GRACE));
        let sent = self.context().transport().clone().oneshot(request).await;
        let answer = sent.map_err(|error| lost(&error, commits))?;
        if answer.status() == http::StatusCode::CONFLICT
            && serde_json::from_slice::<Problem>(answer.body())
                .is_ok_and(|problem| problem.code == ErrorCode::WrongIncarnation)
        {
            return Err(ended());
        }
        let (head, body) = answer.into_parts();
        let mut response = (head.status, body).into_response();
        let told = ["content-type", "retry-after", HEADER_VERSION, HEADER_SERVED_BY];
        copy(&head.headers, response.headers_mut(), &told);
        Ok(response)
    }
}

fn copy(from: &HeaderMap, to: &mut HeaderMap, names: &[&'static str]) {
    for name in names {
        if let Some(value) = from.get(*name) {
            to.insert(HeaderName::from_static(name), value.clone());
        }
    }
}

/// The other gateway did not answer.
fn lost(error: &TransportError, commits: bool) -> Failure {
    match error {
        TransportError::Broken { .. } | TransportError::Timeout { .. } if commits => Failure::new(
            ErrorCode::CommitUnknownResult,
            format!("the transaction's gateway may have begun to commit it: {error}"),
        ),
        TransportError::Connect { .. }
        | TransportError::Broken { .. }
        | TransportError::Timeout { .. } => ended(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_may_have_begun_is_never_said_to_have_ended() {
        let (peer, detail) = ("node-2:1".to_owned(), "reset".to_owned());
        let broken = TransportError::Broken { peer: peer.clone(), detail: detail.clone() };
        let late = TransportError::Timeout { peer: peer.clone(), after_ms: 6_000 };
        let refused = TransportError::Connect { peer, detail };
        for (error, commits, code) in [
            (&broken, true, ErrorCode::CommitUnknownResult),
            (&late, true, ErrorCode::CommitUnknownResult),
            (&refused, true, ErrorCode::TransactionEnded),
            (&broken, false, ErrorCode::TransactionEnded),
            (&late, false, ErrorCode::TransactionEnded),
        ] {
            assert_eq!(lost(error, commits).0.code, code, "{error}, commits: {commits}");
        }
    }
}
