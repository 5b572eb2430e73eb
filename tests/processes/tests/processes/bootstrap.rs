//! Every row of the bootstrap table, with real processes. Where every coordinator's directory is lost
//! while the rest is whole is in `lifecycle`; what an operator has to decide is in `recover`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use plinth_api::coordinator::{Members, Recoveries, Status};
use plinth_system_config::{SystemConfig, decode_stored};
use plinth_test_processes::cluster::{Cluster, Starting, free_port, reference, up};
use plinth_test_processes::machines::Machines;
use plinth_test_processes::{eventually, rounds, stores};
use plinth_types::ServiceRef;

use crate::Outcome;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// Removes the coordinators' directories on these nodes.
pub(crate) fn wipe_coordinators(directory: &Path, nodes: &[&str]) -> Outcome {
    for node in nodes {
        let coordinator = stores::directory(directory, "coordinator-1", node);
        std::fs::remove_dir_all(&coordinator).with_context(|| coordinator.display().to_string())?;
    }
    Ok(())
}

/// How each coordinator started, by its name.
fn coordinators(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, Status>> {
    let mut found = BTreeMap::new();
    for row in cluster.of_kind("coordinator")? {
        let answer = cluster.http().get(format!("{}/v1/status", row.url)).send()?;
        found.insert(reference(&row), answer.error_for_status()?.json()?);
    }
    Ok(found)
}

/// Waits until each storage has a configuration on disk that can be read, the same as every other's.
fn healed(cluster: &Cluster) -> Outcome {
    let layout: SystemConfig<ServiceRef> = cluster.get_json("/v1/config")?;
    for (storage, url) in cluster.storages()? {
        eventually("a configuration that can be read", || {
            let held = cluster.shard_config(&url)?.config.context("none")?;
            let held: SystemConfig<ServiceRef> = decode_stored(held.as_bytes())?;
            ensure!(held.stamp() == layout.stamp(), "{storage} has {}", held.stamp());
            Ok(())
        })?;
    }
    Ok(())
}

/// Row 3: absent here, a majority alive elsewhere. The rest runs all the while.
#[test]
fn a_coordinator_that_loses_its_disk_rejoins_with_a_new_identity() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    cluster.put(cluster.gateway()?, "kept", "by the others")?;
    let epoch = cluster.epoch()?;
    let before: Members = cluster.get_json("/v1/members")?;
    // The leader first, then whoever is a follower by then.
    for role in ["leader", "follower"].into_iter().cycle().take(2 * rounds()? as usize) {
        let victim =
            cluster.process(|row| row.role == role && row.service.starts_with("coordinator"))?;
        let own = stores::directory(directory.path(), &victim.service, victim.node.as_str());
        let lost = tempfile::tempdir_in(directory.path())?;
        std::fs::rename(&own, lost.path().join("lost"))?;
        cluster.kill(victim.os_pid)?;
        let who = reference(&victim);
        eventually("the coordinator is a member again", || {
            let status = coordinators(&cluster)?.remove(&who).context("it is not back")?;
            ensure!(status.bootstrap.source == "peers" && status.members.len() == 3, "{status:?}");
            let now: Members = cluster.get_json("/v1/members")?;
            ensure!(now.group == before.group, "another group");
            let id = |members: &Members| {
                let mut all = members.members.iter();
                all.find(|member| member.service.to_string() == who).map(|member| member.raft_id)
            };
            ensure!(id(&now).is_some() && id(&now) != id(&before), "{now:?}");
            Ok(())
        })?;
    }
    let status = eventually("ready", || {
        let status = cluster.status()?;
        ensure!(status.ready, "{status:?}");
        Ok(status)
    })?;
    let recoveries: Recoveries = cluster.get_json("/v1/recoveries")?;
    ensure!(status.epoch.0 == epoch, "epoch {} began: {recoveries:#?}", status.epoch);
    ensure!(cluster.get(cluster.gateway()?, "kept")?.as_deref() == Some("by the others"));
    cluster.stop()
}

/// Row 1: the coordinators' disks are put back as they were some epochs ago. What the storages have is
/// above that, and is taken up.
#[test]
fn rolled_back_coordinators_take_up_what_the_storages_have() -> Outcome {
    let directory = tempfile::tempdir()?;
    let copies = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    cluster.put(cluster.gateway()?, "early", "value")?;
    cluster.stop()?;
    for node in NODES {
        let own = stores::directory(directory.path(), "coordinator-1", node);
        stores::copy(&own, &copies.path().join(node))?;
    }
    let cluster = Cluster::start(directory.path())?;
    let mut epoch = cluster.epoch()?;
    for _ in 0..2 {
        cluster.begin_recovery("a later epoch")?;
        epoch = cluster.ready_above(epoch)?;
    }
    cluster.put(cluster.gateway()?, "late", "value")?;
    let config: SystemConfig<ServiceRef> = cluster.get_json("/v1/config")?;
    let workers = cluster.stores()?;
    cluster.stop()?;

    wipe_coordinators(directory.path(), &NODES)?;
    for node in NODES {
        let own = stores::directory(directory.path(), "coordinator-1", node);
        stores::copy(&copies.path().join(node), &own)?;
    }
    let cluster = Cluster::start(directory.path())?;
    let now: SystemConfig<ServiceRef> = cluster.get_json("/v1/config")?;
    ensure!(now.stamp() > config.stamp(), "{} after {}", now.stamp(), config.stamp());
    ensure!(now.group_id == config.group_id, "another group");
    let sources = coordinators(&cluster)?;
    ensure!(sources.values().all(|status| status.bootstrap.source == "raft"), "{sources:#?}");
    let adopted = sources.values().any(|status| status.bootstrap.storage.is_some());
    ensure!(adopted, "no coordinator has taken up a storage's: {sources:#?}");
    for key in ["early", "late"] {
        ensure!(cluster.get(cluster.gateway()?, key)?.as_deref() == Some("value"), "{key}");
    }
    ensure!(cluster.stores()? == workers, "other logs or storages");
    cluster.stop()
}

/// Row 4, with one storage whose configuration can't be read: it is said, and healed.
#[test]
fn a_configuration_that_cannot_be_read_on_one_storage_is_taken_from_another() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    cluster.put(cluster.gateway()?, "kept", "value")?;
    let workers = cluster.stores()?;
    cluster.stop()?;
    stores::spoil_configuration(directory.path(), "storage-1", "node-1")?;
    wipe_coordinators(directory.path(), &NODES)?;

    let cluster = Cluster::start(directory.path())?;
    let statuses = coordinators(&cluster)?;
    let founders: Vec<_> =
        statuses.values().filter(|status| status.bootstrap.source == "storage").collect();
    ensure!(!founders.is_empty(), "{statuses:#?}");
    for status in founders {
        let keeper = status.bootstrap.storage.as_ref().context("no storage is named")?;
        ensure!(keeper.to_string() != "storage-1@node-1", "{status:?}");
    }
    let rejected: Vec<_> =
        statuses.values().flat_map(|status| &status.bootstrap.rejected).collect();
    ensure!(rejected.iter().any(|one| one.starts_with("storage-1@node-1")), "{statuses:#?}");
    ensure!(cluster.get(cluster.gateway()?, "kept")?.as_deref() == Some("value"));
    ensure!(cluster.stores()? == workers, "other logs or storages");
    healed(&cluster)?;
    cluster.stop()
}

/// The same without a loss of coordinators, who need no storage to start.
#[test]
fn storages_whose_configurations_cannot_be_read_start_and_are_healed() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    cluster.put(cluster.gateway()?, "kept", "value")?;
    let workers = cluster.stores()?;
    cluster.stop()?;
    for node in NODES {
        stores::spoil_configuration(directory.path(), "storage-1", node)?;
    }
    stores::spoil_configuration(directory.path(), "log-1", "node-2")?;
    let cluster = Cluster::start(directory.path())?;
    ensure!(cluster.source()? == "raft");
    ensure!(cluster.get(cluster.gateway()?, "kept")?.as_deref() == Some("value"));
    ensure!(cluster.stores()? == workers, "other logs or storages");
    healed(&cluster)?;
    cluster.stop()
}

/// Row 6: absent on all coordinators, and unreadable on all storages. The logs show the newest one.
#[test]
fn configurations_that_cannot_be_read_on_any_storage_are_rebuilt_from_the_logs() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let mut epoch = cluster.epoch()?;
    cluster.put(cluster.gateway()?, "kept", "value")?;
    cluster.begin_recovery("a second epoch")?;
    epoch = cluster.ready_above(epoch)?;
    let config: SystemConfig<ServiceRef> = cluster.get_json("/v1/config")?;
    let workers = cluster.stores()?;
    cluster.stop()?;
    for node in NODES {
        stores::spoil_configuration(directory.path(), "storage-1", node)?;
    }
    wipe_coordinators(directory.path(), &NODES)?;

    let cluster = Cluster::start(directory.path())?;
    let statuses = coordinators(&cluster)?;
    let founders: Vec<_> =
        statuses.values().filter(|status| status.bootstrap.source == "manifests").collect();
    ensure!(!founders.is_empty(), "{statuses:#?}");
    for status in &founders {
        let found = (status.bootstrap.epoch, status.bootstrap.config_version);
        ensure!(found == (config.epoch, config.config_version), "{status:?}");
        let keeper = status.bootstrap.storage.as_ref().context("no log is named")?;
        ensure!(keeper.name.to_string() == "log-1", "{status:?}");
    }
    // Those that had answered by the time it was decided: a majority's logs are enough for that.
    let told = statuses.values().flat_map(|status| &status.bootstrap.rejected);
    ensure!(told.clone().any(|one| one.starts_with("storage-1@")), "{statuses:#?}");
    let now: SystemConfig<ServiceRef> = cluster.get_json("/v1/config")?;
    ensure!(now.epoch.0 > epoch + (1 << 20), "epoch {} after {epoch}", now.epoch);
    ensure!(now.parameters == config.parameters, "other parameters");
    ensure!(cluster.get(cluster.gateway()?, "kept")?.as_deref() == Some("value"));
    ensure!(cluster.stores()? == workers, "other logs or storages");
    cluster.put(cluster.gateway()?, "kept", "again")?;
    healed(&cluster)?;
    cluster.stop()?;

    // And it is a cluster like any other.
    let cluster = Cluster::start(directory.path())?;
    ensure!(cluster.source()? == "raft");
    ensure!(cluster.get(cluster.gateway()?, "kept")?.as_deref() == Some("again"));
    cluster.stop()
}

/// Row 5: a foreman that is absent may have workers, so the cluster is not taken for a new one.
#[test]
fn a_cold_start_waits_for_a_machine_that_is_slow() -> Outcome {
    let directory = tempfile::tempdir()?;
    let mut machines = Machines::new(directory.path(), 3)?;
    machines.start(1)?;
    machines.start(2)?;
    let waits = |status: &Status| {
        let waiting = status.bootstrap.waiting_for.as_deref().unwrap_or_default();
        waiting.contains("node-3") && !waiting.contains("node-2")
    };
    for machine in [1, 2] {
        let status = machines.until(machine, "waiting for node 3", waits)?;
        ensure!(status.group.is_none() && status.bootstrap.source == "deciding", "{status:?}");
    }
    machines.start(3)?;
    for machine in 1..=3 {
        let status = machines.until(machine, "ready", |status| status.ready)?;
        ensure!(status.bootstrap.source == "default", "{status:?}");
    }
    Ok(())
}

/// Row 2: killed again and again before it has become ready, a new cluster still becomes one, and just
/// one.
#[test]
fn a_cold_start_that_is_killed_half_way_goes_on() -> Outcome {
    let directory = tempfile::tempdir()?;
    let mut groups = Vec::new();
    for round in 0..4 * rounds()? {
        let starting = Starting::at(directory.path(), free_port()?)?;
        // As far as a coordinator has come, from its first answer to a layout that is recorded.
        let far_enough = |status: &Status| match round % 4 {
            0 => true,
            1 => status.group.is_some(),
            2 => status.epoch.0 > 0,
            _ => status.config_version.0 > 0,
        };
        let url = eventually("a cluster file", || {
            let file = std::fs::read(directory.path().join("cluster.json"))?;
            let file: serde_json::Value = serde_json::from_slice(&file)?;
            let url = file["coordinators"][0]["url"].as_str().context("no coordinator")?;
            Ok(format!("{url}/v1/status"))
        })?;
        let status = eventually("a coordinator", || {
            let answer = starting.http().get(&url).send()?.error_for_status()?;
            let status: Status = answer.json()?;
            ensure!(far_enough(&status), "{status:?}");
            Ok(status)
        })?;
        groups.extend(status.group);
        starting.kill_all()?;
    }
    let cluster = Cluster::start(directory.path())?;
    let members: Members = cluster.get_json("/v1/members")?;
    ensure!(groups.iter().all(|group| *group == members.group), "{groups:?} and {members:?}");
    cluster.put(cluster.gateway()?, "it", "works")?;
    cluster.stop()
}

/// Row 4: with the coordinators' disks lost, the first machine alone can't know what is the newest
/// configuration; with a majority of the config team it goes on, and the last one comes when it comes.
#[test]
fn founding_again_waits_for_machines_that_are_slow() -> Outcome {
    let directory = tempfile::tempdir()?;
    let mut machines = Machines::new(directory.path(), 3)?;
    for machine in 1..=3 {
        machines.start(machine)?;
    }
    let before = machines.until(1, "ready", |status| status.ready)?;
    for machine in 1..=3 {
        machines.stop(machine)?;
    }
    wipe_coordinators(directory.path(), &NODES)?;
    machines.start(1)?;
    let waits = |status: &Status| {
        let waiting = status.bootstrap.waiting_for.as_deref().unwrap_or_default();
        waiting.contains("coordinator-1@node-2") && waiting.contains("coordinator-1@node-3")
    };
    machines.until(1, "waiting for the other coordinators", waits)?;
    machines.start(2)?;
    for machine in [1, 2] {
        let status = machines.until(machine, "ready", |status| status.ready)?;
        ensure!(status.bootstrap.source == "storage", "{status:?}");
        ensure!(status.epoch > before.epoch && status.cluster == before.cluster, "{status:?}");
    }
    machines.start(3)?;
    // It is a member from the entry on that says so, and notes it then.
    let is_in = |status: &Status| {
        status.ready && status.members.len() == 3 && status.bootstrap.source != "deciding"
    };
    let last = machines.until(3, "ready, and has joined", is_in)?;
    ensure!(last.bootstrap.source == "peers", "{last:?}");
    Ok(())
}

/// Four nodes with three storages between them: one node has none, and is as healthy as the others.
#[test]
fn a_node_without_a_storage_founds_again_with_those_that_have_one() -> Outcome {
    let directory = tempfile::tempdir()?;
    let start = || -> anyhow::Result<Cluster> {
        let mut command: Command = up(directory.path(), 4)?;
        command.args(["--gateway-port", &free_port()?.to_string()]);
        Cluster::run(command, directory.path())
    };
    let cluster = start()?;
    let storages = cluster.storages()?;
    ensure!(cluster.of_kind("foreman")?.len() == 4 && storages.len() == 3, "{storages:?}");
    cluster.put(cluster.gateway()?, "kept", "on three of four")?;
    let (workers, epoch) = (cluster.stores()?, cluster.epoch()?);
    let members: Members = cluster.get_json("/v1/members")?;
    let nodes: Vec<&str> =
        members.members.iter().map(|member| member.service.node.as_str()).collect();
    // A coordinator on the node without a storage asks the other nodes' foremen.
    let bare = cluster.of_kind("foreman")?.into_iter().find(|foreman| {
        let storage = format!("storage-1@{}", foreman.node);
        !storages.contains_key(&storage)
    });
    println!("without a storage: {:?}; coordinators: {nodes:?}", bare.map(|row| row.node));
    cluster.stop()?;
    wipe_coordinators(directory.path(), &nodes)?;
    let cluster = start()?;
    ensure!(cluster.source()? == "storage");
    ensure!(cluster.epoch()? > epoch);
    ensure!(cluster.get(cluster.gateway()?, "kept")?.as_deref() == Some("on three of four"));
    ensure!(cluster.stores()? == workers, "other logs or storages");
    cluster.stop()
}
