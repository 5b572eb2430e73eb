//! What every service answers.

use plinth_types::{Epoch, NodeId, Pid, ServiceRef, Version};
use serde::{Deserialize, Serialize};

use crate::{Endpoint, Nothing};

/// Who a process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Info {
    /// Which service.
    pub service: ServiceRef,
    /// On which node.
    pub node: NodeId,
    /// Which process.
    pub pid: Pid,
    /// The epoch it acts in; 0 outside of one.
    pub epoch: Epoch,
    /// The newest commit version it knows, where that means something.
    pub version: Option<Version>,
    /// The release that runs.
    #[serde(default)]
    pub release: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
}

/// `GET /v1/info`.
pub const INFO: Endpoint<Nothing, Info> = Endpoint::get("/v1/info");

/// The path of the monitor stream: one JSON object a line.
pub const MONITOR_PATH: &str = "/v1/monitor";

/// A line of the monitor stream, every 100 ms while the process lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MonitorLine {
    /// The epoch it acts in; 0 outside of one.
    pub epoch: Epoch,
    /// What it is doing, such as a recovery phase.
    pub state: String,
    /// In the last line: why it exits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<String>,
}

/// A named check of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// `GET /readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Readiness {
    /// Whether every check holds.
    pub ready: bool,
    /// The checks that fail; with `?verbose` those that hold too.
    pub checks: Vec<Check>,
}
