//! The foreman: a node's workers.

use std::collections::BTreeMap;

use plinth_system_config::{FORMAT_LEVEL, NodeEntry, NodeSupply, Stamp, Standing};
use plinth_types::{ClusterId, Epoch, NodeId, Pid, ServiceKind, ServiceName, StoreId, Zone};
use serde::{Deserialize, Serialize};

use crate::coordinator::CoordinatorContact;
use crate::{Endpoint, Nothing};

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// It has announced itself.
    Up,
    /// It was started and has not announced itself yet.
    Starting,
    /// It does not run.
    Down,
}

/// A worker of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Worker {
    /// Its name on the node.
    pub name: ServiceName,
    /// Where it stands.
    pub state: WorkerState,
    /// The living process.
    pub pid: Option<Pid>,
    /// Its directory, for a durable one.
    pub store: Option<StoreId>,
    /// Whether something else than the foreman started it.
    pub announced: bool,
    /// How often it has ended by itself since the foreman started.
    pub exits: u32,
    /// The last words of the process before.
    pub last_exit: Option<String>,
    /// The highest format level that the living process reads; none where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format_level: Option<u32>,
}

/// What a node tells the coordinators, every second and at each change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeReport {
    /// The node.
    pub node: NodeId,
    /// What it fails together with.
    pub zone: Zone,
    /// Its foreman.
    pub foreman: Pid,
    /// The cluster id that stands in the foreman's directory.
    pub cluster: Option<ClusterId>,
    /// The kinds of worker that the foreman can make.
    pub kinds: Vec<ServiceKind>,
    /// Its workers.
    pub workers: Vec<Worker>,
    /// Whether every durable worker that has a directory here has announced itself or failed.
    pub settled: bool,
    /// The highest format level that the foreman reads; none where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format_level: Option<u32>,
}

impl NodeReport {
    /// The highest format level that everything on the node reads; none where something does not say, or
    /// has not yet.
    #[must_use]
    pub fn reads(&self) -> Option<u32> {
        let living = self.workers.iter().filter(|worker| worker.state != WorkerState::Down);
        living.map(|worker| worker.format_level).fold(self.format_level, Option::min)
    }

    /// What the node can run.
    #[must_use]
    pub fn supply(&self) -> NodeSupply {
        let mut runs: BTreeMap<ServiceKind, u64> = BTreeMap::new();
        for worker in self.workers.iter().filter(|worker| worker.state == WorkerState::Up) {
            *runs.entry(worker.name.kind).or_default() += 1;
        }
        NodeSupply { node: self.node.clone(), makes: self.kinds.iter().copied().collect(), runs }
    }

    /// The node as the configuration names it.
    #[must_use]
    pub fn entry(&self) -> NodeEntry {
        NodeEntry::new(self.zone.clone(), self.kinds.clone())
    }
}

/// What the coordinators answer to a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeOrders {
    /// The cluster is founded: the foreman writes this id into its directory before it makes a
    /// durable worker.
    #[serde(default)]
    pub cluster: Option<ClusterId>,
    /// The latest epoch.
    #[serde(default)]
    pub epoch: Epoch,
    /// What the administrator has ordered about the node.
    #[serde(default)]
    pub standing: Standing,
    /// The configuration that says so. One that was heard before a newer one counts no more.
    #[serde(default)]
    pub stamp: Stamp,
    /// Where the coordinators answer, as the same configuration says; empty where it does not.
    #[serde(default)]
    pub coordinators: Vec<CoordinatorContact>,
}

/// Asks for workers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema, utoipa::IntoParams)]
pub struct WorkersQuery {
    /// Only of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ServiceKind>,
}

/// A node's workers.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Workers {
    /// In the order of their names.
    pub workers: Vec<Worker>,
}

/// Makes a worker, or returns the one of this name.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CreateWorker {
    /// Its name.
    pub name: ServiceName,
    /// The epoch that wants it.
    pub epoch: Epoch,
    /// How long to wait until it has announced itself, in milliseconds.
    #[serde(default)]
    pub wait_ms: u64,
}

/// Orders a durable worker away that no layout names any more. The foreman obeys only once it has
/// read, linearizably, at the coordinators that the recorded layout does not name the directory and
/// that this epoch is the latest. It renames the directory, and deletes it an hour later.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RetireWorker {
    /// Its name.
    pub name: ServiceName,
    /// Its directory: another one under its name is left alone.
    pub store: StoreId,
    /// The epoch of the director that orders it.
    pub epoch: Epoch,
}

/// A worker makes itself known, every second and at each start.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Announcement {
    /// Its name.
    pub name: ServiceName,
    /// The process.
    pub pid: Pid,
    /// Its directory, for a durable one.
    #[serde(default)]
    pub store: Option<StoreId>,
    /// The highest format level that it reads; none where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format_level: Option<u32>,
}

impl Announcement {
    /// What a process of this release announces.
    #[must_use]
    pub const fn new(name: ServiceName, pid: Pid, store: Option<StoreId>) -> Announcement {
        Announcement { name, pid, store, format_level: Some(FORMAT_LEVEL) }
    }
}

/// The foreman's answer to an announcement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Welcome {
    /// The cluster that the node belongs to; none before the founding. A durable worker makes its
    /// directory only once it is known.
    #[serde(default)]
    pub cluster: Option<ClusterId>,
    /// Where the coordinators answer, as far as the foreman has heard; empty where it has not.
    #[serde(default)]
    pub coordinators: Vec<CoordinatorContact>,
}

/// Asks for health.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema, utoipa::IntoParams)]
pub struct HealthQuery {
    /// How long to wait for it, such as `5s` or `500ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
}

/// The node's health.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Health {
    /// Whether every durable worker that has a directory here has announced itself. A node without
    /// workers is healthy.
    pub healthy: bool,
    /// Those that have not.
    pub missing: Vec<ServiceName>,
}

/// `GET /v1/workers`.
pub const WORKERS: Endpoint<WorkersQuery, Workers> = Endpoint::get("/v1/workers");
/// `POST /v1/workers`.
pub const CREATE: Endpoint<CreateWorker, Worker> = Endpoint::post("/v1/workers");
/// `POST /v1/workers/retire`.
pub const RETIRE: Endpoint<RetireWorker, Nothing> = Endpoint::post("/v1/workers/retire");
/// `POST /v1/workers/announce`.
pub const ANNOUNCE: Endpoint<Announcement, Welcome> = Endpoint::post("/v1/workers/announce");
/// `GET /v1/health`.
pub const HEALTH: Endpoint<HealthQuery, Health> = Endpoint::get("/v1/health");
/// The answer of `DELETE /v1/workers/{name}`.
pub type Deleted = Nothing;
