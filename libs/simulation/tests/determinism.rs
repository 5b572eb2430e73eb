//! Two hosts exchange bytes and write to disks, with faults; a seed in two processes is one history.

#![expect(clippy::expect_used, reason = "a failed expectation fails the test")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plinth_runtime::{Runtime, Scope};
use plinth_simulation::{Options, Simulation, When, child};
use plinth_store::{Batch, Disk, DiskDelays, Durability, SimulatedDisk};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

const PORT: u16 = 4000;
const MESSAGES: u64 = 20;

/// Stores each number that it is sent, synced, and answers it doubled. Sometimes it is told to lie.
async fn serve(runtime: Runtime, disk: SimulatedDisk) -> turmoil::Result {
    let (scope, _guard) = Scope::new();
    let store = disk.open(Path::new("/numbers"), &["numbers"]).await?;
    let mut listener = runtime.network().bind(&format!("server:{PORT}")).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        let (store, runtime) = (Arc::clone(&store), runtime.clone());
        scope.spawn("connection", async move {
            while let Ok(number) = stream.read_u64().await {
                let mut batch = Batch::new();
                batch.put(
                    "numbers",
                    number.to_be_bytes().to_vec(),
                    runtime.random_u64().to_be_bytes().to_vec(),
                );
                if store.write(batch, Durability::Synced).await.is_err() {
                    return;
                }
                let lie = u64::from(runtime.fault("server.lies"));
                if stream.write_u64(2 * number + lie).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Sends numbers and counts lies; connects anew when a connection is lost. Every step is bounded.
async fn exchange(runtime: &Runtime, lies: &AtomicU64) -> u64 {
    let mut connections = 0;
    let mut number = 0;
    while number < MESSAGES {
        let address = format!("server:{PORT}");
        let connecting = timeout(Duration::from_millis(200), runtime.network().connect(&address));
        let Ok(Ok(mut stream)) = connecting.await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        connections += 1;
        while number < MESSAGES {
            if stream.write_u64(number).await.is_err() {
                break;
            }
            let Ok(Ok(answer)) = timeout(Duration::from_millis(200), stream.read_u64()).await
            else {
                break;
            };
            lies.fetch_add(answer - 2 * number, Ordering::Relaxed);
            number += 1;
            sleep(Duration::from_millis(runtime.random_u64() % 20)).await;
        }
    }
    connections
}

/// One seed's history: the server's machine loses power in the middle of it.
fn history(seed: u64, kept_events: usize) -> Simulation {
    let world = Simulation::new(seed, Options { kept_events, ..Options::default() });
    world.faults().switch_on("server.lies", When::OneIn(5));
    let disk = world.disk("server", DiskDelays::default());
    let mut sim = world.sim();
    let (server, machine) = (world.clone(), disk.clone());
    sim.host("server", move || serve(server.runtime("server"), machine.process()));

    let lies = Arc::new(AtomicU64::new(0));
    let (runtime, counted) = (world.runtime("client"), Arc::clone(&lies));
    let finished = Arc::new(AtomicU64::new(0));
    let finish = Arc::clone(&finished);
    sim.client("client", async move {
        let connections = exchange(&runtime, &counted).await;
        assert!(connections > 1, "the connection was never lost");
        assert!(runtime.unix_ms() > 1_893_456_000_000);
        finish.store(1, Ordering::Relaxed);
        Ok(())
    });

    while sim.elapsed() < Duration::from_millis(150) {
        assert!(!sim.step().expect("it goes on"));
    }
    sim.crash("server");
    disk.power_loss(&*world.random("power loss"));
    for _ in 0..50 {
        sim.step().expect("it goes on");
    }
    sim.bounce("server");
    sim.run().expect("it ends");
    assert_eq!(finished.load(Ordering::Relaxed), 1);
    assert!(world.faults().fired("server.lies") >= lies.load(Ordering::Relaxed));
    assert!(lies.load(Ordering::Relaxed) > 0, "no lie was noticed");
    assert!(disk.counts().syncs >= MESSAGES);
    world
}

#[test]
fn a_seed_is_one_history_and_another_seed_another() {
    if let Some(seed) = child::seed() {
        child::report(&history(seed, 0));
        return;
    }
    let run = |seed| {
        let test = "a_seed_is_one_history_and_another_seed_another";
        let outcome = child::run(test, seed).expect("it starts");
        assert!(outcome.status.success(), "{}", outcome.output);
        outcome.report.expect("it reports")
    };
    for seed in [1, 2, 3] {
        assert_eq!(run(seed), run(seed));
        assert_ne!(run(seed), run(seed + 100));
    }
}

#[test]
fn what_happens_is_in_the_trace() {
    let dump = history(7, 100_000).trace().dump();
    for what in [
        "listen",
        "connect",
        "accept",
        "sent",
        "received",
        "queue",
        "sync",
        "draw",
        "fault",
        "power loss",
    ] {
        assert!(dump.contains(&format!(": {what} ")), "no {what}");
    }
}

#[test]
fn bad_addresses_are_refused() {
    let world = Simulation::new(1, Options::default());
    let mut sim = world.sim();
    let runtime = world.runtime("one");
    sim.host("two", std::future::pending::<turmoil::Result>);
    sim.client("one", async move {
        for address in ["two:1", "nowhere:1", "[::1]:1", "no port", "one:99999"] {
            assert!(runtime.network().bind(address).await.is_err(), "{address}");
        }
        let listener = runtime.network().bind("one:0").await?;
        assert_ne!(listener.local_addr()?.port(), 0);
        assert_eq!(listener.local_addr()?.ip(), turmoil::lookup("one"));
        assert!(
            runtime.network().bind(&listener.local_addr()?.to_string()).await.is_err(),
            "it is taken"
        );
        assert!(runtime.network().connect("two:1").await.is_err(), "nobody listens");
        assert!(runtime.network().connect("nowhere:1").await.is_err());
        Ok(())
    });
    sim.run().expect("it ends");
}
