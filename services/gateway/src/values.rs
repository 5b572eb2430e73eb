//! Single keys, and ranges of them.

use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, header};
use plinth_api::gateway::{Action, AtomicRequest, KeyAnswer, Page, ReadVersionAnswer, Written};
use plinth_api::{ErrorCode, HEADER_VERSION, Problem};
use plinth_client::Read;
use plinth_service::{Answer, Body, Caller, Fails as _, Failure, Json, Query, Routes};
use plinth_types::{Key, KeyRange, Version};
use serde::{Deserialize, Serialize};
use utoipa_axum::routes;

use crate::admission::Admitted;
use crate::deleting::{__path_delete_keys, delete_keys};
use crate::execute::{COMMIT, Expected, ONCE, Plan, READ, failed, invalid, reads_system_keys};
use crate::http::Gateway;
use crate::keys::{key_of, suffixed, user_value};
use crate::naming::Named;
use crate::ranges::{Given, Listing, Wanted};
use crate::watching;

/// The header form of an idempotency id.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

pub(crate) fn routes() -> Routes<Gateway> {
    let absent = &[ErrorCode::PreconditionFailed];
    Routes::new()
        .user(routes!(get_key).fails(READ).fails(&[ErrorCode::KeyNotFound]))
        .user(routes!(put_key, delete_key).fails(READ).fails(COMMIT).fails(ONCE).fails(absent))
        .user(
            routes!(atomic)
                .fails(READ)
                .fails(COMMIT)
                .fails(ONCE)
                .fails(&[ErrorCode::MethodNotAllowed]),
        )
        .user(routes!(get_keys).fails(READ).fails(&[ErrorCode::KeyNotFound]))
        .user(routes!(put_key_b64, delete_keys).fails(READ).fails(COMMIT).fails(ONCE).fails(absent))
        .user(routes!(read_version).fails(READ))
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Consistency {
    /// No commit acknowledged before the request is missed.
    #[default]
    Strict,
    /// Commits of the last second may be missed.
    Snapshot,
    /// Whatever some storage has that was committed: served even while nothing can be committed.
    Stale,
}

/// Names a key that a path can't, and says how it is read.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
pub(crate) struct GetQuery {
    /// The key in base64.
    #[serde(default)]
    key_b64: Option<String>,
    /// How fresh the read must be.
    #[serde(default)]
    #[param(inline)]
    consistency: Consistency,
    /// Watches: how long to wait, such as `30s` or `500ms`; at most `30s`.
    #[serde(default)]
    wait: Option<String>,
    /// Watches: the value that the caller has seen, as text.
    #[serde(default)]
    value: Option<String>,
    /// Watches: the same in base64.
    #[serde(default)]
    value_b64: Option<String>,
    /// Watches: the key had no value.
    #[serde(default)]
    absent: bool,
}

/// Names a key that a path can't.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
pub(crate) struct KeyQuery {
    /// The key in base64.
    #[serde(default)]
    pub(crate) key_b64: Option<String>,
}

/// Reads a key. Raw, with the version in `Plinth-Version`; with `Accept: application/json` both in
/// JSON. A key that ends in `/watch` is written with `%2Fwatch`.
#[utoipa::path(
    get, path = "/v1/keys/{*key}", tag = "keys",
    params(("key" = String, Path, description = "the key, percent-encoded"), GetQuery),
    responses(
        (status = 200, description = "the value", content((KeyAnswer = "application/json"), (String = "application/octet-stream"))),
    )
)]
async fn get_key(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Query(query): Query<GetQuery>,
) -> Result<Response, Failure> {
    let GetQuery { key_b64, consistency, wait, value, value_b64, absent } = query;
    if let Some(key) = suffixed(uri.path(), key_b64.as_deref(), "watch")? {
        may_read(caller, &KeyRange::single(&key))?;
        let seen = watching::Seen { value, value_b64, absent };
        return watching::watch(gateway, key, seen, wait.as_deref(), &headers).await;
    }
    let unasked = [
        ("wait", wait.is_some()),
        ("value", value.is_some()),
        ("value_b64", value_b64.is_some()),
        ("absent", absent),
    ];
    if let Some((field, _)) = unasked.into_iter().find(|(_, given)| *given) {
        return Err(invalid(field, format!("{field} is for watches: …/watch?{field}=")));
    }
    let key = key_of(uri.path(), key_b64.as_deref())?;
    answer_key(&gateway, caller, key, consistency, &headers).await
}

async fn answer_key(
    gateway: &Gateway,
    caller: Caller,
    key: Key,
    consistency: Consistency,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    may_read(caller, &KeyRange::single(&key))?;
    let (database, within) = (gateway.database(), gateway.deadline());
    let read = match consistency {
        Consistency::Strict => database.get(&key, within).await,
        Consistency::Snapshot => database.get_snapshot(&key, within).await,
        Consistency::Stale => database.get_stale(&key, within).await,
    };
    let Read { version, value } = read.map_err(failed)?;
    let Some(value) = value else { return Err(no_key(&key, version)) };
    Ok(with_version(value_answer(key, value, version, headers), version))
}

pub(crate) fn no_key(key: &Key, version: Version) -> Failure {
    let problem = Problem::new(ErrorCode::KeyNotFound, format!("there is no key {key}"));
    problem.with("version", version).into()
}

/// A value as its caller wants it.
pub(crate) fn value_answer(
    key: Key,
    value: plinth_types::Value,
    version: Version,
    headers: &HeaderMap,
) -> Response {
    if accepts(headers, "application/json") {
        Json(KeyAnswer { key, value, version }).into_response()
    } else {
        let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
        (kind, value.0).into_response()
    }
}

pub(crate) fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains(kind))
}

/// Users read their own keys only.
pub(crate) fn may_read(caller: Caller, range: &KeyRange) -> Result<(), Failure> {
    if KeyRange::user_keys().covers(range) {
        return Ok(());
    }
    if reads_system_keys(caller) {
        tracing::info!(target: "plinth_audit", ?caller, from = %range.from, "system keys read");
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::SystemKey,
        "keys from \\xff on belong to the system: use another key; the administrator's token reads them",
    ))
}

/// Writes a key; with `If-None-Match: *` only one that is not there.
#[utoipa::path(
    put, path = "/v1/keys/{*key}", tag = "keys",
    params(
        ("key" = String, Path, description = "the key, percent-encoded"), KeyQuery,
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is no such key"),
        ("Idempotency-Key" = Option<String>, Header, description = "the request's name: it is carried out once"),
    ),
    request_body(content = String, description = "the value: any bytes", content_type = "application/octet-stream"),
    responses((status = 200, description = "committed", body = Written))
)]
async fn put_key(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Query(query): Query<KeyQuery>,
    Body(body): Body,
) -> Result<Response, Failure> {
    let key = key_of(uri.path(), query.key_b64.as_deref())?;
    let value = user_value(body)?;
    let absent = match headers.get(header::IF_NONE_MATCH) {
        None => false,
        Some(tag) if tag.as_bytes() == b"*" => true,
        Some(_) => {
            return Err(invalid("If-None-Match", "If-None-Match takes * only: keys have no tags"));
        }
    };
    let named = name(&headers, &("put", &key, &value, absent))?;
    let mut plan = Plan::blind(Action::Set(key.clone(), value));
    if absent {
        plan.checks.push((key, Expected::Absent));
    }
    gateway.write(caller, &plan, named.as_ref()).await
}

/// Removes a key. Removing a key that is not there is no error.
#[utoipa::path(
    delete, path = "/v1/keys/{*key}", tag = "keys",
    params(
        ("key" = String, Path, description = "the key, percent-encoded"), KeyQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "the request's name: it is carried out once"),
    ),
    responses((status = 200, description = "committed", body = Written))
)]
async fn delete_key(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Query(query): Query<KeyQuery>,
) -> Result<Response, Failure> {
    let key = key_of(uri.path(), query.key_b64.as_deref())?;
    let named = name(&headers, &("delete", &key))?;
    gateway.write(caller, &Plan::blind(Action::Clear(key)), named.as_ref()).await
}

/// Makes a key's value of what it is at the commit: the path is the key's, then `/atomic`.
#[utoipa::path(
    post, path = "/v1/keys/{*key}", operation_id = "atomic_operation", tag = "keys",
    params(
        ("key" = String, Path, description = "the key, percent-encoded"), KeyQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "the request's name: it is carried out once"),
    ),
    request_body = AtomicRequest,
    responses((status = 200, description = "committed", body = Written))
)]
async fn atomic(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Query(query): Query<KeyQuery>,
    request: Result<Json<AtomicRequest>, Failure>,
) -> Result<Response, Failure> {
    let Some(key) = suffixed(uri.path(), query.key_b64.as_deref(), "atomic")? else {
        let detail = format!("nothing is posted to {}: atomic operations to …/atomic", uri.path());
        let failure = Failure::new(ErrorCode::MethodNotAllowed, detail);
        return Ok(([(header::ALLOW, "GET, HEAD, PUT, DELETE")], failure).into_response());
    };
    let Json(request) = request?;
    let named = name(&headers, &("atomic", &key, &request))?;
    let plan = Plan::blind(Action::from(request.into_change(key)));
    gateway.write(caller, &plan, named.as_ref()).await
}

/// Which keys.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
pub(crate) struct ListQuery {
    /// One key, in base64: answered as `/v1/keys/{key}` answers.
    #[serde(default)]
    key_b64: Option<String>,
    /// How fresh that one must be. Ranges are always strict.
    #[serde(default)]
    #[param(inline)]
    consistency: Consistency,
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
    /// Goes on where a page ended, at the same version, in the same range and direction.
    #[serde(default)]
    cursor: Option<String>,
}

/// Reads a range of keys, a page at a time; `cursor` asks for the next page of the same version.
#[utoipa::path(
    get, path = "/v1/keys", operation_id = "list_keys", tag = "keys", params(ListQuery),
    responses((status = 200, description = "a page; the value itself where `key_b64` names one key",
        content((Page = "application/json"), (String = "application/octet-stream"))))
)]
async fn get_keys(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Query(query): Query<ListQuery>,
) -> Result<Response, Failure> {
    if query.key_b64.is_some() {
        let key = key_of(uri.path(), query.key_b64.as_deref())?;
        return answer_key(&gateway, caller, key, query.consistency, &headers).await;
    }
    let ListQuery { prefix, from, to, limit, reverse, cursor, .. } = &query;
    let given = Given { prefix: prefix.is_some(), from: from.is_some(), to: to.is_some() };
    let wanted = Wanted { limit: *limit, reverse: *reverse, cursor: cursor.as_deref() };
    let listing = Listing::new(uri.query().unwrap_or_default(), given, wanted)?;
    may_read(caller, &listing.range)?;
    let transaction = gateway.database().begin(gateway.deadline());
    if reads_system_keys(caller) {
        transaction.read_system_keys();
    }
    if let Some(version) = listing.version {
        transaction.set_read_version(version);
    }
    let taken = gateway.room(listing.most_bytes()).await?;
    Ok(taken.until_sent(listing.page(&transaction).await?))
}

/// Writes a key that stands in the query.
#[utoipa::path(
    put, path = "/v1/keys", tag = "keys",
    params(
        KeyQuery,
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is no such key"),
        ("Idempotency-Key" = Option<String>, Header, description = "the request's name: it is carried out once"),
    ),
    request_body(content = String, description = "the value: any bytes", content_type = "application/octet-stream"),
    responses((status = 200, description = "committed", body = Written))
)]
async fn put_key_b64(
    state: State<Gateway>,
    admitted: Admitted,
    caller: Caller,
    uri: OriginalUri,
    headers: HeaderMap,
    query: Query<KeyQuery>,
    body: Body,
) -> Result<Response, Failure> {
    put_key(state, admitted, caller, uri, headers, query, body).await
}

/// The latest committed version: no commit that was acknowledged before the request is above it.
#[utoipa::path(
    get, path = "/v1/read_version", tag = "keys",
    responses((status = 200, body = ReadVersionAnswer))
)]
async fn read_version(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
) -> Answer<ReadVersionAnswer> {
    let version = gateway.database().read_version(gateway.deadline()).await.map_err(failed)?;
    Ok(Json(ReadVersionAnswer { version }))
}

/// The idempotency id of the header.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Failure> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    value
        .to_str()
        .map(Some)
        .map_err(|_| invalid("Idempotency-Key", "Idempotency-Key must be ASCII"))
}

pub(crate) fn name(
    headers: &HeaderMap,
    request: &impl Serialize,
) -> Result<Option<Named>, Failure> {
    idempotency_key(headers)?.map(|id| Named::new(id, request)).transpose()
}

impl Gateway {
    pub(crate) async fn write(
        &self,
        caller: Caller,
        plan: &Plan,
        named: Option<&Named>,
    ) -> Result<Response, Failure> {
        let answer = self.execute(caller, plan, named).await.map_err(|failure| {
            if failure.0.code == ErrorCode::CheckFailed {
                return Failure::new(ErrorCode::PreconditionFailed, "the key is there already");
            }
            failure
        })?;
        let version = answer.version;
        let versionstamp = answer.versionstamp.unwrap_or_default();
        Ok(with_version(Json(Written { version, versionstamp }).into_response(), version))
    }
}

pub(crate) fn with_version(mut response: Response, version: Version) -> Response {
    response.headers_mut().insert(HEADER_VERSION, HeaderValue::from(version.0));
    response
}
