//! The director's neighbours, faked over HTTP on loopback: coordinators, foremen that make workers,
//! and workers that do what they are told and keep a journal of it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Method, StatusCode, Uri};
use plinth_api::common::{Info, MonitorLine};
use plinth_api::coordinator::{
    Appointed, Bootstrap, Farewell, Holding, Nodes, ReadyRequest, RecordRequest,
    Status as CoordinatorStatus,
};
use plinth_api::foreman::{CreateWorker, NodeReport, Worker, WorkerState};
use plinth_api::log::{Generation, KeepRequest, LockAnswer, LockRequest, TagExtent};
use plinth_api::storage::{KeyValue, ShardConfig, Status as StorageStatus, TagStatus};
use plinth_api::{ErrorCode, Problem, Target, commit_proxy, log, resolver, sequencer, storage};
use plinth_system_config::{Coordinator, FORMAT_LEVEL, Recorded, keys};
use plinth_types::{
    ClusterId, ConfigVersion, Epoch, GroupId, Incarnation, Key, Mutation, Pid, ServiceKind,
    ServiceName, ServiceRef, StoreId, Tag, Value, Version,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) fn service(text: &str) -> ServiceRef {
    text.parse().unwrap()
}

/// A fake process.
struct Process {
    pid: Pid,
    dead: Arc<AtomicBool>,
    server: tokio::task::JoinHandle<()>,
}

/// What a fake log holds.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) end: Version,
    pub(crate) known_committed: Version,
    pub(crate) generation: Option<Generation>,
    pub(crate) config: Option<Recorded>,
    /// Whether the configuration that it keeps can't be read.
    pub(crate) config_damaged: bool,
    /// Whether its disk is full.
    pub(crate) disk_full: bool,
    locked: Epoch,
    tags: Vec<Tag>,
    pub(crate) copied: Vec<Tag>,
}

/// What the world is like, and what has happened in it.
#[derive(Default)]
pub(crate) struct World {
    processes: BTreeMap<ServiceRef, Process>,
    stores: BTreeMap<ServiceRef, StoreId>,
    epochs: BTreeMap<ServiceRef, Epoch>,
    pub(crate) logs: BTreeMap<ServiceRef, Log>,
    pub(crate) recorded: Option<Recorded>,
    pub(crate) ready: Option<Recorded>,
    appointed: Option<Appointed>,
    pub(crate) refuse_record: bool,
    /// What the commit proxy answers to the system transaction, where it is not taken.
    pub(crate) refuse_commit: Option<ErrorCode>,
    /// The epoch that the coordinators show in their status.
    pub(crate) shown_epoch: Epoch,
    /// How often each of these is still answered `not_ready`, as in the journal.
    pub(crate) not_ready: BTreeMap<String, usize>,
    /// What the storages return instead of what was committed.
    pub(crate) forget_commits: bool,
    system: BTreeMap<Key, Value>,
    committed: Version,
    first_version: Version,
    /// Who was asked for what, in order: `log-1@node-1 PUT /v1/assignment`.
    pub(crate) journal: Vec<String>,
    pub(crate) farewells: Vec<Farewell>,
    /// What these nodes' foremen read, where it is not what this release does.
    pub(crate) reads: BTreeMap<String, Option<u32>>,
    next: u64,
}

/// Handle to the world.
#[derive(Clone, Default)]
pub(crate) struct Neighbours(Arc<Mutex<World>>);

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

impl Neighbours {
    /// Three nodes with a coordinator and a foreman each.
    pub(crate) async fn new() -> Neighbours {
        let world = Neighbours::default();
        for node in NODES {
            world.start(service(&format!("coordinator-1@{node}"))).await;
            world.start(service(&format!("foreman-1@{node}"))).await;
        }
        world
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    pub(crate) fn coordinators(&self) -> Vec<Target> {
        let world = self.world();
        // A coordinator that is not there must not matter.
        let nobody = Target::address("127.0.0.1:1");
        let pids =
            NODES.map(|node| &world.processes[&service(&format!("coordinator-1@{node}"))].pid);
        std::iter::once(nobody).chain(pids.map(|pid| Target::address(&pid.address))).collect()
    }

    /// The next epoch, durable before the director hears of it.
    pub(crate) fn appoint(&self, director: &ServiceRef, pid: &Pid) -> Epoch {
        let mut world = self.world();
        let epoch = world.appointed.as_ref().map_or(Epoch(1), |before| before.epoch.next());
        world.appointed = Some(Appointed {
            epoch,
            service: director.clone(),
            pid: pid.clone(),
            cause: "a test".to_owned(),
        });
        epoch
    }

    /// Starts a process under this name, with the directory that the name had, if it had one.
    pub(crate) fn start(&self, service: ServiceRef) -> BoxFuture<'static, Pid> {
        self.clone().run(service).boxed()
    }

    async fn run(self, service: ServiceRef) -> Pid {
        #[expect(clippy::disallowed_methods, reason = "fakes live outside of the runtime")]
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pid = {
            let mut world = self.world();
            world.next += 1;
            if service.kind().is_durable() && !world.stores.contains_key(&service) {
                let store = StoreId(u128::from(world.next));
                world.stores.insert(service.clone(), store);
            }
            world.epochs.insert(service.clone(), Epoch::ZERO);
            Pid {
                node: service.node.clone(),
                os_pid: 1,
                incarnation: Incarnation(world.next),
                address: listener.local_addr().unwrap().to_string(),
            }
        };
        let dead = Arc::new(AtomicBool::new(false));
        let fake = Fake { neighbours: self.clone(), service: service.clone(), dead: dead.clone() };
        let router = Router::new().fallback(answer).with_state(fake);
        #[expect(clippy::disallowed_methods, reason = "fakes live outside of any scope")]
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        self.world().processes.insert(service, Process { pid: pid.clone(), dead, server });
        pid
    }

    /// Ends a process; its directory stays.
    pub(crate) fn kill(&self, service: &ServiceRef) {
        if let Some(process) = self.world().processes.remove(service) {
            process.dead.store(true, Ordering::SeqCst);
            process.server.abort();
        }
    }

    /// Freezes a process: it accepts connections and answers nothing, while its foreman still takes
    /// it for running.
    pub(crate) fn freeze(&self, service: &ServiceRef) {
        self.world().processes[service].dead.store(true, Ordering::SeqCst);
    }

    /// Ends a process and removes its directory.
    pub(crate) fn wipe(&self, service: &ServiceRef) {
        self.kill(service);
        let mut world = self.world();
        world.stores.remove(service);
        world.logs.remove(service);
    }

    /// Where the journal has an entry first.
    pub(crate) fn position(&self, entry: &str) -> Option<usize> {
        self.world().journal.iter().position(|found| found == entry)
    }

    pub(crate) fn count(&self, entry: &str) -> usize {
        self.world().journal.iter().filter(|found| *found == entry).count()
    }
}

#[derive(Clone)]
struct Fake {
    neighbours: Neighbours,
    service: ServiceRef,
    dead: Arc<AtomicBool>,
}

async fn answer(
    State(fake): State<Fake>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Result<Response, Response> {
    if fake.dead.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    let path = uri.path().to_owned();
    let entry = format!("{} {method} {path}", fake.service);
    {
        let mut world = fake.neighbours.world();
        if let Some(left) = world.not_ready.get_mut(&entry).filter(|left| **left > 0) {
            *left -= 1;
            let problem = Problem::new(ErrorCode::NotReady, "opening");
            return Err((StatusCode::SERVICE_UNAVAILABLE, serde_json::to_vec(&problem).unwrap())
                .into_response());
        }
    }
    let is_poll = ["/v1/nodes", "/v1/info", "/v1/status"].contains(&path.as_str());
    if !is_poll {
        fake.neighbours.world().journal.push(entry);
    }
    if path == "/v1/monitor" {
        return Ok(monitor(fake));
    }
    if fake.service.kind() == ServiceKind::Foreman && path == "/v1/workers" {
        let order: CreateWorker = serde_json::from_slice(&body).unwrap();
        let service = ServiceRef::new(order.name, fake.service.node.clone());
        fake.neighbours.start(service.clone()).await;
        let made = fake.neighbours.world().worker(&service);
        return Ok(json(&made));
    }
    fake.neighbours.world().answer(&fake.service, &method, &path, &body).map_err(|problem| {
        let status = StatusCode::from_u16(problem.status).unwrap();
        (status, serde_json::to_vec(&problem).unwrap()).into_response()
    })
}

fn monitor(fake: Fake) -> Response {
    let lines = futures::stream::unfold(fake, |fake| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if fake.dead.load(Ordering::SeqCst) {
            return None;
        }
        let epoch = fake.neighbours.world().epochs[&fake.service];
        let line = MonitorLine { epoch, state: "serving".to_owned(), exit: None };
        let text = serde_json::to_string(&line).unwrap() + "\n";
        Some((Ok::<_, Infallible>(Bytes::from(text)), fake))
    });
    Body::from_stream(lines).into_response()
}

fn json(value: &impl Serialize) -> Response {
    serde_json::to_vec(value).unwrap().into_response()
}

fn read<T: DeserializeOwned>(body: &[u8]) -> T {
    serde_json::from_slice(body).unwrap()
}

type Answer = Result<Response, Box<Problem>>;

fn problem(code: ErrorCode, detail: impl Into<String>) -> Answer {
    Err(Box::new(Problem::new(code, detail)))
}

impl World {
    fn worker(&self, service: &ServiceRef) -> Worker {
        let pid = self.processes.get(service).map(|process| process.pid.clone());
        Worker {
            name: service.name,
            state: if pid.is_some() { WorkerState::Up } else { WorkerState::Down },
            pid,
            store: self.stores.get(service).copied(),
            announced: false,
            exits: 0,
            last_exit: None,
            format_level: Some(FORMAT_LEVEL),
        }
    }

    fn report(&self, node: &str) -> NodeReport {
        let is_worker = |service: &&ServiceRef| {
            service.node.as_str() == node
                && !matches!(service.kind(), ServiceKind::Coordinator | ServiceKind::Foreman)
        };
        let services: std::collections::BTreeSet<&ServiceRef> =
            self.processes.keys().chain(self.stores.keys()).filter(is_worker).collect();
        NodeReport {
            node: node.parse().unwrap(),
            zone: node.parse().unwrap(),
            foreman: self.processes[&service(&format!("foreman-1@{node}"))].pid.clone(),
            cluster: Some(ClusterId(7)),
            kinds: vec![
                ServiceKind::Log,
                ServiceKind::Storage,
                ServiceKind::Sequencer,
                ServiceKind::CommitProxy,
                ServiceKind::Resolver,
            ],
            workers: services.into_iter().map(|service| self.worker(service)).collect(),
            settled: true,
            format_level: self.reads.get(node).copied().unwrap_or(Some(FORMAT_LEVEL)),
        }
    }

    fn members(&self) -> Vec<Coordinator> {
        let of = |(raft_id, node): (u64, &str)| Coordinator {
            service: service(&format!("coordinator-1@{node}")),
            raft_id,
            address: Some(format!("{node}:4400")),
        };
        (1..).zip(NODES).map(of).collect()
    }

    fn answer(&mut self, who: &ServiceRef, method: &Method, path: &str, body: &[u8]) -> Answer {
        match (who.kind(), method.as_str(), path) {
            (_, "GET", "/v1/info") => Ok(json(&Info {
                service: who.clone(),
                node: who.node.clone(),
                pid: self.processes[who].pid.clone(),
                epoch: self.epochs[who],
                version: None,
                release: String::new(),
                uptime_ms: 1,
            })),
            (ServiceKind::Coordinator, ..) => self.coordinator(who, method, path, body),
            (ServiceKind::Log, ..) => self.log(who, method, path, body),
            (ServiceKind::Storage, ..) => self.storage(who, method, path, body),
            (ServiceKind::Sequencer, "PUT", "/v1/assignment") => {
                let told: sequencer::Assignment = read(body);
                self.first_version = told.first_version;
                self.take_up(who, told.epoch)
            }
            (ServiceKind::Resolver, "PUT", "/v1/assignment") => {
                self.take_up(who, read::<resolver::Assignment>(body).epoch)
            }
            (ServiceKind::CommitProxy, "PUT", "/v1/assignment") => {
                self.take_up(who, read::<commit_proxy::Assignment>(body).epoch)
            }
            (ServiceKind::CommitProxy, "PUT", "/v1/opening") => nothing(),
            (ServiceKind::CommitProxy, "POST", "/v1/commits") => match self.refuse_commit {
                Some(code) => problem(code, "log-1@node-2 did not answer"),
                None => self.commit(&read(body)),
            },
            (ServiceKind::CommitProxy, "GET", "/v1/status") => Ok(json(&commit_proxy::Status {
                epoch: self.epochs[who],
                open: false,
                committed: Version::ZERO,
                transactions: 0,
                begun: 0,
                per_second: None,
            })),
            (ServiceKind::Sequencer, "GET", "/v1/status") => Ok(json(&sequencer::Status {
                epoch: self.epochs[who],
                handed_out: Version::ZERO,
                committed: Version::ZERO,
            })),
            (ServiceKind::Resolver, "GET", "/v1/status") => Ok(json(&resolver::Status {
                epoch: self.epochs[who],
                version: Version::ZERO,
                boundaries: 0,
            })),
            _ => problem(ErrorCode::NotFound, format!("{who} {method} {path}")),
        }
    }

    fn take_up(&mut self, who: &ServiceRef, epoch: Epoch) -> Answer {
        self.epochs.insert(who.clone(), epoch);
        nothing()
    }

    fn coordinator(
        &mut self,
        who: &ServiceRef,
        method: &Method,
        path: &str,
        body: &[u8],
    ) -> Answer {
        match (method.as_str(), path) {
            ("GET", "/v1/nodes") => {
                let nodes = NODES.map(|node| self.report(node)).to_vec();
                Ok(json(&Nodes { nodes, ordered: vec![] }))
            }
            ("GET", "/v1/holding") => Ok(json(&Holding {
                cluster: ClusterId(7),
                group: GroupId(8),
                coordinators: self.members(),
                next_coordinators: vec![],
                appointed: self.appointed.clone(),
                recorded: self.recorded.clone(),
                ready: self.ready.clone(),
                version_floor: Version::ZERO,
            })),
            ("PUT", "/v1/holding") => {
                let request: RecordRequest = read(body);
                let held = self.recorded.as_ref().map(|held| held.config.config_version);
                if self.refuse_record || request.expected != held {
                    return problem(ErrorCode::Superseded, "not the latest appointment");
                }
                self.recorded = Some(request.recorded);
                nothing()
            }
            ("PUT", "/v1/ready") => {
                let request: ReadyRequest = read(body);
                assert_eq!(Some(request.epoch), self.recorded.as_ref().map(|r| r.config.epoch));
                self.ready = self.recorded.clone();
                nothing()
            }
            ("PUT", "/v1/farewell") => {
                self.farewells.push(read(body));
                nothing()
            }
            ("GET", "/v1/status") => Ok(json(&CoordinatorStatus {
                service: who.clone(),
                cluster: ClusterId(7),
                group: Some(GroupId(8)),
                leader: Some(who.clone()),
                is_leader: true,
                term: 1,
                members: vec![],
                epoch: self.shown_epoch,
                director: None,
                ready_epoch: Epoch::ZERO,
                phase: "standby".to_owned(),
                ready: false,
                config_version: ConfigVersion::default(),
                problem: None,
                bootstrap: Bootstrap {
                    source: "default".to_owned(),
                    storage: None,
                    epoch: Epoch::ZERO,
                    config_version: ConfigVersion::default(),
                    rejected: vec![],
                    waiting_for: None,
                },
            })),
            _ => problem(ErrorCode::NotFound, path),
        }
    }

    fn log(&mut self, who: &ServiceRef, method: &Method, path: &str, body: &[u8]) -> Answer {
        let store = self.stores[who];
        let log = self.logs.entry(who.clone()).or_default();
        match (method.as_str(), path) {
            ("POST", "/v1/locks") if log.disk_full => problem(ErrorCode::DiskFull, path),
            ("POST", "/v1/locks") => {
                log.locked = read::<LockRequest>(body).epoch;
                Ok(json(&LockAnswer {
                    store,
                    end: log.end,
                    known_committed: log.known_committed,
                    generation: log.generation,
                    tags: log
                        .tags
                        .iter()
                        .map(|tag| TagExtent { tag: *tag, popped: Version::ZERO })
                        .collect(),
                    config: log.config.clone().filter(|_| !log.config_damaged),
                    config_damaged: log.config_damaged,
                }))
            }
            ("PUT", "/v1/assignment") => {
                let told: log::Assignment = read(body);
                assert_eq!(log.locked, told.epoch, "{who} is assigned without a lock");
                log.end = told.generation.recovery_version;
                log.generation = Some(told.generation);
                log.tags = told.tags.iter().map(|tag| tag.tag).collect();
                log.copied = told.copy.iter().flat_map(|copy| copy.tags.clone()).collect();
                self.take_up(who, told.epoch)
            }
            ("PUT", "/v1/system_config") => {
                log.config = Some(read::<KeepRequest>(body).recorded);
                log.config_damaged = false;
                nothing()
            }
            ("GET", "/v1/status") => Ok(json(&log::Status {
                store,
                locked: log.locked,
                open: true,
                end: log.end,
                known_committed: log.known_committed,
                generations: vec![],
                tags: vec![],
                queue_bytes: 0,
                queue_limit_bytes: 0,
                disk_full: log.disk_full,
                backlogs: vec![],
                config: None,
            })),
            _ => problem(ErrorCode::NotFound, path),
        }
    }

    fn storage(&mut self, who: &ServiceRef, method: &Method, path: &str, body: &[u8]) -> Answer {
        let (store, epoch) = (self.stores[who], self.epochs[who]);
        match (method.as_str(), path) {
            ("PUT", "/v1/assignment") => self.take_up(who, read::<storage::Assignment>(body).epoch),
            ("PUT", "/v1/system_config") => nothing(),
            ("GET", "/v1/shard_config") => {
                let range = keys::shards();
                let shards = self.system.iter().filter(|(key, _)| range.contains(key.as_bytes()));
                let shards =
                    shards.map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() });
                let config = self.system.get(keys::CONFIG).cloned();
                Ok(json(&ShardConfig {
                    store,
                    version: self.committed,
                    epoch,
                    config: config.filter(|_| !self.forget_commits),
                    shards: shards.collect(),
                }))
            }
            ("GET", "/v1/status") => {
                let tag = TagStatus {
                    tag: Tag(0),
                    version: self.committed,
                    durable: self.committed,
                    durable_epoch: epoch,
                    oldest: Version::ZERO,
                    known_committed: self.committed,
                    copying: None,
                };
                Ok(json(&StorageStatus {
                    store,
                    epoch,
                    tags: vec![tag],
                    queue_bytes: 0,
                    lacks: BTreeSet::new(),
                }))
            }
            _ => problem(ErrorCode::NotFound, path),
        }
    }

    fn commit(&mut self, request: &commit_proxy::CommitRequest) -> Answer {
        assert!(request.system, "nobody else commits");
        for mutation in &request.mutations {
            match mutation {
                Mutation::Set { key, value } => {
                    self.system.insert(key.clone(), value.clone());
                }
                Mutation::Clear { key } => {
                    self.system.remove(key);
                }
                Mutation::ClearRange(range) => {
                    self.system.retain(|key, _| !range.contains(key.as_bytes()));
                }
                Mutation::Atomic { .. } => unreachable!("rows are set and cleared, nothing else"),
            }
        }
        self.committed = self.first_version;
        for log in self.logs.values_mut() {
            log.end = self.first_version;
        }
        Ok(json(&commit_proxy::Committed { version: self.first_version, index: 0 }))
    }

    /// The value of a row of `\xff/system`.
    pub(crate) fn row(&self, key: &[u8]) -> Option<&Value> {
        self.system.get(key)
    }

    /// The name of the only running worker of a kind.
    pub(crate) fn only(&self, kind: ServiceKind) -> ServiceRef {
        let mut found = self.processes.keys().filter(|service| service.kind() == kind);
        let (first, second) = (found.next().unwrap().clone(), found.next());
        assert_eq!(second, None);
        first
    }

    pub(crate) fn is_running(&self, name: ServiceName, node: &str) -> bool {
        self.processes.contains_key(&ServiceRef::new(name, node.parse().unwrap()))
    }
}

fn nothing() -> Answer {
    Ok(json(&plinth_api::Nothing {}))
}
