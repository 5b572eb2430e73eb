//! How a configuration is written and read.
//!
//! The bytes are an [`Envelope`] at the cluster's `format_level`, which the operator raises when
//! every node supports it: releases of two levels can then run side by side. The same value gives
//! the same bytes everywhere, so replicas can be compared.

use bytes::Bytes;
use plinth_types::ServiceRef;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::migration::{downgrade, upgrade};
use crate::{
    Directory, Envelope, EnvelopeError, FORMAT_LEVEL, MigrationError, Recorded, Service,
    ShardSummary, SystemConfig, UnknownPid,
};

/// Why a configuration can't be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// A process whose service is not known.
    #[error(transparent)]
    UnknownPid(#[from] UnknownPid),
    /// The cluster's level is above what this release writes.
    #[error("the cluster's format level is {level}, and this release writes up to level {newest}")]
    NewerLevel {
        /// The cluster's level.
        level: u32,
        /// The newest level that this release writes.
        newest: u32,
    },
    /// The cluster's level can't express it.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// The shards are not those that the configuration sums up.
    #[error(transparent)]
    Shards(#[from] ShardMismatch),
    /// It can't be written as JSON.
    #[error("the configuration can't be written as JSON")]
    Json(#[source] serde_json::Error),
}

/// Why bytes are not a configuration.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The envelope is damaged, of another format, or of a newer level.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// An older level could not be brought up.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// The body is intact, but not what the level calls for.
    #[error("the configuration's body is not of its format")]
    Body(#[source] serde_json::Error),
    /// The shards are not those that the configuration sums up.
    #[error(transparent)]
    Shards(#[from] ShardMismatch),
    /// A row of the shard map can't be read.
    #[error("the row {key:?} is not a shard")]
    ShardRow {
        /// The row's key.
        key: plinth_types::Key,
    },
}

impl DecodeError {
    /// Whether the bytes are not those that were written, rather than written by a release that this
    /// one can't read. Only damage may be written over.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(
            self,
            DecodeError::Envelope(EnvelopeError::Malformed(_) | EnvelopeError::Checksum { .. })
        )
    }
}

/// The shards at hand are not those that the configuration sums up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the configuration sums up {} shards with checksum {:#010x}, but there are {} with {:#010x}",
    expected.count, expected.checksum, found.count, found.checksum
)]
pub struct ShardMismatch {
    /// What the configuration says.
    pub expected: ShardSummary,
    /// What is there.
    pub found: ShardSummary,
}

impl Recorded {
    /// Whether the shards are those that the configuration sums up.
    ///
    /// # Errors
    /// They are not.
    pub fn check_shards(&self) -> Result<(), ShardMismatch> {
        let (expected, found) = (self.config.shards, self.shards.summary());
        if expected == found { Ok(()) } else { Err(ShardMismatch { expected, found }) }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::SystemConfig<super::ServiceRef> {}
    impl Sealed for super::Recorded {}
}

/// What can be written: it names services only by what survives them.
pub trait Stored: Serialize + DeserializeOwned + sealed::Sealed {
    /// The format's name in the envelope.
    const FORMAT: &'static str;
    /// The level that the cluster writes at.
    fn level(&self) -> u32;
    /// The configuration within the body, which is what levels differ in.
    fn config_in(body: &mut Value) -> Option<&mut Value>;
    /// Whether its parts agree with each other.
    ///
    /// # Errors
    /// They do not.
    fn check(&self) -> Result<(), ShardMismatch>;
}

impl Stored for SystemConfig<ServiceRef> {
    const FORMAT: &'static str = "plinth.system-config";

    fn level(&self) -> u32 {
        self.format_level
    }

    fn config_in(body: &mut Value) -> Option<&mut Value> {
        Some(body)
    }

    fn check(&self) -> Result<(), ShardMismatch> {
        Ok(())
    }
}

impl Stored for Recorded {
    const FORMAT: &'static str = "plinth.recorded";

    fn level(&self) -> u32 {
        self.config.format_level
    }

    fn config_in(body: &mut Value) -> Option<&mut Value> {
        body.get_mut("config")
    }

    fn check(&self) -> Result<(), ShardMismatch> {
        self.check_shards()
    }
}

/// Writes a configuration as memory knows it.
///
/// # Errors
/// A process that the directory does not know, or a level that can't be written.
pub fn encode(config: &SystemConfig<Service>, directory: &Directory) -> Result<Bytes, EncodeError> {
    encode_stored(&config.to_stored(directory)?)
}

/// Reads a configuration as memory knows it: every service comes back, up where the directory
/// knows its process, else down.
///
/// # Errors
/// The bytes are damaged, of another format, or of a newer level.
pub fn decode(bytes: &[u8], directory: &Directory) -> Result<SystemConfig<Service>, DecodeError> {
    let stored: SystemConfig<ServiceRef> = decode_stored(bytes)?;
    Ok(stored.to_memory(directory))
}

/// Writes a configuration, alone or with its shards, that already is in its written form.
///
/// # Errors
/// A level that can't be written, or shards that the configuration does not sum up.
pub fn encode_stored<T: Stored>(value: &T) -> Result<Bytes, EncodeError> {
    value.check()?;
    let level = value.level();
    if level > FORMAT_LEVEL {
        return Err(EncodeError::NewerLevel { level, newest: FORMAT_LEVEL });
    }
    if level == FORMAT_LEVEL {
        return Envelope::seal(T::FORMAT, level, value).map_err(EncodeError::Json);
    }
    let mut body = serde_json::to_value(value).map_err(EncodeError::Json)?;
    if let Some(config) = T::config_in(&mut body) {
        downgrade(config, level)?;
    }
    Envelope::seal(T::FORMAT, level, &body).map_err(EncodeError::Json)
}

/// Reads a configuration, alone or with its shards, in its written form. An older level is
/// migrated; fields that this release does not know are ignored.
///
/// # Errors
/// The bytes are damaged, of another format, or of a newer level, or the shards are not those that
/// the configuration sums up.
pub fn decode_stored<T: Stored>(bytes: &[u8]) -> Result<T, DecodeError> {
    let envelope = Envelope::open(bytes, T::FORMAT, FORMAT_LEVEL)?;
    let value: T = if envelope.level() == FORMAT_LEVEL {
        serde_json::from_str(envelope.body()).map_err(DecodeError::Body)?
    } else {
        let mut body: Value = serde_json::from_str(envelope.body()).map_err(DecodeError::Body)?;
        if let Some(config) = T::config_in(&mut body) {
            upgrade(config, envelope.level())?;
        }
        serde_json::from_value(body).map_err(DecodeError::Body)?
    };
    value.check()?;
    Ok(value)
}

/// The same, or what is wrong with bytes that are damaged.
///
/// # Errors
/// The bytes are of another format or of a newer level.
pub fn decode_or_damage<T: Stored>(bytes: &[u8]) -> Result<Result<T, String>, DecodeError> {
    match decode_stored(bytes) {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.is_damage() => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}
