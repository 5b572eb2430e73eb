//! Transactions as they may enter a batch, and what a batch becomes for resolvers and logs.

use std::collections::{BTreeMap, BTreeSet};

use plinth_api::commit_proxy::{CommitRequest, StampPart, StampPlace};
use plinth_api::log::TagMutations;
use plinth_api::resolver::Footprint;
use plinth_api::{ErrorCode, Problem};
use plinth_system_config::ShardMap;
use plinth_types::{
    IDEMPOTENCY_KEYS, KEY_LIMIT, Key, KeyRange, Mutation, TRANSACTION_LIMIT, TRANSACTION_PARTS,
    Tag, VALUE_LIMIT, Value, Version, Versionstamp,
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
    /// Where its versionstamp goes.
    pub stamps: Vec<StampPlace>,
    /// Whether it is the system transaction.
    pub system: bool,
    /// Whether it begins with this commit.
    pub begins: bool,
    /// Bytes that it costs to keep and to send, about.
    pub bytes: usize,
}

/// What a mutation or range costs beside its keys and value, in bytes: many small ones must not
/// make a batch that nobody takes.
const PART_OVERHEAD: usize = 64;
/// What services add to a user's transaction: markers and outcomes, read and written.
const OWN_PARTS: usize = 8;

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
    /// There is no room for a versionstamp where one is asked for.
    #[error("{field} must name ten bytes of the key or value of a set")]
    Stamp {
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
    /// It has too many mutations and conflict ranges.
    #[error("the transaction has {actual} mutations and conflict ranges, and may have {limit}")]
    Parts {
        /// How many.
        actual: usize,
        /// The limit.
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
            TransactionError::EmptyRange { field } | TransactionError::Stamp { field } => {
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
            TransactionError::Parts { actual, limit } => {
                Problem::new(ErrorCode::LimitExceeded, detail)
                    .with("field", "the transaction")
                    .with("actual", actual)
                    .with("limit", limit)
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
        let CommitRequest { read_version, reads, mut writes, mutations, stamps, system, .. } =
            request;
        let begins = request.begins && !system;
        let stamped_keys = check_stamps(&stamps, &mutations)?;
        if !reads.is_empty() && read_version.is_none() {
            return Err(TransactionError::NoReadVersion);
        }
        let parts = reads.len() + writes.len() + mutations.len();
        // What services add of their own is not the user's to answer for.
        let own = |range: &KeyRange| KeyRange::idempotency_keys().covers(range);
        if !system {
            let most = TRANSACTION_PARTS + OWN_PARTS;
            if parts > most {
                return Err(TransactionError::Parts { actual: parts, limit: TRANSACTION_PARTS });
            }
        }
        let mut bytes = check_ranges("reads", &reads)? + check_ranges("writes", &writes)?;
        let mut users = bytes;
        for range in reads.iter().chain(&writes).filter(|range| own(range)) {
            users -= range_size(range);
        }
        for (index, mutation) in mutations.iter().enumerate() {
            bytes += mutation.size();
            let field = || format!("mutations[{index}]");
            let range = mutation.range();
            if range.is_empty() {
                return Err(TransactionError::EmptyRange { field: field() });
            }
            if !own(&range) {
                users += mutation.size();
            }
            if !system {
                check_user_mutation(mutation, &range, &field)?;
            }
            // A key that a versionstamp is still to be written in is known with the version.
            if !stamped_keys.contains(&index) {
                writes.push(range);
            }
        }
        if !system {
            limit(users, TRANSACTION_LIMIT, &|| "the transaction".to_owned())?;
        }
        bytes += parts * PART_OVERHEAD;
        Ok(Transaction { read_version, reads, writes, mutations, stamps, system, begins, bytes })
    }

    /// Writes its versionstamp where it is asked for, and counts the keys that this makes among
    /// what it changes. Once, when it has its place in the order of commits.
    pub fn stamp(&mut self, stamp: Versionstamp) {
        for StampPlace { mutation, part, offset } in std::mem::take(&mut self.stamps) {
            let Some((key, value)) = set_at(&mut self.mutations, mutation) else { continue };
            match part {
                StampPart::Key => {
                    *key = Key::from(stamped(key.as_bytes(), offset, stamp));
                    self.writes.push(KeyRange::single(key));
                }
                StampPart::Value => *value = Value::from(stamped(value.as_bytes(), offset, stamp)),
            }
        }
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

/// The key and value of a set.
fn set_at(mutations: &mut [Mutation], index: u32) -> Option<(&mut Key, &mut Value)> {
    match mutations.get_mut(usize::try_from(index).ok()?)? {
        Mutation::Set { key, value } => Some((key, value)),
        Mutation::Clear { .. } | Mutation::ClearRange(_) | Mutation::Atomic { .. } => None,
    }
}

fn stamped(bytes: &[u8], offset: u32, stamp: Versionstamp) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let room = stamp_room(bytes.len(), offset).and_then(|room| bytes.get_mut(room));
    if let Some(room) = room {
        room.copy_from_slice(&stamp.to_bytes());
    }
    bytes
}

/// The ten bytes from `offset` on, where there are so many.
fn stamp_room(length: usize, offset: u32) -> Option<std::ops::Range<usize>> {
    let from = usize::try_from(offset).ok()?;
    let to = from.checked_add(Versionstamp::LENGTH)?;
    (to <= length).then_some(from..to)
}

/// Every place must be there. Answers which mutations have one in their key.
fn check_stamps(
    stamps: &[StampPlace],
    mutations: &[Mutation],
) -> Result<BTreeSet<usize>, TransactionError> {
    let mut keys = BTreeSet::new();
    for (number, StampPlace { mutation, part, offset }) in stamps.iter().enumerate() {
        let wrong = || TransactionError::Stamp { field: format!("stamps[{number}]") };
        let index = usize::try_from(*mutation).map_err(|_| wrong())?;
        let Some(Mutation::Set { key, value }) = mutations.get(index) else {
            return Err(wrong());
        };
        let length = match part {
            StampPart::Key => key.0.len(),
            StampPart::Value => value.0.len(),
        };
        stamp_room(length, *offset).ok_or_else(wrong)?;
        if *part == StampPart::Key {
            // No versionstamp may move a key from one keyspace to another.
            let fixed = key.as_bytes().get(..usize::try_from(*offset).unwrap_or(usize::MAX));
            let moves =
                key.is_system() && fixed.is_none_or(|fixed| !fixed.starts_with(IDEMPOTENCY_KEYS));
            if moves || !keys.insert(index) {
                return Err(wrong());
            }
        }
    }
    Ok(keys)
}

fn check_ranges(field: &str, ranges: &[KeyRange]) -> Result<usize, TransactionError> {
    ranges.iter().enumerate().try_fold(0, |bytes, (index, range)| {
        if range.is_empty() {
            return Err(TransactionError::EmptyRange { field: format!("{field}[{index}]") });
        }
        Ok(bytes + range_size(range))
    })
}

fn range_size(range: &KeyRange) -> usize {
    range.from.0.len() + range.to.as_ref().map_or(0, |to| to.0.len())
}

fn check_user_mutation(
    mutation: &Mutation,
    range: &KeyRange,
    field: &dyn Fn() -> String,
) -> Result<(), TransactionError> {
    let (key, value) = match mutation {
        Mutation::Set { key, value } | Mutation::Atomic { key, operand: value, .. } => {
            (key, value.0.len())
        }
        Mutation::Clear { key } => (key, 0),
        // The end of a range is a boundary, which may be just above the longest key.
        Mutation::ClearRange(range) => (&range.from, 0),
    };
    // What idempotency ids stand for is written along with users' transactions. That no user names
    // such a key himself is the gateway's care.
    if !KeyRange::user_keys().covers(range) && !KeyRange::idempotency_keys().covers(range) {
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
                Mutation::Set { key, .. }
                | Mutation::Clear { key }
                | Mutation::Atomic { key, .. } => {
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
            stamps: vec![],
            system: false,
            begins: false,
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
        assert_eq!(transaction.bytes, 4 + 2 * PART_OVERHEAD);
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
    fn a_transaction_may_be_as_large_as_is_said_and_no_larger() {
        let key = |number: usize| format!("{number:04}").into_bytes();
        let full = TRANSACTION_LIMIT / (VALUE_LIMIT + 4);
        let rest = TRANSACTION_LIMIT - full * (VALUE_LIMIT + 4) - 4;
        let of = |last: usize| {
            let mut mutations: Vec<Mutation> =
                (0..full).map(|number| set(&key(number), VALUE_LIMIT)).collect();
            mutations.push(set(&key(full), last));
            mutations
        };
        // The client's marker is beside.
        let marker = Key::from(&b"\xff/idempotency/attempt/x"[..]);
        let marked = |mut mutations: Vec<Mutation>| {
            mutations.push(set(marker.as_bytes(), 10));
            let reads = vec![KeyRange::single(&marker)];
            CommitRequest { read_version: Some(Version(1)), reads, ..request(mutations) }
        };
        assert!(Transaction::validate(request(of(rest))).is_ok());
        assert!(Transaction::validate(marked(of(rest))).is_ok());
        let expected = TransactionError::Limit {
            field: "the transaction".to_owned(),
            actual: TRANSACTION_LIMIT + 1,
            limit: TRANSACTION_LIMIT,
        };
        assert_eq!(error(request(of(rest + 1))), expected);
        assert_eq!(error(marked(of(rest + 1))), expected);
        let ranges = CommitRequest {
            writes: vec![KeyRange::new("a".into(), "b".into())],
            ..request(of(rest - 1))
        };
        assert_eq!(error(ranges), expected, "conflict ranges count");
    }

    #[test]
    fn a_transaction_has_so_many_parts_at_most() {
        let clears = |count: usize| request(vec![Mutation::Clear { key: "k".into() }; count]);
        assert!(Transaction::validate(clears(TRANSACTION_PARTS)).is_ok());
        let actual = TRANSACTION_PARTS + OWN_PARTS + 1;
        let expected = TransactionError::Parts { actual, limit: TRANSACTION_PARTS };
        assert_eq!(error(clears(actual)), expected);
        let many = Transaction::validate(clears(1_000)).unwrap();
        assert!(many.bytes >= 64_000, "many small ones fill a batch: {}", many.bytes);
    }

    #[test]
    fn outcomes_of_ids_are_the_only_system_keys_that_a_transaction_may_write() {
        let accepted = |key: &[u8]| Transaction::validate(request(vec![set(key, 1)])).is_ok();
        assert!(accepted(b"\xff/idempotency/x"));
        for key in [&b"\xff/idempotency"[..], b"\xff/idempotency0", b"\xff/system/epoch", b"\xff"] {
            assert!(!accepted(key), "{key:?}");
        }
        let across = clear(b"\xff/idempotency/", Some(b"\xff/idempotency1"));
        assert!(Transaction::validate(request(vec![across])).is_err());
    }

    fn stamp(mutation: u32, part: StampPart, offset: u32) -> StampPlace {
        StampPlace { mutation, part, offset }
    }

    #[test]
    fn a_versionstamp_is_written_where_it_is_asked_for() {
        let pair =
            |key: &[u8], value: &[u8]| Mutation::Set { key: key.into(), value: value.into() };
        let mutations =
            vec![set(b"a", 1), pair(b"job/0123456789/x", b"v"), pair(b"k", b"0123456789")];
        let stamps = vec![stamp(1, StampPart::Key, 4), stamp(2, StampPart::Value, 0)];
        let mut transaction =
            Transaction::validate(CommitRequest { stamps, ..request(mutations) }).unwrap();
        let before = [KeyRange::single(&"a".into()), KeyRange::single(&"k".into())];
        assert_eq!(transaction.writes, before);
        transaction.stamp(Versionstamp { version: Version(0x0102), index: 3 });
        let key = b"job/\0\0\0\0\0\0\x01\x02\0\x03/x";
        assert_eq!(transaction.mutations[1], pair(key, b"v"));
        let value = b"\0\0\0\0\0\0\x01\x02\0\x03";
        assert_eq!(transaction.mutations[2], pair(b"k", value));
        assert_eq!(transaction.writes[2..], [KeyRange::single(&Key::from(&key[..]))]);
    }

    #[test]
    fn a_versionstamp_needs_its_ten_bytes_in_a_set() {
        for (mutation, stamps) in [
            (set(b"012345678", 1), vec![stamp(0, StampPart::Key, 0)]),
            (set(b"0123456789", 1), vec![stamp(0, StampPart::Key, 1)]),
            (set(b"0123456789", 1), vec![stamp(0, StampPart::Key, u32::MAX)]),
            (set(b"0123456789", 1), vec![stamp(1, StampPart::Key, 0)]),
            (set(b"k", 9), vec![stamp(0, StampPart::Value, 0)]),
            (clear(b"0123456789", Some(b"1")), vec![stamp(0, StampPart::Key, 0)]),
            (
                set(b"01234567890", 1),
                vec![stamp(0, StampPart::Key, 0), stamp(0, StampPart::Key, 1)],
            ),
            (set(b"\xff/idempotency/9", 1), vec![stamp(0, StampPart::Key, 2)]),
        ] {
            let request = CommitRequest { stamps, ..request(vec![mutation.clone()]) };
            let error = error(request);
            assert!(matches!(error, TransactionError::Stamp { .. }), "{mutation:?}: {error}");
        }
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
