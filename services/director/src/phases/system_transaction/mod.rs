//! `system_transaction`: the configuration goes into the cluster's own storage, and with it the
//! whole pipeline is proved before a client may use it.
//!
//! First the readiness check: every component is there, answers, and is of this epoch. Then the
//! transaction, through a commit proxy like any other commit: sequencer → commit proxy → resolver →
//! every log → storage. It is the first of its epoch and alone in its version. It has succeeded when
//! the commit is acknowledged *and* [`proof`] is complete. A failure or a timeout ends the director;
//! only for storages that are not there at all it waits, stalled. **Keeps: the configuration is
//! durable in storage before any client commit of the epoch** (invariant 6), so that the loss of
//! every coordinator loses nothing (invariant 11).

mod proof;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::try_join_all;
use futures::stream::FuturesUnordered;
use plinth_api::commit_proxy::{COMMIT, CommitRequest, Peer};
use plinth_api::storage::{SHARD_CONFIG, ShardConfig, ShardConfigQuery};
use plinth_api::{Nothing, commit_proxy, log, resolver, sequencer};
use plinth_system_config::{LastRecovery, Layout, Recorded, system_mutations};
use plinth_telemetry::record_version;
use plinth_types::{Epoch, ServiceRef, StoreId, Version};
use tokio::time::{Instant, sleep, timeout_at};

use self::proof::Proof;
use super::reading_layout::Read;
use crate::config::{ASSIGN_LIMIT, RETRY, SHARD_CONFIG_WAIT};
use crate::fatal::{Fatal, Words};
use crate::meters::Step;
use crate::plan::Plan;
use crate::registry::Whereabouts;
use crate::reign::Reign;

/// Returns what the transaction tells of the recovery.
pub(crate) async fn run(reign: &Reign, plan: &Plan, read: &Read) -> Result<LastRecovery, Fatal> {
    check_components(reign, plan).await?;
    await_storages(reign, plan, read).await;
    let timeout = Duration::from_millis(plan.parameters().system_transaction_timeout_ms);
    let deadline = Instant::now() + timeout;
    let last_recovery = last_recovery(reign, plan, read);
    let ready = read.holding.ready.as_ref();
    let version = persist(reign, plan, &last_recovery, ready, deadline).await?;
    if version != plan.versions.first {
        return Err(Fatal::new(format!(
            "the system transaction got version {version} and not the epoch's first, {}",
            plan.versions.first
        )));
    }
    Ok(last_recovery)
}

/// Commits the configuration, and waits until a majority of its config team and of `ready`'s have it
/// on disk. Returns the version.
pub(crate) async fn persist(
    reign: &Reign,
    plan: &Plan,
    last_recovery: &LastRecovery,
    ready: Option<&Recorded>,
    deadline: Instant,
) -> Result<Version, Fatal> {
    let limit = deadline.saturating_duration_since(Instant::now());
    let version = commit(reign, plan, last_recovery, limit).await?;
    tracing::info!(%version, "system transaction committed");
    let mut proof = Proof::new(&plan.recorded, last_recovery, version, ready)
        .map_err(|error| Fatal::new(format!("the configuration can't be written: {error}")))?;
    // A deliberate fault: what is committed is taken for stored.
    if !reign.context.runtime().fault("director.believes_the_commit") {
        prove(reign, &mut proof, version, deadline).await?;
    }
    Ok(version)
}

/// The readiness check.
async fn check_components(reign: &Reign, plan: &Plan) -> Result<(), Fatal> {
    let checks = plan.components().map(|peer| async move {
        let (epoch, is_open) = status(reign, plan, peer).await?;
        if epoch > reign.epoch {
            Err(Fatal::superseded(format_args!("{} serves epoch {epoch}", peer.service)))
        } else if epoch < reign.epoch {
            Err(Fatal::of(&peer.service, format_args!("is of epoch {epoch}, not ready")))
        } else if !is_open {
            Err(Fatal::of(&peer.service, "does not accept the epoch's pushes"))
        } else {
            Ok(())
        }
    });
    try_join_all(checks).await.map(drop)
}

/// A component's epoch, and for a log whether it accepts that epoch's pushes.
async fn status(reign: &Reign, plan: &Plan, peer: &Peer) -> Result<(Epoch, bool), Fatal> {
    const DOING: &str = "the readiness check";
    let recruits = &plan.recruits;
    if *peer == recruits.sequencer {
        let endpoint = sequencer::STATUS;
        let status = reign.tell(peer, DOING, endpoint, &Nothing {}, ASSIGN_LIMIT).await?;
        Ok((status.epoch, true))
    } else if recruits.commit_proxies.contains(peer) {
        let endpoint = commit_proxy::STATUS;
        let status = reign.tell(peer, DOING, endpoint, &Nothing {}, ASSIGN_LIMIT).await?;
        Ok((status.epoch, true))
    } else if recruits.resolvers.contains(peer) {
        let endpoint = resolver::STATUS;
        let status = reign.tell(peer, DOING, endpoint, &Nothing {}, ASSIGN_LIMIT).await?;
        Ok((status.epoch, true))
    } else {
        let status = reign.tell(peer, DOING, log::STATUS, &Nothing {}, ASSIGN_LIMIT).await?;
        Ok((status.locked, status.open))
    }
}

/// Waits until a majority of this epoch's config team has taken up the epoch, and a majority of the
/// last ready epoch's is there.
async fn await_storages(reign: &Reign, plan: &Plan, read: &Read) {
    let mut live = reign.live.subscribe();
    let mut registry = reign.registry();
    loop {
        let up: BTreeSet<ServiceRef> = live
            .borrow_and_update()
            .iter()
            .flat_map(|live| live.directory.iter().map(|placed| placed.service.clone()))
            .collect();
        let nodes = registry.borrow_and_update().clone();
        let is_up = |service: &ServiceRef, store: StoreId, ours: bool| {
            if ours {
                up.contains(service)
            } else {
                matches!(nodes.find(service, store), Whereabouts::Up(_))
            }
        };
        let missing = |layout: &Layout<ServiceRef>, ours: bool| {
            let team = layout.config_team();
            let (here, missing): (Vec<_>, Vec<_>) =
                team.iter().partition(|member| is_up(&member.service, member.store, ours));
            let enough = here.len() > team.len() / 2;
            let names = missing.iter().map(|member| member.service.to_string());
            (!enough).then(|| names.collect::<Vec<_>>().join(", "))
        };
        let ready = read.holding.ready.as_ref();
        let lacking = missing(plan.layout(), true)
            .or_else(|| ready.and_then(|ready| missing(&ready.config.layout, false)));
        let Some(names) = lacking else { break };
        reign.stalled(Some(format!(
            "no majority of the config team is up: waiting for {names}; if they never return, decide \
             with `plinth recover`"
        )));
        tokio::select! {
            biased;
            Ok(()) = live.changed() => {}
            Ok(()) = registry.changed() => {}
            () = sleep(RETRY) => {}
        }
    }
    reign.stalled(None);
}

fn last_recovery(reign: &Reign, plan: &Plan, read: &Read) -> LastRecovery {
    LastRecovery {
        epoch: reign.epoch,
        cause: reign.accepted.appointment.cause.clone(),
        started_unix_ms: reign.accepted.unix_ms,
        duration_ms: u64::try_from(reign.elapsed().as_millis()).unwrap_or(u64::MAX),
        recovery_version: plan.versions.recovery,
        first_version: plan.versions.first,
        reused: plan.recruits.reused.clone(),
        made: plan.recruits.made.clone(),
        source: read.source,
        phases: reign.progress.durations(),
    }
}

async fn commit(
    reign: &Reign,
    plan: &Plan,
    last_recovery: &LastRecovery,
    limit: Duration,
) -> Result<Version, Fatal> {
    let mutations = system_mutations(&plan.recorded, last_recovery)
        .map_err(|error| Fatal::new(format!("the configuration can't be written: {error}")))?;
    let request = CommitRequest {
        epoch: reign.epoch,
        read_version: None,
        reads: Vec::new(),
        writes: Vec::new(),
        mutations,
        stamps: vec![],
        system: true,
        begins: false,
    };
    let proxy = plan.recruits.commit_proxies.first();
    let proxy = proxy.ok_or_else(|| Fatal::new("the epoch has no commit proxy"))?;
    reign.meters.system_transaction(Step::Submitted);
    tracing::info!(epoch = reign.epoch.0, proxy = %proxy.service, "system transaction submitted");
    let committed = reign
        .tell_once(proxy, "committing the system transaction", COMMIT, &request, limit)
        .await?;
    record_version(&tracing::Span::current(), committed.version.0);
    Ok(committed.version)
}

/// Asks every member of both teams until a majority of each confirms, or time is up.
async fn prove(
    reign: &Reign,
    proof: &mut Proof,
    version: Version,
    deadline: Instant,
) -> Result<(), Fatal> {
    let members: BTreeMap<StoreId, ServiceRef> = proof.members();
    let ask = |store: StoreId, service: ServiceRef, pause: Duration| async move {
        sleep(pause).await;
        (store, shard_config(reign, store, &service, version).await)
    };
    let first = members.iter().map(|(store, service)| ask(*store, service.clone(), Duration::ZERO));
    let mut asking: FuturesUnordered<_> = first.collect();
    while !proof.is_complete() {
        let Ok(Some((store, answer))) = timeout_at(deadline, asking.next()).await else {
            return Err(Fatal::new(format!("not durable in time: {}", proof.lacking())));
        };
        let confirms = match answer {
            Ok(answer) => proof.offer(store, &answer),
            Err(why) => {
                proof.object(store, why);
                false
            }
        };
        if !confirms && let Some(service) = members.get(&store) {
            asking.push(ask(store, service.clone(), RETRY));
        }
    }
    Ok(())
}

/// What a storage has on disk, once it has `version`; else why it does not say.
async fn shard_config(
    reign: &Reign,
    store: StoreId,
    service: &ServiceRef,
    version: Version,
) -> Result<ShardConfig, String> {
    let nodes = reign.nodes();
    let Whereabouts::Up(pid) = nodes.find(service, store) else {
        return Err("it is not up".to_owned());
    };
    let peer = Peer { service: service.clone(), pid: pid.clone() };
    let wait_ms = u64::try_from(SHARD_CONFIG_WAIT.as_millis()).unwrap_or(u64::MAX);
    let query = ShardConfigQuery { version: Some(version), wait_ms };
    let limit = SHARD_CONFIG_WAIT + ASSIGN_LIMIT;
    let answer = reign.call(&peer, SHARD_CONFIG, &query, limit).await;
    answer.map_err(|error| Words(&error).to_string())
}
