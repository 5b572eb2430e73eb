//! What idempotency ids stand for, as it lies below `\xff/idempotency/`.
//!
//! | key | value |
//! |---|---|
//! | `attempt/` version, random | the versionstamp: an attempt of a client at a commit, so that it can tell later whether it took effect |
//! | `id/` id | the versionstamp, then an [`Outcome`] in JSON: what a caller's own id stands for |
//! | `expiry/` time, id | nothing: ids in the order in which they expire |
//!
//! Versions and times (milliseconds since 1970, by the wall clock of the client that committed) are
//! eight bytes, big endian. Who writes such a key has it among what it read as well, so that of all
//! attempts with one key at most one is committed.

use plinth_types::{IDEMPOTENCY_KEYS, Key, KeyRange, Value, Version, Versionstamp};
use serde::{Deserialize, Serialize};

use crate::ClientError;

const ATTEMPTS: &[u8] = b"attempt/";
const IDS: &[u8] = b"id/";
const EXPIRIES: &[u8] = b"expiry/";

/// The longest idempotency id, in bytes.
pub const ID_LIMIT: usize = 256;

/// A caller's name for one transaction, which is committed once however often it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyId(Vec<u8>);

impl IdempotencyId {
    /// An id of 1 to [`ID_LIMIT`] bytes.
    ///
    /// # Errors
    /// [`ClientError::Limit`].
    pub fn new(id: impl Into<Vec<u8>>) -> Result<IdempotencyId, ClientError> {
        let id = id.into();
        if id.is_empty() || id.len() > ID_LIMIT {
            let (what, actual, limit) = ("the idempotency id", id.len(), ID_LIMIT);
            return Err(ClientError::Limit { what, actual, limit });
        }
        Ok(IdempotencyId(id))
    }

    pub(crate) fn key(&self) -> Key {
        below(IDS, &[&self.0])
    }

    pub(crate) fn expiry_key(&self, unix_ms: u64) -> Key {
        below(EXPIRIES, &[&unix_ms.to_be_bytes(), &self.0])
    }
}

/// What a transaction with an id came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Tells requests apart: another one with the same id is a mistake.
    pub fingerprint: String,
    /// What the caller was or will be answered, beside the versionstamp.
    pub answer: serde_json::Value,
}

impl Outcome {
    /// As it is written, with room for the versionstamp before it.
    pub(crate) fn to_value(&self) -> Result<Value, serde_json::Error> {
        let mut bytes = vec![0; Versionstamp::LENGTH];
        serde_json::to_writer(&mut bytes, self)?;
        Ok(Value::from(bytes))
    }

    pub(crate) fn from_value(value: &Value) -> Option<(Versionstamp, Outcome)> {
        let stamp = Versionstamp::from_prefix(value.as_bytes())?;
        let rest = value.as_bytes().get(Versionstamp::LENGTH..)?;
        Some((stamp, serde_json::from_slice(rest).ok()?))
    }
}

fn below(kind: &[u8], parts: &[&[u8]]) -> Key {
    let mut key = [IDEMPOTENCY_KEYS, kind].concat();
    parts.iter().for_each(|part| key.extend_from_slice(part));
    Key::from(key)
}

fn up_to(kind: &[u8], limit: u64) -> KeyRange {
    KeyRange::new(below(kind, &[]), below(kind, &[&limit.to_be_bytes()]))
}

/// The key of an attempt that began at a version.
pub(crate) fn attempt_key(version: Version, random: u128) -> Key {
    below(ATTEMPTS, &[&version.0.to_be_bytes(), &random.to_be_bytes()])
}

/// The attempts that began below a version.
pub(crate) fn attempts_below(version: Version) -> KeyRange {
    up_to(ATTEMPTS, version.0)
}

/// The expiries of ids that were written before a time.
pub(crate) fn expiries_before(unix_ms: u64) -> KeyRange {
    up_to(EXPIRIES, unix_ms)
}

/// The key of the id that an expiry is of.
pub(crate) fn id_of_expiry(key: &Key) -> Option<Key> {
    let rest = key.as_bytes().strip_prefix(IDEMPOTENCY_KEYS)?.strip_prefix(EXPIRIES)?;
    Some(below(IDS, &[rest.get(8..)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_by_version_and_by_time() {
        let attempt = attempt_key(Version(300), 7);
        assert!(attempts_below(Version(301)).contains(attempt.as_bytes()));
        assert!(!attempts_below(Version(300)).contains(attempt.as_bytes()));
        let id = IdempotencyId::new("order-1").expect("an id");
        let expiry = id.expiry_key(70_000);
        assert!(expiries_before(70_001).contains(expiry.as_bytes()));
        assert!(!expiries_before(70_000).contains(expiry.as_bytes()));
        assert_eq!(id_of_expiry(&expiry), Some(id.key()));
        assert_eq!(id_of_expiry(&attempt), None);
        let all = KeyRange::idempotency_keys();
        assert!([attempt, expiry, id.key()].iter().all(|key| all.contains(key.as_bytes())));
        assert!(IdempotencyId::new("").is_err() && IdempotencyId::new([0; ID_LIMIT + 1]).is_err());
    }

    #[test]
    fn an_outcome_is_found_as_it_was_written() {
        let answer = serde_json::json!({"reads": []});
        let outcome = Outcome { fingerprint: "f".to_owned(), answer };
        let value = outcome.to_value().expect("json");
        assert_eq!(Outcome::from_value(&value), Some((Versionstamp::default(), outcome)));
        assert_eq!(Outcome::from_value(&"short".into()), None);
    }
}
