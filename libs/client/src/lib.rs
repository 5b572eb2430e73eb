//! The client of a cluster: transactions.
//!
//! [`Database`] knows where everything is by following the director's live layout. A
//! [`Transaction`] reads at one version, which it asks a commit proxy for when it first needs one
//! (one request serves all that wait), from whichever replica answers; it keeps what it writes to
//! itself, and reads it, until it commits. [`Database::run`] runs one until it is committed.
//!
//! What fails on the way is tried again until a deadline, in the next epoch if need be. Whatever
//! becomes of a commit's answer, the commit takes effect once: see [`idempotency`](IdempotencyId).
//!
//! A program that is no part of the cluster begins with [`Database::connect`]; what it needs beside
//! is given out again here, so that it depends on this crate alone. `examples/rust` has some.

mod attempts;
mod committing;
mod connecting;
mod database;
mod error;
mod expiry;
mod idempotency;
mod key_reads;
mod overlay;
mod read_versions;
mod reading;
mod selector;
mod topology;
mod transaction;
mod watching;

pub use connecting::ConnectError;
pub use database::{Database, Read};
pub use error::{ClientError, TransactionError};
pub use expiry::{ATTEMPT_AGE, Ages, Forgetting, ID_AGE, forget_outcomes};
pub use idempotency::{ID_LIMIT, IdempotencyId, Outcome};
pub use selector::KeySelector;
pub use topology::{Followed, Topology, follow};
pub use transaction::{Isolation, RangeOptions, RangeResult, Transaction};

pub use plinth_runtime::Runtime;
pub use plinth_service::{Secret, SecretError};
pub use plinth_types::{AtomicOp, Key, KeyRange, Value, Version, Versionstamp};
