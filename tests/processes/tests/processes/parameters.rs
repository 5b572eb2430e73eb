//! Parameters are changed while the cluster runs, and are in force whatever is restarted after that.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use plinth_api::config::ConfigPatched;
use plinth_api::director::LiveLayout;
use plinth_api::{Problem, coordinator::Recoveries};
use plinth_system_config::{Applied, Parameters, SystemConfig, decode_stored};
use plinth_test_processes::{Cluster, eventually, executable};
use plinth_types::{ServiceRef, Tag};
use reqwest::StatusCode;
use reqwest::blocking::Response;
use serde_json::{Value, json};

use crate::Outcome;
use crate::lifecycle::wipe_coordinators;

/// `plinth config set …`: its exit status and what it has printed, errors last.
fn set(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<(i32, String)> {
    let mut command = Command::new(executable()?);
    command.args(["config", "set"]).args(arguments).args(["--url", cluster.gateway()?]);
    command.arg("--admin-token-file").arg(cluster.directory().join("admin-token"));
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code().context("a signal")?, said.into_owned()))
}

/// A change as curl would send it, under this `If-Match`.
fn patch(
    cluster: &Cluster,
    url: &str,
    tag: Option<&str>,
    parameters: &Value,
) -> anyhow::Result<Response> {
    let token = std::fs::read_to_string(cluster.directory().join("admin-token"))?;
    let mut request = cluster.http().patch(format!("{url}/v1/config")).bearer_auth(token.trim());
    if let Some(tag) = tag {
        request = request.header("If-Match", tag);
    }
    Ok(request.json(&json!({ "parameters": parameters })).send()?)
}

fn config(cluster: &Cluster) -> anyhow::Result<SystemConfig<ServiceRef>> {
    cluster.get_json("/v1/config")
}

/// Waits until the layout has so many logs and commit proxies, and so many copies on as many nodes.
fn shaped(
    cluster: &Cluster,
    logs: usize,
    proxies: usize,
    copies: usize,
) -> anyhow::Result<LiveLayout> {
    eventually("the layout that was asked for", || {
        let live: LiveLayout = cluster.get_json("/v1/layout")?;
        let layout = &live.recorded.config.layout;
        let team = layout.storage_teams.iter().find(|team| team.tag != Tag::SYSTEM);
        let team = team.context("no team")?;
        let nodes: BTreeSet<_> = team.members.iter().map(|one| &one.service.node).collect();
        let found = (layout.logs.len(), layout.commit_proxies.len(), nodes.len());
        ensure!(found == (logs, proxies, copies), "{found:?}");
        ensure!(team.members.len() == copies && team.joining.is_empty(), "{team:?}");
        ensure!(live.accepting_commits, "not ready");
        Ok(live)
    })
}

/// Every storage of the config team has the parameters on disk.
fn is_stored(cluster: &Cluster, parameters: &Parameters) -> Outcome {
    let storages = cluster.storages()?;
    let live: LiveLayout = cluster.get_json("/v1/layout")?;
    for member in live.recorded.config.layout.config_team() {
        let url = storages.get(&member.service.to_string()).context("it does not run")?;
        eventually("the parameters on each storage", || {
            let held = cluster.shard_config(url)?.config.context("none")?;
            let held: SystemConfig<ServiceRef> = decode_stored(held.as_bytes())?;
            ensure!(held.parameters == *parameters, "{} has {:?}", member.service, held.parameters);
            Ok(())
        })?;
    }
    Ok(())
}

fn has(cluster: &Cluster, keys: &[&str]) -> Outcome {
    for key in keys {
        let value = cluster.get(cluster.gateway()?, key)?;
        ensure!(value.as_deref() == Some("written"), "{key}: {value:?}");
    }
    Ok(())
}

fn restart(cluster: Cluster, directory: &Path) -> anyhow::Result<Cluster> {
    cluster.kill_all()?;
    Cluster::start(directory)
}

#[test]
fn what_was_changed_is_in_force_after_kill_9_of_everything() -> Outcome {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::start(directory.path())?;
    cluster.put(cluster.gateway()?, "first", "written")?;
    let epoch = cluster.epoch()?;

    // Fewer logs and copies, more proxies: by a new epoch, which the change begins.
    let fewer = ["logs=2", "replication=2", "commit_proxies=2", "rejoin_grace_ms=150"];
    let (status, said) = set(&cluster, &[&fewer[..], &["--dry-run"]].concat())?;
    ensure!(status == 0 && said.contains("nothing was done"), "{said}");
    ensure!(cluster.epoch()? == epoch && config(&cluster)?.parameters == Parameters::default());
    let (status, said) = set(&cluster, &fewer)?;
    ensure!(
        status == 0 && said.contains("is durable") && said.contains("by a new epoch"),
        "{said}"
    );
    let wanted = Parameters {
        logs: 2,
        replication: 2,
        commit_proxies: 2,
        rejoin_grace_ms: 150,
        ..Parameters::default()
    };
    ensure!(config(&cluster)?.parameters == wanted);
    let later = cluster.ready_above(epoch)?;
    shaped(&cluster, 2, 2, 2)?;
    let told: Recoveries = cluster.get_json("/v1/recoveries")?;
    let begun = told.recoveries.iter().find(|recovery| recovery.epoch.0 == later);
    let cause = &begun.context("the epoch is not told")?.cause;
    ensure!(cause.contains("parameters were changed") && cause.contains("logs from 3 to 2"));
    cluster.put(cluster.gateway()?, "second", "written")?;
    for _ in 0..2 {
        cluster = restart(cluster, directory.path())?;
        shaped(&cluster, 2, 2, 2)?;
        ensure!(config(&cluster)?.parameters == wanted, "{:?}", config(&cluster)?.parameters);
        is_stored(&cluster, &wanted)?;
        has(&cluster, &["first", "second"])?;
    }

    // And back, as curl would.
    let number = config(&cluster)?.config_version;
    let epoch = cluster.epoch()?;
    let more = json!({ "logs": 3, "replication": 3, "commit_proxies": 1 });
    let answer = patch(&cluster, cluster.gateway()?, Some(&format!("\"{number}\"")), &more)?;
    let (status, tag) = (answer.status(), answer.headers().get("etag").cloned());
    let made: ConfigPatched = serde_json::from_str(&answer.text()?)?;
    ensure!(status == StatusCode::OK && made.begins_epoch, "{status}: {made:?}");
    ensure!(tag.context("no ETag")?.to_str()? == format!("\"{}\"", made.config_version));
    ensure!(made.changed.iter().all(|changed| changed.applied == Applied::NewEpoch));
    cluster.ready_above(epoch)?;
    shaped(&cluster, 3, 1, 3)?;
    cluster.put(cluster.gateway()?, "third", "written")?;
    cluster = restart(cluster, directory.path())?;
    let wanted = Parameters { rejoin_grace_ms: 150, ..Parameters::default() };
    ensure!(config(&cluster)?.parameters == wanted);
    shaped(&cluster, 3, 1, 3)?;
    has(&cluster, &["first", "second", "third"])?;

    // Storage has them too: the coordinators are founded again from it.
    cluster.kill_all()?;
    ensure!(wipe_coordinators(directory.path())? == 3);
    let cluster = Cluster::start(directory.path())?;
    ensure!(cluster.source()? == "storage");
    ensure!(config(&cluster)?.parameters == wanted);
    has(&cluster, &["first", "second", "third"])?;
    cluster.stop()
}

#[test]
fn a_live_change_begins_no_epoch_and_what_can_not_be_is_refused() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let epoch = cluster.epoch()?;
    let (status, said) = set(&cluster, &["failure_timeout_ms=700", "--json"])?;
    ensure!(status == 0, "{said}");
    let made: ConfigPatched = serde_json::from_str(&said)?;
    ensure!(!made.begins_epoch && made.parameters.failure_timeout_ms == 700, "{made:?}");
    is_stored(&cluster, &made.parameters)?;
    let (status, said) = set(&cluster, &["failure_timeout_ms=700"])?;
    ensure!(status == 0 && said.contains("so already"), "{said}");

    // By any coordinator, too.
    let number = config(&cluster)?.config_version;
    let tag = format!("\"{number}\"");
    let mut tag = tag.as_str();
    let mut latest = String::new();
    for (index, row) in cluster.of_kind("coordinator")?.iter().enumerate() {
        let value = json!({ "storage_lost_ms": 20_000 + index });
        let answer = patch(&cluster, &row.url, Some(tag), &value)?;
        let status = answer.status();
        ensure!(status == StatusCode::OK, "{status}: {}", answer.text()?);
        latest = answer.headers().get("etag").context("no ETag")?.to_str()?.to_owned();
        tag = &latest;
    }
    ensure!(cluster.epoch()? == epoch, "an epoch was begun");

    let before = config(&cluster)?;
    let gateway = cluster.gateway()?;
    for (tag, parameters, code, status, words) in [
        (Some(&*latest), json!({"replication": 5, "logs": 5}), "unsatisfiable", 409, "3 nodes"),
        (Some(&*latest), json!({"replication": 0}), "invalid_request", 400, "from 1 to 5"),
        (Some(&*latest), json!({"logs": 2}), "invalid_request", 400, "at least replication"),
        (Some(&*latest), json!({"colour": 2}), "invalid_request", 400, "colour is no parameter"),
        (Some(&*latest), json!({"logs": "many"}), "invalid_request", 400, "parameters.logs"),
        (Some(&*latest), json!({}), "invalid_request", 400, "nothing to change"),
        (Some("\"1\""), json!({"logs": 4}), "precondition_failed", 412, "read it again"),
        (None, json!({"logs": 4}), "precondition_required", 428, "If-Match"),
    ] {
        let answer = patch(&cluster, gateway, tag, &parameters)?;
        let problem: Problem = serde_json::from_str(&answer.text()?)?;
        let said = (problem.code.as_str(), problem.status);
        ensure!(said == (code, status), "{parameters}: {problem:?}");
        ensure!(problem.detail.contains(words), "{parameters}: {problem:?}");
        ensure!(problem.facts.contains_key("field"), "{parameters}: {problem:?}");
    }
    let url = format!("{gateway}/v1/config");
    let nobody = cluster.http().patch(url).header("If-Match", "*").json(&json!({})).send()?;
    ensure!(nobody.status() == StatusCode::UNAUTHORIZED, "{nobody:?}");
    let (status, said) = set(&cluster, &["replication=5", "logs=5"])?;
    ensure!(status == 1 && said.contains("replication is 5, and 3 nodes"), "{said}");
    let (status, said) = set(&cluster, &["logs=many"])?;
    ensure!(status == 2 && said.contains("logs=many"), "{said}");
    ensure!(config(&cluster)? == before, "something was changed");
    cluster.stop()
}
