//! What an operator decides where the cluster can't: `plinth recover`.
//!
//! Two things can't go on by themselves. Coordinators without a group may be unable to show which
//! configuration is the newest; then the group is founded again from the newest that there is. And a
//! group may wait for a majority of a config team that never returns; then the team goes on with the
//! storages that are there. Either is drawn up as a plan that says what may be lost, and is carried
//! out only if it is still the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use plinth_api::ErrorCode;
use plinth_api::coordinator::{CarriedOut, Founding, RecoveryPlan};
use plinth_service::Failure;
use plinth_system_config::bootstrap::{Decision, Inputs, RecoveryOption, decide, recovery_option};
use plinth_system_config::{BootstrapSource, Recorded, StorageMember};
use plinth_types::{ConfigVersion, ServiceRef, StoreId, Tag};
use tokio::time::Instant;

use crate::ballots::{self, Ballot};
use crate::bootstrap::{founding, list, plan as ballot_plan};
use crate::founding::Quorum;
use crate::inputs;
use crate::node::{Event, Group, Node, Place, no_quorum};
use crate::state::{ClusterState, Command};

/// How often a ballot is held before somebody else must be in its way.
const BALLOTS: usize = 3;

/// What carries a plan out.
enum Act {
    /// Found the group again.
    Found(Box<RecoveryOption>),
    /// Put a configuration in the place of the recorded one.
    Force { group: Group, expected: ConfigVersion, recorded: Box<Recorded> },
}

/// What could be done now.
///
/// # Errors
/// `not_found` where there is nothing to decide, or nothing that could be done.
pub(crate) async fn plan(node: &Arc<Node>) -> Result<RecoveryPlan, Failure> {
    draw_up(node).await.map(|(plan, _)| plan)
}

/// Carries the plan out, if it still is the one that was asked for.
///
/// # Errors
/// `superseded` if it is not; otherwise as [`plan`], and whatever keeps it from being done.
pub(crate) async fn carry_out(node: &Arc<Node>, id: &str) -> Result<CarriedOut, Failure> {
    let (plan, act) = draw_up(node).await?;
    if plan.id != id {
        let detail =
            format!("the plan is another one by now ({}): look at it, and decide again", plan.id);
        return Err(Failure::new(ErrorCode::Superseded, detail));
    }
    tracing::warn!(id, action = plan.action, risks = ?plan.risks, "an operator has decided");
    let this = Arc::clone(node);
    let reason = plan.action.clone();
    let work = async move {
        match act {
            Act::Found(option) => found(&this, *option).await,
            Act::Force { group, expected, recorded } => {
                let command = Command::Force { expected, recorded: *recorded };
                this.write(&group, command).await?;
                let over = this.read(&group).await?.epoch;
                // A leader that has gone meanwhile has none to end.
                drop(this.events.send(Event::Begin { over, reason }).await);
                Ok(())
            }
        }
    };
    node.finish("carry out", work).await?;
    node.context.runtime().mark("coordinator.recovered_by_operator");
    Ok(CarriedOut { action: plan.action })
}

async fn draw_up(node: &Arc<Node>) -> Result<(RecoveryPlan, Act), Failure> {
    // The request is not passed on from here: whoever leads was asked first.
    if let Ok(Place::Here(group)) = node.place(true) {
        let state = node.read(&group).await?;
        let living = node.registry().living_stores(Instant::now());
        let change = without_lost(&state, &living).map_err(nothing)?;
        return Ok(to_force(group, change));
    }
    let inputs = inputs::gather(node, node.since).await?;
    let option = recovery_option(&inputs).map_err(|none| nothing(none.to_string()))?;
    Ok(to_found(&inputs, option))
}

fn nothing(why: String) -> Failure {
    Failure::new(ErrorCode::NotFound, why)
}

fn names<'a>(services: impl IntoIterator<Item = &'a ServiceRef>) -> String {
    let names: Vec<String> = services.into_iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// Gives the plan the name that stands for all that it says.
fn named(mut plan: RecoveryPlan) -> RecoveryPlan {
    let text = serde_json::to_vec(&plan).unwrap_or_default();
    plan.id = format!("{:08x}", crc32c::crc32c(&text));
    plan
}

fn to_found(inputs: &Inputs, option: RecoveryOption) -> (RecoveryPlan, Act) {
    let problem = match decide(inputs).decision {
        Decision::Unready { obstacle } => obstacle.to_string(),
        Decision::Wait { missing } => format!("waiting for {}", list(&missing)),
        _ => "no majority of the coordinators is there".to_owned(),
    };
    let members = names(&option.members);
    let action = match (&option.recorded, option.source) {
        (Some(recorded), BootstrapSource::Manifests) => format!(
            "found the coordinators' group of {members} with a configuration of epoch {} that is \
             rebuilt from what the workers have",
            recorded.stamp().epoch
        ),
        (Some(recorded), _) => format!(
            "found the coordinators' group of {members} with the configuration at {}",
            recorded.stamp()
        ),
        (None, _) => format!("found the coordinators' group of {members} for a new cluster"),
    };
    let plan = RecoveryPlan {
        id: String::new(),
        problem,
        action,
        source: option.source,
        storage: option.from.as_ref().map(|keeper| keeper.service.clone()),
        coordinators: option.members.iter().cloned().collect(),
        risks: option.doubts.iter().map(ToString::to_string).collect(),
        recorded: option.recorded.as_deref().cloned(),
    };
    (named(plan), Act::Found(Box::new(option)))
}

async fn found(node: &Arc<Node>, option: RecoveryOption) -> Result<(), Failure> {
    let RecoveryOption { recorded, from, source, members, former, mut renounce, floor, .. } =
        option;
    renounce.extend(recorded.as_ref().map(|recorded| recorded.config.group_id));
    let founding = Founding {
        recorded: recorded.map(Arc::unwrap_or_clone),
        storage: from.map(|keeper| keeper.service),
        ..founding(node, source, floor)
    };
    let plan = ballot_plan(node, [&members, &former], Quorum::All, renounce, founding);
    let mut heard = 0;
    for _ in 0..BALLOTS {
        match ballots::hold(node, &plan, heard).await {
            Ballot::Chosen => return Ok(()),
            Ballot::Founded => {
                let detail = "a group was founded meanwhile: see /v1/status";
                return Err(Failure::new(ErrorCode::Superseded, detail));
            }
            Ballot::Failed { highest } => heard = highest,
        }
    }
    Err(no_quorum(format!("not all of {} take part: try again", names(&members))))
}

/// A change of the recorded configuration that lets recovery go on.
#[derive(Debug)]
struct Change {
    expected: ConfigVersion,
    recorded: Recorded,
    lost: Vec<StorageMember<ServiceRef>>,
}

/// The recorded configuration without the storages of its config team that are not there, if the
/// system transaction waits for them: a majority of this team, or of that of the last ready epoch, is
/// not there. Whoever stays has everything, or it is in the logs.
fn without_lost(state: &ClusterState, living: &BTreeSet<StoreId>) -> Result<Change, String> {
    let Some(recorded) = &state.recorded else {
        return Err("no layout is recorded yet: the founding goes on by itself".to_owned());
    };
    if state.appointed.is_some() && state.ready_epoch == state.epoch {
        return Err(format!("epoch {} is ready: nothing has to be decided", state.epoch));
    }
    let is_there = |member: &StorageMember<ServiceRef>| living.contains(&member.store);
    let has_majority = |recorded: &Recorded| {
        let team = recorded.config.layout.config_team();
        2 * team.iter().filter(|member| is_there(member)).count() > team.len()
    };
    if has_majority(recorded) && state.ready.as_ref().is_none_or(has_majority) {
        return Err(
            "a majority of the config team is there: recovery waits for nothing that could be \
             decided, see /v1/status"
                .to_owned(),
        );
    }
    let mut next = recorded.clone();
    let mut lost = Vec::new();
    for team in &mut next.config.layout.storage_teams {
        if team.tag == Tag::SYSTEM {
            lost.extend(team.members.iter().filter(|member| !is_there(member)).cloned());
            lost.iter().for_each(|member| team.drop_member(member.store));
            if team.members.is_empty() {
                return Err(format!(
                    "no storage of the config team is there: bring one of {} back",
                    names(lost.iter().map(|member| &member.service))
                ));
            }
        }
    }
    let expected = recorded.config.config_version;
    next.config.config_version = expected.next();
    Ok(Change { expected, recorded: next, lost })
}

fn to_force(group: Group, change: Change) -> (RecoveryPlan, Act) {
    let Change { expected, recorded, lost } = change;
    let stay = names(recorded.config.layout.config_team().iter().map(|member| &member.service));
    let members = group.members();
    let mut risks: Vec<String> = lost
        .iter()
        .map(|member| {
            format!(
                "{} (store {}) holds the configuration no more: should it come back, what it has of \
                 it is not asked for",
                member.service, member.store
            )
        })
        .collect();
    risks.push(format!(
        "until others have been given a copy, only {stay} and the logs have the configuration: should \
         they be lost together with the coordinators' disks, an older one could be taken for the newest"
    ));
    let plan = RecoveryPlan {
        id: String::new(),
        problem: "no majority of the storages that hold the configuration is there".to_owned(),
        action: format!("keep the configuration on {stay} alone, and begin a new epoch"),
        source: BootstrapSource::Raft,
        storage: None,
        coordinators: members.into_iter().map(|member| member.service).collect(),
        risks,
        recorded: Some(recorded.clone()),
    };
    (named(plan), Act::Force { group, expected, recorded: Box::new(recorded) })
}

#[cfg(test)]
mod tests;
