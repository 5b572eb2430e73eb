//! Arbitrary configurations, and directories that know some of their services.

use std::collections::BTreeMap;

use plinth_system_config::{
    Coordinator, Directory, FORMAT_LEVEL, JoiningMember, Layout, LogEntry, MEMBERS_LEVEL,
    NodeEntry, Parameters, Policies, Recorded, ResolverEntry, Service, ShardMap, Standing,
    StorageMember, StorageTeam, SystemConfig,
};
use plinth_types::{
    ClusterId, ConfigVersion, Epoch, GroupId, Incarnation, Key, KeyRange, NodeId, Pid, ServiceKind,
    ServiceName, ServiceRef, StoreId, Tag, Version,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn nodes() -> impl Strategy<Value = NodeId> {
    "[a-z]([a-z0-9-]{0,8}[a-z0-9])?".prop_map(|text| text.parse().unwrap())
}

fn services() -> impl Strategy<Value = ServiceRef> {
    (proptest::sample::select(ServiceKind::ALL.to_vec()), 1u32.., nodes())
        .prop_map(|(kind, number, node)| ServiceRef::new(ServiceName::new(kind, number), node))
}

fn keys() -> impl Strategy<Value = Key> {
    vec(any::<u8>(), 0..12).prop_map(Key::from)
}

fn ranges() -> impl Strategy<Value = KeyRange> {
    (keys(), proptest::option::of(keys())).prop_map(|(from, to)| KeyRange { from, to })
}

fn tags() -> impl Strategy<Value = Tag> {
    any::<u32>().prop_map(Tag)
}

fn stores() -> impl Strategy<Value = StoreId> {
    any::<u128>().prop_map(StoreId)
}

fn parameters() -> impl Strategy<Value = Parameters> {
    (any::<[u32; 5]>(), any::<[u64; 8]>()).prop_map(|(counts, amounts)| {
        let [replication, logs, commit_proxies, resolvers, config_team] = counts;
        let [failure, rejoin, start, peer, transaction, window, backlog, lost] = amounts;
        Parameters {
            replication,
            logs,
            commit_proxies,
            resolvers,
            config_team,
            failure_timeout_ms: failure,
            rejoin_grace_ms: rejoin,
            start_grace_ms: start,
            peer_timeout_ms: peer,
            system_transaction_timeout_ms: transaction,
            window_versions: window,
            max_log_backlog_bytes: backlog,
            storage_lost_ms: lost,
        }
    })
}

fn node_entries() -> impl Strategy<Value = BTreeMap<NodeId, NodeEntry>> {
    let kinds = proptest::sample::subsequence(ServiceKind::ALL.to_vec(), 0..=9);
    let standings = [Standing::InUse, Standing::Draining, Standing::Removed];
    let standing = proptest::sample::select(standings.to_vec());
    let entry = ("[a-z0-9]{1,8}", kinds, standing).prop_map(|(zone, kinds, standing)| NodeEntry {
        zone: zone.parse().unwrap(),
        kinds,
        standing,
    });
    btree_map(nodes(), entry, 0..4)
}

fn layouts() -> impl Strategy<Value = Layout<ServiceRef>> {
    let resolvers = vec(
        (services(), ranges()).prop_map(|(service, range)| ResolverEntry { service, range }),
        0..3,
    );
    let logs = vec(
        (stores(), services(), vec(tags(), 0..3)).prop_map(|(store, service, tags)| LogEntry {
            store,
            service,
            tags,
        }),
        0..4,
    );
    let member =
        (stores(), services()).prop_map(|(store, service)| StorageMember { store, service });
    let newcomer = (stores(), services(), proptest::option::of(stores()))
        .prop_map(|(store, service, replaces)| JoiningMember { store, service, replaces });
    let teams = vec(
        (tags(), vec(member, 0..4), vec(newcomer, 0..2))
            .prop_map(|(tag, members, joining)| StorageTeam { tag, members, joining }),
        0..4,
    );
    (any::<[u64; 3]>(), services(), services(), vec(services(), 0..3), resolvers, logs, teams)
        .prop_map(
            |(
                [epoch, recovery, first],
                director,
                sequencer,
                commit_proxies,
                resolvers,
                logs,
                teams,
            )| {
                Layout {
                    epoch: Epoch(epoch),
                    recovery_version: Version(recovery),
                    first_version: Version(first),
                    director,
                    sequencer,
                    commit_proxies,
                    resolvers,
                    logs,
                    storage_teams: teams,
                }
            },
        )
}

/// Any configuration with its shards, sensible or not.
pub(crate) fn recorded() -> impl Strategy<Value = Recorded> {
    let coordinators = || {
        let address = proptest::option::of("[a-z]{1,8}:[1-9][0-9]{1,3}");
        let coordinator = (services(), any::<u64>(), address)
            .prop_map(|(service, raft_id, address)| Coordinator { service, raft_id, address });
        vec(coordinator, 0..4)
    };
    let coordinators = (coordinators(), coordinators());
    let shards = vec((keys(), tags()), 0..5).prop_map(ShardMap);
    let ids = (any::<[u128; 2]>(), 0..=FORMAT_LEVEL, any::<[u64; 2]>());
    (ids, coordinators, parameters(), node_entries(), layouts(), shards).prop_map(
        |(ids, coordinators, mut parameters, mut nodes, mut layout, shards)| {
            let ([cluster, group], format_level, [epoch, config_version]) = ids;
            let (mut coordinators, mut next_coordinators) = coordinators;
            if format_level < MEMBERS_LEVEL {
                next_coordinators.clear();
                coordinators.iter_mut().for_each(|coordinator| coordinator.address = None);
            }
            if format_level < 3 {
                nodes.values_mut().for_each(|entry| entry.standing = Standing::InUse);
            }
            if format_level < 2 {
                // What earlier levels can't say.
                parameters.storage_lost_ms = Parameters::default().storage_lost_ms;
                layout.storage_teams.iter_mut().for_each(|team| team.joining.clear());
            }
            let config = SystemConfig {
                cluster_id: ClusterId(cluster),
                group_id: GroupId(group),
                format_level,
                epoch: Epoch(epoch),
                config_version: ConfigVersion(config_version),
                coordinators,
                next_coordinators,
                parameters,
                policies: Policies::default(),
                nodes,
                layout,
                shards: shards.summary(),
            };
            Recorded::new(config, shards)
        },
    )
}

/// A process that can be found again in any bytes that it has leaked into.
fn distinctive_pid(node: NodeId, number: u32) -> Pid {
    Pid {
        node,
        os_pid: 4_123_456_000 + number,
        incarnation: Incarnation(0xdead_beef_cafe_0000 + u64::from(number)),
        address: format!("leaked-{number}.invalid:65{number:03}"),
    }
}

/// A configuration as memory knows it, where a service runs or not at random, and the directory
/// that knows those that run.
#[derive(Debug)]
pub(crate) struct InMemory {
    pub(crate) recorded: Recorded,
    pub(crate) config: SystemConfig<Service>,
    pub(crate) directory: Directory,
}

pub(crate) fn in_memory() -> impl Strategy<Value = InMemory> {
    (recorded(), vec(any::<bool>(), 64)).prop_map(|(recorded, running)| {
        let mut pids: BTreeMap<ServiceRef, Option<Pid>> = BTreeMap::new();
        for ((number, up), (_, service)) in
            (0u32..).zip(running).zip(recorded.config.layout.services())
        {
            pids.entry(service.clone())
                .or_insert_with(|| up.then(|| distinctive_pid(service.node.clone(), number)));
        }
        let config = recorded.config.map_services(|service| match &pids[service] {
            Some(pid) => Service::Up(pid.clone()),
            None => Service::Down(service.clone()),
        });
        let directory =
            pids.into_iter().filter_map(|(service, pid)| Some((service, pid?))).collect();
        InMemory { recorded, config, directory }
    })
}

/// What must not be in written bytes: nothing of any process that the directory knows.
pub(crate) fn leak(bytes: &[u8], directory: &Directory) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let hosts = |pid: &Pid| pid.address.split(':').map(str::to_owned).collect::<Vec<_>>();
    directory
        .iter()
        .flat_map(|(_, pid)| {
            let numbers = [pid.os_pid.to_string(), pid.incarnation.to_string()];
            let decimal = pid.incarnation.0.to_string();
            numbers.into_iter().chain([decimal, pid.address.clone(), hosts(pid).swap_remove(0)])
        })
        .find(|needle| text.contains(needle))
}
