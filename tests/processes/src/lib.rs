//! A cluster of real processes for tests: `plinth up` in a directory of its own, killed and started
//! again at will.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use plinth_api::coordinator::{ProcessRow, Processes};
use plinth_api::storage::{ReadAnswer, ShardConfig};
use reqwest::StatusCode;
use reqwest::blocking::{Client, RequestBuilder, Response};
use rustix::process::{Pid, Signal};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// How long any state may take to come. Generous: machines are slow, and no test is about time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What `plinth up --json` prints when it is ready.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// From the start to ready.
    pub ready_ms: u64,
    /// URLs of the gateways.
    pub gateways: Vec<String>,
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

/// The executable under test, which lies beside the tests' own.
fn executable() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own
        .parent()
        .and_then(Path::parent)
        .context("the test runs outside of a target directory")?
        .join("plinth");
    ensure!(path.is_file(), "{} is missing: build the workspace first", path.display());
    Ok(path)
}

/// `plinth up` in this directory, not yet started.
///
/// # Errors
/// When the executable is missing.
pub fn up(directory: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(executable()?);
    command.args(["up", "--nodes", "3", "--json", "--data-dir"]).arg(directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Tries until it succeeds, for as long as [`PATIENCE`] lasts.
///
/// # Errors
/// The last failure.
pub fn eventually<T>(
    what: &str,
    mut attempt: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => return Err(error).context(what.to_owned()),
            Err(_) => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}

impl Cluster {
    /// Starts a cluster in a directory, new or old, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; the error carries what it said.
    pub fn start(directory: &Path) -> anyhow::Result<Cluster> {
        let mut up = up(directory)?.spawn()?;
        let (lines, ready) = mpsc::channel();
        let stdout = up.stdout.take().context("no standard output")?;
        let stderr = up.stderr.take().context("no standard error")?;
        for (is_answer, stream) in
            [(true, Box::new(stdout) as Box<dyn std::io::Read + Send>), (false, Box::new(stderr))]
        {
            let lines = lines.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = lines.send((is_answer, line));
                }
            });
        }
        drop(lines);
        let mut said = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        let http = Client::builder().timeout(Duration::from_secs(10)).build()?;
        loop {
            match ready.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((true, line)) if line.starts_with('{') => {
                    let ready = serde_json::from_str(&line)?;
                    return Ok(Cluster { directory: directory.to_owned(), up, http, ready });
                }
                Ok((_, line)) => said.push(line),
                Err(error) => {
                    let _ = rustix::process::kill_process(pid(up.id())?, Signal::TERM);
                    let _ = up.wait();
                    bail!("not ready ({error}); it said:\n{}", said.join("\n"));
                }
            }
        }
    }

    /// The first gateway's URL.
    ///
    /// # Errors
    /// When there is none.
    pub fn gateway(&self) -> anyhow::Result<&str> {
        self.ready.gateways.first().map(String::as_str).context("no gateway")
    }

    /// A request to a service, as a service.
    fn secret(&self, request: RequestBuilder) -> anyhow::Result<RequestBuilder> {
        let secret = std::fs::read_to_string(self.directory.join("secret"))?;
        Ok(request.header(plinth_api::HEADER_SECRET, secret.trim()))
    }

    fn json<T: DeserializeOwned>(response: Response) -> anyhow::Result<T> {
        let status = response.status();
        let text = response.text()?;
        ensure!(status.is_success(), "{status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// GETs a JSON document of the first gateway.
    ///
    /// # Errors
    /// When it answers otherwise.
    pub fn get_json<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        Self::json(self.http.get(format!("{}{path}", self.gateway()?)).send()?)
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
    /// When the gateway does not say.
    pub fn processes(&self) -> anyhow::Result<Vec<ProcessRow>> {
        Ok(self.get_json::<Processes>("/v1/processes")?.processes)
    }

    /// The storages' URLs by `service@node`.
    ///
    /// # Errors
    /// When the gateway does not say.
    pub fn storages(&self) -> anyhow::Result<BTreeMap<String, String>> {
        Ok(self
            .processes()?
            .into_iter()
            .filter(|row| row.service.starts_with("storage-"))
            .map(|row| (format!("{}@{}", row.service, row.node), row.url))
            .collect())
    }

    /// The configuration as a storage holds it on disk.
    ///
    /// # Errors
    /// When the storage does not say.
    pub fn shard_config(&self, storage: &str) -> anyhow::Result<ShardConfig> {
        let request = self.http.get(format!("{storage}/v1/shard_config"));
        Self::json(self.secret(request)?.send()?)
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
        Self::json(self.secret(request)?.send()?)
    }

    /// Where a storage stands.
    ///
    /// # Errors
    /// When the storage does not say.
    pub fn storage_status(&self, storage: &str) -> anyhow::Result<plinth_api::storage::Status> {
        let request = self.http.get(format!("{storage}/v1/status"));
        Self::json(self.secret(request)?.send()?)
    }

    /// `kill -9` of one process.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn kill(&self, os_pid: u32) -> anyhow::Result<()> {
        Ok(rustix::process::kill_process(pid(os_pid)?, Signal::KILL)?)
    }

    /// `kill -9` of everything at once, `plinth up` first.
    ///
    /// # Errors
    /// When the processes can't be listed.
    pub fn kill_all(mut self) -> anyhow::Result<()> {
        let processes = self.processes()?;
        self.up.kill()?;
        for row in processes {
            let _ = self.kill(row.os_pid);
        }
        self.up.wait()?;
        Ok(())
    }

    /// Stops it as Ctrl-C does, and waits for the end.
    ///
    /// # Errors
    /// When it does not end in good order.
    pub fn stop(mut self) -> anyhow::Result<()> {
        rustix::process::kill_process(pid(self.up.id())?, Signal::INT)?;
        let status = eventually("a clean stop", || self.up.try_wait()?.context("it still runs"))?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Already ended by `stop` or `kill_all`: nothing to do. Else its foremen see the pipe close.
        if let Ok(None) = self.up.try_wait() {
            let _ = pid(self.up.id()).map(|pid| rustix::process::kill_process(pid, Signal::TERM));
            let _ = self.up.wait();
        }
    }
}

fn pid(raw: u32) -> anyhow::Result<Pid> {
    Pid::from_raw(i32::try_from(raw)?).context("process id 0")
}
