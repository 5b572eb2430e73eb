//! What a ready cluster keeps, and that every gateway and storage shows the same.

use anyhow::{Context as _, ensure};
use plinth_api::HEADER_VERSION;
use plinth_api::director::LiveLayout;
use plinth_system_config::{SystemConfig, decode_stored};
use plinth_test_processes::{Cluster, eventually};
use plinth_types::{ServiceRef, Value};

use crate::Outcome;

#[test]
fn every_storage_holds_the_configuration_that_the_layout_shows() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let layout: LiveLayout = cluster.get_json("/v1/layout")?;
    let storages = cluster.storages()?;
    ensure!(storages.len() == 3, "{storages:?}");
    for url in storages.values() {
        let held = eventually("the configuration on each storage", || {
            cluster.shard_config(url)?.config.context("none yet")
        })?;
        let config: SystemConfig<ServiceRef> = decode_stored(held.as_bytes())?;
        ensure!(config == layout.recorded.config);
        let mut text = String::from_utf8_lossy(held.as_bytes()).into_owned();
        // Where coordinators answer is the operator's word and outlives their processes.
        for address in config.coordinators.iter().filter_map(|one| one.address.as_ref()) {
            text = text.replace(address.as_str(), "");
        }
        ensure!(!layout.directory.is_empty());
        for placed in &layout.directory {
            ensure!(!text.contains(&placed.pid.address), "an address in the configuration");
            ensure!(!text.contains(&placed.pid.incarnation.to_string()), "a Pid in it");
        }
        ensure!(!text.contains("127.0.0.1") && !text.contains("os_pid"), "{text}");
    }
    cluster.stop()
}

/// Writes through one gateway, and reads what that committed from all of them and from every
/// storage at that very version.
#[test]
fn a_write_through_any_gateway_is_on_every_storage_at_its_version() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let gateways = cluster.ready.gateways.clone();
    let storages = cluster.storages()?;
    ensure!(gateways.len() == 3 && storages.len() == 3, "{gateways:?} {storages:?}");
    let epoch = cluster.epoch()?;
    let mut last = 0;
    for (number, gateway) in gateways.iter().enumerate() {
        let text = format!("by gateway {number}");
        let url = format!("{gateway}/v1/keys/everywhere");
        for value in [Some(text.as_str()), None] {
            let request = match value {
                Some(text) => cluster.http().put(&url).body(text.to_owned()),
                None => cluster.http().delete(&url),
            };
            let answer = request.send()?.error_for_status()?;
            let version = answer.headers().get(HEADER_VERSION).context("no version")?;
            let version = version.to_str()?.to_owned();
            let number: u64 = version.parse()?;
            ensure!(number > last, "version {number} after {last}");
            last = number;
            for other in &gateways {
                ensure!(cluster.get(other, "everywhere")?.as_deref() == value, "at {other}");
            }
            for (storage, url) in &storages {
                let read = cluster.read_at(url, epoch, &version, "everywhere")?;
                let expected = value.map(|text| Value(text.as_bytes().to_vec().into()));
                ensure!(read.values == [expected], "{storage} has {read:?} at {version}");
                let before = (number - 1).to_string();
                let read = cluster.read_at(url, epoch, &before, "everywhere")?;
                ensure!(read.values.first().is_some_and(|read| read.is_none() == value.is_some()));
            }
        }
    }
    cluster.stop()
}
