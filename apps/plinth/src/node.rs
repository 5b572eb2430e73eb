//! `plinth node` and `plinth foreman`: a machine's share, every worker a child process.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum as _;
use plinth_foreman::{ChildProcesses, WorkerOrder};
use plinth_service::{Exit, Host};
use plinth_store::StoreError;
use plinth_types::{ServiceKind, ServiceName, ServiceRef};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use crate::cli::{ForemanArgs, LogFormat, NodeArgs};
use crate::cluster_file::ClusterFile;
use crate::launch::{Launch, check_bind};
use crate::process;
use crate::roster::{self, ForemanLaunch, World};

/// The file in the node's directory with the foreman's last address.
const ADDRESS: &str = "address";

/// Runs a foreman and what always runs on its node.
pub(crate) fn node(args: &NodeArgs) -> ExitCode {
    let cluster = &args.foreman.service.cluster;
    let has_secret = cluster.secret_file.is_some();
    // They would refuse it too, but only in their own logs.
    let binds = [
        ("--gateway-bind", Some(&args.gateway_bind)),
        ("--coordinator", args.coordinator.as_ref()),
    ];
    for (flag, bind) in binds {
        let checked = bind.map(|bind| check_bind(flag, bind, has_secret, cluster.insecure));
        if let Some(Err(error)) = checked {
            return process::usage(&error);
        }
    }
    process::run_with(ServiceKind::Foreman, &args.foreman.service, |world, launch| {
        let statics = args.statics.clone().unwrap_or_else(|| {
            let is_told = args.coordinator.is_some();
            default_statics(&launch.cluster, &launch.service, is_told)
        });
        run(world, launch, args.clone(), statics)
    })
}

/// Runs a foreman that starts only what directors ask for.
pub(crate) fn foreman(args: &ForemanArgs) -> ExitCode {
    let node = NodeArgs {
        foreman: args.clone(),
        statics: None,
        coordinator: None,
        gateway_bind: "127.0.0.1:0".to_owned(),
        parent_pipe: false,
        lock_patience: 0,
    };
    process::run_with(ServiceKind::Foreman, &args.service, |world, launch| {
        run(world, launch, node, Vec::new())
    })
}

/// What always runs on a node: its coordinator where the cluster file names one or the node is told to run
/// one, a director and a gateway.
#[must_use]
pub(crate) fn default_statics(
    cluster: &ClusterFile,
    foreman: &ServiceRef,
    is_told: bool,
) -> Vec<ServiceName> {
    let coordinators = cluster.coordinators.iter().map(|entry| &entry.service);
    let here = coordinators.filter(|service| service.node == foreman.node);
    let mut statics: Vec<ServiceName> = here.map(|service| service.name).collect();
    if statics.is_empty() && is_told {
        statics.push(ServiceName::new(ServiceKind::Coordinator, 1));
    }
    let others = [ServiceKind::Director, ServiceKind::Gateway];
    statics.extend(others.map(|kind| ServiceName::new(kind, 1)));
    statics
}

async fn run(world: World, launch: Launch, args: NodeArgs, statics: Vec<ServiceName>) -> Exit {
    let executable = match process::executable() {
        Ok(executable) => executable,
        Err(error) => return Exit::failure(format!("the own executable is not found: {error}")),
    };
    let host = match bind_where_it_was(&world, &launch).await {
        Ok(host) => host,
        Err(exit) => return exit,
    };
    if args.parent_pipe
        && let Err(error) = stop_with_parent(&host)
    {
        return Exit::usage(format!("--parent-pipe needs a pipe as standard input: {error}"));
    }
    let foreman = ForemanLaunch {
        statics,
        kinds: args.foreman.makes.clone().unwrap_or(plinth_foreman::Config::KINDS.to_vec()),
        lock_patience: Duration::from_secs(args.lock_patience),
        spawner: Arc::new(ChildProcesses::new(
            executable,
            Box::new(move |order| worker_arguments(&args, order)),
        )),
    };
    roster::serve_foreman(world, launch, foreman, host).await
}

/// A foreman that takes any port comes back at the one it had, because its workers that outlived it
/// announce themselves there.
async fn bind_where_it_was(world: &World, launch: &Launch) -> Result<Host, Exit> {
    let file = launch.directory.join(ADDRESS);
    let before = match (launch.bind.ends_with(":0"), world.disk.read_file(&file)) {
        (true, Ok(Some(address))) => String::from_utf8(address.to_vec()).ok(),
        _ => None,
    };
    let mut host = None;
    if let Some(bind) = before.clone() {
        host = roster::bind(world, &Launch { bind, ..launch.clone() }).await.ok();
    }
    let host = match host {
        Some(host) => host,
        None => roster::bind(world, launch).await?,
    };
    if launch.bind.ends_with(":0") && launch.advertise.is_none() {
        let address = host.context().pid().address.clone();
        if before.as_ref() == Some(&address) {
            return Ok(host);
        }
        if let Err(error) = world.disk.write_file(&file, address.as_bytes()) {
            let shown = launch.directory.display();
            let reason = format!("--data-dir {shown} can't be written: {error}");
            // There may be room again, and whoever starts foremen again need not give up.
            let is_full = matches!(error, StoreError::Full { .. });
            return Err(if is_full { Exit::failure(reason) } else { Exit::usage(reason) });
        }
    }
    Ok(host)
}

/// Asks the host to stop when the other end of standard input, a pipe, is gone.
fn stop_with_parent(host: &Host) -> std::io::Result<()> {
    let pipe = std::io::stdin().as_fd().try_clone_to_owned()?;
    let mut pipe = pipe::Receiver::from_owned_fd(pipe)?;
    let context = host.context();
    host.context().scope().spawn("parent", async move {
        let mut byte = [0; 64];
        // Nothing is ever written: an end or an error means that the parent is gone.
        while matches!(pipe.read(&mut byte).await, Ok(1..)) {}
        tracing::info!("the parent process is gone");
        context.request_stop();
    });
    Ok(())
}

/// The command line of a worker: the foreman's own, as far as it concerns every service.
fn worker_arguments(args: &NodeArgs, order: &WorkerOrder) -> Vec<OsString> {
    let service = &args.foreman.service;
    let kind = order.service.kind();
    let mut line: Vec<OsString> = vec![kind.as_str().into()];
    let mut flag = |name: &str, value: OsString| {
        line.push(name.into());
        line.push(value);
    };
    let path = |path: &Path| path.as_os_str().to_owned();
    flag("--node", order.service.node.to_string().into());
    flag("--name", order.service.name.to_string().into());
    flag("--foreman", order.foreman.clone().into());
    flag("--data-dir", path(&order.directory));
    flag("--cluster-file", path(&service.cluster.cluster_file));
    if let Some(secret) = &service.cluster.secret_file {
        flag("--secret-file", path(secret));
    }
    if let Some(token) = &service.cluster.admin_token_file {
        flag("--admin-token-file", path(token));
    }
    if let Some(zone) = &service.zone {
        flag("--zone", zone.to_string().into());
    }
    if let Some(otlp) = &service.telemetry.otlp {
        flag("--otlp", otlp.into());
    }
    let format = match service.telemetry.log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    flag("--log-format", format.into());
    flag("--log", service.telemetry.log.clone().into());
    match kind {
        ServiceKind::Gateway => flag("--bind", args.gateway_bind.clone().into()),
        // It listens where the cluster file says, unless the node is told otherwise.
        ServiceKind::Coordinator => {
            if let Some(address) = &args.coordinator {
                flag("--bind", address.into());
                flag("--advertise", address.into());
            }
        }
        _ => flag("--bind", any_port(&service.bind).into()),
    }
    if let Some(advertise) = &service.advertise
        && kind != ServiceKind::Coordinator
    {
        flag("--advertise", host_of(advertise).into());
    }
    if let Some(reads) = service.cluster.state_reads.to_possible_value() {
        flag("--state-reads", reads.get_name().into());
    }
    if service.cluster.insecure {
        line.push("--insecure".into());
    }
    line
}

/// The same host, and any free port.
fn any_port(bind: &str) -> String {
    format!("{}:0", host_of(bind))
}

fn host_of(address: &str) -> &str {
    match address.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_take_any_port_of_their_foremans_host() {
        assert_eq!(any_port("0.0.0.0:7000"), "0.0.0.0:0");
        assert_eq!(any_port("[::1]:7000"), "[::1]:0");
        assert_eq!(host_of("node-1"), "node-1");
    }
}
