//! Disks that are damaged, full or read-only: whoever has one says so and stops, the others go on, and
//! nothing is lost.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use plinth_system_config::SystemConfig;
use plinth_test_processes::cluster::{Cluster, free_port, up};
use plinth_test_processes::{eventually, stores};
use plinth_types::ServiceRef;

use crate::Outcome;
use crate::replicas::is_everywhere;

/// Keys that are there before anything befalls a disk.
const BEFORE: usize = 100;
/// How large the small disk is. A store takes some of it before it holds anything.
const SMALL: &str = "256m";
/// Values that are written to a full disk, and how large each is: more than a store has laid claim to for
/// its next writes.
const LARGE: (usize, usize) = (400, 80_000);
/// What fills a disk is written in pieces of this size, and then of single bytes.
const PIECE: usize = 1 << 20;

fn fill(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let keys: Vec<String> = (0..BEFORE).map(|number| format!("before-{number}")).collect();
    for key in &keys {
        cluster.put(cluster.gateway()?, key, &"x".repeat(500))?;
    }
    Ok(keys)
}

fn has(cluster: &Cluster, keys: &[String]) -> Outcome {
    for key in keys {
        ensure!(cluster.get(cluster.gateway()?, key)?.is_some(), "{key} is lost");
    }
    Ok(())
}

/// A put is acknowledged, however many fail before.
fn takes_writes(cluster: &Cluster, gateway: &str, key: &str) -> Outcome {
    takes(cluster, gateway, key, "written")
}

fn takes(cluster: &Cluster, gateway: &str, key: &str, value: &str) -> Outcome {
    eventually("a write is acknowledged", || cluster.put(gateway, key, value))
}

/// The file of a store's newest writes.
fn newest_writes(cluster: &Path, worker: &str, node: &str) -> anyhow::Result<PathBuf> {
    let store = stores::directory(cluster, worker, node).join("store");
    let entries = fs::read_dir(&store).with_context(|| store.display().to_string())?;
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in entries {
        let (path, length) = {
            let entry = entry?;
            (entry.path(), entry.metadata()?.len())
        };
        if path.extension().is_some_and(|ending| ending == "log") {
            found.push((length, path));
        }
    }
    found.sort();
    Ok(found.pop().with_context(|| format!("{} has no writes", store.display()))?.1)
}

/// The last line of what a service has said in which one of these words stands.
fn said(cluster: &Path, service: &str, node: &str, words: &[&str]) -> anyhow::Result<String> {
    let path = cluster.join(node).join(format!("{service}.log"));
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let line = text.lines().rev().find(|line| words.iter().any(|word| line.contains(word)));
    let line = line.with_context(|| format!("{} says nothing of {words:?}", path.display()))?;
    eprintln!("{service}@{node}: {line}");
    Ok(line.to_owned())
}

/// One of each kind, on a node of its own.
const DAMAGED: [(&str, &str); 3] =
    [("log-1", "node-1"), ("storage-1", "node-2"), ("coordinator-1", "node-3")];

#[test]
fn whoever_finds_a_bit_turned_says_so_and_stops_and_the_others_go_on() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let keys = fill(&cluster)?;
    cluster.kill_all()?;
    for (worker, node) in DAMAGED {
        let path = newest_writes(directory.path(), worker, node)?;
        let mut bytes = fs::read(&path)?;
        // Far from the end: what is cut off there was never acknowledged.
        *bytes.get_mut(1_000).context("too little was written")? ^= 1;
        fs::write(&path, bytes)?;
    }
    let cluster = Cluster::start(directory.path())?;
    has(&cluster, &keys)?;
    takes_writes(&cluster, cluster.gateway()?, "after")?;
    for (worker, node) in DAMAGED {
        eventually("it says what is wrong", || {
            said(directory.path(), worker, node, &["orrupt"]).map(drop)
        })?;
    }
    has(&cluster, &keys)?;
    cluster.kill_all()
}

/// What was cut off was acknowledged. The others have it, and give it back.
#[test]
fn a_log_and_a_storage_whose_ends_were_cut_off_lose_nothing_that_was_acknowledged() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let keys = fill(&cluster)?;
    cluster.kill_all()?;
    for (worker, node) in [("log-1", "node-1"), ("storage-1", "node-2")] {
        let path = newest_writes(directory.path(), worker, node)?;
        let length = fs::metadata(&path)?.len();
        File::options().write(true).open(&path)?.set_len(length / 2)?;
    }
    let cluster = Cluster::start(directory.path())?;
    has(&cluster, &keys)?;
    takes_writes(&cluster, cluster.gateway()?, "after")?;
    is_everywhere(&cluster, &keys)?;
    cluster.stop()
}

/// `plinth up` in a name space of mounts of its own, which has these first.
fn mounted(directory: &Path, mounts: &str) -> anyhow::Result<Option<Command>> {
    let script = |then: &str| format!("cd \"$DIRECTORY\"; {mounts}; {then}");
    let unshare = |script: String| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-ec"]).arg(script);
        command.arg("sh").env("DIRECTORY", directory);
        command
    };
    if !unshare(script("true")).output().is_ok_and(|output| output.status.success()) {
        println!("not run: this machine lets no test mount a file system");
        return Ok(None);
    }
    let up = up(directory, 3)?;
    let mut command = unshare(script("exec \"$@\""));
    command.arg(up.get_program()).args(up.get_args());
    command.args(["--gateway-port", &free_port()?.to_string()]);
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    Ok(Some(command))
}

/// Writes until nothing more goes in.
fn fill_up(path: &Path) -> Outcome {
    let mut file = File::create(path)?;
    for piece in [PIECE, 1] {
        while file.write_all(&vec![0; piece]).is_ok() {}
    }
    Ok(())
}

#[test]
fn a_node_whose_disk_is_full_holds_nobody_up_and_is_used_again() -> Outcome {
    let directory = tempfile::tempdir()?;
    fs::create_dir(directory.path().join("node-3"))?;
    let mount = format!("mount -t tmpfs -o size={SMALL} none node-3");
    let Some(command) = mounted(directory.path(), &mount)? else { return Ok(()) };
    let cluster = Cluster::run(command, directory.path())?;
    let mut keys = fill(&cluster)?;
    // As the processes see it.
    let root = PathBuf::from(format!("/proc/{}/root", cluster.os_pid()));
    let inside = root.join(directory.path().strip_prefix("/")?);
    let ballast = inside.join("node-3/ballast");
    fill_up(&ballast)?;
    let (count, size) = LARGE;
    let value = "y".repeat(size);
    for number in 0..count {
        let key = format!("meanwhile-{number}");
        takes(&cluster, &cluster.ready.gateways[number % 2], &key, &value)?;
        keys.push(key);
    }
    has(&cluster, &keys)?;
    said(&inside, "log-1", "node-3", &["full", "o space"])?;
    fs::remove_file(&ballast)?;
    eventually("all is well", || {
        let status = cluster.status()?;
        ensure!(status.ready && status.problems.is_empty(), "{:?}", status.problems);
        let config: SystemConfig<ServiceRef> = cluster.get_json("/v1/config")?;
        let logs = &config.layout.logs;
        ensure!(logs.iter().any(|log| log.service.node.as_str() == "node-3"), "{logs:?}");
        Ok(())
    })?;
    has(&cluster, &keys)?;
    cluster.kill_all()
}

#[test]
fn whose_directory_is_read_only_says_so_and_the_others_go_on() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let keys = fill(&cluster)?;
    cluster.kill_all()?;
    let mounts = DAMAGED.map(|(worker, node)| {
        let path = format!("{node}/{worker}");
        format!("mount --bind {path} {path}; mount -o remount,ro,bind {path}")
    });
    let Some(command) = mounted(directory.path(), &mounts.join("; "))? else { return Ok(()) };
    let cluster = Cluster::run(command, directory.path())?;
    has(&cluster, &keys)?;
    takes_writes(&cluster, cluster.gateway()?, "after")?;
    for (worker, node) in DAMAGED {
        eventually("it says what is wrong", || {
            said(directory.path(), worker, node, &["ead-only"]).map(drop)
        })?;
    }
    cluster.kill_all()
}
