//! Workers as tasks of this process, for `plinth dev` and for simulation. Each has a task tree of
//! its own: its exit or panic drops that and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use plinth_api::Target;
use plinth_foreman::{Ending, Process, ProcessId, Spawner, WorkerOrder};
use plinth_runtime::{Scope, ScopeGuard};
use plinth_service::{Exit, Secrets};
use plinth_types::{NodeId, ServiceKind, ServiceRef, Zone};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster_file::ClusterFile;
use crate::launch::{Launch, node_directory};
use crate::node::default_statics;
use crate::roster::{self, ForemanLaunch, World};

/// A cluster in one process.
#[derive(Clone)]
pub struct InProcess {
    /// Where it runs.
    pub world: World,
    /// Which cluster.
    pub cluster: Arc<ClusterFile>,
    /// What proves who calls.
    pub secrets: Secrets,
    /// Where the services listen that are not told otherwise, `host:0`.
    pub bind: String,
    /// Where certain services listen.
    pub binds: BTreeMap<ServiceRef, String>,
}

impl InProcess {
    /// Starts a node's foreman, which starts the rest. The task ends when it does.
    #[must_use]
    pub fn start_node(&self, node: &NodeId, data_dir: &Path) -> Task {
        let service =
            ServiceRef::new(plinth_types::ServiceName::new(ServiceKind::Foreman, 1), node.clone());
        let foreman = ForemanLaunch {
            spawner: Arc::new(self.clone()),
            statics: default_statics(&self.cluster, &service),
            lock_patience: std::time::Duration::ZERO,
        };
        let directory = node_directory(data_dir, node);
        let world = self.world.clone();
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
            service,
            advertise: None,
            directory,
            foreman,
            cluster: Arc::clone(&self.cluster),
            secrets: self.secrets.clone(),
            stop: stopped,
        };
        let (scope, guard) = Scope::new();
        let handle = scope.spawn("service", run(launch));
        Task { scope, guard: Some(guard), handle, stop }
    }
}

impl Spawner for InProcess {
    fn start(&self, order: &WorkerOrder) -> io::Result<Box<dyn Process>> {
        let foreman = Some(Target::address(&order.foreman));
        let world = self.world.clone();
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
    guard: Option<ScopeGuard>,
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
            Ending::Killed => self.guard = None,
        }
    }
}
