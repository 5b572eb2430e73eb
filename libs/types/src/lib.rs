//! The nouns of Plinth, as newtypes. No I/O and no async.
//!
//! Two families must not be confused: what survives a restart ([`ServiceRef`], [`StoreId`],
//! [`ClusterId`]) may be persisted; what dies with a process ([`Pid`], [`Incarnation`]) may not.

mod atomic;
mod identity;
mod keys;
mod mutation;
mod numbers;
mod versionstamp;

pub use atomic::AtomicOp;
pub use identity::{
    ClusterId, GroupId, Incarnation, NodeId, ParseError, Pid, ServiceKind, ServiceName, ServiceRef,
    StoreId, Zone,
};
pub use keys::{
    IDEMPOTENCY_KEYS, IDEMPOTENCY_KEYS_END, KEY_LIMIT, Key, KeyRange, SYSTEM_KEYSPACE,
    SYSTEM_SHARD, SYSTEM_SHARD_END, TRANSACTION_LIMIT, TRANSACTION_PARTS, VALUE_LIMIT, Value,
    ValueBytes,
};
pub use mutation::Mutation;
pub use numbers::{
    ConfigVersion, Epoch, MAX_VERSION_STEP, Tag, VERSION_GAP, VERSIONS_PER_SECOND, Version,
};
pub use versionstamp::Versionstamp;
