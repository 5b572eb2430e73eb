//! Transactions as requests describe them, checked and carried out.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use plinth_api::gateway::{Action, Change, Checking, Item, ReadResult, Reading, TransactionAnswer};
use plinth_api::storage::READ_BATCH_KEYS;
use plinth_api::{ErrorCode, Problem};
use plinth_client::{ClientError, Isolation, RangeOptions, Transaction, TransactionError};
use plinth_service::{Caller, Failure};
use plinth_types::{Key, KeyRange, VALUE_LIMIT, Value};

use crate::http::Gateway;
use crate::naming::Named;
use crate::ranges::most_bytes;
use crate::values::may_read;

/// Checks, reads and changes of one request.
const PARTS: usize = 10_000;
/// Keys that a range answers with where the caller names no limit.
pub(crate) const DEFAULT_ROWS: u32 = 1_000;
/// Keys that a range answers with at most.
pub(crate) const MAX_ROWS: u32 = 10_000;
/// Bytes of keys and values that one request is answered with, about.
pub(crate) const ANSWER_BYTES: usize = 8 << 20;
/// Bytes of the values of single keys that one request reads. Ranges are cut short instead.
const KEYS_BYTES: usize = 16 << 20;
/// Ranges of one transaction that are read at a time.
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

impl Wanted {
    /// The key, where it is one.
    fn key(&self) -> Option<&Key> {
        match self {
            Wanted::Key(key) => Some(key),
            Wanted::Range { .. } => None,
        }
    }
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

    /// Bytes of keys and values that it reads at most, about.
    pub(crate) fn most_bytes(&self) -> usize {
        let of_keys = |keys: usize| keys.saturating_mul(VALUE_LIMIT).min(KEYS_BYTES);
        let keys = self.reads.iter().filter(|wanted| wanted.key().is_some()).count();
        let ranges = self.reads.iter().map(|wanted| match wanted {
            Wanted::Key(_) => 0,
            Wanted::Range { limit, .. } => {
                most_bytes(usize::try_from(*limit).unwrap_or(usize::MAX))
            }
        });
        let ranges = ranges.fold(0_usize, usize::saturating_add).min(ANSWER_BYTES);
        of_keys(self.checks.len()).max(of_keys(keys) + ranges)
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

/// Bytes of keys and values that a change makes the transaction larger by, about.
pub(crate) fn size(action: &Action) -> usize {
    match action {
        Action::Set(key, value)
        | Action::Atomic(key, _, value)
        | Action::StampedKey(key, _, value)
        | Action::StampedValue(key, value, _) => key.0.len() + value.0.len(),
        Action::Clear(key) => key.0.len(),
        Action::ClearRange(range) => {
            range.from.0.len() + range.to.as_ref().map_or(0, |to| to.0.len())
        }
    }
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
    let keys: Vec<Key> = wanted.iter().filter_map(Wanted::key).cloned().collect();
    let ranges = wanted.iter().filter(|wanted| wanted.key().is_none()).cloned();
    let share = ANSWER_BYTES / wanted.len().max(1);
    let ranges = stream::iter(ranges.collect::<Vec<_>>())
        .map(|wanted| read_range(transaction.clone(), wanted, share))
        .buffered(CONCURRENT)
        .try_collect::<Vec<_>>();
    let (values, ranges) = tokio::join!(read_keys(transaction, &keys), ranges);
    let (mut values, mut ranges) = (values?.into_iter(), ranges?.into_iter().flatten());
    let in_order = wanted.iter().filter_map(|wanted| match wanted.key() {
        Some(key) => Some(ReadResult::Key { key: key.clone(), value: values.next()? }),
        None => ranges.next(),
    });
    Ok(in_order.collect())
}

/// Values of keys, in order, as many at a time as one storage is asked for.
async fn read_keys(transaction: &Transaction, keys: &[Key]) -> Result<Vec<Option<Value>>, Stop> {
    let (mut values, mut bytes) = (Vec::with_capacity(keys.len()), 0);
    for keys in keys.chunks(READ_BATCH_KEYS) {
        let found = transaction.get_many(keys, Isolation::Serializable).await?;
        bytes += found.iter().flatten().map(|value| value.0.len()).sum::<usize>();
        if bytes > KEYS_BYTES {
            let detail = format!(
                "the values of the keys that are read have {bytes} bytes or more; the limit of one \
                 request is {KEYS_BYTES}: read fewer at a time"
            );
            let failure = Failure::new(ErrorCode::LimitExceeded, detail);
            let failure = failure.with("field", "reads").with("actual_bytes", bytes);
            return Err(failure.with("limit_bytes", KEYS_BYTES).into());
        }
        values.extend(found);
    }
    Ok(values)
}

async fn read_range(
    transaction: Transaction,
    wanted: Wanted,
    limit_bytes: usize,
) -> Result<Option<ReadResult>, ClientError> {
    let Wanted::Range { range, limit, reverse } = wanted else { return Ok(None) };
    // One more, to tell whether there is more.
    let rows = usize::try_from(limit).unwrap_or(usize::MAX);
    let options = RangeOptions { limit: rows + 1, limit_bytes, reverse, ..RangeOptions::default() };
    let mut result = transaction.get_range(&range, options).await?;
    let more = result.more;
    result.items.truncate(rows);
    let items = result.items.into_iter();
    let items = items.map(|item| Item { key: item.key, value: item.value }).collect();
    let KeyRange { from, to } = range;
    Ok(Some(ReadResult::Range { from, to, items, more }))
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
            if let Some(named) = named
                && let Some(earlier) = named.earlier(&transaction).await?
            {
                self.context().runtime().mark("gateway.outcome_given_again");
                return Ok((None, earlier));
            }
            check(&transaction, &plan.checks).await?;
            let reads = read(&transaction, &plan.reads).await?;
            change(&transaction, &plan.actions)?;
            let version = if plan.actions.is_empty() {
                transaction.read_version().await?
            } else {
                Default::default()
            };
            if let Some(named) = named {
                named.note(&transaction, &reads)?;
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
}
