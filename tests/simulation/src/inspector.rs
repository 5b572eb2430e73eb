//! Looks at everything once it is healed: it converges, serves, and has kept its promises.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plinth_api::coordinator::RECOVERIES;
use plinth_api::director::LiveLayout;
use plinth_api::storage::{READ, RangeRead, ReadRequest, SHARD_CONFIG, ShardConfigQuery};
use plinth_api::{Client, Target};
use plinth_service::Transport;
use plinth_system_config::Service;
use plinth_test_histories::{Anomaly, Marks, examine, look};
use plinth_types::{Pid, Tag, Version};
use tokio::time::{Instant, sleep};

use crate::invariants::{
    acknowledged_is_kept, check_history, epochs_increase, no_pid_is_stored, replicas_are_identical,
    stored_config_is_recorded,
};
use crate::scene::Scene;
use crate::user::{Fate, Gateway};
use crate::workloads::{self, LAYOUT, Workloads};

/// How long a healed cluster may take to accept commits, and then to be whole.
const CONVERGENCE: Duration = Duration::from_secs(60);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(300);
/// How long one question may take.
const ASK: Duration = Duration::from_secs(5);

/// Inspects the cluster, as users and as a service of it would.
pub(crate) async fn inspect(scene: &Scene, workloads: &Workloads) {
    // What users were told counts however the rest goes on.
    let marks = match serves(scene, workloads).await {
        Ok(marks) => Some(marks),
        Err((invariant, seen)) => {
            scene.findings.report(invariant, seen);
            None
        }
    };
    check_history(&scene.history, &scene.parameters, &scene.findings);
    for Anomaly { name, seen } in examine(&scene.journal, marks.as_ref()) {
        scene.findings.report(&name, seen);
    }
    if marks.is_some() {
        inspect_inside(scene, &Client::new(scene.peers.clone())).await;
    }
}

/// The cluster converges and serves; then everything is read once more. Answers the marks that
/// transactions have left, or what is not as it should be.
async fn serves(scene: &Scene, workloads: &Workloads) -> Result<Marks, (&'static str, String)> {
    for (node, gateway) in &scene.gateways {
        if let Err(error) = gateway.ready(CONVERGENCE).await {
            return Err(("convergence", format!("by {node}'s gateway: {error}")));
        }
    }
    for (number, (node, gateway)) in scene.gateways.iter().enumerate() {
        let served = eventually(async || serve(scene, gateway, number).await);
        if let Err(error) = served.await {
            return Err(("serves", format!("by {node}'s gateway: {error:#}")));
        }
    }
    let told = eventually(async || workloads::look_at_config(scene).await).await;
    told.map_err(|error| ("serves", format!("the configuration: {error:#}")))?;
    for key in workloads.keys() {
        let read = eventually(async || {
            scene.history.get(&scene.any_gateway(), &key).await.context("no answer")
        });
        if let Err(error) = read.await {
            return Err(("serves", format!("{key}: {error:#}")));
        }
    }
    let user = workloads::user(scene);
    let marks = eventually(async || look(&user).await.map_err(anyhow::Error::msg)).await;
    marks.map_err(|error| ("serves", format!("{error:#}")))
}

/// Looks at what services hold.
async fn inspect_inside(scene: &Scene, peers: &Client<Transport>) {
    if let Err(error) = eventually(async || replicas(scene, peers).await).await {
        scene.findings.report(replicas_are_identical::NAME, format!("{error:#}"));
    }
    if let Err(error) = eventually(async || stored(scene, peers).await).await {
        scene.findings.report(stored_config_is_recorded::NAME, format!("{error:#}"));
    }
    let recoveries = eventually(async || scene.any_gateway().ask(&RECOVERIES).await).await;
    match recoveries {
        Ok(told) => {
            let lost =
                acknowledged_is_kept::check(&scene.history.record().writes, &told.recoveries);
            scene.findings.report_all(acknowledged_is_kept::NAME, lost);
            let order = epochs_increase::check(&told.recoveries);
            scene.findings.report_all(epochs_increase::NAME, order);
        }
        Err(error) => scene.findings.report("serves", format!("the recoveries: {error:#}")),
    }
}

/// Tries until it succeeds or the time to converge is over.
async fn eventually<T>(attempt: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + CONVERGENCE;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// A value is written and read through one gateway.
async fn serve(scene: &Scene, gateway: &Gateway, number: usize) -> anyhow::Result<()> {
    let value = format!("served at {}", scene.history.moment());
    let key = format!("serve/{number}");
    let fate = scene.history.put(gateway, &key, value.clone()).await;
    ensure!(matches!(fate, Fate::Committed(_)), "a write is {fate:?}");
    let read = scene.history.get(gateway, &key).await.context("a read is not answered")?;
    ensure!(read.as_deref() == Some(value.as_bytes()), "{value:?} was written and {read:?} read");
    Ok(())
}

fn up(layout: &LiveLayout, tag: Tag) -> anyhow::Result<Vec<(String, &Pid)>> {
    let named = layout.recorded.config.layout.team(tag);
    let members = layout.config.layout.team(tag).iter().zip(named);
    members
        .map(|(member, named)| match &member.service {
            Service::Up(pid) => Ok((named.service.to_string(), pid)),
            Service::Down(service) => anyhow::bail!("{service} is down"),
        })
        .collect()
}

/// Every replica of every shard is read at one version, and compared. What differs is reported; an
/// error says that not all could be read.
async fn replicas(scene: &Scene, peers: &Client<Transport>) -> anyhow::Result<()> {
    let gateway = scene.any_gateway();
    let layout = gateway.ask(&LAYOUT).await?;
    let (version, _) = gateway.get("any/key").await?;
    let epoch = layout.config.layout.epoch;
    for tag in layout.recorded.shards.tags() {
        let ranges: Vec<RangeRead> = layout
            .recorded
            .shards
            .ranges_of(tag)
            .map(|range| RangeRead { range, limit: u32::MAX, reverse: false })
            .collect();
        let mut held = BTreeMap::new();
        for (name, pid) in up(&layout, tag)? {
            let request = ReadRequest {
                epoch,
                version,
                newest: false,
                keys: Vec::new(),
                ranges: ranges.clone(),
            };
            let target = Target::from(pid);
            let answer = peers.call(&target, &READ, &request, Some(epoch), ASK).await;
            let answer = answer.with_context(|| format!("{name}, tag {tag} at {version}"))?;
            let rows = answer.ranges.into_iter().flat_map(|range| range.items).collect();
            held.insert(name, rows);
        }
        scene
            .findings
            .report_all(replicas_are_identical::NAME, replicas_are_identical::check(&held));
    }
    Ok(())
}

/// What every storage of the system shard holds on disk is what is recorded.
async fn stored(scene: &Scene, peers: &Client<Transport>) -> anyhow::Result<()> {
    let gateway = scene.any_gateway();
    let layout = gateway.ask(&LAYOUT).await?;
    let recorded = gateway.ask(&workloads::CONFIG).await?;
    let living: Vec<Pid> = layout.directory.iter().map(|placed| placed.pid.clone()).collect();
    for (name, pid) in up(&layout, Tag::SYSTEM)? {
        let query = ShardConfigQuery { version: Some(Version::ZERO), wait_ms: 0 };
        let held = peers.call(&Target::from(pid), &SHARD_CONFIG, &query, None, ASK).await?;
        let config = held.config.with_context(|| format!("{name} holds none"))?;
        if let Some(mortal) = no_pid_is_stored::check(config.as_bytes(), &living) {
            scene.findings.report(no_pid_is_stored::NAME, format!("{name} holds {mortal}"));
        }
        // It may yet come: the epoch's is durable in a majority, not in all.
        if let Some(difference) = stored_config_is_recorded::check(config.as_bytes(), &recorded) {
            anyhow::bail!("{name}: {difference}");
        }
    }
    Ok(())
}
