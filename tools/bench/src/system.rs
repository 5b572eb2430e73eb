//! A system under test: three nodes on loopback, started, stopped and killed alike.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use plinth_load::Protocol;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::etcd::Etcd;
use crate::plinth::Plinth;
use crate::{Bench, processes};

/// How long a system may take to serve its first write.
const FIRST_WRITE: Duration = Duration::from_secs(120);
/// How long one attempt at a first write may take.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(3);

/// Which system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plinth,
    Etcd,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        self.protocol().as_str()
    }

    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Kind::Plinth => Protocol::Plinth,
            Kind::Etcd => Protocol::Etcd,
        }
    }
}

/// Both, or Plinth alone where there is no etcd.
pub(crate) fn kinds(bench: &Bench) -> &'static [Kind] {
    if bench.etcd.is_some() { &[Kind::Etcd, Kind::Plinth] } else { &[Kind::Plinth] }
}

/// A running system.
pub(crate) enum System {
    Plinth(Plinth),
    Etcd(Etcd),
}

impl System {
    /// Starts it in a directory, which may hold its data, and returns at once.
    pub(crate) fn start(bench: &Bench, kind: Kind, directory: &Path) -> anyhow::Result<System> {
        Ok(match kind {
            Kind::Plinth => System::Plinth(Plinth::start(&bench.world, &bench.plinth, directory)?),
            Kind::Etcd => {
                let executable = bench.etcd.as_deref().context("there is no etcd")?;
                System::Etcd(Etcd::start(executable, directory)?)
            }
        })
    }

    /// The base URL of every node.
    pub(crate) fn urls(&self) -> &[String] {
        match self {
            System::Plinth(plinth) => plinth.urls(),
            System::Etcd(etcd) => etcd.urls(),
        }
    }

    /// The URL that a load is sent to: the leader's where there is one, for it serves best.
    pub(crate) async fn best_url(&self) -> anyhow::Result<String> {
        match self {
            System::Plinth(plinth) => plinth.urls().first().cloned().context("no node"),
            System::Etcd(etcd) => etcd.leader().await,
        }
    }

    /// Every process of it.
    pub(crate) fn processes(&self) -> anyhow::Result<Vec<u32>> {
        match self {
            System::Plinth(plinth) => processes::tree(plinth.root()),
            System::Etcd(etcd) => Ok(etcd.processes()),
        }
    }

    /// Waits until it serves as it is meant to: every process up, no election or recovery going on.
    pub(crate) async fn settled(&mut self) -> anyhow::Result<()> {
        match self {
            System::Plinth(plinth) => plinth.settled().await.map(drop),
            System::Etcd(etcd) => etcd.leader().await.map(drop),
        }
    }

    /// Stops it as its operator would.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        match self {
            System::Plinth(plinth) => plinth.stop().await,
            System::Etcd(etcd) => etcd.stop().await,
        }
    }

    /// `kill -9` of everything at once.
    pub(crate) async fn kill(self) -> anyhow::Result<()> {
        let all = self.processes()?;
        // The processes are children of this one: they are reaped when `self` is dropped.
        for process in &all {
            let _ = processes::signal(*process, Signal::KILL);
        }
        drop(self);
        processes::kill_all(&all).await
    }

    /// Waits for the first write that any node acknowledges: every node is asked, and again as soon
    /// as it refuses or stays silent.
    pub(crate) async fn first_write(&self, kind: Kind) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().timeout(ATTEMPT).build()?;
        let deadline = Instant::now() + FIRST_WRITE;
        let done = AtomicBool::new(false);
        let ask = |url: &String| {
            let (client, done, url) = (client.clone(), &done, url.clone());
            async move {
                while !done.load(Ordering::Relaxed) && Instant::now() < deadline {
                    let request = match kind {
                        Kind::Plinth => client.put(format!("{url}/v1/keys/first")).body("x"),
                        Kind::Etcd => client
                            .post(format!("{url}/v3/kv/put"))
                            .body(r#"{"key":"Zmlyc3Q=","value":"eA=="}"#),
                    };
                    match request.send().await {
                        Ok(answer) if answer.status().is_success() => return true,
                        Ok(_) | Err(_) => sleep(PAUSE).await,
                    }
                }
                false
            }
        };
        let mut asked: FuturesUnordered<_> = self.urls().iter().map(ask).collect();
        while let Some(written) = asked.next().await {
            if written {
                done.store(true, Ordering::Relaxed);
                return Ok(());
            }
        }
        bail!("{} served no write within {} s", kind.name(), FIRST_WRITE.as_secs())
    }
}
