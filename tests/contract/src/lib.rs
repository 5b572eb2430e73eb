//! What every service promises over HTTP, whatever it does: who may call which route, how it
//! refuses, and that the document it serves is the committed one.
//!
//! Here each service is started for real, all in one process, with secrets and without neighbours.
//! The tests ask them over HTTP and go by their OpenAPI documents, so that a new route is covered
//! the day it is written.

mod alone;
mod schemathesis;

pub use alone::Alone;
pub use schemathesis::{Caller, Schemathesis};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use plinth_api::Target;
use plinth_foreman::{Process, ProcessId, Spawner, WorkerOrder};
use plinth_runtime::{Runtime, Scope, ScopeGuard};
use plinth_service::{Exit, Host, HostOptions, Secret, Secrets, StateReads};
use plinth_store::{DiskDelays, SimulatedDisk};
use plinth_types::{ClusterId, NodeId, ServiceKind, ServiceName, ServiceRef, Zone};
use utoipa::openapi::OpenApi;

/// The cluster secret of the services here.
pub const CLUSTER_SECRET: &str = "the-secret-of-the-cluster";
/// The administrator's token of the services here.
pub const ADMIN_TOKEN: &str = "the-token-of-the-administrator";
/// The cluster.
pub const CLUSTER: ClusterId = ClusterId(7);

/// Every service's name and document.
#[must_use]
pub fn documents() -> Vec<(ServiceKind, OpenApi)> {
    vec![
        (ServiceKind::Coordinator, plinth_coordinator::openapi()),
        (ServiceKind::Director, plinth_director::openapi()),
        (ServiceKind::Foreman, plinth_foreman::openapi()),
        (ServiceKind::Sequencer, plinth_sequencer::openapi()),
        (ServiceKind::CommitProxy, plinth_commit_proxy::openapi()),
        (ServiceKind::Resolver, plinth_resolver::openapi()),
        (ServiceKind::Log, plinth_log::openapi()),
        (ServiceKind::Storage, plinth_storage::openapi()),
        (ServiceKind::Gateway, plinth_gateway::openapi()),
    ]
}

/// An operation of a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    /// The path, parameters by name.
    pub path: String,
    /// In capitals.
    pub method: String,
    /// Whether it takes a JSON body.
    pub takes_json: bool,
    /// Whether it must have a body.
    pub needs_body: bool,
}

impl Operation {
    /// A path with something for each parameter, none of which is there.
    #[must_use]
    pub fn filled_path(&self) -> String {
        [
            ("{key}", "k"),
            ("{check}", "none"),
            ("{file}", "none"),
            ("{name}", "storage-9"),
            ("{service}", "coordinator-9@node-9"),
        ]
        .iter()
        .fold(self.path.clone(), |path, (name, value)| path.replace(name, value))
    }
}

/// The operations of a document, in its order.
///
/// # Errors
/// The document is not of the form that documents have.
pub fn operations(document: &OpenApi) -> anyhow::Result<Vec<Operation>> {
    let json = serde_json::to_value(document)?;
    let paths = json["paths"].as_object().context("no paths")?;
    let mut operations = Vec::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().context("no operations")? {
            operations.push(Operation {
                path: path.clone(),
                method: method.to_uppercase(),
                needs_body: operation["requestBody"]["required"] == true,
                takes_json: operation["requestBody"]["content"]["application/json"].is_object(),
            });
        }
    }
    Ok(operations)
}

/// Starts no worker.
struct NoWorkers;

impl Spawner for NoWorkers {
    fn start(&self, _: &WorkerOrder) -> io::Result<Box<dyn Process>> {
        Err(io::Error::other("nothing is started here"))
    }
    fn adopt(&self, _: ProcessId, _: &Path) -> Option<Box<dyn Process>> {
        None
    }
}

/// Services that run until this is dropped.
pub struct Services {
    running: Vec<(ServiceKind, String)>,
    _guard: ScopeGuard,
    _directory: tempfile::TempDir,
}

impl Services {
    /// Starts one of each, with secrets, without neighbours.
    ///
    /// # Errors
    /// The system's refusal of a file or a socket.
    pub async fn start() -> anyhow::Result<Services> {
        Services::start_with(StateReads::default()).await
    }

    /// As [`Services::start`], with another answer to who may read the cluster's state.
    ///
    /// # Errors
    /// As for [`Services::start`].
    pub async fn start_with(reads: StateReads) -> anyhow::Result<Services> {
        let directory = tempfile::tempdir()?;
        let secrets = secrets(directory.path())?;
        let runtime = Runtime::real();
        let disk = SimulatedDisk::new("node-1", runtime.random(), DiskDelays::none(), None);
        let (scope, guard) = Scope::new();
        let mut running = Vec::new();
        for (kind, _) in documents() {
            let options = options(kind, "127.0.0.1:0", &secrets)?;
            let service = options.service.clone();
            let host = Host::bind(runtime.clone(), options).await?.with_state_reads(reads);
            running.push((kind, format!("http://{}", host.context().pid().address)));
            let home = directory.path().join(kind.to_string());
            std::fs::create_dir_all(&home)?;
            let disk = disk.clone();
            drop(scope.spawn("service", async move {
                let exit = serve(kind, host, home, service.clone(), disk).await;
                panic!("{service} ended: {}", exit.reason);
            }));
        }
        Ok(Services { running, _guard: guard, _directory: directory })
    }

    /// Where each service answers, `http://host:port`.
    pub fn urls(&self) -> impl Iterator<Item = (ServiceKind, &str)> {
        self.running.iter().map(|(kind, url)| (*kind, url.as_str()))
    }
}

/// The secrets of the services here.
fn secrets(directory: &Path) -> anyhow::Result<Secrets> {
    let secret = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text)?;
        anyhow::Ok(Secret::from_file(&path)?)
    };
    Ok(Secrets {
        cluster: Some(secret("secret", CLUSTER_SECRET)?),
        administrator: Some(secret("token", ADMIN_TOKEN)?),
    })
}

fn options(kind: ServiceKind, bind: &str, secrets: &Secrets) -> anyhow::Result<HostOptions> {
    let node: NodeId = "node-1".parse()?;
    Ok(HostOptions {
        service: ServiceRef::new(ServiceName::new(kind, 1), node),
        bind: bind.to_owned(),
        advertise: None,
        cluster: Some(CLUSTER),
        secrets: secrets.clone(),
    })
}

async fn serve(
    kind: ServiceKind,
    host: Host,
    directory: PathBuf,
    service: ServiceRef,
    disk: SimulatedDisk,
) -> Exit {
    // Nobody answers there.
    let nobody = || vec![Target::address("127.0.0.1:1")];
    let disk = Arc::new(disk);
    match kind {
        ServiceKind::Coordinator => {
            let names = (1..=3).map(|number| format!("coordinator-1@node-{number}"));
            let coordinators = names.filter_map(|name| {
                let service = name.parse().ok()?;
                let address = "127.0.0.1:1".to_owned();
                Some(plinth_coordinator::CoordinatorAddress { service, address })
            });
            let cluster = plinth_coordinator::ClusterFile {
                cluster_id: CLUSTER,
                coordinators: coordinators.collect(),
                initial_nodes: std::iter::once(service.node.clone()).collect(),
            };
            let config = plinth_coordinator::Config { directory, cluster, foreman: None };
            plinth_coordinator::serve(host, config, disk).await
        }
        ServiceKind::Director => {
            let config = plinth_director::Config {
                coordinators: nobody(),
                foreman: None,
                parameters: Default::default(),
            };
            plinth_director::serve(host, config).await
        }
        ServiceKind::Foreman => {
            let config = plinth_foreman::Config {
                directory,
                zone: Zone::of_node(&service.node),
                cluster: Some(CLUSTER),
                coordinators: nobody(),
                statics: Vec::new(),
                kinds: plinth_foreman::Config::KINDS.to_vec(),
                lock_patience: Duration::ZERO,
            };
            plinth_foreman::serve(host, config, disk, Arc::new(NoWorkers)).await
        }
        ServiceKind::Sequencer => plinth_sequencer::serve(host, Default::default()).await,
        ServiceKind::CommitProxy => plinth_commit_proxy::serve(host, Default::default()).await,
        ServiceKind::Resolver => plinth_resolver::serve(host, Default::default()).await,
        ServiceKind::Log => {
            let limits = plinth_log::Limits::default();
            let config = plinth_log::Config { directory, foreman: None, limits };
            plinth_log::serve(host, config, disk).await
        }
        ServiceKind::Storage => {
            let limits = plinth_storage::Limits::default();
            let config = plinth_storage::Config { directory, foreman: None, limits };
            plinth_storage::serve(host, config, disk).await
        }
        ServiceKind::Gateway => {
            let mut config = plinth_gateway::Config::new(nobody(), None);
            config.deadline = Duration::from_millis(100);
            plinth_gateway::serve(host, config).await
        }
    }
}
