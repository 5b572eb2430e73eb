//! Workers as tasks of this process, for `plinth dev` and for simulation. Each has a task tree of
//! its own: its exit or panic drops that and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use plinth_api::Target;
use plinth_foreman::{Ending, Process, ProcessId, Spawner, WorkerOrder};
use plinth_runtime::{Scope, ScopeGuard};
use plinth_service::{Exit, Secrets, StateReads};
use plinth_types::{NodeId, ServiceKind, ServiceRef, Zone};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster_file::ClusterFile;
use crate::launch::{Launch, node_directory};
use crate::node::default_statics;
use crate::roster::{self, ForemanLaunch, World};

/// Gives each service that is started the world that it runs in.
pub type Worlds = Arc<dyn Fn(&ServiceRef) -> World + Send + Sync>;

/// A cluster in one process.
#[derive(Clone)]
pub struct InProcess {
    /// Where its services run.
    pub worlds: Worlds,
    /// Which cluster.
    pub cluster: Arc<ClusterFile>,
    /// What proves who calls.
    pub secrets: Secrets,
    /// Who may read the cluster's state.
    pub state_reads: StateReads,
    /// Where the services listen that are not told otherwise, `host:0`.
    pub bind: String,
    /// Where certain services listen.
    pub binds: BTreeMap<ServiceRef, String>,
    /// The services that run.
    pub running: Running,
}

/// The tree of a task; gone once it was killed.
type Tree = Mutex<Option<ScopeGuard>>;

/// The services that run as tasks. A clone is the same list.
#[derive(Clone, Default)]
pub struct Running(Arc<Mutex<BTreeMap<ServiceRef, Handles>>>);

/// By what a task is ended from outside.
struct Handles {
    tree: Weak<Tree>,
    stop: watch::Sender<bool>,
}

impl Running {
    /// Those that run now, in their order.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceRef> {
        let trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trees.iter().filter(|(_, task)| task.runs()).map(|(who, _)| who.clone()).collect()
    }

    /// Asks a service to stop, as `SIGTERM` does a process. Answers whether it ran.
    pub fn stop(&self, service: &ServiceRef) -> bool {
        let trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let task = trees.get(service).filter(|task| task.runs());
        task.map(|task| task.stop.send_replace(true)).is_some()
    }

    /// Kills a service, as `kill -9` does a process. Answers whether it ran.
    pub fn kill(&self, service: &ServiceRef) -> bool {
        let tree = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(service);
        tree.and_then(|task| task.tree.upgrade()).is_some_and(|tree| cut(&tree))
    }

    fn note(&self, service: ServiceRef, tree: &Arc<Tree>, stop: &watch::Sender<bool>) {
        let mut trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trees.insert(service, Handles { tree: Arc::downgrade(tree), stop: stop.clone() });
    }
}

impl Handles {
    fn runs(&self) -> bool {
        let Some(tree) = self.tree.upgrade() else { return false };
        tree.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// Ends the tree of a task. Answers whether it was whole.
fn cut(tree: &Tree) -> bool {
    tree.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
}

impl InProcess {
    /// Starts a node's foreman, which starts the rest. The task ends when it does.
    #[must_use]
    pub fn start_node(&self, node: &NodeId, data_dir: &Path) -> Task {
        let service =
            ServiceRef::new(plinth_types::ServiceName::new(ServiceKind::Foreman, 1), node.clone());
        // One that the cluster file does not name runs where it is told where to listen.
        let name = plinth_types::ServiceName::new(ServiceKind::Coordinator, 1);
        let coordinator = ServiceRef::new(name, node.clone());
        let foreman = ForemanLaunch {
            spawner: Arc::new(self.clone()),
            statics: default_statics(
                &self.cluster,
                &service,
                self.binds.contains_key(&coordinator),
            ),
            kinds: plinth_foreman::Config::KINDS.to_vec(),
            lock_patience: std::time::Duration::ZERO,
        };
        let directory = node_directory(data_dir, node);
        let world = (self.worlds)(&service);
        self.task(service, directory, None, |launch| roster::run_foreman(world, launch, foreman))
    }

    fn task(
        &self,
        service: ServiceRef,
        directory: std::path::PathBuf,
        foreman: Option<Target>,
        run: impl FnOnce(Launch) -> BoxFuture<'static, Exit>,
    ) -> Task {
        let (stop, stopped) = watch::channel(false);
        let coordinator = self.cluster.address_of(&service);
        let named = self.binds.get(&service).cloned().or(coordinator);
        let launch = Launch {
            zone: Zone::of_node(&service.node),
            bind: named.unwrap_or_else(|| self.bind.clone()),
            service: service.clone(),
            advertise: None,
            directory,
            foreman,
            cluster: Arc::clone(&self.cluster),
            secrets: self.secrets.clone(),
            state_reads: self.state_reads,
            stop: stopped,
        };
        let (scope, guard) = Scope::new();
        let handle = scope.spawn("service", run(launch));
        let tree = Arc::new(Mutex::new(Some(guard)));
        self.running.note(service, &tree, &stop);
        Task { scope, tree, handle, stop }
    }
}

impl Spawner for InProcess {
    fn start(&self, order: &WorkerOrder) -> io::Result<Box<dyn Process>> {
        let foreman = Some(Target::address(&order.foreman));
        let world = (self.worlds)(&order.service);
        let task = self.task(order.service.clone(), order.directory.clone(), foreman, |launch| {
            roster::run(world, launch)
        });
        Ok(Box::new(task))
    }

    fn adopt(&self, _process: ProcessId, _log: &Path) -> Option<Box<dyn Process>> {
        // A task does not outlive the process.
        None
    }
}

/// A service that runs as a task.
pub struct Task {
    scope: Scope,
    tree: Arc<Tree>,
    handle: JoinHandle<Option<Exit>>,
    stop: watch::Sender<bool>,
}

impl Task {
    /// Waits for its exit; none where it was killed or panicked. Cancel-safe, but not to be called
    /// again after it has returned.
    pub async fn exit(&mut self) -> Option<Exit> {
        (&mut self.handle).await.ok().flatten()
    }

    /// Asks it to stop.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Process for Task {
    fn id(&self) -> Option<ProcessId> {
        None
    }

    fn ended(&mut self) -> BoxFuture<'_, String> {
        async move {
            match self.exit().await {
                Some(exit) => format!("exited with status {}: {}", exit.status, exit.reason),
                None => match self.scope.failed().now_or_never() {
                    Some(failure) => failure.to_string(),
                    None => "killed".to_owned(),
                },
            }
        }
        .boxed()
    }

    fn end(&mut self, how: Ending) {
        match how {
            Ending::Asked => self.stop(),
            Ending::Killed => _ = cut(&self.tree),
        }
    }
}
