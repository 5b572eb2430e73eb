//! The nodes of a cluster, and what can befall them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use plinth::cluster_file::{ClusterFile, CoordinatorEntry};
use plinth::in_process::{InProcess, Running};
use plinth::roster::World;
use plinth::tuning::Tuning;
use plinth_api::Target;
use plinth_service::{Secret, Secrets, StateReads};
use plinth_simulation::Simulation;
use plinth_storage::records::{CONFIG, META, SYSTEM};
use plinth_store::{Disk as _, DiskDelays, Image, SimulatedDisk};
use plinth_system_config::{Parameters, keys};
use plinth_types::{ClusterId, NodeId, ServiceKind, ServiceName, ServiceRef};

/// Where the coordinators listen, each on its node.
const COORDINATOR_PORT: u16 = 4500;
/// Where the gateways listen, each on its node.
const GATEWAY_PORT: u16 = 4000;
/// Where a node keeps its data.
pub(crate) const DATA: &str = "/data";
/// The time after which a node's init starts a foreman again that has ended.
const FOREMAN_RESTART: Duration = Duration::from_millis(500);

/// How large a cluster is, and how its disks are.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How many nodes.
    pub nodes: u32,
    /// How many of them have a coordinator: 1, 3 or 5.
    pub coordinators: u32,
    /// How many more have one that the cluster file does not name, and that waits to be let in.
    pub waiting: u32,
    /// How slow the disks are.
    pub disks: DiskDelays,
    /// What the cluster begins with.
    pub parameters: Parameters,
    /// The limits of its services.
    pub tuning: Tuning,
}

impl Default for Shape {
    /// Three nodes, each with a coordinator.
    fn default() -> Self {
        Shape {
            nodes: 3,
            coordinators: 3,
            waiting: 0,
            disks: DiskDelays::default(),
            parameters: Parameters::default(),
            tuning: Tuning::default(),
        }
    }
}

/// One machine.
pub struct Node {
    /// Its name, which is its host's too.
    pub id: NodeId,
    /// What outlives it.
    pub disk: SimulatedDisk,
    running: Running,
    /// What each of its services sees of the disk.
    views: Arc<Mutex<BTreeMap<ServiceRef, SimulatedDisk>>>,
    on: bool,
    /// Lost for good, with its disk.
    lost: bool,
}

impl Node {
    /// Whether it has power.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// The services that run on it.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceRef> {
        if self.on { self.running.services() } else { Vec::new() }
    }

    /// Where its gateway answers, `host:port`.
    #[must_use]
    pub fn gateway(&self) -> String {
        format!("{}:{GATEWAY_PORT}", self.id)
    }
}

/// A cluster of simulated machines.
pub struct Cluster {
    world: Simulation,
    nodes: Vec<Node>,
    file: Arc<ClusterFile>,
    /// The coordinators that wait to be let in.
    waiting: Vec<CoordinatorEntry>,
    secrets: Secrets,
    tuning: Tuning,
}

impl Cluster {
    /// The machines, with nothing on their disks and no power.
    ///
    /// # Errors
    /// A shape that can't be.
    pub fn new(world: &Simulation, shape: &Shape) -> anyhow::Result<Cluster> {
        let id = |number: u32| format!("node-{number}").parse::<NodeId>();
        let ids: Vec<NodeId> = (1..=shape.nodes).map(id).collect::<Result<_, _>>()?;
        let coordinators = usize::try_from(shape.coordinators)?;
        let waiting = usize::try_from(shape.waiting)?;
        let coordinator = |node: &NodeId| CoordinatorEntry {
            service: service(ServiceKind::Coordinator, node),
            url: format!("http://{node}:{COORDINATOR_PORT}"),
        };
        let waiting = ids.iter().skip(coordinators).take(waiting).map(coordinator).collect();
        let setup = world.runtime("setup");
        let file = ClusterFile {
            cluster: ClusterId(setup.random_u128()),
            coordinators: ids.iter().take(coordinators).map(coordinator).collect(),
            initial_nodes: ids.clone(),
            parameters: shape.parameters.clone(),
        };
        let secrets = Secrets {
            cluster: Some(Secret::generate(&setup)),
            administrator: Some(Secret::generate(&setup)),
        };
        let node = |id: NodeId| Node {
            disk: world.disk(id.as_str(), shape.disks.clone()),
            id,
            running: Running::default(),
            views: Arc::default(),
            on: false,
            lost: false,
        };
        let nodes = ids.into_iter().map(node).collect();
        let (world, tuning) = (world.clone(), shape.tuning.clone());
        Ok(Cluster { world, nodes, file: Arc::new(file), waiting, secrets, tuning })
    }

    /// The machines.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Where its coordinators are, and those that wait: the ones of the cluster file first.
    #[must_use]
    pub fn coordinators(&self) -> Vec<(ServiceRef, Target)> {
        let all = self.file.coordinators.iter().chain(&self.waiting);
        all.map(|entry| (entry.service.clone(), Target::address(&entry.url))).collect()
    }

    /// What it began with.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.file.parameters
    }

    /// What proves that a service calls.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Makes every node a host of the simulation, which gives it power.
    pub fn power_on(&mut self, sim: &mut turmoil::Sim<'_>) {
        for node in &mut self.nodes {
            let (world, disk) = (self.world.clone(), node.disk.clone());
            let tuning = self.tuning.clone();
            let (file, secrets) = (Arc::clone(&self.file), self.secrets.clone());
            let (id, running, views) =
                (node.id.clone(), node.running.clone(), Arc::clone(&node.views));
            let host = id.as_str().to_owned();
            let gateway = (service(ServiceKind::Gateway, &id), format!("{id}:{GATEWAY_PORT}"));
            let here = self.waiting.iter().find(|entry| entry.service.node == id);
            let waiting = here.map(|entry| (entry.service.clone(), entry.address()));
            let binds: BTreeMap<ServiceRef, String> =
                [gateway].into_iter().chain(waiting).collect();
            sim.host(host, move || {
                let worlds =
                    worlds(world.clone(), disk.clone(), tuning.clone(), Arc::clone(&views));
                let cluster = InProcess {
                    worlds: Arc::new(worlds),
                    cluster: Arc::clone(&file),
                    secrets: secrets.clone(),
                    // Hosts of a simulation have no loopback; its users are all on one machine.
                    state_reads: StateReads::Anyone,
                    bind: format!("{id}:0"),
                    binds: binds.clone(),
                    running: running.clone(),
                };
                run_node(cluster, id.clone())
            });
            node.on = true;
        }
    }

    /// A node loses its power: everything on it is gone at once, and of what it had not synced some
    /// part. `silently` nobody hears of it, as of a machine without power; otherwise its connections
    /// are closed, as by a system that goes down. Answers whether it had power.
    pub fn power_loss(
        &mut self,
        sim: &mut turmoil::Sim<'_>,
        node: &NodeId,
        silently: bool,
    ) -> bool {
        let others = self.nodes.iter().map(|node| &node.id).filter(|other| *other != node);
        if silently {
            for other in others {
                sim.partition(node.as_str(), other.as_str());
            }
        }
        let Some(node) = self.nodes.iter_mut().find(|other| other.id == *node && other.on) else {
            return false;
        };
        node.on = false;
        sim.crash(node.id.as_str());
        let random = self.world.random(&format!("power of {}", node.id));
        node.disk.power_loss(&*random);
        true
    }

    /// A node is lost for good, with everything that it had. Nobody hears of it.
    pub fn lose(&mut self, sim: &mut turmoil::Sim<'_>, node: &NodeId) {
        self.power_loss(sim, node, true);
        if let Some(node) = self.nodes.iter_mut().find(|other| other.id == *node) {
            node.lost = true;
            // Where there is nothing, nothing is lost.
            let _ = node.disk.remove(&Path::new(DATA).join(node.id.as_str()));
        }
    }

    /// Gives a node its power back. Answers whether it had none.
    pub fn power_back(&mut self, sim: &mut turmoil::Sim<'_>, node: &NodeId) -> bool {
        if self.nodes.iter().any(|other| other.id == *node && other.lost) {
            return false;
        }
        for other in self.nodes.iter().map(|node| &node.id).filter(|other| *other != node) {
            sim.repair(node.as_str(), other.as_str());
        }
        let Some(node) = self.nodes.iter_mut().find(|other| other.id == *node && !other.on) else {
            return false;
        };
        node.on = true;
        sim.bounce(node.id.as_str());
        true
    }

    /// Every node that has no power loses its coordinator's directory.
    pub fn lose_coordinators(&self) {
        for node in &self.nodes {
            self.lose_coordinator(&node.id);
        }
    }

    /// A node that has no power loses its coordinator's directory.
    pub fn lose_coordinator(&self, node: &NodeId) {
        for node in self.nodes.iter().filter(|other| other.id == *node && !other.on) {
            let coordinator = service(ServiceKind::Coordinator, &node.id);
            // Where there is none, nothing is lost.
            let _ = node.disk.remove(&directory(&coordinator));
        }
    }

    /// No storage of any node can read the configuration any more: neither the one that it keeps for
    /// a bootstrap, nor the one among the keys of the system shard.
    pub fn damage_kept_configs(&self) {
        for node in &self.nodes {
            let directory = Path::new(DATA).join(node.id.as_str());
            for name in node.disk.list(&directory).unwrap_or_default() {
                if name.starts_with("storage-") {
                    let store = directory.join(name).join("store");
                    // Where there is none, nothing is damaged.
                    node.disk.corrupt_row(&store, META, CONFIG);
                    node.disk.corrupt_row(&store, SYSTEM, keys::CONFIG);
                }
            }
        }
    }

    /// How a node's disk is from now on.
    pub fn set_disk(&self, node: &NodeId, delays: DiskDelays, full: bool) {
        if let Some(node) = self.nodes.iter().find(|other| other.id == *node) {
            node.disk.set_delays(delays);
            node.disk.set_full(full);
        }
    }

    /// Asks a service to stop. Answers whether it ran.
    pub fn stop(&self, service: &ServiceRef) -> bool {
        let mut nodes = self.nodes.iter().filter(|node| node.on);
        nodes.any(|node| node.id == service.node && node.running.stop(service))
    }

    /// Kills a service as `kill -9` does. Answers whether it ran.
    pub fn kill(&self, service: &ServiceRef) -> bool {
        let Some(node) = self.nodes.iter().find(|node| node.id == service.node && node.on) else {
            return false;
        };
        let killed = node.running.kill(service);
        let views = node.views.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = views.get(service)
            && killed
        {
            view.process_crash();
        }
        killed
    }

    /// A node's log is killed and loses its directory: whatever is started under its name is another,
    /// empty one. Answers which.
    pub fn wipe_log(&self, node: &NodeId) -> Option<ServiceRef> {
        let node = self.node(node).ok()?;
        let log = node.services().into_iter().find(|service| service.kind() == ServiceKind::Log)?;
        if !self.kill(&log) {
            return None;
        }
        // Where there is none, nothing is lost.
        let _ = node.disk.remove(&directory(&log));
        Some(log)
    }

    /// What a service has on its node's disk now; none where it has nothing.
    pub fn image(&self, service: &ServiceRef) -> Option<Image> {
        let disk = &self.node(&service.node).ok()?.disk;
        let directory = directory(service);
        let has_any = disk.list(&directory).is_ok_and(|names| !names.is_empty());
        has_any.then(|| disk.image(&directory))
    }

    /// A service is killed, if it runs, and finds its directory as it was. Answers whether it still has
    /// one.
    pub fn put_back(&self, service: &ServiceRef, image: &Image) -> bool {
        let Ok(node) = self.node(&service.node) else { return false };
        if self.image(service).is_none() {
            return false;
        }
        self.kill(service);
        node.disk.put_back(image).is_ok()
    }
}

/// Where a service has what it keeps, on its node's disk.
fn directory(service: &ServiceRef) -> PathBuf {
    Path::new(DATA).join(service.node.as_str()).join(service.name.to_string())
}

/// The service of a kind that each node has one of.
fn service(kind: ServiceKind, node: &NodeId) -> ServiceRef {
    ServiceRef::new(ServiceName::new(kind, 1), node.clone())
}

/// Each service that starts is a process of its own to the disk, and has a number of its own.
fn worlds(
    world: Simulation,
    disk: SimulatedDisk,
    tuning: Tuning,
    views: Arc<Mutex<BTreeMap<ServiceRef, SimulatedDisk>>>,
) -> impl Fn(&ServiceRef) -> World + Send + Sync {
    let processes = AtomicU32::new(0);
    move |service| {
        let number = processes.fetch_add(1, Ordering::Relaxed) + 1;
        let runtime = world.runtime_of(service.node.as_str(), &service.to_string());
        let view = disk.process();
        views.lock().unwrap_or_else(PoisonError::into_inner).insert(service.clone(), view.clone());
        let runtime = runtime.with_process_id(number);
        World { runtime, disk: Arc::new(view), tuning: tuning.clone() }
    }
}

/// A node while it has power: its foreman, started again whenever it ends.
async fn run_node(cluster: InProcess, id: NodeId) -> turmoil::Result {
    loop {
        let mut foreman = cluster.start_node(&id, Path::new(DATA));
        match foreman.exit().await {
            Some(exit) => tracing::warn!(node = %id, reason = exit.reason, "the foreman ended"),
            None => tracing::warn!(node = %id, "the foreman was killed"),
        }
        drop(foreman);
        tokio::time::sleep(FOREMAN_RESTART).await;
    }
}

impl Cluster {
    /// A node by its name.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&self, id: &NodeId) -> anyhow::Result<&Node> {
        let found = self.nodes.iter().find(|node| node.id == *id);
        found.with_context(|| anyhow!("there is no node {id}"))
    }
}
