//! What a cluster costs as it grows: how long it takes to start and to recover, in simulated time, and
//! how many messages a commit and a recovery take. A message is a request; its answer is not counted.

mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use plinth_api::coordinator::RECOVERIES;
use plinth_runtime::Scope;
use plinth_simulation::{Options, Simulation, Traffic};
use plinth_system_config::{Parameters, ShardMap};
use plinth_types::{Key, SYSTEM_SHARD, SYSTEM_SHARD_END, ServiceKind, Tag};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, Shape};
use crate::user::{Fate, Gateway, User};
use crate::workloads::LAYOUT;

pub use tables::{beside, pipeline, print_tables};

/// How long a cluster may take to start or to recover.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long it is left alone before anything is counted.
const CALM: Duration = Duration::from_secs(5);
/// How long it is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(5);
/// How many commits are counted, one after the other.
const COMMITS: u32 = 40;
/// Between two of them, so that each has batches of its own.
const PAUSE: Duration = Duration::from_millis(50);
/// How long after commits are accepted again messages still count as the recovery's.
const AFTER: Duration = Duration::from_secs(3);

/// How large a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Size {
    /// Nodes.
    #[arg(long, default_value_t = 5)]
    pub nodes: u32,
    /// Coordinators: 1, 3 or 5.
    #[arg(long, default_value_t = 5)]
    pub coordinators: u32,
    /// Logs.
    #[arg(long, default_value_t = 3)]
    pub logs: u32,
    /// Commit proxies.
    #[arg(long, default_value_t = 1)]
    pub commit_proxies: u32,
    /// Resolvers.
    #[arg(long, default_value_t = 1)]
    pub resolvers: u32,
    /// Shards of users' data, each with three storages of its own. 1 to 99.
    #[arg(long, default_value_t = 1)]
    pub shards: u32,
}

/// Requests by kind, as [`Traffic`] names them.
pub type Requests = BTreeMap<String, f64>;

/// What a cluster costs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// Storages that it has.
    pub storages: usize,
    /// From nothing to ready, in simulated milliseconds.
    pub start_ms: u64,
    /// From the appointment of a director, after the sequencer was killed, to accepted commits, in
    /// simulated milliseconds.
    pub recovery_ms: u64,
    /// The phases of that recovery with their times in simulated milliseconds.
    pub phases: Vec<(String, u64)>,
    /// Requests a second while nothing happens.
    pub idle: Requests,
    /// Requests a commit takes, beyond what would be there without.
    pub commit: Requests,
    /// Requests a recovery takes, likewise.
    pub recovery: Requests,
}

/// The shards of a new cluster: users' keys cut at `01/`, `02/` …
fn shards(count: u32) -> ShardMap {
    let mut shards: Vec<(Key, Tag)> = (0..count)
        .map(|number| match number {
            0 => (Key::default(), Tag(1)),
            _ => (Key::from(prefix(number).as_str()), Tag(number + 1)),
        })
        .collect();
    shards.push((Key::from_static(SYSTEM_SHARD), Tag::SYSTEM));
    shards.push((Key::from_static(SYSTEM_SHARD_END), Tag(count)));
    ShardMap(shards)
}

fn prefix(shard: u32) -> String {
    format!("{shard:02}/")
}

fn shape(size: &Size) -> Shape {
    let parameters = Parameters {
        logs: size.logs,
        commit_proxies: size.commit_proxies,
        resolvers: size.resolvers,
        ..Parameters::default()
    };
    let mut shape = Shape {
        nodes: size.nodes,
        coordinators: size.coordinators,
        parameters,
        ..Shape::default()
    };
    shape.tuning.first_shards = shards(size.shards);
    shape
}

/// Starts a cluster, lets it idle, commits, and recover, and counts.
///
/// # Errors
/// It does not start, commit or recover.
pub fn measure(seed: u64, size: &Size) -> anyhow::Result<Cost> {
    let options = Options {
        duration: Duration::from_secs(600),
        latency: Duration::ZERO..=Duration::from_millis(2),
        counts_requests: true,
        ..Options::default()
    };
    let world = Simulation::new(seed, options);
    let mut sim = world.sim();
    let mut cluster = Cluster::new(&world, &shape(size))?;
    cluster.power_on(&mut sim);
    let gateways: Vec<String> = cluster.nodes().iter().map(|node| node.gateway()).collect();
    let (kill, killing) = watch::channel(false);
    let (done, cost) = watch::channel(None);
    let (runtime, size) = (world.runtime("user"), *size);
    let traffic = world.traffic().context("requests are counted")?.clone();
    sim.client("user", async move {
        let (scope, _guard) = Scope::new();
        let user = User::new(runtime, scope);
        let meter = Meter { traffic, gateway: user.gateway(&gateways[0]), kill };
        let cost = meter.measure(&size).await?;
        done.send_replace(Some(cost));
        Ok(())
    });
    let mut killed = false;
    loop {
        if sim.step().map_err(|error| anyhow!("{error}"))? {
            break;
        }
        if *killing.borrow() && !killed {
            killed = true;
            let services = cluster.nodes().iter().flat_map(|node| node.services());
            let sequencer: Vec<_> =
                services.filter(|service| service.kind() == ServiceKind::Sequencer).collect();
            for sequencer in sequencer {
                cluster.kill(&sequencer);
            }
        }
    }
    let cost = cost.borrow().clone();
    cost.context("it ended without a result")
}

struct Meter {
    traffic: Traffic,
    gateway: Gateway,
    /// Has the sequencer killed.
    kill: watch::Sender<bool>,
}

/// A moment, with the requests until then.
type Mark = (Instant, Arc<BTreeMap<String, u64>>);

impl Meter {
    fn mark(&self) -> Mark {
        (Instant::now(), Arc::new(self.traffic.requests()))
    }

    /// The requests since then, without those of so many a second.
    fn since(&self, (then, before): &Mark, idle: &Requests) -> Requests {
        let seconds = then.elapsed().as_secs_f64();
        let now = self.traffic.requests();
        let count = |(kind, now): (String, u64)| {
            let new = now - before.get(&kind).copied().unwrap_or(0);
            let without = idle.get(&kind).copied().unwrap_or(0.0) * seconds;
            (kind, new as f64 - without)
        };
        now.into_iter().map(count).collect()
    }

    async fn measure(&self, size: &Size) -> anyhow::Result<Cost> {
        let began = Instant::now();
        let status = self.gateway.ready(PATIENCE).await?;
        let start_ms = u64::try_from(began.elapsed().as_millis())?;
        sleep(CALM).await;

        let mark = self.mark();
        sleep(IDLE).await;
        let idle = scaled(self.since(&mark, &Requests::new()), IDLE.as_secs_f64());

        // What the first commit brings about, such as connections, is not every commit's.
        for shard in 0..size.shards {
            self.commit(shard, 0).await?;
        }
        sleep(CALM).await;
        let mark = self.mark();
        for number in 1..=COMMITS {
            self.commit(number % size.shards, number).await?;
            sleep(PAUSE).await;
        }
        let commit = scaled(self.since(&mark, &idle), f64::from(COMMITS));
        sleep(CALM).await;

        let mark = self.mark();
        self.kill.send_replace(true);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.gateway.status().await;
            if now.is_ok_and(|now| now.ready && now.epoch > status.epoch) {
                break;
            }
            anyhow::ensure!(Instant::now() < deadline, "it does not recover");
            sleep(PAUSE).await;
        }
        sleep(AFTER).await;
        let recovery = self.since(&mark, &idle);
        let recoveries = self.gateway.ask(&RECOVERIES).await?.recoveries;
        let last = recoveries.iter().max_by_key(|recovery| recovery.epoch);
        let last = last.context("no recovery is told")?;
        let layout = self.gateway.ask(&LAYOUT).await?;
        let teams = &layout.recorded.config.layout.storage_teams;
        let storages: BTreeSet<_> =
            teams.iter().flat_map(|team| &team.members).map(|member| member.store).collect();
        Ok(Cost {
            storages: storages.len(),
            start_ms,
            recovery_ms: last.duration_ms,
            phases: last
                .phases
                .iter()
                .map(|time| (time.name.clone(), time.duration_ms.unwrap_or(0)))
                .collect(),
            idle,
            commit,
            recovery,
        })
    }

    async fn commit(&self, shard: u32, number: u32) -> anyhow::Result<()> {
        let fate = self.gateway.put(&format!("{}{number}", prefix(shard)), "value").await;
        anyhow::ensure!(matches!(fate, Fate::Committed(_)), "a write is {fate:?}");
        Ok(())
    }
}

fn scaled(requests: Requests, by: f64) -> Requests {
    requests.into_iter().map(|(kind, count)| (kind, count / by)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_a_valid_map() {
        for count in [1, 2, 33, 99] {
            let map = shards(count);
            assert_eq!(map.problems(), []);
            assert_eq!(map.tags().len(), usize::try_from(count).unwrap_or(0) + 1);
            for shard in 0..count {
                assert_eq!(map.tag_of(prefix(shard).as_bytes()), Some(Tag(shard + 1)));
            }
        }
    }
}
