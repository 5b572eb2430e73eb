//! The decision.

use std::collections::BTreeSet;
use std::sync::Arc;

use plinth_types::{Epoch, GroupId, ServiceRef};

use super::refound::{self, is_majority};
use super::survey::{Survey, floor};
use super::{
    Decision, ForemanReport, Inputs, Kept, Known, Manifest, Missing, Obstacle, Outcome, RaftReport,
    RaftState,
};
use crate::Stamp;

/// What a starting coordinator does, from everything that it could learn. The same inputs give the
/// same decision; a [`Decision::Wait`] is asked again when more has answered.
#[must_use]
pub fn decide(inputs: &Inputs) -> Outcome {
    let survey = Survey::of(inputs);
    let decision = match Group::leading(inputs) {
        _ if inputs.own == Known::Unknown => {
            Decision::Unready { obstacle: Obstacle::OwnStoreUnreadable }
        }
        Err(obstacle) => Decision::Unready { obstacle },
        Ok(Some(group)) => with_group(inputs, &survey, &group),
        Ok(None) => without_group(inputs, &survey),
    };
    Outcome { decision, rejected: survey.rejected }
}

/// The leading group: of all that are running somewhere, the one with the highest epoch.
pub(super) struct Group {
    pub(super) id: GroupId,
    /// The memberships that it may have, the next one last.
    pub(super) memberships: Vec<BTreeSet<ServiceRef>>,
    /// The newest configuration that a member of it reports.
    stamp: Option<Stamp>,
}

/// What is known of a set of coordinators.
#[derive(Default)]
struct Count {
    all: usize,
    /// They have what they ever had of the group.
    present: usize,
    /// They have nothing of it, or have lost it.
    absent: usize,
    /// They have not answered.
    unknown: Vec<ServiceRef>,
}

/// What is known of the memberships that a group may have: one, or two during a change.
pub(super) struct Census(Vec<Count>);

impl Census {
    /// Whether a majority is there, of each membership.
    pub(super) fn is_alive(&self) -> bool {
        self.0.iter().all(|count| is_majority(count.present, count.all))
    }

    /// Whether no majority can come together any more, whatever the unknown ones have. Any of the
    /// memberships may be the one that counts, so that goes for each.
    pub(super) fn is_lost(&self) -> bool {
        let may_come = |count: &Count| is_majority(count.all - count.absent, count.all);
        !self.0.iter().any(may_come)
    }

    pub(super) fn missing(&self) -> Vec<Missing> {
        let unknown: BTreeSet<&ServiceRef> =
            self.0.iter().flat_map(|count| &count.unknown).collect();
        unknown.into_iter().cloned().map(Missing::Coordinator).collect()
    }
}

/// Counts who of each membership is present in a group. Where nobody runs one (`group` is none), a store
/// that is only formatted counts as absent: what it has promised, the next founding's ballot finds.
pub(super) fn census(
    inputs: &Inputs,
    group: Option<GroupId>,
    memberships: &[BTreeSet<ServiceRef>],
) -> Census {
    Census(memberships.iter().map(|members| count(inputs, group, members)).collect())
}

fn count(inputs: &Inputs, group: Option<GroupId>, members: &BTreeSet<ServiceRef>) -> Count {
    let mut census = Count { all: members.len(), ..Count::default() };
    for member in members {
        match inputs.coordinator(member) {
            Known::Unknown => census.unknown.push(member.clone()),
            Known::Has(state) if is_in(state, group) => census.present += 1,
            Known::Has(_) | Known::None => census.absent += 1,
        }
    }
    census
}

/// Whether a store is a whole member of a group. One that is only formatted has given no vote that
/// it could have forgotten.
fn is_in(state: &RaftState, group: Option<GroupId>) -> bool {
    match state {
        RaftState::Formatted(id) | RaftState::Running(RaftReport { group_id: id, .. }) => {
            Some(*id) == group
        }
    }
}

impl Group {
    pub(super) fn leading(inputs: &Inputs) -> Result<Option<Group>, Obstacle> {
        let Some(epoch) = inputs.running().map(|(_, report)| report.epoch).max() else {
            return Ok(None);
        };
        // A group's members report different epochs where one lags, so the group is that of the
        // highest one; two groups with the same can't have followed one another.
        let mut ids = at(inputs, epoch).map(|report| report.group_id);
        let Some(id) = ids.next() else { return Ok(None) };
        if let Some(other) = ids.find(|other| *other != id) {
            let (first, second) = (id.min(other), id.max(other));
            return Err(Obstacle::TwoGroups { first, second });
        }
        let reports = || inputs.running().map(|(_, report)| report).filter(|r| r.group_id == id);
        let stamp_of = |report: &RaftReport| report.recorded.as_ref().map(|r| r.stamp());
        let memberships = reports()
            .max_by_key(|report| (report.epoch, stamp_of(report)))
            .map(RaftReport::memberships)
            .unwrap_or_default();
        Ok(Some(Group { id, memberships, stamp: reports().filter_map(stamp_of).max() }))
    }
}

fn at(inputs: &Inputs, epoch: Epoch) -> impl Iterator<Item = &RaftReport> {
    inputs.running().map(|(_, report)| report).filter(move |report| report.epoch == epoch)
}

fn with_group(inputs: &Inputs, survey: &Survey, group: &Group) -> Decision {
    let census = census(inputs, Some(group.id), &group.memberships);
    if census.is_lost() {
        return refound::decide(inputs, survey, Some(group))
            .unwrap_or_else(|| nothing_to_refound(inputs, survey, &census));
    }
    let mine = matches!(&inputs.own, Known::Has(state) if is_in(state, Some(group.id)));
    if mine {
        return in_group(inputs, survey, group, &census);
    }
    if census.is_alive() {
        return Decision::Rejoin {
            group_id: group.id,
            members: group.memberships.last().cloned().unwrap_or_default(),
            stamp: group.stamp.unwrap_or_default(),
        };
    }
    Decision::Wait { missing: or_founding(census.missing()) }
}

/// A coordinator of the leading group, whose votes are all there.
fn in_group(inputs: &Inputs, survey: &Survey, group: &Group, census: &Census) -> Decision {
    let group_id = group.id;
    if let Some(found) = &survey.newest
        && Some(found.recorded.stamp()) > group.stamp
    {
        return Decision::AdoptHigher {
            group_id,
            recorded: Arc::clone(&found.recorded),
            from: found.keeper.clone(),
            floor: floor(inputs),
        };
    }
    if let Some(stamp) = group.stamp {
        return Decision::GoOn { group_id, stamp };
    }
    // No layout that anybody heard knows of. Workers may be thrown away only if there is none.
    if has_corrupt(inputs) {
        return Decision::Unready { obstacle: Obstacle::LayoutLost };
    }
    let mut missing = survey.missing.clone();
    if !census.is_alive() {
        missing.extend(census.missing());
    }
    if !missing.is_empty() || !census.is_alive() {
        return Decision::Wait { missing: or_founding(missing) };
    }
    Decision::GoOnFounding { group_id, discard: inputs.own_manifests().cloned().collect() }
}

/// Nobody that was heard has a group.
fn without_group(inputs: &Inputs, survey: &Survey) -> Decision {
    if let Some(decision) = refound::decide(inputs, survey, None) {
        return decision;
    }
    let unheard: Vec<Missing> = inputs
        .cluster_file
        .iter()
        .chain(inputs.others().map(|(service, _)| service))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .filter(|service| *inputs.coordinator(service) == Known::Unknown)
        .cloned()
        .map(Missing::Coordinator)
        .chain(survey.missing.iter().cloned())
        .collect();
    if !unheard.is_empty() {
        return Decision::Wait { missing: unheard };
    }
    without_configuration(inputs)
}

/// Everybody has answered, and nobody has a group or a configuration that can be read.
fn without_configuration(inputs: &Inputs) -> Decision {
    let in_use = |(node, foreman): (&_, &ForemanReport)| {
        let id = foreman.cluster_id.or_else(|| foreman.workers.first().map(|w| w.cluster_id));
        id.map(|id| (Clone::clone(node), id))
    };
    let ours = inputs.cluster_id;
    let mut nodes = inputs.foremen.iter().filter_map(in_use);
    if let Some((node, theirs)) = nodes.clone().find(|(_, id)| *id != ours) {
        return Decision::Unready { obstacle: Obstacle::ForeignNode { node, theirs, ours } };
    }
    let workers = inputs.own_manifests().count();
    let served = inputs.own_manifests().any(Manifest::may_have_served);
    if workers > 0 && (has_corrupt(inputs) || served) {
        return Decision::Unready { obstacle: Obstacle::NothingReadable { workers } };
    }
    let worker = inputs.own_manifests().map(|manifest| manifest.service.clone());
    let heard = inputs.workers.values().map(|worker| worker.service.clone());
    if let Some(service) = worker.chain(heard).next() {
        return Decision::Unready { obstacle: Obstacle::UnrecordedWorkers(service) };
    }
    if let Some((node, cluster_id)) = nodes.next() {
        return Decision::Unready { obstacle: Obstacle::NodeInUse { node, cluster_id } };
    }
    if !inputs.cluster_file.contains(&inputs.me) {
        return Decision::Wait { missing: vec![Missing::Founding] };
    }
    Decision::ColdStart { members: inputs.cluster_file.clone() }
}

/// The group has lost its majority, and nobody who was heard has a configuration.
fn nothing_to_refound(inputs: &Inputs, survey: &Survey, census: &Census) -> Decision {
    let mut missing = census.missing();
    missing.extend(survey.missing.iter().cloned());
    if !missing.is_empty() {
        return Decision::Wait { missing };
    }
    let obstacle =
        if has_corrupt(inputs) { Obstacle::LayoutLost } else { Obstacle::NothingToRefound };
    Decision::Unready { obstacle }
}

/// What a coordinator waits for that has heard everybody: that they get together.
fn or_founding(missing: Vec<Missing>) -> Vec<Missing> {
    if missing.is_empty() { vec![Missing::Founding] } else { missing }
}

fn has_corrupt(inputs: &Inputs) -> bool {
    inputs.workers.values().any(|worker| matches!(worker.kept, Known::Has(Kept::Corrupt(_))))
}
