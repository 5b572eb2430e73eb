//! Machines that are started one by one, each with `plinth node`, as on machines of their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plinth_api::coordinator::Status;
use reqwest::blocking::Client;
use rustix::process::Signal;

use crate::cluster::free_port;
use crate::{eventually, executable, signal};

/// A cluster whose machines are started at will. Dropping it ends those that run.
pub struct Machines {
    directory: PathBuf,
    coordinators: BTreeMap<u32, u16>,
    running: BTreeMap<u32, Child>,
    http: Client,
}

impl Machines {
    /// Machines 1 to `count` in a directory, each with a coordinator. None runs yet.
    ///
    /// # Errors
    /// The cluster's files can't be made.
    pub fn new(directory: &Path, count: u32) -> anyhow::Result<Machines> {
        let coordinators: BTreeMap<u32, u16> = (1..=count).zip(free_port()?..).collect();
        let entry =
            |(machine, port)| format!("coordinator-1@node-{machine}=http://127.0.0.1:{port}");
        let entries: Vec<String> = coordinators.iter().map(entry).collect();
        let nodes: Vec<String> = (1..=count).map(|machine| format!("node-{machine}")).collect();
        let made = Command::new(executable()?)
            .args(["init", "--coordinators", &entries.join(","), "--nodes", &nodes.join(",")])
            .arg("--dir")
            .arg(directory)
            .output()?;
        ensure!(made.status.success(), "{made:?}");
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        let directory = directory.to_owned();
        Ok(Machines { directory, coordinators, running: BTreeMap::new(), http })
    }

    /// Starts a machine.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(&mut self, machine: u32) -> anyhow::Result<()> {
        let file = |name: &str| self.directory.join(name);
        let child = Command::new(executable()?)
            .args(["node", "--parent-pipe", "--lock-patience", "8"])
            .args(["--node", &format!("node-{machine}")])
            .arg("--data-dir")
            .arg(file(&format!("node-{machine}")))
            .arg("--cluster-file")
            .arg(file("cluster.json"))
            .arg("--secret-file")
            .arg(file("secret"))
            .arg("--admin-token-file")
            .arg(file("admin-token"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        self.running.insert(machine, child);
        Ok(())
    }

    /// Stops a machine in good order.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub fn stop(&mut self, machine: u32) -> anyhow::Result<()> {
        let mut child = self.running.remove(&machine).context("it does not run")?;
        signal(child.id(), Signal::TERM)?;
        eventually("the machine's end", || child.try_wait()?.context("it still runs"))?;
        Ok(())
    }

    /// Where a machine's coordinator answers.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn coordinator(&self, machine: u32) -> anyhow::Result<String> {
        let port = self.coordinators.get(&machine).context("no such machine")?;
        Ok(format!("http://127.0.0.1:{port}"))
    }

    /// What a machine's coordinator says.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self, machine: u32) -> anyhow::Result<Status> {
        let url = format!("{}/v1/status", self.coordinator(machine)?);
        Ok(self.http.get(url).send()?.error_for_status()?.json()?)
    }

    /// Waits until a machine's coordinator is in a state.
    ///
    /// # Errors
    /// It does not come to it.
    pub fn until(
        &self,
        machine: u32,
        what: &str,
        is_it: impl Fn(&Status) -> bool,
    ) -> anyhow::Result<Status> {
        eventually(what, || {
            let status = self.status(machine)?;
            ensure!(is_it(&status), "{status:#?}");
            Ok(status)
        })
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for child in self.running.values() {
            // One that has ended already is gone as well.
            let _ = signal(child.id(), Signal::TERM);
        }
        for child in self.running.values_mut() {
            let _ = child.wait();
        }
    }
}
