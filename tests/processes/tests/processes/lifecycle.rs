//! Cold start, service, death of everything, return.

use std::path::Path;

use anyhow::ensure;
use plinth_test_processes::cluster::{Cluster, up};
use plinth_test_processes::rounds;

use crate::Outcome;

pub(crate) fn wipe_coordinators(directory: &Path) -> anyhow::Result<usize> {
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
fn from_nothing_to_ready_again_and_again() -> Outcome {
    for _ in 0..rounds()? {
        let directory = tempfile::tempdir()?;
        let cluster = Cluster::start(directory.path())?;
        ensure!(cluster.source()? == "default");
        cluster.put(cluster.gateway()?, "hello", "world")?;
        ensure!(cluster.get(cluster.gateway()?, "hello")?.as_deref() == Some("world"));
        cluster.stop()?;
    }
    Ok(())
}

#[test]
fn everything_killed_comes_back_with_its_data_and_configuration() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    cluster.put(cluster.gateway()?, "kept", "through it all")?;
    let (stores, mut before) = (cluster.stores()?, cluster.epoch()?);
    ensure!(stores.len() == 6, "three logs and three storages: {stores:?}");
    cluster.kill_all()?;
    for round in 0..rounds()? {
        let cluster = Cluster::start(directory.path())?;
        ensure!(cluster.get(cluster.gateway()?, "kept")?.as_deref() == Some("through it all"));
        for earlier in 0..round {
            let value = cluster.get(cluster.gateway()?, &format!("round-{earlier}"))?;
            ensure!(value.as_deref() == Some("acknowledged"), "of round {earlier}: {value:?}");
        }
        ensure!(cluster.stores()? == stores, "other logs or storages");
        ensure!(cluster.source()? == "raft");
        let now = cluster.epoch()?;
        ensure!(now > before, "epoch {now} after {before}");
        before = now;
        cluster.put(cluster.gateway()?, &format!("round-{round}"), "acknowledged")?;
        cluster.kill_all()?;
    }
    Ok(())
}

#[test]
fn every_coordinators_directory_lost_is_founded_again_from_storage() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    cluster.put(cluster.gateway()?, "kept", "in the storages")?;
    let (stores, mut before) = (cluster.stores()?, cluster.epoch()?);
    cluster.stop()?;
    for round in 0..rounds()? {
        ensure!(wipe_coordinators(directory.path())? == 3);
        let cluster = Cluster::start(directory.path())?;
        ensure!(cluster.source()? == "storage");
        ensure!(cluster.get(cluster.gateway()?, "kept")?.as_deref() == Some("in the storages"));
        ensure!(cluster.stores()? == stores, "other logs or storages");
        let now = cluster.epoch()?;
        ensure!(now > before, "epoch {now} after {before}");
        before = now;
        let value = format!("{round}");
        cluster.put(cluster.gateway()?, "round", &value)?;
        ensure!(cluster.get(cluster.gateway()?, "round")?.as_deref() == Some(value.as_str()));
        cluster.stop()?;
    }
    Ok(())
}

#[test]
fn a_second_cluster_on_the_same_directory_is_refused() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let second = up(directory.path(), 3)?.output()?;
    ensure!(second.status.code() == Some(2), "{second:?}");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(said.contains(&directory.path().display().to_string()), "{said}");
    ensure!(said.contains("plinth down"), "{said}");
    cluster.put(cluster.gateway()?, "still", "served")?;
    cluster.stop()
}
