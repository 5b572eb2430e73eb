//! A node is lost for good, with its data.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plinth_api::coordinator::{ClusterHealth, Recoveries};
use plinth_api::director::LiveLayout;
use plinth_system_config::Service;
use plinth_test_processes::cluster::{Cluster, free_port, reference, up};
use plinth_test_processes::eventually;
use plinth_types::{ServiceRef, Tag};
use tokio::time::Instant;

use crate::Outcome;

/// The cluster's id, which is made here since the cluster file is.
const CLUSTER: &str = "0000000000000000000000000000c1c2";
/// The node that is lost.
const LOST: &str = "node-3";
/// Keys that are there before anything is lost.
const BEFORE: usize = 200;

/// A cluster of so many nodes, which miss a storage after two seconds.
fn start(directory: &Path, nodes: usize) -> anyhow::Result<Cluster> {
    prepare(directory, nodes)?;
    let mut command = up(directory, 3)?;
    command.args(["--gateway-port", &free_port()?.to_string()]);
    Cluster::run(command, directory)
}

/// Writes the cluster file, with parameters of its own.
fn prepare(directory: &Path, nodes: usize) -> anyhow::Result<()> {
    let mut coordinators = Vec::new();
    let mut held = Vec::new();
    for node in 1..=3 {
        // Held until all are picked, so that they differ.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let url = format!("http://{}", listener.local_addr()?);
        held.push(listener);
        let service = format!("coordinator-1@node-{node}");
        coordinators.push(serde_json::json!({ "service": service, "url": url }));
    }
    let file = serde_json::json!({
        "cluster": CLUSTER,
        "coordinators": coordinators,
        "initial_nodes": (1..=nodes).map(|node| format!("node-{node}")).collect::<Vec<_>>(),
        "parameters": { "storage_lost_ms": 2_000 },
    });
    std::fs::write(directory.join("cluster.json"), serde_json::to_vec(&file)?)?;
    Ok(())
}

fn layout(cluster: &Cluster) -> anyhow::Result<LiveLayout> {
    cluster.get_json("/v1/layout")
}

/// The nodes of a tag's members.
fn nodes(layout: &LiveLayout, tag: Tag) -> BTreeSet<String> {
    let team = layout.recorded.config.layout.team(tag).iter();
    team.map(|member| member.service.node.to_string()).collect()
}

/// Waits until every team has three members that run, none of them on the lost node, and nobody joins.
fn whole_without(cluster: &Cluster, lost: &str) -> anyhow::Result<LiveLayout> {
    eventually("three copies of everything", || {
        let layout = layout(cluster)?;
        for team in &layout.config.layout.storage_teams {
            let up = team.members.iter().filter(|one| matches!(one.service, Service::Up(_)));
            ensure!(up.count() == 3 && team.joining.is_empty(), "{team:?}");
            ensure!(!nodes(&layout, team.tag).contains(lost), "{team:?}");
        }
        Ok(layout)
    })
}

/// Every key is at every storage of its team, at the newest version.
pub(crate) fn is_everywhere(cluster: &Cluster, keys: &[String]) -> anyhow::Result<()> {
    eventually("every key on every replica", || {
        let layout = layout(cluster)?;
        let epoch = layout.config.layout.epoch.0;
        let gateway = cluster.gateway()?;
        let newest = cluster.http().get(format!("{gateway}/v1/keys/{}", keys[0])).send()?;
        let version = newest.headers().get("plinth-version").context("no version")?;
        let version = version.to_str()?.trim_matches('"').to_owned();
        let tag = layout.recorded.shards.tag_of(keys[0].as_bytes()).context("no shard")?;
        for member in layout.config.layout.team(tag) {
            let Service::Up(pid) = &member.service else { anyhow::bail!("{member:?} is down") };
            for key in keys {
                let url = format!("http://{}", pid.address);
                let answer = cluster.read_at(&url, epoch, &version, key)?;
                ensure!(answer.values[0].is_some(), "{key} is not at {pid}");
            }
        }
        Ok(())
    })
}

/// Puts through all gateways but the lost node's until `done`; answers the keys that were acknowledged.
fn write_on(cluster: &Cluster, done: &AtomicBool) -> Vec<String> {
    let mut written = Vec::new();
    for number in 0.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("meanwhile-{number}");
        if cluster.put(&cluster.ready.gateways[number % 2], &key, "written").is_ok() {
            written.push(key);
        }
    }
    written
}

/// The node dies, and its disk with it, which is kept aside. Its foreman, which is started again and
/// again, finds a directory that it can't use.
fn lose(cluster: &Cluster, node: &Path, aside: &Path) -> Outcome {
    let mut doomed = cluster.processes()?;
    doomed.retain(|row| row.node.as_str() == LOST);
    std::fs::write(node.join("cluster"), "lost")?;
    for row in &doomed {
        cluster.kill(row.os_pid)?;
    }
    std::fs::create_dir(aside)?;
    for entry in std::fs::read_dir(node)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() || entry.file_name() == "workers.json" {
            std::fs::rename(entry.path(), aside.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The node comes back with the disk that it had.
fn come_back(node: &Path, aside: &Path) -> Outcome {
    for entry in std::fs::read_dir(aside)? {
        let entry = entry?;
        let to = node.join(entry.file_name());
        if to.is_dir() {
            std::fs::remove_dir_all(&to)?;
        }
        std::fs::rename(entry.path(), to)?;
    }
    std::fs::write(node.join("cluster"), format!("{CLUSTER}\n"))?;
    Ok(())
}

fn is_said(cluster: &Cluster) -> Outcome {
    let health = eventually("it is said", || {
        let health: ClusterHealth = cluster.get_json("/v1/cluster/health")?;
        ensure!(!health.healthy && !health.reasons.is_empty(), "{health:?}");
        Ok(health)
    })?;
    eprintln!("{:?}", health.reasons);
    Ok(())
}

/// What the node had of an earlier time is set aside, and no storage runs there.
fn is_removed(cluster: &Cluster, node: &Path) -> Outcome {
    eventually("the old storage is removed", || {
        let names = std::fs::read_dir(node)?.filter_map(Result::ok);
        let names: Vec<String> =
            names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let is_it = |name: &String| name.starts_with("removed-") && name.contains("-storage-1-");
        ensure!(names.iter().any(is_it), "{names:?}");
        Ok(())
    })?;
    let running = cluster.of_kind("storage")?;
    ensure!(running.iter().all(|row| row.node.as_str() != LOST), "{running:?}");
    Ok(())
}

#[test]
fn a_node_that_never_returns_is_replaced_while_puts_go_on_and_is_used_again_when_it_does() -> Outcome
{
    let directory = tempfile::tempdir()?;
    let cluster = start(directory.path(), 4)?;
    let mut keys: Vec<String> = (0..BEFORE).map(|number| format!("before-{number}")).collect();
    for key in &keys {
        cluster.put(cluster.gateway()?, key, &"x".repeat(1_000))?;
    }
    let first = layout(&cluster)?;
    ensure!(nodes(&first, Tag::SYSTEM).contains(LOST), "{first:?}");

    let (node, aside) = (directory.path().join(LOST), directory.path().join("aside"));
    let done = AtomicBool::new(false);
    let (written, replaced) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_on(&cluster, &done));
        let replaced = lose(&cluster, &node, &aside)
            .and_then(|()| is_said(&cluster))
            .and_then(|()| whole_without(&cluster, LOST));
        done.store(true, Ordering::Relaxed);
        (writer.join().expect("no panic"), replaced)
    });
    let replaced = replaced?;
    ensure!(written.len() > 10, "only {} puts went on", written.len());
    eprintln!("{} puts were acknowledged meanwhile", written.len());
    keys.extend(written);
    is_everywhere(&cluster, &keys)?;

    // The configuration says so: on disk, and to whoever asks.
    let config = replaced.recorded.config.config_version;
    ensure!(config > first.recorded.config.config_version);
    eventually("the change is told", || {
        let recoveries: Recoveries = cluster.get_json("/v1/recoveries")?;
        let changes = &recoveries.recoveries[0].changes;
        ensure!(changes.iter().any(|one| one.what.contains("has a whole copy")), "{changes:?}");
        Ok(())
    })?;

    come_back(&node, &aside)?;
    is_removed(&cluster, &node)?;
    eventually("a put", || cluster.put(cluster.gateway()?, "last", "it came back"))?;
    keys.push("last".to_owned());
    is_everywhere(&cluster, &keys)?;
    let coordinator = format!("coordinator-1@{LOST}");
    eventually("its coordinator is back", || cluster.process(|row| reference(row) == coordinator))?;
    cluster.stop()
}

/// How many of these are on each node, without the one node that has none.
fn by_node<'s>(services: impl Iterator<Item = &'s ServiceRef>) -> Vec<usize> {
    let mut nodes = std::collections::BTreeMap::<String, usize>::new();
    for service in services {
        *nodes.entry(service.node.to_string()).or_default() += 1;
    }
    let mut counts: Vec<usize> = nodes.into_values().collect();
    counts.sort_unstable();
    counts
}

/// Whether the copies and the logs of each tag are spread over nodes like this, with nobody joining, and
/// the status has this word for it.
fn is_spread(cluster: &Cluster, counts: &[usize], health: &str) -> Outcome {
    let recorded = layout(cluster)?.recorded.config.layout;
    for team in &recorded.storage_teams {
        let members = by_node(team.members.iter().map(|member| &member.service));
        ensure!(members == counts && team.joining.is_empty(), "{team:?}");
        let logs = by_node(recorded.logs_of(team.tag).map(|log| &log.service));
        ensure!(logs == counts, "logs of {}: {logs:?}", team.tag);
    }
    let status = cluster.status()?;
    ensure!(status.health == health, "{status:?}");
    Ok(())
}

#[test]
fn with_one_node_of_three_gone_for_good_there_are_three_copies_on_two_and_it_is_undone() -> Outcome
{
    let directory = tempfile::tempdir()?;
    let cluster = start(directory.path(), 3)?;
    let mut keys: Vec<String> = (0..BEFORE).map(|number| format!("before-{number}")).collect();
    for key in &keys {
        cluster.put(cluster.gateway()?, key, &"x".repeat(1_000))?;
    }
    eventually("three copies on three nodes", || is_spread(&cluster, &[1, 1, 1], "ready"))?;

    let (node, aside) = (directory.path().join(LOST), directory.path().join("aside"));
    lose(&cluster, &node, &aside)?;
    let lost = Instant::now();
    eventually("a first commit", || cluster.put(cluster.gateway()?, "first", "written"))?;
    let first_commit = lost.elapsed();
    keys.push("first".to_owned());
    eventually("three copies on two nodes", || is_spread(&cluster, &[1, 2], "degraded"))?;
    let three_copies = lost.elapsed();
    eprintln!("first commit after {first_commit:?}, three copies after {three_copies:?}");
    ensure!(first_commit < Duration::from_secs(10), "the first commit took {first_commit:?}");
    is_everywhere(&cluster, &keys)?;

    come_back(&node, &aside)?;
    let back = Instant::now();
    eventually("three copies on three nodes", || is_spread(&cluster, &[1, 1, 1], "ready"))?;
    let undone = back.elapsed();
    eprintln!("undone {undone:?} after its return");
    ensure!(undone < Duration::from_secs(45), "it took {undone:?}");
    eventually("a put", || cluster.put(cluster.gateway()?, "last", "it came back"))?;
    keys.push("last".to_owned());
    is_everywhere(&cluster, &keys)?;
    cluster.stop()
}
