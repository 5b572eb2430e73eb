//! The gateway: the public API.

use crate::Nothing;
use plinth_types::{AtomicOp, Epoch, Key, KeyRange, Value, ValueBytes, Version, Versionstamp};
use serde::{Deserialize, Serialize};

/// A value as JSON, where the caller asks for JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyAnswer {
    /// The key.
    pub key: Key,
    /// Its value.
    #[schema(value_type = ValueBytes)]
    pub value: Value,
    /// The version it was read at.
    pub version: Version,
}

/// A write was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Written {
    /// At this version.
    pub version: Version,
    /// At this place in the order of commits.
    pub versionstamp: Versionstamp,
}

/// What a deletion would delete, had it not been a dry run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeletePreview {
    /// Keys. Where there are many, those that were counted: up to 10,000, or 8 MiB with their values.
    pub would_delete: u64,
    /// Whether there are more than were counted.
    pub more: bool,
    /// The version it was read at.
    pub version: Version,
}

/// A deletion was committed, or shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Deletion {
    /// It was committed.
    Written(Written),
    /// It was a dry run.
    Preview(DeletePreview),
}

/// A deletion was noted in a transaction, or shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum DeletionInTransaction {
    /// It was a dry run.
    Preview(DeletePreview),
    /// It was noted.
    Noted(Nothing),
}

/// `GET /v1/read_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReadVersionAnswer {
    /// No commit that was acknowledged before the request is above it.
    pub version: Version,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Item {
    /// The key.
    pub key: Key,
    /// Its value.
    #[schema(value_type = ValueBytes)]
    pub value: Value,
}

/// A page of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Page {
    /// The keys with their values, in the order asked for.
    pub items: Vec<Item>,
    /// Asks for the next page, at the same version; not there on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// The version that every page is read at. It stays readable for 5 s.
    pub version: Version,
}

/// The other side of an operation: bytes, or a whole number, which stands for eight bytes, little
/// endian.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Operand {
    /// A number.
    Number(i64),
    /// Bytes.
    Bytes(ValueBytes),
}

impl Operand {
    /// The bytes.
    #[must_use]
    pub fn into_value(self) -> Value {
        match self {
            Operand::Number(number) => Value::from(&number.to_le_bytes()[..]),
            Operand::Bytes(value) => value,
        }
    }
}

/// What a transaction does to a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The key.
    pub key: Key,
    /// Its new value.
    #[schema(value_type = ValueBytes)]
    pub value: Value,
}

/// Names a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Clearing {
    /// The key.
    pub key: Key,
}

/// Names a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RangeClearing {
    /// Its first key.
    pub from: Key,
    /// The first key after it.
    pub to: Key,
}

/// An operation on the value of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Operating {
    /// The key.
    pub key: Key,
    /// The other side.
    pub operand: Operand,
}

/// A set with a place for the versionstamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Stamping {
    /// The key.
    pub key: Key,
    /// Its new value.
    #[schema(value_type = ValueBytes)]
    pub value: Value,
    /// Where the ten bytes begin that the versionstamp replaces, in bytes.
    #[serde(default)]
    pub offset: u32,
}

/// One change of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The key has this value.
    #[schema(title = "SetChange")]
    Set(Setting),
    /// The key has no value.
    #[schema(title = "ClearChange")]
    Clear(Clearing),
    /// No key of the range has a value.
    #[schema(title = "ClearRangeChange")]
    ClearRange(RangeClearing),
    /// The sum of little-endian numbers.
    #[schema(title = "AddChange")]
    Add(Operating),
    /// The smaller number.
    #[schema(title = "MinChange")]
    Min(Operating),
    /// The larger number.
    #[schema(title = "MaxChange")]
    Max(Operating),
    /// Bitwise and.
    #[schema(title = "AndChange")]
    And(Operating),
    /// Bitwise or.
    #[schema(title = "OrChange")]
    Or(Operating),
    /// Bitwise exclusive or.
    #[schema(title = "XorChange")]
    Xor(Operating),
    /// The operand is appended, if the whole is within the limit of values.
    #[schema(title = "AppendIfFitsChange")]
    AppendIfFits(Operating),
    /// No value, if it is the operand.
    #[schema(title = "CompareAndClearChange")]
    CompareAndClear(Operating),
    /// A set whose key bears the versionstamp.
    #[schema(title = "SetVersionstampedKeyChange")]
    SetVersionstampedKey(Stamping),
    /// A set whose value bears the versionstamp.
    #[schema(title = "SetVersionstampedValueChange")]
    SetVersionstampedValue(Stamping),
}

/// `POST /v1/keys/{key}/atomic`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AtomicRequest {
    /// What to do.
    pub op: AtomicName,
    /// The other side; for the versionstamped ones the value.
    pub operand: Operand,
    /// For the versionstamped ones: where the ten bytes begin that the versionstamp replaces.
    #[serde(default)]
    pub offset: u32,
}

/// The name of an atomic operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AtomicName {
    /// The sum of little-endian numbers.
    Add,
    /// The smaller number.
    Min,
    /// The larger number.
    Max,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
    /// The operand is appended, if the whole is within the limit of values.
    AppendIfFits,
    /// No value, if it is the operand.
    CompareAndClear,
    /// A set whose key bears the versionstamp.
    VersionstampedKey,
    /// A set whose value bears the versionstamp.
    VersionstampedValue,
}

impl AtomicRequest {
    /// The change that it makes to a key.
    #[must_use]
    pub fn into_change(self, key: Key) -> Change {
        let AtomicRequest { op, operand, offset } = self;
        match op {
            AtomicName::VersionstampedKey => {
                let value = operand.into_value();
                Change::SetVersionstampedKey(Stamping { key, value, offset })
            }
            AtomicName::VersionstampedValue => {
                let value = operand.into_value();
                Change::SetVersionstampedValue(Stamping { key, value, offset })
            }
            AtomicName::Add => Change::Add(Operating { key, operand }),
            AtomicName::Min => Change::Min(Operating { key, operand }),
            AtomicName::Max => Change::Max(Operating { key, operand }),
            AtomicName::And => Change::And(Operating { key, operand }),
            AtomicName::Or => Change::Or(Operating { key, operand }),
            AtomicName::Xor => Change::Xor(Operating { key, operand }),
            AtomicName::AppendIfFits => Change::AppendIfFits(Operating { key, operand }),
            AtomicName::CompareAndClear => Change::CompareAndClear(Operating { key, operand }),
        }
    }
}

/// What a [`Change`] comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A value for a key.
    Set(Key, Value),
    /// None for a key.
    Clear(Key),
    /// None for a range.
    ClearRange(KeyRange),
    /// An operation on a key's value.
    Atomic(Key, AtomicOp, Value),
    /// A set whose key bears the versionstamp from an offset on.
    StampedKey(Key, usize, Value),
    /// A set whose value bears the versionstamp from an offset on.
    StampedValue(Key, Value, usize),
}

impl From<Change> for Action {
    fn from(change: Change) -> Action {
        let atomic = |op, Operating { key, operand }: Operating| {
            Action::Atomic(key, op, operand.into_value())
        };
        let place = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
        match change {
            Change::Set(Setting { key, value }) => Action::Set(key, value),
            Change::Clear(Clearing { key }) => Action::Clear(key),
            Change::ClearRange(RangeClearing { from, to }) => {
                Action::ClearRange(KeyRange::new(from, to))
            }
            Change::Add(operating) => atomic(AtomicOp::Add, operating),
            Change::Min(operating) => atomic(AtomicOp::Min, operating),
            Change::Max(operating) => atomic(AtomicOp::Max, operating),
            Change::And(operating) => atomic(AtomicOp::And, operating),
            Change::Or(operating) => atomic(AtomicOp::Or, operating),
            Change::Xor(operating) => atomic(AtomicOp::Xor, operating),
            Change::AppendIfFits(operating) => atomic(AtomicOp::AppendIfFits, operating),
            Change::CompareAndClear(operating) => atomic(AtomicOp::CompareAndClear, operating),
            Change::SetVersionstampedKey(Stamping { key, value, offset }) => {
                Action::StampedKey(key, place(offset), value)
            }
            Change::SetVersionstampedValue(Stamping { key, value, offset }) => {
                Action::StampedValue(key, value, place(offset))
            }
        }
    }
}

/// What a transaction reads: a key, a range or a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// A key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// The first key of a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Key>,
    /// The first key after the range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Key>,
    /// What the keys of a range begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Key>,
    /// At most so many keys of a range: 1 to 10,000, 1,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// A range from its end.
    #[serde(default)]
    pub reverse: bool,
}

/// A condition of a transaction: the key has this value, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Checking {
    /// The key.
    pub key: Key,
    /// The value that it must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Operand>,
    /// `true`: it must have none. `false`: it must have any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<bool>,
}

/// `POST /v1/transactions`: committed at one version, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransactionRequest {
    /// What must hold.
    #[serde(default)]
    pub checks: Vec<Checking>,
    /// What to read, before anything is changed.
    #[serde(default)]
    pub reads: Vec<Reading>,
    /// What to change, in order.
    #[serde(default)]
    pub mutations: Vec<Change>,
    /// The transaction's name: however often it is asked for, it is committed once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_id: Option<String>,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum ReadResult {
    /// A key.
    #[schema(title = "KeyRead")]
    Key {
        /// The key.
        key: Key,
        /// Its value; null where it has none.
        #[schema(value_type = Option<ValueBytes>)]
        value: Option<Value>,
    },
    /// A range.
    #[schema(title = "RangeRead")]
    Range {
        /// Its first key.
        from: Key,
        /// The first key after it.
        to: Option<Key>,
        /// The keys with their values, in the order asked for.
        items: Vec<Item>,
        /// Whether a limit cut it short.
        more: bool,
    },
}

/// A transaction was committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TransactionAnswer {
    /// At this version; where it changed nothing, the version that it read at.
    pub version: Version,
    /// At this place in the order of commits; not there where it changed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versionstamp: Option<Versionstamp>,
    /// What was read, in the order asked for.
    pub reads: Vec<ReadResult>,
}

/// `POST /v1/transactions/begin`: an interactive transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Begun {
    /// Its id, for `/v1/transactions/{id}/…` at any gateway.
    pub transaction: String,
    /// It must have been committed by then, in milliseconds from now.
    pub expires_in_ms: u64,
}

/// `POST /v1/transactions/{id}/operations`: steps of an interactive transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Steps {
    /// What to read, before anything is changed. The transaction's own writes are seen.
    #[serde(default)]
    pub reads: Vec<Reading>,
    /// What to change, in order.
    #[serde(default)]
    pub mutations: Vec<Change>,
}

/// What those steps came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StepsAnswer {
    /// What was read, in the order asked for.
    pub reads: Vec<ReadResult>,
}

/// `POST /v1/transactions/{id}/commit`. The body may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitTransaction {
    /// The commit's name: however often it is asked for, it takes effect once, and the answer is
    /// the first one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_id: Option<String>,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WatchEvent {
    /// The key.
    pub key: Key,
    /// Its value; null where it has none.
    #[schema(value_type = Option<ValueBytes>)]
    pub value: Option<Value>,
    /// The version that it was seen at.
    pub version: Version,
    /// Whether it is another value than the caller had seen.
    pub changed: bool,
}

/// `GET /v1/status`: the cluster in one look.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClusterStatus {
    /// `ready`; `degraded` where commits are accepted but copies are lacking or not spread over zones;
    /// `recovering` or `unavailable`.
    pub health: String,
    /// The latest epoch.
    pub epoch: Epoch,
    /// The phase of its recovery.
    pub phase: String,
    /// Whether commits are accepted.
    pub ready: bool,
    /// What is wrong, in words.
    pub problems: Vec<String>,
    /// As the coordinator tells it.
    pub coordinator: Option<crate::coordinator::Status>,
    /// As the director tells it.
    pub director: Option<crate::director::Status>,
}
