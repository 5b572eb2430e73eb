//! Raft's timing and limits.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, ConfigError, SnapshotPolicy};

use crate::config::{
    ELECTION, ENTRIES_KEPT, ENTRIES_PER_MESSAGE, HEARTBEAT, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_ENTRIES,
};

/// Raft's configuration.
///
/// # Errors
/// Limits that contradict each other.
pub(crate) fn config() -> Result<Arc<Config>, Box<ConfigError>> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: "plinth".to_owned(),
        heartbeat_interval: ms(HEARTBEAT),
        election_timeout_min: ms(ELECTION[0]),
        election_timeout_max: ms(ELECTION[1]),
        install_snapshot_timeout: 2_000,
        max_payload_entries: ENTRIES_PER_MESSAGE,
        replication_lag_threshold: SNAPSHOT_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
        snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES,
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        ..Config::default()
    };
    Ok(Arc::new(config.validate().map_err(Box::new)?))
}
