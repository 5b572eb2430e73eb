//! Locks and fences, named after the failures that they prevent.

use plinth_api::ErrorCode;
use plinth_api::log::{Entry, KeepRequest, LockRequest, PopRequest};
use plinth_log::machine::{AssignStep, Pushed};
use plinth_log::{Limits, Refusal};
use plinth_types::{Epoch, Incarnation, Mutation, Tag, Version};

use crate::fixture::{
    Log, MEMBERS, USER, assignment, director, entry, generation, lock_request, pull_query,
    recorded, versions,
};

/// Failure 3.
#[test]
fn a_lock_of_an_equal_epoch_by_another_director_is_refused_after_a_restart_too() {
    let mut log = Log::new();
    log.lock(5).unwrap();
    let other = LockRequest { epoch: Epoch(5), director: Incarnation(7) };
    for _ in 0..2 {
        assert_eq!(log.machine.lock(&other), Err(Refusal::OtherDirector { epoch: Epoch(5) }));
        assert_eq!(
            log.machine.lock(&lock_request(4)),
            Err(Refusal::Stale { asked: Epoch(4), locked: Epoch(5) })
        );
        assert_eq!(log.machine.lock(&lock_request(5)), Ok(()), "the same director may ask again");
        log.crash(0);
    }
}

/// Invariant 2.
#[test]
fn a_lock_is_answered_only_once_it_is_on_disk() {
    let mut log = Log::new();
    log.machine.lock(&lock_request(3)).unwrap();
    let asked_at = log.machine.sequence();
    let (rows, mark) = log.machine.take_rows().unwrap();
    assert!(mark.sequence() >= asked_at && mark.urgent());
    log.disk.write(&rows);
    assert_eq!(log.disk.0.lock.unwrap().epoch, Epoch(3));
}

/// Failure 4.
#[test]
fn a_locked_log_acknowledges_nothing_of_an_old_proxy() {
    let mut log = Log::of_epoch_1();
    let first = log.append(&[USER]);
    let next = entry(1, first, first.plus(5), first, &[USER]);
    // Pushed before the lock, not yet synced: the lock's answer counts it.
    assert_eq!(log.machine.push(next.clone()), Ok(Pushed::Appended));
    let answer = log.lock(2).unwrap();
    assert_eq!(answer.end, next.version);
    // Pushed after it: refused, and so after a restart.
    let late = entry(1, next.version, next.version.plus(5), first, &[USER]);
    for _ in 0..2 {
        let stale = Refusal::Stale { asked: Epoch(1), locked: Epoch(2) };
        assert_eq!(log.machine.push(late.clone()), Err(stale.clone()));
        assert_eq!(log.machine.confirm(Epoch(1)), Err(stale));
        assert_eq!(log.machine.end(), next.version);
        log.crash(0);
    }
}

/// Failure 4, for entries that waited for the one before them.
#[test]
fn what_waits_when_a_lock_comes_is_never_appended() {
    let mut log = Log::of_epoch_1();
    let first = log.append(&[USER]);
    let second = entry(1, first, first.plus(5), first, &[USER]);
    let third = entry(1, second.version, second.version.plus(5), first, &[USER]);
    assert_eq!(log.machine.push(third), Ok(Pushed::Waiting));
    assert_eq!(log.lock(2).unwrap().end, first);
    log.take_up(2, first).unwrap();
    assert!(log.machine.push(second).is_err());
    assert_eq!(log.machine.end(), first);
}

/// A late director must not close, or reopen, what its successor uses.
#[test]
fn a_late_lock_or_assignment_of_an_earlier_epoch_changes_nothing() {
    let mut log = Log::of_epoch_1();
    log.lock(2).unwrap();
    log.take_up(2, Version::ZERO).unwrap();
    let first = log.append(&[USER]);
    assert!(matches!(log.lock(1), Err(Refusal::Stale { .. })));
    assert!(matches!(log.take_up(1, Version::ZERO), Err(Refusal::Stale { .. })));
    // A repeated request of the epoch itself does no harm either.
    log.lock(2).unwrap();
    assert_eq!(log.machine.assign(&assignment(2, Version::ZERO)), Ok(AssignStep::Done));
    assert_eq!(log.machine.confirm(Epoch(2)), Ok(()));
    assert_eq!(log.machine.end(), first);
    let other = assignment(2, first);
    assert_eq!(log.machine.assign(&other), Err(Refusal::OtherGeneration { epoch: Epoch(2) }));
}

#[test]
fn a_restarted_log_is_closed_until_the_next_epoch() {
    let mut log = Log::of_epoch_1();
    let first = log.append(&[USER]);
    log.crash(0);
    let next = entry(1, first, first.plus(5), first, &[USER]);
    assert!(matches!(log.machine.push(next), Err(Refusal::NotOpen { .. })));
    assert!(matches!(log.machine.confirm(Epoch(1)), Err(Refusal::NotOpen { .. })));
    assert_eq!(log.lock(2).unwrap().end, first);
}

/// Failure 10: the log's side. The storage's is to drop back.
#[test]
fn a_puller_of_a_superseded_epoch_is_told_what_to_drop_back_to() {
    let mut log = Log::of_epoch_1();
    let first = log.append(&[USER]);
    let void = log.append(&[USER]);
    assert_eq!(versions(&log.pull(USER, 1, Version::ZERO).unwrap()), [first, void]);
    log.lock(2).unwrap();
    log.take_up(2, first).unwrap();
    let new = log.append(&[USER]);
    let answer = log.pull(USER, 1, void).unwrap();
    assert_eq!(answer.generation.unwrap().epoch, Epoch(2));
    assert_eq!(answer.generation.unwrap().recovery_version, first);
    assert_eq!(versions(&answer), []);
    assert!(answer.known_committed <= first);
    // From the version to drop back to, nothing of the new epoch is given before its assignment.
    assert_eq!(versions(&log.pull(USER, 1, first).unwrap()), []);
    assert_eq!(versions(&log.pull(USER, 1, Version::ZERO).unwrap()), [first]);
    assert_eq!(versions(&log.pull(USER, 2, first).unwrap()), [new]);
}

/// Failure 10, over two recoveries: the lowest recovery version that the puller has missed counts.
#[test]
fn a_puller_that_missed_two_epochs_drops_back_to_the_lower_recovery_version() {
    let mut log = Log::of_epoch_1();
    let first = log.append(&[USER]);
    log.append(&[USER]);
    log.lock(2).unwrap();
    log.take_up(2, first).unwrap();
    let second = log.append(&[USER]);
    log.lock(3).unwrap();
    log.take_up(3, second).unwrap();
    let answer = log.pull(USER, 1, Version::ZERO).unwrap();
    let generation = answer.generation.unwrap();
    assert_eq!((generation.epoch, generation.recovery_version), (Epoch(3), first));
    assert_eq!(versions(&answer), [first]);
}

/// Failure 11: the log's side. A storage that lags behind what was dropped is told so.
#[test]
fn a_pull_below_what_was_dropped_is_refused_and_not_skipped() {
    let mut log = Log::of_epoch_1();
    let first = log.append(&[USER]);
    let second = log.append(&[USER]);
    log.append(&[USER]);
    log.pop(USER, MEMBERS[0], second).unwrap();
    assert_eq!(
        versions(&log.pull(USER, 1, Version::ZERO).unwrap()).len(),
        3,
        "one member alone decides nothing"
    );
    log.pop(USER, MEMBERS[1], first).unwrap();
    assert_eq!(
        log.pull(USER, 1, Version::ZERO).unwrap_err(),
        Refusal::Dropped { tag: USER, popped: first }
    );
    assert_eq!(log.pull(USER, 1, Version::ZERO).unwrap_err().code(), ErrorCode::TransactionTooOld);
    assert_eq!(versions(&log.pull(USER, 1, first).unwrap())[0], second);
}

/// Failure 19.
#[test]
fn no_answer_ends_between_the_recovery_version_and_the_first_version() {
    let mut log = Log::of_epoch_1();
    let recovery_version = log.append(&[USER]);
    log.append(&[USER]);
    log.lock(2).unwrap();
    log.take_up(2, recovery_version).unwrap();
    let generation = generation(2, recovery_version);
    let check = |log: &Log| {
        for tag in [USER, Tag::SYSTEM] {
            for epoch in [1, 2] {
                for after in [Version::ZERO, recovery_version] {
                    let end = log.pull(tag, epoch, after).unwrap().end;
                    assert!(end <= recovery_version || end >= generation.first_version, "{end}");
                }
            }
        }
        let end = log.machine.status().end;
        assert!(end == recovery_version || end >= generation.first_version, "{end}");
    };
    check(&log);
    let gap = entry(2, recovery_version, recovery_version.plus(1), Version::ZERO, &[]);
    assert!(matches!(log.machine.push(gap), Err(Refusal::Misfit { .. })));
    let skip = entry(2, recovery_version, generation.first_version.plus(1), Version::ZERO, &[]);
    assert!(matches!(log.machine.push(skip), Err(Refusal::Misfit { .. })));
    check(&log);
    log.append(&[Tag::SYSTEM]);
    log.append(&[USER]);
    check(&log);
}

/// Failure 22.
#[test]
fn a_log_that_lacks_data_is_not_taken_up_without_a_copy() {
    let mut log = Log::new();
    log.lock(4).unwrap();
    let recovery_version = Version(500);
    let refused = log.take_up(4, recovery_version);
    assert_eq!(refused, Err(Refusal::Behind { end: Version::ZERO, recovery_version }));
    assert_eq!(refused.unwrap_err().code(), ErrorCode::Damaged);
    assert_eq!(
        log.machine.confirm(Epoch(4)),
        Err(Refusal::NotOpen { asked: Epoch(4), locked: Epoch(4) })
    );
}

/// Failure 24.
#[test]
fn one_version_never_stands_for_two_entries() {
    let mut log = Log::of_epoch_1();
    let first = log.append(&[USER]);
    let second = entry(1, first, first.plus(10), first, &[USER]);
    log.machine.push(second.clone()).unwrap();
    assert_eq!(log.machine.push(second.clone()), Ok(Pushed::Duplicate));
    let other = Entry {
        messages: entry(1, first, first.plus(10), first, &[Tag::SYSTEM]).messages,
        ..second.clone()
    };
    assert!(matches!(log.machine.push(other), Err(Refusal::Misfit { .. })));
    let fork = entry(1, first, first.plus(11), first, &[USER]);
    assert!(matches!(log.machine.push(fork), Err(Refusal::Misfit { .. })));
    let between = entry(1, first, first.plus(9), first, &[USER]);
    assert!(matches!(log.machine.push(between), Err(Refusal::Misfit { .. })));
    // The next epoch begins above everything that this one could have used.
    log.lock(2).unwrap();
    log.take_up(2, first).unwrap();
    assert!(matches!(
        log.machine.push(Entry { epoch: Epoch(2), ..second }),
        Err(Refusal::Misfit { .. })
    ));
}

/// Failure 30.
#[test]
fn an_empty_entry_tells_pullers_what_is_committed() {
    let mut log = Log::of_epoch_1();
    let first = log.append(&[Tag::SYSTEM]);
    let mut query = pull_query(Tag::SYSTEM, 1, first);
    query.known_committed = log.pull(Tag::SYSTEM, 1, first).unwrap().known_committed;
    assert!(query.known_committed < first);
    assert!(log.machine.pull(&query, &log.disk).unwrap().is_none(), "nothing new: the pull waits");
    let empty = log.append(&[]);
    let answer = log.machine.pull(&query, &log.disk).unwrap().expect("the pull wakes");
    assert_eq!((answer.known_committed, answer.end, answer.entries), (first, empty, vec![]));
}

#[test]
fn nothing_is_committed_before_this_log_has_acknowledged_it() {
    let mut log = Log::of_epoch_1();
    let first = log.append(&[USER]);
    let claim = entry(1, first, first.plus(10), first.plus(5), &[USER]);
    assert!(matches!(log.machine.push(claim), Err(Refusal::Misfit { .. })));
}

#[test]
fn pullers_see_nothing_that_is_not_durable() {
    let mut log = Log::of_epoch_1();
    let first = log.append(&[USER]);
    log.machine.push(entry(1, first, first.plus(10), first, &[USER])).unwrap();
    assert_eq!(log.pull(USER, 1, Version::ZERO).unwrap().end, first);
    log.sync();
    assert_eq!(log.pull(USER, 1, Version::ZERO).unwrap().end, first.plus(10));
}

#[test]
fn only_recorded_members_and_only_durable_versions_count_for_pops() {
    let mut log = Log::of_epoch_1();
    let first = log.append(&[USER]);
    log.append(&[]);
    log.pop(USER, plinth_types::StoreId(0xdead), first).unwrap();
    log.pop(USER, MEMBERS[0], first).unwrap();
    assert_eq!(versions(&log.pull(USER, 1, Version::ZERO).unwrap()), [first]);
    assert!(matches!(log.pop(USER, MEMBERS[1], first.plus(1_000)), Err(Refusal::PopAhead { .. })));
    assert!(matches!(log.pop(Tag(9), MEMBERS[1], first), Err(Refusal::UnknownTag(_))));
    log.lock(2).unwrap();
    let late = PopRequest { epoch: Epoch(1), tag: USER, store: MEMBERS[1], version: first };
    assert!(matches!(log.machine.pop(&late), Err(Refusal::Stale { .. })));
}

/// Invariant 9, second half.
#[test]
fn a_tag_that_moved_away_is_kept_until_its_new_layout_is_known_to_be_recorded() {
    let mut log = Log::of_epoch_1();
    let first = log.append(&[USER]);
    log.lock(2).unwrap();
    let mut without = assignment(2, first);
    without.tags.retain(|team| team.tag == Tag::SYSTEM);
    log.take_up_with(&without, Vec::new()).unwrap();
    assert_eq!(versions(&log.pull(USER, 2, Version::ZERO).unwrap()), [first]);
    let system = log.append(&[Tag::SYSTEM]);
    for member in MEMBERS {
        log.pop(Tag::SYSTEM, member, first).unwrap();
    }
    assert!(log.pull(USER, 2, Version::ZERO).is_ok(), "no commit of the epoch is known yet");
    log.append(&[]);
    for member in MEMBERS {
        log.pop(Tag::SYSTEM, member, system).unwrap();
    }
    assert_eq!(log.pull(USER, 2, Version::ZERO).unwrap_err(), Refusal::UnknownTag(USER));
}

/// Failure 23, as far as a log has a part in it; invariant 11.
#[test]
fn a_kept_configuration_is_never_replaced_by_an_older_one() {
    let mut log = Log::of_epoch_1();
    let keep = |epoch: u64, config_version| KeepRequest {
        epoch: Epoch(epoch),
        director: director(epoch),
        recorded: recorded(epoch, config_version),
    };
    log.machine.keep(keep(1, 4)).unwrap();
    assert!(matches!(log.machine.keep(keep(1, 3)), Err(Refusal::OlderConfig { .. })));
    log.sync();
    log.crash(0);
    assert_eq!(log.machine.config(), Ok(Some(&recorded(1, 4))));
    assert_eq!(log.lock(2).unwrap().config, Some(recorded(1, 4)));
    assert!(matches!(log.machine.keep(keep(1, 9)), Err(Refusal::Stale { .. })));
    let other = KeepRequest { director: Incarnation(1), ..keep(2, 5) };
    assert!(matches!(log.machine.keep(other), Err(Refusal::OtherDirector { .. })));
    log.machine.keep(keep(2, 5)).unwrap();
}

#[test]
fn an_entry_with_values_of_any_bytes_survives_the_disk() {
    let mut log = Log::of_epoch_1();
    let prev = log.append(&[USER]);
    let mut odd = entry(1, prev, prev.plus(1), prev, &[USER]);
    odd.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    odd.messages[0].mutations.push(Mutation::ClearRange(plinth_types::KeyRange::all()));
    log.machine.push(odd.clone()).unwrap();
    log.sync();
    log.crash(0);
    assert_eq!(log.pull(USER, 1, prev).unwrap().entries, [odd]);
}

/// A storage that stays down costs disk space: neither memory nor pushes.
#[test]
fn what_a_dead_member_has_not_popped_is_left_to_the_disk() {
    let limits = Limits { memory_bytes: 1_000, queue_bytes: 4_000, ..Limits::default() };
    let mut log = Log::of_epoch_1_with(limits);
    let versions: Vec<Version> = (0..500)
        .map(|_| {
            let version = log.append(&[USER]);
            let known_committed = log.machine.known_committed();
            log.pop(Tag::SYSTEM, MEMBERS[0], known_committed).unwrap();
            log.pop(Tag::SYSTEM, MEMBERS[1], known_committed).unwrap();
            log.pop(USER, MEMBERS[0], known_committed).unwrap();
            assert!(log.machine.status().queue_bytes <= limits.memory_bytes + 200);
            version
        })
        .collect();
    assert_eq!(log.disk.0.entries.len(), 500);
    // Restarts and recoveries change nothing about it.
    log.crash(0);
    log.lock(2).unwrap();
    log.take_up(2, log.machine.end()).unwrap();
    let all = |log: &Log| {
        let (mut after, mut pulled) = (Version::ZERO, Vec::new());
        while after < log.machine.durable() {
            let answer = log.pull(USER, 2, after).unwrap();
            assert!(answer.end > after, "each piece brings the puller on");
            after = answer.end;
            pulled.extend(answer.entries.iter().map(|entry| entry.version));
        }
        pulled
    };
    assert_eq!(all(&log), versions);
    // The dead one is back and has everything: nothing is left on disk.
    log.append(&[]);
    log.append(&[]);
    let known_committed = log.machine.known_committed();
    for (tag, member) in [
        (USER, MEMBERS[0]),
        (Tag::SYSTEM, MEMBERS[0]),
        (Tag::SYSTEM, MEMBERS[1]),
        (USER, MEMBERS[1]),
    ] {
        log.pop(tag, member, known_committed).unwrap();
    }
    log.sync();
    assert!(log.disk.0.entries.iter().all(|entry| entry.version > known_committed));
    assert_eq!(log.machine.spilled(), Version::ZERO);
}
