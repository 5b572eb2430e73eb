//! Gathers what a starting coordinator can learn. Everybody is asked at once, each within a limit;
//! who does not answer is unknown, never none.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{join, join_all};
use plinth_api::coordinator::{BOOTSTRAP, BootstrapReport};
use plinth_api::foreman::{HEALTH, HealthQuery, NodeReport, WORKERS, Worker, WorkersQuery};
use plinth_api::{CallError, ErrorCode, Nothing, Target, log, storage};
use plinth_service::{Context, Failure};
use plinth_system_config::bootstrap::{
    ForemanReport, Held, Inputs, Kept, Known, Manifest, RaftReport, RaftState, WorkerReport,
};
use plinth_system_config::{Recorded, recorded_from_rows, shards_from_rows};
use plinth_types::{ClusterId, Epoch, NodeId, ServiceKind, ServiceRef, StoreId};
use tokio::time::Instant;

use crate::ballots;
use crate::config::{ASK_LIMIT, FOREMAN_PATIENCE};
use crate::node::Node;

/// Asks everybody.
///
/// # Errors
/// Its own store can't be read.
pub(crate) async fn gather(node: &Arc<Node>, since: Instant) -> Result<Inputs, Failure> {
    let own = ballots::report(node).await?;
    let me = node.context.service().clone();
    let (mut peers, own_workers) = join(ask_peers(node, &own), own_workers(node)).await;

    let mut reports: BTreeMap<NodeId, NodeReport> = BTreeMap::new();
    let heard = peers.values().flatten().flat_map(|peer| peer.nodes.iter());
    for report in heard.chain(&own.nodes) {
        let better = reports.get(&report.node).is_none_or(|known| !known.settled);
        if better {
            reports.insert(report.node.clone(), report.clone());
        }
    }
    // A foreman that still waits for its workers may be about to name more.
    reports.retain(|_, report| report.settled || since.elapsed() > FOREMAN_PATIENCE);

    let mut durable: BTreeMap<StoreId, (ServiceRef, Option<Target>)> = BTreeMap::new();
    for report in reports.values() {
        add_durable(&mut durable, &report.node, &report.workers);
    }
    add_durable(&mut durable, &me.node, &own_workers);
    let answers = join_all(durable.iter().map(|(store, (service, target))| async {
        Some((*store, ask_worker(&node.context, service, target.as_ref()?).await))
    }));
    let answers: BTreeMap<StoreId, Heard> = answers.await.into_iter().flatten().collect();

    // Workers may name coordinators that nobody else has.
    for heard in answers.values() {
        if let Known::Has(Kept::Readable(recorded)) = &heard.kept {
            node.contacts.learn_all(recorded);
        }
    }
    let is_known = |service: &ServiceRef| *service == me || peers.contains_key(service);
    let named = node.contacts.everybody().into_iter().filter(|(service, _)| !is_known(service));
    let asked = named.map(|(service, addresses)| async move {
        let report = ask_peer(node, &service, addresses).await;
        (service, report)
    });
    let more = join_all(asked).await;
    peers.extend(more);

    let unknown_is_none = node.context.runtime().fault("coordinator.unknown_is_none");
    let silent = if unknown_is_none { Known::None } else { Known::Unknown };
    let cluster_id = node.cluster.cluster_id;
    let foremen = reports
        .into_values()
        .map(|report| {
            let workers = manifests(&report, &answers, cluster_id);
            (report.node, ForemanReport { cluster_id: report.cluster, workers })
        })
        .collect();
    let workers = answers
        .into_iter()
        .filter_map(|(store, heard)| {
            let (service, _) = durable.get(&store)?;
            let (kept, spoiled) = (heard.kept, heard.spoiled);
            Some((store, WorkerReport { service: service.clone(), kept, spoiled }))
        })
        .collect();
    let inputs = Inputs {
        cluster_id,
        own: raft_state(&own),
        cluster_file: node.cluster.names(),
        peers: peers
            .into_iter()
            .map(|(service, report)| (service, report.as_ref().map_or(silent.clone(), raft_state)))
            .collect(),
        initial_nodes: node.cluster.initial_nodes.clone(),
        foremen,
        workers,
        me,
        is_patient: since.elapsed() <= FOREMAN_PATIENCE,
    };
    Ok(if unknown_is_none { ignorant(inputs) } else { inputs })
}

/// A deliberate fault: whoever was not asked yet has nothing, and nobody was asked but coordinators.
fn ignorant(inputs: Inputs) -> Inputs {
    let none =
        |node: &NodeId| (node.clone(), ForemanReport { cluster_id: None, workers: Vec::new() });
    let foremen = inputs.initial_nodes.iter().map(none).collect();
    Inputs { foremen, workers: BTreeMap::new(), ..inputs }
}

/// What a coordinator's report says of its Raft store.
fn raft_state(report: &BootstrapReport) -> Known<RaftState> {
    match (report.group, report.formatted) {
        (Some(group_id), _) if report.running => Known::Has(RaftState::Running(RaftReport {
            group_id,
            members: report.members.iter().cloned().collect(),
            next_members: report.next_members.iter().cloned().collect(),
            epoch: report.epoch,
            recorded: report.configuration.clone().map(Arc::new),
        })),
        (Some(group), _) | (None, Some(group)) => Known::Has(RaftState::Formatted(group)),
        (None, None) => Known::None,
    }
}

/// Asks everybody of the cluster file and of Raft's membership, and then whom they have named.
async fn ask_peers(
    node: &Arc<Node>,
    own: &BootstrapReport,
) -> BTreeMap<ServiceRef, Option<BootstrapReport>> {
    let mut peers = BTreeMap::new();
    own.configuration.iter().for_each(|recorded| node.contacts.learn_all(recorded));
    loop {
        let mut unasked = node.contacts.everybody();
        unasked
            .retain(|service, _| service != node.context.service() && !peers.contains_key(service));
        if unasked.is_empty() {
            return peers;
        }
        let asked = unasked.into_iter().map(|(service, addresses)| async move {
            let report = ask_peer(node, &service, addresses).await;
            (service, report)
        });
        peers.extend(join_all(asked).await);
        let heard = peers
            .values()
            .flatten()
            .filter_map(|report: &BootstrapReport| report.configuration.as_ref());
        heard.for_each(|recorded| node.contacts.learn_all(recorded));
    }
}

async fn ask_peer(
    node: &Node,
    service: &ServiceRef,
    addresses: Vec<String>,
) -> Option<BootstrapReport> {
    let answers = addresses.iter().map(|address| async move {
        let peers = node.context.peers();
        let target = Target::address(address);
        let answer = peers.call(&target, &BOOTSTRAP, &Nothing {}, None, ASK_LIMIT).await.ok()?;
        // A wrong address must not make one coordinator count as two.
        (answer.service == *service).then_some((address, answer))
    });
    let (address, report) = join_all(answers).await.into_iter().flatten().next()?;
    node.contacts.found(service, address);
    Some(report)
}

/// The workers that its own node's foreman lists once it is healthy.
async fn own_workers(node: &Node) -> Vec<Worker> {
    let Some(foreman) = &node.foreman else { return Vec::new() };
    let peers = node.context.peers();
    let query = HealthQuery { wait: Some(format!("{}ms", ASK_LIMIT.as_millis() / 2)) };
    let health = peers.call(foreman, &HEALTH, &query, None, ASK_LIMIT).await;
    if !health.is_ok_and(|health| health.healthy) {
        return Vec::new();
    }
    let all = WorkersQuery { kind: None };
    let workers = peers.call(foreman, &WORKERS, &all, None, ASK_LIMIT).await;
    workers.map(|workers| workers.workers).unwrap_or_default()
}

fn keeps_configuration(kind: ServiceKind) -> bool {
    matches!(kind, ServiceKind::Log | ServiceKind::Storage)
}

fn add_durable(
    durable: &mut BTreeMap<StoreId, (ServiceRef, Option<Target>)>,
    node: &NodeId,
    workers: &[Worker],
) {
    for worker in workers.iter().filter(|worker| keeps_configuration(worker.name.kind)) {
        let Some(store) = worker.store else { continue };
        let target = worker.pid.as_ref().map(Target::from);
        let service = ServiceRef::new(worker.name, node.clone());
        let known = durable.entry(store).or_insert((service, None));
        known.1 = target.or(known.1.take());
    }
}

fn manifests(
    report: &NodeReport,
    answers: &BTreeMap<StoreId, Heard>,
    cluster_id: ClusterId,
) -> Vec<Manifest> {
    let durable = report.workers.iter().filter(|worker| keeps_configuration(worker.name.kind));
    durable
        .filter_map(|worker| {
            let store = worker.store?;
            Some(Manifest {
                store,
                service: ServiceRef::new(worker.name, report.node.clone()),
                // A foreman takes in no worker of another cluster than its own.
                cluster_id: report.cluster.unwrap_or(cluster_id),
                held: answers.get(&store).and_then(|heard| heard.held.clone()),
            })
        })
        .collect()
}

/// What a storage or log answered.
struct Heard {
    kept: Known<Kept>,
    spoiled: Option<String>,
    held: Option<Held>,
}

async fn ask_worker(context: &Context, service: &ServiceRef, target: &Target) -> Heard {
    let peers = context.peers();
    let nothing = Nothing {};
    let kept = async {
        let kept = peers.call(target, &log::KEPT, &nothing, None, ASK_LIMIT).await;
        known(kept.map(|kept| kept.recorded.map(Ok)))
    };
    if service.kind() == ServiceKind::Log {
        let status = async { peers.call(target, &log::STATUS, &nothing, None, ASK_LIMIT).await };
        let (kept, status) = join(kept, status).await;
        let held = status.ok().map(|status| Held {
            epoch: status.locked,
            generation: status.generations.last().map_or(Epoch::ZERO, |last| last.epoch),
            version: status.end,
            tags: status.tags.iter().map(|extent| extent.tag).collect(),
            shards: None,
        });
        return Heard { kept, spoiled: None, held };
    }
    let query = storage::ShardConfigQuery::default();
    let shard = async {
        let shard = peers.call(target, &storage::SHARD_CONFIG, &query, None, ASK_LIMIT).await;
        let rows = |shard: &storage::ShardConfig| {
            let rows = shard.shards.iter();
            shards_from_rows(rows.map(|row| (row.key.as_bytes(), &row.value.0))).ok()
        };
        let shards = shard.as_ref().ok().and_then(rows).filter(|shards| !shards.0.is_empty());
        let kept = known(shard.map(|shard| {
            let config = shard.config?;
            let rows = shard.shards.iter().map(|row| (row.key.as_bytes(), &row.value.0));
            Some(recorded_from_rows(&config.0, rows).map_err(|error| error.to_string()))
        }));
        (kept, shards)
    };
    let status = async { peers.call(target, &storage::STATUS, &nothing, None, ASK_LIMIT).await };
    let (kept, ((shard, shards), status)) = join(kept, join(shard, status)).await;
    let held = status.ok().map(|status| {
        let durable = status.tags.iter().map(|tag| tag.durable_epoch).max().unwrap_or_default();
        Held {
            epoch: durable.max(status.epoch),
            generation: durable,
            version: status
                .tags
                .iter()
                .map(|tag| tag.version.max(tag.durable))
                .max()
                .unwrap_or_default(),
            // A copy that is not whole is none.
            tags: status
                .tags
                .iter()
                .filter(|tag| tag.copying.is_none())
                .map(|tag| tag.tag)
                .collect(),
            shards,
        }
    });
    let (kept, spoiled) = newer(kept, shard);
    Heard { kept, spoiled, held }
}

fn known(answer: Result<Option<Result<Recorded, String>>, CallError>) -> Known<Kept> {
    match answer {
        Ok(None) => Known::None,
        Ok(Some(Ok(recorded))) => Known::Has(Kept::Readable(Arc::new(recorded))),
        Ok(Some(Err(reason))) => Known::Has(Kept::Corrupt(reason)),
        Err(error) if error.code() == Some(ErrorCode::Damaged) => {
            Known::Has(Kept::Corrupt(error.to_string()))
        }
        Err(_) => Known::Unknown,
    }
}

/// The better of two places where a storage has a configuration, and what is wrong with the other. What
/// one place has counts even where the other can't be read; that there is none counts only if both say
/// so.
fn newer(first: Known<Kept>, second: Known<Kept>) -> (Known<Kept>, Option<String>) {
    match (first, second) {
        (Known::Has(Kept::Readable(a)), Known::Has(Kept::Readable(b))) => {
            let newest = if b.stamp() > a.stamp() { b } else { a };
            (Known::Has(Kept::Readable(newest)), None)
        }
        (readable @ Known::Has(Kept::Readable(_)), other)
        | (other, readable @ Known::Has(Kept::Readable(_))) => {
            let spoiled = match other {
                Known::Has(Kept::Corrupt(reason)) => Some(reason),
                _ => None,
            };
            (readable, spoiled)
        }
        (Known::Unknown, _) | (_, Known::Unknown) => (Known::Unknown, None),
        (corrupt @ Known::Has(_), _) | (Known::None, corrupt) => (corrupt, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_never_taken_for_none() {
        let corrupt = || Known::Has(Kept::Corrupt("bad".to_owned()));
        let newer = |first, second| newer(first, second).0;
        assert_eq!(newer(Known::None, Known::None), Known::None);
        assert_eq!(newer(Known::None, Known::Unknown), Known::Unknown);
        assert_eq!(newer(Known::Unknown, Known::None), Known::Unknown);
        assert_eq!(newer(Known::None, corrupt()), corrupt());
        assert_eq!(newer(corrupt(), Known::None), corrupt());
        assert_eq!(newer(corrupt(), Known::Unknown), Known::Unknown);
    }
}
