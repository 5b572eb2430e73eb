//! `plinth up` and what can be asked of it.

mod starting;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, anyhow, bail, ensure};
use plinth_api::coordinator::{ProcessRow, Processes};
use plinth_api::director::LiveLayout;
use plinth_api::gateway::ClusterStatus;
use plinth_api::storage::{KeyValue, RangeRead, ReadAnswer, ReadRequest, ShardConfig};
use plinth_types::{Epoch, KeyRange, Version};
use reqwest::StatusCode;
use reqwest::blocking::{Client, RequestBuilder, Response};
use rustix::process::Signal;
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use self::starting::Starting;
use crate::{Remains, eventually, executable, processes_of, signal};

/// Items asked of a range at a time.
const RANGE_PIECE: u32 = 1_000;

/// What `plinth up --json` prints when it is ready.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// From the start to ready.
    pub ready_ms: u64,
    /// URLs of the gateways.
    pub gateways: Vec<String>,
    /// URL of the trace store; none where traces go elsewhere.
    pub jaeger: Option<String>,
    /// Every process.
    pub processes: Vec<ProcessRow>,
}

/// A running cluster. Dropping it kills what is left of it.
pub struct Cluster {
    directory: PathBuf,
    up: Child,
    http: Client,
    /// As it was when it became ready.
    pub ready: Ready,
}

/// `plinth up` of so many nodes in this directory, not yet started.
///
/// # Errors
/// When the executable is missing.
pub fn up(directory: &Path, nodes: u32) -> anyhow::Result<Command> {
    let mut command = Command::new(executable()?);
    command.args(["up", "--json", "--data-dir"]).arg(directory);
    if !directory.join("cluster.json").exists() {
        command.args(["--nodes", &nodes.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// A port that is free now, one of few that clusters of other tests would look for first.
///
/// # Errors
/// None was found.
pub fn free_port() -> anyhow::Result<u16> {
    // Below what the system gives to outgoing connections: nothing else takes it at random.
    let first = 20_000 + u16::try_from(std::process::id() % 1_000)? * 10;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (first..32_000).find(is_free).context("no port is free")
}

impl Cluster {
    /// Starts a cluster in a directory, new or old, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; the error carries what it said.
    pub fn start(directory: &Path) -> anyhow::Result<Cluster> {
        Cluster::start_with(directory, &[])
    }

    /// The same with more flags.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_with(directory: &Path, flags: &[&str]) -> anyhow::Result<Cluster> {
        Cluster::start_at(directory, free_port()?, flags)
    }

    /// The same with the first gateway at this port.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_at(directory: &Path, port: u16, flags: &[&str]) -> anyhow::Result<Cluster> {
        let mut command = up(directory, 3)?;
        command.args(["--gateway-port", &port.to_string()]).args(flags);
        Cluster::run(command, directory)
    }

    /// Runs a command that prints the report of a ready cluster as one line of JSON.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn run(command: Command, directory: &Path) -> anyhow::Result<Cluster> {
        Starting::run(command, directory)?.ready()
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The process of `plinth up`.
    #[must_use]
    pub fn os_pid(&self) -> u32 {
        self.up.id()
    }

    /// The first gateway's URL.
    ///
    /// # Errors
    /// When there is none.
    pub fn gateway(&self) -> anyhow::Result<&str> {
        self.ready.gateways.first().map(String::as_str).context("no gateway")
    }

    /// The client that the tests ask with.
    #[must_use]
    pub fn http(&self) -> &Client {
        &self.http
    }

    /// A request to a service, as a service.
    ///
    /// # Errors
    /// When the cluster secret can't be read.
    pub fn as_service(&self, request: RequestBuilder) -> anyhow::Result<RequestBuilder> {
        let secret = std::fs::read_to_string(self.directory.join("secret"))?;
        Ok(request.header(plinth_api::HEADER_SECRET, secret.trim()))
    }

    fn json<T: DeserializeOwned>(response: Response) -> anyhow::Result<T> {
        let status = response.status();
        let text = response.text()?;
        ensure!(status.is_success(), "{status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// GETs a JSON document of the first gateway that answers.
    ///
    /// # Errors
    /// When none answers, or otherwise.
    pub fn get_json<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let mut last = anyhow::anyhow!("no gateway");
        for gateway in &self.ready.gateways {
            match self.http.get(format!("{gateway}{path}")).send() {
                Ok(answer) => return Self::json(answer),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    /// The cluster in one look.
    ///
    /// # Errors
    /// When no gateway says.
    pub fn status(&self) -> anyhow::Result<ClusterStatus> {
        self.get_json("/v1/status")
    }

    /// The latest epoch.
    ///
    /// # Errors
    /// When no gateway says.
    pub fn epoch(&self) -> anyhow::Result<u64> {
        Ok(self.status()?.epoch.0)
    }

    /// How a coordinator started.
    ///
    /// # Errors
    /// When no gateway says.
    pub fn source(&self) -> anyhow::Result<String> {
        let status = self.status()?;
        Ok(status.coordinator.context("no coordinator answers")?.bootstrap.source)
    }

    /// The directories of the layout's logs and storages.
    ///
    /// # Errors
    /// When no gateway says.
    pub fn stores(&self) -> anyhow::Result<BTreeSet<String>> {
        let layout: LiveLayout = self.get_json("/v1/layout")?;
        let durable = layout.recorded.config.layout.durable();
        Ok(durable.map(|(_, store, _)| store.to_string()).collect())
    }

    /// Waits until an epoch above this one is ready, and says which.
    ///
    /// # Errors
    /// None becomes ready.
    pub fn ready_above(&self, epoch: u64) -> anyhow::Result<u64> {
        eventually("a later epoch that is ready", || {
            let status = self.status()?;
            ensure!(status.ready && status.epoch.0 > epoch, "{status:?}");
            Ok(status.epoch.0)
        })
    }

    /// Has the coordinators begin a new epoch.
    ///
    /// # Errors
    /// They refuse.
    pub fn begin_recovery(&self, reason: &str) -> anyhow::Result<()> {
        let leader = self.process(|row| row.role == "leader")?;
        let token = std::fs::read_to_string(self.directory.join("admin-token"))?;
        let answer = self
            .http
            .post(format!("{}/v1/recoveries", leader.url))
            .bearer_auth(token.trim())
            .json(&serde_json::json!({ "reason": reason }))
            .send()?;
        let status = answer.status();
        ensure!(status.is_success(), "{status}: {}", answer.text()?);
        Ok(())
    }

    /// Writes a key through a gateway.
    ///
    /// # Errors
    /// When it is not acknowledged.
    pub fn put(&self, gateway: &str, key: &str, value: &str) -> anyhow::Result<()> {
        let url = format!("{gateway}/v1/keys/{key}");
        let answer = self.http.put(url).body(value.to_owned()).send()?;
        let status = answer.status();
        ensure!(status.is_success(), "put {key}: {status}: {}", answer.text()?);
        Ok(())
    }

    /// Removes a key through a gateway.
    ///
    /// # Errors
    /// When it is not acknowledged.
    pub fn delete(&self, gateway: &str, key: &str) -> anyhow::Result<()> {
        let answer = self.http.delete(format!("{gateway}/v1/keys/{key}")).send()?;
        let status = answer.status();
        ensure!(status.is_success(), "delete {key}: {status}: {}", answer.text()?);
        Ok(())
    }

    /// Reads a key through a gateway.
    ///
    /// # Errors
    /// When it answers neither with the value nor that there is none.
    pub fn get(&self, gateway: &str, key: &str) -> anyhow::Result<Option<String>> {
        let answer = self.http.get(format!("{gateway}/v1/keys/{key}")).send()?;
        match answer.status() {
            StatusCode::OK => Ok(Some(answer.text()?)),
            StatusCode::NOT_FOUND => Ok(None),
            status => bail!("get {key}: {status}: {}", answer.text()?),
        }
    }

    /// The processes as they are now.
    ///
    /// # Errors
    /// When no gateway says.
    pub fn processes(&self) -> anyhow::Result<Vec<ProcessRow>> {
        Ok(self.get_json::<Processes>("/v1/processes")?.processes)
    }

    /// The first process that meets a condition.
    ///
    /// # Errors
    /// When there is none, or no gateway says.
    pub fn process(&self, is_it: impl Fn(&ProcessRow) -> bool) -> anyhow::Result<ProcessRow> {
        let rows = self.processes()?;
        rows.iter().find(|row| is_it(row)).cloned().with_context(|| format!("none of {rows:?}"))
    }

    /// The processes of a kind, such as `log`.
    ///
    /// # Errors
    /// When no gateway says.
    pub fn of_kind(&self, kind: &str) -> anyhow::Result<Vec<ProcessRow>> {
        let mut rows = self.processes()?;
        rows.retain(|row| is_of_kind(row, kind));
        Ok(rows)
    }

    /// The storages' URLs by `service@node`.
    ///
    /// # Errors
    /// When no gateway says.
    pub fn storages(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let rows = self.of_kind("storage")?;
        Ok(rows.into_iter().map(|row| (reference(&row), row.url)).collect())
    }

    /// The configuration as a storage holds it on disk.
    ///
    /// # Errors
    /// When the storage does not say.
    pub fn shard_config(&self, storage: &str) -> anyhow::Result<ShardConfig> {
        let request = self.http.get(format!("{storage}/v1/shard_config"));
        Self::json(self.as_service(request)?.send()?)
    }

    /// What a storage holds of a key at a version.
    ///
    /// # Errors
    /// When the storage does not say.
    pub fn read_at(
        &self,
        storage: &str,
        epoch: u64,
        version: &str,
        key: &str,
    ) -> anyhow::Result<ReadAnswer> {
        let body = serde_json::json!({ "epoch": epoch, "version": version, "keys": [key] });
        let request = self.http.post(format!("{storage}/v1/reads")).json(&body);
        Self::json(self.as_service(request)?.send()?)
    }

    /// What a storage holds of a range at a version, piece by piece.
    ///
    /// # Errors
    /// When the storage does not say.
    pub fn range_at(
        &self,
        storage: &str,
        epoch: Epoch,
        version: Version,
        range: &KeyRange,
    ) -> anyhow::Result<Vec<KeyValue>> {
        let mut items: Vec<KeyValue> = Vec::new();
        loop {
            let from = items.last().map_or(range.from.clone(), |item| item.key.successor());
            let range = KeyRange { from, to: range.to.clone() };
            let ranges = vec![RangeRead { range, limit: RANGE_PIECE, reverse: false }];
            let body = ReadRequest { epoch, version, newest: false, keys: Vec::new(), ranges };
            let request = self.http.post(format!("{storage}/v1/reads")).json(&body);
            let answer: ReadAnswer = Self::json(self.as_service(request)?.send()?)?;
            let [piece] =
                <[_; 1]>::try_from(answer.ranges).map_err(|_| anyhow!("not one range"))?;
            ensure!(!(piece.items.is_empty() && piece.more), "a piece without an item");
            items.extend(piece.items);
            if !piece.more {
                return Ok(items);
            }
        }
    }

    /// `kill -9` of one process.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn kill(&self, os_pid: u32) -> anyhow::Result<()> {
        signal(os_pid, Signal::KILL)
    }

    /// `kill -9` of everything at once, `plinth up` first.
    ///
    /// # Errors
    /// When the processes can't be listed, or one of them lives on.
    pub fn kill_all(mut self) -> anyhow::Result<()> {
        kill_everything(&mut self.up, &self.directory)
    }

    /// `kill -9` of `plinth up` alone.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn kill_up(mut self) -> anyhow::Result<()> {
        self.up.kill()?;
        self.up.wait()?;
        Ok(())
    }

    /// Stops it as Ctrl-C does, and waits for the end.
    ///
    /// # Errors
    /// When it does not end in good order.
    pub fn stop(mut self) -> anyhow::Result<()> {
        signal(self.up.id(), Signal::INT)?;
        let status = eventually("a clean stop", || self.up.try_wait()?.context("it still runs"))?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

fn kill_everything(up: &mut Child, directory: &Path) -> anyhow::Result<()> {
    let mut remains = Remains::default();
    // Some may end by themselves as soon as `plinth up` does.
    remains.look(directory, |_| ())?;
    up.kill()?;
    up.wait()?;
    // One that was being started when its foreman was killed comes up after the others are gone.
    eventually("the end of every process", || {
        // One that has just ended by itself is gone as well.
        let left = remains.look(directory, |pid| drop(signal(pid, Signal::KILL)))?;
        ensure!(left.is_empty(), "still there: {left:?}");
        Ok(())
    })
}

/// Waits until no process of a cluster's directory lives.
///
/// # Errors
/// One lives on.
pub fn gone(directory: &Path) -> anyhow::Result<()> {
    let mut remains = Remains::default();
    eventually("the end of every process", || {
        let left = remains.look(directory, |_| ())?;
        ensure!(left.is_empty(), "still there: {left:?}");
        Ok(())
    })
}

/// `service@node`.
#[must_use]
pub fn reference(row: &ProcessRow) -> String {
    format!("{}@{}", row.service, row.node)
}

/// Whether a process is of a kind, such as `log`.
#[must_use]
pub fn is_of_kind(row: &ProcessRow, kind: &str) -> bool {
    row.service.rsplit_once('-').is_some_and(|(of, _)| of == kind)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Already ended by `stop` or `kill_all`: nothing to do.
        if let Ok(None) = self.up.try_wait() {
            let _ = signal(self.up.id(), Signal::TERM);
            let _ = self.up.wait();
            // Workers outlive a foreman that the test has killed, and keep ports that others look for.
            for pid in processes_of(&self.directory).unwrap_or_default() {
                let _ = signal(pid, Signal::KILL);
            }
        }
    }
}
