//! The director: recovery, the system transaction, monitoring.

use plinth_system_config::{Recorded, Service, SystemConfig};
use plinth_types::{Epoch, Incarnation, Pid, ServiceRef, StoreId, Tag};
use serde::{Deserialize, Serialize};

use crate::{Endpoint, Nothing};

/// Begins an epoch. A director serves one epoch in its life.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Appointment {
    /// The epoch, durable in Raft before the director hears of it.
    pub epoch: Epoch,
    /// The director's process; another one refuses.
    pub director: Incarnation,
    /// Why the epoch begins.
    pub cause: String,
    /// The peers that the last exit named as unable to talk to each other.
    #[serde(default)]
    pub suspects: Vec<ServiceRef>,
    /// Milliseconds since the coordinators' group started: recovery is patient in the first 5 s.
    pub group_age_ms: u64,
}

/// Ends a director whose epoch is over although it lives: it exits, and its foreman starts another.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Dismissal {
    /// The epoch that is over. A director of another one does nothing. One that stands by was meant to
    /// have it, and is not appointed any more: it makes way, too.
    pub epoch: Epoch,
    /// The director's process; another one refuses.
    pub director: Incarnation,
    /// Why the epoch is over.
    pub reason: String,
}

/// A phase of a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PhaseTime {
    /// Its name.
    pub name: String,
    /// When it began, in milliseconds after the appointment.
    pub started_ms: u64,
    /// How long it took; absent while it lasts.
    #[serde(default)]
    pub duration_ms: Option<u64>,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = DirectorStatus)]
pub struct Status {
    /// The epoch; 0 while it stands by.
    pub epoch: Epoch,
    /// The phase it is in; `standby` before an appointment.
    pub phase: String,
    /// Why it waits, where a phase lacks something.
    #[serde(default)]
    pub stalled: Option<String>,
    /// The phases so far.
    pub phases: Vec<PhaseTime>,
    /// How many transactions may begin; absent until commits are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateStatus>,
    /// Storages that are being given a copy.
    #[serde(default)]
    pub copies: Vec<CopyProgress>,
    /// Where there are fewer copies than there should be, or where copies or logs share a zone, in words.
    #[serde(default)]
    pub degraded: Vec<String>,
}

/// How many transactions may begin in the cluster, and what limits them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RateStatus {
    /// Transactions a second; absent where nothing limits them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u64>,
    /// Who limits them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<ServiceRef>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How the storages that answer stand.
    pub storages: Vec<StorageStanding>,
}

/// How a storage stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StorageStanding {
    /// Which.
    pub service: ServiceRef,
    /// For how long something has been committed that it has not made durable, in milliseconds.
    pub lag_ms: u64,
    /// Bytes of versions that it holds in memory.
    pub queue_bytes: u64,
    /// Whether its lag limits the rate: not while it catches up, nor when it has lost touch.
    pub heeded: bool,
}

/// How far a storage is that joins the team of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CopyProgress {
    /// The tag.
    pub tag: Tag,
    /// The newcomer.
    pub service: ServiceRef,
    /// Its directory.
    pub store: StoreId,
    /// The member that leaves once the copy is whole; none where the team grows.
    #[serde(default)]
    pub replaces: Option<ServiceRef>,
    /// Keys that have come, durably. With the bytes, 0 while the newcomer does not answer.
    pub keys: u64,
    /// Bytes of keys and values that have come.
    pub bytes: u64,
    /// Bytes that the logs keep for it, about.
    pub backlog_bytes: u64,
    /// `waiting`, `copying`, `catching_up` or `whole`.
    pub state: String,
}

/// A service's reference and its process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Placed {
    /// Which service.
    pub service: ServiceRef,
    /// The process.
    pub pid: Pid,
}

/// The layout as it lives: with Pids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LiveLayout {
    /// Changes with each change of the layout or of a Pid in it; long polls go by it.
    pub index: u64,
    /// Whether commits are accepted.
    pub accepting_commits: bool,
    /// The configuration with services as they are.
    pub config: SystemConfig<Service>,
    /// As it is recorded: the same with references.
    pub recorded: Recorded,
    /// Who is who: every Pid in `config`.
    pub directory: Vec<Placed>,
}

/// Asks for the live layout.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema, utoipa::IntoParams)]
pub struct LayoutQuery {
    /// Answer once the index is another than this, or after `wait_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// How long to wait, in milliseconds. At most 30,000.
    #[serde(default)]
    pub wait_ms: u64,
}

/// `PUT /v1/appointment`.
pub const APPOINT: Endpoint<Appointment, Nothing> = Endpoint::put("/v1/appointment");
/// `PUT /v1/dismissal`.
pub const DISMISS: Endpoint<Dismissal, Nothing> = Endpoint::put("/v1/dismissal");
/// `GET /v1/layout`.
pub const LAYOUT: Endpoint<LayoutQuery, LiveLayout> = Endpoint::get("/v1/layout");
/// `GET /v1/status`.
pub const STATUS: Endpoint<Nothing, Status> = Endpoint::get("/v1/status");
