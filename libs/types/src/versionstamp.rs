//! Versionstamps: where a transaction stands in the order of commits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{ParseError, Version};

/// A committed transaction's place: its version, then its number in its batch. No two transactions
/// share one, and they are ordered as the transactions are. Ten bytes, big endian, so that their
/// bytes are ordered likewise; in text 20 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Versionstamp {
    /// The version that the transaction was committed at.
    pub version: Version,
    /// Its number in its batch.
    pub index: u16,
}

impl Versionstamp {
    /// Bytes of a versionstamp.
    pub const LENGTH: usize = 10;

    /// As it stands in keys and values.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Versionstamp::LENGTH] {
        let mut bytes = [0; Versionstamp::LENGTH];
        let (version, index) = bytes.split_at_mut(8);
        version.copy_from_slice(&self.version.0.to_be_bytes());
        index.copy_from_slice(&self.index.to_be_bytes());
        bytes
    }

    /// The versionstamp that these bytes begin with; none if they are fewer than ten.
    #[must_use]
    pub fn from_prefix(bytes: &[u8]) -> Option<Versionstamp> {
        let (version, rest) = bytes.split_first_chunk()?;
        let (index, _) = rest.split_first_chunk()?;
        Some(Versionstamp {
            version: Version(u64::from_be_bytes(*version)),
            index: u16::from_be_bytes(*index),
        })
    }
}

impl fmt::Display for Versionstamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:04x}", self.version.0, self.index)
    }
}

impl FromStr for Versionstamp {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::new(text, "a versionstamp (20 hexadecimal digits)");
        let (version, index) = text.split_at_checked(16).ok_or_else(wrong)?;
        if text.len() != 2 * Versionstamp::LENGTH || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        Ok(Versionstamp {
            version: Version(u64::from_str_radix(version, 16).map_err(|_| wrong())?),
            index: u16::from_str_radix(index, 16).map_err(|_| wrong())?,
        })
    }
}

impl Serialize for Versionstamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Versionstamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for Versionstamp {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::schema::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some("^[0-9a-f]{20}$"))
            .into()
    }
}
impl utoipa::ToSchema for Versionstamp {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_text_are_ordered_as_commits_are() {
        let stamps = [(0, 0), (1, 0), (1, 7), (1, 256), (255, 0), (256, 3), (u64::MAX, 1)]
            .map(|(version, index)| Versionstamp { version: Version(version), index });
        assert!(stamps.is_sorted());
        assert!(stamps.map(Versionstamp::to_bytes).is_sorted());
        assert!(stamps.map(|stamp| stamp.to_string()).is_sorted());
        for stamp in stamps {
            assert_eq!(Versionstamp::from_prefix(&stamp.to_bytes()), Some(stamp));
            assert_eq!(stamp.to_string().parse(), Ok(stamp));
        }
        assert_eq!(Versionstamp::from_prefix(&[0; 9]), None);
        for wrong in
            ["", "0", "+0000000000000000001", "0123456789abcdef01234", "ü12345678901234567"]
        {
            assert!(wrong.parse::<Versionstamp>().is_err(), "{wrong}");
        }
    }
}
