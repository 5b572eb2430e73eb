//! The coordinator: the epoch and the recorded layout, in Raft.

use plinth_system_config::{BootstrapSource, Recorded, Stamp, SystemConfig};
use plinth_types::{
    ClusterId, ConfigVersion, Epoch, GroupId, Incarnation, NodeId, Pid, ServiceRef, Version,
};
use serde::{Deserialize, Serialize};

use crate::director::PhaseTime;
use crate::foreman::{NodeOrders, NodeReport};
use crate::nodes::NodeStanding;
use crate::{Endpoint, Nothing};

/// The latest appointment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Appointed {
    /// The epoch.
    pub epoch: Epoch,
    /// Which service.
    pub service: ServiceRef,
    /// Which process.
    pub pid: Pid,
    /// Why.
    pub cause: String,
}

/// How a coordinator started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Bootstrap {
    /// `raft`, `peers`, `storage`, `default`, `manifests`; `deciding` before.
    pub source: String,
    /// The storage whose configuration was taken.
    #[serde(default)]
    pub storage: Option<ServiceRef>,
    /// The epoch of what was found.
    pub epoch: Epoch,
    /// The number of what was found.
    pub config_version: ConfigVersion,
    /// Configurations that could not be used, and why.
    pub rejected: Vec<String>,
    /// What it waits for, where it is not decided.
    #[serde(default)]
    pub waiting_for: Option<String>,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = CoordinatorStatus)]
pub struct Status {
    /// Who answers.
    pub service: ServiceRef,
    /// The cluster.
    pub cluster: ClusterId,
    /// The founding of the Raft group; none before it.
    pub group: Option<GroupId>,
    /// The Raft leader, where one is known.
    pub leader: Option<ServiceRef>,
    /// Whether the leader is this one.
    pub is_leader: bool,
    /// The Raft term.
    pub term: u64,
    /// The Raft members.
    pub members: Vec<ServiceRef>,
    /// The latest epoch.
    pub epoch: Epoch,
    /// The latest appointment.
    pub director: Option<Appointed>,
    /// The latest epoch that became ready.
    pub ready_epoch: Epoch,
    /// The phase of the recovery, as the director last told; `accepting_commits` and
    /// `fully_recovered` are ready.
    pub phase: String,
    /// Whether the latest epoch is ready.
    pub ready: bool,
    /// The recorded configuration's number.
    pub config_version: ConfigVersion,
    /// Why nothing goes on, where something is missing.
    #[serde(default)]
    pub problem: Option<String>,
    /// How this coordinator started.
    pub bootstrap: Bootstrap,
}

/// The registry of nodes.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Nodes {
    /// The nodes that have reported lately.
    pub nodes: Vec<NodeReport>,
    /// The nodes that are being drained, are drained or were removed, whether they report or not.
    #[serde(default)]
    pub ordered: Vec<NodeStanding>,
}

/// What the coordinators hold, read linearizably.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Holding {
    /// The cluster.
    pub cluster: ClusterId,
    /// The founding of the group.
    pub group: GroupId,
    /// The Raft members, or those of before a change of the membership that is under way.
    pub coordinators: Vec<plinth_system_config::Coordinator>,
    /// The members after that change; empty where none is under way. A configuration that is recorded
    /// names both.
    #[serde(default)]
    pub next_coordinators: Vec<plinth_system_config::Coordinator>,
    /// The latest appointment.
    pub appointed: Option<Appointed>,
    /// The recorded configuration; none before the first recovery.
    pub recorded: Option<Recorded>,
    /// The configuration of the last ready epoch, whose config team must also confirm.
    pub ready: Option<Recorded>,
    /// No first version may be below this (set by a re-founding).
    pub version_floor: Version,
}

/// Compare-and-set of the layout.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RecordRequest {
    /// The epoch; it must be the latest appointed.
    pub epoch: Epoch,
    /// The director; it must be the latest appointed.
    pub director: Incarnation,
    /// The configuration number that this one follows.
    pub expected: Option<ConfigVersion>,
    /// The new configuration.
    pub recorded: Recorded,
}

/// An epoch has become ready.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReadyRequest {
    /// The epoch; it must be the latest appointed.
    pub epoch: Epoch,
    /// The director; it must be the latest appointed.
    pub director: Incarnation,
    /// What happened.
    pub recovery: Recovery,
}

/// A recovery, as it is told afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Recovery {
    /// The epoch.
    pub epoch: Epoch,
    /// Who.
    pub director: ServiceRef,
    /// Why it began.
    pub cause: String,
    /// When, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// From the appointment to accepted commits, in milliseconds.
    pub duration_ms: u64,
    /// RV.
    pub recovery_version: Version,
    /// The epoch's first version.
    pub first_version: Version,
    /// Logs and storages taken up again.
    pub reused: Vec<ServiceRef>,
    /// Logs and storages made.
    pub made: Vec<ServiceRef>,
    /// The phases with their times.
    pub phases: Vec<PhaseTime>,
    /// The trace that shows it.
    #[serde(default)]
    pub trace_id: Option<String>,
    /// How the storage teams have changed since, within the epoch, oldest first; the last 32.
    #[serde(default)]
    pub changes: Vec<TeamChange>,
}

/// A change of storage teams within an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TeamChange {
    /// When it was recorded, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The configuration that it made.
    pub config_version: ConfigVersion,
    /// What has changed, in words.
    pub what: String,
}

/// The recoveries, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Recoveries {
    /// At most the last 32.
    pub recoveries: Vec<Recovery>,
}

/// Begins a new epoch.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BeginRecovery {
    /// Why. 1 to 512 characters.
    #[schema(min_length = 1, max_length = 512)]
    pub reason: String,
}

/// The epoch that was begun.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = RecoveryBegun)]
pub struct Begun {
    /// The epoch that ends.
    pub superseded: Epoch,
}

/// What an operator may have done where the cluster can't go on by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RecoveryPlan {
    /// Names this plan and no other one: it changes with anything in it.
    pub id: String,
    /// What the cluster waits for, or can't decide.
    pub problem: String,
    /// What is done, in words.
    pub action: String,
    /// Where the configuration is from: `raft`, `storage`, `manifests`, or `default` for none.
    pub source: BootstrapSource,
    /// The worker that keeps it, where a single one does.
    #[serde(default)]
    pub storage: Option<ServiceRef>,
    /// The members of the coordinators' group.
    pub coordinators: Vec<ServiceRef>,
    /// What may be lost, each in a sentence. Where it is empty, nothing is.
    pub risks: Vec<String>,
    /// The configuration that the cluster goes on from; none where it begins anew.
    #[serde(default)]
    pub recorded: Option<Recorded>,
}

/// Has a plan carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CarryOut {
    /// The plan's id. If the plan is another one by now, nothing is done.
    #[schema(min_length = 1, max_length = 64)]
    pub id: String,
}

/// A plan was carried out. The cluster goes on by itself from here: `/v1/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CarriedOut {
    /// What was done, in words.
    pub action: String,
}

/// What the cluster can still bear. Counted in nodes, the worst choice of them each time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClusterHealth {
    /// Whether commits are accepted and nothing is missing.
    pub healthy: bool,
    /// How many nodes may be lost for good, their disks included, without a loss of data. None where
    /// it is not known, or where some data has no living copy now.
    pub may_lose_for_data: Option<u32>,
    /// How many nodes may be lost with commits accepted again after a recovery. None where they are
    /// not accepted now.
    pub may_lose_for_availability: Option<u32>,
    /// What is wrong, in words.
    pub reasons: Vec<String>,
}

/// A director tells why it exits, before it does.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Farewell {
    /// Its epoch.
    pub epoch: Epoch,
    /// The director.
    pub director: Incarnation,
    /// Why.
    pub reason: String,
    /// Peers that did not answer.
    #[serde(default)]
    pub suspects: Vec<ServiceRef>,
    /// A later epoch that somebody has served or was locked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later: Option<Epoch>,
}

/// A process of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProcessRow {
    /// Its service name.
    pub service: String,
    /// Its node.
    pub node: NodeId,
    /// The operating system's process id.
    pub os_pid: u32,
    /// Where it answers.
    pub url: String,
    /// `active` and `standby` directors, `leader` and `follower` coordinators, `serving` others.
    pub role: String,
}

/// The processes of the cluster.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Processes {
    /// In the order of node and name.
    pub processes: Vec<ProcessRow>,
}

/// What a coordinator tells its peers while they decide what to start from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BootstrapReport {
    /// Who.
    pub service: ServiceRef,
    /// Its identity in Raft, made with its store.
    pub raft_id: u64,
    /// The group it belongs to; none where its Raft store is empty.
    pub group: Option<GroupId>,
    /// What its Raft store records.
    pub recorded: Option<(Epoch, ConfigVersion)>,
    /// The latest epoch its Raft store knows.
    pub epoch: Epoch,
    /// The highest ballot it has promised.
    pub promised: u64,
    /// The founding it has accepted, where that is not its group yet.
    #[serde(default)]
    pub formatted: Option<GroupId>,
    /// Whether it has voted or taken entries in its group.
    #[serde(default)]
    pub running: bool,
    /// The voting members of its group.
    #[serde(default)]
    pub members: Vec<ServiceRef>,
    /// Those that the group is changing to; empty where it is not.
    #[serde(default)]
    pub next_members: Vec<ServiceRef>,
    /// The group that it waits to be let into.
    #[serde(default)]
    pub joining: Option<GroupId>,
    /// The configuration that its Raft store records, entries included that are not applied yet.
    #[serde(default)]
    pub configuration: Option<Recorded>,
    /// The nodes that have reported to it lately.
    #[serde(default)]
    pub nodes: Vec<NodeReport>,
}

/// A founding: membership and id of a Raft group, and what it starts from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Founding {
    /// The group.
    pub group: GroupId,
    /// Its members.
    pub members: Vec<FoundingMember>,
    /// The configuration it starts from; none at a cold start.
    pub recorded: Option<Recorded>,
    /// No epoch of the group is at or below this.
    pub epoch_floor: Epoch,
    /// No first version of the group is below this.
    pub version_floor: Version,
    /// Where the configuration came from.
    pub source: String,
    /// The storage it came from.
    #[serde(default)]
    pub storage: Option<ServiceRef>,
}

/// A member of a founding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FoundingMember {
    /// Which service.
    pub service: ServiceRef,
    /// Its identity in Raft.
    pub raft_id: u64,
    /// `host:port`.
    pub address: String,
}

/// Asks for a promise to take part in no lower ballot.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PromiseRequest {
    /// The ballot.
    pub ballot: u64,
    /// Groups that are lost for good: who belongs to one renounces it, durably.
    #[serde(default)]
    pub renounce: Vec<GroupId>,
}

/// The promise, durable.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Promise {
    /// The highest ballot promised.
    pub promised: u64,
    /// Whether that is the one asked for.
    pub granted: bool,
    /// What was accepted in an earlier ballot.
    pub accepted: Option<(u64, Founding)>,
    /// The group it already belongs to.
    pub group: Option<GroupId>,
    /// Its identity in Raft.
    #[serde(default)]
    pub raft_id: u64,
}

/// Asks to accept a founding.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AcceptRequest {
    /// The ballot.
    pub ballot: u64,
    /// The founding.
    pub founding: Founding,
}

/// Whether it was accepted, durably.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Accepted {
    /// Whether it was.
    pub accepted: bool,
}

/// The members of the Raft group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Members {
    /// The founding of the group.
    pub group: GroupId,
    /// In the order of their names.
    pub members: Vec<FoundingMember>,
    /// The members after a change that is under way; empty where none is.
    #[serde(default)]
    pub next_members: Vec<FoundingMember>,
    /// The recorded configuration, by which newer lists are told from older ones.
    #[serde(default)]
    pub stamp: Stamp,
}

/// Where a coordinator answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CoordinatorContact {
    /// Which service.
    pub service: ServiceRef,
    /// `host:port`, the host resolved at each connect.
    pub address: String,
}

/// A coordinator asks the group to know it: one that has lost its votes, under a new identity in place of
/// the member of the same name; one that answers elsewhere than before, under the identity that it has;
/// one that is to be let in, when it has a new identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JoinRequest {
    /// The group.
    pub group: GroupId,
    /// Who joins.
    pub member: FoundingMember,
}

/// `GET /v1/status`.
pub const STATUS: Endpoint<Nothing, Status> = Endpoint::get("/v1/status");
/// `GET /v1/nodes`.
pub const NODES: Endpoint<Nothing, Nodes> = Endpoint::get("/v1/nodes");
/// `POST /v1/nodes`.
pub const REPORT: Endpoint<NodeReport, NodeOrders> = Endpoint::post("/v1/nodes");
/// `GET /v1/holding`: a linearizable read.
pub const HOLDING: Endpoint<Nothing, Holding> = Endpoint::get("/v1/holding");
/// `PUT /v1/holding`: the compare-and-set.
pub const RECORD: Endpoint<RecordRequest, Nothing> = Endpoint::put("/v1/holding");
/// `PUT /v1/ready`.
pub const READY: Endpoint<ReadyRequest, Nothing> = Endpoint::put("/v1/ready");
/// `PUT /v1/farewell`.
pub const FAREWELL: Endpoint<Farewell, Nothing> = Endpoint::put("/v1/farewell");
/// `GET /v1/recoveries`.
pub const RECOVERIES: Endpoint<Nothing, Recoveries> = Endpoint::get("/v1/recoveries");
/// `POST /v1/recoveries`.
pub const BEGIN_RECOVERY: Endpoint<BeginRecovery, Begun> = Endpoint::post("/v1/recoveries");
/// `GET /v1/recovery_plan`.
pub const RECOVERY_PLAN: Endpoint<Nothing, RecoveryPlan> = Endpoint::get("/v1/recovery_plan");
/// `POST /v1/recovery_plan`.
pub const CARRY_OUT: Endpoint<CarryOut, CarriedOut> = Endpoint::post("/v1/recovery_plan");
/// `GET /v1/processes`.
pub const PROCESSES: Endpoint<Nothing, Processes> = Endpoint::get("/v1/processes");
/// `GET /v1/bootstrap`.
pub const BOOTSTRAP: Endpoint<Nothing, BootstrapReport> = Endpoint::get("/v1/bootstrap");
/// `POST /v1/ballots/promise`.
pub const PROMISE: Endpoint<PromiseRequest, Promise> = Endpoint::post("/v1/ballots/promise");
/// `POST /v1/ballots/accept`.
pub const ACCEPT: Endpoint<AcceptRequest, Accepted> = Endpoint::post("/v1/ballots/accept");
/// `POST /v1/ballots/chosen`: the founding has been accepted by all who must.
pub const CHOSEN: Endpoint<AcceptRequest, Accepted> = Endpoint::post("/v1/ballots/chosen");
/// `GET /v1/cluster/health`.
pub const HEALTH: Endpoint<Nothing, ClusterHealth> = Endpoint::get("/v1/cluster/health");
/// `GET /v1/config`.
pub const CONFIG: Endpoint<Nothing, SystemConfig<ServiceRef>> = Endpoint::get("/v1/config");
/// `GET /v1/members`.
pub const MEMBERS: Endpoint<Nothing, Members> = Endpoint::get("/v1/members");
/// `POST /v1/joining`.
pub const JOIN: Endpoint<JoinRequest, Nothing> = Endpoint::post("/v1/joining");
