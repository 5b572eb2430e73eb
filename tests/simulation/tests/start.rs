//! From nothing to ready, service, the loss of all power, and back.

#![expect(clippy::expect_used, reason = "a failed expectation fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use plinth_runtime::Scope;
use plinth_simulation::{Options, Simulation, child};
use plinth_test_simulation::{Cluster, Fate, Shape, User, log_if_asked};
use plinth_types::Epoch;

/// The longest that a recovery may take in simulated time.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the user has come to.
const WRITTEN: u32 = 1;
const DARK: u32 = 2;
const DONE: u32 = 3;

/// A put and a get, the power goes and comes back, and the value is there.
fn history(seed: u64) -> Simulation {
    log_if_asked();
    let world = Simulation::new(seed, Options::default());
    let mut sim = world.sim();
    let mut cluster = Cluster::new(&world, &Shape::default()).expect("a cluster");
    cluster.power_on(&mut sim);
    let gateways: Vec<String> = cluster.nodes().iter().map(|node| node.gateway()).collect();
    let stage = Arc::new(AtomicU32::new(0));
    let (runtime, at) = (world.runtime("user"), Arc::clone(&stage));
    sim.client("user", async move {
        let (scope, _guard) = Scope::new();
        let user = User::new(runtime, scope);
        let gateway = |number: usize| user.gateway(&gateways[number]);
        let first = gateway(0).ready(PATIENCE).await?;
        assert_eq!(first.epoch, Epoch(1));
        assert_eq!(
            first.coordinator.map(|status| status.bootstrap.source).as_deref(),
            Some("default")
        );
        let fate = gateway(0).put("hello", "world").await;
        assert!(matches!(fate, Fate::Committed(_)), "{fate:?}");
        for number in 0..3 {
            let (_, value) = gateway(number).get("hello").await?;
            assert_eq!(value.as_deref(), Some(&b"world"[..]), "gateway {number}");
        }
        at.store(WRITTEN, Ordering::Relaxed);
        while at.load(Ordering::Relaxed) != DARK {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let second = gateway(1).ready(PATIENCE).await?;
        assert!(second.epoch > first.epoch);
        assert_eq!(
            second.coordinator.map(|status| status.bootstrap.source).as_deref(),
            Some("raft")
        );
        let (_, value) = gateway(2).get("hello").await?;
        assert_eq!(value.as_deref(), Some(&b"world"[..]));
        let fate = gateway(2).put("hello", "again").await;
        assert!(matches!(fate, Fate::Committed(_)), "{fate:?}");
        at.store(DONE, Ordering::Relaxed);
        Ok(())
    });
    while stage.load(Ordering::Relaxed) < WRITTEN {
        sim.step().expect("it goes on");
    }
    let nodes: Vec<_> = cluster.nodes().iter().map(|node| node.id.clone()).collect();
    for node in &nodes {
        assert!(cluster.power_loss(&mut sim, node, true));
    }
    for _ in 0..500 {
        sim.step().expect("it goes on");
    }
    for node in &nodes {
        assert!(cluster.power_back(&mut sim, node));
    }
    stage.store(DARK, Ordering::Relaxed);
    sim.run().expect("it ends");
    assert_eq!(stage.load(Ordering::Relaxed), DONE);
    world
}

#[test]
fn a_cluster_starts_serves_loses_all_power_and_comes_back_the_same_way_for_the_same_seed() {
    let test =
        "a_cluster_starts_serves_loses_all_power_and_comes_back_the_same_way_for_the_same_seed";
    if let Some(seed) = child::seed() {
        child::report(&history(seed));
        return;
    }
    let run = |seed| {
        let outcome = child::run(test, seed).expect("it starts");
        assert!(outcome.status.success(), "{}", outcome.output);
        outcome.report.expect("it reports")
    };
    for seed in [1, 2] {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1), run(2));
}
