//! A storage whose disk is too slow for what users write: what waits for it stays bounded, commits
//! go on at its speed, and status says who limits them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use plinth_api::director::RateStatus;
use plinth_runtime::Scope;
use plinth_simulation::{Options, Simulation, When};
use plinth_test_simulation::{Cluster, Fate, Gateway, Shape, User, log_if_asked};
use tokio::time::{Instant, sleep};

/// Each of them writes some twenty times a second.
const WRITERS: usize = 20;
/// The storage's disk takes 10 kB a second, and a write of a user makes some 200 bytes.
const SLOW: &str = "storage.slow_flush";
const SLOW_STORAGE: &str = "storage-1@node-2";
/// What a lag may come to. Without a limit it would grow for as long as the disk is slow.
const BOUND: Duration = Duration::from_secs(12);

struct Tally {
    committed: AtomicU64,
    over: AtomicBool,
}

async fn write(gateway: Gateway, tally: Arc<Tally>, writer: usize) {
    for number in 0.. {
        if tally.over.load(Ordering::Relaxed) {
            return;
        }
        let key = format!("{writer}/{number}");
        if let Fate::Committed(_) = gateway.put(&key, vec![b'v'; 60]).await {
            tally.committed.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(40)).await;
    }
}

async fn rate(gateway: &Gateway) -> anyhow::Result<(RateStatus, Vec<String>)> {
    let status = gateway.status().await?;
    let rate = status.director.and_then(|director| director.rate);
    Ok((rate.ok_or_else(|| anyhow::anyhow!("no rate yet"))?, status.problems))
}

/// Commits a second while looking at the rate, `check` after each look.
async fn watch(
    gateway: &Gateway,
    tally: &Tally,
    seconds: u64,
    mut check: impl FnMut(&RateStatus, &[String]),
) -> f64 {
    let (started, before) = (Instant::now(), tally.committed.load(Ordering::Relaxed));
    while started.elapsed() < Duration::from_secs(seconds) {
        sleep(Duration::from_millis(250)).await;
        if let Ok((rate, problems)) = rate(gateway).await {
            check(&rate, &problems);
        }
    }
    let committed = tally.committed.load(Ordering::Relaxed) - before;
    committed as f64 / started.elapsed().as_secs_f64()
}

#[test]
fn a_lagging_storage_slows_commits_down_and_stops_none() {
    log_if_asked();
    let options = Options { duration: Duration::from_secs(300), ..Options::default() };
    let world = Simulation::new(7, options);
    let mut sim = world.sim();
    let mut cluster = Cluster::new(&world, &Shape::default()).expect("a cluster");
    cluster.power_on(&mut sim);
    let gateways: Vec<String> = cluster.nodes().iter().map(|node| node.gateway()).collect();
    let (runtime, world) = (world.runtime("user"), world.clone());
    sim.client("user", async move {
        let (scope, _guard) = Scope::new();
        let user = User::new(runtime, scope.clone());
        let gateway = |number: usize| user.gateway(&gateways[number % gateways.len()]);
        gateway(0).ready(Duration::from_secs(30)).await?;
        let tally = Arc::new(Tally { committed: AtomicU64::new(0), over: AtomicBool::new(false) });
        for writer in 0..WRITERS {
            drop(scope.spawn("writer", write(gateway(writer), Arc::clone(&tally), writer)));
        }
        let unlimited =
            |rate: &RateStatus, _: &[String]| assert_eq!(rate.per_second, None, "{rate:?}");
        let free = watch(&gateway(0), &tally, 5, unlimited).await;

        world.faults().switch_on_at(SLOW_STORAGE, SLOW, When::Always);
        let (mut lag, mut seen) = (0, false);
        let mut last = None;
        let bound = u64::try_from(BOUND.as_millis())?;
        let mut heed = |rate: &RateStatus, problems: &[String]| {
            let slow = rate.storages.iter().find(|one| one.service.to_string() == SLOW_STORAGE);
            last = Some(rate.clone());
            lag = lag.max(slow.map_or(0, |slow| slow.lag_ms));
            if let Some(by) = &rate.limited_by {
                seen = true;
                assert_eq!(by.to_string(), SLOW_STORAGE, "{rate:?}");
                let said = problems.iter().any(|problem| problem.contains(&by.to_string()));
                assert!(said, "status says who limits: {problems:?}");
            }
        };
        watch(&gateway(0), &tally, 20, &mut heed).await;
        let slowed = watch(&gateway(1), &tally, 40, &mut heed).await;
        assert!(seen, "{slowed} of {free} a second, and no limit: {last:?}");
        assert!(world.faults().fired(SLOW) > 0, "the disk was slow");
        assert!(lag < bound, "the lag came to {lag} ms");
        assert!(slowed < free * 0.7, "{slowed} of {free} a second");
        assert!(slowed > 10.0, "{slowed} a second: commits go on");

        world.faults().switch_off_at(SLOW_STORAGE, SLOW);
        let deadline = Instant::now() + Duration::from_secs(60);
        while rate(&gateway(2)).await?.0.per_second.is_some() {
            assert!(Instant::now() < deadline, "the limit goes with its cause");
            sleep(Duration::from_millis(250)).await;
        }
        let again = watch(&gateway(0), &tally, 5, |_, _| {}).await;
        assert!(again > free * 0.8, "{again} of {free} a second");
        eprintln!(
            "commits a second: {free:.0}, slowed {slowed:.0}, again {again:.0}; lag {lag} ms"
        );
        tally.over.store(true, Ordering::Relaxed);
        Ok(())
    });
    sim.run().expect("it ends");
    assert!(cluster.nodes().iter().all(|node| node.is_on()));
}
