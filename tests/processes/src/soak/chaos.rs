//! What is done to a cluster during a soak.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plinth_api::coordinator::{ClusterHealth, ProcessRow};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;

use super::Shared;
use crate::cluster::{Cluster, is_of_kind, reference};
use crate::{eventually, processes_of, signal};

/// How long a frozen process stays so at most, in milliseconds: longer than peers wait for it.
const FROZEN_MS: u64 = 3_000;
/// The longest quiet time between two acts, in milliseconds.
const QUIET_MS: u64 = 1_500;

/// A cluster, and what is done to it.
pub struct Chaos<'a> {
    cluster: Option<Cluster>,
    shared: &'a Shared,
    random: StdRng,
    port: u16,
    /// What was done, in order.
    pub acts: Vec<String>,
}

impl<'a> Chaos<'a> {
    /// Chaos for a cluster whose first gateway listens at this port.
    #[must_use]
    pub fn new(cluster: Cluster, port: u16, shared: &'a Shared, seed: u64) -> Chaos<'a> {
        let random = StdRng::seed_from_u64(seed);
        Chaos { cluster: Some(cluster), shared, random, port, acts: Vec::new() }
    }

    fn cluster(&self) -> anyhow::Result<&Cluster> {
        self.cluster.as_ref().context("the cluster did not start again")
    }

    /// One act, chosen at random, and then a quiet time.
    ///
    /// # Errors
    /// It can't be done, or the cluster does not recover from what was done before.
    pub fn act(&mut self) -> anyhow::Result<()> {
        match self.random.random_range(0..100) {
            0..55 => self.kill()?,
            55..80 => self.freeze()?,
            80..92 => self.wipe()?,
            _ => self.kill_everything()?,
        }
        let quiet = Duration::from_millis(self.random.random_range(0..=QUIET_MS));
        std::thread::park_timeout(quiet);
        Ok(())
    }

    /// Any process. Those that are listed may already have ended.
    fn victim(&mut self, is_it: impl Fn(&ProcessRow) -> bool) -> anyhow::Result<ProcessRow> {
        let cluster = self.cluster.as_ref().context("no cluster")?;
        let mut rows = eventually("a list of processes", || cluster.processes())?;
        rows.retain(|row| is_it(row));
        // In the same order for the same seed.
        rows.sort_by_key(reference);
        rows.choose(&mut self.random).cloned().context("no process of the kind")
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        let victim = self.victim(|_| true)?;
        let killed = signal(victim.os_pid, Signal::KILL);
        self.did(format!("kill -9 {}", reference(&victim)), &killed);
        Ok(())
    }

    fn freeze(&mut self) -> anyhow::Result<()> {
        let victim = self.victim(|_| true)?;
        let time = Duration::from_millis(self.random.random_range(100..=FROZEN_MS));
        let frozen = signal(victim.os_pid, Signal::STOP);
        std::thread::park_timeout(time);
        // Whoever exited meanwhile was told to by somebody else.
        let _ = signal(victim.os_pid, Signal::CONT);
        self.did(format!("froze {} for {} ms", reference(&victim), time.as_millis()), &frozen);
        Ok(())
    }

    /// The disk of one log or of one coordinator is lost, once nothing else is missing.
    fn wipe(&mut self) -> anyhow::Result<()> {
        self.wait_until_healthy()?;
        let kind = *["log", "coordinator"].choose(&mut self.random).context("a kind")?;
        let who = reference(&self.victim(|row| is_of_kind(row, kind))?);
        let cluster = self.cluster()?;
        // What the act before has killed may still be listed.
        let (victim, directory) = eventually("the victim", || {
            let victim = cluster.process(|row| reference(row) == who)?;
            let directory = data_directory(victim.os_pid)?;
            Ok((victim, directory))
        })?;
        ensure!(directory.starts_with(cluster.directory()), "{}", directory.display());
        // Nobody starts it again before its directory is gone.
        let foreman = eventually("its foreman", || {
            let is_it = |row: &ProcessRow| is_of_kind(row, "foreman") && row.node == victim.node;
            let foreman = cluster.process(is_it)?;
            signal(foreman.os_pid, Signal::STOP)?;
            Ok(foreman)
        })?;
        let wiped = signal(victim.os_pid, Signal::KILL).and_then(|()| {
            eventually("its end", || {
                let alive = processes_of(&directory)?.contains(&victim.os_pid);
                ensure!(!alive, "{} lives on", reference(&victim));
                Ok(())
            })?;
            Ok(std::fs::remove_dir_all(&directory)?)
        });
        signal(foreman.os_pid, Signal::CONT)?;
        self.did(format!("lost the disk of {}", reference(&victim)), &wiped);
        wiped
    }

    fn kill_everything(&mut self) -> anyhow::Result<()> {
        let cluster = self.cluster.take().context("the cluster did not start again")?;
        let directory = cluster.directory().to_owned();
        cluster.kill_all()?;
        self.did("kill -9 of everything".to_owned(), &Ok(()));
        let again = Cluster::start_at(&directory, self.port, &[])?;
        self.shared.moved(&again.ready.gateways);
        self.cluster = Some(again);
        Ok(())
    }

    fn did(&mut self, what: String, outcome: &anyhow::Result<()>) {
        let what = match outcome {
            Ok(()) => what,
            Err(error) => format!("{what}: {error:#}"),
        };
        println!("{what}");
        self.acts.push(what);
    }

    /// Waits until commits are accepted and nothing is missing.
    ///
    /// # Errors
    /// That does not come.
    pub fn wait_until_healthy(&self) -> anyhow::Result<()> {
        let cluster = self.cluster()?;
        eventually("a healthy cluster", || {
            let health: ClusterHealth = cluster.get_json("/v1/cluster/health")?;
            ensure!(health.healthy, "{health:?}");
            Ok(())
        })
    }

    /// Ends: the cluster, healthy again.
    ///
    /// # Errors
    /// It does not become healthy.
    pub fn end(mut self) -> anyhow::Result<Cluster> {
        self.wait_until_healthy()?;
        self.cluster.take().context("the cluster did not start again")
    }
}

/// The value of `--data-dir` on a process' command line.
fn data_directory(os_pid: u32) -> anyhow::Result<PathBuf> {
    let line = std::fs::read_to_string(format!("/proc/{os_pid}/cmdline"))?;
    let mut arguments = line.split('\0');
    arguments.find(|argument| *argument == "--data-dir").context("no --data-dir")?;
    arguments.next().map(PathBuf::from).context("--data-dir of nothing")
}
