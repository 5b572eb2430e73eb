//! Looks all the while, while the cluster recovers too, at what the coordinators hold and at what logs
//! and storages have of it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::{join, join_all};
use plinth_api::coordinator::{HOLDING, Holding, NODES};
use plinth_api::{Client, Endpoint, Nothing, Target, log, storage};
use plinth_service::Transport;
use plinth_system_config::Stamp;
use plinth_types::{Pid, ServiceKind, StoreId, Tag};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use crate::invariants::layouts_follow_each_other::Held;
use crate::invariants::{kept_is_recorded, layouts_follow_each_other, ready_is_stored};
use crate::scene::Scene;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one question may take.
const ASK: Duration = Duration::from_millis(300);

/// What logs and storages said, between two looks at the coordinators.
struct Sight {
    logs: Vec<log::Status>,
    storages: Vec<storage::Status>,
}

pub(crate) async fn run(scene: Scene) {
    let peers = Client::new(scene.peers.clone());
    let mut last = None;
    while scene.is_working() {
        let before = ask(&scene, &peers, &HOLDING).await;
        let sight = look(&scene, &peers).await;
        let after = ask(&scene, &peers, &HOLDING).await;
        if scene.history.record().is_wiped {
            // What was recorded may be gone, and what is in storage is gone on from.
            return;
        }
        if let Some(sight) = &sight {
            before.iter().for_each(|before| judge_before(&scene, before, sight));
            after.iter().for_each(|after| judge_after(&scene, after, sight));
        }
        for held in [before, after].iter().flatten().filter_map(held) {
            if let Some(last) = last.replace(held) {
                let found = layouts_follow_each_other::check(&last, &held);
                scene.findings.report_all(layouts_follow_each_other::NAME, found);
            }
        }
        sleep(PAUSE).await;
    }
}

/// What was so before logs and storages were asked.
fn judge_before(scene: &Scene, holding: &Holding, sight: &Sight) {
    let Some(ready) = &holding.ready else { return };
    let layout = &ready.config.layout;
    let team: Vec<StoreId> = layout.config_team().iter().map(|member| member.store).collect();
    let durable = sight.storages.iter().filter_map(|storage| {
        let held = storage.tags.iter().find(|held| held.tag == Tag::SYSTEM)?;
        Some((storage.store, held.durable))
    });
    let (epoch, first, durable) = (layout.epoch, layout.first_version, durable.collect());
    let found = ready_is_stored::check(epoch, first, &team, &durable);
    scene.findings.report_all(ready_is_stored::NAME, found);
}

/// What was so after they were.
fn judge_after(scene: &Scene, holding: &Holding, sight: &Sight) {
    let Some(recorded) = &holding.recorded else { return };
    let kept: BTreeMap<StoreId, Stamp> = sight
        .logs
        .iter()
        .filter_map(|log| {
            let (epoch, config_version) = log.config?;
            Some((log.store, Stamp { epoch, config_version }))
        })
        .collect();
    let found = kept_is_recorded::check(&kept, recorded.stamp());
    scene.findings.report_all(kept_is_recorded::NAME, found);
}

fn held(holding: &Holding) -> Option<Held> {
    let layout = &holding.recorded.as_ref()?.config.layout;
    Some(Held {
        appointed: holding.appointed.as_ref().map(|latest| latest.epoch).unwrap_or_default(),
        layout: layout.epoch,
        recovery_version: layout.recovery_version,
        first_version: layout.first_version,
    })
}

/// What every log and storage that the coordinators know of says.
async fn look(scene: &Scene, peers: &Client<Transport>) -> Option<Sight> {
    let nodes = ask(scene, peers, &NODES).await?.nodes;
    let up = |kind: ServiceKind| -> Vec<Pid> {
        let rolled_back = &scene.history.record().rolled_back;
        let nodes = nodes.iter().filter(|node| !rolled_back.contains(&node.node));
        let workers = nodes.flat_map(|node| &node.workers);
        let workers = workers.filter(|worker| worker.name.kind == kind);
        workers.filter_map(|worker| worker.pid.clone()).collect()
    };
    let (logs, storages) = (up(ServiceKind::Log), up(ServiceKind::Storage));
    let (logs, storages) =
        join(ask_all(peers, &logs, &log::STATUS), ask_all(peers, &storages, &storage::STATUS))
            .await;
    Some(Sight { logs, storages })
}

/// What the first of the coordinators says that answers for the group.
async fn ask<T: DeserializeOwned>(
    scene: &Scene,
    peers: &Client<Transport>,
    endpoint: &Endpoint<Nothing, T>,
) -> Option<T> {
    for (_, coordinator) in &scene.coordinators {
        if let Ok(answer) = peers.call(coordinator, endpoint, &Nothing {}, None, ASK).await {
            return Some(answer);
        }
    }
    None
}

/// What those say who answer.
async fn ask_all<T: DeserializeOwned>(
    peers: &Client<Transport>,
    services: &[Pid],
    endpoint: &Endpoint<Nothing, T>,
) -> Vec<T> {
    let answers = services.iter().map(async |service| {
        peers.call(&Target::from(service), endpoint, &Nothing {}, None, ASK).await.ok()
    });
    join_all(answers).await.into_iter().flatten().collect()
}
