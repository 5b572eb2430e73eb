//! What outlives the foreman of a worker.

use plinth_types::{Incarnation, ServiceName, StoreId};
use serde::{Deserialize, Serialize};

/// A process as the operating system tells it from others: ids are reused, so the start counts too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process id.
    pub os_pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub start_ticks: u64,
}

/// What outlives the foreman of a worker, in its directory's `workers.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Its name.
    pub name: ServiceName,
    /// Its store, for a durable one.
    #[serde(default)]
    pub store: Option<StoreId>,
    /// Its process, where the foreman started it.
    #[serde(default)]
    pub process: Option<ProcessId>,
    /// What it announced.
    #[serde(default)]
    pub incarnation: Option<Incarnation>,
}
