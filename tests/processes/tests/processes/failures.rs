//! One process after the other is killed.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use plinth_api::coordinator::Recoveries;
use plinth_api::director::LiveLayout;
use plinth_api::{ErrorCode, Problem};
use plinth_test_processes::cluster::{Cluster, free_port, is_of_kind, reference};
use plinth_test_processes::{eventually, executable, signal};
use rustix::process::Signal;

use crate::Outcome;

/// What an epoch can't do without: its end is the epoch's, and the next one is ready with the data.
#[test]
fn each_monitored_component_killed_ends_the_epoch_and_loses_nothing() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let mut epoch = cluster.epoch()?;
    let stores = cluster.stores()?;
    for kind in ["sequencer", "commit-proxy", "resolver", "log", "director"] {
        let value = format!("before the {kind} is killed");
        cluster.put(cluster.gateway()?, kind, &value)?;
        // One that serves the epoch, not one that an earlier epoch has left standing by.
        let layout: LiveLayout = cluster.get_json("/v1/layout")?;
        let mut serving = layout.directory.into_iter();
        let victim = serving.find(|placed| placed.service.kind().as_str() == kind);
        let victim = victim.with_context(|| format!("no {kind} serves"))?;
        let who = victim.service.to_string();
        cluster.kill(victim.pid.os_pid)?;
        epoch = cluster.ready_above(epoch).with_context(|| format!("{kind} killed"))?;
        ensure!(cluster.get(cluster.gateway()?, kind)?.as_deref() == Some(value.as_str()));
        let recoveries: Recoveries = cluster.get_json("/v1/recoveries")?;
        let cause = |cause: &str| cause.contains(&who);
        ensure!(
            recoveries.recoveries.iter().any(|recovery| cause(&recovery.cause)),
            "no recovery names {who}: {recoveries:?}"
        );
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
