//! A cluster that is played over HTTP, with parts that fall silent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use plinth_api::commit_proxy::{CommitRequest, Committed, ReadVersion, ReadVersionRequest};
use plinth_api::coordinator::{
    Appointed, Bootstrap, BootstrapReport, ProcessRow, Processes, Status,
};
use plinth_api::director::{LayoutQuery, LiveLayout};
use plinth_api::storage::{
    KeysAnswer, KeysRead, ReadAnswer, ReadBatch, ReadBatchAnswer, ReadRequest, WatchAnswer,
    WatchRequest,
};
use plinth_api::{ErrorCode, Problem, Target};
use plinth_client::Database;
use plinth_runtime::{Runtime, Scope, ScopeGuard};
use plinth_service::{
    Answer, Failure, Host, HostOptions, Json, Peers, Query, Routes, Secrets, Sender, Transport,
};
use plinth_system_config::{
    Layout, Parameters, Policies, Recorded, ResolverEntry, Service, ShardMap, StorageMember,
    StorageTeam, SystemConfig,
};
use plinth_types::{
    ClusterId, ConfigVersion, Epoch, GroupId, KeyRange, Pid, ServiceRef, StoreId, Value, Version,
};
use utoipa_axum::routes;

use crate::memory::Memory;

/// Long enough for any machine; what is asserted of time stays far below.
pub(crate) const WITHIN: Duration = Duration::from_secs(20);

/// A process that plays coordinator, director, commit proxy and storage: their paths differ.
#[derive(Clone)]
pub(crate) struct Played(Arc<Mutex<Script>>);

#[derive(Default)]
pub(crate) struct Script {
    pub(crate) status: Option<Status>,
    row: Option<ProcessRow>,
    pub(crate) layout: Option<LiveLayout>,
    /// The director answers no poll.
    pub(crate) director_silent: bool,
    /// The proxy and the storage answer nothing.
    pub(crate) proxy_silent: bool,
    pub(crate) storage_silent: bool,
    /// What the proxy answers to the next commits, before it commits.
    pub(crate) refusals: Vec<ErrorCode>,
    pub(crate) commits: Vec<CommitRequest>,
    pub(crate) read_versions: usize,
    /// For how many transactions each of those was.
    pub(crate) asked_for: Vec<u32>,
    /// How many of them the proxy lets begin; all if absent.
    pub(crate) granted: Option<u32>,
    /// How many keys each batch of reads had.
    pub(crate) batches: Vec<usize>,
    /// No batch is answered before this is true.
    pub(crate) hold: Option<tokio::sync::watch::Receiver<bool>>,
    /// No version that a batch asks for has arrived.
    pub(crate) batches_are_early: bool,
    /// A whole cluster's data, where there is to be some.
    pub(crate) memory: Option<Memory>,
}

impl Played {
    pub(crate) fn script<T>(&self, act: impl FnOnce(&mut Script) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }
}

async fn silence(silent: bool) {
    if silent {
        std::future::pending::<()>().await;
    }
}

fn not_ready() -> Failure {
    Failure::new(ErrorCode::NotReady, "not played")
}

#[utoipa::path(get, path = "/v1/status", responses((status = 200)))]
async fn status(State(played): State<Played>) -> Answer<Status> {
    played.script(|script| script.status.clone()).map(Json).ok_or_else(not_ready)
}

/// The one who is asked is the coordinator.
#[utoipa::path(get, path = "/v1/processes", responses((status = 200)))]
async fn processes(State(played): State<Played>) -> Answer<Processes> {
    let row = played.script(|script| script.row.clone()).ok_or_else(not_ready)?;
    Ok(Json(Processes { processes: vec![row] }))
}

#[utoipa::path(get, path = "/v1/bootstrap", responses((status = 200)))]
async fn bootstrap() -> Answer<BootstrapReport> {
    Err(not_ready())
}

#[utoipa::path(get, path = "/v1/layout", responses((status = 200)))]
async fn layout(
    State(played): State<Played>,
    Query(query): Query<LayoutQuery>,
) -> Answer<LiveLayout> {
    silence(played.script(|script| script.director_silent)).await;
    let layout = played.script(|script| script.layout.clone()).ok_or_else(not_ready)?;
    // Nothing changes in a played layout: a poll for news waits for ever.
    silence(query.index == Some(layout.index)).await;
    Ok(Json(layout))
}

#[utoipa::path(post, path = "/v1/read_versions", responses((status = 200)))]
async fn read_version(
    State(played): State<Played>,
    Json(request): Json<ReadVersionRequest>,
) -> Answer<ReadVersion> {
    let silent = played.script(|script| {
        script.read_versions += 1;
        script.proxy_silent
    });
    silence(silent).await;
    let version = played.script(|script| script.memory.as_ref().map(Memory::version));
    let version = version.unwrap_or(Version(request.epoch.0 * 100));
    let granted = played.script(|script| {
        script.asked_for.push(request.count);
        script.granted
    });
    Ok(Json(ReadVersion { version, granted }))
}

#[utoipa::path(post, path = "/v1/commits", responses((status = 200)))]
async fn commit(
    State(played): State<Played>,
    Json(request): Json<CommitRequest>,
) -> Answer<Committed> {
    let (silent, refusal, remembered) = played.script(|script| {
        script.commits.push(request.clone());
        let remembered = script.memory.as_mut().map(|memory| memory.commit(request));
        (script.proxy_silent, script.refusals.pop(), remembered)
    });
    silence(silent).await;
    if let Some(result) = remembered {
        return result.map(Json).map_err(|code| Failure::new(code, "played"));
    }
    match refusal {
        Some(code) => Err(Failure::from(Problem::new(code, "played"))),
        None => Ok(Json(Committed { version: Version(900), index: 0 })),
    }
}

#[utoipa::path(post, path = "/v1/reads", responses((status = 200)))]
async fn read(
    State(played): State<Played>,
    Json(request): Json<ReadRequest>,
) -> Answer<ReadAnswer> {
    silence(played.script(|script| script.storage_silent)).await;
    if let Some(result) =
        played.script(|script| script.memory.as_ref().map(|memory| memory.read(&request)))
    {
        return result.map(Json).map_err(|code| Failure::new(code, "played"));
    }
    let values =
        request.keys.iter().map(|key| (key.as_bytes() != b"none").then(|| Value::from("v")));
    let version = request.version;
    Ok(Json(ReadAnswer { version, values: values.collect(), ranges: vec![] }))
}

#[utoipa::path(post, path = "/v1/read_batches", responses((status = 200)))]
async fn read_batch(
    State(played): State<Played>,
    Json(batch): Json<ReadBatch>,
) -> Answer<ReadBatchAnswer> {
    played.script(|script| script.batches.push(batch.reads.iter().map(|r| r.keys.len()).sum()));
    let hold = played.script(|script| script.hold.clone());
    if let Some(mut hold) = hold {
        hold.wait_for(|open| *open).await.unwrap();
    }
    let mut reads = Vec::new();
    for KeysRead { version, newest, keys } in batch.reads {
        if played.script(|script| script.batches_are_early) {
            let problem = Some(Problem::new(ErrorCode::FutureVersion, "played"));
            reads.push(KeysAnswer { version, values: vec![], problem });
            continue;
        }
        let request = ReadRequest { epoch: batch.epoch, version, newest, keys, ranges: vec![] };
        reads.push(match read(State(played.clone()), Json(request)).await {
            Ok(Json(ReadAnswer { version, values, .. })) => {
                KeysAnswer { version, values, problem: None }
            }
            Err(Failure(problem)) => {
                KeysAnswer { version, values: vec![], problem: Some(*problem) }
            }
        });
    }
    Ok(Json(ReadBatchAnswer { reads }))
}

#[utoipa::path(post, path = "/v1/watches", responses((status = 200)))]
async fn watch(
    State(played): State<Played>,
    Json(request): Json<WatchRequest>,
) -> Answer<WatchAnswer> {
    silence(played.script(|script| script.storage_silent)).await;
    let version = request.from.plus(1);
    let value = (request.key.as_bytes() != b"none").then(|| Value::from("v"));
    let changed = value != request.seen;
    if !changed {
        tokio::time::sleep(Duration::from_millis(request.wait_ms.min(20))).await;
    }
    Ok(Json(WatchAnswer { changed, value: value.filter(|_| changed), version }))
}

/// Two played processes and a client. The first one is the coordinator.
pub(crate) struct World {
    _end: ScopeGuard,
    pub(crate) first: Played,
    pub(crate) second: Played,
    pids: [Pid; 2],
    pub(crate) database: Database,
}

/// How the coordinator stands among the processes.
fn row_of(pid: &Pid) -> ProcessRow {
    ProcessRow {
        service: "coordinator-1".to_owned(),
        node: pid.node.clone(),
        os_pid: pid.os_pid,
        url: format!("http://{}", pid.address),
        role: "leader".to_owned(),
    }
}

fn service(name: &str) -> ServiceRef {
    name.parse().unwrap()
}

async fn play(scope: &Scope, name: &str, secrets: Secrets) -> (Played, Pid) {
    let options = HostOptions {
        service: service(name),
        bind: "127.0.0.1:0".to_owned(),
        advertise: None,
        cluster: None,
        secrets,
    };
    let host = Host::bind(Runtime::real(), options).await.unwrap();
    let pid = host.context().pid().clone();
    let played = Played(Arc::default());
    played.script(|script| script.row = Some(row_of(&pid)));
    let routes = Routes::new()
        .anyone(routes!(processes))
        .service(routes!(status))
        .service(routes!(bootstrap))
        .service(routes!(layout))
        .service(routes!(read_version))
        .service(routes!(commit))
        .service(routes!(read))
        .service(routes!(read_batch))
        .service(routes!(watch))
        .with_state(played.clone());
    drop(scope.spawn("played", host.run(routes, std::future::pending())));
    (played, pid)
}

impl World {
    pub(crate) async fn new() -> World {
        World::with(Secrets::default()).await
    }

    /// One whose processes go by these secrets.
    pub(crate) async fn with(secrets: Secrets) -> World {
        let (scope, end) = Scope::new();
        let (first, first_pid) = play(&scope, "director-1@node-1", secrets.clone()).await;
        let (second, second_pid) = play(&scope, "director-1@node-2", secrets.clone()).await;
        let sender = Sender { service: Some(service("gateway-1@node-1")), secrets };
        let peers = Peers::new(Transport::new(Runtime::real(), scope.clone(), &sender));
        let database =
            Database::new(&Runtime::real(), &scope, peers, vec![Target::from(&first_pid)]);
        World { _end: end, first, second, pids: [first_pid, second_pid], database }
    }

    /// Where the coordinator answers.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.pids[0].address)
    }

    /// Begins an epoch whose director and proxy are one of the two; both are storages.
    pub(crate) fn appoint(&self, epoch: Epoch, who: usize) {
        let pid = self.pids[who].clone();
        let up = || Service::Up(pid.clone());
        let member = |index: usize| StorageMember {
            store: StoreId(index as u128),
            service: Service::Up(self.pids[index].clone()),
        };
        let team = |tag, members| StorageTeam { tag, members, joining: vec![] };
        let remembers = self.first.script(|script| script.memory.is_some());
        // Only the first one keeps data.
        let (shards, members) = if remembers {
            (crate::memory::shards(), vec![member(0)])
        } else {
            (ShardMap::initial(), vec![member(0), member(1)])
        };
        let teams = shards.tags().into_iter().map(|tag| team(tag, members.clone())).collect();
        let layout = Layout {
            epoch,
            recovery_version: Version(1),
            first_version: Version(2),
            director: up(),
            sequencer: up(),
            commit_proxies: vec![up()],
            resolvers: vec![ResolverEntry { service: up(), range: KeyRange::all() }],
            logs: vec![],
            storage_teams: teams,
        };
        let config = SystemConfig {
            cluster_id: ClusterId(1),
            group_id: GroupId(1),
            format_level: 1,
            epoch,
            config_version: ConfigVersion(1),
            coordinators: vec![],
            next_coordinators: vec![],
            parameters: Parameters::default(),
            policies: Policies::default(),
            nodes: BTreeMap::new(),
            layout,
            shards: shards.summary(),
        };
        let written = config.map_services(|_| service("director-1@node-1"));
        let live = LiveLayout {
            index: 1,
            accepting_commits: true,
            config,
            recorded: Recorded::new(written, shards),
            directory: vec![],
        };
        [&self.first, &self.second][who].script(|script| script.layout = Some(live));
        let status = status_of(epoch, pid);
        self.first.script(|script| script.status = Some(status));
    }
}

/// What a coordinator says while an epoch is served.
fn status_of(epoch: Epoch, pid: Pid) -> Status {
    let appointed =
        Appointed { epoch, service: service("director-1@node-1"), pid, cause: "played".to_owned() };
    Status {
        service: service("coordinator-1@node-1"),
        cluster: ClusterId(1),
        group: None,
        leader: None,
        is_leader: true,
        term: 1,
        members: vec![],
        epoch,
        director: Some(appointed),
        ready_epoch: epoch,
        phase: "accepting_commits".to_owned(),
        ready: true,
        config_version: ConfigVersion(1),
        problem: None,
        bootstrap: Bootstrap {
            source: "default".to_owned(),
            storage: None,
            epoch: Epoch::ZERO,
            config_version: ConfigVersion(0),
            rejected: vec![],
            waiting_for: None,
        },
    }
}
