use plinth_system_config::{
    Coordinator, FORMAT_LEVEL, Layout, Policies, ResolverEntry, ShardMap, Standing, SystemConfig,
};
use plinth_types::{Key, KeyRange, NodeId, ServiceKind, ServiceName, Tag, Zone};
use proptest::prelude::*;

use super::*;

const CLUSTER: ClusterId = ClusterId(0xc1);
const GROUP: GroupId = GroupId(0x61);

impl ClusterState {
    /// Applies a command, where nothing is said of Raft's members.
    pub(crate) fn apply(&mut self, command: Command) -> Applied {
        self.apply_in(command, &[])
    }
}

fn node(number: u32) -> NodeId {
    format!("node-{number}").parse().unwrap()
}

fn service(kind: ServiceKind) -> ServiceRef {
    ServiceRef::new(ServiceName::new(kind, 1), node(1))
}

fn pid(incarnation: u64) -> Pid {
    Pid {
        node: node(1),
        os_pid: 1,
        incarnation: Incarnation(incarnation),
        address: format!("node-1:{incarnation}"),
    }
}

fn recorded(epoch: u64, config_version: u64) -> Recorded {
    let config = SystemConfig {
        cluster_id: CLUSTER,
        group_id: GROUP,
        format_level: FORMAT_LEVEL,
        epoch: Epoch(epoch),
        config_version: ConfigVersion(config_version),
        coordinators: vec![Coordinator {
            service: service(ServiceKind::Coordinator),
            raft_id: 1,
            address: None,
        }],
        next_coordinators: vec![],
        parameters: Default::default(),
        policies: Policies::default(),
        nodes: Default::default(),
        layout: Layout {
            epoch: Epoch(epoch),
            recovery_version: Version(epoch),
            first_version: Version(1_000_000 + epoch),
            director: service(ServiceKind::Director),
            sequencer: service(ServiceKind::Sequencer),
            commit_proxies: vec![service(ServiceKind::CommitProxy)],
            resolvers: vec![ResolverEntry {
                service: service(ServiceKind::Resolver),
                range: KeyRange::all(),
            }],
            logs: vec![],
            storage_teams: vec![],
        },
        shards: ShardMap(vec![]).summary(),
    };
    Recorded::new(config, ShardMap(vec![(Key::default(), Tag(1))]))
}

fn founding(recorded: Option<Recorded>, epoch_floor: u64) -> Founding {
    Founding {
        group: GROUP,
        members: vec![],
        recorded,
        epoch_floor: Epoch(epoch_floor),
        version_floor: Version(7),
        source: "default".to_owned(),
        storage: None,
    }
}

fn found(state: &mut ClusterState, founding: Founding) -> Applied {
    state.apply(Command::Found { cluster: CLUSTER, founding })
}

fn appoint(state: &mut ClusterState, incarnation: u64) -> Epoch {
    let applied = state.apply(Command::Appoint {
        service: service(ServiceKind::Director),
        pid: pid(incarnation),
        cause: "a test".to_owned(),
        above: None,
    });
    let Applied::Appointed(appointed) = applied else { panic!("{applied:?}") };
    appointed.epoch
}

fn record(
    state: &mut ClusterState,
    epoch: u64,
    director: u64,
    expected: Option<u64>,
    recorded: Recorded,
) -> Applied {
    state.apply(Command::Record(RecordRequest {
        epoch: Epoch(epoch),
        director: Incarnation(director),
        expected: expected.map(ConfigVersion),
        recorded,
    }))
}

fn mark_ready(state: &mut ClusterState, epoch: u64, director: u64) -> Applied {
    state.apply(Command::MarkReady(ReadyRequest {
        epoch: Epoch(epoch),
        director: Incarnation(director),
        recovery: Recovery {
            epoch: Epoch(epoch),
            director: service(ServiceKind::Director),
            cause: String::new(),
            started_unix_ms: 0,
            duration_ms: 0,
            recovery_version: Version(0),
            first_version: Version(0),
            reused: vec![],
            made: vec![],
            phases: vec![],
            trace_id: None,
            changes: vec![],
        },
    }))
}

fn refusal(applied: Applied) -> Refusal {
    match applied {
        Applied::Refused(refusal) => refusal,
        applied => panic!("not refused: {applied:?}"),
    }
}

fn founded() -> ClusterState {
    let mut state = ClusterState::default();
    assert_eq!(found(&mut state, founding(None, 0)), Applied::Done);
    state
}

#[test]
fn nothing_happens_before_the_founding_and_it_happens_once() {
    let mut state = ClusterState::default();
    let appoint = Command::Appoint {
        service: service(ServiceKind::Director),
        pid: pid(1),
        cause: String::new(),
        above: None,
    };
    assert_eq!(refusal(state.apply(appoint)), Refusal::NotFounded);
    assert_eq!(state, ClusterState::default());
    assert_eq!(found(&mut state, founding(None, 5)), Applied::Done);
    let before = state.clone();
    assert_eq!(found(&mut state, founding(None, 5)), Applied::Done);
    let other = Founding { group: GroupId(9), ..founding(None, 500) };
    assert_eq!(refusal(found(&mut state, other)), Refusal::Founded);
    assert_eq!(state, before);
}

#[test]
fn a_mark_changes_nothing() {
    let mut state = ClusterState::default();
    let mark = |state: &mut ClusterState| {
        let before = state.clone();
        refusal(state.apply(Command::mark()));
        assert_eq!(*state, before);
    };
    mark(&mut state);
    found(&mut state, founding(None, 5));
    mark(&mut state);
    appoint(&mut state, 1);
    mark(&mut state);
    assert_eq!(record(&mut state, 6, 1, None, recorded(6, 1)), Applied::Done);
    mark(&mut state);
    assert_eq!(mark_ready(&mut state, 6, 1), Applied::Done);
    mark(&mut state);
}

#[test]
fn an_appointment_is_above_the_epochs_that_somebody_else_has_heard_of() {
    let mut state = ClusterState::default();
    found(&mut state, founding(Some(recorded(3, 4)), 1 << 20));
    let mut appoint = |above| {
        let (service, pid, cause) = (service(ServiceKind::Director), pid(1), String::new());
        match state.apply(Command::Appoint { service, pid, cause, above }) {
            Applied::Appointed(appointed) => (appointed.epoch, state.failed_epochs()),
            applied => panic!("{applied:?}"),
        }
    };
    let later = Epoch(3 << 20);
    assert_eq!(appoint(Some(Epoch(7))), (Epoch((1 << 20) + 1), 1));
    // Another group that is told of the same one begins elsewhere.
    let first = apart(Epoch(4 << 20), GROUP.0).0 + 1;
    assert_eq!(appoint(Some(later)), (Epoch(first), 1));
    assert_eq!(appoint(Some(later)), (Epoch(first + 1), 2));
    assert_eq!(appoint(Some(Epoch(u64::MAX))), (Epoch(first + 2), 3));
    assert_eq!(appoint(None), (Epoch(first + 3), 4));
}

#[test]
fn every_appointment_is_a_fresh_epoch_above_the_floor() {
    let mut state = ClusterState::default();
    found(&mut state, founding(Some(recorded(3, 4)), 1 << 20));
    assert_eq!(appoint(&mut state, 1), Epoch((1 << 20) + 1));
    assert_eq!(appoint(&mut state, 1), Epoch((1 << 20) + 2));
    assert_eq!(state.failed_epochs(), 2);
}

#[test]
fn only_the_latest_appointed_records_and_only_on_what_it_has_read() {
    let mut state = founded();
    appoint(&mut state, 1);
    assert!(matches!(
        refusal(record(&mut state, 1, 2, None, recorded(1, 1))),
        Refusal::Superseded { .. }
    ));
    assert!(matches!(
        refusal(record(&mut state, 2, 1, None, recorded(2, 1))),
        Refusal::Superseded { .. }
    ));
    assert!(matches!(
        refusal(record(&mut state, 1, 1, Some(3), recorded(1, 1))),
        Refusal::Changed { .. }
    ));
    assert_eq!(record(&mut state, 1, 1, None, recorded(1, 1)), Applied::Done);
    // Whoever has not heard the answer asks once more.
    assert_eq!(record(&mut state, 1, 1, None, recorded(1, 1)), Applied::Done);
    assert!(matches!(
        refusal(record(&mut state, 1, 1, None, recorded(1, 2))),
        Refusal::Changed { .. }
    ));
    assert_eq!(record(&mut state, 1, 1, Some(1), recorded(1, 2)), Applied::Done);
    assert_eq!(state.config_version(), ConfigVersion(2));
}

#[test]
fn a_delayed_compare_and_set_of_a_superseded_director_does_nothing() {
    let mut state = founded();
    appoint(&mut state, 1);
    // Epoch 2 has read "nothing recorded"; what epoch 1 then sends must not come in between.
    appoint(&mut state, 2);
    assert!(matches!(
        refusal(record(&mut state, 1, 1, None, recorded(1, 1))),
        Refusal::Superseded { .. }
    ));
    assert_eq!(state.recorded, None);
    assert_eq!(record(&mut state, 2, 2, None, recorded(2, 1)), Applied::Done);
}

#[test]
fn a_repeated_record_is_done_and_not_refused() {
    let mut state = founded();
    appoint(&mut state, 1);
    assert_eq!(record(&mut state, 1, 1, None, recorded(1, 1)), Applied::Done);
    let before = state.clone();
    assert_eq!(record(&mut state, 1, 1, None, recorded(1, 1)), Applied::Done);
    assert_eq!(state, before);
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    let mut state = founded();
    appoint(&mut state, 1);
    let change = |change: &dyn Fn(&mut Recorded)| {
        let mut changed = recorded(1, 1);
        change(&mut changed);
        changed
    };
    for unfit in [
        change(&|r| r.config.cluster_id = ClusterId(2)),
        change(&|r| r.config.group_id = GroupId(2)),
        change(&|r| r.config.epoch = Epoch(2)),
        change(&|r| r.config.layout.epoch = Epoch(2)),
        change(&|r| r.config.config_version = ConfigVersion(0)),
        change(&|r| r.config.layout.first_version = Version(6)),
        change(&|r| r.shards.0.clear()),
    ] {
        assert!(matches!(refusal(record(&mut state, 1, 1, None, unfit)), Refusal::Unfit(_)));
    }
    assert_eq!(state.recorded, None);
}

#[test]
fn an_epoch_is_ready_only_with_its_layout_recorded() {
    let mut state = founded();
    appoint(&mut state, 1);
    assert_eq!(refusal(mark_ready(&mut state, 1, 1)), Refusal::NoLayout(Epoch(1)));
    record(&mut state, 1, 1, None, recorded(1, 1));
    assert_eq!(mark_ready(&mut state, 1, 1), Applied::Done);
    assert_eq!((state.ready_epoch, state.failed_epochs()), (Epoch(1), 0));
    appoint(&mut state, 2);
    assert_eq!(refusal(mark_ready(&mut state, 2, 2)), Refusal::NoLayout(Epoch(2)));
    assert!(matches!(refusal(mark_ready(&mut state, 1, 1)), Refusal::Superseded { .. }));
    assert_eq!(state.ready, state.recorded);
    assert_eq!((state.ready_epoch, state.failed_epochs()), (Epoch(1), 1));
}

#[test]
fn the_last_recoveries_are_remembered_newest_first() {
    let mut state = founded();
    for epoch in 1..=40 {
        appoint(&mut state, epoch);
        let expected = (epoch > 1).then(|| epoch - 1);
        record(&mut state, epoch, epoch, expected, recorded(epoch, epoch));
        assert_eq!(mark_ready(&mut state, epoch, epoch), Applied::Done);
        assert_eq!(mark_ready(&mut state, epoch, epoch), Applied::Done);
    }
    let epochs: Vec<u64> = state.recoveries.iter().map(|recovery| recovery.epoch.0).collect();
    assert_eq!(epochs, (9..=40).rev().collect::<Vec<_>>());
}

#[test]
fn a_higher_configuration_is_adopted_under_a_higher_epoch_and_a_lower_one_never() {
    let mut state = founded();
    appoint(&mut state, 1);
    record(&mut state, 1, 1, None, recorded(1, 1));
    let adopt = |recorded: Recorded| Command::Adopt {
        recorded,
        epoch_floor: Epoch(1 << 20),
        version_floor: Version(99),
    };
    let before = state.clone();
    assert_eq!(state.apply(adopt(recorded(1, 1))), Applied::Done);
    assert_eq!(state, before);
    assert_eq!(state.apply(adopt(recorded(5, 9))), Applied::Done);
    assert_eq!(state.epoch, Epoch(1 << 20));
    assert_eq!(state.version_floor, Version(99));
    assert_eq!(state.config_version(), ConfigVersion(9));
    assert!(!state.is_latest(Epoch(1), Incarnation(1)));
    assert_eq!(appoint(&mut state, 2), Epoch((1 << 20) + 1));
}

#[derive(Clone, Debug)]
enum Act {
    Appoint(u64),
    Record { epoch: u64, director: u64, expected: Option<u64>, version: u64 },
    Ready { epoch: u64, director: u64 },
    Adopt { epoch: u64, version: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    let expected = prop_oneof![Just(None), (0..6u64).prop_map(Some)];
    prop_oneof![
        (1..4u64).prop_map(Act::Appoint),
        (0..6u64, 1..4u64, expected, 0..8u64).prop_map(|(epoch, director, expected, version)| {
            Act::Record { epoch, director, expected, version }
        }),
        (0..6u64, 1..4u64).prop_map(|(epoch, director)| Act::Ready { epoch, director }),
        (0..4u64, 0..8u64).prop_map(|(epoch, version)| Act::Adopt { epoch, version }),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_nothing_goes_back(acts in proptest::collection::vec(act(), 1..60)) {
        let mut state = founded();
        for act in acts {
            let before = state.clone();
            let applied = match act {
                Act::Appoint(director) => {
                    appoint(&mut state, director);
                    prop_assert_eq!(state.epoch, before.epoch.next());
                    Applied::Done
                }
                Act::Record { epoch, director, expected, version } => {
                    record(&mut state, epoch, director, expected, recorded(epoch, version))
                }
                Act::Ready { epoch, director } => mark_ready(&mut state, epoch, director),
                Act::Adopt { epoch, version } => state.apply(Command::Adopt {
                    recorded: recorded(epoch, version),
                    epoch_floor: before.epoch,
                    version_floor: Version(0),
                }),
            };
            if let Applied::Refused(_) = applied {
                prop_assert_eq!(&state, &before);
            }
            prop_assert!(state.epoch >= before.epoch);
            prop_assert!(state.stamp() >= before.stamp());
            prop_assert!(state.ready_epoch >= before.ready_epoch);
            if state.recorded != before.recorded {
                prop_assert!(state.stamp() > before.stamp());
            }
        }
    }
}

fn configure(state: &mut ClusterState, expected: u64, logs: u32) -> Applied {
    let parameters = Parameters { logs, ..Parameters::default() };
    let expected = ConfigVersion(expected);
    state.apply(Command::Configure { expected, parameters, what: "a test".to_owned() })
}

#[test]
fn parameters_change_while_no_epoch_is_ready_and_void_the_appointment() {
    let mut state = ClusterState::default();
    found(&mut state, founding(None, 0));
    assert_eq!(appoint(&mut state, 1), Epoch(1));
    let changed = |expected, recorded: Option<u64>| {
        let (expected, recorded) = (Some(ConfigVersion(expected)), recorded.map(ConfigVersion));
        Applied::Refused(Refusal::Changed { expected, recorded })
    };
    assert_eq!(configure(&mut state, 0, 5), changed(0, None));
    assert_eq!(record(&mut state, 1, 1, None, recorded(1, 1)), Applied::Done);
    assert_eq!(configure(&mut state, 7, 5), changed(7, Some(1)));

    // The director that has recorded its layout, and is stuck, can neither go on nor record again.
    assert_eq!(configure(&mut state, 1, 5), Applied::Done);
    assert_eq!((state.config_version(), state.appointed.as_ref()), (ConfigVersion(2), None));
    assert_eq!(state.recorded.as_ref().map(|r| r.config.parameters.logs), Some(5));
    let latest = Epoch(1);
    let void = Refusal::Superseded { epoch: Epoch(1), director: Incarnation(1), latest };
    assert_eq!(mark_ready(&mut state, 1, 1), Applied::Refused(void.clone()));
    assert_eq!(record(&mut state, 1, 1, Some(1), recorded(1, 2)), Applied::Refused(void.clone()));
    assert_eq!(record(&mut state, 1, 1, Some(2), recorded(1, 3)), Applied::Refused(void));
    // Asked for twice, it is made once.
    assert_eq!(configure(&mut state, 1, 5), changed(1, Some(2)));

    assert_eq!(state.voided.as_deref(), Some("parameters were changed: a test"));
    assert_eq!(appoint(&mut state, 2), Epoch(2));
    assert_eq!(state.voided, None);
    assert_eq!(record(&mut state, 2, 2, Some(2), recorded(2, 3)), Applied::Done);
    assert_eq!(mark_ready(&mut state, 2, 2), Applied::Done);
    let ready = Applied::Refused(Refusal::Ready(Epoch(2)));
    assert_eq!(configure(&mut state, 3, 4), ready);
    // The next epoch recovers: it is theirs again.
    appoint(&mut state, 3);
    assert_eq!(configure(&mut state, 3, 4), Applied::Done);
}

fn order(state: &mut ClusterState, expected: u64, standing: Standing) -> Applied {
    let entry = NodeEntry { standing, ..NodeEntry::new(Zone::of_node(&node(4)), vec![]) };
    let expected = ConfigVersion(expected);
    let what = "node-4 is being drained".to_owned();
    state.apply(Command::Order { expected, node: node(4), entry, what })
}

#[test]
fn an_order_about_a_node_is_taken_while_no_epoch_is_ready_and_voids_the_appointment() {
    let mut state = founded();
    appoint(&mut state, 1);
    record(&mut state, 1, 1, None, recorded(1, 1));
    assert!(matches!(refusal(order(&mut state, 7, Standing::Draining)), Refusal::Changed { .. }));
    assert_eq!(order(&mut state, 1, Standing::Draining), Applied::Done);
    let standing = state.recorded.as_ref().map(|recorded| recorded.config.standing(&node(4)));
    assert_eq!((standing, state.appointed.as_ref()), (Some(Standing::Draining), None));
    assert_eq!(state.voided.as_deref(), Some("node-4 is being drained"));
    // Who has read the configuration of before can't record what it has recruited by it.
    let late = record(&mut state, 1, 1, Some(1), recorded(1, 2));
    assert!(matches!(refusal(late), Refusal::Superseded { .. }));
    appoint(&mut state, 2);
    assert_eq!(record(&mut state, 2, 2, Some(2), recorded(2, 3)), Applied::Done);
    assert_eq!(mark_ready(&mut state, 2, 2), Applied::Done);
    let ready = Refusal::Ready(Epoch(2));
    assert_eq!(refusal(order(&mut state, 3, Standing::Removed)), ready);
}

#[test]
fn the_format_level_is_raised_while_no_epoch_is_ready_and_voids_the_appointment() {
    let mut state = founded();
    appoint(&mut state, 1);
    let mut low = recorded(1, 1);
    low.config.format_level = 1;
    record(&mut state, 1, 1, None, low);
    let raise = |state: &mut ClusterState, expected, level| {
        let (expected, what) = (ConfigVersion(expected), "format level from 1 to 2".to_owned());
        state.apply(Command::Raise { expected, level, what })
    };
    assert!(matches!(refusal(raise(&mut state, 7, 2)), Refusal::Changed { .. }));
    assert_eq!(raise(&mut state, 1, 2), Applied::Done);
    let now = state.recorded.as_ref().map(|recorded| &recorded.config);
    let now = now.map(|config| (config.format_level, config.config_version));
    assert_eq!((now, state.appointed.as_ref()), (Some((2, ConfigVersion(2))), None));
    assert_eq!(state.voided.as_deref(), Some("format level from 1 to 2"));
    appoint(&mut state, 2);
    assert_eq!(record(&mut state, 2, 2, Some(2), recorded(2, 3)), Applied::Done);
    assert_eq!(mark_ready(&mut state, 2, 2), Applied::Done);
    assert_eq!(refusal(raise(&mut state, 3, 3)), Refusal::Ready(Epoch(2)));
}

#[test]
fn what_was_voided_survives_a_snapshot_and_older_ones_are_read() {
    let mut state = ClusterState::default();
    found(&mut state, founding(Some(recorded(1, 1)), 1));
    let before = serde_json::to_value(&state).unwrap();
    assert!(before.get("voided").is_none());
    assert_eq!(serde_json::from_value::<ClusterState>(before).unwrap(), state);
    configure(&mut state, 1, 5);
    let text = serde_json::to_vec(&state).unwrap();
    assert_eq!(serde_json::from_slice::<ClusterState>(&text).unwrap(), state);
}

mod members {
    use super::*;

    fn name(on: u32) -> ServiceRef {
        ServiceRef::new(ServiceName::new(ServiceKind::Coordinator, 1), node(on))
    }

    fn names(of: &[u32]) -> BTreeSet<ServiceRef> {
        of.iter().copied().map(name).collect()
    }

    fn coordinators(of: &[u32]) -> Vec<Coordinator> {
        let coordinator = |on: &u32| Coordinator {
            service: name(*on),
            raft_id: u64::from(*on),
            address: Some(format!("host-{on}:1")),
        };
        of.iter().map(coordinator).collect()
    }

    fn naming(config_version: u64, now: &[u32], next: &[u32]) -> Recorded {
        let mut recorded = recorded(1, config_version);
        recorded.config.coordinators = coordinators(now);
        recorded.config.next_coordinators = coordinators(next);
        recorded
    }

    fn put(
        state: &mut ClusterState,
        raft: &[&[u32]],
        config_version: u64,
        now: &[u32],
        next: &[u32],
    ) -> Applied {
        let raft: Vec<BTreeSet<ServiceRef>> = raft.iter().map(|of| names(of)).collect();
        let request = RecordRequest {
            epoch: Epoch(1),
            director: Incarnation(1),
            expected: Some(ConfigVersion(config_version - 1)).filter(|before| before.0 > 0),
            recorded: naming(config_version, now, next),
        };
        state.apply_in(Command::Record(request), &raft)
    }

    fn begin(state: &mut ClusterState, raft: &[u32], to: &[u32]) -> Applied {
        state.apply_in(Command::Move { to: names(to) }, &[names(raft)])
    }

    fn is_unfit(applied: &Applied) -> bool {
        matches!(applied, Applied::Refused(Refusal::Unfit(_)))
    }

    /// Epoch 1 is ready; the coordinators are 1 to 3.
    fn ready() -> ClusterState {
        let mut state = ClusterState::default();
        found(&mut state, founding(None, 0));
        appoint(&mut state, 1);
        assert_eq!(put(&mut state, &[&[1, 2, 3]], 1, &[1, 2, 3], &[]), Applied::Done);
        assert_eq!(mark_ready(&mut state, 1, 1), Applied::Done);
        state
    }

    #[test]
    fn raft_moves_only_once_a_configuration_in_storage_names_both() {
        let (now, next): (&[u32], &[u32]) = (&[1, 2, 3], &[1, 2, 3, 4]);
        let mut state = ready();
        assert!(is_unfit(&begin(&mut state, now, next)), "nothing names them");
        assert_eq!(put(&mut state, &[now], 2, now, next), Applied::Done);
        assert!(is_unfit(&begin(&mut state, now, next)), "it is not in storage");
        assert_eq!(mark_ready(&mut state, 1, 1), Applied::Done);
        assert!(is_unfit(&begin(&mut state, now, &[1, 2])), "others are named");
        assert!(is_unfit(&begin(&mut state, &[2, 3], next)), "Raft has others");
        assert_eq!(begin(&mut state, now, next), Applied::Done);
        assert_eq!(begin(&mut state, now, next), Applied::Done);
        assert!(is_unfit(&begin(&mut state, now, &[1, 2])), "another one is under way");
    }

    #[test]
    fn from_the_move_on_both_are_named_until_raft_has_the_next() {
        let (now, next): (&[u32], &[u32]) = (&[1, 2, 3], &[1, 2, 3, 4]);
        let mut state = ready();
        assert_eq!(put(&mut state, &[now], 2, now, next), Applied::Done);
        assert_eq!(mark_ready(&mut state, 1, 1), Applied::Done);
        // Before the move it can be taken back.
        let mut back = state.clone();
        assert_eq!(put(&mut back, &[now], 3, now, &[]), Applied::Done);
        assert!(is_unfit(&begin(&mut back, now, next)), "it was taken back");

        assert_eq!(begin(&mut state, now, next), Applied::Done);
        for raft in [&[now][..], &[now, next]] {
            assert!(is_unfit(&put(&mut state, raft, 3, now, &[])));
            assert!(is_unfit(&put(&mut state, raft, 3, next, &[])));
            assert!(is_unfit(&put(&mut state, raft, 3, now, &[1, 2])));
        }
        // Another change of the configuration keeps both.
        assert_eq!(put(&mut state, &[now, next], 3, now, next), Applied::Done);
        state.note_members(&[names(now), names(next)]);
        assert!(state.moving.is_some(), "the joint phase is not over");
        state.note_members(&[names(next)]);
        assert_eq!(state.moving, None);
        assert!(is_unfit(&put(&mut state, &[next], 4, now, &[])));
        assert_eq!(put(&mut state, &[next], 4, next, &[]), Applied::Done);
        assert_eq!(begin(&mut state, next, next), Applied::Done, "a repeat finds it done");
        assert_eq!(state.moving, None);
    }

    #[test]
    fn a_move_outlives_the_epoch_that_it_began_in() {
        let (now, next): (&[u32], &[u32]) = (&[1, 2, 3], &[1, 2]);
        let mut state = ready();
        put(&mut state, &[now], 2, now, next);
        mark_ready(&mut state, 1, 1);
        assert_eq!(begin(&mut state, now, next), Applied::Done);
        assert_eq!(appoint(&mut state, 2), Epoch(2));
        let json = serde_json::to_string(&state).unwrap();
        let read: ClusterState = serde_json::from_str(&json).unwrap();
        assert_eq!(read.moving, Some(names(next)));
    }

    #[test]
    fn a_configuration_of_an_earlier_level_may_name_whom_it_can() {
        let mut state = ready();
        let mut old = naming(2, &[1], &[]);
        old.config.format_level = MEMBERS_LEVEL - 1;
        let request = RecordRequest {
            epoch: Epoch(1),
            director: Incarnation(1),
            expected: Some(ConfigVersion(1)),
            recorded: old,
        };
        let applied = state.apply_in(Command::Record(request), &[names(&[1, 2, 3])]);
        assert_eq!(applied, Applied::Done);
    }
}
