//! Looks at everything once it is healed: it converges, serves, and has kept its promises.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plinth_api::coordinator::RECOVERIES;
use plinth_api::director::LiveLayout;
use plinth_api::storage::{KeyValue, READ, RangeRead, ReadRequest, SHARD_CONFIG, ShardConfigQuery};
use plinth_api::{CallError, Client, Target};
use plinth_service::Transport;
use plinth_system_config::Service;
use plinth_test_histories::{Anomaly, Marks, examine, look};
use plinth_types::{Epoch, KeyRange, NodeId, Pid, ServiceRef, Tag, Version};
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
    if workloads.watch() {
        for (node, gateway) in &scene.gateways {
            let fires = eventually(async || workloads::watch_fires(scene, gateway).await).await;
            fires.map_err(|error| ("watches", format!("by {node}'s gateway: {error:#}")))?;
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
    if let Err(error) = eventually(async || complete(scene).await).await {
        scene.findings.report("convergence", format!("{error:#}"));
    }
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

/// There are as many copies and logs of everything as there should be, each on a node of its own, all
/// run, and nobody is joining.
async fn complete(scene: &Scene) -> anyhow::Result<()> {
    let live = scene.any_gateway().ask(&LAYOUT).await?;
    let layout = &live.recorded.config.layout;
    // Those in force, which a workload may have changed.
    let parameters = &live.recorded.config.parameters;
    for team in &layout.storage_teams {
        let tag = team.tag;
        up(scene, &live, tag)?;
        let copies =
            if tag == Tag::SYSTEM { parameters.config_team } else { parameters.replication };
        let on = team.members.iter().map(|member| &member.service.node);
        let nodes: BTreeSet<&NodeId> = on.collect();
        let wanted = usize::try_from(copies)?;
        ensure!(team.members.len() == wanted && nodes.len() == wanted, "members: {team:?}");
        ensure!(team.joining.is_empty(), "somebody is still joining: {team:?}");
        let nodes: BTreeSet<&NodeId> = layout.logs_of(tag).map(|log| &log.service.node).collect();
        let wanted = usize::try_from(parameters.replication)?;
        ensure!(nodes.len() == wanted, "the logs of tag {tag} are on {nodes:?}");
    }
    Ok(())
}

/// The members of a team, all of which must run, except where their disk is damaged.
fn up<'a>(
    scene: &Scene,
    layout: &'a LiveLayout,
    tag: Tag,
) -> anyhow::Result<Vec<(ServiceRef, &'a Pid)>> {
    let named = layout.recorded.config.layout.team(tag);
    let members = layout.config.layout.team(tag).iter().zip(named);
    members
        .filter_map(|(member, named)| match &member.service {
            Service::Up(pid) => Some(Ok((named.service.clone(), pid))),
            Service::Down(service) if scene.weather.is_damaged(&service.node) => None,
            Service::Down(service) => Some(Err(anyhow::anyhow!("{service} is down"))),
        })
        .collect()
}

/// The answer of a storage; none where its disk is damaged, and it says so or does not answer. What it
/// does answer must be right all the same.
fn unless_damaged<T>(
    scene: &Scene,
    storage: &ServiceRef,
    answer: Result<T, CallError>,
) -> anyhow::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(_) if scene.weather.is_damaged(&storage.node) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Every replica of every shard is read at one version, and compared. What differs is reported; an
/// error says that not all could be read.
async fn replicas(scene: &Scene, peers: &Client<Transport>) -> anyhow::Result<()> {
    let gateway = scene.any_gateway();
    let layout = gateway.ask(&LAYOUT).await?;
    let (version, _) = gateway.get("any/key").await?;
    let epoch = layout.config.layout.epoch;
    for tag in layout.recorded.shards.tags() {
        let mut held = BTreeMap::new();
        for (storage, pid) in up(scene, &layout, tag)? {
            let mut rows = Some(Vec::new());
            for range in layout.recorded.shards.ranges_of(tag) {
                let answer = read(peers, pid, epoch, version, range).await;
                let answer = unless_damaged(scene, &storage, answer);
                let answer =
                    answer.with_context(|| format!("{storage}, tag {tag} at {version}"))?;
                rows = rows.zip(answer).map(|(rows, more)| [rows, more].concat());
            }
            held.extend(rows.map(|rows| (storage.to_string(), rows)));
        }
        scene
            .findings
            .report_all(replicas_are_identical::NAME, replicas_are_identical::check(&held));
    }
    Ok(())
}

/// All that a storage holds of a range at a version, in as many parts as it takes.
async fn read(
    peers: &Client<Transport>,
    storage: &Pid,
    epoch: Epoch,
    version: Version,
    mut range: KeyRange,
) -> Result<Vec<KeyValue>, CallError> {
    let mut rows = Vec::new();
    loop {
        let part = RangeRead { range: range.clone(), limit: u32::MAX, reverse: false };
        let request =
            ReadRequest { epoch, version, newest: false, keys: Vec::new(), ranges: vec![part] };
        let target = Target::from(storage);
        let answer = peers.call(&target, &READ, &request, Some(epoch), ASK).await?;
        let answered = answer.ranges.into_iter().next();
        let more = answered.as_ref().is_some_and(|range| range.more);
        rows.extend(answered.into_iter().flat_map(|range| range.items));
        match rows.last().filter(|_| more) {
            Some(last) => range.from = last.key.successor(),
            None => return Ok(rows),
        }
    }
}

/// What every storage of the system shard holds on disk is what is recorded.
async fn stored(scene: &Scene, peers: &Client<Transport>) -> anyhow::Result<()> {
    let gateway = scene.any_gateway();
    let layout = gateway.ask(&LAYOUT).await?;
    let recorded = gateway.ask(&workloads::CONFIG).await?;
    let living: Vec<Pid> = layout.directory.iter().map(|placed| placed.pid.clone()).collect();
    for (name, pid) in up(scene, &layout, Tag::SYSTEM)? {
        let query = ShardConfigQuery { version: Some(Version::ZERO), wait_ms: 0 };
        let held = peers.call(&Target::from(pid), &SHARD_CONFIG, &query, None, ASK).await;
        let Some(held) = unless_damaged(scene, &name, held)? else { continue };
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
