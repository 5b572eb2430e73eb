//! Disks that fail.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plinth_runtime::Scope;
use plinth_simulation::{Options, Simulation};
use plinth_test_simulation::{Cluster, Shape, User};
use plinth_types::ServiceKind;

/// The longest that a recovery may take in simulated time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A coordinator whose Raft stops over its disk once spun without end, and its exit never came.
#[test]
fn coordinators_whose_disks_fail_a_sync_end_and_come_back() {
    let world = Simulation::new(1, Options::default());
    let mut sim = world.sim();
    let mut cluster = Cluster::new(&world, &Shape::default()).expect("a cluster");
    cluster.power_on(&mut sim);
    let gateway = cluster.nodes()[0].gateway();
    let started = Arc::new(AtomicBool::new(false));
    let (runtime, is_ready) = (world.runtime("user"), Arc::clone(&started));
    sim.client("user", async move {
        let (scope, _guard) = Scope::new();
        let gateway = User::new(runtime, scope).gateway(&gateway);
        let first = gateway.ready(PATIENCE).await?;
        is_ready.store(true, Ordering::Relaxed);
        while gateway.ready(PATIENCE).await?.epoch == first.epoch {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    });
    while !started.load(Ordering::Relaxed) {
        sim.step().expect("it goes on");
    }
    for node in cluster.nodes() {
        let store = Path::new("/data").join(node.id.as_str()).join("coordinator-1/store");
        assert!(node.disk.fail_next_sync(&store), "no store at {}", store.display());
    }
    // The next appointment must be written by all of them.
    let services: Vec<_> = cluster.nodes().iter().flat_map(|node| node.services()).collect();
    for director in services.iter().filter(|service| service.kind() == ServiceKind::Director) {
        assert!(cluster.kill(director));
    }
    sim.run().expect("it ends");
}
