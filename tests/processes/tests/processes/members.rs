//! The coordinators' membership changes, by orders, and so do their addresses, while puts go on.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plinth_api::coordinator::Members;
use plinth_client::{Database, Key, Runtime, Secret};
use plinth_system_config::{Standing, SystemConfig, decode_stored};
use plinth_test_processes::added::{done, operate, refused};
use plinth_test_processes::cluster::free_port;
use plinth_test_processes::{Added, Cluster, eventually, rounds};
use plinth_types::ServiceRef;
use serde_json::Value;

use crate::Outcome;
use crate::nodes::{left, ordered, write_on};
use crate::replicas::is_everywhere;

const ADDED: &str = "node-4";
const NEWCOMER: &str = "coordinator-1@node-4";

/// A machine with a coordinator that the cluster file does not name.
struct Machine {
    address: String,
    _running: Added,
}

impl Machine {
    fn start(directory: &Path, address: Option<&str>) -> anyhow::Result<Machine> {
        let address = match address {
            Some(address) => address.to_owned(),
            // Far from those that clusters take.
            None => format!("127.0.0.1:{}", free_port()? + 500),
        };
        let running = Added::start(directory, ADDED, &["--coordinator", &address])?;
        Ok(Machine { address, _running: running })
    }
}

/// A program that is no part of the cluster. It was told of the coordinators when it connected.
struct Program {
    database: Database,
    tasks: tokio::runtime::Runtime,
}

impl Program {
    /// How long the cluster may take to answer it.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn connect(cluster: &Cluster) -> anyhow::Result<Program> {
        let tasks = tokio::runtime::Runtime::new()?;
        let secret = Secret::from_file(&cluster.directory().join("secret"))?;
        let (runtime, urls) = (Runtime::real(), [cluster.gateway()?]);
        let connected = Database::connect(&runtime, &urls, Some(secret), Self::PATIENCE);
        let database = tasks.block_on(connected)?;
        Ok(Program { database, tasks })
    }

    fn reads(&self, key: &str, value: &str) -> Outcome {
        let key = Key::from(key);
        let read = self.tasks.block_on(self.database.get(&key, Self::PATIENCE))?;
        ensure!(read.value == Some(plinth_client::Value::from(value)), "{read:?}");
        Ok(())
    }
}

fn on(nodes: &[u32]) -> BTreeSet<String> {
    nodes.iter().map(|node| format!("coordinator-1@node-{node}")).collect()
}

fn members(cluster: &Cluster) -> anyhow::Result<Members> {
    cluster.get_json("/v1/members")
}

/// Raft's members and the configuration's are these, and no others are to come.
fn are(cluster: &Cluster, nodes: &[u32]) -> Outcome {
    let told = members(cluster)?;
    let raft: BTreeSet<String> =
        told.members.iter().map(|member| member.service.to_string()).collect();
    let config: SystemConfig<ServiceRef> = cluster.get_json("/v1/config")?;
    let named: BTreeSet<String> =
        config.coordinators.iter().map(|member| member.service.to_string()).collect();
    ensure!(raft == on(nodes) && named == on(nodes), "{told:?}, and {named:?} in {config:?}");
    ensure!(config.next_coordinators.is_empty() && told.next_members.is_empty(), "{config:?}");
    for member in &told.members {
        let mut known = config.coordinators.iter();
        let known = known.find(|known| known.service == member.service);
        let known = known.context("not named")?;
        ensure!(known.address.as_ref() == Some(&member.address), "{member:?}, {known:?}");
        ensure!(known.raft_id == member.raft_id, "{member:?}, {known:?}");
    }
    Ok(())
}

/// Every storage of the config team names these.
fn are_in_storage(cluster: &Cluster, nodes: &[u32]) -> Outcome {
    let config: SystemConfig<ServiceRef> = cluster.get_json("/v1/config")?;
    let storages = cluster.storages()?;
    for member in config.layout.config_team() {
        let url = storages.get(&member.service.to_string()).context("it does not run")?;
        let stored = cluster.shard_config(url)?.config.context("no configuration")?;
        let stored: SystemConfig<ServiceRef> = decode_stored(stored.as_bytes())?;
        let named: BTreeSet<String> =
            stored.coordinators.iter().map(|member| member.service.to_string()).collect();
        ensure!(named == on(nodes) && stored.next_coordinators.is_empty(), "{stored:?}");
    }
    Ok(())
}

fn add(machine: &Machine) -> [&str; 4] {
    ["members", "add", NEWCOMER, &machine.address]
}

/// Puts go on for as long as this takes. Answers the keys.
fn meanwhile(cluster: &Cluster, work: impl FnOnce() -> Outcome) -> anyhow::Result<Vec<String>> {
    let is_done = AtomicBool::new(false);
    let (written, worked) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_on(cluster, &is_done));
        let worked = work();
        is_done.store(true, Ordering::Relaxed);
        (writer.join().expect("no panic"), worked)
    });
    worked?;
    let (written, longest) = written?;
    eprintln!("{} puts meanwhile, the longest took {longest:?}", written.len());
    ensure!(written.len() > 10, "only {} puts went on", written.len());
    ensure!(longest < Duration::from_secs(10), "a put took {longest:?}");
    Ok(written)
}

#[test]
fn a_node_with_a_coordinator_leaves_for_another_one_while_puts_go_on() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    are(&cluster, &[1, 2, 3])?;
    let nobody = ["members", "add", NEWCOMER, "127.0.0.1:1"];
    refused(&cluster, &nobody, "no coordinator answers at 127.0.0.1:1")?;
    let unknown = ["members", "remove", "coordinator-1@node-9"];
    refused(&cluster, &unknown, "no coordinator coordinator-1@node-9 is known")?;
    let elsewhere = ["members", "add", "coordinator-1@node-3", "127.0.0.1:1"];
    refused(&cluster, &elsewhere, "is a member already")?;

    let machine = Machine::start(directory.path(), None)?;
    let keys = meanwhile(&cluster, || {
        let add = add(&machine);
        let dry = [&add[..], &["--dry-run"]].concat();
        eventually("the newcomer waits", || done(&cluster, &dry, "would be a member"))?;
        are(&cluster, &[1, 2, 3])?;
        done(&cluster, &add, "coordinator-1@node-4 is a member")?;
        are(&cluster, &[1, 2, 3, 4])?;
        are_in_storage(&cluster, &[1, 2, 3, 4])?;
        done(&cluster, &add, "is a member already")?;

        eventually("the director knows the added node", || {
            done(&cluster, &["nodes", "drain", "node-3", "--dry-run"], "nothing was done")
        })?;
        done(&cluster, &["nodes", "drain", "node-3"], "is durable")?;
        left(&cluster, "node-3", &["coordinator-1@node-3"])?;
        let remove = ["nodes", "remove", "node-3"];
        refused(&cluster, &remove, "coordinator-1@node-3 is still there")?;
        let member = ["members", "remove", "coordinator-1@node-3"];
        done(&cluster, &member, "coordinator-1@node-3 is no member")?;
        are(&cluster, &[1, 2, 4])?;
        are_in_storage(&cluster, &[1, 2, 4])?;
        done(&cluster, &member, "is no member already")?;
        left(&cluster, "node-3", &[])?;
        done(&cluster, &remove, "is removed")
    })?;
    is_everywhere(&cluster, &keys)?;

    // Everything starts again, with a cluster file that names the one who has left, and not the newcomer.
    cluster.kill_all()?;
    drop(machine);
    let machine = Machine::start(directory.path(), None)?;
    let cluster = Cluster::start(directory.path())?;
    eventually("the members are there", || are(&cluster, &[1, 2, 4]))?;
    is_everywhere(&cluster, &keys)?;
    let standing = ordered(&cluster, "node-3")?.context("the removal is forgotten")?;
    ensure!(standing.standing == Standing::Removed && standing.drained, "{standing:?}");
    // It came back at another port, and has said so itself.
    eventually("the newcomer has told where it answers", || {
        let told = members(&cluster)?.members;
        let newcomer = told.iter().find(|member| member.service.to_string() == NEWCOMER);
        ensure!(newcomer.context("it is gone")?.address == machine.address, "{told:?}");
        are(&cluster, &[1, 2, 4])
    })?;
    cluster.stop()
}

/// `kill -9` of whoever has a role, once somebody has it.
fn kill(cluster: &Cluster, role: &str) -> Outcome {
    eventually("somebody with the role", || {
        let row = cluster.process(|row| row.role == role)?;
        cluster.kill(row.os_pid)
    })
}

#[test]
fn a_change_survives_the_end_of_the_leader_and_of_the_director_at_any_step() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let machine = Machine::start(directory.path(), None)?;
    let add = add(&machine);
    let dry = [&add[..], &["--dry-run"]].concat();
    eventually("the newcomer waits", || done(&cluster, &dry, "would be a member"))?;
    let remove = ["members", "remove", NEWCOMER];
    let keys = meanwhile(&cluster, || {
        for round in 0..2 * rounds()? {
            let (order, words, expected): (&[&str], _, &[u32]) = match round % 2 {
                0 => (&add, "is a member", &[1, 2, 3, 4]),
                _ => (&remove, "is no member", &[1, 2, 3]),
            };
            std::thread::scope(|scope| -> Outcome {
                let first = scope.spawn(|| operate(&cluster, order));
                std::thread::park_timeout(Duration::from_millis(u64::from(round) * 60));
                kill(&cluster, "leader")?;
                if round % 3 != 1 {
                    kill(&cluster, "active")?;
                }
                // It may have been heard, and its answer lost.
                first.join().expect("no panic").map(|told| eprintln!("{round}: {told:?}"))
            })?;
            eventually("the order, given again, is carried out", || done(&cluster, order, words))?;
            eventually("it is so", || are(&cluster, expected))?;
        }
        Ok(())
    })?;
    is_everywhere(&cluster, &keys)?;
    cluster.stop()
}

#[test]
fn a_cluster_whose_first_coordinators_are_all_gone_starts_again() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    cluster.put(cluster.gateway()?, "kept", "so")?;
    let program = Program::connect(&cluster)?;
    let machine = Machine::start(directory.path(), None)?;
    let add = add(&machine);
    eventually("the newcomer is let in", || done(&cluster, &add, "is a member"))?;
    for node in 1..=3 {
        let service = format!("coordinator-1@node-{node}");
        done(&cluster, &["members", "remove", &service], "is no member")?;
    }
    are(&cluster, &[4])?;
    refused(&cluster, &["members", "remove", NEWCOMER], "is the last coordinator")?;
    eventually("every foreman has kept it", || {
        for node in 1..=4 {
            let path = directory.path().join(format!("node-{node}/coordinators.json"));
            let kept: Value = serde_json::from_slice(&std::fs::read(path)?)?;
            let names = kept["coordinators"].as_array().context("not a list")?;
            ensure!(names.len() == 1 && names[0]["service"] == NEWCOMER, "{kept}");
        }
        Ok(())
    })?;
    let epoch = cluster.epoch()?;
    cluster.begin_recovery("nobody whom a program was told of knows the next director")?;
    let epoch = cluster.ready_above(epoch)?;
    program.reads("kept", "so")?;
    drop(program);
    cluster.kill_all()?;
    let address = machine.address.clone();
    drop(machine);

    // Those of the cluster file run, and found nothing: only the one that it does not name is a member.
    let _machine = Machine::start(directory.path(), Some(&address))?;
    let cluster = Cluster::start(directory.path())?;
    let epoch = cluster.ready_above(epoch)?;
    are(&cluster, &[4])?;
    ensure!(cluster.get(cluster.gateway()?, "kept")?.as_deref() == Some("so"));
    let status = cluster.status()?.coordinator.context("no coordinator answers")?;
    ensure!(status.bootstrap.source == "raft" && status.epoch.0 == epoch, "{status:?}");
    // And one of them is let in again, under another identity.
    let first: Value =
        serde_json::from_slice(&std::fs::read(directory.path().join("cluster.json"))?)?;
    let url = first["coordinators"][0]["url"].as_str().context("no url")?;
    let address = url.trim_start_matches("http://");
    let back = ["members", "add", "coordinator-1@node-1", address];
    eventually("it is let in again", || done(&cluster, &back, "is a member"))?;
    are(&cluster, &[1, 4])?;
    cluster.stop()
}

#[test]
fn all_coordinators_move_to_other_addresses_at_once() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    cluster.put(cluster.gateway()?, "kept", "so")?;
    let before = members(&cluster)?;
    cluster.kill_all()?;
    let path = directory.path().join("cluster.json");
    let mut file: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let port = free_port()? + 700;
    for (coordinator, port) in
        file["coordinators"].as_array_mut().context("none")?.iter_mut().zip(port..)
    {
        coordinator["url"] = format!("http://localhost:{port}").into();
    }
    std::fs::write(&path, serde_json::to_vec(&file)?)?;
    let cluster = Cluster::start(directory.path())?;
    ensure!(cluster.get(cluster.gateway()?, "kept")?.as_deref() == Some("so"));
    eventually("the configuration says so", || {
        let now = members(&cluster)?;
        ensure!(now.group == before.group, "{now:?}");
        for (member, port) in now.members.iter().zip(port..) {
            ensure!(member.address == format!("localhost:{port}"), "{now:?}");
        }
        are(&cluster, &[1, 2, 3])
    })?;
    eventually("it is in storage", || are_in_storage(&cluster, &[1, 2, 3]))?;
    cluster.stop()
}
