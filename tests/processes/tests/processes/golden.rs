//! Every golden data directory starts, with its data and its configuration, and can be raised to the
//! newest format level.

use anyhow::{Context as _, ensure};
use plinth_api::Problem;
use plinth_api::coordinator::Nodes;
use plinth_api::director::LiveLayout;
use plinth_system_config::{Envelope, FORMAT_LEVEL, Standing, SystemConfig};
use plinth_test_processes::added::operate;
use plinth_test_processes::golden::Expected;
use plinth_test_processes::{Cluster, eventually, golden};
use plinth_types::ServiceRef;
use serde_json::json;

use crate::Outcome;
use crate::nodes::{ADDED, done, is_listed, left, ordered, refused, start_added};

fn config(cluster: &Cluster) -> anyhow::Result<SystemConfig<ServiceRef>> {
    cluster.get_json("/v1/config")
}

/// All that was written is there.
fn is_complete(cluster: &Cluster, expected: &Expected) -> Outcome {
    for (key, value) in &expected.values {
        let found = eventually("a read", || cluster.get(cluster.gateway()?, key))?;
        ensure!(found == *value, "{key}: {found:?}");
    }
    let counter = cluster.http().get(format!("{}/v1/keys/counter", cluster.gateway()?));
    let counter = counter.send()?.error_for_status()?.bytes()?;
    ensure!(*counter == 3u64.to_le_bytes(), "{counter:?}");
    Ok(())
}

#[test]
fn every_golden_directory_starts_with_its_data_and_configuration() -> Outcome {
    let levels = golden::levels()?;
    for known in [1, 3, FORMAT_LEVEL] {
        ensure!(levels.contains(&known), "that of level {known} is missing: {levels:?}");
    }
    for level in levels {
        let directory = tempfile::tempdir()?;
        let (cluster, expected) = golden::unpack(&golden::archive(level), directory.path())?;
        ensure!(expected.config.format_level == level, "{}", expected.config.format_level);
        // Once from what the release has left, and once from what this one has made of it.
        let mut epoch = expected.config.epoch;
        for _ in 0..2 {
            let cluster = Cluster::start(&cluster)?;
            let config = config(&cluster)?;
            ensure!(cluster.source()? == "raft");
            ensure!(config.epoch > epoch, "epoch {} after {epoch}", config.epoch);
            ensure!(config.cluster_id == expected.config.cluster_id);
            ensure!(config.group_id == expected.config.group_id);
            ensure!(config.coordinators == expected.config.coordinators, "{config:#?}");
            ensure!(config.parameters == expected.config.parameters, "{config:#?}");
            // It is the operator who raises it.
            ensure!(config.format_level == level && level <= FORMAT_LEVEL, "{config:#?}");
            ensure!(cluster.stores()? == expected.stores, "other logs or storages");
            is_complete(&cluster, &expected)?;
            cluster.put(cluster.gateway()?, "written", "by a later release")?;
            epoch = config.epoch;
            cluster.kill_all()?;
        }
    }
    Ok(())
}

/// `plinth config raise …`, which is to be done or refused with these words.
fn raise(cluster: &Cluster, arguments: &[&str], is_to_be: bool, words: &str) -> Outcome {
    let (is_done, said) = operate(cluster, &[&["config", "raise"], arguments].concat())?;
    ensure!(is_done == is_to_be && said.contains(words), "{arguments:?}: {said}");
    Ok(())
}

/// Every storage of the config team has the configuration written at a level.
fn is_stored_at(cluster: &Cluster, level: u32) -> Outcome {
    let storages = cluster.storages()?;
    let live: LiveLayout = cluster.get_json("/v1/layout")?;
    for member in live.recorded.config.layout.config_team() {
        let url = storages.get(&member.service.to_string()).context("it does not run")?;
        eventually("the level on each storage", || {
            let held = cluster.shard_config(url)?.config.context("none")?;
            let held = Envelope::open(held.as_bytes(), "plinth.system-config", FORMAT_LEVEL)?;
            ensure!(held.level() == level, "{} has level {}", member.service, held.level());
            Ok(())
        })?;
    }
    Ok(())
}

/// What has to be said, and by whom.
fn asks_for_what_it_needs(cluster: &Cluster) -> Outcome {
    let token = std::fs::read_to_string(cluster.directory().join("admin-token"))?;
    for url in [cluster.gateway()?, &cluster.of_kind("coordinator")?[0].url] {
        let put =
            || cluster.http().put(format!("{url}/v1/format_level")).json(&json!({"level": 2}));
        let answer = put().header("If-Match", "*").send()?;
        ensure!(answer.status() == 401, "{}", answer.status());
        let answer: Problem = put().bearer_auth(token.trim()).send()?.json()?;
        ensure!(answer.code.as_str() == "precondition_required", "{answer:?}");
        let stale = put().bearer_auth(token.trim()).header("If-Match", "\"1\"");
        let answer: Problem = stale.send()?.json()?;
        ensure!(answer.code.as_str() == "precondition_failed", "{answer:?}");
    }
    Ok(())
}

#[test]
fn a_directory_of_level_1_is_raised_to_the_newest_level_and_takes_an_order_that_level_1_refuses()
-> Outcome {
    let directory = tempfile::tempdir()?;
    let (at, expected) = golden::unpack(&golden::archive(1), directory.path())?;
    let newest = FORMAT_LEVEL.to_string();
    let cluster = Cluster::start(&at)?;
    let added = start_added(&cluster)?;
    is_listed(&cluster)?;
    // The director reads the coordinators' list of nodes once in a while.
    eventually("a refusal for the level", || {
        refused(&cluster, &["drain", "node-3"], "level 2 knows no orders about nodes")
    })?;
    asks_for_what_it_needs(&cluster)?;
    raise(&cluster, &["0"], false, "never goes back")?;
    let above = (FORMAT_LEVEL + 1).to_string();
    raise(&cluster, &[&above], false, "this release knows no format level")?;
    raise(&cluster, &[&newest, "--without", "node-9"], false, "no node node-9 is known")?;
    // Until all of the added node's processes have started, it reads less for all that is known.
    eventually("every process says what it reads", || {
        raise(&cluster, &[&newest, "--dry-run"], true, "nothing was done")
    })?;
    ensure!(config(&cluster)?.format_level == 1);
    is_stored_at(&cluster, 1)?;
    let epoch = cluster.epoch()?;
    raise(&cluster, &[&newest], true, "is durable")?;
    is_stored_at(&cluster, FORMAT_LEVEL)?;
    raise(&cluster, &[&newest], true, "already")?;
    raise(&cluster, &["1"], false, "never goes back")?;
    ensure!(cluster.epoch()? == epoch, "it has begun an epoch");

    done(&cluster, &["drain", "node-3"], "is durable")?;
    left(&cluster, "node-3", &["coordinator-1@node-3"])?;
    is_complete(&cluster, &expected)?;
    cluster.put(cluster.gateway()?, "written", "at the newest level")?;
    cluster.kill_all()?;
    drop(added);

    let cluster = Cluster::start(&at)?;
    let _added = start_added(&cluster)?;
    is_listed(&cluster)?;
    let config = config(&cluster)?;
    ensure!(config.format_level == FORMAT_LEVEL, "{config:#?}");
    ensure!(config.parameters == expected.config.parameters, "{config:#?}");
    let standing = ordered(&cluster, "node-3")?.context("the order is forgotten")?;
    ensure!(standing.standing == Standing::Draining, "{standing:?}");
    is_complete(&cluster, &expected)?;
    let written = cluster.get(cluster.gateway()?, "written")?;
    ensure!(written.as_deref() == Some("at the newest level"), "{written:?}");
    left(&cluster, "node-3", &["coordinator-1@node-3"])?;
    is_stored_at(&cluster, FORMAT_LEVEL)?;
    let nodes: Nodes = cluster.get_json("/v1/nodes")?;
    let reads: Vec<_> = nodes.nodes.iter().map(|report| (&report.node, report.reads())).collect();
    ensure!(reads.iter().all(|(_, reads)| *reads == Some(FORMAT_LEVEL)), "{reads:?}");
    ensure!(reads.iter().any(|(node, _)| node.as_str() == ADDED), "{reads:?}");
    cluster.stop()
}
