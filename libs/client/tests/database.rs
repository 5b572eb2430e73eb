//! The client against a cluster that is played over HTTP, with parts that fall silent.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use plinth_api::commit_proxy::{CommitRequest, Committed, ReadVersion, ReadVersionRequest};
use plinth_api::coordinator::{Appointed, Bootstrap, Status};
use plinth_api::director::{LayoutQuery, LiveLayout};
use plinth_api::storage::{ReadAnswer, ReadRequest};
use plinth_api::{ErrorCode, Problem, Target};
use plinth_client::{ClientError, Database};
use plinth_runtime::{Runtime, Scope, ScopeGuard};
use plinth_service::{
    Answer, Failure, Host, HostOptions, Json, Peers, Query, Routes, Secrets, Sender, Transport,
};
use plinth_system_config::{
    Layout, Parameters, Policies, Recorded, ResolverEntry, Service, ShardMap, StorageMember,
    StorageTeam, SystemConfig,
};
use plinth_types::{
    ClusterId, ConfigVersion, Epoch, GroupId, Key, KeyRange, Mutation, Pid, ServiceRef, StoreId,
    Tag, Value, Version,
};
use tokio::time::{Instant, timeout};
use utoipa_axum::routes;

/// Long enough for any machine; what is asserted of time stays far below.
const WITHIN: Duration = Duration::from_secs(20);

/// A process that plays coordinator, director, commit proxy and storage: their paths differ.
#[derive(Clone)]
struct Played(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    status: Option<Status>,
    layout: Option<LiveLayout>,
    /// The director answers no poll.
    director_silent: bool,
    /// The proxy and the storage answer nothing.
    proxy_silent: bool,
    storage_silent: bool,
    /// What the proxy answers to the next commits, before it commits.
    refusals: Vec<ErrorCode>,
    commits: Vec<CommitRequest>,
    read_versions: usize,
}

impl Played {
    fn script<T>(&self, act: impl FnOnce(&mut Script) -> T) -> T {
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
    Ok(Json(ReadVersion { version: Version(request.epoch.0 * 100) }))
}

#[utoipa::path(post, path = "/v1/commits", responses((status = 200)))]
async fn commit(
    State(played): State<Played>,
    Json(request): Json<CommitRequest>,
) -> Answer<Committed> {
    let (silent, refusal) = played.script(|script| {
        script.commits.push(request);
        (script.proxy_silent, script.refusals.pop())
    });
    silence(silent).await;
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
    let values =
        request.keys.iter().map(|key| (key.as_bytes() != b"none").then(|| Value::from("v")));
    Ok(Json(ReadAnswer { values: values.collect(), ranges: vec![] }))
}

/// Two played processes and a client. The first one is the coordinator.
struct World {
    _end: ScopeGuard,
    first: Played,
    second: Played,
    pids: [Pid; 2],
    database: Database,
}

fn service(name: &str) -> ServiceRef {
    name.parse().unwrap()
}

async fn play(scope: &Scope, name: &str) -> (Played, Pid) {
    let options = HostOptions {
        service: service(name),
        bind: "127.0.0.1:0".to_owned(),
        advertise: None,
        cluster: None,
        secrets: Secrets::default(),
    };
    let host = Host::bind(Runtime::real(), options).await.unwrap();
    let pid = host.context().pid().clone();
    let played = Played(Arc::default());
    let routes = Routes::new()
        .service(routes!(status))
        .service(routes!(layout))
        .service(routes!(read_version))
        .service(routes!(commit))
        .service(routes!(read))
        .with_state(played.clone());
    drop(scope.spawn("played", host.run(routes, std::future::pending())));
    (played, pid)
}

impl World {
    async fn new() -> World {
        let (scope, end) = Scope::new();
        let (first, first_pid) = play(&scope, "director-1@node-1").await;
        let (second, second_pid) = play(&scope, "director-1@node-2").await;
        let sender =
            Sender { service: Some(service("gateway-1@node-1")), secrets: Secrets::default() };
        let peers = Peers::new(Transport::new(Runtime::real(), scope.clone(), &sender));
        let database = Database::new(&scope, peers, vec![Target::from(&first_pid)]);
        World { _end: end, first, second, pids: [first_pid, second_pid], database }
    }

    /// Begins an epoch whose director and proxy are one of the two; both are storages.
    fn appoint(&self, epoch: Epoch, who: usize) {
        let pid = self.pids[who].clone();
        let up = || Service::Up(pid.clone());
        let member = |index: usize| StorageMember {
            store: StoreId(index as u128),
            service: Service::Up(self.pids[index].clone()),
        };
        let team = |tag| StorageTeam { tag, members: vec![member(0), member(1)] };
        let layout = Layout {
            epoch,
            recovery_version: Version(1),
            first_version: Version(2),
            director: up(),
            sequencer: up(),
            commit_proxies: vec![up()],
            resolvers: vec![ResolverEntry { service: up(), range: KeyRange::all() }],
            logs: vec![],
            storage_teams: vec![team(Tag::SYSTEM), team(Tag(1))],
        };
        let shards = ShardMap::initial();
        let config = SystemConfig {
            cluster_id: ClusterId(1),
            group_id: GroupId(1),
            format_level: 1,
            epoch,
            config_version: ConfigVersion(1),
            coordinators: vec![],
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
        let appointed = Appointed {
            epoch,
            service: service("director-1@node-1"),
            pid,
            cause: "played".to_owned(),
        };
        let status = Status {
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
        };
        self.first.script(|script| script.status = Some(status));
    }
}

fn set() -> Vec<Mutation> {
    vec![Mutation::Set { key: Key::from("k"), value: Value::from("v") }]
}

#[tokio::test]
async fn reads_and_writes_wait_for_a_layout() {
    let world = World::new().await;
    let early = world.database.get(&Key::from("k"), Duration::from_millis(50)).await;
    assert!(matches!(early, Err(ClientError::Unavailable { .. })), "{early:?}");
    let (key, none) = (Key::from("k"), Key::from("none"));
    let read = world.database.get(&key, WITHIN);
    world.appoint(Epoch(5), 0);
    let read = read.await.unwrap();
    assert_eq!((read.version, read.value), (Version(500), Some(Value::from("v"))));
    assert_eq!(world.database.get(&none, WITHIN).await.unwrap().value, None);
    let committed = world.database.write(set(), WITHIN).await.unwrap();
    assert_eq!(committed.version, Version(900));
}

#[tokio::test]
async fn a_commit_is_repeated_only_where_it_surely_had_no_effect() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    let refusals = [ErrorCode::Overloaded, ErrorCode::NotReady];
    world.first.script(|script| script.refusals = refusals.to_vec());
    assert!(world.database.write(set(), WITHIN).await.is_ok());
    assert_eq!(world.first.script(|script| script.commits.len()), 3);
    world.first.script(|script| script.refusals = vec![ErrorCode::CommitUnknownResult]);
    let unknown = world.database.write(set(), WITHIN).await;
    assert!(matches!(unknown, Err(ClientError::CommitUnknownResult(_))), "{unknown:?}");
    assert_eq!(world.first.script(|script| script.commits.len()), 4);
    world.first.script(|script| script.refusals = vec![ErrorCode::LimitExceeded]);
    let refused = world.database.write(set(), WITHIN).await;
    assert!(matches!(refused, Err(ClientError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn a_silent_replica_costs_little() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    world.second.script(|script| script.storage_silent = true);
    let started = Instant::now();
    // Keys begin at different replicas, so some of these begin at the silent one.
    for key in ["a", "b", "c", "d"] {
        world.database.get(&Key::from(key), WITHIN).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_millis(2_500), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_silent_director_is_doubted_and_its_successor_found() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    world.database.get(&Key::from("k"), WITHIN).await.unwrap();
    // The first process freezes, its coordinator excepted; a new epoch begins at the second.
    world.first.script(|script| {
        script.director_silent = true;
        script.proxy_silent = true;
    });
    world.appoint(Epoch(6), 1);
    let key = Key::from("k");
    let read = timeout(Duration::from_secs(8), world.database.get(&key, WITHIN));
    assert_eq!(read.await.expect("long before the poll ends").unwrap().version, Version(600));
}

#[tokio::test]
async fn nobody_waits_for_the_commit_of_an_epoch_that_is_over() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    world.database.get(&Key::from("k"), WITHIN).await.unwrap();
    world.first.script(|script| script.proxy_silent = true);
    let write = timeout(Duration::from_secs(8), world.database.write(set(), WITHIN));
    let epoch_ends = async {
        while world.first.script(|script| script.commits.is_empty()) {
            tokio::task::yield_now().await;
        }
        world.first.script(|script| script.director_silent = true);
        world.appoint(Epoch(6), 1);
    };
    let (written, ()) = tokio::join!(write, epoch_ends);
    let written = written.expect("long before the deadline");
    assert!(matches!(written, Err(ClientError::CommitUnknownResult(_))), "{written:?}");
    // The next one goes to the new epoch's proxy.
    assert!(world.database.write(set(), WITHIN).await.is_ok());
}

#[tokio::test]
async fn readers_share_rounds() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    world.database.get(&Key::from("k"), WITHIN).await.unwrap();
    let before = world.first.script(|script| script.read_versions);
    let key = Key::from("k");
    let reads = (0..100).map(async |_| world.database.get(&key, WITHIN).await);
    for read in futures::future::join_all(reads).await {
        read.unwrap();
    }
    let rounds = world.first.script(|script| script.read_versions) - before;
    assert!(rounds < 100, "{rounds} rounds for 100 concurrent reads");
}
