//! The directory of a cluster on one machine, and what is decided before anything starts.
//!
//! | path | what |
//! |---|---|
//! | `cluster.json` | the cluster file; coordinators keep their ports |
//! | `secret`, `admin-token` | only for the owner |
//! | `up.pid` | held by the process that runs the cluster, and its id |
//! | `node-N/` | a node's directory, with its workers' and their logs |

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use plinth_runtime::Runtime;
use plinth_service::{Secret, Secrets};
use plinth_system_config::Parameters;
use plinth_types::{ClusterId, NodeId, ServiceKind, ServiceName, ServiceRef};
use rustix::fs::{FlockOperation, flock};

use crate::cli::{DevArgs, UpArgs};
use crate::cluster_file::{ClusterFile, CoordinatorEntry};
use crate::launch::node_directory;
use crate::ports;

use super::JAEGER_PORT;

/// How many nodes a new cluster has unless told otherwise.
const NODES: u32 = 3;
/// The first gateway's port unless told otherwise.
const GATEWAY_PORT: u16 = 4000;

/// A cluster on this machine.
#[derive(Clone)]
pub struct Cluster {
    /// Its directory, absolute.
    pub data_dir: PathBuf,
    /// Its cluster file.
    pub file: Arc<ClusterFile>,
    /// What proves who calls.
    pub secrets: Secrets,
    /// The nodes, and where their gateways listen.
    pub nodes: Vec<(NodeId, u16)>,
}

impl Cluster {
    /// The path of the cluster file.
    #[must_use]
    pub fn file_path(&self) -> PathBuf {
        self.data_dir.join("cluster.json")
    }

    /// The path of the cluster secret.
    #[must_use]
    pub fn secret_path(&self) -> PathBuf {
        self.data_dir.join("secret")
    }

    /// The path of the administrator's token.
    #[must_use]
    pub fn token_path(&self) -> PathBuf {
        self.data_dir.join("admin-token")
    }

    /// A node's directory.
    #[must_use]
    pub fn node_directory(&self, node: &NodeId) -> PathBuf {
        node_directory(&self.data_dir, node)
    }

    /// The base URL of every gateway.
    #[must_use]
    pub fn gateways(&self) -> Vec<String> {
        self.nodes.iter().map(|(_, port)| format!("http://127.0.0.1:{port}")).collect()
    }
}

/// Ready to start.
pub(crate) struct Prepared {
    pub(crate) cluster: Cluster,
    /// Where the trace store listens; none where traces go elsewhere.
    pub(crate) jaeger_port: Option<u16>,
    /// Held as long as the cluster runs.
    pub(crate) lock: File,
}

/// Prepares for `plinth up`.
///
/// # Errors
/// What is wrong with the flags or the directory, and what to do.
pub(crate) fn for_up(args: &UpArgs, runtime: &Runtime) -> anyhow::Result<Prepared> {
    let jaeger = (args.telemetry.otlp.is_none() && !args.no_jaeger).then_some(args.jaeger_port);
    prepare(&args.data_dir, args.nodes, args.gateway_port, jaeger, runtime)
}

/// Prepares for `plinth dev`.
///
/// # Errors
/// As for `up`.
pub(crate) fn for_dev(args: &DevArgs, runtime: &Runtime) -> anyhow::Result<Prepared> {
    let jaeger = args.telemetry.otlp.is_none().then_some(None);
    prepare(&args.data_dir, args.nodes, args.gateway_port, jaeger, runtime)
}

fn prepare(
    data_dir: &Path,
    nodes: Option<u32>,
    gateway_port: Option<u16>,
    jaeger: Option<Option<u16>>,
    runtime: &Runtime,
) -> anyhow::Result<Prepared> {
    let shown = data_dir.display();
    // Before anything is made: a command that is refused leaves no cluster behind.
    ports::check_named("--gateway-port", gateway_port)?;
    ports::check_named("--jaeger-port", jaeger.flatten())?;
    make_directory(data_dir)?;
    let data_dir = data_dir
        .canonicalize()
        .with_context(|| format!("--data-dir {shown} can't be used; name a writable directory"))?;
    let lock = lock(&data_dir)?;
    let file = Arc::new(cluster_file(&data_dir, nodes, runtime)?);
    let secrets = Secrets {
        cluster: Some(secret(&data_dir.join("secret"), runtime)?),
        administrator: Some(secret(&data_dir.join("admin-token"), runtime)?),
    };
    // The coordinators' ports are theirs even while nobody listens there.
    let mut taken = coordinator_ports(&file);
    let mut gateways = Vec::new();
    for node in &file.initial_nodes {
        let (named, first) = match gateways.last() {
            None => (gateway_port, GATEWAY_PORT),
            Some((_, port)) => (None, port + 1),
        };
        let port = ports::named_or_next("--gateway-port", named, first, &taken)?;
        taken.insert(port);
        gateways.push((node.clone(), port));
    }
    let jaeger_port = jaeger
        .map(|named| ports::named_or_next("--jaeger-port", named, JAEGER_PORT, &taken))
        .transpose()?;
    let cluster = Cluster { data_dir, file, secrets, nodes: gateways };
    Ok(Prepared { cluster, jaeger_port, lock })
}

/// Makes the directory, for the owner alone, where it is missing.
pub(crate) fn make_directory(data_dir: &Path) -> anyhow::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).with_context(|| {
        format!("--data-dir {} can't be made; name a writable directory", data_dir.display())
    })
}

fn coordinator_ports(file: &ClusterFile) -> BTreeSet<u16> {
    let addresses = file.coordinators.iter().map(CoordinatorEntry::address);
    addresses.filter_map(|address| address.rsplit_once(':')?.1.parse().ok()).collect()
}

/// The file that the process which runs a cluster holds.
pub(crate) fn pid_path(data_dir: &Path) -> PathBuf {
    data_dir.join("up.pid")
}

/// Takes the directory for this process.
fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let path = pid_path(data_dir);
    let shown = data_dir.display();
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| {
            format!("--data-dir {shown} can't be written; name a writable directory")
        })?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        file.read_to_string(&mut pid).unwrap_or_default();
        bail!(
            "a cluster runs in {shown} already (process {}): stop it with `plinth down --data-dir {shown}`, or name another --data-dir",
            pid.trim()
        );
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// The cluster file of the directory, made where it is missing.
fn cluster_file(
    data_dir: &Path,
    nodes: Option<u32>,
    runtime: &Runtime,
) -> anyhow::Result<ClusterFile> {
    let path = data_dir.join("cluster.json");
    if path.exists() {
        let file = ClusterFile::read(&path)?;
        let have = file.initial_nodes.len();
        ensure!(
            nodes.is_none_or(|nodes| nodes as usize == have),
            "{} holds a cluster of {have} nodes: leave --nodes out, or name another --data-dir",
            data_dir.display()
        );
        return Ok(file);
    }
    let file = new_cluster(nodes.unwrap_or(NODES), runtime)?;
    file.write(&path)?;
    Ok(file)
}

fn new_cluster(nodes: u32, runtime: &Runtime) -> anyhow::Result<ClusterFile> {
    let initial_nodes = (1..=nodes)
        .map(|number| format!("node-{number}").parse())
        .collect::<Result<Vec<NodeId>, _>>()?;
    let coordinators = match nodes {
        0..=2 => 1,
        3..=4 => 3,
        5.. => 5,
    };
    let ports = ports::pick_kept(runtime, coordinators)?;
    let coordinators = initial_nodes
        .iter()
        .zip(ports)
        .map(|(node, port)| CoordinatorEntry {
            service: ServiceRef::new(ServiceName::new(ServiceKind::Coordinator, 1), node.clone()),
            url: format!("http://127.0.0.1:{port}"),
        })
        .collect();
    let cluster = ClusterId(runtime.random_u128());
    Ok(ClusterFile { cluster, coordinators, initial_nodes, parameters: Parameters::default() })
}

/// The secret of a file, made where it is missing.
///
/// # Errors
/// It can't be made, or what is there is no secret.
pub(crate) fn secret(path: &Path, runtime: &Runtime) -> anyhow::Result<Secret> {
    if !path.exists() {
        Secret::generate(runtime).save(path)?;
    }
    Ok(Secret::from_file(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn prepare_in(path: &Path, nodes: Option<u32>) -> anyhow::Result<Prepared> {
        prepare(path, nodes, None, None, &Runtime::real())
    }

    #[test]
    fn a_cluster_keeps_its_file_and_secrets() {
        let directory = tempfile::tempdir().unwrap();
        let first = prepare_in(directory.path(), None).unwrap();
        assert_eq!(first.cluster.file.initial_nodes.len(), 3);
        assert_eq!(first.cluster.file.coordinators.len(), 3);
        let token = std::fs::read(first.cluster.token_path()).unwrap();
        for secret in [first.cluster.token_path(), first.cluster.secret_path()] {
            let mode = std::fs::metadata(secret).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let file = first.cluster.file.clone();
        drop(first);
        let again = prepare_in(directory.path(), None).unwrap();
        assert_eq!(again.cluster.file, file);
        assert_eq!(std::fs::read(again.cluster.token_path()).unwrap(), token);
    }

    #[test]
    fn a_directory_in_use_and_another_number_of_nodes_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let first = prepare_in(directory.path(), Some(1)).unwrap();
        let error = prepare_in(directory.path(), None).err().unwrap();
        assert!(error.to_string().contains("plinth down"), "{error}");
        drop(first);
        let error = prepare_in(directory.path(), Some(2)).err().unwrap();
        assert!(error.to_string().contains("1 nodes"), "{error}");
    }

    #[test]
    fn one_three_or_five_coordinators() {
        let count = |nodes| new_cluster(nodes, &Runtime::real()).unwrap().coordinators.len();
        assert_eq!([1, 2, 3, 4, 5, 7].map(count), [1, 1, 3, 3, 5, 5]);
    }
}
