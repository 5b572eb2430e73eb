//! A three-node cluster of real processes: cold start, service, death of everything, return.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, ensure};
use plinth_api::coordinator::Recoveries;
use plinth_api::director::LiveLayout;
use plinth_api::gateway::ClusterStatus;
use plinth_system_config::{SystemConfig, decode_stored};
use plinth_test_processes::{Cluster, eventually, up};
use plinth_types::{ServiceRef, Tag};

type Outcome = anyhow::Result<()>;

fn stores(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    let layout: LiveLayout = cluster.get_json("/v1/layout")?;
    Ok(layout.recorded.config.layout.durable().map(|(_, store, _)| store.to_string()).collect())
}

fn epoch(cluster: &Cluster) -> anyhow::Result<u64> {
    Ok(cluster.get_json::<ClusterStatus>("/v1/status")?.epoch.0)
}

fn source(cluster: &Cluster) -> anyhow::Result<String> {
    let status: ClusterStatus = cluster.get_json("/v1/status")?;
    Ok(status.coordinator.context("no coordinator answers")?.bootstrap.source)
}

fn wipe_coordinators(directory: &Path) -> anyhow::Result<usize> {
    let mut wiped = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with("coordinator-") {
            std::fs::remove_dir_all(entry.path())?;
            wiped += 1;
        } else {
            wiped += wipe_coordinators(&entry.path())?;
        }
    }
    Ok(wiped)
}

#[test]
fn from_nothing_to_ready_three_times() -> Outcome {
    for _ in 0..3 {
        let directory = tempfile::tempdir()?;
        let cluster = Cluster::start(directory.path())?;
        ensure!(source(&cluster)? == "default");
        for (number, gateway) in cluster.ready.gateways.clone().iter().enumerate() {
            let value = format!("by gateway {number}");
            cluster.put(gateway, "hello", &value)?;
            for other in &cluster.ready.gateways {
                ensure!(cluster.get(other, "hello")?.as_deref() == Some(value.as_str()));
            }
        }
        cluster.delete(cluster.gateway()?, "hello")?;
        for gateway in &cluster.ready.gateways {
            ensure!(cluster.get(gateway, "hello")?.is_none());
        }
        cluster.stop()?;
    }
    Ok(())
}

#[test]
fn every_storage_holds_the_configuration_that_the_layout_shows() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let layout: LiveLayout = cluster.get_json("/v1/layout")?;
    let storages = cluster.storages()?;
    ensure!(storages.len() == 3, "{storages:?}");
    for url in storages.values() {
        let held = eventually("the configuration on each storage", || {
            cluster.shard_config(url)?.config.context("none yet")
        })?;
        let config: SystemConfig<ServiceRef> = decode_stored(held.as_bytes())?;
        ensure!(config == layout.recorded.config);
        let text = String::from_utf8_lossy(held.as_bytes()).into_owned();
        for placed in &layout.directory {
            ensure!(!text.contains(&placed.pid.address), "an address in the configuration");
            ensure!(!text.contains(&placed.pid.incarnation.to_string()), "a Pid in it");
        }
    }
    cluster.put(cluster.gateway()?, "everywhere", "same")?;
    ensure!(cluster.get(cluster.gateway()?, "everywhere")?.is_some());
    let first = storages.values().next().context("no storage")?;
    let status = cluster.storage_status(first)?;
    let user = status.tags.iter().find(|tag| tag.tag != Tag::SYSTEM).context("no user tag")?;
    let version = user.version.to_string();
    for url in storages.values() {
        let answer = cluster.read_at(url, layout.config.epoch.0, &version, "everywhere")?;
        let value = answer.values.first().cloned().flatten().context("missing on a storage")?;
        ensure!(value.as_bytes() == b"same");
    }
    cluster.stop()
}

#[test]
fn everything_killed_comes_back_with_its_data_and_configuration() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    cluster.put(cluster.gateway()?, "kept", "through it all")?;
    let (before_stores, mut before) = (stores(&cluster)?, epoch(&cluster)?);
    cluster.kill_all()?;
    for _ in 0..3 {
        let cluster = Cluster::start(directory.path())?;
        ensure!(cluster.get(cluster.gateway()?, "kept")?.as_deref() == Some("through it all"));
        ensure!(stores(&cluster)? == before_stores, "other logs or storages");
        ensure!(source(&cluster)? == "raft");
        let now = epoch(&cluster)?;
        ensure!(now > before, "epoch {now} after {before}");
        before = now;
        cluster.kill_all()?;
    }
    Ok(())
}

#[test]
fn every_coordinators_directory_lost_is_founded_again_from_storage() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    cluster.put(cluster.gateway()?, "kept", "in the storages")?;
    let (before_stores, before) = (stores(&cluster)?, epoch(&cluster)?);
    cluster.stop()?;
    ensure!(wipe_coordinators(directory.path())? == 3);
    let cluster = Cluster::start(directory.path())?;
    ensure!(source(&cluster)? == "storage");
    ensure!(cluster.get(cluster.gateway()?, "kept")?.as_deref() == Some("in the storages"));
    ensure!(stores(&cluster)? == before_stores, "other logs or storages");
    ensure!(epoch(&cluster)? > before);
    cluster.stop()
}

#[test]
fn the_active_director_killed_is_replaced_in_a_new_epoch() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    cluster.put(cluster.gateway()?, "kept", "by the next director")?;
    let before = epoch(&cluster)?;
    let active = cluster
        .processes()?
        .into_iter()
        .find(|row| row.role == "active")
        .context("no active director")?;
    cluster.kill(active.os_pid)?;
    eventually("a later epoch that is ready", || {
        let status: ClusterStatus = cluster.get_json("/v1/status")?;
        ensure!(status.ready && status.epoch.0 > before);
        Ok(())
    })?;
    ensure!(cluster.get(cluster.gateway()?, "kept")?.as_deref() == Some("by the next director"));
    let recoveries: Recoveries = cluster.get_json("/v1/recoveries")?;
    ensure!(recoveries.recoveries.len() >= 2);
    cluster.stop()
}

#[test]
fn a_second_cluster_on_the_same_directory_is_refused() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let second = up(directory.path())?.output()?;
    ensure!(second.status.code() == Some(2), "{second:?}");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(said.contains(&directory.path().display().to_string()), "{said}");
    cluster.put(cluster.gateway()?, "still", "served")?;
    cluster.stop()
}
