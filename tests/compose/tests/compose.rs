//! The cluster of `compose.yaml` on the local Docker engine: `make test-compose`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use plinth_api::coordinator::{ProcessRow, Recoveries};
use plinth_api::director::LiveLayout;
use plinth_api::gateway::ClusterStatus;
use plinth_test_compose::docker::{Container, docker, run};
use plinth_test_compose::stack::{PROJECT, Stack, network};
use plinth_test_compose::{eventually, image, readme, repository, trace};
use plinth_test_histories::Journal;
use plinth_test_processes::users::while_they_work;
use plinth_types::ServiceKind;
use serde_json::Value;

/// What must be acknowledged before each cut, and during it.
const COMMITS: usize = 50;

type Outcome = anyhow::Result<()>;
type Step = fn(&Stack) -> Outcome;

/// One cluster, step after step: each begins with what the one before it left.
const STEPS: [(&str, Step); 8] = [
    ("every container comes up healthy", every_container_comes_up_healthy),
    ("containers are confined", containers_are_confined),
    ("the README's commands", the_readmes_commands),
    ("a recovery is one trace across the containers", a_recovery_is_one_trace),
    ("the active director's container is killed", the_active_director_is_killed),
    ("the sequencer's process is killed", the_sequencer_is_killed),
    ("down and up again", down_and_up_again),
    // The last: the logs of a cut-off node are replaced, and with it back they may change again.
    ("cuts around each node, and around director and leader together", cuts_in_turn),
];

#[test]
#[ignore = "needs a Docker engine: make test-compose"]
fn the_cluster_in_containers() -> Outcome {
    let stack = Stack::new()?;
    let base = image::build(Path::new(env!("CARGO_BIN_EXE_otlp-recorder")))?;
    let megabytes = image::size()? / 1_000_000;
    println!("{}; image of {megabytes} MB on {base}", stack.compose_name());
    for (what, step) in STEPS {
        #[expect(clippy::disallowed_methods, reason = "a test outside of the cluster's world")]
        let began = Instant::now();
        if let Err(error) = step(&stack) {
            println!("{}", stack.report());
            return Err(error.context(what));
        }
        println!("{what}: {:.1} s", began.elapsed().as_secs_f64());
    }
    stack.finish()?;
    println!("not run: the Dockerfile's stages `build` and `final`, whose base is on a registry");
    println!("not run: Jaeger's image and its health check; a receiver of the test's stood in");
    Ok(())
}

fn every_container_comes_up_healthy(stack: &Stack) -> Outcome {
    stack.up()?;
    let status = stack.ready_above(0)?;
    let bootstrap = status.coordinator.context("no coordinator answers")?.bootstrap;
    ensure!(bootstrap.source == "default", "{}", bootstrap.source);
    Ok(())
}

/// The node of a service in `compose.yaml`, by the number of the node that its name ends with.
fn node(service: &str) -> String {
    let number = service.rsplit_once('-').map_or("3", |(_, number)| number);
    format!("node-{number}")
}

fn is_of_cluster(service: &str) -> bool {
    !matches!(service, "secret" | "jaeger")
}

fn containers_are_confined(stack: &Stack) -> Outcome {
    let containers = stack.containers()?;
    let count = |kind: &str| containers.keys().filter(|name| name.starts_with(kind)).count();
    let kinds = ["coordinator-", "foreman-", "storage-", "director-", "gateway"];
    ensure!(kinds.map(count) == [3, 3, 3, 2, 3], "{:?}", containers.keys());
    for (service, container) in &containers {
        let published = container.network_settings.ports.values().flatten().flatten();
        let hosts: BTreeSet<&str> = published.map(|port| port.host_ip.as_str()).collect();
        ensure!(hosts.iter().all(|host| *host == "127.0.0.1"), "{service} lets in {hosts:?}");
        if !is_of_cluster(service) {
            continue;
        }
        ensure!(container.config.user == "10001:10001", "{service}: {}", container.config.user);
        let networks: BTreeSet<String> =
            container.network_settings.networks.keys().cloned().collect();
        let expected = [format!("{PROJECT}_backbone"), format!("{PROJECT}_{}", node(service))];
        ensure!(networks == expected.into(), "{service} is on {networks:?}");
    }
    // Who owns what is on the volumes, and may read the secrets.
    for (service, path, expected) in [
        ("storage-1", "/data/storage", "10001:10001"),
        ("foreman-2", "/data/foreman", "10001:10001"),
        ("coordinator-3", "/data/coordinator", "10001:10001"),
        ("gateway", "/cluster/secret", "10001:10001 600"),
        ("gateway", "/cluster/admin-token", "10001:10001 600"),
    ] {
        let id = stack.container(service)?.id;
        let owner = docker(["exec", &id, "stat", "--format=%u:%g %a", path])?;
        ensure!(owner.starts_with(expected), "{path} of {service} is {owner}");
    }
    // What announces itself from a container of its own is not made by the foremen.
    eventually("every process is listed", || {
        let processes = stack.processes()?;
        let of = |row: &ProcessRow, kind: &str| row.service.starts_with(kind);
        let rows = |kind: &str| processes.iter().filter(|row| of(row, kind)).count();
        let counts = ["storage-", "director-", "log-"].map(rows);
        ensure!(counts == [3, 2, 3], "{processes:?}");
        for row in &processes {
            let host = row.url.trim_start_matches("http://").split(':').next().unwrap_or_default();
            ensure!(host == container_of(row), "{row:?} is not reached by its container's name");
        }
        Ok(())
    })
}

/// The container in which a process runs.
fn container_of(row: &ProcessRow) -> String {
    container_of_instance(&row.service, row.node.as_str())
}

fn container_of_instance(service: &str, node: &str) -> String {
    let kind = service.rsplit_once('-').map_or(service, |(kind, _)| kind);
    let number = node.trim_start_matches("node-");
    match kind {
        "gateway" if number == "3" => "gateway".to_owned(),
        "gateway" | "coordinator" | "storage" | "director" => format!("{kind}-{number}"),
        _ => format!("foreman-{number}"),
    }
}

/// Every curl of the README's section as it stands there, but for the port.
fn the_readmes_commands(stack: &Stack) -> Outcome {
    let text = std::fs::read_to_string(repository()?.join("README.md"))?;
    let commands = readme::commands(&text)?;
    let gateway = stack.published("gateway", 7000)?;
    stack.ready_above(0)?;
    let mut answers = Vec::new();
    for command in commands.iter().filter(|command| command.starts_with("curl ")) {
        let asked = command.replace("localhost:4000", &gateway);
        ensure!(asked != *command, "not of the gateway: {command}");
        let asked = asked.replacen("curl ", "curl --fail --silent --show-error ", 1);
        let answer = run(Command::new("sh").args(["-c", &asked]))?;
        answers.push((command.as_str(), answer));
    }
    let answer = |end: &str| {
        let found = answers.iter().find(|(command, _)| command.ends_with(end));
        found.map(|(_, answer)| answer).with_context(|| format!("the README has no curl {end}"))
    };
    let json = |end: &str| Ok::<Value, anyhow::Error>(serde_json::from_str(answer(end)?)?);
    ensure!(json("localhost:4000/v1/status")?["ready"] == true);
    ensure!(answer("localhost:4000/v1/keys/hello -d world").is_ok());
    ensure!(answer("curl localhost:4000/v1/keys/hello")? == "world");
    ensure!(json("/v1/config")?.to_string().contains("\"storage_teams\""));
    let layout: LiveLayout = serde_json::from_value(json("/v1/layout")?)?;
    ensure!(layout.recorded.config.layout.logs.len() == 3);
    let recoveries: Recoveries = serde_json::from_value(json("/v1/recoveries")?)?;
    ensure!(!recoveries.recoveries.is_empty());
    Ok(())
}

fn a_recovery_is_one_trace(stack: &Stack) -> Outcome {
    let expected: BTreeSet<String> =
        ["director", "sequencer", "commit-proxy", "resolver", "log", "storage", "coordinator"]
            .map(str::to_owned)
            .into();
    let (epoch, found) = eventually("the whole trace has arrived", || {
        let epoch = stack.get::<ClusterStatus>("/v1/status")?.epoch;
        let recoveries: Recoveries = stack.get("/v1/recoveries")?;
        let recovery = recoveries.recoveries.iter().find(|recovery| recovery.epoch == epoch);
        let recovery = recovery.with_context(|| format!("no recovery of epoch {epoch}"))?;
        let id = recovery.trace_id.as_ref().context("the recovery names no trace")?;
        let found = trace::recorded(&stack.get_bytes("jaeger", 16_686, "/exports")?, id)?;
        found.root()?;
        found.check_calls()?;
        let instances = found.instances();
        let of = |kind: &str| {
            instances.iter().filter(|instance| instance.starts_with(&format!("{kind}-"))).count()
        };
        let missing: Vec<&String> = expected.iter().filter(|kind| of(kind) == 0).collect();
        ensure!(missing.is_empty(), "no spans of {missing:?}");
        ensure!(of("log") == 3 && of("storage") == 3, "{instances:?}");
        Ok((epoch, found))
    })?;
    let root = found.root()?;
    ensure!(root.name == "recovery" && root.instance.starts_with("coordinator-"), "{root:?}");
    let containers: BTreeSet<String> = found
        .instances()
        .into_iter()
        .filter_map(|instance| instance.split_once('@'))
        .map(|(service, node)| container_of_instance(service, node))
        .collect();
    // Every foreman's has a log; and the leader's, the director's, the storages'.
    ensure!(containers.len() >= 8, "{containers:?}");
    println!("  epoch {epoch}: {} spans of {} containers", found.spans().count(), containers.len());
    Ok(())
}

fn with_role(stack: &Stack, kind: &str, role: &str) -> anyhow::Result<ProcessRow> {
    eventually(&format!("a {kind} is {role}"), || {
        let mut rows = stack.processes()?;
        rows.retain(|row| row.service.starts_with(kind) && row.role == role);
        rows.pop().with_context(|| format!("no {kind} is {role}"))
    })
}

fn the_active_director_is_killed(stack: &Stack) -> Outcome {
    let before = stack.get::<ClusterStatus>("/v1/status")?.epoch.0;
    let active = container_of(&with_role(stack, "director-", "active")?);
    let id = stack.container(&active)?.id;
    docker(["kill", &id])?;
    let status = stack.ready_above(before)?;
    serves(stack, &[("hello", "world")])?;
    written(stack, "after-director", "written")?;
    println!("  epoch {before} → {}", status.epoch);
    let successor = container_of(&with_role(stack, "director-", "active")?);
    ensure!(successor != active, "{active} was dead and directs");
    // Docker takes a kill for a wish: nothing but a person starts the container again.
    docker(["start", &id])?;
    stack.wait_until_well()?;
    eventually("the director stands by again", || {
        let standby = container_of(&with_role(stack, "director-", "standby")?);
        ensure!(standby == active, "{standby} stands by");
        Ok(())
    })
}

/// An epoch that ends by itself: its director exits, and its container is started again.
fn the_sequencer_is_killed(stack: &Stack) -> Outcome {
    let before = stack.get::<ClusterStatus>("/v1/status")?.epoch.0;
    let active = container_of(&with_role(stack, "director-", "active")?);
    let restarts = stack.container(&active)?.restart_count;
    eventually("the sequencer is found and killed", || {
        let layout: LiveLayout = stack.get("/v1/layout")?;
        let mut serving = layout.directory.iter();
        let sequencer = serving.find(|placed| placed.service.kind() == ServiceKind::Sequencer);
        let sequencer = sequencer.context("no sequencer serves")?;
        let name = sequencer.service.name.to_string();
        let container = container_of_instance(&name, sequencer.service.node.as_str());
        let id = stack.container(&container)?.id;
        docker(["exec", &id, "sh", "-c", &format!("kill -9 {}", sequencer.pid.os_pid)])
    })?;
    stack.ready_above(before)?;
    serves(stack, &[("hello", "world")])?;
    eventually("the director's container is started again", || {
        let now = stack.container(&active)?;
        ensure!(now.restart_count > restarts && now.is_well(), "{}", now.describe());
        Ok(())
    })
}

/// Each node is cut off in turn, with its gateway; then the director and the coordinators' leader are, alone
/// and each by itself, from their own nodes too. Users work on both sides all the while. What they see
/// is judged at the end: no acknowledged write is lost, and no read is stale on either side.
fn cuts_in_turn(stack: &Stack) -> Outcome {
    let gateways = stack.gateways()?;
    while_they_work(gateways.values().cloned().collect(), |journal| {
        for cut in gateways.keys() {
            let mut others = gateways.iter().filter(|(other, _)| *other != cut);
            let (_, elsewhere) = others.next().context("no other")?;
            let all = stack.containers()?.into_values();
            let theirs = all.filter(|one| is_of_cluster(one.service()));
            let theirs: Vec<Container> = theirs.filter(|one| node(one.service()) == *cut).collect();
            ensure!(theirs.len() >= 4, "{cut} has {} containers", theirs.len());
            cut_off(stack, journal, &[(theirs, "backbone")], elsewhere)
                .with_context(|| format!("{cut} is cut off"))?;
        }
        let director = with_role(stack, "director-", "active")?;
        let leader = with_role(stack, "coordinator-", "leader")?;
        let mut cuts = Vec::new();
        for row in [&director, &leader] {
            let container = stack.container(&container_of(row))?;
            cuts.push((vec![container.clone()], row.node.as_str()));
            cuts.push((vec![container], "backbone"));
        }
        let gateway = gateways.get("node-3").context("no gateway")?;
        cut_off(stack, journal, &cuts, gateway).context("director and leader are cut off")?;
        let successor = with_role(stack, "coordinator-", "leader")?;
        ensure!(
            successor.service != leader.service || successor.node != leader.node,
            "it leads on"
        );
        Ok(())
    })
}

/// Containers are cut off networks until an epoch is ready without them, by what a gateway elsewhere tells,
/// and users have got something done in it; then all is mended.
fn cut_off(
    stack: &Stack,
    journal: &Journal,
    cuts: &[(Vec<Container>, &str)],
    gateway: &str,
) -> Outcome {
    let work = || {
        let before = journal.acknowledged();
        eventually("users get something done", || {
            let acknowledged = journal.acknowledged();
            ensure!(acknowledged >= before + COMMITS, "{acknowledged} after {before}");
            Ok(())
        })
    };
    work()?;
    let before = stack.ready_at(gateway, 0)?.epoch;
    for (containers, name) in cuts {
        stack.cut(containers, &network(name))?;
    }
    let after = stack.ready_at(gateway, before.0)?.epoch;
    work()?;
    for (containers, name) in cuts {
        stack.mend(containers, &network(name))?;
    }
    stack.wait_until_well()?;
    for url in stack.gateways()?.values() {
        stack.ready_at(url, before.0)?;
    }
    println!("  epoch {before} → {after}");
    Ok(())
}

/// Writes a key and reads it back. What was not acknowledged is written again.
fn written(stack: &Stack, key: &str, value: &str) -> Outcome {
    eventually("a write is acknowledged", || stack.put(key, value))?;
    serves(stack, &[(key, value)])
}

/// What was acknowledged is there. A value that is another one is not waited for to change.
fn serves(stack: &Stack, pairs: &[(&str, &str)]) -> Outcome {
    for (key, expected) in pairs {
        let value = eventually("a read is answered", || stack.value(key))?;
        ensure!(value == *expected, "{key} is {value:?}");
    }
    Ok(())
}

/// The logs or storages of the layout, by their directories.
fn durable(stack: &Stack, kind: ServiceKind) -> anyhow::Result<BTreeSet<String>> {
    let layout: LiveLayout = stack.get("/v1/layout")?;
    let durable = layout.recorded.config.layout.durable();
    let durable = durable.filter(|(_, _, service)| service.kind() == kind);
    Ok(durable.map(|(_, store, service)| format!("{service} {store}")).collect())
}

fn down_and_up_again(stack: &Stack) -> Outcome {
    let before: ClusterStatus = stack.ready_above(0)?;
    let [logs, storages] = durables(stack)?;
    ensure!(logs.len() == 3 && storages.len() == 3, "{logs:?}, {storages:?}");
    stack.compose(&["down", "--timeout=10"])?;
    ensure!(stack.containers()?.is_empty(), "containers are left");
    stack.up()?;
    let after = stack.ready_above(before.epoch.0)?;
    let source = after.coordinator.context("no coordinator answers")?.bootstrap.source;
    ensure!(source == "raft", "bootstrapped from {source}");
    let [logs_now, storages_now] = durables(stack)?;
    ensure!(storages_now == storages, "{storages_now:?} and not {storages:?}");
    // A node whose containers the engine starts seconds after the others' may find that another log
    // was made in its log's place: there is a grace for that, and no more.
    let kept = logs_now.intersection(&logs).count();
    ensure!(kept >= 2, "{logs_now:?} and not {logs:?}");
    println!("  {kept} of 3 logs and 3 of 3 storages resumed");
    serves(stack, &[("hello", "world"), ("after-director", "written")])
}

fn durables(stack: &Stack) -> anyhow::Result<[BTreeSet<String>; 2]> {
    Ok([durable(stack, ServiceKind::Log)?, durable(stack, ServiceKind::Storage)?])
}
