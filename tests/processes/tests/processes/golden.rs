//! Every golden data directory starts, with its data and its configuration.

use anyhow::ensure;
use plinth_system_config::{FORMAT_LEVEL, SystemConfig};
use plinth_test_processes::{Cluster, eventually, golden};
use plinth_types::ServiceRef;

use crate::Outcome;

#[test]
fn every_golden_directory_starts_with_its_data_and_configuration() -> Outcome {
    let levels = golden::levels()?;
    ensure!(levels.contains(&1), "the first one is missing: {levels:?}");
    for level in levels {
        let directory = tempfile::tempdir()?;
        let (cluster, expected) = golden::unpack(&golden::archive(level), directory.path())?;
        ensure!(expected.config.format_level == level, "{}", expected.config.format_level);
        // Once from what the release has left, and once from what this one has made of it.
        let mut epoch = expected.config.epoch;
        for _ in 0..2 {
            let cluster = Cluster::start(&cluster)?;
            let config: SystemConfig<ServiceRef> = cluster.get_json("/v1/config")?;
            ensure!(cluster.source()? == "raft");
            ensure!(config.epoch > epoch, "epoch {} after {epoch}", config.epoch);
            ensure!(config.cluster_id == expected.config.cluster_id);
            ensure!(config.group_id == expected.config.group_id);
            ensure!(config.coordinators == expected.config.coordinators, "{config:#?}");
            ensure!(config.parameters == expected.config.parameters, "{config:#?}");
            // It is the operator who raises it.
            ensure!(config.format_level == level && level <= FORMAT_LEVEL, "{config:#?}");
            ensure!(cluster.stores()? == expected.stores, "other logs or storages");
            for (key, value) in &expected.values {
                let found = eventually("a read", || cluster.get(cluster.gateway()?, key))?;
                ensure!(found == *value, "{key}: {found:?}");
            }
            let counter = cluster.http().get(format!("{}/v1/keys/counter", cluster.gateway()?));
            let counter = counter.send()?.error_for_status()?.bytes()?;
            ensure!(*counter == 3u64.to_le_bytes(), "{counter:?}");
            cluster.put(cluster.gateway()?, "written", "by a later release")?;
            epoch = config.epoch;
            cluster.kill_all()?;
        }
    }
    Ok(())
}
