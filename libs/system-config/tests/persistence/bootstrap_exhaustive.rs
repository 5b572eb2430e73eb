//! Every combination of a small space of answers, and what must hold for each.

use std::collections::BTreeMap;

use plinth_system_config::Stamp;
use plinth_system_config::bootstrap::{
    Decision, ForemanReport, Inputs, Kept, Known, RaftState, WorkerReport, decide,
};
use plinth_types::{Epoch, GroupId, ServiceKind};

use crate::bootstrap_table::{
    config, coordinator, corrupt, formatted, log_manifest, manifest, running, silence, valid,
};
use crate::samples::{CLUSTER, GROUP, node, service, storage_store};

const REFOUNDED: GroupId = GroupId(0x62);

fn coordinator_states() -> Vec<Known<RaftState>> {
    vec![
        Known::Unknown,
        Known::None,
        formatted(GROUP),
        running(GROUP, 1, None),
        running(GROUP, 5, Some(config(5, 9))),
        running(REFOUNDED, 2_000_000, Some(config(5, 9))),
    ]
}

/// A node's answer: its foreman's, and what its storage keeps.
fn node_states() -> Vec<Option<(ForemanReport, Option<Known<Kept>>)>> {
    let known = |workers| ForemanReport { cluster_id: Some(CLUSTER), workers };
    let mut states =
        vec![None, Some((ForemanReport::default(), None)), Some((known(vec![]), None))];
    for kept in [Known::Unknown, Known::None, corrupt(), valid(config(5, 9)), valid(config(6, 10))]
    {
        // The manifest is the node's own; see `inputs`.
        states.push(Some((known(vec![]), Some(kept))));
    }
    // Its log keeps what its storage can't be read to have; the log's own place is the node's.
    states.push(Some((known(vec![log_manifest(0, 5)]), Some(corrupt()))));
    states
}

fn inputs(coordinators: [&Known<RaftState>; 3], nodes: [&NodeState; 3]) -> Inputs {
    let [own, second, third] = coordinators;
    let mut inputs = silence(own.clone());
    inputs.peers =
        BTreeMap::from([(coordinator(2), second.clone()), (coordinator(3), third.clone())]);
    for (on, state) in (1..).zip(nodes) {
        let Some((foreman, kept)) = state else { continue };
        let mut foreman = foreman.clone();
        for log in &mut foreman.workers {
            *log = log_manifest(on, 5);
            let report = WorkerReport {
                service: log.service.clone(),
                kept: valid(config(5, 9)),
                spoiled: None,
            };
            inputs.workers.insert(log.store, report);
        }
        if let Some(kept) = kept {
            foreman.workers.push(manifest(on));
            let service = service(ServiceKind::Storage, on);
            inputs.workers.insert(
                storage_store(on),
                WorkerReport { service, kept: kept.clone(), spoiled: None },
            );
        }
        inputs.foremen.insert(node(on), foreman);
    }
    inputs
}

type NodeState = Option<(ForemanReport, Option<Known<Kept>>)>;

/// The places of the configurations that workers of a kind keep.
fn stored_by(inputs: &Inputs, kind: ServiceKind) -> Vec<Stamp> {
    let of_kind = inputs.workers.values().filter(|worker| worker.service.kind() == kind);
    of_kind
        .filter_map(|worker| match &worker.kept {
            Known::Has(Kept::Readable(recorded)) => Some(recorded.stamp()),
            _ => None,
        })
        .collect()
}

/// What must hold, in the words of the design.
fn check(inputs: &Inputs, decision: &Decision) {
    let states: Vec<_> = std::iter::once(&inputs.own).chain(inputs.peers.values()).collect();
    let kinds = [ServiceKind::Storage, ServiceKind::Log];
    let stored = || kinds.into_iter().flat_map(|kind| stored_by(inputs, kind));
    let reports = || {
        states.iter().filter_map(|state| match state {
            Known::Has(RaftState::Running(report)) => Some(report),
            _ => None,
        })
    };
    let recorded = || reports().filter_map(|report| report.recorded.as_ref()).map(|r| r.stamp());
    let newest: Option<Stamp> = stored().chain(recorded()).max();
    let corrupt = inputs.workers.values().any(|w| matches!(w.kept, Known::Has(Kept::Corrupt(_))));
    let every_node_heard = inputs.foremen.len() == 3;
    let mute = inputs.workers.values().any(|worker| worker.kept == Known::Unknown);
    let never_goes_back = |to: Stamp| assert!(newest.is_none_or(|newest| to >= newest));
    let above_everything = |epoch: Epoch| {
        assert!(reports().all(|report| report.epoch < epoch));
        assert!(newest.is_none_or(|newest| newest.epoch < epoch));
    };
    let starts_above = |stamp: Stamp, floor: Epoch, renounced: usize| {
        never_goes_back(stamp);
        above_everything(floor);
        assert_eq!(renounced, reports().count());
        let leading = reports().map(|report| report.epoch).max();
        let alive = reports().filter(|report| Some(report.epoch) == leading).count();
        assert!(alive < 2, "a living group is never replaced");
    };
    match decision {
        Decision::ColdStart { .. } => {
            assert_eq!(newest, None);
            assert!(reports().next().is_none() && !states.contains(&&Known::Unknown));
            assert!(every_node_heard && inputs.workers.is_empty());
            assert!(
                inputs.foremen.values().all(|f| f.cluster_id.is_none() && f.workers.is_empty())
            );
        }
        Decision::RebuildFromManifests { recorded, renounce, floor, .. } => {
            starts_above(recorded.stamp(), floor.epoch, renounce.len());
            assert!(every_node_heard && !mute && corrupt);
            let logs = stored_by(inputs, ServiceKind::Log);
            assert_eq!(logs, [recorded.stamp(); 3], "every log, and each the same");
            assert!(stored_by(inputs, ServiceKind::Storage).len() < 2, "no majority of storages");
        }
        Decision::GoOnFounding { group_id, .. } => {
            assert_eq!(newest, None);
            assert!(every_node_heard && !mute && !corrupt);
            assert!(is_mine(inputs, *group_id));
        }
        Decision::GoOn { group_id, stamp } => {
            assert!(is_mine(inputs, *group_id));
            assert!(stored().all(|stored| *stamp >= stored));
        }
        Decision::AdoptHigher { group_id, recorded: higher, floor, .. } => {
            assert!(is_mine(inputs, *group_id));
            never_goes_back(higher.stamp());
            above_everything(floor.epoch);
            let group = reports().filter(|report| report.group_id == *group_id);
            let mut group = group.filter_map(|report| report.recorded.as_ref());
            assert!(group.all(|recorded| recorded.stamp() < higher.stamp()));
        }
        Decision::Refound { recorded, renounce, floor, .. } => {
            starts_above(recorded.stamp(), floor.epoch, renounce.len());
            let stored = stored_by(inputs, ServiceKind::Storage);
            assert!(stored.len() >= 2, "a majority of the config team");
        }
        Decision::Rejoin { group_id, .. } => {
            assert!(!is_mine(inputs, *group_id));
            let members = states.iter().filter(|state| is_member(state, *group_id)).count();
            assert!(members >= 2, "a majority is alive");
        }
        Decision::Wait { missing } => assert!(!missing.is_empty()),
        Decision::Unready { .. } => {}
    }
}

fn is_member(state: &Known<RaftState>, group: GroupId) -> bool {
    match state {
        Known::Has(RaftState::Formatted(id)) => *id == group,
        Known::Has(RaftState::Running(report)) => report.group_id == group,
        Known::None | Known::Unknown => false,
    }
}

fn is_mine(inputs: &Inputs, group: GroupId) -> bool {
    is_member(&inputs.own, group)
}

#[test]
fn the_invariants_hold_for_every_combination_of_answers() {
    let (coordinators, nodes) = (coordinator_states(), node_states());
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for own in &coordinators {
        for second in &coordinators {
            for third in &coordinators {
                for first_node in &nodes {
                    for second_node in &nodes {
                        for third_node in &nodes {
                            let inputs =
                                inputs([own, second, third], [first_node, second_node, third_node]);
                            let outcome = decide(&inputs);
                            check(&inputs, &outcome.decision);
                            *seen.entry(name(&outcome.decision)).or_default() += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(seen.len(), 9, "every decision occurs: {seen:?}");
}

fn name(decision: &Decision) -> &'static str {
    match decision {
        Decision::GoOn { .. } => "go on",
        Decision::GoOnFounding { .. } => "go on founding",
        Decision::AdoptHigher { .. } => "adopt higher",
        Decision::Rejoin { .. } => "rejoin",
        Decision::Refound { .. } => "refound",
        Decision::ColdStart { .. } => "cold start",
        Decision::RebuildFromManifests { .. } => "rebuild from manifests",
        Decision::Wait { .. } => "wait",
        Decision::Unready { .. } => "unready",
    }
}

/// Whether a decision starts a group anew. A founding that goes on is not among them: there a
/// majority has answered that nothing was recorded, and two majorities can't disagree.
fn starts_anew(decision: &Decision) -> bool {
    match decision {
        Decision::ColdStart { .. }
        | Decision::RebuildFromManifests { .. }
        | Decision::Refound { .. } => true,
        Decision::GoOn { .. }
        | Decision::GoOnFounding { .. }
        | Decision::AdoptHigher { .. }
        | Decision::Rejoin { .. }
        | Decision::Wait { .. }
        | Decision::Unready { .. } => false,
    }
}

/// A group is started anew in silence only if no answer could have changed that. Left out are
/// stores that have only promised: whether their promise stands, the ballot of the founding finds.
#[test]
fn no_answer_could_have_kept_a_group_from_being_started_anew() {
    let (coordinators, nodes) = (coordinator_states(), node_states());
    let promised = |state: &&Known<RaftState>| **state == formatted(GROUP);
    for own in coordinators.iter().filter(|state| !promised(state)) {
        for second in coordinators.iter().filter(|state| !promised(state)) {
            for node in &nodes {
                for other in &nodes {
                    let silent = inputs([own, second, &Known::Unknown], [&None, node, other]);
                    let silent = decide(&silent).decision;
                    if !starts_anew(&silent) {
                        continue;
                    }
                    for third in &coordinators {
                        for answer in &nodes {
                            let heard = inputs([own, second, third], [answer, node, other]);
                            let heard = decide(&heard).decision;
                            assert_eq!(name(&heard), name(&silent), "{silent:?} against {heard:?}");
                        }
                    }
                }
            }
        }
    }
}
