//! Failure 29: a deposed director orders a durable worker's removal. The foreman removes a directory only
//! once it has itself read at the coordinators that no recorded layout names it.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use plinth_api::coordinator::{Appointed, Holding};
use plinth_api::foreman::{
    ANNOUNCE, Announcement, CREATE, CreateWorker, NodeOrders, NodeReport, RETIRE, RetireWorker,
    WORKERS, WorkerState, WorkersQuery,
};
use plinth_api::{Endpoint, ErrorCode, Nothing, Target};
use plinth_foreman::{Config, Ending, Process, ProcessId, Spawner, WorkerOrder};
use plinth_runtime::{Faults, Runtime, Scope, ScopeGuard};
use plinth_service::{
    Answer, Exit, Host, HostOptions, Json, Peers, Routes, Secrets, Sender, Transport,
    WorkerDirectory,
};
use plinth_store::{Disk as _, DiskDelays, SimulatedDisk};
use plinth_system_config::{Recorded, decode_stored};
use plinth_types::{ClusterId, Epoch, GroupId, Incarnation, Pid, ServiceName, StoreId, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use utoipa_axum::routes;

const CLUSTER: ClusterId = ClusterId(0xc1);
/// The epoch that the coordinators have appointed last.
const LATEST: Epoch = Epoch(8);
/// A newcomer of the golden configuration's layout: no member yet, but named.
const NAMED: StoreId = StoreId(0x2004);
const PATIENCE: Duration = Duration::from_secs(20);

fn options(service: &str) -> HostOptions {
    HostOptions {
        service: service.parse().unwrap(),
        bind: "127.0.0.1:0".to_owned(),
        advertise: None,
        cluster: Some(CLUSTER),
        secrets: Secrets::default(),
    }
}

type Told = Arc<watch::Sender<Holding>>;

#[utoipa::path(get, path = "/v1/holding", responses((status = 200, body = Holding)))]
async fn holding(State(told): State<Told>) -> Answer<Holding> {
    Ok(Json(told.borrow().clone()))
}

#[utoipa::path(post, path = "/v1/nodes", request_body = NodeReport, responses((status = 200, body = NodeOrders)))]
async fn report(State(_told): State<Told>, Json(_report): Json<NodeReport>) -> Answer<NodeOrders> {
    Ok(Json(NodeOrders { cluster: Some(CLUSTER), epoch: LATEST, ..NodeOrders::default() }))
}

/// Starts workers that do nothing until they are ended.
struct Idle;

struct IdleProcess(watch::Sender<bool>);

impl Spawner for Idle {
    fn start(&self, _order: &WorkerOrder) -> io::Result<Box<dyn Process>> {
        Ok(Box::new(IdleProcess(watch::Sender::new(false))))
    }

    fn adopt(&self, _process: ProcessId, _log: &Path) -> Option<Box<dyn Process>> {
        None
    }
}

impl Process for IdleProcess {
    fn id(&self) -> Option<ProcessId> {
        None
    }

    fn ended(&mut self) -> BoxFuture<'_, String> {
        let mut ended = self.0.subscribe();
        async move {
            let _ = ended.wait_for(|ended| *ended).await;
            "asked to".to_owned()
        }
        .boxed()
    }

    fn end(&mut self, _how: Ending) {
        self.0.send_replace(true);
    }
}

/// A foreman that believes whoever orders.
struct Believing;

impl Faults for Believing {
    fn fires(&self, point: &'static str) -> bool {
        point == "foreman.retire_unread"
    }
}

struct World {
    told: Told,
    disk: SimulatedDisk,
    foreman: Pid,
    peers: Peers,
    directory: PathBuf,
    _end: ScopeGuard,
}

impl World {
    /// A foreman with `storage-1`, and the coordinator that it asks.
    async fn start(runtime: Runtime, coordinator_answers: bool) -> World {
        let (scope, end) = Scope::new();
        let recorded: Recorded = decode_stored(include_bytes!(
            "../../../libs/system-config/tests/golden/recorded-level-2.json"
        ))
        .unwrap();
        let appointed = Appointed {
            epoch: LATEST,
            service: "director-1@node-1".parse().unwrap(),
            pid: Pid {
                node: "node-1".parse().unwrap(),
                os_pid: 1,
                incarnation: Incarnation(1),
                address: "127.0.0.1:1".to_owned(),
            },
            cause: "a test".to_owned(),
        };
        let told = Arc::new(watch::Sender::new(Holding {
            cluster: CLUSTER,
            group: GroupId(1),
            coordinators: recorded.config.coordinators.clone(),
            next_coordinators: vec![],
            appointed: Some(appointed),
            recorded: Some(recorded.clone()),
            ready: Some(recorded),
            version_floor: Version::ZERO,
        }));
        let host = Host::bind(Runtime::real(), options("coordinator-1@node-1")).await.unwrap();
        let coordinator = Target::from(host.context().pid());
        let routes = Routes::new().service(routes!(report));
        let routes = if coordinator_answers { routes.service(routes!(holding)) } else { routes };
        let routes = routes.with_state(Arc::clone(&told));
        drop(scope.spawn("coordinator", host.run(routes, std::future::pending::<Exit>())));

        let delays = DiskDelays { open: Duration::ZERO..=Duration::ZERO, ..DiskDelays::default() };
        let disk = SimulatedDisk::new("node-1", Runtime::real().random(), delays, None);
        let directory = PathBuf::from("/data/node-1");
        let host = Host::bind(runtime, options("foreman-1@node-1")).await.unwrap();
        let foreman = host.context().pid().clone();
        let config = Config {
            directory: directory.clone(),
            zone: "node-1".parse().unwrap(),
            cluster: Some(CLUSTER),
            coordinators: vec![coordinator],
            statics: Vec::new(),
            kinds: Config::KINDS.to_vec(),
            lock_patience: PATIENCE,
        };
        let served = plinth_foreman::serve(host, config, Arc::new(disk.clone()), Arc::new(Idle));
        drop(scope.spawn("foreman", served));
        let service = Some("director-1@node-1".parse().unwrap());
        let sender = Sender { service, secrets: Secrets::default() };
        let peers = Peers::new(Transport::new(Runtime::real(), scope.clone(), &sender));
        World { told, disk, foreman, peers, directory, _end: end }
    }

    async fn ask<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        endpoint: Endpoint<Req, Resp>,
        request: &Req,
    ) -> Result<Resp, ErrorCode> {
        let target = Target::from(&self.foreman);
        let answer = self.peers.call(&target, &endpoint, request, None, PATIENCE).await;
        answer.map_err(|error| error.code().unwrap_or_else(|| panic!("{error}")))
    }

    /// Has a storage made, which makes its directory and announces it as this store.
    async fn make(&self, name: &str, store: StoreId) {
        let name: ServiceName = name.parse().unwrap();
        let order = CreateWorker { name, epoch: LATEST, wait_ms: 0 };
        let made = async {
            // The foreman binds itself to the cluster first.
            while self.ask(CREATE, &order).await.is_err_and(|code| code == ErrorCode::NotReady) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, made).await.unwrap();
        let path = self.directory.join(name.to_string());
        let service = format!("{name}@node-1").parse().unwrap();
        let runtime = Runtime::real();
        WorkerDirectory::open_or_create(&self.disk, path, Some(CLUSTER), &service, &runtime)
            .unwrap();
        let pid = Pid {
            incarnation: Incarnation(u64::try_from(store.0).unwrap()),
            ..self.foreman.clone()
        };
        self.ask(ANNOUNCE, &Announcement::new(name, pid, Some(store))).await.unwrap();
    }

    async fn retire(&self, name: &str, store: StoreId, epoch: Epoch) -> Result<Nothing, ErrorCode> {
        self.ask(RETIRE, &RetireWorker { name: name.parse().unwrap(), store, epoch }).await
    }

    /// Whether a worker is there, and what its directory has become.
    async fn left(&self, name: &str) -> (Option<WorkerState>, Vec<String>) {
        let workers = self.ask(WORKERS, &WorkersQuery::default()).await.unwrap().workers;
        let name: ServiceName = name.parse().unwrap();
        let state = workers.iter().find(|worker| worker.name == name).map(|worker| worker.state);
        let mut entries = self.disk.list(&self.directory).unwrap();
        entries.retain(|entry| entry.contains("storage"));
        (state, entries)
    }
}

#[tokio::test]
async fn a_directory_is_removed_only_when_the_coordinators_say_that_no_layout_names_it() {
    let world = World::start(Runtime::real(), true).await;
    let (name, other) = ("storage-2", StoreId(0x77));
    world.make(name, NAMED).await;
    // The layout names it, if only as a newcomer.
    assert_eq!(world.retire(name, NAMED, LATEST).await.unwrap_err(), ErrorCode::Forbidden);
    // Whoever orders takes it for another directory.
    assert_eq!(world.retire(name, other, LATEST).await.unwrap_err(), ErrorCode::DuplicateName);
    // Nothing is recorded, which says nothing.
    let recorded = world.told.borrow().recorded.clone();
    world.told.send_modify(|told| told.recorded = None);
    assert_eq!(world.retire(name, NAMED, LATEST).await.unwrap_err(), ErrorCode::Forbidden);
    world.told.send_modify(|told| told.recorded = recorded);

    let name = "storage-3";
    world.make(name, other).await;
    for deposed in [Epoch(7), Epoch(9)] {
        let refused = world.retire(name, other, deposed).await.unwrap_err();
        assert_eq!(refused, ErrorCode::StaleEpoch);
    }
    assert!(world.left(name).await.1.contains(&name.to_owned()));
    world.retire(name, other, LATEST).await.unwrap();
    let (state, left) = world.left(name).await;
    assert_eq!(state, None);
    let aside = |entry: &String| {
        entry.starts_with("removed-") && entry.contains(&format!("{name}-{other}"))
    };
    assert!(left.iter().any(aside) && !left.contains(&name.to_owned()), "{left:?}");
    assert!(left.contains(&"storage-2".to_owned()), "{left:?}");
}

#[tokio::test]
async fn a_directory_stays_while_no_coordinator_answers() {
    let world = World::start(Runtime::real(), false).await;
    world.make("storage-2", StoreId(0x77)).await;
    let refused = world.retire("storage-2", StoreId(0x77), LATEST).await.unwrap_err();
    assert_eq!(refused, ErrorCode::NotReady);
    let (state, left) = world.left("storage-2").await;
    assert_eq!((state, left), (Some(WorkerState::Up), vec!["storage-2".to_owned()]));
}

/// The same with the fault that brings the failure back: the directory that the layout names is gone.
#[tokio::test]
async fn a_foreman_that_believes_a_deposed_director_loses_the_directory() {
    let world = World::start(Runtime::real().with_faults(Arc::new(Believing)), true).await;
    world.make("storage-2", NAMED).await;
    world.retire("storage-2", NAMED, Epoch(7)).await.unwrap();
    let (state, left) = world.left("storage-2").await;
    assert_eq!(state, None);
    assert!(!left.contains(&"storage-2".to_owned()), "{left:?}");
}
