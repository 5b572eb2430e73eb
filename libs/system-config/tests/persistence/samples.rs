//! Configurations of a small cluster.

use plinth_system_config::{
    BootstrapSource, Coordinator, FORMAT_LEVEL, LastRecovery, Layout, LogEntry, NodeEntry,
    Parameters, PhaseDuration, Policies, Recorded, RecoveryPhase, ResolverEntry, ShardMap,
    StorageMember, StorageTeam, SystemConfig,
};
use plinth_types::{
    ClusterId, ConfigVersion, Epoch, GroupId, KeyRange, NodeId, ServiceKind, ServiceName,
    ServiceRef, StoreId, Tag, VERSION_GAP, Version, Zone,
};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
pub(crate) const GROUP: GroupId = GroupId(0x61);

pub(crate) fn node(number: u32) -> NodeId {
    format!("node-{number}").parse().unwrap()
}

/// The first service of a kind on a node.
pub(crate) fn service(kind: ServiceKind, on: u32) -> ServiceRef {
    ServiceRef::new(ServiceName::new(kind, 1), node(on))
}

pub(crate) fn log_store(on: u32) -> StoreId {
    StoreId(0x1000 + u128::from(on))
}

pub(crate) fn storage_store(on: u32) -> StoreId {
    StoreId(0x2000 + u128::from(on))
}

/// Three nodes, each with a coordinator, a log and a storage, at an epoch and configuration.
pub(crate) fn recorded(epoch: u64, config_version: u64) -> Recorded {
    let nodes = 1..=3u32;
    let team = |tag| StorageTeam {
        tag: Tag(tag),
        members: nodes
            .clone()
            .map(|on| StorageMember {
                store: storage_store(on),
                service: service(ServiceKind::Storage, on),
            })
            .collect(),
        joining: vec![],
    };
    let config = SystemConfig {
        cluster_id: CLUSTER,
        group_id: GROUP,
        format_level: FORMAT_LEVEL,
        epoch: Epoch(epoch),
        config_version: ConfigVersion(config_version),
        coordinators: nodes
            .clone()
            .map(|on| Coordinator {
                service: service(ServiceKind::Coordinator, on),
                raft_id: 0xff00_0000_0000_0000 + u64::from(on),
                address: None,
            })
            .collect(),
        next_coordinators: vec![],
        parameters: Parameters::default(),
        policies: Policies::default(),
        nodes: nodes
            .clone()
            .map(|on| {
                let kinds = vec![ServiceKind::Log, ServiceKind::Storage];
                (node(on), NodeEntry::new(Zone::of_node(&node(on)), kinds))
            })
            .collect(),
        layout: Layout {
            epoch: Epoch(epoch),
            recovery_version: Version(1_000 * epoch),
            first_version: Version(1_000 * epoch + epoch * VERSION_GAP),
            director: service(ServiceKind::Director, 1),
            sequencer: service(ServiceKind::Sequencer, 2),
            commit_proxies: vec![service(ServiceKind::CommitProxy, 3)],
            resolvers: vec![ResolverEntry {
                service: service(ServiceKind::Resolver, 1),
                range: KeyRange::all(),
            }],
            logs: nodes
                .clone()
                .map(|on| LogEntry {
                    store: log_store(on),
                    service: service(ServiceKind::Log, on),
                    tags: vec![Tag(0), Tag(1)],
                })
                .collect(),
            storage_teams: vec![team(0), team(1)],
        },
        shards: ShardMap::initial().summary(),
    };
    Recorded::new(config, ShardMap::initial())
}

pub(crate) fn last_recovery() -> LastRecovery {
    LastRecovery {
        epoch: Epoch(2),
        cause: "log-1@node-1 ended".to_owned(),
        started_unix_ms: 1_700_000_000_000,
        duration_ms: 420,
        recovery_version: Version(2_000),
        first_version: Version(200_002_000),
        reused: vec![service(ServiceKind::Log, 1)],
        made: vec![service(ServiceKind::Log, 2)],
        source: BootstrapSource::Raft,
        phases: RecoveryPhase::ALL
            .into_iter()
            .map(|name| PhaseDuration { name, duration_ms: 7 })
            .collect(),
    }
}
