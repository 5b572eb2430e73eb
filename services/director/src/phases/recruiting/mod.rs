//! `recruiting`: who does what in the new epoch.
//!
//! Healthy logs and storages are kept; vacancies are filled from workers that stand by, else foremen
//! make them, spread over zones ([`placement`] decides). A storage of the layout keeps its place
//! even while it is down: nobody else has its data. **Keeps: a durable worker is its directory** —
//! another directory under the same name is another, empty worker — and **a leftover of an earlier
//! epoch is never taken for one of this** (it is assigned anew, by its incarnation).

mod placement;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use plinth_api::commit_proxy::Peer;
use plinth_api::common::INFO;
use plinth_api::coordinator::Holding;
use plinth_api::foreman::{CREATE, CreateWorker, NodeReport, Worker, WorkerState};
use plinth_api::{CallError, ErrorCode, Nothing, Target, TransportError, log};
use plinth_system_config::{
    NodeEntry, Parameters, ShardMap, Standing, StorageMember, SystemConfig,
};
use plinth_types::{Epoch, Incarnation, NodeId, ServiceKind, ServiceRef, StoreId};
use tokio::time::{Instant, sleep};

use self::placement::{Candidate, Placement, Site, Wanted, place};
use super::locking::Locked;
use crate::config::{
    MAKE_LIMIT, MAKE_PAUSE, OPENING_LOOK, OPENING_PATIENCE, PROBE_LIMIT, PROBES, RETRY,
    SUSPECT_PROBE_LIMIT,
};
use crate::fatal::Fatal;
use crate::plan::{LogRecruit, Recruits, first_storages, first_teams};
use crate::registry::{Registry, Whereabouts};
use crate::reign::Reign;

/// What has been learnt while recruiting.
#[derive(Default)]
struct Experience {
    /// Workers that foremen made, which the registry may not show yet.
    made: BTreeMap<ServiceRef, Worker>,
    /// Foremen that could not make a worker, and until when they are left alone.
    unable: BTreeMap<NodeId, (Instant, String)>,
    /// Processes that did not answer when they were asked. They are not asked again, unless there
    /// is nobody else.
    mute: BTreeSet<Incarnation>,
    /// A log that is opening its store.
    opening: Option<ServiceRef>,
}

/// Recruits everybody, waiting for as long as somebody is lacking.
pub(crate) async fn run(
    reign: &Reign,
    holding: &Holding,
    locked: &Locked,
) -> Result<Recruits, Fatal> {
    let parameters = parameters(reign, locked);
    let wanted = wanted(&parameters, &reign.first_shards, locked);
    let mut registry = reign.registry();
    let mut experience = Experience::default();
    loop {
        let nodes = registry.borrow_and_update().clone();
        let sites = sites(reign, &nodes, locked, &experience);
        let candidates = candidates(reign, &nodes, locked, wanted, &mut experience).await;
        match place(wanted, &sites, &candidates) {
            Ok(placement) if placement.to_make().next().is_none() => {
                reign.stalled(None);
                // Storages are found by the registry from here on.
                if are_registered(&nodes, &placement) {
                    let shards = &reign.first_shards;
                    let recruits = recruits(&nodes, locked, &parameters, shards, &placement)
                        .ok_or_else(|| Fatal::new("the placement has no sequencer"))?;
                    if locked.recorded.is_some() {
                        for service in &recruits.made {
                            reign.mark(format_args!("director.replaced.{}", service.kind()));
                        }
                    }
                    return Ok(recruits);
                }
            }
            // A log that can't open its store ends, and is started again and again: who recruits it
            // before it is open recruits in vain.
            ref lacking if lacks_a_log(lacking) && is_opening(reign, &experience) => {
                sleep(OPENING_LOOK).await;
                continue;
            }
            // Somebody is lacking who may be about to come by itself.
            _ if is_coming(reign, &nodes, holding, locked, &parameters) => {}
            Ok(placement) => {
                make(reign, &nodes, &placement, &mut experience).await;
                continue;
            }
            Err(lacking) => {
                experience.mute.clear();
                let unable = experience.unable.values().map(|(_, why)| format!("; {why}"));
                reign.stalled(Some(lacking + &unable.collect::<String>()));
            }
        }
        tokio::select! {
            biased;
            Ok(()) = registry.changed() => {}
            () = sleep(RETRY) => {}
        }
    }
}

fn parameters(reign: &Reign, locked: &Locked) -> Parameters {
    let recorded = locked.recorded.as_ref().map(|recorded| &recorded.config.parameters);
    recorded.unwrap_or(&reign.first_parameters).clone()
}

fn wanted(parameters: &Parameters, shards: &ShardMap, locked: &Locked) -> Wanted {
    let size = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    let is_new = locked.recorded.is_none();
    Wanted {
        logs: size(parameters.logs),
        storages: if is_new { first_storages(parameters, shards) } else { 0 },
        commit_proxies: size(parameters.commit_proxies),
        resolvers: size(parameters.resolvers),
        replication: size(parameters.replication),
    }
}

/// Whether a log may be what is lacking. Others can be made meanwhile.
fn lacks_a_log(placed: &Result<Placement, String>) -> bool {
    placed.as_ref().map_or(true, |placement| {
        placement.to_make().any(|service| service.kind() == ServiceKind::Log)
    })
}

/// Whether a log that is lacking is opening its store, and there is still time for that.
fn is_opening(reign: &Reign, experience: &Experience) -> bool {
    let Some(log) = &experience.opening else { return false };
    let is_opening = reign.elapsed() < OPENING_PATIENCE;
    if is_opening {
        reign.stalled(Some(format!("waiting for {log} to open its store")));
    }
    is_opening
}

/// Whether a node that the cluster knows has yet to report or to bring up what it has, and there is
/// still time for that: better its own workers than others made in their place.
fn is_coming(
    reign: &Reign,
    nodes: &Registry,
    holding: &Holding,
    locked: &Locked,
    parameters: &Parameters,
) -> bool {
    let group_age = Duration::from_millis(reign.accepted.appointment.group_age_ms);
    let start = Duration::from_millis(parameters.start_grace_ms).saturating_sub(group_age);
    let patience = start.max(Duration::from_millis(parameters.rejoin_grace_ms));
    let coordinators = holding.coordinators.iter().map(|coordinator| &coordinator.service.node);
    let before = locked.recorded.iter().flat_map(|recorded| known_nodes(&recorded.config));
    let unsettled: BTreeSet<&NodeId> =
        coordinators.chain(before).filter(|node| !nodes.is_settled(node)).collect();
    let is_coming = !unsettled.is_empty() && reign.elapsed() < patience;
    if is_coming {
        let names: Vec<String> = unsettled.iter().map(ToString::to_string).collect();
        reign.stalled(Some(format!("waiting for {} to come up", names.join(", "))));
    }
    is_coming
}

/// The nodes that the cluster counts on. One that is drained may be switched off.
fn known_nodes(config: &SystemConfig<ServiceRef>) -> impl Iterator<Item = &NodeId> {
    let nodes = config.nodes.iter().filter(|(node, entry)| {
        entry.standing.is_in_use() || !config.remaining_on(node).is_empty()
    });
    nodes.map(|(node, _)| node)
}

/// The nodes that may get workers: all but those that were removed.
fn sites(reign: &Reign, nodes: &Registry, locked: &Locked, experience: &Experience) -> Vec<Site> {
    let standing = |node: &NodeId| {
        locked.recorded.as_ref().map(|recorded| recorded.config.standing(node)).unwrap_or_default()
    };
    let suspects: BTreeSet<&NodeId> =
        reign.accepted.appointment.suspects.iter().map(|suspect| &suspect.node).collect();
    let now = Instant::now();
    let site = |report: &NodeReport| {
        let made = experience.made.keys().filter(|made| made.node == report.node);
        let up = report.workers.iter().filter(|worker| worker.state == WorkerState::Up);
        let is_able = experience.unable.get(&report.node).is_none_or(|(until, _)| *until <= now);
        Site {
            node: report.node.clone(),
            zone: report.zone.clone(),
            makes: report.kinds.iter().copied().filter(|_| is_able).collect(),
            taken: up.map(|worker| worker.name).chain(made.map(|made| made.name)).collect(),
            suspect: suspects.contains(&report.node),
            draining: standing(&report.node) == Standing::Draining,
        }
    };
    let nodes = nodes.nodes().filter(|report| standing(&report.node) != Standing::Removed);
    nodes.map(site).collect()
}

/// Every worker that may get a seat: it runs, and answers when it is asked.
async fn candidates(
    reign: &Reign,
    nodes: &Registry,
    locked: &Locked,
    wanted: Wanted,
    experience: &mut Experience,
) -> Vec<Candidate> {
    let mut running: BTreeMap<ServiceRef, Worker> = BTreeMap::new();
    for report in nodes.nodes() {
        for worker in report.workers.iter().filter(|worker| worker.state == WorkerState::Up) {
            running.insert(ServiceRef::new(worker.name, report.node.clone()), worker.clone());
        }
    }
    for (service, worker) in &experience.made {
        running.entry(service.clone()).or_insert_with(|| worker.clone());
    }
    let damaged: BTreeSet<StoreId> = locked.damaged.iter().map(|(_, store, _)| *store).collect();
    let is_of_use = |service: &ServiceRef, worker: &Worker| match service.kind() {
        ServiceKind::Log => worker.store.is_some_and(|store| !damaged.contains(&store)),
        ServiceKind::Storage => wanted.storages > 0 && worker.store.is_some(),
        ServiceKind::Sequencer | ServiceKind::CommitProxy | ServiceKind::Resolver => true,
        ServiceKind::Coordinator
        | ServiceKind::Director
        | ServiceKind::Foreman
        | ServiceKind::Gateway => false,
    };
    let is_mute = |worker: &Worker| {
        worker.pid.as_ref().is_some_and(|pid| experience.mute.contains(&pid.incarnation))
    };
    let probes = running
        .into_iter()
        .filter(|(service, worker)| is_of_use(service, worker) && !is_mute(worker))
        .map(|(service, worker)| probe(reign, locked, service, worker));
    let probes: Vec<_> = probes.collect();
    let answers: Vec<Probed> = stream::iter(probes).buffered(PROBES).collect().await;
    let mut candidates = Vec::new();
    experience.opening = None;
    for answer in answers {
        match answer {
            Probed::Here(candidate) => candidates.push(*candidate),
            Probed::Mute(incarnation) => drop(experience.mute.insert(incarnation)),
            Probed::Opening(log) => experience.opening = Some(log),
            Probed::Elsewhere => {}
        }
    }
    candidates
}

/// What came of asking a worker whether it is there.
enum Probed {
    Here(Box<Candidate>),
    /// It has not answered, as a frozen process does.
    Mute(Incarnation),
    /// It is a log that has not opened its store yet.
    Opening(ServiceRef),
    /// It is not what it was reported to be, or has ended since.
    Elsewhere,
}

/// A locked log has just answered; everybody else is asked.
async fn probe(reign: &Reign, locked: &Locked, service: ServiceRef, worker: Worker) -> Probed {
    let Some(pid) = worker.pid else { return Probed::Elsewhere };
    let held = locked.logs.iter().find(|log| Some(log.answer.store) == worker.store);
    let (fresh, holds) = match held {
        // The process that is locked, not one that has taken its place since.
        Some(log) if log.pid.incarnation == pid.incarnation => (false, log.tags.clone()),
        Some(_) => return Probed::Elsewhere,
        None => {
            let is_suspect = reign.accepted.appointment.suspects.contains(&service);
            let limit = if is_suspect { SUSPECT_PROBE_LIMIT } else { PROBE_LIMIT };
            let target = Target::from(&pid);
            let peers = reign.context.peers();
            match peers.call(&target, &INFO, &Nothing {}, Some(reign.epoch), limit).await {
                Ok(info) if info.pid.incarnation == pid.incarnation && info.service == service => {
                    match state_of(reign, &service, &target, limit).await {
                        State::Open => {}
                        State::Opening => return Probed::Opening(service),
                        State::Useless(why) => {
                            tracing::warn!(%service, why, "passed over");
                            return Probed::Elsewhere;
                        }
                    }
                    (info.epoch == Epoch::ZERO, Vec::new())
                }
                Ok(_) => return Probed::Elsewhere,
                Err(error) => {
                    tracing::info!(%service, %error, "passed over");
                    return match error {
                        CallError::Transport(TransportError::Timeout { .. }) => {
                            Probed::Mute(pid.incarnation)
                        }
                        _ => Probed::Elsewhere,
                    };
                }
            }
        }
    };
    Probed::Here(Box::new(Candidate { service, pid, store: worker.store, fresh, holds }))
}

/// What a log that is not locked says of itself.
enum State {
    Open,
    /// It reads its store, and may yet find that it can't.
    Opening,
    /// It can't be used, and runs all the same: a damaged one to show the configuration that it keeps,
    /// one whose disk is full until there is room.
    Useless(&'static str),
}

async fn state_of(reign: &Reign, service: &ServiceRef, target: &Target, limit: Duration) -> State {
    if service.kind() != ServiceKind::Log {
        return State::Open;
    }
    let (peers, epoch) = (reign.context.peers(), Some(reign.epoch));
    match peers.call(target, &log::STATUS, &Nothing {}, epoch, limit).await {
        Ok(status) if status.disk_full => State::Useless("its disk is full"),
        Ok(_) => State::Open,
        Err(error) => match error.code() {
            Some(ErrorCode::Damaged) => State::Useless("it is damaged"),
            Some(ErrorCode::NotReady) => State::Opening,
            _ => State::Useless("it does not say how it is"),
        },
    }
}

/// Has foremen make everything that the placement lacks, all at once.
async fn make(reign: &Reign, nodes: &Registry, placement: &Placement, experience: &mut Experience) {
    let wait_ms = u64::try_from(MAKE_LIMIT.as_millis()).unwrap_or(u64::MAX);
    let limit = MAKE_LIMIT + PROBE_LIMIT;
    let orders = placement.to_make().filter_map(|service| {
        let foreman = Target::from(&nodes.node(&service.node)?.foreman);
        let request = CreateWorker { name: service.name, epoch: reign.epoch, wait_ms };
        Some(async move {
            let (peers, epoch) = (reign.context.peers(), Some(reign.epoch));
            // To make a worker takes its time; to see that the foreman is there must not.
            let made = async {
                peers.call(&foreman, &INFO, &Nothing {}, epoch, PROBE_LIMIT).await?;
                peers.call(&foreman, &CREATE, &request, epoch, limit).await
            };
            (service.clone(), made.await)
        })
    });
    let orders: Vec<_> = orders.collect();
    let results: Vec<_> = stream::iter(orders).buffered(PROBES).collect().await;
    for (service, result) in results {
        let failed = match result {
            Ok(worker) if worker.pid.is_some() => {
                tracing::info!(%service, store = ?worker.store, "made");
                experience.made.insert(service, worker);
                continue;
            }
            Ok(worker) => {
                let last = worker.last_exit.map(|exit| format!(": {exit}")).unwrap_or_default();
                format!("it did not come up{last}")
            }
            Err(error) => error.to_string(),
        };
        tracing::warn!(%service, reason = failed, "could not be made");
        let why = format!("{service} could not be made: {failed}");
        experience.unable.insert(service.node, (Instant::now() + MAKE_PAUSE, why));
    }
}

fn are_registered(nodes: &Registry, placement: &Placement) -> bool {
    placement.taken(ServiceKind::Storage).all(|storage| {
        let found = storage.store.map(|store| nodes.find(&storage.service, store));
        matches!(found, Some(Whereabouts::Up(_)))
    })
}

fn peers(placement: &Placement, kind: ServiceKind) -> Vec<Peer> {
    let peer = |one: &Candidate| Peer { service: one.service.clone(), pid: one.pid.clone() };
    placement.taken(kind).map(peer).collect()
}

/// Who was recruited, once nothing is left to be made.
fn recruits(
    nodes: &Registry,
    locked: &Locked,
    parameters: &Parameters,
    first_shards: &ShardMap,
    placement: &Placement,
) -> Option<Recruits> {
    let logs: Vec<LogRecruit> = placement
        .taken(ServiceKind::Log)
        .filter_map(|log| {
            Some(LogRecruit {
                peer: Peer { service: log.service.clone(), pid: log.pid.clone() },
                store: log.store?,
                zone: nodes.zone(&log.service.node),
                holds: log.holds.clone(),
            })
        })
        .collect();
    let teams = match &locked.recorded {
        Some(recorded) => recorded.config.layout.storage_teams.clone(),
        None => {
            let storages = placement.taken(ServiceKind::Storage).filter_map(|storage| {
                Some(StorageMember { store: storage.store?, service: storage.service.clone() })
            });
            first_teams(parameters, first_shards, &storages.collect::<Vec<_>>())
        }
    };
    let was_there = |store: StoreId| {
        locked.recorded.as_ref().is_some_and(|recorded| recorded.config.layout.names_store(store))
    };
    let storages = teams.iter().flat_map(|team| &team.members);
    let durable: BTreeMap<StoreId, ServiceRef> = logs
        .iter()
        .map(|log| (log.store, log.peer.service.clone()))
        .chain(storages.map(|member| (member.store, member.service.clone())))
        .collect();
    let (reused, made): (BTreeMap<_, _>, BTreeMap<_, _>) =
        durable.into_iter().partition(|(store, _)| was_there(*store));
    let mut seen: BTreeMap<NodeId, NodeEntry> =
        locked.recorded.as_ref().map(|r| r.config.nodes.clone()).unwrap_or_default();
    for report in nodes.nodes() {
        NodeEntry::note(&mut seen, &report.node, report.entry());
    }
    for degraded in &placement.degraded {
        tracing::warn!(degraded, "copies are not spread over zones");
    }
    Some(Recruits {
        sequencer: peers(placement, ServiceKind::Sequencer).into_iter().next()?,
        commit_proxies: peers(placement, ServiceKind::CommitProxy),
        resolvers: peers(placement, ServiceKind::Resolver),
        logs,
        teams,
        nodes: seen,
        reused: reused.into_values().collect(),
        made: made.into_values().collect(),
    })
}
