//! A configuration is judged as a whole, and every problem is reported.

use plinth_system_config::{
    FORMAT_LEVEL, JoiningMember, ParameterError, Problem, Recorded, ResolverEntry, ShardMap,
    Shortfall,
};
use plinth_types::{
    ConfigVersion, Epoch, Key, KeyRange, ServiceKind, StoreId, Tag, VERSION_GAP, Version,
};

use crate::samples::{self, service};

fn broken(breaking: impl FnOnce(&mut Recorded)) -> Vec<Problem> {
    let mut recorded = samples::recorded(2, 5);
    breaking(&mut recorded);
    recorded.problems()
}

fn replaced(changing: impl FnOnce(&mut Recorded)) -> Vec<Problem> {
    let previous = samples::recorded(2, 5);
    let mut next = previous.clone();
    next.config.config_version = ConfigVersion(6);
    changing(&mut next);
    next.validate_after(&previous).err().map_or(Vec::new(), |invalid| invalid.problems)
}

#[test]
fn a_sound_configuration_has_no_problems() {
    assert_eq!(samples::recorded(2, 5).validate(), Ok(()));
    assert_eq!(samples::recorded(2, 5).shortfalls(), []);
}

#[test]
fn every_problem_is_reported() {
    let problems = broken(|recorded| {
        recorded.config.parameters.resolvers = 0;
        recorded.config.parameters.logs = 1;
        recorded.config.coordinators.clear();
        recorded.config.layout.commit_proxies.clear();
    });
    assert_eq!(
        problems,
        [
            Problem::Parameter(ParameterError::OutOfBounds {
                name: "resolvers",
                value: 0,
                least: 1,
                most: 100,
            }),
            Problem::Parameter(ParameterError::FewerLogsThanCopies { logs: 1, replication: 3 }),
            Problem::NoCoordinator,
            Problem::Vacant(ServiceKind::CommitProxy),
        ]
    );
}

fn resolvers(recorded: &mut Recorded, ranges: &[(&str, Option<&str>)]) {
    recorded.config.layout.resolvers = ranges
        .iter()
        .zip(1..)
        .map(|((from, to), on)| ResolverEntry {
            service: service(ServiceKind::Resolver, on),
            range: KeyRange { from: Key::from(*from), to: to.map(Key::from) },
        })
        .collect();
}

#[test]
fn resolvers_cover_every_key_once() {
    let of = |ranges: &[(&str, Option<&str>)]| broken(|recorded| resolvers(recorded, ranges));
    assert_eq!(of(&[("m", None), ("", Some("m"))]), []);
    assert_eq!(
        of(&[("b", Some("m")), ("n", Some("z"))]),
        [
            Problem::ResolverGap(KeyRange::new("".into(), "b".into())),
            Problem::ResolverGap(KeyRange::new("m".into(), "n".into())),
            Problem::ResolverGap(KeyRange { from: "z".into(), to: None }),
        ]
    );
    assert_eq!(
        of(&[("", None), ("k", Some("m"))]),
        [Problem::ResolverOverlap(KeyRange::new("k".into(), "m".into()))]
    );
    assert_eq!(
        of(&[("", Some("m")), ("k", None)]),
        [Problem::ResolverOverlap(KeyRange::new("k".into(), "m".into()))]
    );
    assert_eq!(
        of(&[("", None), ("k", Some("k"))]),
        [Problem::EmptyResolver(service(ServiceKind::Resolver, 2))]
    );
    assert_eq!(
        of(&[]),
        [Problem::Vacant(ServiceKind::Resolver), Problem::ResolverGap(KeyRange::all())]
    );
}

#[test]
fn every_tag_has_storages_and_logs() {
    let storage = service(ServiceKind::Storage, 1);
    assert_eq!(
        broken(|recorded| {
            recorded.config.layout.storage_teams.pop();
        }),
        [
            Problem::NoTeam(Tag(1)),
            Problem::StrayTag { service: service(ServiceKind::Log, 1), tag: Tag(1) },
            Problem::StrayTag { service: service(ServiceKind::Log, 2), tag: Tag(1) },
            Problem::StrayTag { service: service(ServiceKind::Log, 3), tag: Tag(1) },
        ]
    );
    assert_eq!(
        broken(|recorded| {
            for log in &mut recorded.config.layout.logs {
                log.tags.retain(|tag| *tag != Tag(1));
            }
        }),
        [Problem::NoLog(Tag(1))]
    );
    assert_eq!(
        broken(|recorded| {
            let layout = &mut recorded.config.layout;
            layout.logs[0].tags.push(Tag(0));
            let first = layout.storage_teams[1].members[0].clone();
            layout.storage_teams[1].members.push(first);
            layout.storage_teams[0].members.clear();
        }),
        [
            Problem::EmptyTeam(Tag(0)),
            Problem::TwiceInTeam { tag: Tag(1), service: storage },
            Problem::TagTwice { service: service(ServiceKind::Log, 1), tag: Tag(0) },
        ]
    );
}

#[test]
fn places_are_filled_once_by_services_of_their_kind_on_known_nodes() {
    let (log, stranger) = (service(ServiceKind::Log, 1), service(ServiceKind::Sequencer, 9));
    assert_eq!(
        broken(|recorded| {
            recorded.config.coordinators[1] = recorded.config.coordinators[0].clone();
            recorded.config.layout.director = log.clone();
            recorded.config.layout.sequencer = stranger.clone();
        }),
        [
            Problem::SameRaftId(0xff00_0000_0000_0001),
            Problem::Twice {
                kind: ServiceKind::Coordinator,
                service: service(ServiceKind::Coordinator, 1),
            },
            Problem::WrongKind { kind: ServiceKind::Director, service: log },
            Problem::UnknownNode { service: stranger, node: samples::node(9) },
        ]
    );
}

#[test]
fn a_directory_belongs_to_one_worker_and_a_worker_has_one() {
    let problems = broken(|recorded| {
        recorded.config.layout.logs[1].store = samples::log_store(1);
        recorded.config.layout.storage_teams[1].members[2].store = samples::storage_store(7);
    });
    assert_eq!(
        problems,
        [
            Problem::SharedStore {
                store: samples::log_store(1),
                first: service(ServiceKind::Log, 1),
                second: service(ServiceKind::Log, 2),
            },
            Problem::TwoStores {
                service: service(ServiceKind::Storage, 3),
                first: samples::storage_store(3),
                second: samples::storage_store(7),
            },
        ]
    );
}

#[test]
fn the_shards_are_those_that_are_summed_up() {
    let problems = broken(|recorded| recorded.shards = ShardMap(Vec::new()));
    assert!(matches!(problems[..], [Problem::Shards(_), Problem::ShardSummary(_)]), "{problems:?}");
}

#[test]
fn the_layout_is_of_its_epoch() {
    let first = Version(VERSION_GAP);
    assert_eq!(
        broken(|recorded| {
            recorded.config.layout.epoch = Epoch(3);
            recorded.config.layout.first_version = first;
        }),
        [
            Problem::LayoutAhead { layout: Epoch(3), config: Epoch(2) },
            Problem::FirstVersion { first, recovery: Version(2_000) },
        ]
    );
}

#[test]
fn a_parameter_may_ask_for_more_than_the_layout_has() {
    let mut recorded = samples::recorded(2, 5);
    recorded.config.parameters.replication = 4;
    recorded.config.parameters.logs = 4;
    assert_eq!(recorded.validate(), Ok(()));
    let short = |kind, tag| Shortfall { kind, tag: Tag(tag), present: 3, wanted: 4 };
    assert_eq!(
        recorded.shortfalls(),
        [short(ServiceKind::Log, 0), short(ServiceKind::Log, 1), short(ServiceKind::Storage, 1)]
    );
}

#[test]
fn a_configuration_only_ever_goes_forward() {
    assert_eq!(replaced(|_| ()), []);
    assert_eq!(
        replaced(|next| next.config.config_version = ConfigVersion(5)),
        [Problem::NotNext { previous: ConfigVersion(5), next: ConfigVersion(5) }]
    );
    assert_eq!(
        replaced(|next| {
            *next = samples::recorded(1, 6);
            next.config.format_level = 0;
        }),
        [
            Problem::EpochBack { previous: Epoch(2), next: Epoch(1) },
            Problem::FormatLevelBack { previous: FORMAT_LEVEL, next: 0 },
            Problem::LayoutBack { previous: Epoch(2), next: Epoch(1) },
            Problem::Versions {
                previous: Version(200_002_000),
                next: Version(100_001_000),
                recovery: Version(1_000),
            },
        ]
    );
}

#[test]
fn no_version_belongs_to_two_epochs() {
    let later = |recovery: u64, first: u64| {
        replaced(|next| {
            next.config.epoch = Epoch(3);
            next.config.layout.epoch = Epoch(3);
            next.config.layout.recovery_version = Version(recovery);
            next.config.layout.first_version = Version(first);
        })
    };
    let least = 200_002_000 + VERSION_GAP;
    assert_eq!(later(2_000, least), []);
    assert!(matches!(later(2_000, least - 1)[..], [Problem::Versions { .. }]));
    assert!(matches!(later(1_999, least)[..], [Problem::Versions { .. }]));
    let within = replaced(|next| next.config.layout.first_version = Version(least));
    assert!(matches!(within[..], [Problem::Versions { .. }]));
}

#[test]
fn another_cluster_is_never_overwritten() {
    let problems = replaced(|next| next.config.cluster_id = plinth_types::ClusterId(9));
    assert!(matches!(problems[..], [Problem::OtherCluster { .. }]), "{problems:?}");
}

#[test]
fn a_newcomer_is_one_service_more_and_replaces_one_member() {
    let newcomer = |on: u32, replaces: Option<u32>| JoiningMember {
        store: StoreId(0x3000 + u128::from(on)),
        service: format!("storage-2@node-{on}").parse().unwrap(),
        replaces: replaces.map(samples::storage_store),
    };
    let joining = |joining: Vec<JoiningMember<_>>| {
        broken(|recorded| recorded.config.layout.storage_teams[1].joining = joining)
    };
    assert_eq!(joining(vec![newcomer(1, Some(3)), newcomer(2, Some(2))]), []);
    assert_eq!(joining(vec![newcomer(1, None)]), []);
    let nobody = |on, replaces| Problem::ReplacesNobody {
        tag: Tag(1),
        service: newcomer(on, None).service,
        replaces: samples::storage_store(replaces),
    };
    assert_eq!(joining(vec![newcomer(1, Some(7))]), [nobody(1, 7)]);
    assert_eq!(joining(vec![newcomer(1, Some(3)), newcomer(2, Some(3))]), [nobody(2, 3)]);
    let again = JoiningMember { service: service(ServiceKind::Storage, 1), ..newcomer(1, None) };
    let problems = joining(vec![again]);
    assert!(matches!(problems[..], [Problem::TwiceInTeam { .. }, Problem::TwoStores { .. }]));
}
