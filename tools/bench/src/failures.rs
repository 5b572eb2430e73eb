//! One process killed at a time, and the longest gap in acknowledged commits, with what the cluster says
//! of the recovery that filled it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use plinth_api::coordinator::{ProcessRow, Recovery};
use plinth_load::{Driving, Load, Mix, Operation, Pace, Protocol};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::etcd::Etcd;
use crate::plinth::Plinth;
use crate::table::{Goal, Table, median_and_worst};
use crate::{Bench, processes};

/// Commits a second.
const RATE: f64 = 50.0;
/// Commits after which a failure is taken to be over, when everything is also back in its place.
const STEADY: u64 = 100;
/// How long it may take until then.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// What the gaps of a kind are to stay under, in milliseconds.
const GOAL: Goal = Goal { median: 300.0, worst: 1_000.0 };

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

/// One process killed.
struct Outage {
    gap_ms: f64,
    /// The epochs that have begun since and became ready, oldest first.
    recoveries: Vec<Recovered>,
}

/// A recovery, as it is told afterwards.
struct Recovered {
    /// From the kill to the appointment of the director.
    noticed_ms: f64,
    recovery: Recovery,
}

impl Recovered {
    fn json(&self) -> Value {
        let Recovery { epoch, cause, duration_ms, phases, .. } = &self.recovery;
        json!({
            "epoch": epoch, "cause": cause, "noticed_ms": self.noticed_ms, "duration_ms": duration_ms,
            "phases": phases, "made": self.recovery.made,
        })
    }

    /// In one line, the longest phases alone.
    fn describe(&self) -> String {
        let mut phases: Vec<(u64, &str)> = self
            .recovery
            .phases
            .iter()
            .filter_map(|phase| Some((phase.duration_ms?, phase.name.as_str())))
            .collect();
        phases.sort_by_key(|(took, _)| std::cmp::Reverse(*took));
        let longest = phases.iter().take(3).map(|(took, phase)| format!("{phase} {took} ms"));
        format!(
            "noticed after {:.0} ms, recovered in {} ms ({}): {}",
            self.noticed_ms,
            self.recovery.duration_ms,
            longest.collect::<Vec<_>>().join(", "),
            self.recovery.cause
        )
    }
}

/// The gaps of one kind of victim.
struct Gaps {
    victim: String,
    outages: Vec<Outage>,
    /// Commits that were not acknowledged, by code.
    failed: BTreeMap<String, u64>,
}

impl Gaps {
    fn new(victim: String) -> Gaps {
        Gaps { victim, outages: Vec::new(), failed: BTreeMap::new() }
    }

    /// Adds what was seen since the last reset.
    fn add(&mut self, driving: &mut Driving, recoveries: Vec<Recovered>) {
        let report = driving.report();
        self.outages.push(Outage { gap_ms: report.longest_gap_ms, recoveries });
        for (code, count) in report.errors() {
            *self.failed.entry(code).or_default() += count;
        }
    }

    fn ms(&self) -> Vec<f64> {
        self.outages.iter().map(|outage| outage.gap_ms).collect()
    }

    fn worst(&self) -> Option<&Outage> {
        self.outages.iter().max_by(|a, b| a.gap_ms.total_cmp(&b.gap_ms))
    }

    fn json(&self) -> Option<Value> {
        let (median, worst) = median_and_worst(&self.ms())?;
        let outages = self.outages.iter().map(|outage| {
            let recoveries: Vec<Value> = outage.recoveries.iter().map(Recovered::json).collect();
            json!({ "gap_ms": outage.gap_ms, "recoveries": recoveries })
        });
        Some(json!({
            "killed": self.victim, "median_ms": median, "worst_ms": worst, "n": self.outages.len(),
            "goal_met": GOAL.is_met(median, worst), "failed_commits": self.failed,
            "outages": outages.collect::<Vec<_>>(),
        }))
    }
}

fn show(all: &[Gaps]) -> String {
    let head = ["kill -9 of", "median ms", "worst ms", "n", "goal", "failed commits"];
    let mut table = Table::new(head);
    let mut worst_of = Table::new(["kill -9 of", "worst ms", "how the time was spent"]);
    for gaps in all {
        let Gaps { victim, outages, failed } = gaps;
        let Some((median, worst)) = median_and_worst(&gaps.ms()) else { continue };
        let failed: Vec<String> =
            failed.iter().map(|(code, count)| format!("{count} {code}")).collect();
        let failed = if failed.is_empty() { "none".to_owned() } else { failed.join(", ") };
        let (median_ms, worst_ms) = (format!("{median:.0}"), format!("{worst:.0}"));
        let (n, goal) = (outages.len().to_string(), GOAL.show(median, worst));
        table.row([victim.clone(), median_ms, worst_ms.clone(), n, goal, failed]);
        for recovered in gaps.worst().iter().flat_map(|outage| &outage.recoveries) {
            worst_of.row([victim.clone(), worst_ms.clone(), recovered.describe()]);
        }
    }
    format!(
        "## Failures\n\n{table}\nThe longest time without an acknowledged commit, at {RATE} commits \
         a second in an open loop, for a plain client of one surviving gateway (etcd: a surviving \
         follower). Without a failure it is the {:.0} ms between two commits. The goal is a median under \
         {:.0} ms and none of {:.0} ms or more.\n\nThe worst of each kind that has ended an epoch, by \
         `/v1/recoveries`:\n\n{worst_of}",
        1e3 / RATE,
        GOAL.median,
        GOAL.worst,
    )
}

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Value> {
    let mut all = Vec::new();
    if let Some(etcd) = &bench.etcd {
        all.extend(etcd_gaps(bench, etcd).await.context("etcd")?);
    }
    all.extend(plinth_gaps(bench).await.context("plinth")?);
    println!("{}", show(&all));
    let kinds: Vec<Value> = all.iter().filter_map(Gaps::json).collect();
    let goal = json!({ "median_ms": GOAL.median, "worst_ms": GOAL.worst });
    Ok(json!({ "commits_per_second": RATE, "goal": goal, "kinds": kinds }))
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
            let before = plinth.recoveries().await?.first().map(|recovery| recovery.epoch);
            driving.reset();
            let killed_unix_ms = bench.world.unix_ms();
            processes::signal(victim.os_pid, Signal::KILL)?;
            replaced(&mut plinth, victim.os_pid).await.context(name)?;
            commits(&driving, STEADY).await.context(name)?;
            let recoveries = plinth.recoveries().await?.into_iter();
            let since = recoveries.take_while(|recovery| Some(recovery.epoch) > before);
            let mut since: Vec<Recovered> =
                since.map(|recovery| recovered(recovery, killed_unix_ms)).collect();
            since.reverse();
            gaps.add(&mut driving, since);
        }
        all.push(gaps);
    }
    drop(driving);
    plinth.stop().await?;
    std::fs::remove_dir_all(directory).ok();
    Ok(all)
}

fn recovered(recovery: Recovery, killed_unix_ms: u64) -> Recovered {
    // Both are far below the numbers that a float has no more.
    let noticed = recovery.started_unix_ms.saturating_sub(killed_unix_ms);
    let noticed_ms = Duration::from_millis(noticed).as_secs_f64() * 1e3;
    Recovered { noticed_ms, recovery }
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
            gaps.add(&mut driving, Vec::new());
            etcd.restart(victim)?;
            etcd.all_healthy().await?;
        }
        all.push(gaps);
    }
    etcd.stop().await?;
    std::fs::remove_dir_all(directory).ok();
    Ok(all)
}
