//! A node is added, another one drained and used again, and the added one removed, by orders, while
//! puts go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plinth_api::coordinator::Nodes;
use plinth_api::director::LiveLayout;
use plinth_api::nodes::NodeStanding;
use plinth_system_config::{Standing, SystemConfig, decode_stored};
use plinth_test_processes::{Added, Cluster, added, eventually};
use plinth_types::{NodeId, ServiceKind, ServiceRef};
use tokio::time::Instant;

use crate::Outcome;
use crate::replicas::is_everywhere;

pub(crate) const ADDED: &str = "node-4";
/// Keys that are there before anything is ordered.
const BEFORE: usize = 100;

pub(crate) fn start_added(cluster: &Cluster) -> anyhow::Result<Added> {
    Added::start(cluster.directory(), ADDED, &[])
}

fn nodes<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["nodes"], arguments].concat()
}

pub(crate) fn done(cluster: &Cluster, arguments: &[&str], words: &str) -> Outcome {
    added::done(cluster, &nodes(arguments), words)
}

pub(crate) fn refused(cluster: &Cluster, arguments: &[&str], words: &str) -> Outcome {
    added::refused(cluster, &nodes(arguments), words)
}

/// What is ordered about a node; none where nothing is.
pub(crate) fn ordered(cluster: &Cluster, node: &str) -> anyhow::Result<Option<NodeStanding>> {
    let nodes: Nodes = cluster.get_json("/v1/nodes")?;
    Ok(nodes.ordered.into_iter().find(|ordered| ordered.node.as_str() == node))
}

/// The kinds of service that the layout has on a node.
fn kinds_on(cluster: &Cluster, node: &str) -> anyhow::Result<Vec<ServiceKind>> {
    let layout: LiveLayout = cluster.get_json("/v1/layout")?;
    let node: NodeId = node.parse()?;
    let services = layout.recorded.config.layout.services();
    let here = services.filter(|(_, service)| service.node == node);
    Ok(here.map(|(kind, _)| kind).collect())
}

/// Waits until nothing but this is left on a node that is being drained.
pub(crate) fn left(cluster: &Cluster, node: &str, expected: &[&str]) -> Outcome {
    eventually("the node is drained", || {
        let standing = ordered(cluster, node)?.context("nothing is ordered")?;
        let names: Vec<String> = standing.remaining.iter().map(ServiceRef::to_string).collect();
        ensure!(names == expected, "{standing:?}");
        ensure!(standing.drained == expected.is_empty(), "{standing:?}");
        Ok(())
    })
}

/// Puts through two gateways until `done`. Answers the keys, and the longest that one has taken.
pub(crate) fn write_on(
    cluster: &Cluster,
    done: &AtomicBool,
) -> anyhow::Result<(Vec<String>, Duration)> {
    let (mut written, mut longest) = (Vec::new(), Duration::ZERO);
    for number in 0.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let (key, began) = (format!("meanwhile-{number}"), Instant::now());
        // What an epoch interrupts is settled inside the gateway: not one put fails.
        cluster.put(&cluster.ready.gateways[number % 2], &key, "written")?;
        longest = longest.max(began.elapsed());
        written.push(key);
    }
    Ok((written, longest))
}

/// Drains a node with all that it has, uses it again, and drains and removes the added one.
fn move_about(cluster: &Cluster) -> Outcome {
    // The director reads the coordinators' list of nodes once in a while.
    eventually("the director knows the added node", || {
        done(cluster, &["drain", "node-3", "--dry-run"], "nothing was done")
    })?;
    ensure!(ordered(cluster, "node-3")?.is_none());
    done(cluster, &["drain", "node-3"], "is durable")?;
    done(cluster, &["drain", "node-3"], "already")?;
    left(cluster, "node-3", &["coordinator-1@node-3"])?;
    eventually("the added node has a log and a storage", || {
        let kinds = kinds_on(cluster, ADDED)?;
        for kind in [ServiceKind::Log, ServiceKind::Storage] {
            ensure!(kinds.contains(&kind), "the added node has {kinds:?}");
        }
        Ok(())
    })?;
    refused(cluster, &["remove", "node-3"], "coordinator-1@node-3 is still there")?;
    done(cluster, &["use", "node-3"], "is in use")?;
    done(cluster, &["drain", ADDED], "is durable")?;
    refused(cluster, &["remove", ADDED], "still there")?;
    left(cluster, ADDED, &[])?;
    done(cluster, &["remove", ADDED], "is removed")
}

/// Waits until the added node reports.
pub(crate) fn is_listed(cluster: &Cluster) -> Outcome {
    eventually("the added node is listed", || {
        let nodes: Nodes = cluster.get_json("/v1/nodes")?;
        let report = nodes.nodes.into_iter().find(|report| report.node.as_str() == ADDED);
        ensure!(report.context("it does not report")?.settled);
        Ok(())
    })
}

/// The added node reports, is told that it was removed, and nothing is put on it.
fn is_harmless(cluster: &Cluster) -> Outcome {
    let foreman = eventually("its foreman reports", || {
        cluster.process(|row| row.node.as_str() == ADDED && row.service == "foreman-1")
    })?;
    eventually("its foreman says so", || {
        let ready = cluster.http().get(format!("{}/readyz", foreman.url)).send()?.text()?;
        ensure!(ready.contains("this node was removed"), "{ready}");
        Ok(())
    })?;
    let epoch = cluster.epoch()?;
    cluster.begin_recovery("a test")?;
    cluster.ready_above(epoch)?;
    let kinds = kinds_on(cluster, ADDED)?;
    ensure!(kinds.is_empty(), "{kinds:?}");
    Ok(())
}

#[test]
fn a_node_is_added_another_drained_and_the_added_one_removed_while_puts_go_on() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let mut keys: Vec<String> = (0..BEFORE).map(|number| format!("before-{number}")).collect();
    for key in &keys {
        cluster.put(cluster.gateway()?, key, &"x".repeat(1_000))?;
    }
    refused(&cluster, &["drain", "node-3"], "2 nodes report that can run a storage")?;
    refused(&cluster, &["drain", "node-9"], "no node node-9 is known")?;
    refused(&cluster, &["remove", "node-3"], "have it drained first")?;

    let added = start_added(&cluster)?;
    is_listed(&cluster)?;
    let is_done = AtomicBool::new(false);
    let (written, moved) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_on(&cluster, &is_done));
        let moved = move_about(&cluster);
        is_done.store(true, Ordering::Relaxed);
        (writer.join().expect("no panic"), moved)
    });
    moved?;
    let (written, longest) = written?;
    eprintln!("{} puts meanwhile, the longest took {longest:?}", written.len());
    ensure!(written.len() > 10, "only {} puts went on", written.len());
    ensure!(longest < Duration::from_secs(10), "a put took {longest:?}");
    keys.extend(written);
    is_everywhere(&cluster, &keys)?;

    is_harmless(&cluster)?;
    drop(added);
    cluster.kill_all()?;
    let cluster = Cluster::start(directory.path())?;
    is_everywhere(&cluster, &keys)?;
    let standing = ordered(&cluster, ADDED)?.context("the removal is forgotten")?;
    ensure!(standing.standing == Standing::Removed && standing.drained, "{standing:?}");
    let layout: LiveLayout = cluster.get_json("/v1/layout")?;
    let storages = cluster.storages()?;
    for member in layout.recorded.config.layout.config_team() {
        let url = storages.get(&member.service.to_string()).context("it does not run")?;
        let stored = cluster.shard_config(url)?.config.context("no configuration")?;
        let config: SystemConfig<ServiceRef> = decode_stored(stored.as_bytes())?;
        ensure!(config.standing(&ADDED.parse()?) == Standing::Removed, "{config:?}");
    }
    // It comes back with what it has.
    let _added = start_added(&cluster)?;
    is_harmless(&cluster)?;
    done(&cluster, &["use", ADDED], "is in use")?;
    ensure!(ordered(&cluster, ADDED)?.is_none());
    cluster.stop()
}
