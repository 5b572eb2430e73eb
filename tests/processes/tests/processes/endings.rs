//! Starting and stopping a cluster on one machine.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use plinth_test_processes::cluster::{free_port, gone};
use plinth_test_processes::{Cluster, executable, processes_of};

use crate::Outcome;

#[test]
fn interrupted_it_leaves_nothing_running() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    // What `--json` prints is what runs, and `plinth up` itself.
    let mut listed: Vec<u32> = cluster.ready.processes.iter().map(|row| row.os_pid).collect();
    listed.push(cluster.os_pid());
    listed.sort_unstable();
    let mut running = processes_of(directory.path())?;
    running.sort_unstable();
    ensure!(listed == running, "listed {listed:?}, running {running:?}");
    for kind in ["coordinator-1", "director-1", "foreman-1", "log-1", "storage-1", "gateway-1"] {
        let nodes: Vec<_> =
            cluster.ready.processes.iter().filter(|row| row.service == kind).collect();
        ensure!(nodes.len() == 3, "{kind} on each node: {nodes:?}");
    }
    for kind in ["sequencer-1", "commit-proxy-1", "resolver-1"] {
        let all: Vec<_> =
            cluster.ready.processes.iter().filter(|row| row.service == kind).collect();
        ensure!(all.len() == 1, "one {kind} in all: {all:?}");
    }
    ensure!(cluster.ready.jaeger.is_some(), "no trace store");
    cluster.stop()?;
    let left = processes_of(directory.path())?;
    ensure!(left.is_empty(), "left running: {left:?}");
    Ok(())
}

#[test]
fn killed_it_takes_everything_with_it() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    cluster.kill_up()?;
    gone(directory.path())
}

#[test]
fn detached_it_runs_until_it_is_told_to_stop() -> Outcome {
    let directory = tempfile::tempdir()?;
    let port = free_port()?;
    let started = Command::new(executable()?)
        .args(["up", "--detach", "--gateway-port", &port.to_string(), "--data-dir"])
        .arg(directory.path())
        .stdin(Stdio::null())
        .output()?;
    ensure!(started.status.success(), "{started:?}");
    let said = String::from_utf8(started.stdout)?;
    ensure!(said.contains("storage-1") && said.contains(&format!(":{port}")), "{said}");
    // The administrator's command is printed to be run as it stands.
    let admin = said.lines().find_map(|line| line.trim_start().strip_prefix("admin"));
    let admin = admin.context("no command for the administrator")?.trim();
    let asked =
        Command::new("sh").args(["-c", &format!("{admin} -sS --fail-with-body")]).output()?;
    ensure!(asked.status.success(), "{admin}: {asked:?}");
    let status = Command::new(executable()?)
        .args(["status", "--json", "--url", &format!("http://127.0.0.1:{port}")])
        .output()?;
    ensure!(status.status.success(), "{status:?}");
    let down = || {
        Command::new(executable()?)
            .args(["down", "--data-dir"])
            .arg(directory.path())
            .output()
            .map_err(anyhow::Error::from)
    };
    let stopped = down()?;
    ensure!(stopped.status.success(), "{stopped:?}");
    let left = processes_of(directory.path())?;
    ensure!(left.is_empty(), "left running: {left:?}");
    let again = down()?;
    ensure!(again.status.success(), "{again:?}");
    ensure!(String::from_utf8_lossy(&again.stdout).contains("no cluster runs"), "{again:?}");
    Ok(())
}

#[test]
fn one_process_serves_as_a_whole_cluster_and_comes_back() -> Outcome {
    let directory = tempfile::tempdir()?;
    let dev = || -> anyhow::Result<Cluster> {
        let mut command = Command::new(executable()?);
        command.args(["dev", "--json", "--gateway-port", &free_port()?.to_string(), "--data-dir"]);
        command.arg(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Cluster::run(command, directory.path())
    };
    let cluster = dev()?;
    ensure!(processes_of(directory.path())? == [cluster.os_pid()]);
    for gateway in cluster.ready.gateways.clone() {
        cluster.put(&gateway, "kept", "in one process")?;
        ensure!(cluster.get(&gateway, "kept")?.as_deref() == Some("in one process"));
    }
    cluster.stop()?;
    ensure!(processes_of(directory.path())?.is_empty());
    let cluster = dev()?;
    ensure!(cluster.source()? == "raft");
    ensure!(cluster.get(cluster.gateway()?, "kept")?.as_deref() == Some("in one process"));
    cluster.stop()
}
