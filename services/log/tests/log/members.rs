//! Whom data is kept for: members and newcomers, from one recorded layout to the next.

use plinth_api::log::KeepRequest;
use plinth_system_config::{FORMAT_LEVEL, JoiningMember, StorageMember, StorageTeam};
use plinth_types::{Epoch, StoreId, Tag, Version};

use crate::fixture::{Log, MEMBERS, USER, assignment, director, recorded, versions};

const NEWCOMER: StoreId = StoreId(0xc);

/// The log keeps a configuration of an epoch with this team.
fn keep(log: &mut Log, epoch: u64, number: u64, members: &[StoreId], joining: &[StoreId]) {
    let mut recorded = recorded(epoch, number);
    recorded.config.format_level = FORMAT_LEVEL;
    let layout = &mut recorded.config.layout;
    layout.epoch = Epoch(epoch);
    let service = |store: &StoreId| format!("storage-{}@node-1", store.0).parse().unwrap();
    let member = |store: &StoreId| StorageMember { store: *store, service: service(store) };
    let newcomer =
        |store: &StoreId| JoiningMember { store: *store, service: service(store), replaces: None };
    layout.storage_teams = [Tag::SYSTEM, USER]
        .map(|tag| StorageTeam {
            tag,
            members: members.iter().map(member).collect(),
            joining: joining.iter().map(newcomer).collect(),
        })
        .to_vec();
    let request = KeepRequest { epoch: Epoch(epoch), director: director(epoch), recorded };
    log.machine.keep(request).unwrap();
    log.machine.take_members();
    log.sync();
}

fn popped(log: &Log) -> Version {
    log.machine.status().tags.iter().find(|extent| extent.tag == USER).unwrap().popped
}

fn pop_by_members(log: &mut Log, version: Version) {
    for member in MEMBERS {
        log.pop(USER, member, version).unwrap();
    }
}

#[test]
fn a_newcomer_finds_everything_from_where_the_members_are_when_it_joins() {
    let mut log = Log::of_epoch_1();
    keep(&mut log, 1, 1, &MEMBERS, &[]);
    let one = log.append(&[USER]);
    let two = log.append(&[USER]);
    pop_by_members(&mut log, one);
    assert_eq!(popped(&log), one);
    keep(&mut log, 1, 2, &MEMBERS, &[NEWCOMER]);
    let three = log.append(&[USER]);
    pop_by_members(&mut log, three);
    assert_eq!(popped(&log), one);
    assert_eq!(versions(&log.pull(USER, 1, one).unwrap()), [two, three]);
    let backlog = log.machine.status().backlogs;
    let behind = |store: StoreId| {
        let of = backlog.iter().find(|of| of.tag == USER && of.store == store).unwrap();
        (of.popped, of.bytes > 0)
    };
    assert_eq!((behind(NEWCOMER), behind(MEMBERS[0])), ((one, true), (three, false)));

    // It is durable, and the next epoch keeps it.
    log.crash(0);
    log.lock(2).unwrap();
    let mut next = assignment(2, three);
    next.tags.iter_mut().for_each(|tag| tag.members.push(NEWCOMER));
    log.take_up_with(&next, Vec::new()).unwrap();
    let four = log.append(&[USER]);
    pop_by_members(&mut log, four);
    assert_eq!(popped(&log), one);
    log.pop(USER, NEWCOMER, three).unwrap();
    assert_eq!(popped(&log), three);
    // It is no longer wanted: what it lacks is dropped.
    keep(&mut log, 2, 3, &MEMBERS, &[]);
    assert_eq!(popped(&log), four);
}

/// The assignment names teams whose layout may yet be refused.
#[test]
fn who_counted_before_counts_until_a_layout_is_recorded_that_does_not_name_it() {
    let mut log = Log::of_epoch_1();
    keep(&mut log, 1, 1, &MEMBERS, &[]);
    let one = log.append(&[USER]);
    log.lock(2).unwrap();
    let mut next = assignment(2, one);
    next.tags.iter_mut().for_each(|tag| tag.members = vec![MEMBERS[0], NEWCOMER]);
    log.take_up_with(&next, Vec::new()).unwrap();
    for store in [MEMBERS[0], NEWCOMER] {
        log.pop(USER, store, one).unwrap();
    }
    assert_eq!(popped(&log), Version::ZERO);
    keep(&mut log, 2, 3, &[MEMBERS[0], NEWCOMER], &[]);
    assert_eq!(popped(&log), one);
    // Who has left has no say, and holds nothing up.
    let two = log.append(&[USER]);
    log.pop(USER, MEMBERS[1], two).unwrap();
    assert_eq!(popped(&log), one);
}
