//! Durable before answered, seen from outside: a sync has returned between the receipt of a request
//! and its answer.

use std::path::Path;

use anyhow::{Context as _, ensure};
use plinth_test_processes::cluster::reference;
use plinth_test_processes::strace::{Exchange, Strace};
use plinth_test_processes::{Cluster, eventually, signal};
use rustix::process::Signal;

use crate::Outcome;

/// As many serial commits are watched.
const COMMITS: usize = 20;

fn check(who: &str, directory: &Path, exchanges: &[Exchange]) -> Outcome {
    // As the system names it, whatever links lead there.
    let directory = directory.canonicalize()?;
    for exchange in exchanges {
        let is_own = exchange.synced.iter().any(|path| path.starts_with(&directory));
        ensure!(is_own, "{who} answers without a sync of {}: {exchange:#?}", directory.display());
    }
    Ok(())
}

#[test]
fn logs_sync_every_push_and_every_lock_before_they_answer() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let logs = cluster.of_kind("log")?;
    ensure!(logs.len() == 3, "{logs:?}");
    let tracers = logs.iter().map(|log| Strace::attach(log.os_pid));
    let tracers = tracers.collect::<anyhow::Result<Vec<_>>>()?;
    for number in 0..COMMITS {
        cluster.put(cluster.gateway()?, &format!("key-{number}"), "durable")?;
    }
    let epoch = cluster.epoch()?;
    cluster.begin_recovery("the logs' locks are watched")?;
    let later = cluster.ready_above(epoch)?;
    for (log, tracer) in logs.iter().zip(tracers) {
        let who = reference(log);
        let record = tracer.finish()?;
        let own = directory.path().join(log.node.as_str()).join(&log.service);
        let pushes = record.exchanges("POST /v1/entries");
        ensure!(pushes.len() >= COMMITS, "{who} was seen to take {} pushes", pushes.len());
        check(&who, &own, &pushes)?;
        let locks = record.exchanges("POST /v1/locks");
        let granted: Vec<Exchange> =
            locks.into_iter().filter(|lock| lock.answer.contains("HTTP/1.1 200")).collect();
        ensure!(!granted.is_empty(), "{who} was not seen to be locked for epoch {later}");
        check(&who, &own, &granted)?;
    }
    for number in 0..COMMITS {
        let value = cluster.get(cluster.gateway()?, &format!("key-{number}"))?;
        ensure!(value.as_deref() == Some("durable"), "key-{number}: {value:?}");
    }
    cluster.stop()
}

#[test]
fn coordinators_sync_every_vote_before_they_give_it() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let coordinators = cluster.of_kind("coordinator")?;
    let leader = coordinators.iter().find(|row| row.role == "leader").context("no leader")?;
    let others: Vec<_> = coordinators.iter().filter(|row| row.os_pid != leader.os_pid).collect();
    ensure!(others.len() == 2, "{coordinators:?}");
    let tracers = others.iter().map(|other| Strace::attach(other.os_pid));
    let tracers = tracers.collect::<anyhow::Result<Vec<_>>>()?;
    // Frozen and not killed: one that is started again at once goes on leading without a vote.
    signal(leader.os_pid, Signal::STOP)?;
    let elected = eventually("another leader", || {
        let status = cluster.status()?;
        let now = status.coordinator.and_then(|coordinator| coordinator.leader);
        let now = now.context("no leader")?.to_string();
        ensure!(now != reference(leader), "still {now}");
        Ok(())
    });
    signal(leader.os_pid, Signal::CONT)?;
    elected?;
    let mut given = 0;
    for (other, tracer) in others.iter().zip(tracers) {
        let record = tracer.finish()?;
        let own = directory.path().join(other.node.as_str()).join(&other.service).canonicalize()?;
        for vote in record.exchanges("POST /v1/raft/vote") {
            if !vote.answer.contains(r#"\"vote_granted\":true"#) {
                continue;
            }
            given += 1;
            // The vote itself is looked for on the disk: a candidate that has lost has heard of the
            // other one, and kept its vote for it, before it is asked.
            let voted =
                vote.answer.split_once("leader_id").and_then(|(_, rest)| rest.split_once('}'));
            let (voted, _) = voted.context("a vote for nobody")?;
            let durable = record.durable_before(&vote, voted);
            ensure!(
                durable.iter().any(|path| path.starts_with(&own)),
                "{} votes before it has kept that in {}: {vote:#?}",
                reference(other),
                own.display()
            );
        }
    }
    ensure!(given > 0, "no vote was seen");
    cluster.stop()
}
