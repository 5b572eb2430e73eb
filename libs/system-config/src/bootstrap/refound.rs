//! Founding the coordinators' group again from what was kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use plinth_types::{ServiceRef, StoreId};

use super::decide::{Group, census};
use super::survey::{Found, Survey, floor, is_ambiguous};
use super::{Decision, Inputs, Keeper, Known, Missing, Obstacle, logs};
use crate::{Recorded, Stamp, StorageMember};

/// The newest configuration of all, and the worker that keeps it, if it is a worker's. Equal ones
/// count as the worker's, which survives the group.
pub(super) fn newest(inputs: &Inputs, survey: &Survey) -> Option<(Arc<Recorded>, Option<Keeper>)> {
    let kept = survey.newest.as_ref();
    let survivor = inputs
        .running()
        .filter_map(|(_, report)| report.recorded.as_ref())
        .filter(|recorded| recorded.config.cluster_id == inputs.cluster_id)
        .max_by_key(|recorded| recorded.stamp());
    match (kept, survivor) {
        (Some(Found { recorded, .. }), Some(survivor)) if survivor.stamp() > recorded.stamp() => {
            Some((Arc::clone(survivor), None))
        }
        (Some(Found { recorded, keeper }), _) => Some((Arc::clone(recorded), Some(keeper.clone()))),
        (None, survivor) => survivor.map(|survivor| (Arc::clone(survivor), None)),
    }
}

/// Decides for a coordinator that has no group to go on in and none to join. None if nobody is
/// known to have a configuration.
pub(super) fn decide(inputs: &Inputs, survey: &Survey, group: Option<&Group>) -> Option<Decision> {
    let (recorded, from) = newest(inputs, survey)?;
    let stamp = recorded.stamp();
    if is_ambiguous(inputs, stamp) {
        return Some(Decision::Unready { obstacle: Obstacle::TwoConfigurations { stamp } });
    }
    let mut memberships = recorded.config.memberships();
    // The group as it knew itself is lost already; so must be what the configuration names. During a
    // change either membership may be Raft's.
    let census = census(inputs, group.map(|group| group.id), &memberships);
    if !census.is_lost() {
        return Some(match census.missing() {
            missing if missing.is_empty() => {
                Decision::Unready { obstacle: Obstacle::TwoMemberships { stamp } }
            }
            missing => Decision::Wait { missing },
        });
    }
    let team = recorded.config.layout.config_team();
    let unproven = unproven(inputs, survey, team, stamp);
    if let Some(Decision::Wait { missing }) = unproven {
        return Some(Decision::Wait { missing });
    }
    if let Some(decision) = &unproven
        && !logs::show_newest(inputs, &recorded)
    {
        let missing = logs::that_may_show_newest(inputs, &recorded);
        let is_final = missing.is_empty();
        return Some(if is_final { decision.clone() } else { Decision::Wait { missing } });
    }
    let members = memberships.pop().unwrap_or_default();
    let former = memberships.pop().unwrap_or_default();
    if !members.contains(&inputs.me) {
        return Some(Decision::Wait { missing: vec![Missing::Founding] });
    }
    let silent = silent(inputs, &recorded);
    if inputs.is_patient && !silent.is_empty() {
        return Some(Decision::Wait { missing: silent });
    }
    let renounce: BTreeMap<_, _> =
        inputs.running().map(|(service, report)| (service.clone(), report.group_id)).collect();
    let floor = floor(inputs);
    Some(match unproven {
        None => Decision::Refound { recorded, from, members, former, renounce, floor },
        Some(_) => {
            Decision::RebuildFromManifests { recorded, from, members, former, renounce, floor }
        }
    })
}

/// A newer configuration counts only once a majority of the team of the one before has it. So a
/// majority of valid answers from the newest one's team shows that none newer was ever in force.
fn unproven(
    inputs: &Inputs,
    survey: &Survey,
    team: &[StorageMember<ServiceRef>],
    stamp: Stamp,
) -> Option<Decision> {
    let valid = team.iter().filter(|member| survey.valid.contains(&member.store)).count();
    if is_majority(valid, team.len()) {
        return None;
    }
    let missing: Vec<Missing> = team
        .iter()
        .filter(|member| is_unheard(inputs, &member.service, member.store))
        .map(|member| {
            Missing::Worker(Keeper { service: member.service.clone(), store: member.store })
        })
        .collect();
    if is_majority(valid + missing.len(), team.len()) {
        return Some(Decision::Wait { missing });
    }
    let obstacle = Obstacle::ConfigTeamLost { stamp, valid, members: team.len() };
    Some(Decision::Unready { obstacle })
}

/// The workers that the configuration names and that may still answer. A log may have been locked by
/// epochs that nobody else has heard of; a group that begins below them begins with epochs that fail.
fn silent(inputs: &Inputs, recorded: &Recorded) -> Vec<Missing> {
    let layout = &recorded.config.layout;
    let logs = layout.logs.iter().map(|log| (&log.service, log.store));
    let members = layout.storage_teams.iter().flat_map(|team| &team.members);
    let storages = members.map(|member| (&member.service, member.store));
    let named: BTreeMap<StoreId, &ServiceRef> =
        logs.chain(storages).map(|(service, store)| (store, service)).collect();
    let silent = named.into_iter().filter(|(store, service)| is_unheard(inputs, service, *store));
    let keeper = |(store, service): (_, &ServiceRef)| Keeper { service: service.clone(), store };
    silent.map(|one| Missing::Worker(keeper(one))).collect()
}

/// Whether a worker may still answer. One whose foreman has answered without naming its directory is
/// gone.
pub(super) fn is_unheard(inputs: &Inputs, service: &ServiceRef, store: StoreId) -> bool {
    match inputs.workers.get(&store) {
        Some(worker) => worker.kept == Known::Unknown,
        None => inputs
            .foremen
            .get(&service.node)
            .is_none_or(|foreman| foreman.workers.iter().any(|manifest| manifest.store == store)),
    }
}

pub(super) fn is_majority(some: usize, all: usize) -> bool {
    some > all / 2
}
