//! Transactions: in one request, or interactive, over several.
//!
//! An interactive transaction lives in one gateway's memory; its id names that gateway, and the
//! others forward to it. With the gateway, or after its time, it is gone: nothing of it has then
//! taken effect.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{OriginalUri, Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, header};
use plinth_api::gateway::{
    Action, Begun, ReadResult, Steps, StepsAnswer, TransactionAnswer, TransactionRequest,
};
use plinth_api::{ErrorCode, HEADER_SERVED_BY, Nothing, Target, TimeLimit, coordinator};
use plinth_client::Transaction;
use plinth_service::{Answer, Body, Caller, Fails as _, Failure, Json, Query, Routes};
use plinth_types::{Incarnation, Key, KeyRange, ServiceRef};
use tokio::time::Instant;
use tower::ServiceExt as _;
use utoipa_axum::routes;

use crate::admission::Admitted;
use crate::execute::{
    COMMIT, ONCE, Plan, READ, change, failed, read, reads_system_keys, transaction_name,
};
use crate::http::Gateway;
use crate::keys::{decoded, key_of, user_value};
use crate::values::{KeyQuery, idempotency_key, may_read, no_key, value_answer, with_version};

/// How long an interactive transaction lives: as long as its read version may stay readable.
const LIFE: Duration = Duration::from_secs(5);
/// Interactive transactions that one gateway keeps.
const SESSIONS: usize = 10_000;
/// How interactive transactions fail, beside.
const ENDED: &[ErrorCode] = &[ErrorCode::TransactionEnded];

pub(crate) fn routes() -> Routes<Gateway> {
    Routes::new()
        .user(
            routes!(transact)
                .fails(READ)
                .fails(COMMIT)
                .fails(ONCE)
                .fails(&[ErrorCode::CheckFailed]),
        )
        .user(routes!(begin).fails(READ))
        .user(
            routes!(get_in, put_in, delete_in)
                .fails(READ)
                .fails(ENDED)
                .fails(&[ErrorCode::KeyNotFound]),
        )
        .user(routes!(operate).fails(READ).fails(ENDED).fails(ONCE))
        .user(routes!(commit).fails(READ).fails(COMMIT).fails(ENDED))
        .user(routes!(abort).fails(ENDED))
}

/// Commits a transaction at one version, or not at all. It is run again inside until it does not
/// conflict.
#[utoipa::path(
    post, path = "/v1/transactions", tag = "transactions", request_body = TransactionRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "the header form of `idempotency_id`")),
    responses((status = 200, description = "committed", body = TransactionAnswer))
)]
async fn transact(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    caller: Caller,
    headers: HeaderMap,
    Json(request): Json<TransactionRequest>,
) -> Result<Response, Failure> {
    let named = transaction_name(&request, idempotency_key(&headers)?)?;
    let TransactionRequest { checks, reads, mutations, .. } = request;
    let plan = Plan::new(checks, reads, mutations)?;
    let answer = gateway.execute(caller, &plan, named.as_ref()).await?;
    let version = answer.version;
    Ok(with_version(Json(answer).into_response(), version))
}

/// The interactive transactions of a gateway.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<u64, Session>>);

#[derive(Clone)]
struct Session {
    transaction: Transaction,
    until: Instant,
}

impl Sessions {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<u64, Session>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, number: u64, session: Session) -> bool {
        self.with(|sessions| {
            if sessions.len() >= SESSIONS {
                let now = Instant::now();
                sessions.retain(|_, session| session.until > now);
            }
            let room = sessions.len() < SESSIONS;
            if room {
                sessions.insert(number, session);
            }
            room
        })
    }

    fn get(&self, number: u64) -> Option<Transaction> {
        let session = self.with(|sessions| sessions.get(&number).cloned())?;
        (session.until > Instant::now()).then_some(session.transaction)
    }

    fn take(&self, number: u64) -> Option<Transaction> {
        let session = self.with(|sessions| sessions.remove(&number))?;
        (session.until > Instant::now()).then_some(session.transaction)
    }
}

/// Which transaction: of which process, and its number there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SessionId {
    gateway: ServiceRef,
    incarnation: Incarnation,
    number: u64,
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{:016x}", self.gateway, self.incarnation, self.number)
    }
}

impl SessionId {
    fn parse(text: &str) -> Option<SessionId> {
        let (rest, number) = text.rsplit_once('.')?;
        let (gateway, incarnation) = rest.rsplit_once('.')?;
        Some(SessionId {
            gateway: gateway.parse().ok()?,
            incarnation: incarnation.parse().ok()?,
            number: u64::from_str_radix(number, 16).ok()?,
        })
    }
}

fn ended() -> Failure {
    Failure::new(
        ErrorCode::TransactionEnded,
        "there is no such transaction: it has been committed or given up, was older than 5 s, or \
         its gateway has ended; begin it again",
    )
}

/// Where a transaction is.
enum Place {
    Here(u64),
    Elsewhere(Target),
}

impl Gateway {
    /// Finds a transaction by its id. Only gateways of this cluster are ever forwarded to, whatever
    /// an id says.
    async fn place_of(&self, id: &str) -> Result<Place, Failure> {
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
    async fn forward(
        &self,
        target: Target,
        method: Method,
        uri: &http::Uri,
        headers: &HeaderMap,
        body: bytes::Bytes,
    ) -> Result<Response, Failure> {
        let path = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        let internal = |error: http::Error| Failure::new(ErrorCode::Internal, error.to_string());
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", target.address))
            .body(body)
            .map_err(internal)?;
        for name in [header::ACCEPT, header::CONTENT_TYPE] {
            if let Some(value) = headers.get(&name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        if let Some(incarnation) = target.incarnation
            && let Ok(value) = HeaderValue::try_from(incarnation.to_string())
        {
            request.headers_mut().insert(plinth_api::HEADER_INCARNATION, value);
        }
        request.extensions_mut().insert(TimeLimit(self.deadline() + Duration::from_secs(1)));
        let sent = self.context().transport().clone().oneshot(request).await;
        let answer = sent.map_err(|_| ended())?;
        if answer.status() == http::StatusCode::CONFLICT
            && serde_json::from_slice::<plinth_api::Problem>(answer.body())
                .is_ok_and(|problem| problem.code == ErrorCode::WrongIncarnation)
        {
            return Err(ended());
        }
        let (head, body) = answer.into_parts();
        let mut response = (head.status, body).into_response();
        for name in [header::CONTENT_TYPE, header::RETRY_AFTER] {
            if let Some(value) = head.headers.get(&name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        if let Some(version) = head.headers.get(plinth_api::HEADER_VERSION) {
            response.headers_mut().insert(plinth_api::HEADER_VERSION, version.clone());
        }
        if let Ok(by) = HeaderValue::try_from(target.address) {
            response.headers_mut().insert(HEADER_SERVED_BY, by);
        }
        Ok(response)
    }
}

/// Begins an interactive transaction: reads that see its own writes, then a commit within 5 s.
#[utoipa::path(
    post, path = "/v1/transactions/begin", tag = "transactions",
    responses((status = 200, body = Begun))
)]
async fn begin(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    caller: Caller,
) -> Answer<Begun> {
    let context = gateway.context();
    let transaction = gateway.database().begin(LIFE);
    if reads_system_keys(caller) {
        transaction.read_system_keys();
    }
    let id = SessionId {
        gateway: context.service().clone(),
        incarnation: context.pid().incarnation,
        number: context.runtime().random_u64(),
    };
    let session = Session { transaction, until: Instant::now() + LIFE };
    if !gateway.sessions().add(id.number, session) {
        let detail = format!("{SESSIONS} transactions are open at this gateway: try again shortly");
        return Err(Failure::new(ErrorCode::Overloaded, detail));
    }
    let expires_in_ms = u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX);
    Ok(Json(Begun { transaction: id.to_string(), expires_in_ms }))
}

/// The transaction and the key of a path such as `/v1/transactions/{id}/keys/a%2Fb`. Keys are any
/// bytes, so they are taken from the raw path.
fn key_in(path: &str, key_b64: Option<&str>) -> Result<(String, Key), Failure> {
    let rest = path.strip_prefix("/v1/transactions/").unwrap_or_default();
    let (id, raw) = rest.split_once("/keys/").ok_or_else(ended)?;
    let id = String::from_utf8(decoded(id).0.to_vec()).map_err(|_| ended())?;
    Ok((id, key_of(&format!("/v1/keys/{raw}"), key_b64)?))
}

/// Reads a key as the transaction sees it.
#[utoipa::path(
    get, path = "/v1/transactions/{id}/keys/{*key}", tag = "transactions",
    params(("id" = String, Path, description = "the transaction"),
        ("key" = String, Path, description = "the key, percent-encoded"), KeyQuery),
    responses((status = 200, description = "the value",
        content((plinth_api::gateway::KeyAnswer = "application/json"), (String = "application/octet-stream"))))
)]
async fn get_in(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Query(query): Query<KeyQuery>,
) -> Result<Response, Failure> {
    let (id, key) = key_in(uri.path(), query.key_b64.as_deref())?;
    may_read(caller, &KeyRange::single(&key))?;
    match gateway.place_of(&id).await? {
        Place::Elsewhere(target) => {
            gateway.forward(target, Method::GET, &uri, &headers, bytes::Bytes::new()).await
        }
        Place::Here(number) => {
            let transaction = gateway.sessions().get(number).ok_or_else(ended)?;
            let version = transaction.read_version().await.map_err(failed)?;
            match transaction.get(&key).await.map_err(failed)? {
                Some(value) => {
                    Ok(with_version(value_answer(key, value, version, &headers), version))
                }
                None => Err(no_key(&key, version)),
            }
        }
    }
}

/// Writes a key in the transaction.
#[utoipa::path(
    put, path = "/v1/transactions/{id}/keys/{*key}", tag = "transactions",
    params(("id" = String, Path, description = "the transaction"),
        ("key" = String, Path, description = "the key, percent-encoded"), KeyQuery),
    request_body(content = String, description = "the value: any bytes", content_type = "application/octet-stream"),
    responses((status = 200, description = "noted", body = Nothing))
)]
async fn put_in(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Query(query): Query<KeyQuery>,
    Body(body): Body,
) -> Result<Response, Failure> {
    let (id, key) = key_in(uri.path(), query.key_b64.as_deref())?;
    match gateway.place_of(&id).await? {
        Place::Elsewhere(target) => {
            gateway.forward(target, Method::PUT, &uri, &headers, body).await
        }
        Place::Here(number) => {
            let transaction = gateway.sessions().get(number).ok_or_else(ended)?;
            let set = Action::Set(key, user_value(body)?);
            change(&transaction, &[set]).map_err(failed)?;
            Ok(Json(Nothing {}).into_response())
        }
    }
}

/// Removes a key in the transaction.
#[utoipa::path(
    delete, path = "/v1/transactions/{id}/keys/{*key}", tag = "transactions",
    params(("id" = String, Path, description = "the transaction"),
        ("key" = String, Path, description = "the key, percent-encoded"), KeyQuery),
    responses((status = 200, description = "noted", body = Nothing))
)]
async fn delete_in(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Query(query): Query<KeyQuery>,
) -> Result<Response, Failure> {
    let (id, key) = key_in(uri.path(), query.key_b64.as_deref())?;
    match gateway.place_of(&id).await? {
        Place::Elsewhere(target) => {
            gateway.forward(target, Method::DELETE, &uri, &headers, bytes::Bytes::new()).await
        }
        Place::Here(number) => {
            let transaction = gateway.sessions().get(number).ok_or_else(ended)?;
            change(&transaction, &[Action::Clear(key)]).map_err(failed)?;
            Ok(Json(Nothing {}).into_response())
        }
    }
}

/// Reads, then changes, any number of keys and ranges in the transaction.
#[utoipa::path(
    post, path = "/v1/transactions/{id}/operations", tag = "transactions", request_body = Steps,
    params(("id" = String, Path, description = "the transaction")),
    responses((status = 200, body = StepsAnswer))
)]
async fn operate(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    caller: Caller,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Json(steps): Json<Steps>,
) -> Result<Response, Failure> {
    match gateway.place_of(&id).await? {
        Place::Elsewhere(target) => {
            let body = serde_json::to_vec(&steps)
                .map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
            gateway.forward(target, Method::POST, &uri, &headers, body.into()).await
        }
        Place::Here(number) => {
            let transaction = gateway.sessions().get(number).ok_or_else(ended)?;
            let Steps { reads, mutations } = steps;
            let plan = Plan::new(Vec::new(), reads, mutations)?;
            plan.may_be_read_by(caller)?;
            let reads: Vec<ReadResult> =
                read(&transaction, &plan.reads).await.map_err(Failure::from)?;
            change(&transaction, &plan.actions).map_err(failed)?;
            Ok(Json(StepsAnswer { reads }).into_response())
        }
    }
}

/// Commits the transaction, which ends it. After a conflict, begin it again.
#[utoipa::path(
    post, path = "/v1/transactions/{id}/commit", tag = "transactions",
    params(("id" = String, Path, description = "the transaction")),
    responses((status = 200, description = "committed", body = TransactionAnswer))
)]
async fn commit(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
    request: Request,
) -> Result<Response, Failure> {
    match gateway.place_of(&id).await? {
        Place::Elsewhere(target) => {
            let body = bytes::Bytes::new();
            gateway.forward(target, Method::POST, &uri, request.headers(), body).await
        }
        Place::Here(number) => {
            let transaction = gateway.sessions().take(number).ok_or_else(ended)?;
            transaction.commit_within(gateway.deadline()).await.map_err(failed)?;
            let versionstamp = transaction.versionstamp();
            let version = match versionstamp {
                Some(stamp) => stamp.version,
                None => transaction.known_read_version().unwrap_or_default(),
            };
            let answer = TransactionAnswer { version, versionstamp, reads: Vec::new() };
            Ok(with_version(Json(answer).into_response(), version))
        }
    }
}

/// Gives the transaction up.
#[utoipa::path(
    delete, path = "/v1/transactions/{id}", tag = "transactions",
    params(("id" = String, Path, description = "the transaction")),
    responses((status = 200, description = "given up", body = Nothing))
)]
async fn abort(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    match gateway.place_of(&id).await? {
        Place::Elsewhere(target) => {
            gateway.forward(target, Method::DELETE, &uri, &headers, bytes::Bytes::new()).await
        }
        Place::Here(number) => {
            gateway.sessions().take(number).ok_or_else(ended)?;
            Ok(Json(Nothing {}).into_response())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_gateway() {
        let id = SessionId {
            gateway: "gateway-1@node-2".parse().expect("a service"),
            incarnation: Incarnation(7),
            number: 0xabc,
        };
        assert_eq!(SessionId::parse(&id.to_string()), Some(id));
        for wrong in ["", "x", "gateway-1@node-2.7", "..", "a.b.c", "http://elsewhere.7.1"] {
            assert_eq!(SessionId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn keys_in_transactions_are_any_bytes() {
        let (id, key) = key_in("/v1/transactions/x%40y/keys/a%2Fb/keys/%fe", None).expect("both");
        assert_eq!((id.as_str(), key.as_bytes()), ("x@y", &b"a/b/keys/\xfe"[..]));
        assert!(key_in("/v1/transactions/x/keys/", None).is_err());
        assert!(key_in("/v1/transactions/x/keys/", Some("")).is_ok());
    }
}
