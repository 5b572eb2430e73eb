//! Golden data directories: what a release has left behind, kept for ever, and started by every later
//! one.
//!
//! An archive holds the directory of a `plinth up` that was killed, and `expected.json` with what a
//! later release must find in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use plinth_system_config::SystemConfig;
use plinth_types::ServiceRef;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cluster::Cluster;

/// The coordinators' ports: they are on the coordinators' disks. Below what the system gives to
/// outgoing connections, and no other test takes them.
const PORTS: [u16; 3] = [19_701, 19_702, 19_703];
/// The name of the cluster's directory in an archive.
const CLUSTER: &str = "cluster";
/// What is to be found, in an archive.
const EXPECTED: &str = "expected.json";

/// What a later release must find.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// The release that made it.
    pub release: String,
    /// The configuration in force.
    pub config: SystemConfig<ServiceRef>,
    /// The directories of its logs and storages.
    pub stores: BTreeSet<String>,
    /// Keys with their values; none where the key was removed.
    pub values: BTreeMap<String, Option<String>>,
}

/// An archive that is kept.
#[must_use]
pub fn archive(level: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/level-{level}.tar.gz"))
}

/// The levels whose archives are kept.
///
/// # Errors
/// The directory can't be read.
pub fn levels() -> anyhow::Result<Vec<u32>> {
    let mut levels = Vec::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("golden"))? {
        let name = entry?.file_name();
        let level = name.to_str().and_then(|name| {
            name.strip_prefix("level-")?.strip_suffix(".tar.gz")?.parse::<u32>().ok()
        });
        levels.extend(level);
    }
    levels.sort_unstable();
    Ok(levels)
}

fn tar(arguments: &[&str], at: &Path) -> anyhow::Result<()> {
    let done = Command::new("tar").args(arguments).current_dir(at).output()?;
    ensure!(done.status.success(), "tar {arguments:?}: {done:?}");
    Ok(())
}

/// Unpacks an archive. Returns the cluster's directory, and what must be found in it.
///
/// # Errors
/// It is not there, or is no such archive.
pub fn unpack(archive: &Path, to: &Path) -> anyhow::Result<(PathBuf, Expected)> {
    let archive = archive.to_str().context("a path that is no text")?;
    tar(&["-xzf", archive], to)?;
    let expected = std::fs::read(to.join(EXPECTED))?;
    Ok((to.join(CLUSTER), serde_json::from_slice(&expected)?))
}

/// Makes an archive with the release at hand: several epochs, all kinds of writes, and then
/// `kill -9` of everything, so that not everything that is in the logs is in the storages too.
///
/// # Errors
/// The cluster does not do what it should, or the archive can't be written.
pub fn make(archive: &Path) -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let directory = work.path().join(CLUSTER);
    std::fs::create_dir(&directory)?;
    let coordinator = |(number, port): (usize, &u16)| {
        let service = format!("coordinator-1@node-{}", number + 1);
        json!({ "service": service, "url": format!("http://127.0.0.1:{port}") })
    };
    let file = json!({
        "cluster": "601d".repeat(8),
        "coordinators": PORTS.iter().enumerate().map(coordinator).collect::<Vec<_>>(),
        "initial_nodes": ["node-1", "node-2", "node-3"],
    });
    std::fs::write(directory.join("cluster.json"), file.to_string())?;
    let cluster = Cluster::start_with(&directory, &["--no-jaeger"])?;
    let mut values = BTreeMap::new();
    for round in 0..3 {
        write(&cluster, round, &mut values)?;
        if round < 2 {
            let epoch = cluster.epoch()?;
            cluster.begin_recovery("a golden directory has several epochs")?;
            cluster.ready_above(epoch)?;
        }
    }
    let expected = Expected {
        release: env!("CARGO_PKG_VERSION").to_owned(),
        config: cluster.get_json("/v1/config")?,
        stores: cluster.stores()?,
        values,
    };
    cluster.kill_all()?;
    without_output(&directory)?;
    std::fs::write(work.path().join(EXPECTED), serde_json::to_vec_pretty(&expected)?)?;
    let archive = archive.to_str().context("a path that is no text")?;
    let owner = ["--owner=0", "--group=0", "--numeric-owner", "--sort=name"];
    tar(&[&owner[..], &["-czf", archive, CLUSTER, EXPECTED]].concat(), work.path())
}

fn write(
    cluster: &Cluster,
    round: u32,
    values: &mut BTreeMap<String, Option<String>>,
) -> anyhow::Result<()> {
    let gateway = cluster.gateway()?;
    let mut put = |key: String, value: String| -> anyhow::Result<()> {
        cluster.put(gateway, &key, &value)?;
        values.insert(key, Some(value));
        Ok(())
    };
    for number in 0..20 {
        put(format!("round-{round}/{number:02}"), format!("value {number} of round {round}"))?;
    }
    put("overwritten".to_owned(), format!("in round {round}"))?;
    put(format!("large-{round}"), format!("{round}").repeat(20_000))?;
    let removed = format!("removed-{round}");
    put(removed.clone(), "for a moment".to_owned())?;
    cluster.delete(gateway, &removed)?;
    values.insert(removed, None);
    let answer = cluster
        .http()
        .post(format!("{gateway}/v1/keys/counter/atomic"))
        .json(&json!({ "op": "add", "operand": 1 }))
        .send()?;
    let status = answer.status();
    ensure!(status.is_success(), "{status}: {}", answer.text()?);
    Ok(())
}

/// Removes what the processes have said: it is long, and nothing reads it.
fn without_output(directory: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            without_output(&path)?;
            continue;
        }
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // A worker's output is named for it; RocksDB's write-ahead logs are numbers.
        let is_output = name.ends_with(".log") && name.contains('-');
        if is_output || name.starts_with("LOG") {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}
