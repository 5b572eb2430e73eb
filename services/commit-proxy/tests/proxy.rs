//! The commit proxy alone, its peers played over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use plinth_api::commit_proxy::{
    ASSIGN, Assignment, COMMIT, CommitRequest, Committed, LogPeer, OPEN, Opening, Peer,
    READ_VERSION, ReadVersionRequest, ResolverPeer,
};
use plinth_api::log::{ConfirmQuery, Entry, PushAnswer};
use plinth_api::resolver::{Resolution, Verdict, Verdicts};
use plinth_api::sequencer::{
    CommitVersion, CommitVersionRequest, CommittedRequest, CommittedVersion, ReadVersionQuery,
};
use plinth_api::{Endpoint, ErrorCode, Nothing, Target};
use plinth_commit_proxy::Config;
use plinth_runtime::{Runtime, Scope, ScopeGuard};
use plinth_service::{
    Answer, Exit, Failure, Host, HostOptions, Json, Peers, Query, Routes, Secrets, Sender,
    Transport,
};
use plinth_system_config::ShardMap;
use plinth_types::{
    Epoch, Incarnation, Key, KeyRange, Mutation, ServiceRef, Tag, VERSION_GAP, Value, Version,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;
use utoipa_axum::routes;

const RV: Version = Version(1_000);
const FIRST: Version = Version(1_000 + VERSION_GAP);
const EPOCH: Epoch = Epoch(3);
const DIRECTOR: Incarnation = Incarnation(7);

/// What a played peer does with pushes and confirmations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Log {
    Serves,
    Silent,
    Locked,
}

/// A process that plays sequencer, resolver and log at once: their paths differ.
#[derive(Clone)]
struct Played(Arc<Mutex<Story>>);

struct Story {
    log: Log,
    /// The step that is never answered.
    silent: Option<&'static str>,
    newest: Version,
    committed: Version,
    entries: Vec<Entry>,
    confirmations: usize,
    /// What happened, in order.
    events: Vec<&'static str>,
}

impl Played {
    fn story<T>(&self, tell: impl FnOnce(&mut Story) -> T) -> T {
        tell(&mut self.0.lock().unwrap())
    }

    /// Never returns from the step that is not answered.
    async fn step(&self, step: &'static str) {
        if self.story(|story| story.silent) == Some(step) {
            std::future::pending().await
        }
    }

    async fn log(&self) -> Result<(), Failure> {
        match self.story(|story| story.log) {
            Log::Serves => Ok(()),
            Log::Silent => std::future::pending().await,
            Log::Locked => Err(Failure::new(ErrorCode::StaleEpoch, "locked by epoch 4")),
        }
    }
}

#[utoipa::path(post, path = "/v1/commit_versions", responses((status = 200)))]
async fn version(
    State(played): State<Played>,
    Json(request): Json<CommitVersionRequest>,
) -> Answer<CommitVersion> {
    assert_eq!(request.epoch, EPOCH);
    played.step("version").await;
    Ok(Json(played.story(|story| {
        let prev = story.newest;
        story.newest = if prev == RV { FIRST } else { prev.plus(10) };
        CommitVersion { prev, version: story.newest }
    })))
}

#[utoipa::path(post, path = "/v1/committed_versions", responses((status = 200)))]
async fn committed(
    State(played): State<Played>,
    Json(request): Json<CommittedRequest>,
) -> Answer<CommittedVersion> {
    played.step("report").await;
    Ok(Json(played.story(|story| {
        story.events.push("reported");
        story.committed = story.committed.max(request.version);
        CommittedVersion { version: story.committed }
    })))
}

#[utoipa::path(get, path = "/v1/read_version", responses((status = 200)))]
async fn read_version(
    State(played): State<Played>,
    Query(query): Query<ReadVersionQuery>,
) -> Answer<CommittedVersion> {
    assert_eq!(query.epoch, EPOCH);
    Ok(Json(CommittedVersion { version: played.story(|story| story.committed) }))
}

#[utoipa::path(post, path = "/v1/resolutions", responses((status = 200)))]
async fn resolve(
    State(played): State<Played>,
    Json(request): Json<Resolution>,
) -> Answer<Verdicts> {
    played.step("resolve").await;
    // Whoever read "hot" conflicts.
    let verdict = |reads: &[KeyRange]| match reads.iter().any(|range| range.contains(b"hot")) {
        true => Verdict::Conflict,
        false => Verdict::Commit,
    };
    let verdicts = request.transactions.iter().map(|footprint| verdict(&footprint.reads));
    Ok(Json(Verdicts { verdicts: verdicts.collect() }))
}

#[utoipa::path(post, path = "/v1/entries", responses((status = 200)))]
async fn push(State(played): State<Played>, Json(entry): Json<Entry>) -> Answer<PushAnswer> {
    played.step("push").await;
    played.log().await?;
    let durable = entry.version;
    played.story(|story| {
        story.events.push("pushed");
        story.entries.push(entry);
    });
    Ok(Json(PushAnswer { durable }))
}

#[utoipa::path(get, path = "/v1/confirmation", responses((status = 200)))]
async fn confirm(
    State(played): State<Played>,
    Query(query): Query<ConfirmQuery>,
) -> Answer<Nothing> {
    assert_eq!(query.epoch, EPOCH);
    played.log().await?;
    played.story(|story| story.confirmations += 1);
    Ok(Json(Nothing {}))
}

/// The proxy and two played processes: all peers, and a second log.
struct World {
    scope: Scope,
    _end: ScopeGuard,
    all: Played,
    second_log: Played,
    proxy: Target,
    peers: Peers,
    exit: JoinHandle<Option<Exit>>,
}

async fn bind(service: &str) -> Host {
    let options = HostOptions {
        service: service.parse().unwrap(),
        bind: "127.0.0.1:0".to_owned(),
        advertise: None,
        cluster: None,
        secrets: Secrets::default(),
    };
    Host::bind(Runtime::real(), options).await.unwrap()
}

async fn play(scope: &Scope, service: &str) -> (Played, plinth_types::Pid) {
    let host = bind(service).await;
    let pid = host.context().pid().clone();
    let played = Played(Arc::new(Mutex::new(Story {
        log: Log::Serves,
        silent: None,
        newest: RV,
        committed: RV,
        entries: vec![],
        confirmations: 0,
        events: vec![],
    })));
    let routes = Routes::new()
        .service(routes!(version))
        .service(routes!(committed))
        .service(routes!(read_version))
        .service(routes!(resolve))
        .service(routes!(push))
        .service(routes!(confirm))
        .with_state(played.clone());
    drop(scope.spawn("played", host.run(routes, std::future::pending())));
    (played, pid)
}

impl World {
    async fn new() -> World {
        let (scope, end) = Scope::new();
        let (all, pid) = play(&scope, "log-1@node-1").await;
        let (second_log, second_pid) = play(&scope, "log-1@node-2").await;
        let host = bind("commit-proxy-1@node-1").await;
        let proxy = Target::from(host.context().pid());
        let exit = scope.spawn("proxy", plinth_commit_proxy::serve(host, Config::default()));
        let sender = Sender {
            service: Some("gateway-1@node-1".parse().unwrap()),
            secrets: Secrets::default(),
        };
        let peers = Peers::new(Transport::new(Runtime::real(), scope.clone(), &sender));
        let peer = |service: &str, pid: &plinth_types::Pid| Peer {
            service: service.parse::<ServiceRef>().unwrap(),
            pid: pid.clone(),
        };
        let tags = vec![Tag::SYSTEM, Tag(1)];
        let assignment = Assignment {
            epoch: EPOCH,
            director: DIRECTOR,
            recovery_version: RV,
            first_version: FIRST,
            sequencer: peer("sequencer-1@node-1", &pid),
            resolvers: vec![ResolverPeer {
                peer: peer("resolver-1@node-1", &pid),
                range: KeyRange::all(),
            }],
            logs: vec![
                LogPeer { peer: peer("log-1@node-1", &pid), tags: tags.clone() },
                LogPeer { peer: peer("log-1@node-2", &second_pid), tags },
            ],
            shards: ShardMap::initial(),
            peer_timeout_ms: 300,
        };
        let world = World { scope, _end: end, all, second_log, proxy, peers, exit };
        assert_eq!(world.ask(&ASSIGN, &assignment).await, Ok(Nothing {}));
        world
    }

    async fn open() -> World {
        let world = World::new().await;
        let opening = Opening { epoch: EPOCH, director: DIRECTOR };
        assert_eq!(world.ask(&OPEN, &opening).await, Ok(Nothing {}));
        world
    }

    async fn ask<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        endpoint: &Endpoint<Req, Resp>,
        request: &Req,
    ) -> Result<Resp, ErrorCode> {
        let limit = Duration::from_secs(10);
        let answer = self.peers.call(&self.proxy, endpoint, request, None, limit).await;
        answer.map_err(|error| error.code().unwrap_or_else(|| panic!("{error}")))
    }

    async fn ended(self) -> Exit {
        let end = tokio::time::timeout(Duration::from_secs(10), self.exit);
        end.await.expect("the proxy ends").unwrap().unwrap()
    }
}

fn set(key: &str) -> CommitRequest {
    CommitRequest {
        epoch: EPOCH,
        read_version: None,
        reads: vec![],
        writes: vec![],
        mutations: vec![Mutation::Set { key: Key::from(key), value: Value::from("v") }],
        stamps: vec![],
        system: false,
        begins: false,
    }
}

const READ: ReadVersionRequest = ReadVersionRequest { epoch: EPOCH, count: 1 };

#[tokio::test]
async fn a_commit_is_on_every_log_and_reported_before_it_is_answered() {
    let world = World::open().await;
    let answer = world.ask(&COMMIT, &set("k")).await;
    assert_eq!(answer, Ok(Committed { version: FIRST, index: 0 }));
    assert_eq!(world.all.story(|story| story.events[..2].to_vec()), ["pushed", "reported"]);
    for log in [&world.all, &world.second_log] {
        let first = log.story(|story| story.entries[0].clone());
        assert_eq!((first.prev, first.version, first.known_committed), (RV, FIRST, RV));
        assert_eq!(first.messages.len(), 1);
    }
    // No commit is above the version that a read gets afterwards, and every log was asked.
    assert!(world.ask(&READ_VERSION, &READ).await.unwrap().version >= FIRST);
    for log in [&world.all, &world.second_log] {
        assert_eq!(log.story(|story| story.confirmations), 1);
    }
    let conflicting = CommitRequest {
        read_version: Some(FIRST),
        reads: vec![KeyRange::single(&"hot".into())],
        ..set("k")
    };
    assert_eq!(world.ask(&COMMIT, &conflicting).await, Err(ErrorCode::Conflict));
}

#[tokio::test]
async fn a_closed_proxy_takes_the_system_transaction_alone() {
    let world = World::new().await;
    assert_eq!(world.ask(&COMMIT, &set("k")).await, Err(ErrorCode::NotReady));
    assert_eq!(world.ask(&READ_VERSION, &READ).await, Err(ErrorCode::NotReady));
    let system = CommitRequest { system: true, ..set("k") };
    assert_eq!(world.ask(&COMMIT, &system).await.unwrap().version, FIRST);
}

/// Failure 20: whoever does not answer, the proxy ends and names it, and whoever has submitted the
/// transaction is not told that it was committed.
#[tokio::test]
async fn the_system_transaction_fails_at_each_of_its_steps() {
    for (step, second, code, named) in [
        ("version", false, ErrorCode::PeerUnavailable, "sequencer-1@node-1"),
        ("resolve", false, ErrorCode::PeerUnavailable, "resolver-1@node-1"),
        ("push", false, ErrorCode::CommitUnknownResult, "log-1@node-1"),
        ("push", true, ErrorCode::CommitUnknownResult, "log-1@node-2"),
        ("report", false, ErrorCode::CommitUnknownResult, "sequencer-1@node-1"),
    ] {
        let world = World::new().await;
        let peer = if second { &world.second_log } else { &world.all };
        peer.story(|story| story.silent = Some(step));
        let system = CommitRequest { system: true, ..set("k") };
        let answer = world.ask(&COMMIT, &system).await;
        assert_eq!(answer, Err(code), "{step} of {named}");
        let exit = world.ended().await;
        assert_ne!(exit.status, 0);
        assert!(exit.reason.contains(named), "{step} of {named}: {}", exit.reason);
    }
}

#[tokio::test]
async fn what_is_not_served_is_refused_by_name() {
    let world = World::open().await;
    let stale = CommitRequest { epoch: Epoch(2), ..set("k") };
    assert_eq!(world.ask(&COMMIT, &stale).await, Err(ErrorCode::StaleEpoch));
    let early = CommitRequest { epoch: Epoch(4), ..set("k") };
    assert_eq!(world.ask(&COMMIT, &early).await, Err(ErrorCode::NotReady));
    let to_the_end = Mutation::ClearRange(KeyRange { from: "a".into(), to: None });
    let system_keys = CommitRequest { mutations: vec![to_the_end], ..set("k") };
    assert_eq!(world.ask(&COMMIT, &system_keys).await, Err(ErrorCode::SystemKey));
    let long = set(&"k".repeat(10_001));
    assert_eq!(world.ask(&COMMIT, &long).await, Err(ErrorCode::LimitExceeded));
    let unversioned = CommitRequest { reads: vec![KeyRange::all()], ..set("k") };
    assert_eq!(world.ask(&COMMIT, &unversioned).await, Err(ErrorCode::InvalidRequest));
    let nobody = Transport::new(Runtime::real(), world.scope.clone(), &Sender::default());
    let nobody = World { peers: Peers::new(nobody), ..world };
    assert_eq!(nobody.ask(&COMMIT, &set("k")).await, Err(ErrorCode::Unauthenticated));
}

#[tokio::test]
async fn a_silent_log_makes_the_commit_unknown_and_ends_the_proxy() {
    let world = World::open().await;
    world.second_log.story(|story| story.log = Log::Silent);
    assert_eq!(world.ask(&COMMIT, &set("k")).await, Err(ErrorCode::CommitUnknownResult));
    let exit = world.ended().await;
    assert_ne!(exit.status, 0);
    assert!(exit.reason.contains("log-1@node-2"), "{}", exit.reason);
}

#[tokio::test]
async fn a_locked_log_stops_read_versions() {
    let world = World::open().await;
    world.second_log.story(|story| story.log = Log::Locked);
    assert_eq!(world.ask(&READ_VERSION, &READ).await, Err(ErrorCode::PeerUnavailable));
    let exit = world.ended().await;
    assert!(exit.reason.contains("log-1@node-2"), "{}", exit.reason);
    assert!(exit.reason.contains("locked by epoch 4"), "{}", exit.reason);
}

#[tokio::test]
async fn many_commits_share_batches() {
    let world = World::open().await;
    let requests: Vec<_> = (0..200).map(|index| set(&format!("key-{index}"))).collect();
    let commits = requests.iter().map(async |request| world.ask(&COMMIT, request).await);
    let answers = futures::future::join_all(commits).await;
    let mut places: Vec<(Version, u16)> = answers
        .into_iter()
        .map(|answer| answer.unwrap())
        .map(|at| (at.version, at.index))
        .collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 200, "every commit has a place of its own");
    let batches = world
        .all
        .story(|story| story.entries.iter().filter(|entry| !entry.messages.is_empty()).count());
    assert!(batches < 200, "{batches} batches for 200 concurrent commits");
}
