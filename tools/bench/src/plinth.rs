//! Three nodes of Plinth by `plinth up`, without a trace store beside.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use plinth_api::coordinator::{ProcessRow, Processes, Recoveries, Recovery};
use plinth_api::gateway::ClusterStatus;
use plinth_runtime::Runtime;
use tokio::time::{Instant, sleep};

use crate::processes::Owned;

/// How long the cluster may take until everything is in its place.
const SETTLED: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// Where three ports in a row are looked for: below what the system gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 12_000..20_000;

pub(crate) struct Plinth {
    up: Owned,
    urls: Vec<String>,
    log: PathBuf,
    client: reqwest::Client,
    /// How many processes of services it had when it was complete; none before.
    complete: Option<usize>,
}

impl Plinth {
    pub(crate) fn start(
        world: &Runtime,
        executable: &Path,
        directory: &Path,
    ) -> anyhow::Result<Plinth> {
        let first = three_ports(world)?;
        let log = directory.with_extension("log");
        let mut command = Command::new(executable);
        command
            .args(["up", "--nodes", "3", "--json", "--no-jaeger"])
            .arg("--data-dir")
            .arg(directory)
            .arg("--gateway-port")
            .arg(first.to_string());
        let up = Owned::spawn(&mut command, &log)?;
        let urls = (first..first + 3).map(|port| format!("http://127.0.0.1:{port}")).collect();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        Ok(Plinth { up, urls, log, client, complete: None })
    }

    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    pub(crate) fn root(&self) -> u32 {
        self.up.id()
    }

    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        self.up.stop().await
    }

    /// Waits until the cluster is ready and complete: a director active and one standing by, a
    /// leader, every process back that was there when it first was. Gives its processes.
    pub(crate) async fn settled(&mut self) -> anyhow::Result<Vec<ProcessRow>> {
        let deadline = Instant::now() + SETTLED;
        let mut last = String::new();
        while Instant::now() < deadline {
            if let Some(status) = self.up.ended()? {
                bail!("plinth up ended: {status}; it said: {}", tail(&self.log));
            }
            match self.complete_now().await {
                Ok(rows) => {
                    self.complete.get_or_insert(rows.len());
                    return Ok(rows);
                }
                Err(error) => last = format!("{error:#}"),
            }
            sleep(LOOK).await;
        }
        bail!("the cluster is not settled after {} s: {last}", SETTLED.as_secs())
    }

    /// The recoveries that became ready, newest first.
    pub(crate) async fn recoveries(&self) -> anyhow::Result<Vec<Recovery>> {
        let url = self.urls.first().context("no gateway")?;
        let answer = self.client.get(format!("{url}/v1/recoveries")).send().await?;
        Ok(answer.error_for_status()?.json::<Recoveries>().await?.recoveries)
    }

    async fn complete_now(&self) -> anyhow::Result<Vec<ProcessRow>> {
        let url = self.urls.first().context("no gateway")?;
        let get = |path: &str| self.client.get(format!("{url}{path}")).send();
        let status: ClusterStatus = get("/v1/status").await?.error_for_status()?.json().await?;
        if !status.ready {
            bail!("epoch {}: {} ({})", status.epoch, status.phase, status.problems.join("; "));
        }
        let rows = get("/v1/processes").await?.error_for_status()?.json::<Processes>().await?;
        let rows = rows.processes;
        let has = |role: &str| rows.iter().any(|row| row.role == role);
        for role in ["active", "standby", "leader", "follower"] {
            if !has(role) {
                bail!("no process is {role}");
            }
        }
        let kinds: BTreeSet<_> = rows.iter().map(|row| row.service.clone()).collect();
        match self.complete {
            Some(count) if rows.len() < count => {
                bail!("{} of {count} processes: {kinds:?}", rows.len())
            }
            Some(_) | None => Ok(rows),
        }
    }
}

/// The first of three free ports in a row.
fn three_ports(world: &Runtime) -> anyhow::Result<u16> {
    // Asked for a free port and let go: nothing is served.
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    for _ in 0..1_000 {
        let offset = world.random_u64() % u64::from(PORTS.end - PORTS.start);
        let first = PORTS.start + u16::try_from(offset)?;
        if (first..first + 3).all(is_free) {
            return Ok(first);
        }
    }
    bail!("no three free ports in a row were found")
}

/// The end of a log, for a message.
fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}
