//! Interactive transactions, over several requests.
//!
//! Such a transaction lives in one gateway's memory; its id names that gateway, and the others
//! forward to it. With the gateway, or after its time, it is gone: nothing of it has then taken
//! effect, unless its commit was under way. What became of that one is told by its idempotency id.

use axum::extract::{OriginalUri, Path, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, Method};
use plinth_api::gateway::{
    Action, Begun, CommitTransaction, DeletionInTransaction, Page, ReadResult, Steps, StepsAnswer,
    TransactionAnswer,
};
use plinth_api::{ErrorCode, Nothing, Outcome};
use plinth_client::Transaction;
use plinth_service::{Answer, Body, Caller, Fails as _, Failure, Json, Query, Routes};
use plinth_types::{Key, KeyRange};
use serde::Deserialize;
use utoipa_axum::routes;

use crate::admission::Admitted;
use crate::deleting::DeleteQuery;
use crate::execute::{
    COMMIT, ONCE, Plan, READ, Stop, change, failed, invalid, read, reads_system_keys, size,
};
use crate::forwarding::Place;
use crate::http::Gateway;
use crate::keys::{decoded, key_of, user_value};
use crate::naming::{Named, one_name};
use crate::ranges::{Given, Listing, Wanted};
use crate::sessions::{LIFE, SessionId, ended, undecided};
use crate::values::{KeyQuery, idempotency_key, may_read, no_key, value_answer, with_version};

/// How interactive transactions fail, beside.
const ENDED: &[ErrorCode] = &[ErrorCode::TransactionEnded];

pub(crate) fn routes() -> Routes<Gateway> {
    Routes::new()
        .user(routes!(begin).fails(READ))
        .user(
            routes!(get_in, put_in, delete_in)
                .fails(READ)
                .fails(ENDED)
                .fails(&[ErrorCode::KeyNotFound]),
        )
        .user(
            routes!(get_keys_in, put_key_b64_in, delete_keys_in)
                .fails(READ)
                .fails(ENDED)
                .fails(&[ErrorCode::KeyNotFound]),
        )
        .user(routes!(operate).fails(READ).fails(ENDED))
        .user(routes!(commit).fails(READ).fails(COMMIT).fails(ONCE).fails(ENDED))
        .user(routes!(abort).fails(READ).fails(ENDED))
}

impl Gateway {
    /// Notes changes in a transaction that is kept here.
    fn change_in(&self, number: u64, actions: &[Action]) -> Result<Response, Failure> {
        let bytes = actions.iter().map(size).sum();
        let transaction = self.sessions().grow(number, bytes)?.ok_or_else(ended)?;
        change(&transaction, actions).map_err(failed)?;
        Ok(Json(Nothing {}).into_response())
    }
}

/// Begins an interactive transaction: reads that see its own writes, then a commit within 5 s.
#[utoipa::path(
    post, path = "/v1/transactions/begin", operation_id = "begin_transaction", tag = "transactions",
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
    gateway.sessions().add(id.number, transaction)?;
    let expires_in_ms = u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX);
    Ok(Json(Begun { transaction: id.to_string(), expires_in_ms }))
}

/// The transaction and the key of a path such as `/v1/transactions/{id}/keys/a%2Fb`, or of
/// `/v1/transactions/{id}/keys?key_b64=`. Keys are any bytes, so they are taken from the raw path.
fn key_in(path: &str, key_b64: Option<&str>) -> Result<(String, Key), Failure> {
    let rest = path.strip_prefix("/v1/transactions/").unwrap_or_default();
    let (id, raw) = rest.split_once("/keys").ok_or_else(ended)?;
    let id = String::from_utf8(decoded(id).0.to_vec()).map_err(|_| ended())?;
    Ok((id, key_of(&format!("/v1/keys{raw}"), key_b64)?))
}

/// Reads a key as the transaction sees it.
#[utoipa::path(
    get, path = "/v1/transactions/{id}/keys/{*key}", operation_id = "get_key_in_transaction", tag = "transactions",
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
            gateway.forward(target, Method::GET, (&uri, &headers), Bytes::new()).await
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
    put, path = "/v1/transactions/{id}/keys/{*key}", operation_id = "put_key_in_transaction", tag = "transactions",
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
            gateway.forward(target, Method::PUT, (&uri, &headers), body).await
        }
        Place::Here(number) => {
            let set = Action::Set(key, user_value(body)?);
            gateway.change_in(number, &[set])
        }
    }
}

/// Removes a key in the transaction.
#[utoipa::path(
    delete, path = "/v1/transactions/{id}/keys/{*key}", operation_id = "delete_key_in_transaction", tag = "transactions",
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
            gateway.forward(target, Method::DELETE, (&uri, &headers), Bytes::new()).await
        }
        Place::Here(number) => gateway.change_in(number, &[Action::Clear(key)]),
    }
}

/// Which keys.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
struct ListInQuery {
    /// One key, in base64: answered as `/v1/transactions/{id}/keys/{key}` answers.
    #[serde(default)]
    key_b64: Option<String>,
    /// What the keys begin with, percent-encoded.
    #[serde(default)]
    prefix: Option<String>,
    /// The first key, percent-encoded.
    #[serde(default)]
    from: Option<String>,
    /// The first key after the range, percent-encoded.
    #[serde(default)]
    to: Option<String>,
    /// Keys of a page: 1 to 10,000, 1,000 by default.
    #[serde(default)]
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<u32>,
    /// From the end.
    #[serde(default)]
    reverse: bool,
    /// Goes on where a page of this transaction ended, in the same range and direction.
    #[serde(default)]
    cursor: Option<String>,
}

/// Reads a range of keys as the transaction sees it, a page at a time.
#[utoipa::path(
    get, path = "/v1/transactions/{id}/keys", operation_id = "list_keys_in_transaction", tag = "transactions",
    params(("id" = String, Path, description = "the transaction"), ListInQuery),
    responses((status = 200, description = "a page; the value itself where `key_b64` names one key",
        content((Page = "application/json"), (String = "application/octet-stream"))))
)]
async fn get_keys_in(
    State(gateway): State<Gateway>,
    admitted: Admitted,
    caller: Caller,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Query(query): Query<ListInQuery>,
) -> Result<Response, Failure> {
    let ListInQuery { key_b64, prefix, from, to, limit, reverse, cursor } = query;
    if key_b64.is_some() {
        let (state, uri) = (State(gateway), OriginalUri(uri));
        return get_in(state, admitted, caller, uri, headers, Query(KeyQuery { key_b64 })).await;
    }
    let given = Given { prefix: prefix.is_some(), from: from.is_some(), to: to.is_some() };
    let wanted = Wanted { limit, reverse, cursor: cursor.as_deref() };
    let listing = Listing::new(uri.query().unwrap_or_default(), given, wanted)?;
    may_read(caller, &listing.range)?;
    match gateway.place_of(&id).await? {
        Place::Elsewhere(target) => {
            let taken = gateway.room_to_forward(listing.most_bytes()).await?;
            let (method, body) = (Method::GET, Bytes::new());
            Ok(taken.until_sent(gateway.forward(target, method, (&uri, &headers), body).await?))
        }
        Place::Here(number) => {
            let transaction = gateway.sessions().get(number).ok_or_else(ended)?;
            let version = transaction.read_version().await.map_err(failed)?;
            if listing.version.is_some_and(|of| of != version) {
                return Err(invalid("cursor", "the cursor is of another transaction"));
            }
            let taken = gateway.room(listing.most_bytes()).await?;
            Ok(taken.until_sent(listing.page(&transaction).await?))
        }
    }
}

/// Writes, in the transaction, a key that stands in the query.
#[utoipa::path(
    put, path = "/v1/transactions/{id}/keys", operation_id = "put_key_b64_in_transaction", tag = "transactions",
    params(("id" = String, Path, description = "the transaction"), KeyQuery),
    request_body(content = String, description = "the value: any bytes", content_type = "application/octet-stream"),
    responses((status = 200, description = "noted", body = Nothing))
)]
async fn put_key_b64_in(
    state: State<Gateway>,
    admitted: Admitted,
    uri: OriginalUri,
    headers: HeaderMap,
    query: Query<KeyQuery>,
    body: Body,
) -> Result<Response, Failure> {
    put_in(state, admitted, uri, headers, query, body).await
}

/// Removes, in the transaction, a range of keys, or a key that stands in the query.
#[utoipa::path(
    delete, path = "/v1/transactions/{id}/keys", operation_id = "delete_keys_in_transaction", tag = "transactions",
    params(("id" = String, Path, description = "the transaction"), DeleteQuery),
    responses((status = 200, description = "noted, or what would be deleted", body = DeletionInTransaction))
)]
async fn delete_keys_in(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    caller: Caller,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Query(query): Query<DeleteQuery>,
) -> Result<Response, Failure> {
    let raw = uri.query().unwrap_or_default();
    let (action, range) = (query.action(raw)?, query.range(raw)?);
    match gateway.place_of(&id).await? {
        Place::Elsewhere(target) => {
            let (method, body) = (Method::DELETE, Bytes::new());
            gateway.forward(target, method, (&uri, &headers), body).await
        }
        Place::Here(number) if query.dry_run => {
            let transaction = gateway.sessions().get(number).ok_or_else(ended)?;
            gateway.preview(caller, &transaction, &range).await
        }
        Place::Here(number) => gateway.change_in(number, &[action]),
    }
}

/// Reads, then changes, any number of keys and ranges in the transaction.
#[utoipa::path(
    post, path = "/v1/transactions/{id}/operations", operation_id = "operate_in_transaction", tag = "transactions", request_body = Steps,
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
    let Steps { reads, mutations } = steps.clone();
    let plan = Plan::new(Vec::new(), reads, mutations)?;
    plan.may_be_read_by(caller)?;
    match gateway.place_of(&id).await? {
        Place::Elsewhere(target) => {
            let body = serde_json::to_vec(&steps)
                .map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
            let taken = gateway.room_to_forward(plan.most_bytes()).await?;
            let passed = gateway.forward(target, Method::POST, (&uri, &headers), body.into());
            Ok(taken.until_sent(passed.await?))
        }
        Place::Here(number) => {
            let transaction = gateway.sessions().get(number).ok_or_else(ended)?;
            let taken = gateway.room(plan.most_bytes()).await?;
            let reads: Vec<ReadResult> =
                read(&transaction, &plan.reads).await.map_err(Failure::from)?;
            gateway.change_in(number, &plan.actions)?;
            Ok(taken.until_sent(Json(StepsAnswer { reads }).into_response()))
        }
    }
}

/// Commits the transaction, which ends it. After a conflict, begin it again. With an idempotency id
/// it may be asked for until there is an answer: what became of it is told then, even after its
/// gateway has ended.
#[utoipa::path(
    post, path = "/v1/transactions/{id}/commit", operation_id = "commit_transaction", tag = "transactions",
    params(("id" = String, Path, description = "the transaction"),
        ("Idempotency-Key" = Option<String>, Header, description = "the header form of `idempotency_id`")),
    request_body = Option<CommitTransaction>,
    responses((status = 200, description = "committed", body = TransactionAnswer))
)]
async fn commit(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    request: Option<Json<CommitTransaction>>,
) -> Result<Response, Failure> {
    let named = commit_name(&id, request.as_ref().map(|Json(body)| body), &headers)?;
    let outcome = match gateway.place_of(&id).await {
        Ok(Place::Here(number)) => gateway.commit_here(number, named.as_ref()).await.map(committed),
        Ok(Place::Elsewhere(target)) => {
            let body = match &request {
                Some(Json(body)) => serde_json::to_vec(body)
                    .map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?,
                None => Vec::new(),
            };
            let (method, body) = (Method::POST, Bytes::from(body));
            let passed = gateway.forward(target, method, (&uri, &headers), body).await;
            passed.map_err(gone_with_its_gateway)
        }
        Err(failure) if SessionId::parse(&id).is_some() => Err(gone_with_its_gateway(failure)),
        Err(failure) => Err(failure),
    };
    match (outcome, named) {
        (Err(Failure(problem)), Some(named))
            if matches!(
                problem.code,
                ErrorCode::TransactionEnded | ErrorCode::CommitUnknownResult
            ) =>
        {
            gateway.settle(&named).await.map(committed)
        }
        (outcome, _) => outcome,
    }
}

/// What names an interactive commit: its body, or the header. The id stands for this transaction.
fn commit_name(
    transaction: &str,
    body: Option<&CommitTransaction>,
    headers: &HeaderMap,
) -> Result<Option<Named>, Failure> {
    let in_body = body.and_then(|body| body.idempotency_id.as_deref());
    let id = one_name(in_body, idempotency_key(headers)?)?;
    id.map(|id| Named::new(id, &("commit", transaction))).transpose()
}

/// Of a transaction whose gateway has gone nobody knows any more whether it was committed before.
fn gone_with_its_gateway(failure: Failure) -> Failure {
    if failure.0.code == ErrorCode::TransactionEnded { undecided() } else { failure }
}

/// Whether a failure to find out about a commit tells what became of it.
fn decides(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::TransactionEnded | ErrorCode::IdempotencyMismatch | ErrorCode::Damaged
    )
}

fn committed(answer: TransactionAnswer) -> Response {
    let version = answer.version;
    with_version(Json(answer).into_response(), version)
}

impl Gateway {
    /// Commits a transaction that is kept here, and remembers where that had no effect.
    async fn commit_here(
        &self,
        number: u64,
        named: Option<&Named>,
    ) -> Result<TransactionAnswer, Failure> {
        let transaction = self.sessions().take(number)?;
        let outcome = self.commit(&transaction, named).await;
        if let Err(Failure(problem)) = &outcome
            && problem.outcome == Outcome::NotCommitted
        {
            self.sessions().had_no_effect(number);
        }
        outcome
    }

    /// Commits an interactive transaction, once under its name.
    async fn commit(
        &self,
        transaction: &Transaction,
        named: Option<&Named>,
    ) -> Result<TransactionAnswer, Failure> {
        if let Some(named) = named {
            if let Some(earlier) = named.earlier(transaction).await? {
                return Ok(earlier);
            }
            named.note(transaction, &[]).map_err(failed)?;
        }
        transaction.commit_within(self.deadline()).await.map_err(failed)?;
        let versionstamp = transaction.versionstamp();
        let version = match versionstamp {
            Some(stamp) => stamp.version,
            None => transaction.known_read_version().unwrap_or_default(),
        };
        Ok(TransactionAnswer { version, versionstamp, reads: Vec::new() })
    }

    /// Says what became of an interactive commit whose transaction is here no more. Where nothing
    /// did, that is written down, so that nothing ever will: an attempt that is still on its way
    /// finds it, or conflicts with it.
    async fn settle(&self, named: &Named) -> Result<TransactionAnswer, Failure> {
        let settled = self.database().run(self.deadline(), async |transaction: Transaction| {
            if let Some(earlier) = named.earlier(&transaction).await? {
                return Ok(Some(earlier));
            }
            named.give_up(&transaction)?;
            Ok::<_, Stop>(None)
        });
        match settled.await.map_err(Failure::from) {
            Ok(earlier) => earlier.ok_or_else(ended),
            Err(Failure(problem)) if decides(problem.code) => Err(Failure(problem)),
            Err(Failure(problem)) => Err(Failure::new(
                ErrorCode::CommitUnknownResult,
                format!(
                    "what became of the commit can't be told now ({}): ask again",
                    problem.detail
                ),
            )),
        }
    }
}

/// Gives the transaction up.
#[utoipa::path(
    delete, path = "/v1/transactions/{id}", operation_id = "abort_transaction", tag = "transactions",
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
            gateway.forward(target, Method::DELETE, (&uri, &headers), Bytes::new()).await
        }
        Place::Here(number) => {
            if !gateway.sessions().give_up(number) {
                return Err(ended());
            }
            Ok(Json(Nothing {}).into_response())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_transactions_are_any_bytes() {
        let (id, key) = key_in("/v1/transactions/x%40y/keys/a%2Fb/keys/%fe", None).expect("both");
        assert_eq!((id.as_str(), key.as_bytes()), ("x@y", &b"a/b/keys/\xfe"[..]));
        assert!(key_in("/v1/transactions/x/keys", None).is_err());
        let (id, key) = key_in("/v1/transactions/x/keys", Some("/w==")).expect("both");
        assert_eq!((id.as_str(), key.as_bytes()), ("x", &b"\xff"[..]));
    }

    #[test]
    fn a_commit_is_named_once_and_its_name_stands_for_its_transaction() {
        let body = |id: &str| CommitTransaction { idempotency_id: Some(id.to_owned()) };
        let mut headers = HeaderMap::new();
        let print = |transaction: &str, body: Option<&CommitTransaction>, headers: &HeaderMap| {
            let named = commit_name(transaction, body, headers).expect("a name");
            named.map(|named| named.fingerprint().to_owned())
        };
        assert_eq!(print("t", None, &headers), None);
        let by_body = print("t", Some(&body("i")), &headers);
        headers.insert("idempotency-key", "i".parse().expect("a header"));
        assert_eq!(print("t", None, &headers), by_body);
        assert_ne!(print("u", None, &headers), by_body, "another transaction");
        assert!(commit_name("t", Some(&body("j")), &headers).is_err(), "two names");
    }
}
