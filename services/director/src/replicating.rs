//! Looks after the storage teams while the epoch lasts: sees how the storages are, and carries out what
//! [`crate::teams`] decides, one step at a time. Ends the epoch where the next one's logs would be spread
//! better.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use plinth_api::commit_proxy::Peer;
use plinth_api::common::INFO;
use plinth_api::director::CopyProgress;
use plinth_api::foreman::{CREATE, CreateWorker, RETIRE, RetireWorker, WorkerState};
use plinth_api::storage::{self, Status};
use plinth_api::{Nothing, Target, log};
use plinth_types::{NodeId, ServiceKind, ServiceRef, StoreId};
use tokio::time::{Instant, sleep};

use crate::amending::{Account, Book, amend};
use crate::changing::carry_out;
use crate::config::{
    MAKE_LIMIT, PROBE_LIMIT, REPLICATION_PAUSE, REPLICATION_PERIOD, REPLICATION_PERIOD_BUSY,
    SPREAD_AFTER,
};
use crate::fatal::Fatal;
use crate::plan::Plan;
use crate::registry::Registry;
use crate::reign::Reign;
use crate::teams::{self, Leaving, LogSite, Step, View};

/// What has been seen over time.
#[derive(Default)]
struct Memory {
    /// Since when storages of the layout have not answered.
    gone: BTreeMap<StoreId, Instant>,
    /// Since when newcomers have been whole.
    whole: BTreeMap<StoreId, Instant>,
    /// Foremen that could not do what they were asked to, and until when they are left alone.
    unable: BTreeMap<NodeId, Instant>,
    /// Storages that were ordered away. They are ordered again, but never recruited.
    retired: BTreeSet<StoreId>,
    /// Since when the logs could be spread better.
    uneven: Option<Instant>,
    /// Since when something of the epoch has been on nodes that are being drained.
    leaving: Option<Instant>,
    /// What was lacking at the last look.
    lacking: Vec<String>,
}

/// What is seen at one moment.
struct Sight {
    plan: Arc<Plan>,
    nodes: Arc<Registry>,
    statuses: BTreeMap<StoreId, Status>,
    gone: BTreeMap<StoreId, Duration>,
    whole: BTreeMap<StoreId, Duration>,
    backlogs: BTreeMap<StoreId, u64>,
    unable: BTreeSet<NodeId>,
}

impl Sight {
    fn view(&self) -> View<'_> {
        View {
            recorded: &self.plan.recorded,
            nodes: &self.nodes,
            statuses: &self.statuses,
            gone: &self.gone,
            whole: &self.whole,
            backlogs: &self.backlogs,
            unable: &self.unable,
        }
    }
}

impl Memory {
    /// Notes since when newcomers have been whole, and answers for how long. One that does not answer for
    /// a moment has not lost what it has.
    fn note_whole(
        &mut self,
        plan: &Plan,
        statuses: &BTreeMap<StoreId, Status>,
        now: Instant,
    ) -> BTreeMap<StoreId, Duration> {
        let joining = plan.layout().storage_teams.iter().flat_map(|team| &team.joining);
        let joining: BTreeSet<StoreId> = joining.map(|newcomer| newcomer.store).collect();
        self.whole.retain(|store, _| joining.contains(store));
        for store in joining {
            let is_whole = |status: &&Status| {
                status.epoch == plan.layout().epoch
                    && status.tags.iter().all(|tag| tag.copying.is_none())
            };
            if statuses.get(&store).filter(is_whole).is_some() {
                self.whole.entry(store).or_insert(now);
            }
        }
        self.whole.iter().map(|(store, since)| (*store, now - *since)).collect()
    }

    /// What is told to be lacking: what was lacking at the last look too. A storage that is slow to
    /// answer once is not missed.
    fn degraded(&mut self, lacking: Vec<String>) -> Vec<String> {
        let told = lacking.iter().filter(|words| self.lacking.contains(words)).cloned().collect();
        self.lacking = lacking;
        told
    }
}

/// Looks after the teams until the epoch ends.
pub(crate) fn start(reign: &Reign, book: &Book, account: Account) {
    let (scope, reign, book) = (reign.context.scope().clone(), reign.clone(), book.clone());
    let task = async move {
        let fatal = replicate(&reign, &book, account).await;
        reign.fail(fatal);
    };
    drop(scope.spawn("replicating", task));
}

async fn replicate(reign: &Reign, book: &Book, mut account: Account) -> Fatal {
    let mut memory = Memory::default();
    let mut orders = reign.orders.take().await;
    loop {
        while let Ok(order) = orders.try_recv() {
            if let Err(fatal) = carry_out(reign, book, &mut account, order).await {
                return fatal;
            }
        }
        let sight = look(reign, book, &mut memory).await;
        let view = sight.view();
        reign.progress.show_copies(copies(&sight), memory.degraded(teams::degraded(&view)));
        let step = teams::next(&view);
        let is_still = step.is_none();
        match step {
            Some(Step::Change(change)) => {
                let next = change.apply(view.recorded, &view.node_entries());
                let changed = amend(reign, book, &mut account, next, change.describe()).await;
                if let Err(fatal) = changed {
                    return fatal;
                }
                reign.mark(format_args!("director.teams.{}", change.kind()));
                continue;
            }
            Some(Step::Make(service)) => make(reign, &sight.nodes, service, &mut memory).await,
            None => {}
        }
        retire(reign, &sight, &mut memory).await;
        if let Some(fatal) = spread(reign, &sight, &mut memory).await {
            return fatal;
        }
        if is_still && let Some(fatal) = leave(reign, &sight, &mut memory).await {
            return fatal;
        }
        let is_busy = sight.plan.layout().storage_teams.iter().any(|team| !team.joining.is_empty());
        let pause = sleep(if is_busy { REPLICATION_PERIOD_BUSY } else { REPLICATION_PERIOD });
        tokio::select! {
            biased;
            Some(order) = orders.recv() => {
                if let Err(fatal) = carry_out(reign, book, &mut account, order).await {
                    return fatal;
                }
            }
            () = pause => {}
        }
    }
}

/// Asks every storage and every log how it is.
async fn look(reign: &Reign, book: &Book, memory: &mut Memory) -> Sight {
    let plan = Arc::clone(&book.borrow());
    let nodes = reign.nodes();
    let directory = reign.live.directory();
    let mut storages: BTreeMap<StoreId, Peer> = BTreeMap::new();
    for (service, store, pid) in storages_up(&nodes) {
        storages.insert(store, Peer { service, pid });
    }
    // Workers outlive their foreman: one that is silent says nothing about them.
    for (store, service) in plan.storages() {
        if let Some(pid) = directory.pid_of(&service) {
            storages.entry(store).or_insert_with(|| Peer { service, pid: pid.clone() });
        }
    }
    let asked = storages.into_iter().map(|(store, peer)| async move {
        let status = reign.call(&peer, storage::STATUS, &Nothing {}, PROBE_LIMIT).await;
        status.ok().filter(|status| status.store == store).map(|status| (store, status))
    });
    let statuses: BTreeMap<StoreId, Status> = join_all(asked).await.into_iter().flatten().collect();
    let asked = plan.recruits.logs.iter().map(|log| async move {
        reign.call(&log.peer, log::STATUS, &Nothing {}, PROBE_LIMIT).await
    });
    let mut backlogs: BTreeMap<StoreId, u64> = BTreeMap::new();
    for status in join_all(asked).await.into_iter().flatten() {
        for backlog in status.backlogs {
            let most = backlogs.entry(backlog.store).or_default();
            *most = (*most).max(backlog.bytes);
        }
    }
    let now = Instant::now();
    let named = plan.storages();
    memory.gone.retain(|store, _| named.contains_key(store) && !statuses.contains_key(store));
    for store in named.keys().filter(|store| !statuses.contains_key(*store)) {
        memory.gone.entry(*store).or_insert(now);
    }
    memory.unable.retain(|_, until| *until > now);
    let whole = memory.note_whole(&plan, &statuses, now);
    let gone = memory.gone.iter().map(|(store, since)| (*store, now - *since)).collect();
    let unable = memory.unable.keys().cloned().collect();
    let retired = |store: &StoreId| memory.retired.contains(store) && !named.contains_key(store);
    let recruits = statuses.iter().filter(|(store, status)| {
        // One that was ordered away and has lost what it had is still not blank.
        !(retired(store) && status.tags.is_empty())
    });
    let statuses = recruits.map(|(store, status)| (*store, status.clone())).collect();
    Sight { plan, nodes, statuses, gone, whole, backlogs, unable }
}

fn storages_up(nodes: &Registry) -> Vec<(ServiceRef, StoreId, plinth_types::Pid)> {
    let mut storages = Vec::new();
    for report in nodes.nodes() {
        let workers = report.workers.iter().filter(|worker| {
            worker.name.kind == ServiceKind::Storage && worker.state == WorkerState::Up
        });
        for worker in workers {
            if let (Some(store), Some(pid)) = (worker.store, worker.pid.clone()) {
                storages.push((ServiceRef::new(worker.name, report.node.clone()), store, pid));
            }
        }
    }
    storages
}

/// How far the copies are.
fn copies(sight: &Sight) -> Vec<CopyProgress> {
    let mut copies = Vec::new();
    let named = sight.plan.storages();
    for team in &sight.plan.layout().storage_teams {
        for newcomer in &team.joining {
            let status = sight.statuses.get(&newcomer.store);
            let epoch = sight.plan.layout().epoch;
            let status = status.filter(|status| status.epoch == epoch);
            let tag = status.and_then(|status| status.tags.iter().find(|tag| tag.tag == team.tag));
            let copying = tag.and_then(|tag| tag.copying).unwrap_or_default();
            let state = match tag.map(|tag| tag.copying) {
                None => "waiting",
                Some(None) => "whole",
                Some(Some(copying)) if copying.catching_up => "catching_up",
                Some(Some(_)) => "copying",
            };
            copies.push(CopyProgress {
                tag: team.tag,
                service: newcomer.service.clone(),
                store: newcomer.store,
                replaces: newcomer.replaces.and_then(|store| named.get(&store).cloned()),
                keys: copying.keys,
                bytes: copying.bytes,
                backlog_bytes: sight.backlogs.get(&newcomer.store).copied().unwrap_or(0),
                state: state.to_owned(),
            });
        }
    }
    copies
}

/// Has a foreman make a worker. It is recruited once it answers.
async fn make(reign: &Reign, nodes: &Registry, service: ServiceRef, memory: &mut Memory) {
    let Some(report) = nodes.node(&service.node) else { return };
    let foreman = Target::from(&report.foreman);
    let wait_ms = u64::try_from(MAKE_LIMIT.as_millis()).unwrap_or(u64::MAX);
    let request = CreateWorker { name: service.name, epoch: reign.epoch, wait_ms };
    let (peers, epoch) = (reign.context.peers(), Some(reign.epoch));
    let made = async {
        peers.call(&foreman, &INFO, &Nothing {}, epoch, PROBE_LIMIT).await?;
        peers.call(&foreman, &CREATE, &request, epoch, MAKE_LIMIT + PROBE_LIMIT).await
    };
    let failed = match made.await {
        Ok(worker)
            if worker.pid.is_some() && worker.store.is_some() == service.kind().is_durable() =>
        {
            tracing::info!(%service, store = ?worker.store, "made");
            return;
        }
        Ok(_) => "it did not come up".to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(%service, reason = failed, "could not be made");
    memory.unable.insert(service.node, Instant::now() + REPLICATION_PAUSE);
}

/// Ends the epoch, if the logs could have been spread better for a while and one runs where it would
/// be. Has it made before.
async fn spread(reign: &Reign, sight: &Sight, memory: &mut Memory) -> Option<Fatal> {
    let Some(site) = sight.view().better_log() else {
        memory.uneven = None;
        return None;
    };
    if memory.uneven.get_or_insert_with(Instant::now).elapsed() < SPREAD_AFTER {
        return None;
    }
    let (service, pid) = match site {
        LogSite::Standing(service, pid) => (service, pid),
        LogSite::Make(service) => {
            make(reign, &sight.nodes, service, memory).await;
            return None;
        }
    };
    let peers = reign.context.peers();
    let answer =
        peers.call(&Target::from(&pid), &INFO, &Nothing {}, Some(reign.epoch), PROBE_LIMIT).await;
    if answer.is_ok_and(|info| info.pid.incarnation == pid.incarnation) {
        reign.mark("director.spreads_the_logs");
        let reason = format!("the logs can be spread better: {service} stands by in another zone");
        return Some(Fatal::new(reason));
    }
    memory.unable.insert(service.node, Instant::now() + REPLICATION_PAUSE);
    None
}

/// Ends the epoch, if something of it is on nodes that are being drained and others stand by in its
/// place. Has them made before. Never at once: where the next epoch is on such a node again, there is a
/// pause between the attempts.
async fn leave(reign: &Reign, sight: &Sight, memory: &mut Memory) -> Option<Fatal> {
    let Some(leaving) = sight.view().leaving(reign.context.service()) else {
        memory.leaving = None;
        return None;
    };
    let since = *memory.leaving.get_or_insert_with(Instant::now);
    let standing = match leaving {
        Leaving::Make(service) => {
            make(reign, &sight.nodes, service, memory).await;
            return None;
        }
        Leaving::Ready(standing) => standing,
    };
    if since.elapsed() < SPREAD_AFTER {
        return None;
    }
    let peers = reign.context.peers();
    for (service, pid) in standing {
        let target = Target::from(&pid);
        let answer = peers.call(&target, &INFO, &Nothing {}, Some(reign.epoch), PROBE_LIMIT).await;
        if !answer.is_ok_and(|info| info.pid.incarnation == pid.incarnation) {
            memory.unable.insert(service.node, Instant::now() + REPLICATION_PAUSE);
            return None;
        }
    }
    reign.mark("director.leaves_draining_nodes");
    Some(Fatal::new("others stand by for what is on nodes that are being drained"))
}

/// Orders storages away that no layout names any more, one at a time. Their foreman makes sure of it.
async fn retire(reign: &Reign, sight: &Sight, memory: &mut Memory) {
    let mut leftovers = sight.view().leftovers();
    // A deliberate fault, as of a director whose layout is an old one: foremen must not obey.
    if reign.context.runtime().fault("director.retires_members") {
        leftovers.extend(sight.plan.members());
    }
    let due = leftovers.into_iter().find(|(_, service)| !sight.unable.contains(&service.node));
    let Some((store, service)) = due else { return };
    let Some(report) = sight.nodes.node(&service.node) else { return };
    memory.retired.insert(store);
    let foreman = Target::from(&report.foreman);
    let request = RetireWorker { name: service.name, store, epoch: reign.epoch };
    let (peers, epoch) = (reign.context.peers(), Some(reign.epoch));
    let retired = async {
        peers.call(&foreman, &INFO, &Nothing {}, epoch, PROBE_LIMIT).await?;
        peers.call(&foreman, &RETIRE, &request, epoch, MAKE_LIMIT + PROBE_LIMIT).await
    };
    match retired.await {
        Ok(_) => {
            reign.mark("director.retired_a_storage");
            tracing::info!(%service, %store, "is removed: no layout names it any more");
        }
        Err(error) => {
            tracing::warn!(%service, %store, %error, "can't be removed now");
            memory.unable.insert(service.node, Instant::now() + REPLICATION_PAUSE);
        }
    }
}
