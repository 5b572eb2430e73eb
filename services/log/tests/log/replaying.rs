//! Copies: a log that lacks data takes it from those that have it.

use plinth_api::log::{Assignment, CopySource, TagMembers};
use plinth_log::machine::Copied;
use plinth_types::{NodeId, Pid, Tag, Version};

use crate::fixture::{Log, MEMBERS, USER, assignment, versions};

fn source(tags: &[Tag]) -> CopySource {
    let node: NodeId = "node-2".parse().unwrap();
    let pid = Pid {
        node,
        os_pid: 1,
        incarnation: plinth_types::Incarnation(1),
        address: "there:1".to_owned(),
    };
    CopySource { pid, tags: tags.to_vec() }
}

fn copying(epoch: u64, recovery_version: Version, tags: &[Tag]) -> Assignment {
    Assignment { copy: vec![source(tags)], ..assignment(epoch, recovery_version) }
}

fn copy(from: &Log, tag: Tag, popped: Version) -> Copied {
    let answer = from.pull(tag, 9, popped).unwrap();
    Copied { tag, popped, known_committed: answer.known_committed, entries: answer.entries }
}

/// Failure 15: each tag comes from a log that holds it.
#[test]
fn a_new_log_takes_each_tag_from_a_log_that_holds_it() {
    let (mut system, mut user) = (Log::of_epoch_1(), Log::of_epoch_1());
    let first = system.append(&[Tag::SYSTEM]);
    user.append(&[]);
    system.append(&[]);
    let second = user.append(&[USER]);
    // Above the recovery version: not taken.
    system.append(&[Tag::SYSTEM]);
    let mut new = Log::new();
    new.lock(2).unwrap();
    let copies = vec![copy(&system, Tag::SYSTEM, Version::ZERO), copy(&user, USER, Version::ZERO)];
    new.take_up_with(&copying(2, second, &[Tag::SYSTEM, USER]), copies).unwrap();
    for _ in 0..2 {
        assert_eq!(new.machine.end(), second);
        assert_eq!(versions(&new.pull(Tag::SYSTEM, 2, Version::ZERO).unwrap()), [first]);
        assert_eq!(versions(&new.pull(USER, 2, Version::ZERO).unwrap()), [second]);
        assert_eq!(new.machine.known_committed(), second);
        new.crash(0);
    }
}

#[test]
fn a_kept_log_takes_only_the_tag_that_it_lacks() {
    let third = Tag(3);
    let (mut kept, mut other) = (Log::of_epoch_1(), Log::of_epoch_1());
    let first = kept.append(&[USER]);
    other.append(&[third]);
    let second = kept.append(&[]);
    other.append(&[third]);
    let behind = |log: &Log, tag: Tag| {
        let backlogs = log.machine.status().backlogs;
        backlogs.iter().find(|of| of.tag == tag && of.store == MEMBERS[0]).unwrap().bytes
    };
    let user_bytes = behind(&kept, USER);
    kept.lock(2).unwrap();
    let mut assignment = copying(2, second, &[third]);
    assignment.tags.push(TagMembers { tag: third, members: MEMBERS.to_vec() });
    // The other log holds the tag though its assignment never named it: take what it has by hand.
    let entries = other.disk.0.entries.clone();
    let copied = Copied { tag: third, popped: Version::ZERO, known_committed: first, entries };
    kept.take_up_with(&assignment, vec![copied]).unwrap();
    for _ in 0..2 {
        assert_eq!(versions(&kept.pull(USER, 2, Version::ZERO).unwrap()), [first]);
        assert_eq!(versions(&kept.pull(third, 2, Version::ZERO).unwrap()), [first, second]);
        // What the copy has come in between of is not counted twice, and neither is left out.
        assert_eq!(behind(&kept, USER), user_bytes);
        assert!(behind(&kept, third) > 0);
        kept.crash(0);
    }
}

/// A store that holds many deleted ranges, each of which covers those before it, takes a second to read
/// anything: a log that had run for minutes took that long to open again.
#[test]
fn what_is_dropped_is_deleted_once_and_so_is_what_a_copy_brings_back() {
    let third = Tag(3);
    let (mut kept, mut other) = (Log::of_epoch_1(), Log::of_epoch_1());
    for _ in 0..4 {
        let version = kept.append(&[USER]);
        other.append(&[third]);
        MEMBERS.iter().for_each(|member| kept.pop(USER, *member, version).unwrap());
    }
    assert_eq!(kept.deleted.len(), 3);
    assert_eq!(kept.deleted[0].0, Version::ZERO);
    assert!(kept.deleted.iter().all(|(after, through)| after < through));
    assert!(kept.deleted.windows(2).all(|pair| pair[0].1 == pair[1].0));
    let end = kept.machine.end();
    assert_eq!(kept.disk.0.entries.len(), 1);

    kept.lock(2).unwrap();
    let mut assignment = copying(2, end, &[third]);
    assignment.tags.push(TagMembers { tag: third, members: MEMBERS.to_vec() });
    let entries = other.disk.0.entries.clone();
    let copied = Copied { tag: third, popped: Version::ZERO, known_committed: end, entries };
    kept.take_up_with(&assignment, vec![copied]).unwrap();
    assert_eq!(kept.disk.0.entries.len(), 4);
    MEMBERS.iter().for_each(|member| kept.pop(third, *member, end).unwrap());
    assert!(kept.disk.0.entries.is_empty(), "{:?}", kept.disk.0.entries);
}

/// A log that was away for epochs has data that nobody knows the worth of.
#[test]
fn what_a_log_had_before_it_was_away_gives_way_to_the_copy() {
    let (mut away, mut there) = (Log::of_epoch_1(), Log::of_epoch_1());
    let first = there.append(&[USER]);
    away.append(&[USER]);
    away.append(&[USER, Tag::SYSTEM]);
    there.lock(2).unwrap();
    there.take_up(2, first).unwrap();
    let second = there.append(&[USER]);
    away.lock(3).unwrap();
    let copies = vec![copy(&there, USER, Version::ZERO), copy(&there, Tag::SYSTEM, Version::ZERO)];
    away.take_up_with(&copying(3, second, &[USER, Tag::SYSTEM]), copies).unwrap();
    for _ in 0..2 {
        assert_eq!(versions(&away.pull(USER, 3, Version::ZERO).unwrap()), [first, second]);
        assert_eq!(versions(&away.pull(Tag::SYSTEM, 3, Version::ZERO).unwrap()), []);
        assert_eq!(away.machine.end(), second);
        away.crash(0);
    }
}

#[test]
fn a_copy_that_ends_after_a_later_lock_is_not_taken_up() {
    let mut there = Log::of_epoch_1();
    let first = there.append(&[USER]);
    let mut new = Log::new();
    new.lock(2).unwrap();
    let assignment = copying(2, first, &[Tag::SYSTEM, USER]);
    new.machine.assign(&assignment).unwrap();
    new.lock(3).unwrap();
    let copies = vec![copy(&there, USER, Version::ZERO), copy(&there, Tag::SYSTEM, Version::ZERO)];
    assert!(new.machine.take_up(&assignment, copies).is_err());
    assert_eq!(new.machine.end(), Version::ZERO);
}
