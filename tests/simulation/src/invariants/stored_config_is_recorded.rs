//! What the storages of the system shard hold durably is the configuration that the coordinators have
//! recorded (invariants 6 and 11).

use plinth_system_config::{SystemConfig, decode_stored};
use plinth_types::ServiceRef;

/// Its name.
pub const NAME: &str = "stored_config_is_recorded";

/// Answers the difference.
#[must_use]
pub fn check(stored: &[u8], recorded: &SystemConfig<ServiceRef>) -> Option<String> {
    let decoded: SystemConfig<ServiceRef> = match decode_stored(stored) {
        Ok(decoded) => decoded,
        Err(error) => return Some(format!("it can't be decoded: {error}")),
    };
    (decoded != *recorded)
        .then(|| format!("it is {}, and recorded is {}", decoded.stamp(), recorded.stamp()))
}
