//! Orders about nodes are judged by the configuration and by the nodes that report.

use std::collections::{BTreeMap, BTreeSet};

use plinth_system_config::{
    NodeEntry, NodeSupply, Problem, Recorded, Standing, StandingError, Supply, decode_stored,
    encode_stored,
};
use plinth_types::{ServiceKind, ServiceName, ServiceRef, Zone};

use crate::samples::{self, node, service};

const MADE: [ServiceKind; 5] = [
    ServiceKind::Log,
    ServiceKind::Storage,
    ServiceKind::CommitProxy,
    ServiceKind::Resolver,
    ServiceKind::Sequencer,
];

/// Nodes that can make everything, each with a director.
fn nodes(count: u32) -> Supply {
    let supply = |on| NodeSupply {
        node: node(on),
        makes: BTreeSet::from(MADE),
        runs: BTreeMap::from([(ServiceKind::Director, 1)]),
    };
    Supply((1..=count).map(supply).collect())
}

fn seen(on: u32) -> Option<NodeEntry> {
    Some(NodeEntry::new(Zone::of_node(&node(on)), vec![ServiceKind::Storage]))
}

fn order(recorded: &Recorded, on: u32, standing: Standing, of: u32) -> Recorded {
    let next = recorded.ordered(&node(on), standing, seen(on), &nodes(of)).unwrap().unwrap();
    next.validate_after(recorded).unwrap();
    next
}

fn refused(recorded: &Recorded, on: u32, standing: Standing, of: u32) -> StandingError {
    recorded.ordered(&node(on), standing, None, &nodes(of)).unwrap_err()
}

/// The configuration in which everything of the third node has moved to the fourth.
fn moved(recorded: &Recorded) -> Recorded {
    let mut next = recorded.clone();
    let (from, to) = (node(3), node(4));
    let there = |service: &ServiceRef| match service.node == from {
        true => ServiceRef::new(ServiceName::new(service.kind(), 2), to.clone()),
        false => service.clone(),
    };
    next.config.config_version = recorded.config.config_version.next();
    next.config.layout = recorded.config.layout.map_services(there);
    next.config.coordinators.retain(|coordinator| coordinator.service.node != from);
    NodeEntry::note(&mut next.config.nodes, &to, seen(4).unwrap());
    next
}

#[test]
fn a_node_is_drained_then_removed_and_taken_back() {
    let recorded = samples::recorded(2, 5);
    let draining = order(&recorded, 3, Standing::Draining, 4);
    assert_eq!(draining.config.standing(&node(3)), Standing::Draining);
    assert_eq!(draining.ordered(&node(3), Standing::Draining, None, &nodes(0)), Ok(None));

    let remaining = draining.config.remaining_on(&node(3));
    let kinds: Vec<_> = remaining.iter().map(ServiceRef::kind).collect();
    assert!(kinds.contains(&ServiceKind::Coordinator) && kinds.contains(&ServiceKind::Storage));
    let StandingError::Remaining { services, .. } = refused(&draining, 3, Standing::Removed, 4)
    else {
        panic!("it is not drained")
    };
    assert_eq!(services, remaining);

    let drained = moved(&draining);
    drained.validate_after(&draining).unwrap();
    assert_eq!(drained.config.remaining_on(&node(3)), []);
    let removed = order(&drained, 3, Standing::Removed, 4);
    let back = refused(&removed, 3, Standing::Draining, 4);
    assert_eq!(back, StandingError::Removed(node(3)));
    let taken_back = order(&removed, 3, Standing::InUse, 0);
    assert_eq!(taken_back.config.standing(&node(3)), Standing::InUse);
}

#[test]
fn nothing_may_be_named_on_a_removed_node() {
    let mut recorded = samples::recorded(2, 5);
    recorded.config.nodes.get_mut(&node(3)).unwrap().standing = Standing::Removed;
    let problems = recorded.problems();
    for kind in [ServiceKind::Coordinator, ServiceKind::Log, ServiceKind::Storage] {
        let service = service(kind, 3);
        assert!(problems.contains(&Problem::RemovedNode { service, node: node(3) }), "{kind}");
    }
}

#[test]
fn what_the_others_could_not_do_is_refused_with_the_reason() {
    let recorded = samples::recorded(2, 5);
    let words = refused(&recorded, 3, Standing::Draining, 3).to_string();
    for part in ["without node-3", "replication is 3", "2 nodes report that can run a storage"] {
        assert!(words.contains(part), "{words}");
    }
    // A node that is being drained is none of the others.
    let draining = order(&recorded, 3, Standing::Draining, 4);
    let StandingError::Needed { problems, .. } = refused(&draining, 2, Standing::Draining, 4)
    else {
        panic!("three nodes are needed")
    };
    assert!(!problems.is_empty());
    let last = refused(&recorded, 1, Standing::Draining, 1);
    assert_eq!(last, StandingError::NoOther { node: node(1), kind: ServiceKind::Sequencer });
    let mut supply = nodes(4);
    supply.0.iter_mut().skip(1).for_each(|node| node.runs.clear());
    let lonely = recorded.ordered(&node(1), Standing::Draining, None, &supply).unwrap_err();
    assert_eq!(lonely, StandingError::NoOther { node: node(1), kind: ServiceKind::Director });
}

#[test]
fn a_small_config_team_can_do_without_nobody() {
    let mut recorded = samples::recorded(2, 5);
    recorded.config.parameters.config_team = 2;
    recorded.config.layout.storage_teams[0].members.truncate(2);
    let error = refused(&recorded, 1, Standing::Draining, 4);
    assert!(matches!(error, StandingError::SmallTeam { members: 2, .. }), "{error}");
    order(&recorded, 3, Standing::Draining, 4);
}

#[test]
fn only_what_is_known_can_be_ordered_about_and_only_what_is_drained_removed() {
    let recorded = samples::recorded(2, 5);
    let unknown = refused(&recorded, 9, Standing::Draining, 4);
    assert_eq!(unknown, StandingError::Unknown(node(9)));
    let in_use = refused(&recorded, 3, Standing::Removed, 4);
    assert_eq!(in_use, StandingError::InUse(node(3)));
    // A node that only reports is known, and noted with the order.
    let next = order(&recorded, 4, Standing::Draining, 4);
    assert_eq!(next.config.nodes[&node(4)].kinds, [ServiceKind::Storage]);
}

#[test]
fn a_report_changes_no_order() {
    let recorded = order(&samples::recorded(2, 5), 3, Standing::Draining, 4);
    let mut nodes = recorded.config.nodes;
    NodeEntry::note(&mut nodes, &node(3), NodeEntry::new("elsewhere".parse().unwrap(), vec![]));
    assert_eq!(nodes[&node(3)].standing, Standing::Draining);
    assert_eq!(nodes[&node(3)].zone, "elsewhere".parse().unwrap());
}

#[test]
fn an_order_is_written_at_level_3_and_no_lower() {
    let mut recorded = samples::recorded(2, 5);
    let next = order(&recorded, 3, Standing::Draining, 4);
    assert_eq!(decode_stored::<Recorded>(&encode_stored(&next).unwrap()).unwrap(), next);
    recorded.config.format_level = 2;
    let error = refused(&recorded, 3, Standing::Draining, 4);
    assert!(matches!(error, StandingError::Unwritable { level: 2, .. }), "{error}");
    assert!(error.to_string().contains("node-3"), "{error}");
}

#[test]
fn a_parameter_is_raised_only_as_far_as_the_nodes_in_use_go() {
    let recorded = order(&samples::recorded(2, 5), 3, Standing::Draining, 5);
    let asked = BTreeMap::from([("config_team".to_owned(), 5)]);
    let errors = recorded.propose(&asked, &nodes(5)).unwrap_err();
    assert!(errors[0].to_string().contains("4 nodes report"), "{errors:?}");
    let asked = BTreeMap::from([("config_team".to_owned(), 4)]);
    assert!(recorded.propose(&asked, &nodes(5)).is_ok());
}
