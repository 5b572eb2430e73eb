//! Whether a coordinator may join or leave, and what the configuration is meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use plinth_system_config::{
    Coordinator, MEMBERS_LEVEL, MembersError, MembersStep, NodeEntry, Problem, Recorded, Standing,
    check_majority, decode_stored, encode_stored, names_of,
};
use plinth_types::{ServiceKind, ServiceRef, Zone};

use crate::samples::{self, node, service};

fn name(on: u32) -> ServiceRef {
    service(ServiceKind::Coordinator, on)
}

fn member(on: u32) -> Coordinator {
    let address = Some(format!("host-{on}:4400"));
    Coordinator { service: name(on), raft_id: u64::from(on), address }
}

fn members(of: &[u32]) -> Vec<Coordinator> {
    of.iter().copied().map(member).collect()
}

fn names(of: &[u32]) -> BTreeSet<ServiceRef> {
    of.iter().copied().map(name).collect()
}

/// Three nodes whose coordinators are these, or are to be those.
fn recorded(now: &[u32], next: &[u32]) -> Recorded {
    let before = samples::recorded(5, 9);
    before.with_members(members(now), members(next), &BTreeMap::new()).unwrap()
}

fn begun(step: Result<MembersStep, MembersError>) -> BTreeSet<ServiceRef> {
    match step {
        Ok(MembersStep::Begin(after)) => names_of(&after),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_joins_and_one_leaves_and_a_repeat_finds_it_done() {
    let before = recorded(&[1, 2, 3], &[]);
    assert_eq!(begun(before.joining(&member(4))), names(&[1, 2, 3, 4]));
    assert_eq!(before.joining(&member(3)), Ok(MembersStep::Done));
    let anywhere = Coordinator { address: None, ..member(3) };
    assert_eq!(before.joining(&anywhere), Ok(MembersStep::Done));
    assert_eq!(begun(before.leaving(&name(3), false)), names(&[1, 2]));
    // A node is known although it has no coordinator any more.
    assert_eq!(recorded(&[1, 2], &[]).leaving(&name(3), false), Ok(MembersStep::Done));
}

#[test]
fn during_a_change_the_same_order_goes_on_and_another_one_is_refused() {
    let growing = recorded(&[1, 2, 3], &[1, 2, 3, 4]);
    assert_eq!(growing.joining(&member(4)), Ok(MembersStep::UnderWay));
    assert_eq!(growing.joining(&member(3)), Ok(MembersStep::Done));
    for refused in [growing.joining(&member(5)), growing.leaving(&name(1), false)] {
        let error = refused.unwrap_err();
        assert!(matches!(error, MembersError::UnderWay { .. }), "{error}");
        assert!(error.to_string().contains("coordinator-1@node-4"), "{error}");
    }
    assert_eq!(growing.leaving(&name(4), false), Ok(MembersStep::TakeBack));
    let too_far = growing.leaving(&name(4), true);
    assert_eq!(too_far, Err(MembersError::TooFar(name(4))));
    let shrinking = recorded(&[1, 2, 3], &[1, 2]);
    assert_eq!(shrinking.leaving(&name(3), true), Ok(MembersStep::UnderWay));
    let back = shrinking.joining(&member(3)).unwrap_err();
    assert!(matches!(back, MembersError::UnderWay { .. }), "{back}");
}

#[test]
fn what_can_not_be_is_refused_with_the_reason() {
    let three = recorded(&[1, 2, 3], &[]);
    let elsewhere = Coordinator { address: Some("other:1".to_owned()), ..member(3) };
    let shared = Coordinator { address: member(3).address, ..member(4) };
    let wrong = Coordinator { service: service(ServiceKind::Log, 4), ..member(4) };
    for (refused, words) in [
        (three.joining(&elsewhere), "answers at host-3:4400"),
        (three.joining(&shared), "coordinator-1@node-3 answers at host-3:4400"),
        (three.joining(&wrong), "is no coordinator"),
        (three.leaving(&name(9), false), "no coordinator coordinator-1@node-9 is known"),
        (recorded(&[1], &[]).leaving(&name(1), false), "is the last coordinator"),
    ] {
        let error = refused.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let mut removed = three.clone();
    let gone = NodeEntry {
        standing: Standing::Removed,
        ..NodeEntry::new(Zone::of_node(&node(4)), vec![])
    };
    removed.config.nodes.insert(node(4), gone);
    assert_eq!(removed.joining(&member(4)), Err(MembersError::RemovedNode(name(4))));
    let many: Vec<u32> = (1..=9).collect();
    let error = recorded(&many, &[]).joining(&member(10)).unwrap_err();
    assert_eq!(error, MembersError::TooMany { members: 9 });
}

#[test]
fn a_cluster_at_an_earlier_level_refuses() {
    let mut old = samples::recorded(5, 9);
    old.config.format_level = MEMBERS_LEVEL - 1;
    for refused in [old.joining(&member(4)), old.leaving(&name(3), false)] {
        assert_eq!(refused, Err(MembersError::Level { level: MEMBERS_LEVEL - 1 }));
    }
    let unwritable = old.with_members(members(&[1, 2, 3]), members(&[1, 2]), &BTreeMap::new());
    assert!(matches!(unwritable, Err(MembersError::Unwritable(_))), "{unwritable:?}");
    // What it can say, it says.
    let plain = members(&[1, 2, 3]).into_iter().map(|member| member.at_level(MEMBERS_LEVEL - 1));
    assert!(old.with_members(plain.collect(), vec![], &BTreeMap::new()).is_ok());
}

#[test]
fn too_few_that_answer_are_no_majority() {
    let four = members(&[1, 2, 3, 4]);
    assert_eq!(check_majority(&four, &names(&[1, 2, 4])), Ok(()));
    let error = check_majority(&four, &names(&[1, 2])).unwrap_err();
    let words = "2 of the 4 coordinators that there would be answer, and 3 are needed: coordinator-1@node-3, coordinator-1@node-4 do not";
    assert_eq!(error.to_string(), words);
    let one = check_majority(&members(&[1, 2]), &names(&[1, 9])).unwrap_err();
    assert!(one.to_string().ends_with("coordinator-1@node-2 does not"), "{one}");
}

#[test]
fn both_memberships_are_named_written_and_read() {
    let both = recorded(&[1, 2, 3], &[1, 2, 3, 4]);
    assert_eq!(both.config.memberships(), [names(&[1, 2, 3]), names(&[1, 2, 3, 4])]);
    assert_eq!(both.config.coordinator_addresses()[&name(4)], "host-4:4400");
    assert!(both.config.nodes.contains_key(&node(4)), "its node is noted");
    assert_eq!(both.config.remaining_on(&node(4)), [name(4)]);
    let read: Recorded = decode_stored(&encode_stored(&both).unwrap()).unwrap();
    assert_eq!(read, both);
    let one = both.with_members(members(&[1, 2, 3, 4]), vec![], &BTreeMap::new()).unwrap();
    assert_eq!(one.config.memberships(), [names(&[1, 2, 3, 4])]);
    let text = String::from_utf8(encode_stored(&one).unwrap().to_vec()).unwrap();
    assert!(!text.contains("next_coordinators"), "{text}");
}

#[test]
fn memberships_that_make_no_sense_are_problems() {
    let mut recorded = recorded(&[1, 2, 3], &[1, 2]);
    recorded.config.next_coordinators = members(&[1, 2, 3]);
    assert_eq!(recorded.problems(), [Problem::NoNewMembers]);
    recorded.config.next_coordinators = members(&[1, 1]);
    let twice = Problem::Twice { kind: ServiceKind::Coordinator, service: name(1) };
    assert_eq!(recorded.problems(), [Problem::SameRaftId(1), twice]);
    recorded.config.next_coordinators = members(&[1, 9]);
    let unknown = Problem::UnknownNode { service: name(9), node: node(9) };
    assert_eq!(recorded.problems(), [unknown]);
}
