use plinth_api::foreman::Worker;
use plinth_system_config::{
    FORMAT_LEVEL, LogEntry, NodeEntry, Policies, ResolverEntry, ShardMap, StorageMember,
    StorageTeam,
};
use plinth_types::{
    ClusterId, ConfigVersion, Epoch, GroupId, Incarnation, KeyRange, Pid, ServiceName, Tag,
    Version, Zone,
};

use super::*;

fn node(number: u32) -> NodeId {
    format!("node-{number}").parse().unwrap()
}

fn service(kind: ServiceKind, number: u32) -> ServiceRef {
    ServiceRef::new(ServiceName::new(kind, 1), node(number))
}

fn store(kind: ServiceKind, number: u32) -> StoreId {
    StoreId(u128::from(number) + if kind == ServiceKind::Log { 100 } else { 200 })
}

fn config() -> SystemConfig<ServiceRef> {
    let members = || {
        let member = |number| StorageMember {
            store: store(ServiceKind::Storage, number),
            service: service(ServiceKind::Storage, number),
        };
        (1..=3).map(member).collect()
    };
    let log = |number| LogEntry {
        store: store(ServiceKind::Log, number),
        service: service(ServiceKind::Log, number),
        tags: vec![Tag::SYSTEM, Tag(1)],
    };
    let entry = |number| (node(number), NodeEntry::new(Zone::of_node(&node(number)), vec![]));
    SystemConfig {
        cluster_id: ClusterId(1),
        group_id: GroupId(1),
        format_level: FORMAT_LEVEL,
        epoch: Epoch(1),
        config_version: ConfigVersion(1),
        coordinators: vec![],
        next_coordinators: vec![],
        parameters: Default::default(),
        policies: Policies::default(),
        nodes: (1..=3).map(entry).collect(),
        layout: Layout {
            epoch: Epoch(1),
            recovery_version: Version(1),
            first_version: Version(2),
            director: service(ServiceKind::Director, 1),
            sequencer: service(ServiceKind::Sequencer, 1),
            commit_proxies: vec![service(ServiceKind::CommitProxy, 1)],
            resolvers: vec![ResolverEntry {
                service: service(ServiceKind::Resolver, 1),
                range: KeyRange::all(),
            }],
            logs: (1..=3).map(log).collect(),
            storage_teams: [Tag::SYSTEM, Tag(1)]
                .map(|tag| StorageTeam { tag, members: members(), joining: vec![] })
                .to_vec(),
        },
        shards: ShardMap(vec![]).summary(),
    }
}

/// A node with one of each, all up.
fn report(number: u32) -> NodeReport {
    let pid = Pid {
        node: node(number),
        os_pid: 1,
        incarnation: Incarnation(1),
        address: "127.0.0.1:1".to_owned(),
    };
    let worker = |kind: ServiceKind| Worker {
        name: ServiceName::new(kind, 1),
        state: WorkerState::Up,
        pid: Some(pid.clone()),
        store: kind.is_durable().then(|| store(kind, number)),
        announced: false,
        exits: 0,
        last_exit: None,
        format_level: None,
    };
    let kinds =
        [ServiceKind::Coordinator, ServiceKind::Director, ServiceKind::Log, ServiceKind::Storage];
    NodeReport {
        node: node(number),
        zone: Zone::of_node(&node(number)),
        foreman: pid.clone(),
        cluster: Some(ClusterId(1)),
        kinds: vec![],
        workers: kinds.map(worker).to_vec(),
        settled: true,
        format_level: None,
    }
}

/// Of three nodes with three copies and three coordinators.
fn health(change: impl FnOnce(&mut Vec<NodeReport>)) -> ClusterHealth {
    let mut nodes: Vec<NodeReport> = (1..=3).map(report).collect();
    change(&mut nodes);
    let voters: Vec<ServiceRef> = (1..=3).map(|n| service(ServiceKind::Coordinator, n)).collect();
    assess(&Seen { nodes: &nodes, voters: &voters, config: Some(&config()), ready: Ok(()) })
}

fn stop(nodes: &mut [NodeReport], number: u32, kind: ServiceKind) {
    let report = nodes.iter_mut().find(|report| report.node == node(number)).unwrap();
    let worker = report.workers.iter_mut().find(|worker| worker.name.kind == kind).unwrap();
    worker.state = WorkerState::Down;
}

#[test]
fn three_whole_nodes_bear_the_loss_of_two_for_data_and_of_one_to_go_on() {
    let whole = health(|_| {});
    assert_eq!(
        whole,
        ClusterHealth {
            healthy: true,
            may_lose_for_data: Some(2),
            may_lose_for_availability: Some(1),
            reasons: vec![],
        }
    );
}

#[test]
fn what_is_missing_is_named_and_counted() {
    use ServiceKind::{Coordinator, Director, Log, Storage};
    let none: &[(u32, ServiceKind)] = &[];
    let table = [
        (none, Some(2), Some(1), ""),
        (&[(1, Storage)], Some(1), Some(0), "storage-1@node-1 does not run"),
        (&[(1, Log)], Some(1), Some(1), "2 logs of tag 1 of 3 that should be"),
        (&[(1, Log), (2, Log)], Some(0), Some(0), "log-1@node-2 does not run"),
        (&[(1, Log), (2, Log), (3, Log)], None, None, "0 logs of tag 1 of 3 that should be"),
        (&[(1, Coordinator)], Some(2), Some(0), "coordinator-1@node-1 does not run"),
        (&[(1, Coordinator), (2, Coordinator)], Some(2), None, "too few of coordinators"),
        (&[(1, Director)], Some(2), Some(1), ""),
        (&[(1, Director), (3, Director)], Some(2), Some(0), "no director stands by"),
        (&[(1, Storage), (2, Storage)], Some(0), None, "too few of the config team"),
    ];
    for (stopped, data, availability, reason) in table {
        let found = health(|nodes| {
            for (number, kind) in stopped {
                stop(nodes, *number, *kind);
            }
        });
        let counts = (found.may_lose_for_data, found.may_lose_for_availability);
        assert_eq!(counts, (data, availability), "{stopped:?}");
        assert_eq!(found.healthy, reason.is_empty(), "{stopped:?}: {:?}", found.reasons);
        let has = found.reasons.iter().any(|found| found == reason);
        assert!(reason.is_empty() || has, "{stopped:?}: {:?}", found.reasons);
    }
}

#[test]
fn a_silent_node_and_an_empty_directory_count_as_nothing() {
    let found = health(|nodes| drop(nodes.remove(0)));
    assert_eq!((found.may_lose_for_data, found.may_lose_for_availability), (Some(1), Some(0)));
    assert!(found.reasons.contains(&"node-1 does not report".to_owned()), "{:?}", found.reasons);
    let found = health(|nodes| nodes[0].workers.iter_mut().for_each(|worker| worker.store = None));
    assert_eq!(found.may_lose_for_data, Some(1), "another directory under the same name");
}

#[test]
fn what_is_not_ready_or_not_recorded_promises_nothing() {
    let nodes: Vec<NodeReport> = (1..=3).map(report).collect();
    let config = config();
    let voters: Vec<ServiceRef> = (1..=3).map(|n| service(ServiceKind::Coordinator, n)).collect();
    let ready = || Err("no".to_owned());
    let seen = |config| Seen { nodes: &nodes, voters: &voters, config, ready: ready() };
    let found = assess(&seen(Some(&config)));
    assert_eq!((found.may_lose_for_data, found.may_lose_for_availability), (Some(2), None));
    assert_eq!((found.healthy, found.reasons), (false, vec!["no".to_owned()]));
    let found = assess(&seen(None));
    assert_eq!((found.healthy, found.may_lose_for_data), (false, None));
}

#[test]
fn the_fullest_nodes_are_lost_first() {
    let group = |counts: &[usize], needed| {
        let living = (1..).map(node).zip(counts.iter().copied()).collect();
        Group { name: String::new(), needed, living }.spare()
    };
    assert_eq!(group(&[1, 1, 1], 1), Some(2));
    assert_eq!(group(&[3, 1, 1], 3), Some(0));
    assert_eq!(group(&[3], 2), Some(0));
    assert_eq!(group(&[1, 1, 1, 1, 1], 3), Some(2));
    assert_eq!(group(&[], 1), None);
}
