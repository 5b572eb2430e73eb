//! One process after the other is killed.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use plinth_api::coordinator::Recoveries;
use plinth_api::director::{LiveLayout, Placed};
use plinth_api::{ErrorCode, Problem};
use plinth_test_processes::cluster::{Cluster, free_port, is_of_kind, reference};
use plinth_test_processes::{eventually, executable, signal};
use plinth_types::ServiceRef;
use rustix::process::Signal;

use crate::Outcome;

/// What an epoch can't do without.
const MONITORED: [&str; 5] = ["sequencer", "commit-proxy", "resolver", "log", "director"];

/// A process of a kind that serves the epoch, not one that an earlier epoch has left standing by.
fn serving(cluster: &Cluster, kind: &str) -> anyhow::Result<Placed> {
    let layout: LiveLayout = cluster.get_json("/v1/layout")?;
    let mut serving = layout.directory.into_iter();
    let found = serving.find(|placed| placed.service.kind().as_str() == kind);
    found.with_context(|| format!("no {kind} serves"))
}

/// The same of an epoch whose layout is recorded, if not yet ready.
fn serving_of(cluster: &Cluster, kind: &str, epoch: u64) -> anyhow::Result<Placed> {
    eventually("the epoch's layout", || {
        let layout: LiveLayout = cluster.get_json("/v1/layout")?;
        ensure!(layout.recorded.config.epoch.0 == epoch, "{:?}", layout.recorded.stamp());
        serving(cluster, kind)
    })
}

/// Whether a recovery names who has caused it.
fn caused_by(cluster: &Cluster, who: &ServiceRef) -> Outcome {
    let recoveries: Recoveries = cluster.get_json("/v1/recoveries")?;
    let names = |cause: &str| cause.contains(&who.to_string());
    let is_named = recoveries.recoveries.iter().any(|recovery| names(&recovery.cause));
    ensure!(is_named, "no recovery names {who}: {recoveries:?}");
    Ok(())
}

/// What an epoch can't do without: its end is the epoch's, and the next one is ready with the data.
#[test]
fn each_monitored_component_killed_ends_the_epoch_and_loses_nothing() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let mut epoch = cluster.epoch()?;
    let stores = cluster.stores()?;
    for kind in MONITORED {
        let value = format!("before the {kind} is killed");
        cluster.put(cluster.gateway()?, kind, &value)?;
        let victim = serving(&cluster, kind)?;
        let who = victim.service.to_string();
        cluster.kill(victim.pid.os_pid)?;
        epoch = cluster.ready_above(epoch).with_context(|| format!("{kind} killed"))?;
        ensure!(cluster.get(cluster.gateway()?, kind)?.as_deref() == Some(value.as_str()));
        caused_by(&cluster, &victim.service)?;
        // Whoever was killed is started again, for this or a later epoch.
        eventually("the process is back", || {
            let now = cluster.process(|row| reference(row) == who)?;
            ensure!(now.os_pid != victim.pid.os_pid);
            Ok(())
        })
        .with_context(|| format!("{who} does not come back"))?;
    }
    ensure!(stores.is_subset(&cluster.stores()?) || cluster.stores()?.len() == stores.len());
    cluster.stop()
}

/// On a single node nobody follows a director whose epoch is ended while it lives, or while it is
/// frozen: it has to make way for another life of its own.
#[test]
fn a_lone_director_makes_way() -> Outcome {
    let directory = tempfile::tempdir()?;
    let mut up = Command::new(executable()?);
    up.args(["up", "--nodes", "1", "--json", "--gateway-port", &free_port()?.to_string()]);
    up.arg("--data-dir").arg(directory.path());
    up.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let cluster = Cluster::run(up, directory.path())?;
    cluster.put(cluster.gateway()?, "kept", "through all of it")?;
    let mut epoch = cluster.epoch()?;
    for round in 0..5 {
        cluster.begin_recovery(&format!("drill {round}"))?;
        epoch = cluster.ready_above(epoch).with_context(|| format!("drill {round}"))?;
    }
    let director = cluster.process(|row| is_of_kind(row, "director"))?;
    signal(director.os_pid, Signal::STOP)?;
    let noticed = eventually("its silence is noticed", || {
        ensure!(!cluster.status()?.ready);
        Ok(())
    });
    signal(director.os_pid, Signal::CONT)?;
    noticed?;
    cluster.ready_above(epoch).context("frozen and back")?;
    let kept = cluster.get(cluster.gateway()?, "kept")?;
    ensure!(kept.as_deref() == Some("through all of it"), "{kept:?}");
    cluster.stop()
}

/// A process that takes connections and never answers is as good as dead, and is found out by silence.
#[test]
fn each_monitored_component_frozen_ends_the_epoch_and_loses_nothing() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let mut epoch = cluster.epoch()?;
    for kind in MONITORED {
        let value = format!("before the {kind} is frozen");
        cluster.put(cluster.gateway()?, kind, &value)?;
        let victim = serving(&cluster, kind)?;
        signal(victim.pid.os_pid, Signal::STOP)?;
        let outcome = (|| {
            epoch = cluster.ready_above(epoch)?;
            let read = eventually("a read", || cluster.get(cluster.gateway()?, kind))?;
            ensure!(read.as_deref() == Some(value.as_str()), "{read:?}");
            cluster.put(cluster.gateway()?, kind, "after")?;
            caused_by(&cluster, &victim.service)
        })();
        // Whatever came of it: nothing stays frozen.
        signal(victim.pid.os_pid, Signal::CONT)?;
        outcome.with_context(|| format!("{kind} frozen"))?;
    }
    cluster.stop()
}

/// Whichever part of the pipeline fails before the system transaction is through: the director exits
/// and says at which step and who, and the next epoch becomes ready with the data. The storages are
/// frozen meanwhile, so that the transaction waits for them and is under way for as long as it takes.
#[test]
fn the_system_transaction_fails_at_each_of_its_steps_in_turn() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    cluster.put(cluster.gateway()?, "kept", "value")?;
    for kind in MONITORED {
        let before = cluster.epoch()?;
        let storages = cluster.of_kind("storage")?;
        let frozen = storages.get(..2).context("too few storages")?;
        for storage in frozen {
            signal(storage.os_pid, Signal::STOP)?;
        }
        let outcome = (|| {
            cluster.begin_recovery("the storages are frozen")?;
            let failing = eventually("a system transaction that waits", || {
                let director = cluster.status()?.director.context("no director")?;
                let waits = director.phase == "system_transaction" && director.stalled.is_some();
                ensure!(director.epoch.0 > before && waits, "{director:?}");
                Ok(director.epoch.0)
            })?;
            let victim = if kind == "director" {
                let active = cluster.process(|row| row.role == "active")?;
                cluster.kill(active.os_pid)?;
                reference(&active)
            } else {
                let victim = serving_of(&cluster, kind, failing)?;
                cluster.kill(victim.pid.os_pid)?;
                victim.service.to_string()
            };
            anyhow::Ok((failing, victim))
        })();
        for storage in frozen {
            signal(storage.os_pid, Signal::CONT)?;
        }
        let (failing, victim) = outcome.with_context(|| format!("{kind} killed"))?;
        cluster.ready_above(failing)?;
        let recoveries: Recoveries = cluster.get_json("/v1/recoveries")?;
        let of_failing = recoveries.recoveries.iter().any(|it| it.epoch.0 == failing);
        ensure!(!of_failing, "epoch {failing} has become ready: {recoveries:#?}");
        let told = recoveries.recoveries.iter().any(|recovery| {
            let cause = &recovery.cause;
            let is_step = kind == "director" || cause.contains("system_transaction");
            recovery.epoch.0 > failing && cause.contains(&victim) && is_step
        });
        ensure!(told, "no recovery names {victim} and the step: {recoveries:#?}");
        let kept = eventually("a read", || cluster.get(cluster.gateway()?, "kept"))?;
        ensure!(kept.as_deref() == Some("value"), "{kept:?}");
    }
    cluster.stop()
}

/// What an epoch goes on without.
#[test]
fn other_processes_are_started_again_within_the_epoch() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let epoch = cluster.epoch()?;
    let before = cluster.processes()?;
    let find = |kind: &str, role: Option<&str>| {
        let is_it = |row: &&plinth_api::coordinator::ProcessRow| {
            is_of_kind(row, kind) && role.is_none_or(|role| row.role == role)
        };
        before.iter().find(is_it).cloned().with_context(|| format!("no {kind} in {before:?}"))
    };
    for (kind, role) in [
        ("storage", None),
        ("gateway", None),
        ("director", Some("standby")),
        ("coordinator", Some("follower")),
        ("coordinator", Some("leader")),
        ("foreman", None),
    ] {
        let victim = find(kind, role)?;
        let value = format!("before a {kind} is killed");
        eventually("a write", || cluster.put(cluster.gateway()?, kind, &value))?;
        cluster.kill(victim.os_pid)?;
        eventually("the process is back", || {
            let who = reference(&victim);
            let now = cluster.process(|row| reference(row) == who)?;
            ensure!(now.os_pid != victim.os_pid, "{who} is not");
            Ok(())
        })?;
        for gateway in &cluster.ready.gateways {
            let read = eventually("a read", || cluster.get(gateway, kind))?;
            ensure!(read.as_deref() == Some(value.as_str()), "{kind}: {read:?} at {gateway}");
        }
        let status = cluster.status()?;
        ensure!(status.epoch.0 == epoch, "{kind} killed: epoch {} began", status.epoch);
    }
    // The workers of the foreman that was killed have lived on.
    let foreman = find("foreman", None)?;
    let others = before.iter().filter(|row| row.node == foreman.node && is_of_kind(row, "log"));
    for log in others {
        let again = || cluster.process(|row| reference(row) == reference(log));
        let now = eventually("the log announces itself again", again)?;
        ensure!(now.os_pid == log.os_pid, "{now:?} was {log:?}");
    }
    cluster.stop()
}

/// Clients that write all the while see nothing but writes whose fate can't be known, and few of
/// them: one may have been under way when the logs were locked, and the next one may have met the
/// commit proxy's connection as it closed. Everything else is tried again inside.
#[test]
fn clients_hardly_notice_that_the_director_is_killed() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let epoch = cluster.epoch()?;
    let active = cluster.process(|row| row.role == "active")?;
    let done = AtomicBool::new(false);
    let write = |gateway: &str, writer: usize| -> anyhow::Result<(Vec<u32>, Vec<Problem>)> {
        let (mut acknowledged, mut problems) = (Vec::new(), Vec::new());
        for number in 0.. {
            if done.load(Ordering::Relaxed) {
                break;
            }
            let url = format!("{gateway}/v1/keys/{writer}-{number}");
            let answer = cluster.http().put(url).body("written").send()?;
            if answer.status().is_success() {
                acknowledged.push(number);
            } else {
                problems.push(answer.json()?);
            }
        }
        Ok((acknowledged, problems))
    };
    let outcomes = std::thread::scope(|scope| {
        let gateways = cluster.ready.gateways.iter().enumerate();
        let writers: Vec<_> =
            gateways.map(|(writer, gateway)| scope.spawn(move || write(gateway, writer))).collect();
        let killed = eventually("writes", || {
            let written = cluster.get(cluster.gateway()?, "0-20")?;
            written.map(drop).context("not written yet")
        })
        .and_then(|()| cluster.kill(active.os_pid))
        .and_then(|()| cluster.ready_above(epoch));
        done.store(true, Ordering::Relaxed);
        let ends = writers.into_iter().map(|writer| writer.join().expect("no panic"));
        let ends: anyhow::Result<Vec<_>> = ends.collect();
        killed.and(ends)
    })?;
    for (writer, (acknowledged, problems)) in outcomes.iter().enumerate() {
        eprintln!("writer {writer}: {} acknowledged, {problems:?}", acknowledged.len());
        ensure!(
            problems.len() <= 2
                && problems.iter().all(|problem| problem.code == ErrorCode::CommitUnknownResult),
            "writer {writer}: {problems:#?}"
        );
        for number in acknowledged {
            let value = cluster.get(cluster.gateway()?, &format!("{writer}-{number}"))?;
            ensure!(value.is_some(), "{writer}-{number} was acknowledged and is not there");
        }
    }
    cluster.stop()
}
