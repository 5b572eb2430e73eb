use plinth_system_config::{
    Coordinator, FORMAT_LEVEL, Layout, Policies, ResolverEntry, ShardMap, StorageTeam, SystemConfig,
};
use plinth_types::{ClusterId, Epoch, GroupId, KeyRange, ServiceKind, ServiceName, Tag, Version};

use super::*;

fn service(kind: ServiceKind, on: u32) -> ServiceRef {
    ServiceRef::new(ServiceName::new(kind, 1), format!("node-{on}").parse().unwrap())
}

fn member(store: u128) -> StorageMember<ServiceRef> {
    StorageMember { store: StoreId(store), service: service(ServiceKind::Storage, store as u32) }
}

/// A configuration whose config team has these directories.
fn recorded(epoch: u64, config_version: u64, team: &[u128]) -> Recorded {
    let members: Vec<_> = team.iter().copied().map(member).collect();
    let teams = [Tag::SYSTEM, Tag(1)].map(|tag| StorageTeam {
        tag,
        members: members.clone(),
        joining: vec![],
    });
    let config = SystemConfig {
        cluster_id: ClusterId(0xc1),
        group_id: GroupId(0x61),
        format_level: FORMAT_LEVEL,
        epoch: Epoch(epoch),
        config_version: ConfigVersion(config_version),
        coordinators: vec![Coordinator {
            service: service(ServiceKind::Coordinator, 1),
            raft_id: 1,
            address: None,
        }],
        next_coordinators: vec![],
        parameters: Default::default(),
        policies: Policies::default(),
        nodes: Default::default(),
        layout: Layout {
            epoch: Epoch(epoch),
            recovery_version: Version(0),
            first_version: Version(0),
            director: service(ServiceKind::Director, 1),
            sequencer: service(ServiceKind::Sequencer, 1),
            commit_proxies: vec![service(ServiceKind::CommitProxy, 1)],
            resolvers: vec![ResolverEntry {
                service: service(ServiceKind::Resolver, 1),
                range: KeyRange::all(),
            }],
            logs: vec![],
            storage_teams: teams.to_vec(),
        },
        shards: ShardMap::initial().summary(),
    };
    Recorded::new(config, ShardMap::initial())
}

fn living(stores: &[u128]) -> BTreeSet<StoreId> {
    stores.iter().copied().map(StoreId).collect()
}

/// Epoch 4 was ready, and epoch 5 has recorded its layout.
fn stalled() -> ClusterState {
    ClusterState {
        cluster: Some(ClusterId(0xc1)),
        group: Some(GroupId(0x61)),
        epoch: Epoch(5),
        recorded: Some(recorded(5, 12, &[1, 2, 3])),
        ready: Some(recorded(4, 11, &[1, 2, 3])),
        ready_epoch: Epoch(4),
        ..ClusterState::default()
    }
}

#[test]
fn the_config_team_goes_on_with_whoever_is_there() {
    let state = stalled();
    let change = without_lost(&state, &living(&[2, 9])).unwrap();
    assert_eq!(change.expected, ConfigVersion(12));
    assert_eq!(change.lost, [member(1), member(3)]);
    let config = &change.recorded.config;
    assert_eq!(config.stamp(), recorded(5, 13, &[]).stamp());
    assert_eq!(config.layout.config_team(), [member(2)]);
    // Nobody waits for other teams, and what they lack is not decided here.
    assert_eq!(config.layout.team(Tag(1)).len(), 3);

    let mut forced = state.clone();
    let command = Command::Force { expected: change.expected, recorded: change.recorded.clone() };
    assert_eq!(forced.apply(command.clone()), crate::state::Applied::Done);
    assert_eq!(forced.recorded.as_ref(), Some(&change.recorded));
    assert_eq!(forced.ready, forced.recorded);
    assert_eq!((forced.epoch, forced.ready_epoch), (Epoch(5), Epoch(4)));
    assert_eq!(forced.appointed, None);
    // Once more is the same.
    assert_eq!(forced.apply(command), crate::state::Applied::Done);
    // The team is whole now.
    assert!(without_lost(&forced, &living(&[2])).unwrap_err().contains("majority"));
}

#[test]
fn a_lost_majority_of_the_last_ready_epochs_team_counts_too() {
    let mut state = stalled();
    state.ready = Some(recorded(4, 11, &[1, 7, 8]));
    let change = without_lost(&state, &living(&[1, 2, 3])).unwrap();
    assert_eq!(change.lost, []);
    assert_eq!(change.recorded.config.layout.config_team().len(), 3);
}

#[test]
fn there_is_nothing_to_decide_while_it_can_go_on() {
    let refused =
        |state: &ClusterState, stores: &[u128]| without_lost(state, &living(stores)).unwrap_err();
    assert!(refused(&stalled(), &[1, 3]).contains("a majority of the config team is there"));
    assert!(refused(&stalled(), &[]).contains("bring one of"));
    assert!(refused(&ClusterState::default(), &[]).contains("no layout is recorded"));
    let mut ready = stalled();
    ready.ready_epoch = Epoch(5);
    ready.appointed = Some(plinth_api::coordinator::Appointed {
        epoch: Epoch(5),
        service: service(ServiceKind::Director, 1),
        pid: plinth_types::Pid {
            node: "node-1".parse().unwrap(),
            os_pid: 1,
            incarnation: plinth_types::Incarnation(1),
            address: "node-1:1".to_owned(),
        },
        cause: String::new(),
    });
    assert!(refused(&ready, &[]).contains("epoch 5 is ready"));
}

#[test]
fn a_forced_configuration_never_goes_back() {
    let state = stalled();
    let force = |expected, recorded| {
        let mut state = state.clone();
        let command = Command::Force { expected: ConfigVersion(expected), recorded };
        let applied = state.apply(command);
        assert_eq!(state.recorded, stalled().recorded);
        matches!(applied, crate::state::Applied::Refused(_))
    };
    assert!(force(11, recorded(5, 13, &[1])), "another one is recorded");
    assert!(force(12, recorded(5, 11, &[1])), "an older one");
    assert!(force(12, recorded(4, 13, &[1])), "of an earlier epoch");
    assert!(force(12, recorded(6, 13, &[1])), "of an epoch that was never appointed");
    let mut foreign = recorded(5, 13, &[1]);
    foreign.config.cluster_id = ClusterId(9);
    assert!(force(12, foreign), "of another cluster");
}
