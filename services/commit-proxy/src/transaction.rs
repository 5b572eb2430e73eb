//! Transactions as they may enter a batch, and what a batch becomes for resolvers and logs.

use std::collections::BTreeMap;

use plinth_api::commit_proxy::CommitRequest;
use plinth_api::log::TagMutations;
use plinth_api::resolver::Footprint;
use plinth_api::{ErrorCode, Problem};
use plinth_system_config::ShardMap;
use plinth_types::{
    KEY_LIMIT, KeyRange, Mutation, SYSTEM_KEYSPACE, TRANSACTION_LIMIT, Tag, VALUE_LIMIT, Version,
};

/// A commit request that is within all limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The version it read at; there whenever it reads.
    pub read_version: Option<Version>,
    /// What it read.
    pub reads: Vec<KeyRange>,
    /// What conflicts with it: what was declared, and what its mutations change.
    pub writes: Vec<KeyRange>,
    /// What it does.
    pub mutations: Vec<Mutation>,
    /// Whether it is the system transaction.
    pub system: bool,
    /// Bytes of keys and values.
    pub bytes: usize,
}

/// What is wrong with a commit request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// It reads without saying at which version.
    #[error("it has reads, so it needs a read_version")]
    NoReadVersion,
    /// A range that no key can be in.
    #[error("{field} has a range whose end is not above its start")]
    EmptyRange {
        /// The field.
        field: String,
    },
    /// A key of the system, in a transaction that is not the system's.
    #[error("{field} changes keys from \\xff on, which belong to the system")]
    SystemKey {
        /// The field.
        field: String,
    },
    /// Something is too large.
    #[error("{field} has {actual} bytes, and may have {limit}")]
    Limit {
        /// The field.
        field: String,
        /// Its size, in bytes.
        actual: usize,
        /// The limit, in bytes.
        limit: usize,
    },
}

impl From<TransactionError> for Problem {
    fn from(error: TransactionError) -> Problem {
        let detail = error.to_string();
        match error {
            TransactionError::NoReadVersion => {
                Problem::new(ErrorCode::InvalidRequest, detail).with("field", "read_version")
            }
            TransactionError::EmptyRange { field } => {
                Problem::new(ErrorCode::InvalidRequest, detail).with("field", field)
            }
            TransactionError::SystemKey { field } => {
                Problem::new(ErrorCode::SystemKey, detail).with("field", field)
            }
            TransactionError::Limit { field, actual, limit } => {
                Problem::new(ErrorCode::LimitExceeded, detail)
                    .with("field", field)
                    .with("actual_bytes", actual)
                    .with("limit_bytes", limit)
            }
        }
    }
}

impl Transaction {
    /// Checks a request. The system transaction is exempt from the limits of size and may change
    /// the system's keys.
    ///
    /// # Errors
    /// The first thing that is wrong, by field.
    pub fn validate(request: CommitRequest) -> Result<Transaction, TransactionError> {
        let CommitRequest { epoch: _, read_version, reads, mut writes, mutations, system } =
            request;
        if !reads.is_empty() && read_version.is_none() {
            return Err(TransactionError::NoReadVersion);
        }
        let mut bytes = check_ranges("reads", &reads)? + check_ranges("writes", &writes)?;
        for (index, mutation) in mutations.iter().enumerate() {
            bytes += mutation.size();
            let field = || format!("mutations[{index}]");
            let range = mutation.range();
            if range.is_empty() {
                return Err(TransactionError::EmptyRange { field: field() });
            }
            if !system {
                check_user_mutation(mutation, &range, &field)?;
            }
            writes.push(range);
        }
        if !system {
            limit(bytes, TRANSACTION_LIMIT, &|| "the transaction".to_owned())?;
        }
        Ok(Transaction { read_version, reads, writes, mutations, system, bytes })
    }

    /// The part that a resolver of these keys judges.
    #[must_use]
    pub fn footprint(&self, keys: &KeyRange) -> Footprint {
        let clip = |ranges: &[KeyRange]| -> Vec<KeyRange> {
            ranges.iter().filter_map(|range| range.intersection(keys)).collect()
        };
        Footprint {
            read_version: self.read_version,
            reads: clip(&self.reads),
            writes: clip(&self.writes),
        }
    }
}

fn check_ranges(field: &str, ranges: &[KeyRange]) -> Result<usize, TransactionError> {
    ranges.iter().enumerate().try_fold(0, |bytes, (index, range)| {
        if range.is_empty() {
            return Err(TransactionError::EmptyRange { field: format!("{field}[{index}]") });
        }
        Ok(bytes + range.from.0.len() + range.to.as_ref().map_or(0, |to| to.0.len()))
    })
}

fn check_user_mutation(
    mutation: &Mutation,
    range: &KeyRange,
    field: &dyn Fn() -> String,
) -> Result<(), TransactionError> {
    let below_system = range.to.as_ref().is_some_and(|to| to.as_bytes() <= SYSTEM_KEYSPACE);
    let (key, value) = match mutation {
        Mutation::Set { key, value } => (key, value.0.len()),
        Mutation::Clear { key } => (key, 0),
        // The end of a range is a boundary, which may be just above the longest key.
        Mutation::ClearRange(range) => (&range.from, 0),
    };
    if !below_system && (matches!(mutation, Mutation::ClearRange(_)) || key.is_system()) {
        return Err(TransactionError::SystemKey { field: field() });
    }
    limit(key.0.len(), KEY_LIMIT, &|| format!("{}'s key", field()))?;
    limit(value, VALUE_LIMIT, &|| format!("{}'s value", field()))
}

fn limit(actual: usize, limit: usize, field: &dyn Fn() -> String) -> Result<(), TransactionError> {
    if actual <= limit {
        return Ok(());
    }
    Err(TransactionError::Limit { field: field(), actual, limit })
}

/// Mutations by tag, each tag's in order. A range that is cleared is split over the shards.
#[derive(Debug, Default)]
pub(crate) struct ByTag(BTreeMap<Tag, Vec<Mutation>>);

impl ByTag {
    /// Adds a transaction's mutations after those before it.
    pub(crate) fn add(&mut self, mutations: Vec<Mutation>, shards: &ShardMap) {
        for mutation in mutations {
            match &mutation {
                Mutation::Set { key, .. } | Mutation::Clear { key } => {
                    if let Some(tag) = shards.tag_of(key.as_bytes()) {
                        self.0.entry(tag).or_default().push(mutation);
                    }
                }
                Mutation::ClearRange(range) => {
                    for (part, tag) in shards.within(range) {
                        self.0.entry(tag).or_default().push(Mutation::ClearRange(part));
                    }
                }
            }
        }
    }

    /// What a log of these tags keeps. Keys and values are shared, not copied.
    pub(crate) fn for_log(&self, tags: &[Tag]) -> Vec<TagMutations> {
        self.0
            .iter()
            .filter(|(tag, _)| tags.contains(tag))
            .map(|(tag, mutations)| TagMutations { tag: *tag, mutations: mutations.clone() })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::{Epoch, Key, Value};

    fn request(mutations: Vec<Mutation>) -> CommitRequest {
        CommitRequest {
            epoch: Epoch(1),
            read_version: None,
            reads: vec![],
            writes: vec![],
            mutations,
            system: false,
        }
    }

    fn set(key: &[u8], value: usize) -> Mutation {
        Mutation::Set { key: Key::from(key), value: Value::from(vec![b'v'; value]) }
    }

    fn clear(from: &[u8], to: Option<&[u8]>) -> Mutation {
        Mutation::ClearRange(KeyRange { from: Key::from(from), to: to.map(Key::from) })
    }

    fn error(request: CommitRequest) -> TransactionError {
        Transaction::validate(request).unwrap_err()
    }

    #[test]
    fn what_is_changed_conflicts() {
        let transaction =
            Transaction::validate(request(vec![set(b"a", 1), clear(b"b", Some(b"c"))])).unwrap();
        let expected = [KeyRange::single(&"a".into()), KeyRange::new("b".into(), "c".into())];
        assert_eq!(transaction.writes, expected);
        assert_eq!(transaction.bytes, 4);
        let clipped = transaction.footprint(&KeyRange::new("b\0".into(), "d".into()));
        assert_eq!(clipped.writes, [KeyRange::new("b\0".into(), "c".into())]);
    }

    #[test]
    fn users_stay_below_the_systems_keys_and_within_limits() {
        let system = |request| matches!(error(request), TransactionError::SystemKey { .. });
        assert!(system(request(vec![set(b"a", 1), set(b"\xff/x", 1)])));
        assert!(system(request(vec![clear(b"a", None)])));
        assert!(system(request(vec![clear(b"a", Some(b"\xff\0"))])));
        assert!(Transaction::validate(request(vec![clear(b"a", Some(b"\xff"))])).is_ok());
        let longest = vec![b'k'; KEY_LIMIT];
        assert!(Transaction::validate(request(vec![set(&longest, VALUE_LIMIT)])).is_ok());
        let too_long = vec![b'k'; KEY_LIMIT + 1];
        let expected = TransactionError::Limit {
            field: "mutations[0]'s key".to_owned(),
            actual: KEY_LIMIT + 1,
            limit: KEY_LIMIT,
        };
        assert_eq!(error(request(vec![set(&too_long, 0)])), expected);
        let large = error(request(vec![set(b"a", VALUE_LIMIT + 1)]));
        assert!(matches!(large, TransactionError::Limit { limit: VALUE_LIMIT, .. }));
        let many = error(request(vec![set(b"a", VALUE_LIMIT); 101]));
        assert!(matches!(many, TransactionError::Limit { limit: TRANSACTION_LIMIT, .. }));
        let exempt = CommitRequest {
            system: true,
            ..request(vec![set(b"\xff/system/config", VALUE_LIMIT + 1); 101])
        };
        assert!(Transaction::validate(exempt).is_ok());
    }

    #[test]
    fn ranges_and_versions_are_checked() {
        let empty = KeyRange::new("b".into(), "b".into());
        let reads = CommitRequest {
            read_version: Some(Version(1)),
            reads: vec![KeyRange::all(), empty],
            ..request(vec![])
        };
        assert_eq!(error(reads), TransactionError::EmptyRange { field: "reads[1]".to_owned() });
        let unversioned = CommitRequest { reads: vec![KeyRange::all()], ..request(vec![]) };
        assert_eq!(error(unversioned), TransactionError::NoReadVersion);
        let backwards = error(request(vec![clear(b"b", Some(b"a"))]));
        assert_eq!(backwards, TransactionError::EmptyRange { field: "mutations[0]".to_owned() });
    }

    #[test]
    fn a_cleared_range_is_split_over_shards() {
        let shards =
            ShardMap(vec![(Key::default(), Tag(1)), ("m".into(), Tag(2)), ("x".into(), Tag(1))]);
        let mut by_tag = ByTag::default();
        by_tag.add(vec![set(b"n", 1), clear(b"l", Some(b"n")), set(b"y", 1)], &shards);
        let first =
            TagMutations { tag: Tag(1), mutations: vec![clear(b"l", Some(b"m")), set(b"y", 1)] };
        let second =
            TagMutations { tag: Tag(2), mutations: vec![set(b"n", 1), clear(b"m", Some(b"n"))] };
        assert_eq!(by_tag.for_log(&[Tag(1), Tag(2)]), [first, second.clone()]);
        assert_eq!(by_tag.for_log(&[Tag(2), Tag(9)]), [second]);
        assert_eq!(by_tag.for_log(&[]), []);
    }
}
