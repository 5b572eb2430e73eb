//! A cluster on its way to being ready.

use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::blocking::Client;
use rustix::process::Signal;
use tokio::time::Instant;

use super::{Cluster, kill_everything, up};
use crate::{PATIENCE, signal};

/// A cluster that may not be ready yet. Dropping it kills what there is of it.
pub struct Starting {
    directory: PathBuf,
    up: Option<Child>,
    http: Client,
    lines: mpsc::Receiver<(bool, String)>,
}

impl Starting {
    /// Starts a cluster in a directory with the first gateway at this port, and waits for nothing.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn at(directory: &Path, port: u16) -> anyhow::Result<Starting> {
        let mut command = up(directory, 3)?;
        command.args(["--gateway-port", &port.to_string()]);
        Starting::run(command, directory)
    }

    pub(super) fn run(mut command: Command, directory: &Path) -> anyhow::Result<Starting> {
        let mut up = command.spawn()?;
        let (sender, lines) = mpsc::channel();
        let stdout = up.stdout.take().context("no standard output")?;
        let stderr = up.stderr.take().context("no standard error")?;
        for (is_answer, stream) in
            [(true, Box::new(stdout) as Box<dyn Read + Send>), (false, Box::new(stderr))]
        {
            let lines = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = lines.send((is_answer, line));
                }
            });
        }
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        Ok(Starting { directory: directory.to_owned(), up: Some(up), http, lines })
    }

    /// The client that the tests ask with.
    #[must_use]
    pub fn http(&self) -> &Client {
        &self.http
    }

    /// Waits until the cluster is ready.
    ///
    /// # Errors
    /// When it does not become ready; the error carries what it said.
    pub fn ready(mut self) -> anyhow::Result<Cluster> {
        let mut said = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((true, line)) => {
                    let ready = serde_json::from_str(&line)
                        .with_context(|| format!("not the line of a ready cluster: {line}"))?;
                    let up = self.up.take().context("it has ended")?;
                    let (directory, http) = (self.directory.clone(), self.http.clone());
                    return Ok(Cluster { directory, up, http, ready });
                }
                Ok((false, line)) => said.push(line),
                Err(error) => bail!("not ready ({error}); it said:\n{}", said.join("\n")),
            }
        }
    }
}

impl Starting {
    /// `kill -9` of everything at once, `plinth up` first.
    ///
    /// # Errors
    /// When the processes can't be listed, or one of them lives on.
    pub fn kill_all(mut self) -> anyhow::Result<()> {
        let mut up = self.up.take().context("it has ended")?;
        kill_everything(&mut up, &self.directory)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut up) = self.up.take() {
            let _ = signal(up.id(), Signal::TERM);
            let _ = up.wait();
        }
    }
}
