//! The bootstrap table, row by row, and what stands under it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plinth_system_config::bootstrap::{
    Decision, EPOCH_GAP, Floor, ForemanReport, Held, Inputs, Keeper, Kept, Known, Manifest,
    Missing, Obstacle, Outcome, RaftReport, RaftState, VERSION_GAPS, WorkerReport, decide,
};
use plinth_system_config::{BootstrapSource, Recorded, Stamp};
use plinth_types::{
    ClusterId, ConfigVersion, Epoch, GroupId, ServiceKind, ServiceRef, StoreId, Tag, VERSION_GAP,
    Version,
};

use crate::samples::{self, CLUSTER, GROUP, node, service, storage_store};

pub(crate) fn coordinator(on: u32) -> ServiceRef {
    service(ServiceKind::Coordinator, on)
}

pub(crate) fn coordinators() -> BTreeSet<ServiceRef> {
    (1..=3).map(coordinator).collect()
}

pub(crate) fn config(epoch: u64, config_version: u64) -> Arc<Recorded> {
    Arc::new(samples::recorded(epoch, config_version))
}

pub(crate) fn stamp(epoch: u64, config_version: u64) -> Stamp {
    Stamp { epoch: Epoch(epoch), config_version: ConfigVersion(config_version) }
}

pub(crate) fn running(
    group: GroupId,
    epoch: u64,
    recorded: Option<Arc<Recorded>>,
) -> Known<RaftState> {
    let report = RaftReport {
        group_id: group,
        members: coordinators(),
        next_members: BTreeSet::new(),
        epoch: Epoch(epoch),
        recorded,
    };
    Known::Has(RaftState::Running(report))
}

pub(crate) fn formatted(group: GroupId) -> Known<RaftState> {
    Known::Has(RaftState::Formatted(group))
}

pub(crate) fn manifest(on: u32) -> Manifest {
    Manifest {
        store: storage_store(on),
        service: service(ServiceKind::Storage, on),
        cluster_id: CLUSTER,
        held: Some(Held { tags: vec![Tag(0), Tag(1)], ..Held::default() }),
    }
}

/// A log of a node, last part of this epoch.
pub(crate) fn log_manifest(on: u32, epoch: u64) -> Manifest {
    let epoch = Epoch(epoch);
    let version = Version(1_000);
    let tags = vec![Tag(0), Tag(1)];
    let held = Held { epoch, generation: epoch, version, tags, shards: None };
    Manifest {
        store: samples::log_store(on),
        service: service(ServiceKind::Log, on),
        cluster_id: CLUSTER,
        held: Some(held),
    }
}

pub(crate) fn keeper(on: u32) -> Keeper {
    Keeper { service: service(ServiceKind::Storage, on), store: storage_store(on) }
}

pub(crate) fn valid(recorded: Arc<Recorded>) -> Known<Kept> {
    Known::Has(Kept::Readable(recorded))
}

pub(crate) fn corrupt() -> Known<Kept> {
    Known::Has(Kept::Corrupt("checksum".to_owned()))
}

/// Coordinator 1 decides, and nothing has answered yet.
pub(crate) fn silence(own: Known<RaftState>) -> Inputs {
    Inputs {
        cluster_id: CLUSTER,
        me: coordinator(1),
        own,
        cluster_file: coordinators(),
        peers: BTreeMap::new(),
        initial_nodes: (1..=3).map(node).collect(),
        foremen: BTreeMap::new(),
        workers: BTreeMap::new(),
        is_patient: false,
    }
}

pub(crate) trait With {
    fn peer(self, on: u32, state: Known<RaftState>) -> Self;
    fn log(self, on: u32, epoch: u64, kept: Known<Kept>) -> Self;
    fn empty_node(self, on: u32) -> Self;
    fn worker(self, on: u32, kept: Known<Kept>) -> Self;
}

impl With for Inputs {
    fn peer(mut self, on: u32, state: Known<RaftState>) -> Self {
        self.peers.insert(coordinator(on), state);
        self
    }

    /// The node's foreman has answered and knows of no cluster.
    fn empty_node(mut self, on: u32) -> Self {
        self.foremen.insert(node(on), ForemanReport::default());
        self
    }

    /// The node's foreman has answered, with a storage that keeps this.
    fn worker(mut self, on: u32, kept: Known<Kept>) -> Self {
        let foreman = ForemanReport { cluster_id: Some(CLUSTER), workers: vec![manifest(on)] };
        self.foremen.insert(node(on), foreman);
        let report =
            WorkerReport { service: service(ServiceKind::Storage, on), kept, spoiled: None };
        self.workers.insert(storage_store(on), report);
        self
    }

    /// A node that has answered has a log too, which was locked by this epoch and keeps this.
    fn log(mut self, on: u32, epoch: u64, kept: Known<Kept>) -> Self {
        self.foremen.entry(node(on)).or_default().workers.push(log_manifest(on, epoch));
        let report = WorkerReport { service: service(ServiceKind::Log, on), kept, spoiled: None };
        self.workers.insert(samples::log_store(on), report);
        self
    }
}

pub(crate) fn nobody_has_raft() -> Inputs {
    silence(Known::None).peer(2, Known::None).peer(3, Known::None)
}

fn source(outcome: &Outcome) -> Option<BootstrapSource> {
    outcome.status().map(|status| status.source)
}

#[test]
fn row_1_raft_goes_on() {
    let inputs = silence(running(GROUP, 5, Some(config(5, 9))));
    let alone = decide(&inputs);
    assert_eq!(alone.decision, Decision::GoOn { group_id: GROUP, stamp: stamp(5, 9) });
    assert_eq!(source(&alone), Some(BootstrapSource::Raft));

    let older = inputs.clone().worker(1, valid(config(4, 8))).worker(2, corrupt());
    let outcome = decide(&older);
    assert_eq!(outcome.decision, alone.decision);
    assert_eq!(outcome.rejected.len(), 1);
    assert_eq!(outcome.status().unwrap().config_version, ConfigVersion(9));

    let lagging = silence(running(GROUP, 5, Some(config(5, 9))))
        .peer(2, running(GROUP, 6, Some(config(6, 10))))
        .worker(1, valid(config(6, 10)));
    assert_eq!(decide(&lagging).decision, Decision::GoOn { group_id: GROUP, stamp: stamp(6, 10) });
}

#[test]
fn row_1_a_group_that_was_rolled_back_adopts_the_higher_configuration() {
    let inputs = silence(running(GROUP, 5, Some(config(5, 9))))
        .peer(2, running(GROUP, 5, Some(config(5, 9))))
        .worker(1, valid(config(6, 10)))
        .worker(2, valid(config(5, 11)));
    let outcome = decide(&inputs);
    let Decision::AdoptHigher { group_id, recorded, from, floor } = &outcome.decision else {
        panic!("{:?}", outcome.decision)
    };
    assert_eq!((*group_id, recorded.stamp(), from), (GROUP, stamp(6, 10), &keeper(1)));
    assert!(floor.epoch > Epoch(6));
    let status = outcome.status().unwrap();
    assert_eq!(status.source, BootstrapSource::Raft);
    assert_eq!(status.storage, Some(service(ServiceKind::Storage, 1)));

    let forgotten = silence(running(GROUP, 1, None)).worker(1, valid(config(6, 10)));
    assert!(matches!(decide(&forgotten).decision, Decision::AdoptHigher { .. }));
}

#[test]
fn row_2_a_founding_goes_on() {
    let inputs = silence(running(GROUP, 1, None))
        .peer(2, formatted(GROUP))
        .worker(1, Known::None)
        .empty_node(2)
        .empty_node(3);
    let outcome = decide(&inputs);
    let discard = vec![manifest(1)];
    assert_eq!(outcome.decision, Decision::GoOnFounding { group_id: GROUP, discard });
    assert_eq!(source(&outcome), Some(BootstrapSource::Raft));
}

#[test]
fn row_2_a_coordinator_that_has_only_promised_is_a_whole_member() {
    let inputs = silence(formatted(GROUP)).peer(2, running(GROUP, 1, Some(config(1, 1))));
    assert_eq!(decide(&inputs).decision, Decision::GoOn { group_id: GROUP, stamp: stamp(1, 1) });
}

#[test]
fn row_2_nothing_is_discarded_while_anything_is_unknown() {
    let whole = || {
        silence(running(GROUP, 1, None))
            .peer(2, running(GROUP, 1, None))
            .worker(1, Known::None)
            .empty_node(2)
            .empty_node(3)
    };
    let mut unheard = whole();
    unheard.foremen.remove(&node(3));
    let missing = vec![Missing::Foreman(node(3))];
    assert_eq!(decide(&unheard).decision, Decision::Wait { missing });

    let mute = whole().worker(1, Known::Unknown);
    let missing = vec![Missing::Worker(keeper(1))];
    assert_eq!(decide(&mute).decision, Decision::Wait { missing });

    let mut alone = whole();
    alone.peers.clear();
    let missing = vec![Missing::Coordinator(coordinator(2)), Missing::Coordinator(coordinator(3))];
    assert_eq!(decide(&alone).decision, Decision::Wait { missing });

    let damaged = whole().worker(1, corrupt());
    assert_eq!(decide(&damaged).decision, Decision::Unready { obstacle: Obstacle::LayoutLost });
}

#[test]
fn row_3_a_wiped_coordinator_rejoins_a_living_group() {
    let alive = || running(GROUP, 5, Some(config(5, 9)));
    let inputs = silence(Known::None).peer(2, alive()).peer(3, alive());
    let outcome = decide(&inputs);
    assert_eq!(
        outcome.decision,
        Decision::Rejoin { group_id: GROUP, members: coordinators(), stamp: stamp(5, 9) }
    );
    assert_eq!(source(&outcome), Some(BootstrapSource::Peers));

    let newcomer = Inputs { me: coordinator(4), ..inputs.clone().peer(1, alive()) };
    assert!(matches!(decide(&newcomer).decision, Decision::Rejoin { .. }));

    let one_unknown = silence(Known::None).peer(2, alive());
    let missing = vec![Missing::Coordinator(coordinator(3))];
    assert_eq!(decide(&one_unknown).decision, Decision::Wait { missing });
}

#[test]
fn row_3_a_member_of_a_replaced_group_joins_the_new_one() {
    let new = GroupId(0x62);
    let refounded = || running(new, 5 + EPOCH_GAP, Some(config(5, 9)));
    let inputs =
        silence(running(GROUP, 5, Some(config(5, 9)))).peer(2, refounded()).peer(3, refounded());
    let decision = decide(&inputs).decision;
    assert!(
        matches!(decision, Decision::Rejoin { group_id, .. } if group_id == new),
        "{decision:?}"
    );

    // And the new group is not impressed by a member of the old one.
    let inputs =
        silence(refounded()).peer(2, refounded()).peer(3, running(GROUP, 5, Some(config(5, 9))));
    assert_eq!(decide(&inputs).decision, Decision::GoOn { group_id: new, stamp: stamp(5, 9) });
}

#[test]
fn row_4_all_coordinators_wiped() {
    let inputs = nobody_has_raft().worker(1, valid(config(5, 9))).worker(2, valid(config(6, 12)));
    let outcome = decide(&inputs);
    let Decision::Refound { recorded, from, members, former, renounce, floor } = &outcome.decision
    else {
        panic!("{:?}", outcome.decision)
    };
    assert_eq!(recorded.stamp(), stamp(6, 12));
    assert_eq!(from, &Some(keeper(2)));
    assert_eq!((members, former), (&coordinators(), &BTreeSet::new()));
    assert!(renounce.is_empty());
    assert_eq!(floor.epoch, Epoch(6 + EPOCH_GAP));
    let highest = 6_000 + 6 * VERSION_GAP;
    assert_eq!(floor.version, Version(highest + VERSION_GAPS * VERSION_GAP));
    let status = outcome.status().unwrap();
    assert_eq!(status.source, BootstrapSource::Storage);
    assert_eq!(status.storage, Some(service(ServiceKind::Storage, 2)));
    assert_eq!((status.epoch, status.config_version), (Epoch(6), ConfigVersion(12)));
}

#[test]
fn row_4_of_equal_configurations_a_storages_is_named() {
    let mut inputs =
        nobody_has_raft().worker(3, valid(config(6, 12))).worker(2, valid(config(6, 12)));
    let log = WorkerReport {
        service: service(ServiceKind::Log, 1),
        kept: valid(config(6, 12)),
        spoiled: None,
    };
    inputs.workers.insert(samples::log_store(1), log);
    let status = decide(&inputs).status().unwrap();
    assert_eq!(status.storage, Some(service(ServiceKind::Storage, 2)));
}

#[test]
fn row_4_a_configuration_that_cannot_be_read_on_one_storage_is_taken_from_the_next() {
    let good = || valid(config(6, 12));
    let mut inputs = nobody_has_raft().worker(1, corrupt()).worker(2, good()).worker(3, good());
    inputs.workers.get_mut(&storage_store(3)).unwrap().spoiled = Some("cut short".to_owned());
    let outcome = decide(&inputs);
    assert!(matches!(outcome.decision, Decision::Refound { .. }), "{:?}", outcome.decision);
    let rejected: Vec<_> = outcome.rejected.iter().map(|one| (one.store, &*one.reason)).collect();
    assert_eq!(rejected, [(storage_store(1), "checksum"), (storage_store(3), "cut short")]);
    let status = outcome.status().unwrap();
    assert_eq!(status.storage, Some(service(ServiceKind::Storage, 2)));
}

#[test]
fn row_4_floors_are_above_lock_epochs_and_versions_in_manifests() {
    let mut inputs =
        nobody_has_raft().worker(1, valid(config(5, 9))).worker(2, valid(config(5, 9)));
    let foreman = inputs.foremen.get_mut(&node(1)).unwrap();
    let held = foreman.workers[0].held.as_mut().unwrap();
    (held.epoch, held.version) = (Epoch(70), Version(u64::from(u32::MAX)));
    let Decision::Refound { floor, .. } = decide(&inputs).decision else { panic!() };
    assert_eq!(floor.epoch, Epoch(70 + EPOCH_GAP));
    assert_eq!(floor.version, Version(u64::from(u32::MAX) + VERSION_GAPS * VERSION_GAP));
}

/// A log may have been locked by epochs that nobody else has heard of.
#[test]
fn row_4_all_that_the_layout_names_are_heard_while_there_is_time() {
    let kept = || valid(config(5, 9));
    let two = nobody_has_raft().worker(1, kept()).worker(2, kept());
    assert!(matches!(decide(&two).decision, Decision::Refound { .. }));
    // The third node's foreman is silent, and so is a log that the first one's names.
    let two = Inputs { is_patient: true, ..two.log(1, 5, Known::Unknown) };
    let decision = decide(&two).decision;
    let Decision::Wait { missing } = &decision else { panic!("{decision:?}") };
    assert_eq!(missing.len(), 3, "{missing:?}");
    let log = samples::log_store(1);
    let names_it = |one: &Missing| matches!(one, Missing::Worker(keeper) if keeper.store == log);
    assert!(missing.iter().any(names_it), "{missing:?}");
    let all = two.worker(3, kept()).log(1, 70, kept());
    let Decision::Refound { floor, .. } = decide(&all).decision else { panic!() };
    assert_eq!(floor.epoch, Epoch(70 + EPOCH_GAP));
}

#[test]
fn row_4_survivors_renounce_and_the_newest_of_all_is_taken() {
    let survivor = running(GROUP, 7, Some(config(7, 13)));
    let inputs = silence(survivor.clone())
        .peer(2, Known::None)
        .peer(3, Known::None)
        .worker(1, valid(config(6, 12)))
        .worker(2, valid(config(6, 12)));
    let outcome = decide(&inputs);
    let Decision::Refound { recorded, from, renounce, floor, .. } = &outcome.decision else {
        panic!("{:?}", outcome.decision)
    };
    assert_eq!((recorded.stamp(), from), (stamp(7, 13), &None));
    assert_eq!(renounce, &BTreeMap::from([(coordinator(1), GROUP)]));
    assert_eq!(floor.epoch, Epoch(7 + EPOCH_GAP));

    // A wiped coordinator sees it the same way.
    let mut wiped = inputs.clone().peer(1, survivor);
    wiped.me = coordinator(2);
    wiped.own = Known::None;
    assert_eq!(decide(&wiped).decision, outcome.decision);
}

#[test]
fn row_4_one_that_has_promised_another_founding_still_refounds() {
    let inputs = silence(formatted(GroupId(0x62)))
        .peer(2, Known::None)
        .peer(3, Known::Unknown)
        .worker(1, valid(config(6, 12)))
        .worker(2, valid(config(6, 12)));
    assert!(matches!(decide(&inputs).decision, Decision::Refound { .. }));
}

#[test]
fn row_4_waits_for_a_majority_to_be_known_lost() {
    let inputs = silence(Known::None)
        .worker(1, valid(config(6, 12)))
        .worker(2, valid(config(6, 12)))
        .worker(3, valid(config(6, 12)));
    let missing = vec![Missing::Coordinator(coordinator(2)), Missing::Coordinator(coordinator(3))];
    assert_eq!(decide(&inputs).decision, Decision::Wait { missing });
}

#[test]
fn row_4_a_minority_of_the_config_team_proves_nothing() {
    let one = nobody_has_raft().worker(1, valid(config(6, 12)));
    let missing = vec![Missing::Worker(keeper(2)), Missing::Worker(keeper(3))];
    assert_eq!(decide(&one).decision, Decision::Wait { missing });

    let mute = one.clone().worker(2, Known::Unknown).empty_node(3);
    let missing = vec![Missing::Worker(keeper(2))];
    assert_eq!(decide(&mute).decision, Decision::Wait { missing });

    let lost = one.worker(2, corrupt()).empty_node(3);
    let outcome = decide(&lost);
    let obstacle = Obstacle::ConfigTeamLost { stamp: stamp(6, 12), valid: 1, members: 3 };
    assert_eq!(outcome.decision, Decision::Unready { obstacle });
    assert_eq!(outcome.rejected[0].service, service(ServiceKind::Storage, 2));
}

#[test]
fn row_4_members_of_a_superseded_team_are_not_enough() {
    // Storages 1 to 3 keep epoch 5. Of epoch 6, whose team is 7 to 9, only one is heard.
    let mut newer = samples::recorded(6, 12);
    for (member, number) in newer.config.layout.storage_teams[0].members.iter_mut().zip(7u32..) {
        member.store = storage_store(number);
        member.service.name.number = number;
    }
    let (store, newer) = (storage_store(7), Arc::new(newer));
    let service = newer.config.layout.config_team()[0].service.clone();
    let mut inputs = nobody_has_raft()
        .worker(1, valid(config(5, 9)))
        .worker(2, valid(config(5, 9)))
        .worker(3, valid(config(5, 9)));
    inputs.workers.insert(store, WorkerReport { service, kept: valid(newer), spoiled: None });
    let Decision::Unready { obstacle } = decide(&inputs).decision else { panic!() };
    let expected = Obstacle::ConfigTeamLost { stamp: stamp(6, 12), valid: 1, members: 3 };
    assert_eq!(obstacle, expected);
}

#[test]
fn row_4_a_corrupt_configuration_is_taken_from_the_next_storage_and_reported() {
    let inputs = nobody_has_raft()
        .worker(1, corrupt())
        .worker(2, valid(config(6, 12)))
        .worker(3, valid(config(6, 12)));
    let outcome = decide(&inputs);
    assert!(
        matches!(&outcome.decision, Decision::Refound { from: Some(from), .. } if *from == keeper(2))
    );
    assert_eq!(outcome.status().unwrap().rejected[0].reason, "checksum");
}

#[test]
fn row_4_a_configuration_of_another_cluster_is_never_taken() {
    let mut foreign = samples::recorded(99, 99);
    foreign.config.cluster_id = ClusterId(0xbad);
    let inputs = nobody_has_raft()
        .worker(1, valid(Arc::new(foreign)))
        .worker(2, valid(config(6, 12)))
        .worker(3, valid(config(6, 12)));
    let outcome = decide(&inputs);
    assert!(
        matches!(&outcome.decision, Decision::Refound { recorded, .. } if recorded.stamp() == stamp(6, 12))
    );
    assert!(outcome.rejected[0].reason.contains("bad"), "{:?}", outcome.rejected);
}

#[test]
fn row_4_two_configurations_with_one_stamp_are_for_the_operator() {
    let mut other = samples::recorded(6, 12);
    other.config.parameters.replication = 1;
    let inputs =
        nobody_has_raft().worker(1, valid(config(6, 12))).worker(2, valid(Arc::new(other)));
    let obstacle = Obstacle::TwoConfigurations { stamp: stamp(6, 12) };
    assert_eq!(decide(&inputs).decision, Decision::Unready { obstacle });
}

#[test]
fn row_5_a_cold_start() {
    let inputs = nobody_has_raft().empty_node(1).empty_node(2).empty_node(3);
    let outcome = decide(&inputs);
    assert_eq!(outcome.decision, Decision::ColdStart { members: coordinators() });
    let status = outcome.status().unwrap();
    assert_eq!(status.source, BootstrapSource::Default);
    assert_eq!((status.epoch, status.config_version), (Epoch(0), ConfigVersion(0)));

    let half_way = inputs.peer(2, formatted(GROUP));
    assert_eq!(decide(&half_way).decision, Decision::ColdStart { members: coordinators() });
}

#[test]
fn row_5_silence_is_never_a_cold_start() {
    let all = || nobody_has_raft().empty_node(1).empty_node(2).empty_node(3);
    let mut inputs = all();
    inputs.foremen.remove(&node(2));
    let missing = vec![Missing::Foreman(node(2))];
    assert_eq!(decide(&inputs).decision, Decision::Wait { missing });

    let inputs = all().peer(3, Known::Unknown);
    let missing = vec![Missing::Coordinator(coordinator(3))];
    assert_eq!(decide(&inputs).decision, Decision::Wait { missing });

    assert!(matches!(decide(&silence(Known::None)).decision, Decision::Wait { .. }));
}

#[test]
fn row_5_a_foreman_that_knows_a_cluster_vetoes() {
    let mut inputs = nobody_has_raft().empty_node(1).empty_node(2).empty_node(3);
    inputs.foremen.get_mut(&node(2)).unwrap().cluster_id = Some(CLUSTER);
    let obstacle = Obstacle::NodeInUse { node: node(2), cluster_id: CLUSTER };
    assert_eq!(decide(&inputs).decision, Decision::Unready { obstacle });

    let theirs = ClusterId(0xbad);
    inputs.foremen.get_mut(&node(2)).unwrap().cluster_id = Some(theirs);
    let obstacle = Obstacle::ForeignNode { node: node(2), theirs, ours: CLUSTER };
    assert_eq!(decide(&inputs).decision, Decision::Unready { obstacle });
}

#[test]
fn row_5_only_coordinators_of_the_cluster_file_start_a_cluster() {
    let mut inputs = nobody_has_raft().empty_node(1).empty_node(2).empty_node(3);
    inputs.peers.insert(coordinator(1), Known::None);
    inputs.me = coordinator(4);
    let missing = vec![Missing::Founding];
    assert_eq!(decide(&inputs).decision, Decision::Wait { missing });
}

#[test]
fn a_store_that_cannot_be_read_is_not_taken_for_none() {
    let inputs = silence(Known::Unknown)
        .peer(2, Known::None)
        .peer(3, Known::None)
        .empty_node(1)
        .empty_node(2)
        .empty_node(3);
    let outcome = decide(&inputs);
    let obstacle = Obstacle::OwnStoreUnreadable;
    assert_eq!(outcome.decision, Decision::Unready { obstacle });
    assert_eq!(outcome.status(), None);
}

#[test]
fn two_groups_of_one_epoch_are_for_the_operator() {
    let inputs = silence(running(GROUP, 5, None)).peer(2, running(GroupId(0x62), 5, None));
    let obstacle = Obstacle::TwoGroups { first: GROUP, second: GroupId(0x62) };
    assert_eq!(decide(&inputs).decision, Decision::Unready { obstacle });
}

#[test]
fn a_group_that_was_lost_before_it_had_a_layout_is_for_the_operator() {
    let inputs = silence(running(GROUP, 1, None))
        .peer(2, Known::None)
        .peer(3, Known::None)
        .empty_node(1)
        .empty_node(2);
    let missing = vec![Missing::Foreman(node(3))];
    assert_eq!(decide(&inputs).decision, Decision::Wait { missing });
    let obstacle = Obstacle::NothingToRefound;
    assert_eq!(decide(&inputs.empty_node(3)).decision, Decision::Unready { obstacle });
}

#[test]
fn a_single_coordinator_refounds_alone() {
    let mut single = samples::recorded(6, 12);
    single.config.coordinators.truncate(1);
    let single = Arc::new(single);
    let mut inputs = silence(Known::None).worker(1, valid(single.clone())).worker(2, valid(single));
    inputs.cluster_file = BTreeSet::from([coordinator(1)]);
    let decision = decide(&inputs).decision;
    assert!(
        matches!(&decision, Decision::Refound { members, .. } if members.len() == 1),
        "{decision:?}"
    );
}

#[test]
fn obstacles_say_what_to_do() {
    let store = StoreId(1);
    assert!(Obstacle::LayoutLost.to_string().contains("plinth recover"));
    let missing = Missing::Worker(Keeper { service: service(ServiceKind::Log, 1), store });
    assert_eq!(missing.to_string(), format!("log-1@node-1 (store {store})"));
}

#[test]
fn two_groups_that_heard_of_the_same_are_founded_apart() {
    let heard = Floor { epoch: Epoch(7 + EPOCH_GAP), version: Version(9) };
    let (one, other) = (heard.apart(0x61), heard.apart(u128::MAX));
    assert_ne!(one.epoch, other.epoch);
    for floor in [one, other] {
        assert!((heard.epoch.0..heard.epoch.0 + EPOCH_GAP).contains(&floor.epoch.0), "{floor:?}");
        assert_eq!(floor.version, heard.version);
    }
}
