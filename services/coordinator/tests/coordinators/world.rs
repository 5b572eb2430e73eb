//! The cluster around the coordinators: disks, addresses, nodes that report.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderValue;
use plinth_api::config::{ConfigPatch, ConfigPatched, PATCH_CONFIG};
use plinth_api::coordinator::{HOLDING, Holding, REPORT, STATUS, Status};
use plinth_api::foreman::{NodeReport, Worker, WorkerState};
use plinth_api::{CallError, Endpoint, ErrorCode, Nothing, Target};
use plinth_coordinator::{ClusterFile, Config, CoordinatorAddress, serve};
use plinth_runtime::Runtime;
use plinth_service::{Host, HostOptions, Routes, Secrets};
use plinth_store::{DiskDelays, SimulatedDisk};
use plinth_system_config::{
    FORMAT_LEVEL, Layout, Policies, Recorded, ResolverEntry, ShardMap, StorageMember, StorageTeam,
    SystemConfig,
};
use plinth_types::{
    ClusterId, ConfigVersion, Epoch, Key, KeyRange, NodeId, ServiceKind, ServiceName, ServiceRef,
    StoreId, Tag, Version, Zone,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep};

use crate::played::{Life, Played};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
/// Nothing here may take longer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const CALL: Duration = Duration::from_secs(5);

pub(crate) fn node(number: usize) -> NodeId {
    format!("node-{number}").parse().unwrap()
}

pub(crate) fn service(kind: ServiceKind, on: usize) -> ServiceRef {
    ServiceRef::new(ServiceName::new(kind, 1), node(on))
}

type Workers = Arc<Mutex<BTreeMap<ServiceRef, (Worker, NodeId)>>>;
/// What the nodes' foremen say that they read; none where they do not say.
type Reads = Arc<Mutex<BTreeMap<NodeId, Option<u32>>>>;

/// Three machines with a coordinator each, and nodes that report what the tests put on them.
pub(crate) struct World {
    pub(crate) file: ClusterFile,
    pub(crate) client: Played,
    /// Where each coordinator answers; a fourth one is not of the cluster file.
    addresses: Vec<String>,
    disks: Vec<SimulatedDisk>,
    running: Vec<Option<Life>>,
    workers: Workers,
    reads: Reads,
    _reporting: Life,
}

fn blank_disk() -> SimulatedDisk {
    SimulatedDisk::new("machine", Runtime::real().random(), DiskDelays::none(), None)
}

async fn bind(on: usize, address: &str) -> Host {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let options = HostOptions {
            service: service(ServiceKind::Coordinator, on),
            bind: address.to_owned(),
            advertise: None,
            cluster: Some(CLUSTER),
            secrets: Secrets { cluster: None, administrator: None },
        };
        match Host::bind(Runtime::real(), options).await {
            Ok(host) => return host,
            // The socket of the process before may take a moment to go.
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

impl World {
    /// Three coordinators on empty disks, started.
    pub(crate) async fn start() -> World {
        let mut hosts = Vec::new();
        for on in 1..=3 {
            hosts.push(bind(on, "127.0.0.1:0").await);
        }
        let coordinators = hosts
            .iter()
            .map(|host| CoordinatorAddress {
                service: host.context().service().clone(),
                address: host.context().pid().address.clone(),
            })
            .collect();
        let initial_nodes = (1..=3).map(node).collect();
        let file = ClusterFile { cluster_id: CLUSTER, coordinators, initial_nodes };
        let file_addresses = file.coordinators.iter().map(|one| one.address.clone()).collect();
        let (workers, reads) = (Workers::default(), Reads::default());
        let foreman = service(ServiceKind::Foreman, 9);
        let client = Played::start(foreman, CLUSTER, |_| Routes::new()).await;
        let reporting =
            report(client.context.clone(), file.clone(), workers.clone(), reads.clone());
        let _reporting = Life::start(reporting);
        let mut world = World {
            file,
            client,
            addresses: file_addresses,
            disks: (0..3).map(|_| blank_disk()).collect(),
            running: (0..3).map(|_| None).collect(),
            workers,
            reads,
            _reporting,
        };
        for (index, host) in hosts.into_iter().enumerate() {
            world.run(index, host);
        }
        world
    }

    fn run(&mut self, index: usize, host: Host) {
        let mut cluster = self.file.clone();
        cluster.move_to(&service(ServiceKind::Coordinator, index + 1), &self.addresses[index]);
        let config = Config { directory: PathBuf::from("/coordinator-1"), cluster, foreman: None };
        let disk = Arc::new(self.disks[index].clone());
        self.running[index] = Some(Life::start(async move {
            drop(serve(host, config, disk).await);
        }));
    }

    /// `kill -9` of the coordinator on a node (from 1).
    pub(crate) async fn kill(&mut self, on: usize) {
        if let Some(life) = self.running[on - 1].take() {
            life.kill().await;
            self.disks[on - 1].process_crash();
        }
    }

    /// The coordinator on a node starts again, at its old address.
    pub(crate) async fn restart(&mut self, on: usize) {
        let host = bind(on, &self.addresses[on - 1].clone()).await;
        self.run(on - 1, host);
    }

    /// The coordinator on a node starts again, and answers elsewhere from now on.
    pub(crate) async fn restart_elsewhere(&mut self, on: usize) {
        let host = bind(on, "127.0.0.1:0").await;
        self.addresses[on - 1].clone_from(&host.context().pid().address);
        self.run(on - 1, host);
    }

    /// A fourth coordinator, which no cluster file names.
    pub(crate) async fn start_fourth(&mut self) {
        let host = bind(4, "127.0.0.1:0").await;
        self.addresses.push(host.context().pid().address.clone());
        self.disks.push(blank_disk());
        self.running.push(None);
        self.run(3, host);
    }

    /// Where the coordinator on a node answers.
    pub(crate) fn address(&self, on: usize) -> &str {
        &self.addresses[on - 1]
    }

    /// The disk of a coordinator that does not run is replaced by an empty one.
    pub(crate) fn wipe(&mut self, on: usize) {
        assert!(self.running[on - 1].is_none());
        self.disks[on - 1] = blank_disk();
    }

    /// From now on the service's node reports it.
    pub(crate) fn add(&self, played: &Played, store: Option<StoreId>) {
        let worker = Worker {
            name: played.service.name,
            state: WorkerState::Up,
            pid: Some(played.pid()),
            store,
            announced: true,
            exits: 0,
            last_exit: None,
            format_level: Some(FORMAT_LEVEL),
        };
        let on = played.service.node.clone();
        self.workers.lock().unwrap().insert(played.service.clone(), (worker, on));
    }

    /// From now on the service's node reports it no more.
    pub(crate) fn remove(&self, service: &ServiceRef) {
        self.workers.lock().unwrap().remove(service);
    }

    /// From now on a node's foreman says that it reads up to this level, or says nothing.
    pub(crate) fn reads(&self, on: usize, level: Option<u32>) {
        self.reads.lock().unwrap().insert(node(on), level);
    }

    pub(crate) async fn ask<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        on: usize,
        endpoint: &Endpoint<Req, Resp>,
        request: &Req,
    ) -> Result<Resp, CallError> {
        let target = Target::address(self.address(on));
        self.client.context.peers().call(&target, endpoint, request, None, CALL).await
    }

    /// What a metric amounts to, over all its labels and all coordinators that run.
    pub(crate) async fn sum_of(&self, name: &str) -> u64 {
        let mut sum = 0;
        for (on, _) in (1..).zip(&self.running).filter(|(_, life)| life.is_some()) {
            let address = self.address(on);
            #[expect(
                clippy::disallowed_methods,
                reason = "the metrics are text, which peers don't ask for"
            )]
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request =
                format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let series = answer.lines().filter(|line| line.starts_with(&format!("{name}{{")));
            sum +=
                series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum::<u64>();
        }
        sum
    }

    /// Asks for a change of the configuration, which may have to wait for a recovery.
    pub(crate) async fn patch(
        &self,
        on: usize,
        path: &str,
        tag: &HeaderValue,
        patch: &ConfigPatch,
    ) -> Result<ConfigPatched, CallError> {
        self.conditional(on, &PATCH_CONFIG, path, tag, patch).await
    }

    /// Asks for a change of any kind, in the same way.
    pub(crate) async fn conditional<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        on: usize,
        endpoint: &Endpoint<Req, Resp>,
        path: &str,
        tag: &HeaderValue,
        request: &Req,
    ) -> Result<Resp, CallError> {
        let target = Target::address(self.address(on));
        let peers = self.client.context.peers();
        let answer = peers.conditional(&target, endpoint, path, tag, request, PATIENCE).await;
        answer.map(|answer| answer.body)
    }

    pub(crate) async fn holding(&self, on: usize) -> Holding {
        // A follower hears of its leader a little later than of what the leader has done.
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.ask(on, &HOLDING, &Nothing {}).await {
                Ok(holding) => return holding,
                Err(error) => {
                    let is_over = Instant::now() >= deadline;
                    assert!(error.code() == Some(ErrorCode::NoQuorum) && !is_over, "{error}");
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a request is refused with this code.
    pub(crate) async fn until_refused<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        on: usize,
        endpoint: &Endpoint<Req, Resp>,
        request: &Req,
        code: ErrorCode,
    ) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(on, endpoint, request).await.map(|_| ());
            if answer.as_ref().is_err_and(|error| error.code() == Some(code)) {
                return;
            }
            assert!(Instant::now() < deadline, "not {code:?}: {answer:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the status of a coordinator is as wanted.
    pub(crate) async fn until(
        &self,
        on: usize,
        what: &str,
        wanted: impl Fn(&Status) -> bool,
    ) -> Status {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.ask(on, &STATUS, &Nothing {}).await;
            if let Ok(status) = &status
                && wanted(status)
            {
                return status.clone();
            }
            assert!(Instant::now() < deadline, "not {what}: {status:#?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The nodes' foremen: they report to every coordinator, and write the id that they are told.
async fn report(
    context: plinth_service::Context,
    file: ClusterFile,
    workers: Workers,
    reads: Reads,
) {
    let mut written: BTreeMap<NodeId, ClusterId> = BTreeMap::new();
    loop {
        for on in &file.initial_nodes {
            let here: Vec<Worker> = {
                let workers = workers.lock().unwrap();
                let here = workers.values().filter(|(_, node)| node == on);
                here.map(|(worker, _)| worker.clone()).collect()
            };
            let report = NodeReport {
                node: on.clone(),
                zone: Zone::of_node(on),
                foreman: context.pid().clone(),
                cluster: written.get(on).copied(),
                kinds: vec![],
                workers: here,
                settled: true,
                format_level: reads.lock().unwrap().get(on).copied().unwrap_or(Some(FORMAT_LEVEL)),
            };
            for coordinator in &file.coordinators {
                let target = Target::address(&coordinator.address);
                let answer = context.peers().call(&target, &REPORT, &report, None, CALL).await;
                if let Ok(orders) = answer
                    && let Some(cluster) = orders.cluster
                {
                    written.insert(on.clone(), cluster);
                }
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn storage_store(on: usize) -> StoreId {
    StoreId(0x2000 + on as u128)
}

/// A configuration on top of what the coordinators hold.
pub(crate) fn configuration(holding: &Holding, epoch: Epoch) -> Recorded {
    let before = holding.recorded.as_ref().map(|recorded| recorded.config.config_version);
    let first_version = Version(100 + epoch.0).max(holding.version_floor);
    let config = SystemConfig {
        cluster_id: holding.cluster,
        group_id: holding.group,
        format_level: FORMAT_LEVEL,
        epoch,
        config_version: before.unwrap_or(ConfigVersion(0)).next(),
        coordinators: holding.coordinators.clone(),
        next_coordinators: holding.next_coordinators.clone(),
        parameters: Default::default(),
        policies: Policies::default(),
        nodes: BTreeMap::new(),
        layout: Layout {
            epoch,
            recovery_version: Version(0),
            first_version,
            director: service(ServiceKind::Director, 1),
            sequencer: service(ServiceKind::Sequencer, 1),
            commit_proxies: vec![service(ServiceKind::CommitProxy, 1)],
            resolvers: vec![ResolverEntry {
                service: service(ServiceKind::Resolver, 1),
                range: KeyRange::all(),
            }],
            logs: vec![],
            storage_teams: vec![StorageTeam {
                tag: Tag::SYSTEM,
                members: (1..=3)
                    .map(|on| StorageMember {
                        store: storage_store(on),
                        service: service(ServiceKind::Storage, on),
                    })
                    .collect(),
                joining: vec![],
            }],
        },
        shards: ShardMap(vec![]).summary(),
    };
    Recorded::new(config, ShardMap(vec![(Key::default(), Tag(1))]))
}
