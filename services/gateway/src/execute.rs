//! Transactions as requests describe them, checked and carried out.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use plinth_api::gateway::{
    Action, Change, Checking, Item, ReadResult, Reading, TransactionAnswer, TransactionRequest,
};
use plinth_api::{ErrorCode, Problem};
use plinth_client::{
    ClientError, IdempotencyId, Outcome, RangeOptions, Transaction, TransactionError,
};
use plinth_service::{Caller, Failure};
use plinth_types::{Key, KeyRange, Value};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::http::Gateway;
use crate::values::may_read;

/// Checks, reads and changes of one request.
const PARTS: usize = 10_000;
/// Keys that a range answers with where the caller names no limit.
pub(crate) const DEFAULT_ROWS: u32 = 1_000;
/// Keys that a range answers with at most.
pub(crate) const MAX_ROWS: u32 = 10_000;
/// Bytes of keys and values that one request is answered with, about.
pub(crate) const ANSWER_BYTES: usize = 8 << 20;
/// Reads of one transaction that are under way at a time.
const CONCURRENT: usize = 16;

/// How requests for data fail.
pub(crate) const READ: &[ErrorCode] = &[
    ErrorCode::SystemKey,
    ErrorCode::LimitExceeded,
    ErrorCode::TransactionTooOld,
    ErrorCode::Overloaded,
    ErrorCode::NotReady,
    ErrorCode::PeerUnavailable,
    ErrorCode::NoQuorum,
    ErrorCode::FutureVersion,
    ErrorCode::Damaged,
];
/// How commits fail, beside.
pub(crate) const COMMIT: &[ErrorCode] =
    &[ErrorCode::Conflict, ErrorCode::CommitUnknownResult, ErrorCode::DiskFull];
/// How requests with an idempotency id fail, beside.
pub(crate) const ONCE: &[ErrorCode] = &[ErrorCode::IdempotencyMismatch];

/// Why a transaction's body ends.
pub(crate) enum Stop {
    Client(ClientError),
    Failure(Failure),
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Stop {
        Stop::Client(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failure(failure)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Failure {
        match stop {
            Stop::Client(error) => failed(error),
            Stop::Failure(failure) => failure,
        }
    }
}

impl TransactionError for Stop {
    fn client_error(&self) -> Option<&ClientError> {
        match self {
            Stop::Client(error) => Some(error),
            Stop::Failure(_) => None,
        }
    }
}

/// The client's error as an answer.
pub(crate) fn failed(error: ClientError) -> Failure {
    Failure::from(Problem::from(error))
}

pub(crate) fn invalid(field: &str, detail: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidRequest, detail).with("field", field)
}

/// Whether a caller may read the system's keys. What a service passes on is a user's.
pub(crate) fn reads_system_keys(caller: Caller) -> bool {
    caller == Caller::Administrator
}

/// What is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Key(Key),
    Range { range: KeyRange, limit: u32, reverse: bool },
}

/// A transaction that is of the right form.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) checks: Vec<(Key, Expected)>,
    pub(crate) reads: Vec<Wanted>,
    pub(crate) actions: Vec<Action>,
}

/// What a checked key must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Value(Value),
    Absent,
    Present,
}

impl Plan {
    /// Refuses reads that this caller may not make.
    pub(crate) fn may_be_read_by(&self, caller: Caller) -> Result<(), Failure> {
        let checks = self.checks.iter().map(|(key, _)| KeyRange::single(key));
        let reads = self.reads.iter().map(|wanted| match wanted {
            Wanted::Key(key) => KeyRange::single(key),
            Wanted::Range { range, .. } => range.clone(),
        });
        checks.chain(reads).try_for_each(|range| may_read(caller, &range))
    }

    /// A transaction that changes something and reads nothing.
    pub(crate) fn blind(action: Action) -> Plan {
        Plan { checks: Vec::new(), reads: Vec::new(), actions: vec![action] }
    }

    pub(crate) fn new(
        checks: Vec<Checking>,
        reads: Vec<Reading>,
        mutations: Vec<Change>,
    ) -> Result<Plan, Failure> {
        let parts = checks.len() + reads.len() + mutations.len();
        if parts > PARTS {
            let detail =
                format!("the transaction has {parts} parts; the limit is {PARTS}: split it");
            return Err(Failure::new(ErrorCode::LimitExceeded, detail)
                .with("limit", PARTS)
                .with("actual", parts));
        }
        let checks = checks.into_iter().enumerate().map(|(index, check)| {
            let field = format!("checks[{index}]");
            let expected = match (check.value, check.absent) {
                (Some(value), None) => Expected::Value(value.into_value()),
                (None, Some(true)) => Expected::Absent,
                (None, Some(false)) => Expected::Present,
                (Some(_), Some(_)) | (None, None) => {
                    return Err(invalid(&field, format!("{field}: give either value or absent")));
                }
            };
            Ok((check.key, expected))
        });
        let checks = checks.collect::<Result<_, Failure>>()?;
        let reads = reads
            .into_iter()
            .enumerate()
            .map(|(index, read)| wanted(read, &format!("reads[{index}]")));
        let reads = reads.collect::<Result<_, Failure>>()?;
        Ok(Plan { checks, reads, actions: mutations.into_iter().map(Action::from).collect() })
    }
}

/// A read of the right form.
pub(crate) fn wanted(read: Reading, field: &str) -> Result<Wanted, Failure> {
    let Reading { key, from, to, prefix, limit, reverse } = read;
    if let Some(key) = key {
        if from.is_some() || to.is_some() || prefix.is_some() || limit.is_some() || reverse {
            return Err(invalid(field, format!("{field}: key stands alone, a range has no key")));
        }
        return Ok(Wanted::Key(key));
    }
    let range = match (prefix, from, to) {
        (Some(prefix), None, None) => prefix_range(&prefix),
        (None, None, None) => {
            return Err(invalid(field, format!("{field}: name a key, a prefix, or from and to")));
        }
        (None, from, to) => {
            KeyRange { from: from.unwrap_or_default(), to: Some(to.unwrap_or(end())) }
        }
        (Some(_), _, _) => {
            return Err(invalid(field, format!("{field}: give either a prefix, or from and to")));
        }
    };
    let limit = limit.unwrap_or(DEFAULT_ROWS);
    if !(1..=MAX_ROWS).contains(&limit) {
        return Err(invalid(field, format!("{field}: limit must be 1 to {MAX_ROWS}, not {limit}")));
    }
    Ok(Wanted::Range { range, limit, reverse })
}

/// The end of users' keys.
fn end() -> Key {
    Key::from_static(plinth_types::SYSTEM_KEYSPACE)
}

/// The keys that begin with a prefix.
pub(crate) fn prefix_range(prefix: &Key) -> KeyRange {
    let mut next = prefix.as_bytes().to_vec();
    while next.last() == Some(&0xff) {
        next.pop();
    }
    match next.last_mut() {
        Some(last) => *last += 1,
        // No key of users begins with it; of the system's, all that follow do.
        None if prefix.as_bytes().is_empty() => {
            return KeyRange { from: prefix.clone(), to: Some(end()) };
        }
        None => return KeyRange { from: prefix.clone(), to: None },
    }
    KeyRange { from: prefix.clone(), to: Some(Key::from(next)) }
}

/// Does to a transaction what a request asks for.
pub(crate) fn change(transaction: &Transaction, actions: &[Action]) -> Result<(), ClientError> {
    actions.iter().try_for_each(|action| match action {
        Action::Set(key, value) => transaction.set(key, value),
        Action::Clear(key) => transaction.clear(key),
        Action::ClearRange(range) => transaction.clear_range(range),
        Action::Atomic(key, op, operand) => transaction.atomic(key, *op, operand),
        Action::StampedKey(key, offset, value) => {
            transaction.set_versionstamped_key(key, *offset, value)
        }
        Action::StampedValue(key, value, offset) => {
            transaction.set_versionstamped_value(key, value, *offset)
        }
    })
}

/// Reads what is wanted, in that order.
pub(crate) async fn read(
    transaction: &Transaction,
    wanted: &[Wanted],
) -> Result<Vec<ReadResult>, Stop> {
    if !wanted.is_empty() {
        // All of them at once must not ask for a version each.
        transaction.read_version().await?;
    }
    let share = ANSWER_BYTES / wanted.len().max(1);
    let results: Vec<ReadResult> = stream::iter(wanted.to_vec())
        .map(|wanted| read_one(transaction.clone(), wanted, share))
        .buffered(CONCURRENT)
        .try_collect()
        .await?;
    Ok(results)
}

async fn read_one(
    transaction: Transaction,
    wanted: Wanted,
    limit_bytes: usize,
) -> Result<ReadResult, ClientError> {
    match wanted {
        Wanted::Key(key) => {
            let value = transaction.get(&key).await?;
            Ok(ReadResult::Key { key, value })
        }
        Wanted::Range { range, limit, reverse } => {
            // One more, to tell whether there is more.
            let rows = usize::try_from(limit).unwrap_or(usize::MAX);
            let options =
                RangeOptions { limit: rows + 1, limit_bytes, reverse, ..RangeOptions::default() };
            let mut result = transaction.get_range(&range, options).await?;
            let more = result.more;
            result.items.truncate(rows);
            let items = result.items.into_iter();
            let items = items.map(|item| Item { key: item.key, value: item.value }).collect();
            let KeyRange { from, to } = range;
            Ok(ReadResult::Range { from, to, items, more })
        }
    }
}

async fn check(transaction: &Transaction, checks: &[(Key, Expected)]) -> Result<(), Stop> {
    let wanted: Vec<Wanted> = checks.iter().map(|(key, _)| Wanted::Key(key.clone())).collect();
    let found = read(transaction, &wanted).await?;
    for (index, ((key, expected), found)) in checks.iter().zip(found).enumerate() {
        let ReadResult::Key { value, .. } = found else { continue };
        let holds = match expected {
            Expected::Value(expected) => value.as_ref() == Some(expected),
            Expected::Absent => value.is_none(),
            Expected::Present => value.is_some(),
        };
        if !holds {
            let there = match &value {
                Some(value) => serde_json::to_string(value).unwrap_or_default(),
                None => "null".to_owned(),
            };
            let detail = format!("checks[{index}]: key {key} has {there}");
            let failure = Failure::new(ErrorCode::CheckFailed, detail);
            let failure = failure.with("check", index).with("actual", there);
            return Err(failure.with("key", serde_json::to_string(key).unwrap_or_default()).into());
        }
    }
    Ok(())
}

/// A caller's own name for a transaction, and what tells another request under that name.
pub(crate) struct Named {
    pub(crate) id: IdempotencyId,
    fingerprint: String,
}

impl Named {
    /// `request` is all that makes the request what it is.
    pub(crate) fn new(id: &str, request: &impl Serialize) -> Result<Named, Failure> {
        let id = IdempotencyId::new(id).map_err(failed)?;
        let request = serde_json::to_vec(request)
            .map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
        let digest = Sha256::digest(&request);
        let fingerprint = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Named { id, fingerprint })
    }
}

impl Gateway {
    /// Commits a transaction, once; conflicts are settled here, by running it again.
    pub(crate) async fn execute(
        &self,
        caller: Caller,
        plan: &Plan,
        named: Option<&Named>,
    ) -> Result<TransactionAnswer, Failure> {
        plan.may_be_read_by(caller)?;
        let (database, within) = (self.database(), self.deadline());
        let committed = database.run(within, async |transaction: Transaction| {
            if reads_system_keys(caller) {
                transaction.read_system_keys();
            }
            if let Some(Named { id, fingerprint }) = named
                && let Some((stamp, outcome)) = transaction.outcome(id).await?
            {
                self.context().runtime().mark("gateway.outcome_given_again");
                return first_outcome(stamp, outcome, fingerprint).map(|answer| (None, answer));
            }
            check(&transaction, &plan.checks).await?;
            let reads = read(&transaction, &plan.reads).await?;
            change(&transaction, &plan.actions)?;
            let version = if plan.actions.is_empty() {
                transaction.read_version().await?
            } else {
                Default::default()
            };
            if let Some(Named { id, fingerprint }) = named {
                let answer = serde_json::to_value(&reads).unwrap_or_default();
                let outcome = Outcome { fingerprint: fingerprint.clone(), answer };
                transaction.set_outcome(id, &outcome)?;
            }
            let answer = TransactionAnswer { version, versionstamp: None, reads };
            Ok::<_, Stop>((Some(transaction), answer))
        });
        let (transaction, mut answer) = committed.await?;
        if let Some(stamp) = transaction.and_then(|transaction| transaction.versionstamp()) {
            answer.version = stamp.version;
            answer.versionstamp = Some(stamp);
        }
        Ok(answer)
    }
}

/// What the first request with an id was answered.
fn first_outcome(
    stamp: plinth_types::Versionstamp,
    outcome: Outcome,
    fingerprint: &str,
) -> Result<TransactionAnswer, Stop> {
    if outcome.fingerprint != fingerprint {
        let failure = Failure::new(
            ErrorCode::IdempotencyMismatch,
            "the idempotency id stands for another request: use a new one for each transaction",
        );
        return Err(failure.into());
    }
    let reads = serde_json::from_value(outcome.answer).map_err(|_| {
        Failure::new(ErrorCode::Damaged, "what the idempotency id stands for can't be read")
    })?;
    Ok(TransactionAnswer { version: stamp.version, versionstamp: Some(stamp), reads })
}

/// What names a one-shot transaction: its body, or the header.
pub(crate) fn transaction_name(
    request: &TransactionRequest,
    header: Option<&str>,
) -> Result<Option<Named>, Failure> {
    let id = match (request.idempotency_id.as_deref(), header) {
        (Some(body), Some(header)) if body != header => {
            return Err(invalid("idempotency_id", "the body and the header name different ids"));
        }
        (body, header) => body.or(header),
    };
    id.map(|id| {
        let anonymous = TransactionRequest { idempotency_id: None, ..request.clone() };
        Named::new(id, &anonymous)
    })
    .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_the_range_of_what_begins_with_it() {
        let range = |prefix: &[u8]| prefix_range(&Key::from(prefix));
        assert_eq!(range(b"ab"), KeyRange::new("ab".into(), "ac".into()));
        assert_eq!(range(b"a\xff"), KeyRange::new(b"a\xff"[..].into(), "b".into()));
        assert_eq!(range(b""), KeyRange::user_keys());
        assert_eq!(range(b"\xff").to, None);
    }

    #[test]
    fn requests_of_the_wrong_form_name_the_field() {
        let reading = |json: &str| serde_json::from_str::<Reading>(json).expect("of this form");
        for json in [
            "{}",
            r#"{"key": "a", "from": "b"}"#,
            r#"{"key": "a", "limit": 1}"#,
            r#"{"prefix": "a", "to": "b"}"#,
            r#"{"from": "a", "limit": 0}"#,
            r#"{"from": "a", "limit": 10001}"#,
        ] {
            let failure = wanted(reading(json), "reads[3]").expect_err(json);
            assert_eq!(
                failure.0.facts.get("field").map(String::as_str),
                Some("reads[3]"),
                "{json}"
            );
        }
        let checking = |json: &str| serde_json::from_str::<Checking>(json).expect("of this form");
        for json in [r#"{"key": "a"}"#, r#"{"key": "a", "value": "1", "absent": true}"#] {
            assert!(Plan::new(vec![checking(json)], vec![], vec![]).is_err(), "{json}");
        }
        let many = vec![reading(r#"{"key": "a"}"#); PARTS + 1];
        let failure = Plan::new(vec![], many, vec![]).expect_err("too many");
        assert_eq!(failure.0.code, ErrorCode::LimitExceeded);
    }

    #[test]
    fn the_name_does_not_make_the_request() {
        let request = |id: Option<&str>, key: &str| TransactionRequest {
            reads: vec![Reading { key: Some(key.into()), ..Reading::default() }],
            idempotency_id: id.map(str::to_owned),
            ..TransactionRequest::default()
        };
        let named = |request: &TransactionRequest, header| {
            transaction_name(request, header).expect("a name").map(|named| named.fingerprint)
        };
        let by_body = named(&request(Some("i"), "a"), None);
        assert_eq!(by_body, named(&request(None, "a"), Some("i")));
        assert_ne!(by_body, named(&request(Some("i"), "b"), None));
        assert_eq!(named(&request(None, "a"), None), None);
        assert!(transaction_name(&request(Some("i"), "a"), Some("j")).is_err());
        assert!(transaction_name(&request(Some(""), "a"), None).is_err());
    }
}
