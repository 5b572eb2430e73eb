//! Who calls, and who may.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, header};
use plinth_api::{ErrorCode, HEADER_FROM, HEADER_SECRET};

use crate::{Failure, Secrets};

/// Who made a request, as far as it proved itself. An extractor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A service of the cluster.
    Service,
    /// The administrator.
    Administrator,
    /// A user with a token of its own. Nothing issues such tokens yet.
    User,
    /// Nobody in particular.
    Anonymous,
}

/// Who may read the cluster's state: status, configuration, layout, recoveries, nodes, processes.
/// The administrator and services always may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateReads {
    /// Whoever reaches the service, where it listens on loopback alone.
    #[default]
    Loopback,
    /// Whoever reaches the service: for a port that is published to one machine only.
    Anyone,
    /// Nobody else.
    Administrator,
}

impl StateReads {
    /// Whether callers without a proof may read at a service that listens there.
    pub(crate) const fn open(self, listens_at: IpAddr) -> bool {
        match self {
            StateReads::Loopback => listens_at.is_loopback(),
            StateReads::Anyone => true,
            StateReads::Administrator => false,
        }
    }
}

/// Whether a service shows the cluster's state to whoever asks; among a request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateIsOpen(pub(crate) bool);

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Anyone,
    User,
    /// Whoever may read the cluster's state, see [`StateReads`].
    Observer,
    Administrator,
    Service,
}

impl Access {
    /// The name that stands in the OpenAPI document, as `x-plinth-caller`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Access::Anyone => "anyone",
            Access::User => "user",
            Access::Observer => "observer",
            Access::Administrator => "administrator",
            Access::Service => "service",
        }
    }

    /// Whether this caller may call. A service may call everything: what it passes on, it has
    /// checked. Users' routes are open to anonymous callers.
    pub(crate) const fn admit(self, caller: Caller, state: StateIsOpen) -> Result<(), ErrorCode> {
        match (self, caller) {
            (Access::Anyone | Access::User, _)
            | (Access::Observer | Access::Administrator | Access::Service, Caller::Service)
            | (Access::Observer | Access::Administrator, Caller::Administrator) => Ok(()),
            (Access::Observer, Caller::User | Caller::Anonymous) if state.0 => Ok(()),
            (Access::Observer | Access::Administrator | Access::Service, Caller::Anonymous) => {
                Err(ErrorCode::Unauthenticated)
            }
            (Access::Observer | Access::Administrator, Caller::User)
            | (Access::Service, Caller::Administrator | Caller::User) => Err(ErrorCode::Forbidden),
        }
    }
}

/// Tells who calls. A wrong proof is refused, never taken for no proof.
pub(crate) fn identify(headers: &HeaderMap, secrets: &Secrets) -> Result<Caller, Failure> {
    if let Some(offered) = headers.get(HEADER_SECRET) {
        return match &secrets.cluster {
            Some(secret) if !secret.matches(offered.as_bytes()) => Err(Failure::new(
                ErrorCode::Unauthenticated,
                "the cluster secret is not this cluster's: check the secret file of the caller",
            )),
            Some(_) | None => Ok(Caller::Service),
        };
    }
    if let Some(offered) = headers.get(header::AUTHORIZATION) {
        return match (bearer(offered.as_bytes()), secrets) {
            (Some(token), Secrets { administrator: Some(secret), .. }) if secret.matches(token) => {
                Ok(Caller::Administrator)
            }
            (Some(_), Secrets { administrator: None, cluster: None }) => Ok(Caller::Administrator),
            _ => Err(Failure::new(
                ErrorCode::Unauthenticated,
                "the token is not valid here: send the administrator's as `Authorization: Bearer …`",
            )),
        };
    }
    if secrets.cluster.is_none() && headers.contains_key(HEADER_FROM) {
        return Ok(Caller::Service);
    }
    Ok(Caller::Anonymous)
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Stands before every handler of a route.
pub(crate) async fn gate(State(access): State<Access>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().copied().unwrap_or(Caller::Anonymous);
    let state = request.extensions().get::<StateIsOpen>().copied().unwrap_or(StateIsOpen(false));
    let act = Act::of(access, caller, &request);
    let response = match access.admit(caller, state) {
        Ok(()) => next.run(request).await,
        Err(code) => {
            let detail = match access {
                Access::Service => "only services of the cluster may do this",
                Access::Observer => {
                    "the cluster's state is for the administrator here: send the administrator's token as `Authorization: Bearer …`, or start the service with --state-reads=anyone"
                }
                _ => {
                    "only the administrator may do this: send the administrator's token as `Authorization: Bearer …`"
                }
            };
            Failure::new(code, detail).into_response()
        }
    };
    if let Some(act) = act {
        act.log(response.status());
    }
    response
}

/// An administrative act, for the audit log: who, what, and whether it was done.
struct Act {
    caller: Caller,
    from: String,
    method: http::Method,
    path: String,
}

impl Act {
    /// What changes something and is the administrator's to do.
    fn of(access: Access, caller: Caller, request: &Request) -> Option<Act> {
        let method = request.method().clone();
        if access != Access::Administrator || method.is_safe() {
            return None;
        }
        let from = request.headers().get(HEADER_FROM).and_then(|from| from.to_str().ok());
        let from = from.unwrap_or_default().to_owned();
        Some(Act { caller, from, method, path: request.uri().path().to_owned() })
    }

    fn log(self, status: http::StatusCode) {
        let Act { caller, from, method, path } = self;
        let id = crate::shell::current_request_id();
        let request_id = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
        tracing::info!(
            target: "plinth_audit",
            ?caller, from, %method, path, status = status.as_u16(), request_id,
            "administrative act",
        );
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Caller>().copied().unwrap_or(Caller::Anonymous))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_caller_against_every_kind_of_route() {
        use Access::{Administrator, Anyone, Observer, Service, User};
        let callers = [Caller::Service, Caller::Administrator, Caller::User, Caller::Anonymous];
        let table: [(Access, bool, [u16; 4]); 9] = [
            (Anyone, true, [200, 200, 200, 200]),
            (Anyone, false, [200, 200, 200, 200]),
            (User, true, [200, 200, 200, 200]),
            (User, false, [200, 200, 200, 200]),
            (Observer, true, [200, 200, 200, 200]),
            (Observer, false, [200, 200, 403, 401]),
            (Administrator, true, [200, 200, 403, 401]),
            (Administrator, false, [200, 200, 403, 401]),
            (Service, true, [200, 403, 403, 401]),
        ];
        for (access, open, row) in table {
            let answers = callers.map(|caller| match access.admit(caller, StateIsOpen(open)) {
                Ok(()) => 200,
                Err(code) => code.status().as_u16(),
            });
            assert_eq!(answers, row, "{access:?}, state open: {open}");
        }
    }

    #[test]
    fn the_state_is_open_on_loopback_and_where_it_is_said() {
        let [loopback, other] = ["127.0.0.1", "0.0.0.0"].map(|text| text.parse().unwrap());
        assert!(StateReads::default().open(loopback) && !StateReads::default().open(other));
        assert!(StateReads::Anyone.open(loopback) && StateReads::Anyone.open(other));
        assert!(!StateReads::Administrator.open(loopback));
    }
}
