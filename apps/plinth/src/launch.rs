//! What a service is started with, however it is started: as a process from flags, or as a task of
//! a cluster in one process.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use plinth_api::Target;
use plinth_service::{Secret, Secrets, StateReads};
use plinth_types::{NodeId, ServiceKind, ServiceName, ServiceRef, Zone};
use tokio::sync::watch;

use crate::cli::{ClusterArgs, ServiceArgs};
use crate::cluster_file::ClusterFile;

/// Everything that a service is told at its start.
#[derive(Clone)]
pub struct Launch {
    /// Which service.
    pub service: ServiceRef,
    /// What its node fails together with.
    pub zone: Zone,
    /// Where it listens.
    pub bind: String,
    /// Where others reach it, if not there.
    pub advertise: Option<String>,
    /// Its directory; the node's for a foreman.
    pub directory: PathBuf,
    /// Its node's foreman.
    pub foreman: Option<Target>,
    /// The cluster.
    pub cluster: Arc<ClusterFile>,
    /// What proves who calls.
    pub secrets: Secrets,
    /// Who may read the cluster's state.
    pub state_reads: StateReads,
    /// Becomes true when it is to stop.
    pub stop: watch::Receiver<bool>,
}

impl Launch {
    /// A launch from flags, checked as far as it can be without doing anything.
    ///
    /// # Errors
    /// What is wrong with the flags or the files they name, and what to do.
    pub fn from_args(
        kind: ServiceKind,
        args: &ServiceArgs,
        stop: watch::Receiver<bool>,
    ) -> anyhow::Result<Launch> {
        let name = args.name.unwrap_or(ServiceName::new(kind, args.number));
        ensure!(
            name.kind == kind,
            "--name {name} is not the name of a {kind}: call it {kind}-{}",
            name.number
        );
        let service = ServiceRef::new(name, args.node.clone());
        let cluster = ClusterFile::read(&args.cluster.cluster_file)?;
        let is_told = args.bind != "127.0.0.1:0";
        let is_named = kind != ServiceKind::Coordinator || cluster.address_of(&service).is_some();
        ensure!(
            is_named || is_told,
            "the cluster file {} does not name {service} among its coordinators: say where it answers with --bind and --advertise, and have it let in with `plinth members add`, or start one that the file names",
            args.cluster.cluster_file.display()
        );
        let secrets = read_secrets(&args.cluster)?;
        let bind = match (kind, cluster.address_of(&service)) {
            // A coordinator answers where the cluster file says, unless told otherwise.
            (ServiceKind::Coordinator, Some(address)) if !is_told => address,
            _ => args.bind.clone(),
        };
        check_bind("--bind", &bind, secrets.cluster.is_some(), args.cluster.insecure)?;
        let directory = match &args.data_dir {
            Some(directory) => {
                check_directory(directory)?;
                directory.clone()
            }
            None if kind.is_durable() => {
                bail!("a {kind} keeps its data in a directory: name it with --data-dir")
            }
            None => PathBuf::new(),
        };
        Ok(Launch {
            zone: args.zone.clone().unwrap_or_else(|| Zone::of_node(&args.node)),
            service,
            bind,
            advertise: args.advertise.clone(),
            directory,
            foreman: args.foreman.as_deref().map(Target::address),
            cluster: Arc::new(cluster),
            secrets,
            state_reads: args.cluster.state_reads.into(),
            stop,
        })
    }
}

/// Reads the secrets that flags name.
fn read_secrets(args: &ClusterArgs) -> anyhow::Result<Secrets> {
    let read = |path: &Option<PathBuf>| path.as_deref().map(Secret::from_file).transpose();
    Ok(Secrets { cluster: read(&args.secret_file)?, administrator: read(&args.admin_token_file)? })
}

/// Refuses a directory that is none, or that can't be written or made.
fn check_directory(directory: &Path) -> anyhow::Result<()> {
    let existing = directory.ancestors().find(|path| path.exists());
    // A relative path whose first part is missing would be made here.
    let existing = existing.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let refused =
        || format!("--data-dir {} can't be used; name a writable directory", directory.display());
    ensure!(existing.is_dir(), "{}: {} is a file", refused(), existing.display());
    rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).with_context(refused)
}

/// Refuses to listen where others can reach it without a secret.
pub(crate) fn check_bind(
    flag: &str,
    bind: &str,
    has_secret: bool,
    insecure: bool,
) -> anyhow::Result<()> {
    let addresses: Vec<_> = bind
        .to_socket_addrs()
        .with_context(|| format!("{flag} {bind} is not an address of the form host:port"))?
        .collect();
    let is_local = |ip: IpAddr| ip.is_loopback();
    if has_secret || insecure || addresses.iter().all(|address| is_local(address.ip())) {
        return Ok(());
    }
    bail!(
        "{flag} {bind} lets other machines in, and there is no secret to tell friends by: name one with --secret-file, or give --insecure"
    )
}

/// The directory of a node below that of a cluster on one machine.
#[must_use]
pub fn node_directory(data_dir: &Path, node: &NodeId) -> PathBuf {
    data_dir.join(node.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_needs_no_secret() {
        assert!(check_bind("--bind", "127.0.0.1:0", false, false).is_ok());
        assert!(check_bind("--bind", "[::1]:0", false, false).is_ok());
        assert!(check_bind("--bind", "0.0.0.0:0", true, false).is_ok());
        assert!(check_bind("--bind", "0.0.0.0:0", false, true).is_ok());
        let error = check_bind("--bind", "0.0.0.0:4000", false, false).unwrap_err();
        assert!(error.to_string().contains("--secret-file"), "{error}");
        assert!(check_bind("--bind", "nonsense", true, false).is_err());
    }
}
