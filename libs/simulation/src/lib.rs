//! A world made of one number: seeded network, randomness, clocks, disks and faults over turmoil,
//! behind the seams of [`plinth_runtime`] and [`plinth_store`]. It knows no service.
//!
//! All that happens in it goes into one running hash ([`Trace`]), so that two runs of a seed can be
//! compared: the same seed must give the same hash.
//!
//! **One process a seed.** What a process has done before (task numbers, the keys of the standard
//! library's hash maps) leaks into a second run; [`child`] runs a test's seeds in processes of their own.
//!
//! What a host does must happen in its future. Its factory runs before the host has a clock.

pub mod child;
mod faults;
mod network;
mod random;
mod time;
mod trace;
mod traffic;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use plinth_runtime::{Random, Runtime};
use plinth_store::{DiskDelays, SimulatedDisk};

pub use faults::{Faults, When};
pub use network::{DROP_REPLY, MUTE};
pub use trace::{Trace, TraceHash};
pub use traffic::Traffic;

use network::SimulatedNetwork;
use random::SeededRandom;
use time::HostClock;

/// How the world is, apart from the seed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Simulated time between two looks at the network; the grain of everything.
    pub tick: Duration,
    /// Simulated time after which a run fails.
    pub duration: Duration,
    /// How long a message travels between two hosts, in whole milliseconds, mostly near the start.
    pub latency: RangeInclusive<Duration>,
    /// How many of the last events are kept as text.
    pub kept_events: usize,
    /// Whether requests are counted ([`Traffic`]).
    pub counts_requests: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            tick: Duration::from_millis(1),
            duration: Duration::from_secs(120),
            latency: Duration::ZERO..=Duration::from_millis(10),
            kept_events: 0,
            counts_requests: false,
        }
    }
}

/// Segments that one direction of a connection holds. Turmoil panics on one that is lost for want of
/// room, and its default of 64 is little for a stream of small writes.
const TCP_SEGMENTS: usize = 65_536;

/// 2030-01-01T00:00:00Z, when every simulation begins.
const BEGINNING_UNIX_MS: u64 = 1_893_456_000_000;

/// A world from a seed. Hand its parts to the hosts of the [`turmoil::Sim`] that it makes.
#[derive(Clone)]
pub struct Simulation {
    seed: u64,
    options: Options,
    trace: Trace,
    faults: Arc<Faults>,
    streams: Arc<Mutex<BTreeMap<String, Arc<dyn Random>>>>,
    traffic: Option<Traffic>,
    clocks: Arc<Mutex<BTreeMap<String, Arc<AtomicI64>>>>,
}

impl Simulation {
    /// The world of this seed.
    #[must_use]
    pub fn new(seed: u64, options: Options) -> Self {
        let trace = Trace::new(options.kept_events);
        let random = SeededRandom::new(seed, "faults", trace.clone());
        let faults = Arc::new(Faults::new(Arc::new(random), trace.clone()));
        let traffic = options.counts_requests.then(Traffic::default);
        let (streams, clocks) = Default::default();
        Simulation { seed, options, trace, faults, streams, traffic, clocks }
    }

    /// The number it is made of.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Turmoil's simulation: add hosts and clients to it, then run it.
    #[must_use]
    pub fn sim<'a>(&self) -> turmoil::Sim<'a> {
        turmoil::Builder::new()
            .rng_seed(self.seed)
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_millis(BEGINNING_UNIX_MS))
            .tick_duration(self.options.tick)
            .simulation_duration(self.options.duration)
            .min_message_latency(*self.options.latency.start())
            .max_message_latency(*self.options.latency.end())
            .tcp_capacity(TCP_SEGMENTS)
            .enable_random_order()
            .build()
    }

    /// The world as a process on this host of the simulation sees it. Several processes on one host,
    /// or several lives of one, take one each.
    #[must_use]
    pub fn runtime(&self, host: &str) -> Runtime {
        self.runtime_of(host, host)
    }

    /// The same for a process that has a name of its own on its host. Its random numbers and its
    /// fault points go by that name.
    #[must_use]
    pub fn runtime_of(&self, host: &str, process: &str) -> Runtime {
        Runtime::new(
            self.random(process),
            Arc::new(HostClock::new(BEGINNING_UNIX_MS, self.clock(host))),
            Arc::new(SimulatedNetwork::new(
                host,
                self.faults.at(process),
                self.trace.clone(),
                self.traffic.clone(),
            )),
            self.faults.at(process),
        )
    }

    /// Sets the wall clock of a host, and of everything that runs there, so far ahead of the right
    /// time; behind it where that is negative. Clocks that measure durations are not concerned.
    pub fn set_clock(&self, host: &str, ahead_ms: i64) {
        self.trace.record(host, "clock", &[&ahead_ms.to_be_bytes()]);
        self.clock(host).store(ahead_ms, Ordering::Relaxed);
    }

    fn clock(&self, host: &str) -> Arc<AtomicI64> {
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(clocks.entry(host.to_owned()).or_default())
    }

    /// An empty disk for a machine of this name. Keep it, and hand its views to the machine's
    /// processes: it is what outlives them.
    #[must_use]
    pub fn disk(&self, machine: &str, delays: DiskDelays) -> SimulatedDisk {
        let trace = self.trace.clone();
        let hook =
            move |machine: &str, event: &plinth_store::DiskEvent<'_>| trace.disk(machine, event);
        SimulatedDisk::new(
            machine,
            self.random(&format!("disk of {machine}")),
            delays,
            Some(Arc::new(hook)),
        )
    }

    /// The stream of random numbers of this name. It goes on where it was, for whoever asks: a host
    /// that is started again does not draw its old identities once more. What a test draws from one
    /// stream changes nothing in another.
    #[must_use]
    pub fn random(&self, name: &str) -> Arc<dyn Random> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let new =
            || Arc::new(SeededRandom::new(self.seed, name, self.trace.clone())) as Arc<dyn Random>;
        Arc::clone(streams.entry(name.to_owned()).or_insert_with(new))
    }

    /// The faults that can be asked for by name.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The requests so far; none where they are not counted.
    #[must_use]
    pub fn traffic(&self) -> Option<&Traffic> {
        self.traffic.as_ref()
    }

    /// What has happened so far.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_set_at_one_host_for_all_that_runs_there() {
        let world = Simulation::new(1, Options { kept_events: 9, ..Options::default() });
        let mut sim = world.sim();
        let hosts = [("a", "one"), ("a", "two"), ("b", "three")];
        let runtimes = hosts.map(|(host, process)| world.runtime_of(host, process));
        sim.client("a", async move {
            let read = || runtimes.each_ref().map(|runtime| runtime.unix_ms() - BEGINNING_UNIX_MS);
            assert_eq!(read(), [0, 0, 0]);
            world.set_clock("a", 5_000);
            assert_eq!(read(), [5_000, 5_000, 0]);
            tokio::time::sleep(Duration::from_secs(10)).await;
            world.set_clock("a", -4_000);
            assert_eq!(read(), [6_000, 6_000, 10_000]);
            assert!(world.trace().dump().contains(" a: clock "));
            Ok(())
        });
        sim.run().expect("it ends");
    }

    #[test]
    fn a_host_that_starts_again_draws_new_numbers() {
        let world = Simulation::new(1, Options::default());
        let first = world.runtime("a").random_u64();
        assert_ne!(first, world.runtime("a").random_u64());
        assert_ne!(first, world.runtime("b").random_u64());
        let again = Simulation::new(1, Options::default());
        assert_eq!(first, again.runtime("a").random_u64());
    }
}
