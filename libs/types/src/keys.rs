//! Keys, values and ranges: any bytes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest key that a user may write, in bytes.
pub const KEY_LIMIT: usize = 10_000;
/// The longest value that a user may write, in bytes.
pub const VALUE_LIMIT: usize = 100_000;
/// The most that one user transaction may carry, in bytes of keys, values and conflict ranges.
pub const TRANSACTION_LIMIT: usize = 10_000_000;

/// The most mutations and conflict ranges of one user transaction.
pub const TRANSACTION_PARTS: usize = 100_000;

/// Keys from here on belong to the system; users read and write below.
pub const SYSTEM_KEYSPACE: &[u8] = b"\xff";
/// First key of the shard that holds the configuration.
pub const SYSTEM_SHARD: &[u8] = b"\xff/system/";
/// First key after that shard (its last byte raised by one).
pub const SYSTEM_SHARD_END: &[u8] = b"\xff/system0";

/// First key of the outcomes that idempotency ids stand for. They are the system's, but no part of
/// the configuration: they lie in the shards of users' data, written by services for users.
pub const IDEMPOTENCY_KEYS: &[u8] = b"\xff/idempotency/";
/// First key after them (its last byte raised by one).
pub const IDEMPOTENCY_KEYS_END: &[u8] = b"\xff/idempotency0";

/// In JSON, bytes are a string where they are text, else `{"b64": "…"}`. Control characters are no
/// text: JSON would make six bytes of each. Binary formats take them as they are.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum JsonBytes {
    Text(String),
    Base64 { b64: String },
}

fn serialize_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap as _;
    if !serializer.is_human_readable() {
        return serializer.serialize_bytes(bytes);
    }
    let control = |byte: &u8| *byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r');
    match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.iter().any(control) => serializer.serialize_str(text),
        Ok(_) | Err(_) => {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry("b64", &STANDARD.encode(bytes))?;
            map.end()
        }
    }
}

fn deserialize_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    if !deserializer.is_human_readable() {
        return Bytes::deserialize(deserializer);
    }
    match JsonBytes::deserialize(deserializer)? {
        JsonBytes::Text(text) => Ok(Bytes::from(text.into_bytes())),
        JsonBytes::Base64 { b64 } => {
            STANDARD.decode(b64).map(Bytes::from).map_err(serde::de::Error::custom)
        }
    }
}

/// What base64 looks like, padding and all.
const BASE64: &str =
    "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

fn bytes_schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
    use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
    OneOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::String))
        .item(
            ObjectBuilder::new()
                .title(Some("Base64"))
                .schema_type(Type::Object)
                .property(
                    "b64",
                    ObjectBuilder::new().schema_type(Type::String).pattern(Some(BASE64)),
                )
                .required("b64"),
        )
        .into()
}

macro_rules! bytes_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub Bytes);

        impl $name {
            /// The bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
            /// Bytes that live as long as the program.
            #[must_use]
            pub const fn from_static(bytes: &'static [u8]) -> Self {
                $name(Bytes::from_static(bytes))
            }
        }
        impl From<Vec<u8>> for $name {
            fn from(bytes: Vec<u8>) -> Self {
                $name(Bytes::from(bytes))
            }
        }
        impl From<&[u8]> for $name {
            fn from(bytes: &[u8]) -> Self {
                $name(Bytes::copy_from_slice(bytes))
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                $name(Bytes::copy_from_slice(text.as_bytes()))
            }
        }
        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        impl std::borrow::Borrow<[u8]> for $name {
            fn borrow(&self) -> &[u8] {
                &self.0
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"{}\"", self.0.escape_ascii())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.escape_ascii())
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize_bytes(&self.0, serializer)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize_bytes(deserializer).map($name)
            }
        }
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                bytes_schema()
            }
        }
        impl utoipa::ToSchema for $name {}
    };
}

bytes_type!(
    /// A key: any bytes, ordered bytewise.
    Key
);
bytes_type!(
    /// A value: any bytes.
    Value
);

/// [`Value`] under a name that the OpenAPI documents' generator does not take for any JSON at all.
pub type ValueBytes = Value;

impl Key {
    /// The first key after this one.
    #[must_use]
    pub fn successor(&self) -> Key {
        let mut bytes = Vec::with_capacity(self.0.len() + 1);
        bytes.extend_from_slice(&self.0);
        bytes.push(0);
        Key::from(bytes)
    }

    /// Whether the key belongs to the system and not to users.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.starts_with(SYSTEM_KEYSPACE)
    }
}

/// Keys from `from` (inclusive) to `to` (exclusive; `None` is the end of the key space).
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
pub struct KeyRange {
    /// The first key.
    pub from: Key,
    /// The first key after the range, or the end of the key space.
    pub to: Option<Key>,
}

impl KeyRange {
    /// Every key there is.
    #[must_use]
    pub fn all() -> KeyRange {
        KeyRange { from: Key::default(), to: None }
    }

    /// From `from` up to `to`.
    #[must_use]
    pub fn new(from: Key, to: Key) -> KeyRange {
        KeyRange { from, to: Some(to) }
    }

    /// Just one key.
    #[must_use]
    pub fn single(key: &Key) -> KeyRange {
        KeyRange { from: key.clone(), to: Some(key.successor()) }
    }

    /// The shard that holds the configuration.
    #[must_use]
    pub fn system_shard() -> KeyRange {
        KeyRange::new(Key::from_static(SYSTEM_SHARD), Key::from_static(SYSTEM_SHARD_END))
    }

    /// The outcomes that idempotency ids stand for.
    #[must_use]
    pub fn idempotency_keys() -> KeyRange {
        KeyRange::new(Key::from_static(IDEMPOTENCY_KEYS), Key::from_static(IDEMPOTENCY_KEYS_END))
    }

    /// The keys of users.
    #[must_use]
    pub fn user_keys() -> KeyRange {
        KeyRange::new(Key::default(), Key::from_static(SYSTEM_KEYSPACE))
    }

    /// Whether every key of `other` is in it.
    #[must_use]
    pub fn covers(&self, other: &KeyRange) -> bool {
        other.is_empty() || self.intersection(other).as_ref() == Some(other)
    }

    /// Whether no key is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }

    /// Whether `key` is in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.from.as_bytes() && self.to.as_ref().is_none_or(|to| key < to.as_bytes())
    }

    /// The keys in both.
    #[must_use]
    pub fn intersection(&self, other: &KeyRange) -> Option<KeyRange> {
        let from = self.from.clone().max(other.from.clone());
        let to = match (&self.to, &other.to) {
            (None, to) | (to, None) => to.clone(),
            (Some(a), Some(b)) => Some(a.clone().min(b.clone())),
        };
        let both = KeyRange { from, to };
        (!both.is_empty()).then_some(both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_json_are_text_or_base64() {
        let text = Key::from("hello");
        assert_eq!(serde_json::to_string(&text).expect("json"), "\"hello\"");
        let number = Value::from(&b"\x01\0"[..]);
        assert_eq!(serde_json::to_string(&number).expect("json"), r#"{"b64":"AQA="}"#);
        let lines = Value::from("a\n\tb\u{7f}");
        assert_eq!(serde_json::to_string(&lines).expect("json"), "\"a\\n\\tb\u{7f}\"");
        let raw = Key::from(&b"\xff/x"[..]);
        let json = serde_json::to_string(&raw).expect("json");
        assert_eq!(json, r#"{"b64":"/y94"}"#);
        assert_eq!(serde_json::from_str::<Key>(&json).expect("json"), raw);
    }

    #[test]
    fn ranges() {
        let range = KeyRange::new("b".into(), "d".into());
        assert!(range.contains(b"b") && range.contains(b"c\xff") && !range.contains(b"d"));
        assert_eq!(range.intersection(&KeyRange::single(&"d".into())), None);
        assert_eq!(range.intersection(&KeyRange::all()), Some(range.clone()));
        assert!(KeyRange::system_shard().contains(b"\xff/system/config"));
        assert!(!KeyRange::system_shard().contains(b"\xff/systems"));
        let users = KeyRange::user_keys();
        assert!(users.covers(&range) && users.covers(&users) && !range.covers(&users));
        assert!(!users.covers(&KeyRange::all()) && !users.covers(&KeyRange::idempotency_keys()));
        assert!(KeyRange::idempotency_keys().contains(b"\xff/idempotency/x"));
    }
}
