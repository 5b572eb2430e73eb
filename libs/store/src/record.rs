//! A durable record: a format byte, the CRC-32C of what follows, and the value in postcard. So a
//! damaged record is detected, not merely hoped to fail parsing.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

const HEADER: usize = 5;

/// Why bytes are not the record that they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Too short, or the checksum does not match.
    #[error("its checksum does not match")]
    Checksum,
    /// A format that this release does not know.
    #[error("its format is {found}, and this release reads format {known}")]
    Format {
        /// The format found.
        found: u8,
        /// The format that is known.
        known: u8,
    },
    /// Intact, but not such a value.
    #[error("it is not of its format: {0}")]
    Body(String),
}

/// Writes a value as a record of `format`.
///
/// # Errors
/// [`RecordError::Body`] where the value can't be written.
pub fn seal<T: Serialize>(format: u8, value: &T) -> Result<Bytes, RecordError> {
    let body = |error: postcard::Error| RecordError::Body(error.to_string());
    let mut bytes = vec![format, 0, 0, 0, 0];
    bytes = postcard::to_extend(value, bytes).map_err(body)?;
    let checksum = checksum(format, &bytes[HEADER..]);
    bytes[1..HEADER].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes.into())
}

/// Reads a record of `format`.
///
/// # Errors
/// Any [`RecordError`].
pub fn open<T: DeserializeOwned>(format: u8, bytes: &[u8]) -> Result<T, RecordError> {
    let (&[found, a, b, c, d], body) =
        bytes.split_first_chunk::<HEADER>().ok_or(RecordError::Checksum)?;
    if checksum(found, body) != u32::from_le_bytes([a, b, c, d]) {
        return Err(RecordError::Checksum);
    }
    if found != format {
        return Err(RecordError::Format { found, known: format });
    }
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(RecordError::Body(format!("{} bytes are left over", rest.len()))),
        Err(error) => Err(RecordError::Body(error.to_string())),
    }
}

/// The format byte is covered too: a turned bit there must not look like another release's record.
fn checksum(format: u8, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[format]), body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_sealed_opens(format: u8, value: (u64, String, Option<Vec<u8>>)) {
            let bytes = seal(format, &value).unwrap();
            prop_assert_eq!(open(format, &bytes), Ok(value));
        }

        #[test]
        fn a_turned_bit_is_noticed(value: (u64, String), bit: prop::sample::Index) {
            let mut bytes = seal(1, &value).unwrap().to_vec();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(open::<(u64, String)>(1, &bytes), Err(RecordError::Checksum));
        }
    }

    #[test]
    fn another_format_and_a_torn_record_are_named() {
        let bytes = seal(2, &7_u64).unwrap();
        assert_eq!(open::<u64>(1, &bytes), Err(RecordError::Format { found: 2, known: 1 }));
        assert_eq!(open::<u64>(2, &bytes[..3]), Err(RecordError::Checksum));
    }
}
