//! Looks at logs and storages all the while: what they say of themselves at any time must fit.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use plinth_api::coordinator::{PROCESSES, Processes};
use plinth_api::director::LiveLayout;
use plinth_api::log::{CONFIRM, ConfirmQuery};
use plinth_api::storage::TagStatus;
use plinth_api::{Client, Endpoint, Nothing, Target, log, storage};
use plinth_service::Transport;
use plinth_system_config::{Layout, StorageTeam};
use plinth_types::{Epoch, ServiceRef, StoreId, Tag, Version};
use serde::de::DeserializeOwned;

use super::CONFIG;
use crate::invariants::{dropped_is_durable, locks_never_go_back};
use crate::scene::Scene;

/// The longest pause between two looks.
const PAUSE: Duration = Duration::from_millis(400);
/// How long one question may take.
const ASK: Duration = Duration::from_millis(500);

/// The name of what [`stale_confirmation`] finds.
const LOCKED_LOGS: &str = "locked_logs_confirm_nothing_earlier";

/// What gateways tell of the layout.
pub(crate) const LAYOUT: Endpoint<Nothing, LiveLayout> = Endpoint::get("/v1/layout");

pub(crate) async fn run(scene: Scene) {
    let peers = Client::new(scene.peers.clone());
    let mut served: BTreeMap<StoreId, Epoch> = BTreeMap::new();
    while scene.is_working() {
        let gateway = scene.any_gateway();
        let layout = gateway.ask(&LAYOUT).await.ok().filter(|layout| layout.accepting_commits);
        if let (Some(layout), Ok(found)) = (layout, gateway.ask(&PROCESSES).await) {
            let recorded = &layout.recorded.config.layout;
            let now = scene.history.moment();
            scene.history.record().accepted.entry(recorded.epoch).or_insert(now);
            for log in &recorded.logs {
                served.insert(log.store, recorded.epoch);
            }
            let urls = |kind: &str| urls(&scene, &found, kind);
            let logs = ask_all(&peers, &urls("log-"), &log::STATUS).await;
            let storages = ask_all(&peers, &urls("storage-"), &storage::STATUS).await;
            let locked = logs.iter().map(|(_, log)| (log.store, log.locked)).collect();
            scene.findings.report_all(
                locks_never_go_back::NAME,
                locks_never_go_back::check(&served, &locked),
            );
            let confirmed = stale_confirmation(&peers, &logs).await;
            scene.findings.report_all(LOCKED_LOGS, confirmed);
            let mut dropped: BTreeMap<Tag, Version> = BTreeMap::new();
            for extent in logs.iter().flat_map(|(_, log)| &log.tags) {
                let most = dropped.entry(extent.tag).or_default();
                *most = (*most).max(extent.popped);
            }
            let mut durable = BTreeMap::new();
            // Who has left since the logs were asked is no matter of theirs. A gateway that is cut off would
            // tell an old layout; the coordinators tell none.
            let now = gateway.ask(&CONFIG).await.ok();
            let now = now.filter(|now| now.epoch == layout.recorded.config.epoch);
            for team in now.iter().flat_map(|now| &now.layout.storage_teams) {
                for (_, storage) in &storages {
                    let held = storage.tags.iter().find(|held| held.tag == team.tag);
                    if let Some(held) = held.filter(|held| counts(recorded, team, storage, held)) {
                        durable.insert((team.tag, storage.store), held.durable);
                    }
                }
            }
            scene.findings.report_all(
                dropped_is_durable::NAME,
                dropped_is_durable::check(&dropped, &durable),
            );
        }
        scene.pause(PAUSE).await;
    }
}

/// Whether logs keep a tag's data for a storage, by what was recorded before they were asked: for a
/// member of its `team`, and for a newcomer that has all pages of its copy and follows the logs.
fn counts(
    recorded: &Layout<ServiceRef>,
    team: &StorageTeam<ServiceRef>,
    storage: &storage::Status,
    held: &TagStatus,
) -> bool {
    let was_named = recorded
        .storage_teams
        .iter()
        .filter(|before| before.tag == team.tag)
        .any(|before| before.everybody().any(|(store, _)| store == storage.store));
    let is_named = team.everybody().any(|(store, _)| store == storage.store);
    was_named && is_named && held.copying.is_none_or(|copying| copying.catching_up)
}

/// A locked log must not confirm an earlier epoch (invariant 3): by that a deposed proxy would go on
/// serving versions. Answers the first that does.
async fn stale_confirmation(
    peers: &Client<Transport>,
    logs: &[(String, log::Status)],
) -> Option<String> {
    let asked = logs.iter().filter(|(_, log)| log.locked > Epoch(1)).map(async |(url, log)| {
        let epoch = Epoch(log.locked.0 - 1);
        let question = ConfirmQuery { epoch };
        let answer = peers.call(&Target::address(url), &CONFIRM, &question, None, ASK).await;
        let (store, locked) = (log.store, log.locked);
        answer.is_ok().then(|| format!("log {store}, locked by epoch {locked}, confirms {epoch}"))
    });
    join_all(asked).await.into_iter().flatten().next()
}

/// Where services of a kind answer, but on nodes whose disks were put back.
fn urls(scene: &Scene, found: &Processes, kind: &str) -> Vec<String> {
    let rolled_back = &scene.history.record().rolled_back;
    let rows = found.processes.iter().filter(|row| row.service.starts_with(kind));
    rows.filter(|row| !rolled_back.contains(&row.node)).map(|row| row.url.clone()).collect()
}

/// Who answers, and what.
async fn ask_all<T: DeserializeOwned>(
    peers: &Client<Transport>,
    urls: &[String],
    endpoint: &Endpoint<Nothing, T>,
) -> Vec<(String, T)> {
    let answers = urls.iter().map(async |url| {
        let answer = peers.call(&Target::address(url), endpoint, &Nothing {}, None, ASK).await;
        answer.ok().map(|answer| (url.clone(), answer))
    });
    join_all(answers).await.into_iter().flatten().collect()
}
