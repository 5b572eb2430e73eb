//! A short soak; `make soak` runs a longer one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::ensure;
use plinth_api::director::LiveLayout;
use plinth_api::gateway::ReadVersionAnswer;
use plinth_api::storage::KeyValue;
use plinth_test_processes::Cluster;
use plinth_test_processes::cluster::free_port;
use plinth_test_processes::soak::chaos::Chaos;
use plinth_test_processes::soak::ledger::Ledger;
use plinth_test_processes::soak::writer::{Writer, prefix};
use plinth_test_processes::soak::{Shared, settings};
use plinth_types::{Key, KeyRange};
use tokio::time::Instant;

use crate::Outcome;

const WRITERS: usize = 4;

#[test]
fn nothing_acknowledged_is_lost_whatever_is_killed() -> Outcome {
    let (length, seed) = settings()?;
    println!("PLINTH_SOAK_SEED={seed} PLINTH_SOAK_SECONDS={}", length.as_secs());
    let directory = tempfile::tempdir()?;
    let port = free_port()?;
    let cluster = Cluster::start_at(directory.path(), port, &[])?;
    let shared = Shared::new(&cluster.ready.gateways);
    let done = AtomicBool::new(false);
    let (ledgers, cluster, acts) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                scope.spawn({
                    let (shared, done) = (&shared, &done);
                    move || Writer::new(number, shared)?.run(done)
                })
            })
            .collect();
        let mut chaos = Chaos::new(cluster, port, &shared, seed);
        let deadline = Instant::now() + length;
        let mut outcome = Ok(());
        while outcome.is_ok() && Instant::now() < deadline {
            outcome = chaos.act();
        }
        outcome = outcome.and_then(|()| chaos.wait_until_healthy());
        done.store(true, Ordering::Relaxed);
        let ledgers = writers.into_iter().map(|writer| writer.join().expect("no panic"));
        let ledgers: anyhow::Result<Vec<Ledger>> = ledgers.collect();
        let acts = chaos.acts.len();
        outcome?;
        anyhow::Ok((ledgers?, chaos.end()?, acts))
    })?;
    let epoch = cluster.epoch()?;
    for (writer, ledger) in ledgers.iter().enumerate() {
        let [acknowledged, refused, unknown] = ledger.counts();
        println!(
            "writer {writer}: {acknowledged} acknowledged, {refused} refused, {unknown} unknown"
        );
        ensure!(acknowledged > 0, "writer {writer} wrote nothing");
    }
    println!("{acts} acts, {epoch} epochs");
    ensure!(acts > 0 && epoch > 1, "nothing happened");
    let replicas = replicas(&cluster)?;
    let [(_, first), others @ ..] = replicas.as_slice() else { anyhow::bail!("no replica") };
    for (storage, other) in others {
        ensure!(other == first, "{storage} differs from {}", replicas[0].0);
    }
    for (writer, ledger) in ledgers.iter().enumerate() {
        let differences = check(ledger, writer, first)?;
        ensure!(differences.is_empty(), "writer {writer}: {differences:#?}");
    }
    same_configuration_everywhere(&cluster)?;
    cluster.stop()
}

type Replica = BTreeMap<String, Vec<u8>>;

/// What each storage of the layout has of the soak's keys, at one version.
fn replicas(cluster: &Cluster) -> anyhow::Result<Vec<(String, Replica)>> {
    let layout: LiveLayout = cluster.get_json("/v1/layout")?;
    let version = cluster.get_json::<ReadVersionAnswer>("/v1/read_version")?.version;
    let storages = cluster.storages()?;
    ensure!(storages.len() == 3, "{storages:?}");
    let range = KeyRange::new(Key::from_static(b"soak/"), Key::from_static(b"soak0"));
    let read = |(name, url): (String, String)| {
        let items = cluster.range_at(&url, layout.config.epoch, version, &range)?;
        let item = |item: KeyValue| {
            let key = String::from_utf8(item.key.as_bytes().to_vec())?;
            anyhow::Ok((key, item.value.0.to_vec()))
        };
        Ok((name, items.into_iter().map(item).collect::<anyhow::Result<Replica>>()?))
    };
    storages.into_iter().map(read).collect()
}

fn check(ledger: &Ledger, writer: usize, replica: &Replica) -> anyhow::Result<Vec<String>> {
    let text = |value: &Vec<u8>| String::from_utf8(value.clone());
    let at = |name: &str| replica.get(&format!("{}{name}", prefix(writer)));
    let register = at("register").map(text).transpose()?.map(|text| text.parse()).transpose()?;
    let counter = at("counter").map(|value| {
        let mut bytes = [0; 8];
        let length = value.len().min(8);
        bytes[..length].copy_from_slice(&value[..length]);
        u64::from_le_bytes(bytes)
    });
    let once = format!("{}once/", prefix(writer));
    let once = replica.iter().filter(|(key, _)| key.starts_with(&once));
    let once = once.map(|(key, value)| Ok((key.clone(), text(value)?)));
    let once: anyhow::Result<BTreeMap<String, String>> = once.collect();
    Ok(ledger.differences(&once?, register, counter))
}

/// Every storage keeps the configuration of the serving epoch, byte for byte.
fn same_configuration_everywhere(cluster: &Cluster) -> Outcome {
    let mut kept = Vec::new();
    for (name, url) in cluster.storages()? {
        let config = cluster.shard_config(&url)?;
        kept.push((name, serde_json::to_value(config)?));
    }
    let values: Vec<_> = kept.iter().map(|(_, value)| &value["config"]).collect();
    ensure!(values.windows(2).all(|pair| pair[0] == pair[1]), "{kept:#?}");
    Ok(())
}
