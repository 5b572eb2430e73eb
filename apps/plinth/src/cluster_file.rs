//! The cluster file: what a process must know to find its cluster. `plinth up` writes it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};
use plinth_api::Target;
use plinth_system_config::Parameters;
use plinth_types::{ClusterId, NodeId, ServiceKind, ServiceRef};
use serde::{Deserialize, Serialize};

/// A coordinator and where it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorEntry {
    /// Which service.
    pub service: ServiceRef,
    /// `http://host:port`; the host is resolved at each connect.
    pub url: String,
}

impl FromStr for CoordinatorEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("{text:?} is not of the form coordinator-1@node-1=http://host:port");
        let (service, url) = text.split_once('=').ok_or_else(form)?;
        let service = service.parse().map_err(|error| format!("{}: {error}", form()))?;
        Ok(CoordinatorEntry { service, url: url.to_owned() })
    }
}

impl CoordinatorEntry {
    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        Target::address(&self.url).address
    }
}

/// The cluster file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its coordinators: 1, 3 or 5.
    pub coordinators: Vec<CoordinatorEntry>,
    /// The nodes that must all be heard before the cluster may be taken for a new one.
    pub initial_nodes: Vec<NodeId>,
    /// The parameters of a new cluster, where they are not the default ones. Once it is founded, they
    /// are part of its configuration, and what stands here means nothing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub parameters: Parameters,
}

fn is_default(parameters: &Parameters) -> bool {
    *parameters == Parameters::default()
}

impl ClusterFile {
    /// Reads and checks a cluster file.
    ///
    /// # Errors
    /// It can't be read, or what it says can't be; the message says what to do.
    pub fn read(path: &Path) -> anyhow::Result<ClusterFile> {
        let shown = path.display();
        let text = std::fs::read(path)
            .with_context(|| format!("the cluster file {shown} can't be read"))?;
        let file: ClusterFile = serde_json::from_slice(&text)
            .with_context(|| format!("the cluster file {shown} is not what `plinth up` writes"))?;
        file.check().with_context(|| format!("the cluster file {shown} can't be used"))?;
        Ok(file)
    }

    /// Every coordinator as a target of calls.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        self.coordinators.iter().map(|entry| Target::address(&entry.url)).collect()
    }

    /// Where a coordinator answers, `host:port`.
    #[must_use]
    pub fn address_of(&self, service: &ServiceRef) -> Option<String> {
        let entry = self.coordinators.iter().find(|entry| entry.service == *service)?;
        Some(entry.address())
    }

    /// The file as a coordinator takes it.
    #[must_use]
    pub fn for_coordinator(&self) -> plinth_coordinator::ClusterFile {
        let address = |entry: &CoordinatorEntry| plinth_coordinator::CoordinatorAddress {
            service: entry.service.clone(),
            address: entry.address(),
        };
        plinth_coordinator::ClusterFile {
            cluster_id: self.cluster,
            coordinators: self.coordinators.iter().map(address).collect(),
            initial_nodes: self.initial_nodes.iter().cloned().collect(),
        }
    }

    /// Writes the file whole or not at all: a half-written one would never be read again.
    ///
    /// # Errors
    /// What it says can't be, or it can't be written.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        self.check().with_context(|| format!("{} would be of no use", path.display()))?;
        let text = serde_json::to_vec_pretty(self)?;
        let aside = path.with_extension("json.new");
        let write = || {
            let mut out = File::create(&aside)?;
            out.write_all(&text)?;
            out.write_all(b"\n")?;
            out.sync_all()?;
            std::fs::rename(&aside, path)
        };
        write().with_context(|| format!("{} can't be written", path.display()))
    }

    fn check(&self) -> anyhow::Result<()> {
        let count = self.coordinators.len();
        ensure!(
            matches!(count, 1 | 3 | 5),
            "it names {count} coordinators, and a cluster has 1, 3 or 5: add or remove some"
        );
        ensure!(!self.initial_nodes.is_empty(), "initial_nodes is empty: name every node");
        if let Some(problem) = self.parameters.problems().first() {
            bail!("parameters: {problem}");
        }
        let mut seen = BTreeSet::new();
        for entry in &self.coordinators {
            let service = &entry.service;
            ensure!(
                service.kind() == ServiceKind::Coordinator,
                "{service} stands among the coordinators and is none: its name must be coordinator-<number>@<node>"
            );
            let address = entry.address();
            let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            ensure!(
                matches!(port, Some(Ok(1..))),
                "{service} has the url {:?}, which is not of the form http://host:port",
                entry.url
            );
            ensure!(
                seen.insert(service.to_string()) && seen.insert(address),
                "{service} or its url is named twice: give each coordinator its own"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(coordinators: &[(&str, &str)]) -> ClusterFile {
        ClusterFile {
            cluster: ClusterId(1),
            coordinators: coordinators
                .iter()
                .map(|(service, url)| CoordinatorEntry {
                    service: service.parse().unwrap(),
                    url: (*url).to_owned(),
                })
                .collect(),
            initial_nodes: vec!["node-1".parse().unwrap()],
            parameters: Parameters::default(),
        }
    }

    #[test]
    fn one_three_or_five_coordinators_each_with_an_address_of_its_own() {
        assert!(file(&[("coordinator-1@a", "http://a:1")]).check().is_ok());
        let two = file(&[("coordinator-1@a", "http://a:1"), ("coordinator-1@b", "http://b:1")]);
        assert!(two.check().unwrap_err().to_string().contains("names 2 coordinators"));
        for bad in [
            file(&[("coordinator-1@a", "http://a")]),
            file(&[("coordinator-1@a", "http://a:0")]),
            file(&[("storage-1@a", "http://a:1")]),
            file(&[
                ("coordinator-1@a", "http://a:1"),
                ("coordinator-1@b", "http://b:1"),
                ("coordinator-1@c", "http://b:1"),
            ]),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
