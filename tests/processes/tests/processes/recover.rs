//! What the cluster can't decide, and an operator does: `plinth recover`.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use plinth_api::coordinator::RecoveryPlan;
use plinth_api::gateway::ClusterStatus;
use plinth_api::storage::Status;
use plinth_system_config::{BootstrapSource, Parameters, SystemConfig};
use plinth_test_processes::cluster::{Cluster, Starting, free_port};
use plinth_test_processes::{eventually, executable, stores};
use plinth_types::{ServiceRef, Version};

use crate::Outcome;
use crate::bootstrap::wipe_coordinators;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// A cluster that is being started, and what an operator does to it.
struct Stuck<'a> {
    directory: &'a Path,
    gateway: String,
    starting: Starting,
}

impl Stuck<'_> {
    fn start(directory: &Path) -> anyhow::Result<Stuck<'_>> {
        let port = free_port()?;
        let starting = Starting::at(directory, port)?;
        Ok(Stuck { directory, gateway: format!("http://127.0.0.1:{port}"), starting })
    }

    /// Waits until the status says this.
    fn until_it_says(&self, words: &str) -> Outcome {
        eventually("a clear problem", || {
            let url = format!("{}/v1/status", self.gateway);
            let status: ClusterStatus = self.starting.http().get(url).send()?.json()?;
            ensure!(!status.ready, "it is ready");
            let said = status.problems.iter().any(|problem| problem.contains(words));
            ensure!(said, "{status:#?}");
            Ok(())
        })
    }

    fn recover(&self, flags: &[&str]) -> anyhow::Result<Output> {
        let output = Command::new(executable()?)
            .args(["recover", "--url", &self.gateway, "--admin-token-file"])
            .arg(self.directory.join("admin-token"))
            .args(flags)
            .output()?;
        Ok(output)
    }

    fn plan(&self) -> anyhow::Result<RecoveryPlan> {
        let output = self.recover(&["--dry-run", "--json"])?;
        ensure!(output.status.success(), "{output:?}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Has the plan carried out, and waits until the cluster is ready.
    fn carry_out(self, plan: &RecoveryPlan) -> anyhow::Result<Cluster> {
        let other = self.recover(&["--plan", "0"])?;
        ensure!(!other.status.success(), "another plan was carried out: {other:?}");
        let said = String::from_utf8_lossy(&other.stderr).into_owned();
        ensure!(said.contains(&plan.id), "{said}");
        let again = self.plan()?;
        ensure!(again == *plan, "{again:#?} after {plan:#?}");
        let done = self.recover(&["--plan", &plan.id])?;
        ensure!(done.status.success(), "{done:?}");
        self.starting.ready()
    }
}

fn has_risk(plan: &RecoveryPlan, words: &str) -> Outcome {
    let is_told = plan.risks.iter().any(|risk| risk.contains(words));
    ensure!(is_told, "{words:?} is no risk of {plan:#?}");
    Ok(())
}

/// A cluster of two epochs that was stopped, with its configuration.
fn stopped(directory: &Path) -> anyhow::Result<SystemConfig<ServiceRef>> {
    let cluster = Cluster::start(directory)?;
    cluster.put(cluster.gateway()?, "kept", "value")?;
    let epoch = cluster.epoch()?;
    cluster.begin_recovery("a second epoch")?;
    cluster.ready_above(epoch)?;
    cluster.put(cluster.gateway()?, "late", "value")?;
    let config = cluster.get_json("/v1/config")?;
    // A storage knows after a restart which tags it has once it has made something of each durable.
    for (storage, url) in cluster.storages()? {
        eventually("every tag has something durable", || {
            let answer = cluster.http().get(format!("{url}/v1/status")).send()?;
            let status: Status = answer.error_for_status()?.json()?;
            let durable = status.tags.iter().filter(|tag| tag.durable > Version::ZERO).count();
            ensure!(durable == 2, "{storage}: {status:?}");
            Ok(())
        })?;
    }
    cluster.stop()?;
    Ok(config)
}

fn has_its_data(cluster: &Cluster) -> Outcome {
    for key in ["kept", "late"] {
        let value = eventually("a read", || cluster.get(cluster.gateway()?, key))?;
        ensure!(value.as_deref() == Some("value"), "{key}: {value:?}");
    }
    cluster.put(cluster.gateway()?, "after", "value")
}

/// A ready cluster leaves nothing to decide, and says so.
#[test]
fn a_ready_cluster_leaves_nothing_to_decide() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let epoch = cluster.epoch()?;
    for flags in [&["--dry-run"][..], &[]] {
        let output = Command::new(executable()?)
            .args(["recover", "--url", cluster.gateway()?, "--admin-token-file"])
            .arg(directory.path().join("admin-token"))
            .args(flags)
            .output()?;
        ensure!(output.status.code() == Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(said.contains("nothing has to be decided"), "{said}");
    }
    ensure!(cluster.epoch()? == epoch);
    cluster.stop()
}

/// Row 6 of the bootstrap table where the logs don't show it: one of them is lost, so a later epoch
/// may have been in force.
#[test]
fn a_configuration_that_nothing_shows_to_be_the_newest_is_the_operators_to_choose() -> Outcome {
    let directory = tempfile::tempdir()?;
    let config = stopped(directory.path())?;
    for node in NODES {
        stores::spoil_configuration(directory.path(), "storage-1", node)?;
    }
    std::fs::remove_dir_all(stores::directory(directory.path(), "log-1", "node-3"))?;
    wipe_coordinators(directory.path(), &NODES)?;
    let stuck = Stuck::start(directory.path())?;
    stuck.until_it_says("waiting for log-1@node-3")?;
    stuck.until_it_says("plinth recover")?;
    let plan = stuck.plan()?;
    ensure!(plan.source == BootstrapSource::Storage, "{plan:#?}");
    let recorded = plan.recorded.as_ref().context("no configuration")?;
    ensure!(recorded.config == config, "{plan:#?}");
    has_risk(&plan, "log-1@node-3")?;
    has_risk(&plan, "only 0 of the 3 storages")?;
    let words = stuck.recover(&["--dry-run"])?;
    let words = String::from_utf8(words.stdout)?;
    ensure!(words.contains(&format!("plinth recover --plan {}", plan.id)), "{words}");
    let cluster = stuck.carry_out(&plan)?;
    has_its_data(&cluster)?;
    cluster.stop()
}

/// Nothing can be read anywhere: what the workers have still tells the layout.
#[test]
fn a_layout_is_rebuilt_from_manifests_alone_if_the_operator_says_so() -> Outcome {
    let directory = tempfile::tempdir()?;
    let config = stopped(directory.path())?;
    for node in NODES {
        stores::spoil_configuration(directory.path(), "storage-1", node)?;
        stores::spoil_configuration(directory.path(), "log-1", node)?;
    }
    wipe_coordinators(directory.path(), &NODES)?;
    let stuck = Stuck::start(directory.path())?;
    stuck.until_it_says("no configuration can be read anywhere")?;
    // It says so, too, while not all workers have told what they have.
    let plan = eventually("a plan", || stuck.plan())?;
    ensure!(plan.source == BootstrapSource::Manifests, "{plan:#?}");
    has_risk(&plan, "parameter")?;
    let rebuilt = plan.recorded.as_ref().context("no configuration")?;
    ensure!(rebuilt.config.parameters == Parameters::default());
    let durable = |config: &SystemConfig<ServiceRef>| {
        let durable = config.layout.durable();
        let mut durable: Vec<_> = durable.map(|(_, store, who)| (store, who.clone())).collect();
        durable.sort();
        durable
    };
    ensure!(durable(&rebuilt.config) == durable(&config), "{rebuilt:#?}");
    let cluster = stuck.carry_out(&plan)?;
    ensure!(cluster.source()? == "manifests");
    has_its_data(&cluster)?;
    let now: SystemConfig<ServiceRef> = cluster.get_json("/v1/config")?;
    ensure!(durable(&now) == durable(&config), "{now:#?}");
    ensure!(now.config_version > config.config_version && now.epoch > config.epoch);
    cluster.stop()
}

/// The storages of two nodes are lost for good, so a majority of the config team never returns.
#[test]
fn a_config_team_without_its_majority_goes_on_if_the_operator_says_so() -> Outcome {
    let directory = tempfile::tempdir()?;
    let config = stopped(directory.path())?;
    for node in ["node-2", "node-3"] {
        std::fs::remove_dir_all(stores::directory(directory.path(), "storage-1", node))?;
    }
    let stuck = Stuck::start(directory.path())?;
    stuck.until_it_says("no majority of the config team is up")?;
    stuck.until_it_says("plinth recover")?;
    let plan = stuck.plan()?;
    ensure!(plan.source == BootstrapSource::Raft, "{plan:#?}");
    has_risk(&plan, "storage-1@node-2")?;
    has_risk(&plan, "storage-1@node-3")?;
    let recorded = plan.recorded.as_ref().context("no configuration")?;
    ensure!(recorded.stamp() > config.stamp());
    ensure!(recorded.config.layout.config_team().len() == 1, "{plan:#?}");
    let cluster = stuck.carry_out(&plan)?;
    has_its_data(&cluster)?;
    ensure!(cluster.source()? == "raft");
    let now: SystemConfig<ServiceRef> = cluster.get_json("/v1/config")?;
    let one = &recorded.config.layout.config_team()[0];
    ensure!(now.layout.config_team().contains(one), "{:#?}", now.layout);
    cluster.stop()?;
    let cluster = Cluster::start(directory.path())?;
    has_its_data(&cluster)?;
    cluster.stop()
}
