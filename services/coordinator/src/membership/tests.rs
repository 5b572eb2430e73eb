//! Whatever Raft has and the configuration says, whoever leads does the next step, and only that.

use plinth_api::coordinator::Appointed;
use plinth_system_config::{FORMAT_LEVEL, Layout, Policies, ResolverEntry, ShardMap, SystemConfig};
use plinth_types::{
    ClusterId, Epoch, GroupId, Incarnation, Key, KeyRange, Pid, ServiceKind, ServiceName, Tag,
    Version,
};

use super::*;

const GROUP: GroupId = GroupId(0x61);

fn service(kind: ServiceKind, on: u64) -> ServiceRef {
    ServiceRef::new(ServiceName::new(kind, 1), format!("node-{on}").parse().unwrap())
}

fn seat(on: u64) -> Seat {
    let service = service(ServiceKind::Coordinator, on);
    Seat { raft_id: on, service, address: format!("host-{on}:1") }
}

fn seats(of: &[u64]) -> Vec<Seat> {
    of.iter().copied().map(seat).collect()
}

fn raft(voters: &[&[u64]], learners: &[u64]) -> Seats {
    Seats { voters: voters.iter().map(|of| seats(of)).collect(), learners: seats(learners) }
}

fn coordinators(of: &[u64]) -> Vec<Coordinator> {
    of.iter().map(|on| seat(*on).coordinator()).collect()
}

fn set(of: &[u64]) -> BTreeSet<ServiceRef> {
    names(&seats(of))
}

fn ids(of: &[u64]) -> BTreeSet<u64> {
    of.iter().copied().collect()
}

fn recorded(now: &[u64], next: &[u64]) -> Recorded {
    let config = SystemConfig {
        cluster_id: ClusterId(1),
        group_id: GROUP,
        format_level: FORMAT_LEVEL,
        epoch: Epoch(3),
        config_version: ConfigVersion(7),
        coordinators: coordinators(now),
        next_coordinators: coordinators(next),
        parameters: Default::default(),
        policies: Policies::default(),
        nodes: Default::default(),
        layout: Layout {
            epoch: Epoch(3),
            recovery_version: Version(1),
            first_version: Version(2),
            director: service(ServiceKind::Director, 1),
            sequencer: service(ServiceKind::Sequencer, 1),
            commit_proxies: vec![],
            resolvers: vec![ResolverEntry {
                service: service(ServiceKind::Resolver, 1),
                range: KeyRange::all(),
            }],
            logs: vec![],
            storage_teams: vec![],
        },
        shards: ShardMap(vec![]).summary(),
    };
    Recorded::new(config, ShardMap(vec![(Key::default(), Tag(1))]))
}

/// A ready epoch, with a configuration that is in storage.
fn ready(now: &[u64], next: &[u64]) -> ClusterState {
    let recorded = Some(recorded(now, next));
    ClusterState {
        group: Some(GROUP),
        epoch: Epoch(3),
        ready_epoch: Epoch(3),
        appointed: Some(Appointed {
            epoch: Epoch(3),
            service: service(ServiceKind::Director, 1),
            pid: Pid {
                node: "node-1".parse().unwrap(),
                os_pid: 1,
                incarnation: Incarnation(1),
                address: "node-1:1".to_owned(),
            },
            cause: String::new(),
        }),
        ready: recorded.clone(),
        recorded,
        ..ClusterState::default()
    }
}

const THREE: &[u64] = &[1, 2, 3];
const FOUR: &[u64] = &[1, 2, 3, 4];

fn record(of: &[u64]) -> Step {
    Step::Record { expected: ConfigVersion(7), members: coordinators(of) }
}

#[test]
fn before_the_configuration_names_both_a_learner_is_taken_out_unless_it_is_being_prepared() {
    let state = ready(THREE, &[]);
    assert_eq!(next(&state, &raft(&[THREE], &[]), None), Step::Rest);
    assert_eq!(next(&state, &raft(&[THREE], &[4]), Some(4)), Step::Rest);
    // Its leader has ended, or the order was given up.
    assert_eq!(next(&state, &raft(&[THREE], &[4, 5]), Some(5)), Step::Forget(ids(&[4])));
}

#[test]
fn once_both_are_in_storage_raft_moves_and_not_before() {
    let here = raft(&[THREE], &[4]);
    let mut unproved = ready(THREE, FOUR);
    unproved.ready = Some(recorded(THREE, &[]));
    assert_eq!(next(&unproved, &here, None), Step::Rest);
    unproved.ready = None;
    assert_eq!(next(&unproved, &here, None), Step::Rest);
    let state = ready(THREE, FOUR);
    let moves = Step::Move { to: set(FOUR), newcomers: ids(&[4]) };
    assert_eq!(next(&state, &here, None), moves);
    // The epoch that has proved it may be over.
    let over = ClusterState { appointed: None, ..state.clone() };
    assert_eq!(next(&over, &here, None), moves);
    // Nobody knows the newcomer: its leader has ended before Raft had it. It asks again.
    assert_eq!(next(&state, &raft(&[THREE], &[]), None), Step::Rest);
    let shrinking = ready(FOUR, THREE);
    let moves = Step::Move { to: set(THREE), newcomers: ids(&[]) };
    assert_eq!(next(&shrinking, &raft(&[FOUR], &[]), None), moves);
}

#[test]
fn once_it_moves_raft_takes_up_the_next_voters() {
    let mut state = ready(THREE, FOUR);
    state.moving = Some(set(FOUR));
    assert_eq!(next(&state, &raft(&[THREE], &[4]), None), Step::Vote(ids(FOUR)));
    // The newcomer has lost its disk meanwhile, and so has one that stays.
    let mut here = raft(&[&[1, 2]], &[]);
    here.voters[0].push(Seat { raft_id: 33, ..seat(3) });
    here.learners.push(Seat { raft_id: 44, ..seat(4) });
    assert_eq!(next(&state, &here, None), Step::Vote(ids(&[1, 2, 33, 44])));
}

/// One that was removed goes on hearing for a while under the identity that it had, and comes back under
/// another one.
#[test]
fn who_comes_back_votes_under_the_identity_that_the_configuration_names() {
    let mut state = ready(THREE, FOUR);
    let mut here = raft(&[THREE], &[]);
    here.learners = vec![Seat { raft_id: 14, ..seat(4) }, seat(4)];
    let moves = Step::Move { to: set(FOUR), newcomers: ids(&[4]) };
    assert_eq!(next(&state, &here, None), moves);
    state.moving = Some(set(FOUR));
    assert_eq!(next(&state, &here, None), Step::Vote(ids(FOUR)));
}

#[test]
fn a_leader_that_finds_the_joint_phase_ends_it() {
    let mut state = ready(THREE, FOUR);
    state.moving = Some(set(FOUR));
    let joint = raft(&[THREE, FOUR], &[]);
    assert_eq!(next(&state, &joint, None), Step::Finish(ids(FOUR)));
    // Whatever else is to be: no epoch, no configuration that could say so.
    assert_eq!(next(&ClusterState::default(), &joint, None), Step::Finish(ids(FOUR)));
}

#[test]
fn once_raft_has_the_next_members_the_director_records_them_alone() {
    let mut state = ready(THREE, FOUR);
    assert_eq!(next(&state, &raft(&[FOUR], &[]), None), record(FOUR));
    let shrinking = ready(THREE, &[1, 2]);
    // Who has left still hears of it.
    assert_eq!(next(&shrinking, &raft(&[&[1, 2]], &[3]), None), record(&[1, 2]));
    let over = raft(&[&[1, 2]], &[3]);
    assert_eq!(next(&ready(&[1, 2], &[]), &over, None), Step::Forget(ids(&[3])));
    // Without a ready epoch the next one keeps both, and then it is done.
    state.ready_epoch = Epoch(2);
    assert_eq!(next(&state, &raft(&[FOUR], &[]), None), Step::Rest);
}

#[test]
fn another_identity_or_address_of_a_member_is_recorded() {
    let state = ready(THREE, &[]);
    let mut here = raft(&[THREE], &[]);
    here.voters[0][1].address = "elsewhere:1".to_owned();
    let Step::Record { members, .. } = next(&state, &here, None) else { panic!("it has moved") };
    assert_eq!(members[1].address.as_deref(), Some("elsewhere:1"));
    here.voters[0][1] = Seat { raft_id: 22, ..seat(2) };
    let Step::Record { members, .. } = next(&state, &here, None) else { panic!("it is another") };
    assert_eq!(members[1].raft_id, 22);
    let mut old = state;
    for recorded in [&mut old.recorded, &mut old.ready].into_iter().flatten() {
        recorded.config.format_level = MEMBERS_LEVEL - 1;
    }
    assert_eq!(next(&old, &here, None), Step::Rest, "an earlier level can't say it");
}

#[test]
fn a_recovery_names_both_memberships_until_the_change_is_over() {
    let state = ready(THREE, FOUR);
    let both = (coordinators(THREE), coordinators(FOUR));
    for here in [raft(&[THREE], &[4]), raft(&[THREE, FOUR], &[]), raft(&[FOUR], &[])] {
        assert_eq!(here.to_name(&state), both);
    }
    assert_eq!(raft(&[THREE], &[]).to_name(&ready(THREE, &[])), (coordinators(THREE), vec![]));
    // A group that was founded again has the members that it has.
    let refounded = ClusterState { group: Some(GroupId(0x62)), ..state.clone() };
    assert_eq!(raft(&[FOUR], &[]).to_name(&refounded), (coordinators(FOUR), vec![]));
    // So has one whose members are neither.
    assert_eq!(raft(&[&[1, 5]], &[]).to_name(&state), (coordinators(&[1, 5]), vec![]));
}

#[test]
fn a_change_can_be_taken_back_only_before_raft_may_have_moved() {
    let mut state = ready(THREE, FOUR);
    assert!(!has_moved(&state, &raft(&[THREE], &[4])));
    assert!(has_moved(&state, &raft(&[THREE, FOUR], &[])));
    assert!(has_moved(&state, &raft(&[FOUR], &[])));
    state.moving = Some(set(FOUR));
    assert!(has_moved(&state, &raft(&[THREE], &[4])));
}

/// Every step is taken in turn, with a leader that remembers nothing: the change comes to its end.
#[test]
fn step_by_step_a_change_comes_to_its_end() {
    for (now, after) in [(THREE, FOUR), (FOUR, THREE)] {
        let mut state = ready(now, after);
        let learners: Vec<u64> = after.iter().filter(|on| !now.contains(on)).copied().collect();
        let mut here = raft(&[now], &learners);
        let mut taken = Vec::new();
        loop {
            match next(&state, &here, None) {
                Step::Rest | Step::Wait => break,
                Step::Move { to, .. } => {
                    taken.push("move");
                    let command = crate::state::Command::Move { to };
                    let applied = state.apply_in(command, &[set(now)]);
                    assert_eq!(applied, crate::state::Applied::Done);
                }
                Step::Vote(voters) => {
                    taken.push("vote");
                    assert_eq!(voters, ids(after));
                    here = raft(&[now, after], &[]);
                }
                Step::Finish(voters) => {
                    taken.push("finish");
                    assert_eq!(voters, ids(after));
                    let left: Vec<u64> =
                        now.iter().filter(|on| !after.contains(on)).copied().collect();
                    here = raft(&[after], &left);
                    state.note_members(&[set(after)]);
                }
                Step::Record { members, .. } => {
                    taken.push("record");
                    assert_eq!(members, coordinators(after));
                    state.recorded = Some(recorded(after, &[]));
                    state.ready.clone_from(&state.recorded);
                }
                Step::Forget(left) => {
                    taken.push("forget");
                    assert!(left.iter().all(|on| now.contains(on) && !after.contains(on)));
                    here.learners.clear();
                }
            }
        }
        let all = ["move", "vote", "finish", "record", "forget"];
        assert_eq!(taken, if now == FOUR { &all[..] } else { &all[..4] });
    }
}
