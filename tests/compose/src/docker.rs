//! The engine, by its command line.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

/// Runs a command and gives what it printed.
///
/// # Errors
/// It can't be started, or fails; the message has what it said.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("{shown} can't be run"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{shown}: {}\n{printed}{said}", output.status);
    Ok(printed.into_owned())
}

/// Runs `docker` with these arguments.
///
/// # Errors
/// As for [`run`].
pub fn docker<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> anyhow::Result<String> {
    run(Command::new("docker").args(args))
}

/// A container, as `docker inspect` tells it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// Its id.
    pub id: String,
    /// How often the engine has started it again.
    pub restart_count: u64,
    /// What it is doing.
    pub state: State,
    /// What it was made with.
    pub config: Config,
    /// Where it is reached.
    pub network_settings: NetworkSettings,
}

/// What a container is doing.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    /// `running`, `exited`, …
    pub status: String,
    /// Of the last run.
    pub exit_code: i64,
    /// None without a health check.
    pub health: Option<Health>,
}

/// What the health check says.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy`, `unhealthy`.
    pub status: String,
}

/// What a container was made with.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// Whom its process runs as.
    pub user: String,
    /// Among them those of Compose.
    pub labels: BTreeMap<String, String>,
}

/// Where a container is reached.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkSettings {
    /// By name.
    pub networks: BTreeMap<String, Network>,
    /// Published ports by the container's.
    pub ports: BTreeMap<String, Option<Vec<Published>>>,
}

/// A container's place on a network.
#[derive(Clone, Debug, Deserialize)]
pub struct Network {
    /// Its address there; empty while the container does not run.
    #[serde(rename = "IPAddress")]
    pub address: String,
}

/// A published port.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Published {
    /// The host's address.
    pub host_ip: String,
    /// The host's port.
    pub host_port: String,
}

impl Container {
    /// The name of its service in the Compose file.
    #[must_use]
    pub fn service(&self) -> &str {
        self.config.labels.get("com.docker.compose.service").map_or("", String::as_str)
    }

    /// Whether it does what it should: healthy, or done.
    #[must_use]
    pub fn is_well(&self) -> bool {
        match (&self.state.health, self.state.status.as_str()) {
            (Some(health), "running") => health.status == "healthy",
            (None, "exited") => self.state.exit_code == 0,
            _ => false,
        }
    }

    /// What it does, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let health = self.state.health.as_ref().map_or("", |health| &health.status);
        let State { status, exit_code, .. } = &self.state;
        format!("{} {status} {health} (exit {exit_code})", self.service())
    }
}
