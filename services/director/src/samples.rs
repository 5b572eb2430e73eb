//! What the tests of this crate are made of.

use plinth_api::foreman::{NodeReport, Worker, WorkerState};
use plinth_api::log::{Generation, LockAnswer, TagExtent};
use plinth_system_config::{
    Coordinator, FORMAT_LEVEL, Layout, LogEntry, Parameters, Policies, Recorded, ResolverEntry,
    ShardMap, StorageMember, StorageTeam, SystemConfig,
};
use plinth_types::{
    ClusterId, ConfigVersion, Epoch, GroupId, Incarnation, KeyRange, Pid, ServiceKind, ServiceRef,
    StoreId, Tag, VERSION_GAP, Version,
};

pub(crate) fn service(text: &str) -> ServiceRef {
    text.parse().unwrap()
}

pub(crate) fn pid(node: &str, incarnation: u64) -> Pid {
    Pid {
        node: node.parse().unwrap(),
        os_pid: 1,
        incarnation: Incarnation(incarnation),
        address: format!("{node}:{incarnation}"),
    }
}

pub(crate) fn node(name: &str, zone: &str, kinds: &[ServiceKind]) -> NodeReport {
    NodeReport {
        node: name.parse().unwrap(),
        zone: zone.parse().unwrap(),
        foreman: pid(name, 1),
        cluster: Some(ClusterId(1)),
        kinds: kinds.to_vec(),
        workers: vec![],
        settled: true,
        format_level: Some(FORMAT_LEVEL),
    }
}

pub(crate) fn worker(name: &str, store: Option<StoreId>, pid: Option<Pid>) -> Worker {
    let state = if pid.is_some() { WorkerState::Up } else { WorkerState::Down };
    Worker {
        name: name.parse().unwrap(),
        state,
        pid,
        store,
        announced: false,
        exits: 0,
        last_exit: None,
        format_level: Some(FORMAT_LEVEL),
    }
}

/// Epoch 3 of a cluster of three nodes: RV 500, every log with every tag. Log n has directory n,
/// storage n has directory 10 + n.
pub(crate) fn recorded() -> Recorded {
    let nodes = ["node-1", "node-2", "node-3"];
    let on = |kind: &str, node: &str| service(&format!("{kind}-1@{node}"));
    let shards = ShardMap::initial();
    let members: Vec<StorageMember<ServiceRef>> = (11..)
        .zip(nodes)
        .map(|(store, node)| StorageMember { store: StoreId(store), service: on("storage", node) })
        .collect();
    let team = |tag| StorageTeam { tag: Tag(tag), members: members.clone(), joining: vec![] };
    let layout = Layout {
        epoch: Epoch(3),
        recovery_version: Version(500),
        first_version: Version(500 + VERSION_GAP),
        director: on("director", "node-1"),
        sequencer: on("sequencer", "node-1"),
        commit_proxies: vec![on("commit-proxy", "node-2")],
        resolvers: vec![ResolverEntry {
            service: on("resolver", "node-3"),
            range: KeyRange::all(),
        }],
        logs: (1..)
            .zip(nodes)
            .map(|(store, node)| LogEntry {
                store: StoreId(store),
                service: on("log", node),
                tags: shards.tags(),
            })
            .collect(),
        storage_teams: vec![team(0), team(1)],
    };
    let config = SystemConfig {
        cluster_id: ClusterId(1),
        group_id: GroupId(1),
        format_level: FORMAT_LEVEL,
        epoch: Epoch(3),
        config_version: ConfigVersion(4),
        coordinators: nodes
            .iter()
            .zip(1..)
            .map(|(node, raft_id)| Coordinator {
                service: on("coordinator", node),
                raft_id,
                address: Some(format!("{node}:4400")),
            })
            .collect(),
        next_coordinators: vec![],
        parameters: Parameters::default(),
        policies: Policies::default(),
        nodes: nodes
            .iter()
            .map(|name| {
                let report = node(name, name, &[]);
                (report.node.clone(), report.entry())
            })
            .collect(),
        layout,
        shards: shards.summary(),
    };
    Recorded::new(config, shards)
}

/// The answer of a log of [`recorded`]'s layout.
pub(crate) fn lock_answer(store: u128, end: u64, known_committed: u64) -> LockAnswer {
    LockAnswer {
        store: StoreId(store),
        end: Version(end),
        known_committed: Version(known_committed),
        generation: Some(Generation {
            epoch: Epoch(3),
            recovery_version: Version(500),
            first_version: Version(500 + VERSION_GAP),
        }),
        tags: [0, 1].map(|tag| TagExtent { tag: Tag(tag), popped: Version(0) }).to_vec(),
        config: None,
        config_damaged: false,
    }
}
