//! The envelope around everything that is written: format name, level, checksum, body.
//!
//! The checksum is the CRC-32C of the body's exact bytes, continued over the format name and the
//! level: a flipped digit of the level would otherwise have an intact body migrated from a level
//! that it was never written at.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A body of some format, as it is written.
#[derive(Serialize, Deserialize)]
pub struct Envelope<'a> {
    format: String,
    level: u32,
    crc32c: u32,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// Why bytes are not an intact envelope of the format asked for.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// It is no envelope at all: foreign, cut short, or damaged.
    #[error("it is not an envelope, or was cut short or damaged")]
    Malformed(#[source] serde_json::Error),
    /// The bytes are not those that were written.
    #[error("it is damaged: its checksum is {computed:#010x}, but {written:#010x} was written")]
    Checksum {
        /// The checksum in the envelope.
        written: u32,
        /// The checksum of what was read.
        computed: u32,
    },
    /// It is intact, but something else.
    #[error("it is a {found:?} and not a {expected:?}")]
    Format {
        /// What it says it is.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// It was written by a newer release.
    #[error(
        "it was written at format level {found}, and this release reads up to level {newest}: \
         run a newer release"
    )]
    NewerLevel {
        /// The level it was written at.
        found: u32,
        /// The newest level that this release reads.
        newest: u32,
    },
}

fn checksum(format: &str, level: u32, body: &str) -> u32 {
    let checksum = crc32c::crc32c(body.as_bytes());
    let checksum = crc32c::crc32c_append(checksum, format.as_bytes());
    crc32c::crc32c_append(checksum, &level.to_le_bytes())
}

impl<'a> Envelope<'a> {
    /// Puts a body into an envelope.
    ///
    /// # Errors
    /// The body can't be written as JSON.
    pub fn seal<T: Serialize>(format: &str, level: u32, body: &T) -> serde_json::Result<Bytes> {
        let body = serde_json::value::to_raw_value(body)?;
        let crc32c = checksum(format, level, body.get());
        let envelope = Envelope { format: format.to_owned(), level, crc32c, body: &body };
        serde_json::to_vec(&envelope).map(Bytes::from)
    }

    /// Opens an envelope of a format, written at any level up to `newest`.
    ///
    /// # Errors
    /// It is damaged, of another format, or of a newer level.
    pub fn open(
        bytes: &'a [u8],
        expected: &'static str,
        newest: u32,
    ) -> Result<Envelope<'a>, EnvelopeError> {
        let envelope: Envelope<'a> =
            serde_json::from_slice(bytes).map_err(EnvelopeError::Malformed)?;
        let computed = checksum(&envelope.format, envelope.level, envelope.body.get());
        if computed != envelope.crc32c {
            return Err(EnvelopeError::Checksum { written: envelope.crc32c, computed });
        }
        if envelope.format != expected {
            return Err(EnvelopeError::Format { found: envelope.format, expected });
        }
        if envelope.level > newest {
            return Err(EnvelopeError::NewerLevel { found: envelope.level, newest });
        }
        Ok(envelope)
    }

    /// The level that the body was written at.
    #[must_use]
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The body, byte for byte as it was written.
    #[must_use]
    pub fn body(&self) -> &'a str {
        self.body.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> Vec<u8> {
        Envelope::seal("a.format", 1, &serde_json::json!({"a": [1, "ä"], "b": null}))
            .unwrap()
            .to_vec()
    }

    #[test]
    fn what_is_sealed_can_be_opened() {
        let bytes = sealed();
        let envelope = Envelope::open(&bytes, "a.format", 1).unwrap();
        assert_eq!(envelope.level(), 1);
        assert_eq!(envelope.body(), r#"{"a":[1,"ä"],"b":null}"#);
    }

    #[test]
    fn every_other_value_of_every_byte_is_seen() {
        let good = sealed();
        for at in 0..good.len() {
            for flip in 1..=u8::MAX {
                let mut bad = good.clone();
                bad[at] ^= flip;
                assert!(
                    Envelope::open(&bad, "a.format", u32::MAX).is_err(),
                    "byte {at} ^ {flip:#x}"
                );
            }
        }
    }

    #[test]
    fn every_truncation_is_seen() {
        let good = sealed();
        for length in 0..good.len() {
            assert!(Envelope::open(&good[..length], "a.format", 1).is_err(), "{length}");
        }
    }

    #[test]
    fn a_newer_level_is_refused_by_name() {
        let bytes = Envelope::seal("a.format", 3, &1).unwrap();
        let error = Envelope::open(&bytes, "a.format", 1).err().unwrap();
        assert!(matches!(error, EnvelopeError::NewerLevel { found: 3, newest: 1 }), "{error}");
        assert!(error.to_string().contains("level 3") && error.to_string().contains("level 1"));
    }

    #[test]
    fn another_format_is_refused() {
        let error = Envelope::open(&sealed(), "b.format", 1).err().unwrap();
        assert!(matches!(error, EnvelopeError::Format { .. }), "{error}");
    }
}
