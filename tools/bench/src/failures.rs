//! One process killed at a time, and the longest gap in acknowledged commits.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use plinth_api::coordinator::ProcessRow;
use plinth_load::{Driving, Load, Mix, Operation, Pace, Protocol};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::etcd::Etcd;
use crate::plinth::Plinth;
use crate::table::{Table, median_and_worst};
use crate::{Bench, processes};

/// Commits a second.
const RATE: f64 = 50.0;
/// Commits after which a failure is taken to be over, when everything is also back in its place.
const STEADY: u64 = 100;
/// How long it may take until then.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Which process of Plinth's is killed: a name for people, the kind of service, its role.
const VICTIMS: [(&str, &str, &str); 10] = [
    ("director, active", "director", "active"),
    ("coordinator, leader", "coordinator", "leader"),
    ("coordinator, follower", "coordinator", "follower"),
    ("sequencer", "sequencer", "serving"),
    ("commit proxy", "commit-proxy", "serving"),
    ("resolver", "resolver", "serving"),
    ("log", "log", "serving"),
    ("storage", "storage", "serving"),
    ("foreman", "foreman", "serving"),
    ("gateway, not the client's", "gateway", "serving"),
];

/// The gaps of one kind of victim.
struct Gaps {
    victim: String,
    ms: Vec<f64>,
    /// Commits that were not acknowledged, by code.
    failed: BTreeMap<String, u64>,
}

impl Gaps {
    fn new(victim: String) -> Gaps {
        Gaps { victim, ms: Vec::new(), failed: BTreeMap::new() }
    }

    /// Adds what was seen since the last reset.
    fn add(&mut self, driving: &mut Driving) {
        let report = driving.report();
        self.ms.push(report.longest_gap_ms);
        for (code, count) in report.errors() {
            *self.failed.entry(code).or_default() += count;
        }
    }
}

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<()> {
    let mut all = Vec::new();
    if let Some(etcd) = &bench.etcd {
        all.extend(etcd_gaps(bench, etcd).await.context("etcd")?);
    }
    all.extend(plinth_gaps(bench).await.context("plinth")?);
    let mut table = Table::new(["kill -9 of", "median ms", "worst ms", "n", "failed commits"]);
    for Gaps { victim, ms, failed } in all {
        let Some((median, worst)) = median_and_worst(&ms) else { continue };
        let n = ms.len().to_string();
        let failed: Vec<String> =
            failed.iter().map(|(code, count)| format!("{count} {code}")).collect();
        let failed = if failed.is_empty() { "none".to_owned() } else { failed.join(", ") };
        table.row([victim, format!("{median:.0}"), format!("{worst:.0}"), n, failed]);
    }
    println!(
        "## Failures\n\n{table}\nThe longest time without an acknowledged commit, at {RATE} commits \
         a second in an open loop, for a plain client of one surviving gateway (etcd: a surviving \
         follower). Without a failure it is the {:.0} ms between two commits.\n",
        1e3 / RATE
    );
    Ok(())
}

fn begin(bench: &Bench, protocol: Protocol, url: &str) -> anyhow::Result<Driving> {
    let load = Load {
        // More than are due during any outage, so that none waits for a connection.
        connections: 512,
        pace: Pace::Open(RATE),
        keys: 1_000,
        ..Load::new(protocol, vec![url.to_owned()], Mix::only(Operation::Put))
    };
    Ok(plinth_load::start(&bench.world, load)?)
}

/// Waits for this many commits from now on.
async fn commits(driving: &Driving, count: u64) -> anyhow::Result<()> {
    let goal = driving.succeeded() + count;
    let deadline = Instant::now() + PATIENCE;
    while driving.succeeded() < goal {
        if Instant::now() >= deadline {
            bail!("no {count} commits within {} s", PATIENCE.as_secs());
        }
        sleep(LOOK).await;
    }
    Ok(())
}

async fn plinth_gaps(bench: &Bench) -> anyhow::Result<Vec<Gaps>> {
    let directory = bench.fresh("failures-plinth")?;
    let mut plinth = Plinth::start(&bench.world, &bench.plinth, &directory)?;
    plinth.settled().await?;
    let client_gateway = plinth.urls().first().cloned().context("no gateway")?;
    let mut driving = begin(bench, Protocol::Plinth, &client_gateway)?;
    let mut all = Vec::new();
    for (name, kind, role) in VICTIMS {
        eprintln!("bench: plinth: kill -9 of {name}, {} times", bench.extent.kills);
        let mut gaps = Gaps::new(format!("plinth: {name}"));
        for turn in 0..bench.extent.kills {
            let rows = plinth.settled().await?;
            commits(&driving, STEADY).await?;
            let is_victim = |row: &&ProcessRow| {
                row.service.trim_end_matches(|c: char| c == '-' || c.is_ascii_digit()) == kind
                    && row.role == role
                    && row.url != client_gateway
            };
            let victims: Vec<&ProcessRow> = rows.iter().filter(is_victim).collect();
            // Each in its turn, since they are on different nodes.
            let Some(victim) = victims.get(turn % victims.len().max(1)) else {
                bail!("no {kind} is {role}");
            };
            driving.reset();
            processes::signal(victim.os_pid, Signal::KILL)?;
            replaced(&mut plinth, victim.os_pid).await.context(name)?;
            commits(&driving, STEADY).await.context(name)?;
            gaps.add(&mut driving);
        }
        all.push(gaps);
    }
    drop(driving);
    plinth.stop().await?;
    std::fs::remove_dir_all(directory).ok();
    Ok(all)
}

/// Waits until the cluster is settled without that process.
async fn replaced(plinth: &mut Plinth, dead: u32) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while plinth.settled().await?.iter().any(|row| row.os_pid == dead) {
        if Instant::now() >= deadline {
            bail!("process {dead} is still listed after {} s", PATIENCE.as_secs());
        }
        sleep(LOOK).await;
    }
    Ok(())
}

async fn etcd_gaps(bench: &Bench, executable: &std::path::Path) -> anyhow::Result<Vec<Gaps>> {
    let directory = bench.fresh("failures-etcd")?;
    let mut etcd = Etcd::start(executable, &directory)?;
    let mut all = Vec::new();
    for (name, leads) in [("leader", true), ("follower", false)] {
        eprintln!("bench: etcd: kill -9 of a {name}, {} times", bench.extent.kills);
        let mut gaps = Gaps::new(format!("etcd: {name}"));
        for _ in 0..bench.extent.kills {
            let leader = etcd.leader().await?;
            let followers: Vec<String> =
                etcd.urls().iter().filter(|url| **url != leader).cloned().collect();
            let [first, second] = followers.as_slice() else { bail!("three nodes") };
            let mut driving = begin(bench, Protocol::Etcd, first)?;
            commits(&driving, STEADY).await?;
            let victim = if leads { &leader } else { second };
            driving.reset();
            etcd.kill(victim).await?;
            commits(&driving, STEADY).await.context(name)?;
            gaps.add(&mut driving);
            etcd.restart(victim)?;
            etcd.all_healthy().await?;
        }
        all.push(gaps);
    }
    etcd.stop().await?;
    std::fs::remove_dir_all(directory).ok();
    Ok(all)
}
