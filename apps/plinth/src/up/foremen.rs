//! The foremen of `plinth up`: one process a node, each with the read end of a pipe whose other end
//! only this process has, so that they see its death.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use plinth_foreman::spawner::last_line;
use plinth_types::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::cli::{LogFormat, TelemetryArgs};
use crate::process::{self, USAGE};

use super::Cluster;

/// How long foremen have to stop everything. They give their workers 3 s.
const STOP: Duration = Duration::from_secs(6);
/// How long a foreman waits for its directory: foremen of a cluster that was killed take up to 5 s
/// to end.
const LOCK_PATIENCE: &str = "8";
/// The pause before a foreman that has ended is started again.
const RESTART: Duration = Duration::from_millis(200);

struct Foreman {
    node: String,
    log: PathBuf,
    command: Box<dyn Fn() -> anyhow::Result<Child>>,
    child: Option<Child>,
    /// The other end of the child's standard input; closed when this process ends.
    pipe: Option<ChildStdin>,
    restart_at: Option<Instant>,
    /// Whether this is not its first start.
    is_again: bool,
}

/// The foremen.
pub(crate) struct Foremen(Vec<Foreman>);

impl Foremen {
    /// Starts one a node.
    pub(crate) fn start(
        cluster: &Cluster,
        telemetry: &TelemetryArgs,
        otlp: Option<&str>,
    ) -> anyhow::Result<Foremen> {
        let executable = process::executable()?;
        let mut foremen = Vec::new();
        for (node, gateway_port) in &cluster.nodes {
            let directory = cluster.node_directory(node);
            std::fs::create_dir_all(&directory)
                .with_context(|| format!("{} can't be made", directory.display()))?;
            let log = directory.join("foreman-1.log");
            let arguments = arguments(cluster, node, *gateway_port, telemetry, otlp);
            let (executable, output) = (executable.clone(), log.clone());
            let command = Box::new(move || spawn(&executable, &arguments, &output));
            let mut foreman = Foreman {
                node: node.to_string(),
                log,
                command,
                child: None,
                pipe: None,
                restart_at: None,
                is_again: false,
            };
            foreman.start()?;
            foremen.push(foreman);
        }
        Ok(Foremen(foremen))
    }

    /// Starts again whichever ends. Returns only when one says at its first start that it was started
    /// wrongly: what befalls a node later on is no reason to end the others.
    pub(crate) async fn supervise(&mut self) -> anyhow::Error {
        let mut all: FuturesUnordered<_> = self.0.iter_mut().map(Foreman::supervise).collect();
        match all.next().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Stops them, and with them everything.
    pub(crate) async fn stop(&mut self) {
        let deadline = Instant::now() + STOP;
        for foreman in &self.0 {
            foreman.signal(Signal::TERM);
        }
        for foreman in &mut self.0 {
            let Some(child) = &mut foreman.child else { continue };
            if timeout_at(deadline, child.wait()).await.is_err() {
                foreman.signal(Signal::KILL);
            }
        }
    }
}

impl Foreman {
    fn start(&mut self) -> anyhow::Result<()> {
        let mut child = (self.command)()?;
        // Taken out, because waiting for a child closes the pipe that it still has.
        self.pipe = child.stdin.take();
        self.child = Some(child);
        Ok(())
    }

    async fn supervise(&mut self) -> anyhow::Error {
        loop {
            if let Some(at) = self.restart_at {
                sleep_until(at).await;
                self.restart_at = None;
                if let Err(error) = self.start() {
                    return error;
                }
            }
            let Some(child) = &mut self.child else {
                return anyhow!("{} has no foreman", self.node);
            };
            let status = match child.wait().await {
                Ok(status) => status,
                Err(error) => return error.into(),
            };
            self.child = None;
            if status.code() == Some(i32::from(USAGE)) && !self.is_again {
                return self.describe(status);
            }
            self.is_again = true;
            self.restart_at = Some(Instant::now() + RESTART);
        }
    }

    fn describe(&self, status: ExitStatus) -> anyhow::Error {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited with status {code}"),
            (None, signal) => format!("was killed by signal {}", signal.unwrap_or_default()),
        };
        let words = last_line(&self.log).unwrap_or_else(|| "it left no word".to_owned());
        anyhow!("the foreman of {} {how}: {words} (see {})", self.node, self.log.display())
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().and_then(Child::id);
        let id = id.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            // Only a process that has just ended refuses.
            let _ = kill_process(id, signal);
        }
    }
}

fn spawn(executable: &Path, arguments: &[String], log: &Path) -> anyhow::Result<Child> {
    let output = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("{} can't be written", log.display()))?;
    Command::new(executable)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .with_context(|| format!("{} can't be started", executable.display()))
}

fn arguments(
    cluster: &Cluster,
    node: &NodeId,
    gateway_port: u16,
    telemetry: &TelemetryArgs,
    otlp: Option<&str>,
) -> Vec<String> {
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    let mut line: Vec<String> = ["node", "--parent-pipe"].map(str::to_owned).into();
    let mut flag = |name: &str, value: String| line.extend([name.to_owned(), value]);
    flag("--node", node.to_string());
    flag("--data-dir", path(cluster.node_directory(node)));
    flag("--cluster-file", path(cluster.file_path()));
    flag("--secret-file", path(cluster.secret_path()));
    flag("--admin-token-file", path(cluster.token_path()));
    flag("--gateway-bind", format!("127.0.0.1:{gateway_port}"));
    flag("--lock-patience", LOCK_PATIENCE.to_owned());
    if let Some(otlp) = otlp {
        flag("--otlp", otlp.to_owned());
    }
    let format = match telemetry.log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    flag("--log-format", format.to_owned());
    flag("--log", telemetry.log.clone());
    line
}
