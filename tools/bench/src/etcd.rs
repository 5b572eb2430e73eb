//! Three nodes of etcd with its defaults.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::processes::{Owned, kill_all};

/// How long an election may take.
const ELECTION: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) struct Etcd {
    nodes: Vec<Node>,
    urls: Vec<String>,
}

struct Node {
    command: Command,
    log: PathBuf,
    process: Owned,
}

impl Etcd {
    /// Starts three nodes. The ports are kept in the directory: a cluster's members are known by
    /// them when it starts again.
    pub(crate) fn start(executable: &Path, directory: &Path) -> anyhow::Result<Etcd> {
        let kept = directory.join("ports");
        let ports: Vec<u16> = match std::fs::read_to_string(&kept) {
            Ok(text) => text.lines().map(str::parse).collect::<Result<_, _>>()?,
            Err(_) => {
                let ports = free_ports(6)?;
                let lines: String = ports.iter().map(|port| format!("{port}\n")).collect();
                std::fs::write(&kept, lines)?;
                ports
            }
        };
        let (clients, peers) = ports.split_at(ports.len() / 2);
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        let members: Vec<String> =
            (1..).zip(peers).map(|(number, port)| format!("node-{number}={}", url(port))).collect();
        let members = members.join(",");
        let mut nodes = Vec::new();
        for (number, (client, peer)) in (1..).zip(clients.iter().zip(peers)) {
            let name = format!("node-{number}");
            let mut command = Command::new(executable);
            command.arg("--data-dir").arg(directory.join(&name)).args([
                "--name",
                &name,
                "--listen-client-urls",
                &url(client),
                "--advertise-client-urls",
                &url(client),
                "--listen-peer-urls",
                &url(peer),
                "--initial-advertise-peer-urls",
                &url(peer),
                "--initial-cluster",
                &members,
                "--initial-cluster-state",
                "new",
                "--log-level",
                "error",
            ]);
            let log = directory.join(format!("{name}.log"));
            let process = Owned::spawn(&mut command, &log)?;
            nodes.push(Node { command, log, process });
        }
        Ok(Etcd { nodes, urls: clients.iter().map(url).collect() })
    }

    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.process.id()).collect()
    }

    /// The URL of the leader, once there is one.
    pub(crate) async fn leader(&self) -> anyhow::Result<String> {
        self.leader_index().await.map(|index| self.urls[index].clone())
    }

    async fn leader_index(&self) -> anyhow::Result<usize> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(1)).build()?;
        let deadline = Instant::now() + ELECTION;
        while Instant::now() < deadline {
            for (index, url) in self.urls.iter().enumerate() {
                let ask = client.post(format!("{url}/v3/maintenance/status")).body("{}");
                let Ok(answer) = ask.send().await else { continue };
                let Ok(status) = answer.json::<Value>().await else { continue };
                let own = status.pointer("/header/member_id").and_then(Value::as_str);
                if own.is_some() && own == status.get("leader").and_then(Value::as_str) {
                    return Ok(index);
                }
            }
            sleep(LOOK).await;
        }
        bail!("etcd has no leader after {} s", ELECTION.as_secs())
    }

    /// Waits until every node says that it is healthy.
    pub(crate) async fn all_healthy(&self) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(1)).build()?;
        let deadline = Instant::now() + ELECTION;
        for url in &self.urls {
            loop {
                match client.get(format!("{url}/health")).send().await {
                    Ok(answer) if answer.status().is_success() => break,
                    _ if Instant::now() >= deadline => bail!("{url} is not healthy"),
                    Ok(_) | Err(_) => sleep(LOOK).await,
                }
            }
        }
        Ok(())
    }

    fn node(&mut self, url: &str) -> anyhow::Result<&mut Node> {
        let index = self.urls.iter().position(|known| known == url).context("no such node")?;
        self.nodes.get_mut(index).context("no such node")
    }

    /// `kill -9` of the node at this URL.
    pub(crate) async fn kill(&mut self, url: &str) -> anyhow::Result<()> {
        kill_all(&[self.node(url)?.process.id()]).await
    }

    /// Starts the node at this URL again.
    pub(crate) fn restart(&mut self, url: &str) -> anyhow::Result<()> {
        let node = self.node(url)?;
        node.process = Owned::spawn(&mut node.command, &node.log)?;
        Ok(())
    }

    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.process.stop().await?;
        }
        Ok(())
    }
}

/// Free ports on loopback, all different.
pub(crate) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    // Asked for a free port and let go: nothing is served.
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<_, _>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
