//! The format level is raised only to what every node reads, and never goes back.

use std::collections::{BTreeMap, BTreeSet};

use plinth_system_config::{
    Envelope, FORMAT_LEVEL, LevelError, NotReading, Readers, Recorded, Standing, UNSAID_LEVEL,
    decode_stored, encode_stored,
};
use plinth_types::NodeId;
use proptest::prelude::*;

use crate::arbitrary;
use crate::samples::{self, node};

/// What a release before this one has written.
fn at_level(level: u32) -> Recorded {
    let mut recorded = samples::recorded(2, 5);
    recorded.config.format_level = level;
    recorded
}

/// Nodes that report, from the first one on, each with what it says it reads.
fn readers(of: &[Option<u32>]) -> Readers {
    Readers((1..).map(node).zip(of.iter().copied()).collect())
}

fn all() -> Readers {
    readers(&[Some(FORMAT_LEVEL); 3])
}

fn nobody() -> BTreeSet<NodeId> {
    BTreeSet::new()
}

fn refused(recorded: &Recorded, level: u32, readers: &Readers) -> LevelError {
    recorded.raised(level, readers, &nobody()).unwrap_err()
}

#[test]
fn every_level_is_raised_to_every_higher_one_and_written_at_it() {
    for from in 0..FORMAT_LEVEL {
        for to in from + 1..=FORMAT_LEVEL {
            let before = at_level(from);
            let next = before.raised(to, &all(), &nobody()).unwrap().unwrap();
            next.validate_after(&before).unwrap();
            let bytes = encode_stored(&next.config).unwrap();
            let envelope = Envelope::open(&bytes, "plinth.system-config", FORMAT_LEVEL).unwrap();
            assert_eq!(envelope.level(), to);
            assert_eq!(decode_stored::<Recorded>(&encode_stored(&next).unwrap()).unwrap(), next);
            // Nothing else is another.
            let mut expected = before.clone();
            expected.config.config_version = before.config.config_version.next();
            expected.config.format_level = to;
            assert_eq!(next, expected);
        }
    }
}

#[test]
fn what_is_so_already_is_no_change_whoever_reports() {
    for level in 0..=FORMAT_LEVEL {
        assert_eq!(at_level(level).raised(level, &readers(&[]), &nobody()), Ok(None));
    }
}

#[test]
fn a_level_never_goes_back_and_none_is_taken_that_this_release_does_not_write() {
    let current = FORMAT_LEVEL;
    for asked in 0..current {
        let error = refused(&at_level(current), asked, &all());
        assert_eq!(error, LevelError::Back { current, asked });
    }
    for asked in [FORMAT_LEVEL + 1, u32::MAX] {
        let error = refused(&at_level(1), asked, &readers(&[Some(u32::MAX); 3]));
        assert_eq!(error, LevelError::Unknown(asked));
        assert!(error.to_string().contains(&format!("up to level {FORMAT_LEVEL}")), "{error}");
    }
}

#[test]
fn every_node_that_can_not_read_it_is_named_with_the_reason() {
    let low = FORMAT_LEVEL - 1;
    let readers = readers(&[Some(low), Some(FORMAT_LEVEL)]);
    let error = refused(&at_level(0), FORMAT_LEVEL, &readers);
    let nodes = vec![(node(1), NotReading::UpTo(low)), (node(3), NotReading::Silent)];
    assert_eq!(error, LevelError::Unreadable { level: FORMAT_LEVEL, nodes });
    let words = error.to_string();
    for part in [&format!("node-1 reads up to level {low}"), "node-3 does not report"] {
        assert!(words.contains(part), "{words}");
    }
    // The silent one would hold it up at any level.
    assert!(matches!(refused(&at_level(0), low, &readers), LevelError::Unreadable { .. }));
}

#[test]
fn a_node_that_does_not_say_counts_as_one_of_the_level_before_that_was_said() {
    let readers = readers(&[None, Some(FORMAT_LEVEL), None]);
    assert!(at_level(0).raised(UNSAID_LEVEL, &readers, &nobody()).unwrap().is_some());
    let newest = at_level(0).raised(FORMAT_LEVEL, &readers, &nobody());
    assert_eq!(newest.is_ok(), FORMAT_LEVEL == UNSAID_LEVEL);
    // The coordinators' own record of the order is one that it does not know.
    let LevelError::NotNow(nodes) = at_level(0).check_order_is_known(&readers).unwrap_err() else {
        panic!("another error")
    };
    assert_eq!(nodes, [(node(1), NotReading::Unsaid), (node(3), NotReading::Unsaid)]);
    assert_eq!(at_level(0).check_order_is_known(&all()), Ok(()));
}

#[test]
fn only_a_silent_node_can_be_done_without_and_only_by_name() {
    let readers = readers(&[Some(FORMAT_LEVEL), Some(0)]);
    let without = |nodes: &[u32]| {
        let nodes: BTreeSet<NodeId> = nodes.iter().copied().map(node).collect();
        at_level(0).raised(FORMAT_LEVEL, &readers, &nodes)
    };
    let LevelError::Unreadable { nodes, .. } = without(&[2, 3]).unwrap_err() else {
        panic!("another error")
    };
    assert_eq!(nodes, [(node(2), NotReading::UpTo(0))]);
    assert_eq!(without(&[3, 9]).unwrap_err(), LevelError::UnknownNode(node(9)));

    let mut two = readers.clone();
    two.0.insert(node(2), Some(FORMAT_LEVEL));
    let raised = at_level(0).raised(FORMAT_LEVEL, &two, &BTreeSet::from([node(3)]));
    assert!(raised.unwrap().is_some());
}

#[test]
fn a_node_counts_until_it_was_removed_or_is_drained_and_off() {
    let standing = |standing: Standing| {
        let mut recorded = samples::recorded(2, 5);
        let entry =
            plinth_system_config::NodeEntry { standing, ..recorded.config.nodes[&node(3)].clone() };
        recorded.config.nodes.insert(node(4), entry);
        // As it is before the level is there that the test raises to.
        recorded.config.format_level = FORMAT_LEVEL - 1;
        recorded
    };
    let judged = |of: Standing, says: Option<u32>| {
        let mut readers = all();
        readers.0.extend(says.map(|level| (node(4), Some(level))));
        let raised = standing(of).raised(FORMAT_LEVEL, &readers, &nobody());
        match raised {
            Err(LevelError::Unreadable { nodes, .. }) => Some(nodes[0].1),
            Ok(raised) => raised.is_none().then(|| panic!("it was raised before")),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(judged(Standing::InUse, None), Some(NotReading::Silent));
    assert_eq!(judged(Standing::InUse, Some(0)), Some(NotReading::UpTo(0)));
    assert_eq!(judged(Standing::Draining, None), None);
    assert_eq!(judged(Standing::Draining, Some(0)), Some(NotReading::UpTo(0)));
    assert_eq!(judged(Standing::Removed, None), None);
    assert_eq!(judged(Standing::Removed, Some(0)), None);
    // A node that is being drained and has something yet.
    let mut recorded = standing(Standing::InUse);
    recorded.config.nodes.remove(&node(4));
    recorded.config.nodes.get_mut(&node(3)).unwrap().standing = Standing::Draining;
    let two = readers(&[Some(FORMAT_LEVEL); 2]);
    let LevelError::Unreadable { nodes, .. } = refused(&recorded, FORMAT_LEVEL, &two) else {
        panic!("another error")
    };
    assert_eq!(nodes, [(node(3), NotReading::Silent)]);
    // One that nobody knows but by its report counts as well.
    let mut more = all();
    more.0.insert(node(9), Some(0));
    let error = refused(&at_level(0), FORMAT_LEVEL, &more);
    assert!(error.to_string().contains("node-9 reads up to level 0"), "{error}");
}

proptest! {
    /// Whatever is there can be raised to the newest level, and is read back as it was.
    #[test]
    fn whatever_is_written_can_be_raised(recorded in arbitrary::recorded()) {
        let nodes = recorded.config.nodes.keys().cloned();
        let readers = Readers(nodes.map(|node| (node, Some(FORMAT_LEVEL))).collect::<BTreeMap<_, _>>());
        let raised = recorded.raised(FORMAT_LEVEL, &readers, &nobody());
        prop_assert!(raised.is_ok(), "{:?}", raised);
        if let Some(next) = raised.unwrap() {
            prop_assert!(recorded.config.format_level < FORMAT_LEVEL);
            let read: Recorded = decode_stored(&encode_stored(&next).unwrap()).unwrap();
            prop_assert_eq!(read, next);
        }
    }
}
