//! The containers of `compose.yaml` as one thing that is brought up and taken down.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use plinth_api::coordinator::{ProcessRow, Processes};
use plinth_api::gateway::ClusterStatus;
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;

use crate::docker::{Container, docker, run};
use crate::{eventually, image, repository};

/// The name under which Compose knows it. Fixed, so that what a killed run left is found again.
pub const PROJECT: &str = "plinth-test-compose";
const LABEL: &str = "label=com.docker.compose.project=plinth-test-compose";

/// The engine's name of a network of `compose.yaml`.
#[must_use]
pub fn network(name: &str) -> String {
    format!("{PROJECT}_{name}")
}

/// The cluster's containers. Dropping it takes them away, with their volumes and images.
pub struct Stack {
    compose: Vec<&'static str>,
    http: reqwest::blocking::Client,
    removed: bool,
    // Two runs at a time would take each other's containers for leftovers.
    _lock: File,
}

impl Stack {
    /// Nothing runs yet, and nothing is left of a run before.
    ///
    /// # Errors
    /// No engine answers, there is no Compose, or leftovers can't be removed.
    pub fn new() -> anyhow::Result<Stack> {
        docker(["version", "--format", "{{.Server.Version}}"])
            .context("no Docker engine answers")?;
        let plugin = docker(["compose", "version"]).is_ok();
        let compose = if plugin { vec!["docker", "compose"] } else { vec!["docker-compose"] };
        let lock = File::create(std::env::temp_dir().join("plinth-test-compose.lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let http = reqwest::blocking::Client::builder()
            .timeout(std::time::Duration::from_secs(10))
            .no_proxy()
            .build()?;
        let mut stack = Stack { compose, http, removed: true, _lock: lock };
        stack.remove()?;
        stack.removed = false;
        Ok(stack)
    }

    /// Which Compose it is.
    #[must_use]
    pub fn compose_name(&self) -> String {
        self.compose.join(" ")
    }

    /// Runs Compose with these arguments.
    ///
    /// # Errors
    /// It fails.
    pub fn compose(&self, args: &[&str]) -> anyhow::Result<String> {
        let root = repository()?;
        let [program, first @ ..] = self.compose.as_slice() else { bail!("no Compose") };
        let mut command = Command::new(program);
        command.args(first).args(["--project-name", PROJECT]);
        for file in ["compose.yaml", "tests/compose/override.yaml"] {
            command.arg("--file").arg(root.join(file));
        }
        // Port 0: any that is free.
        command.env("PLINTH_GATEWAY_PORT", "0").env("PLINTH_JAEGER_PORT", "0");
        command.env("PLINTH_IMAGE", image::PLINTH).current_dir(root);
        run(command.args(args))
    }

    /// Starts everything that does not run, and waits until all is well.
    ///
    /// # Errors
    /// Something does not become well; the error says what.
    pub fn up(&self) -> anyhow::Result<()> {
        self.compose(&["up", "--detach", "--no-build"])?;
        self.wait_until_well()
    }

    /// Waits until every container is healthy, and the one-shot one done.
    ///
    /// # Errors
    /// Something does not become well; the error says what.
    pub fn wait_until_well(&self) -> anyhow::Result<()> {
        let names = self.compose(&["config", "--services"])?;
        let names: Vec<&str> = names.split_whitespace().collect();
        eventually("every container is healthy", || {
            let found = self.containers()?;
            for name in &names {
                let container = found.get(*name).with_context(|| format!("no {name}"))?;
                ensure!(container.is_well(), "{}", container.describe());
            }
            Ok(())
        })
    }

    /// Every container there is, by service.
    ///
    /// # Errors
    /// The engine does not say.
    pub fn containers(&self) -> anyhow::Result<BTreeMap<String, Container>> {
        let ids = docker(["ps", "--all", "--quiet", "--filter", LABEL])?;
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let shown = docker(["inspect"].into_iter().chain(ids))?;
        let containers: Vec<Container> = serde_json::from_str(&shown)?;
        let named = |container: Container| (container.service().to_owned(), container);
        Ok(containers.into_iter().map(named).collect())
    }

    /// The container of a service.
    ///
    /// # Errors
    /// There is none.
    pub fn container(&self, service: &str) -> anyhow::Result<Container> {
        self.containers()?.remove(service).with_context(|| format!("no container of {service}"))
    }

    /// `127.0.0.1:port`, where the engine publishes a service's port.
    ///
    /// # Errors
    /// It does not, or not on loopback alone.
    pub fn published(&self, service: &str, port: u16) -> anyhow::Result<String> {
        let container = self.container(service)?;
        let ports = container.network_settings.ports.get(&format!("{port}/tcp"));
        let published = ports.and_then(Option::as_ref).context("the port is not published")?;
        match published.as_slice() {
            [one] if one.host_ip == "127.0.0.1" => Ok(format!("127.0.0.1:{}", one.host_port)),
            other => bail!("{service} is published as {other:?}"),
        }
    }

    /// The URL of the gateway of each node, on that node's own network: it answers this machine while the
    /// node is cut off from the others, too.
    ///
    /// # Errors
    /// A node has none.
    pub fn gateways(&self) -> anyhow::Result<BTreeMap<&'static str, String>> {
        let containers = self.containers()?;
        let nodes = [("node-1", "gateway-1"), ("node-2", "gateway-2"), ("node-3", "gateway")];
        let url = |(node, service): (&'static str, &str)| {
            let networks =
                &containers.get(service).context("no gateway")?.network_settings.networks;
            let own = networks.get(&network(node)).with_context(|| format!("not on {node}"))?;
            Ok((node, format!("http://{}:7000", own.address)))
        };
        nodes.into_iter().map(url).collect()
    }

    /// Takes containers off a network. Nobody is told: what they send there is lost.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn cut(&self, containers: &[Container], network: &str) -> anyhow::Result<()> {
        for container in containers {
            docker(["network", "disconnect", network, &container.id])?;
        }
        Ok(())
    }

    /// Connects containers to a network again, under their names.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn mend(&self, containers: &[Container], network: &str) -> anyhow::Result<()> {
        for container in containers {
            let alias = container.service();
            docker(["network", "connect", "--alias", alias, network, &container.id])?;
        }
        Ok(())
    }

    /// GETs bytes of a published port.
    ///
    /// # Errors
    /// It answers otherwise.
    pub fn get_bytes(&self, service: &str, port: u16, path: &str) -> anyhow::Result<Vec<u8>> {
        let url = format!("http://{}{path}", self.published(service, port)?);
        let answer = self.http.get(&url).send()?;
        let status = answer.status();
        let bytes = answer.bytes()?.to_vec();
        ensure!(status.is_success(), "{url}: {status}: {}", String::from_utf8_lossy(&bytes));
        Ok(bytes)
    }

    /// GETs a JSON document of the gateway.
    ///
    /// # Errors
    /// It answers otherwise.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        Ok(serde_json::from_slice(&self.get_bytes("gateway", 7000, path)?)?)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// The gateway answers otherwise, also where there is none.
    pub fn value(&self, key: &str) -> anyhow::Result<String> {
        let value = self.get_bytes("gateway", 7000, &format!("/v1/keys/{key}"))?;
        Ok(String::from_utf8(value)?)
    }

    /// Writes a key. Told once: what was not acknowledged is an error.
    ///
    /// # Errors
    /// It was not acknowledged.
    pub fn put(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let url = format!("http://{}/v1/keys/{key}", self.published("gateway", 7000)?);
        let answer = self.http.put(url).body(value.to_owned()).send()?;
        let status = answer.status();
        ensure!(status.is_success(), "put {key}: {status}: {}", answer.text()?);
        Ok(())
    }

    /// The processes as they are now.
    ///
    /// # Errors
    /// The gateway does not say.
    pub fn processes(&self) -> anyhow::Result<Vec<ProcessRow>> {
        Ok(self.get::<Processes>("/v1/processes")?.processes)
    }

    /// Waits until commits are accepted in an epoch above this one.
    ///
    /// # Errors
    /// They are not; the error says how far it came.
    pub fn ready_above(&self, epoch: u64) -> anyhow::Result<ClusterStatus> {
        self.ready_at(&format!("http://{}", self.published("gateway", 7000)?), epoch)
    }

    /// The same, as the gateway at this URL tells.
    ///
    /// # Errors
    /// As for [`Stack::ready_above`].
    pub fn ready_at(&self, gateway: &str, epoch: u64) -> anyhow::Result<ClusterStatus> {
        eventually(&format!("an epoch above {epoch} is ready"), || {
            let answer = self.http.get(format!("{gateway}/v1/status")).send()?;
            let status: ClusterStatus = serde_json::from_slice(&answer.bytes()?)?;
            let told = format!("epoch {} {}: {:?}", status.epoch, status.phase, status.problems);
            ensure!(status.ready && status.epoch.0 > epoch, "{told}");
            Ok(status)
        })
    }

    /// What the containers do and say, for whoever has to find out why a test failed.
    #[must_use]
    pub fn report(&self) -> String {
        let containers = self.containers().unwrap_or_default();
        let mut text = String::new();
        for container in containers.values() {
            text.push_str(&container.describe());
            text.push('\n');
        }
        let said = self.compose(&["logs", "--no-color", "--tail=15"]);
        text.push_str(&said.unwrap_or_else(|error| format!("{error:#}")));
        text
    }

    /// Takes away containers, networks, volumes and images, and checks that nothing is left.
    ///
    /// # Errors
    /// The engine refuses, or something is left.
    pub fn remove(&self) -> anyhow::Result<()> {
        self.compose(&["down", "--volumes", "--remove-orphans", "--timeout=10"])?;
        for kind in ["container", "network", "volume"] {
            let left = docker([kind, "ls", "--quiet", "--filter", LABEL])?;
            ensure!(left.trim().is_empty(), "left behind: {kind} {left}");
        }
        image::remove()
    }

    /// As [`Stack::remove`], and does nothing more when dropped.
    ///
    /// # Errors
    /// As for [`Stack::remove`].
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.removed = true;
        self.remove()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if !self.removed
            && let Err(error) = self.remove()
        {
            eprintln!("the containers could not be taken away: {error:#}");
        }
    }
}
