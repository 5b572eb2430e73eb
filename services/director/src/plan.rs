//! The plan of an epoch: the configuration that will be recorded, and what each component is told.
//! Pure: it is drawn up once everybody is recruited, and then carried out as it stands.

use std::collections::{BTreeMap, BTreeSet};

use plinth_api::commit_proxy::{LogPeer, Peer, ResolverPeer};
use plinth_api::log::{Generation, TagMembers};
use plinth_api::storage::{CopySource, Joining, TagAssignment};
use plinth_api::{commit_proxy, log, resolver, sequencer, storage};
use plinth_system_config::{
    Coordinator, FORMAT_LEVEL, Layout, LogEntry, NodeEntry, Parameters, Policies, Recorded,
    ResolverEntry, ShardMap, StorageMember, StorageTeam, SystemConfig,
};
use plinth_types::{
    ClusterId, ConfigVersion, Epoch, GroupId, Incarnation, Key, KeyRange, NodeId, ServiceRef,
    StoreId, Tag, Zone,
};

use crate::phases::choosing_version::Versions;
use crate::phases::locking::LockedLog;
use crate::registry::{Registry, Whereabouts};

/// Who begins the epoch, and where.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) cluster: ClusterId,
    pub(crate) group: GroupId,
    pub(crate) coordinators: Vec<Coordinator>,
    /// The members after a change of the membership that is under way.
    pub(crate) next_coordinators: Vec<Coordinator>,
    pub(crate) epoch: Epoch,
    pub(crate) director: ServiceRef,
    pub(crate) incarnation: Incarnation,
    /// The number of the configuration that this one follows.
    pub(crate) follows: ConfigVersion,
    /// What a new cluster begins with.
    pub(crate) first_parameters: Parameters,
    pub(crate) first_shards: ShardMap,
}

/// A log of the new epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogRecruit {
    pub(crate) peer: Peer,
    pub(crate) store: StoreId,
    pub(crate) zone: Zone,
    /// The tags of which it has everything that survives; none for a new one.
    pub(crate) holds: Vec<Tag>,
}

/// Everybody that the new epoch has recruited.
#[derive(Clone, Debug)]
pub(crate) struct Recruits {
    pub(crate) sequencer: Peer,
    pub(crate) commit_proxies: Vec<Peer>,
    pub(crate) resolvers: Vec<Peer>,
    pub(crate) logs: Vec<LogRecruit>,
    /// The storages of each tag, running or not.
    pub(crate) teams: Vec<StorageTeam<ServiceRef>>,
    /// The nodes that were ever seen.
    pub(crate) nodes: BTreeMap<NodeId, NodeEntry>,
    /// Durable workers taken up again.
    pub(crate) reused: Vec<ServiceRef>,
    /// Durable workers that were not in the layout before.
    pub(crate) made: Vec<ServiceRef>,
}

/// The plan of an epoch.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What is to be recorded.
    pub(crate) recorded: Recorded,
    pub(crate) versions: Versions,
    pub(crate) recruits: Recruits,
    incarnation: Incarnation,
    /// What each log copies and from whom.
    copies: BTreeMap<StoreId, Vec<log::CopySource>>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("no locked log has tag {0}, which a new one needs")]
    NoSource(Tag),
    #[error(transparent)]
    Invalid(#[from] plinth_system_config::Invalid),
}

/// Gives every tag its logs: those that have it stay, further ones are added up to `copies`, spread
/// over zones and evenly over logs. The answer is in the order of `logs`.
fn assign_tags(logs: &[LogRecruit], tags: &[Tag], copies: usize) -> Vec<Vec<Tag>> {
    let mut assigned: Vec<Vec<Tag>> = vec![Vec::new(); logs.len()];
    for tag in tags {
        let mut zones: BTreeMap<&Zone, usize> = BTreeMap::new();
        let mut left: Vec<usize> = (0..logs.len()).collect();
        for _ in 0..copies.min(logs.len()) {
            let best = left.iter().copied().min_by_key(|&index| {
                let log = &logs[index];
                let in_zone = zones.get(&log.zone).copied().unwrap_or(0);
                (in_zone, !log.holds.contains(tag), assigned[index].len(), log.store)
            });
            let Some(best) = best else { break };
            left.retain(|index| *index != best);
            *zones.entry(&logs[best].zone).or_default() += 1;
            assigned[best].push(*tag);
        }
    }
    assigned
}

/// Where a log gets the tags that it does not have: from survivors that hold them, as few of them
/// as possible. One survivor need not hold every tag.
fn copy_sources(
    missing: &[Tag],
    survivors: &[LockedLog],
) -> Result<Vec<log::CopySource>, PlanError> {
    let mut left: BTreeSet<Tag> = missing.iter().copied().collect();
    let mut sources = Vec::new();
    while let Some(first) = left.first().copied() {
        let shares = |log: &LockedLog| log.tags.iter().filter(|tag| left.contains(tag)).count();
        let source = survivors
            .iter()
            .filter(|log| log.tags.contains(&first))
            .max_by_key(|log| (shares(log), std::cmp::Reverse(log.answer.store)))
            .ok_or(PlanError::NoSource(first))?;
        let tags: Vec<Tag> = left.iter().copied().filter(|tag| source.tags.contains(tag)).collect();
        left.retain(|tag| !tags.contains(tag));
        sources.push(log::CopySource { pid: source.pid.clone(), tags });
    }
    Ok(sources)
}

/// Cuts the key space into ranges of equal width by first byte, one a resolver.
fn resolver_ranges(count: usize) -> Vec<KeyRange> {
    let cut = |index: usize| {
        let byte = u8::try_from(index * 256 / count.max(1)).unwrap_or(u8::MAX);
        if index == 0 { Key::default() } else { Key::from(vec![byte]) }
    };
    let range =
        |index| KeyRange { from: cut(index), to: (index + 1 < count).then(|| cut(index + 1)) };
    (0..count).map(range).collect()
}

impl Plan {
    /// Draws up the plan. `previous` is the configuration that the epoch goes on from, `survivors`
    /// are the logs of its layout that were locked.
    ///
    /// # Errors
    /// A new log needs what nobody has, or the configuration makes no sense as a whole.
    pub(crate) fn draw_up(
        frame: &Frame,
        previous: Option<&Recorded>,
        versions: Versions,
        survivors: &[LockedLog],
        recruits: Recruits,
    ) -> Result<Plan, PlanError> {
        let parameters = previous.map_or(&frame.first_parameters, |p| &p.config.parameters).clone();
        let shards = previous.map_or(&frame.first_shards, |p| &p.shards).clone();
        let mut tags: BTreeSet<Tag> = shards.tags().into_iter().collect();
        tags.extend(recruits.teams.iter().map(|team| team.tag));
        let tags: Vec<Tag> = tags.into_iter().collect();
        let copies_of_tag = usize::try_from(parameters.replication).unwrap_or(usize::MAX);
        let assigned = assign_tags(&recruits.logs, &tags, copies_of_tag);

        let mut logs = Vec::new();
        let mut copies = BTreeMap::new();
        for (log, tags) in recruits.logs.iter().zip(assigned) {
            // The first epoch has nothing to copy from before it.
            if previous.is_some() {
                let missing: Vec<Tag> =
                    tags.iter().copied().filter(|tag| !log.holds.contains(tag)).collect();
                copies.insert(log.store, copy_sources(&missing, survivors)?);
            }
            logs.push(LogEntry { store: log.store, service: log.peer.service.clone(), tags });
        }
        let ranges = resolver_ranges(recruits.resolvers.len());
        let layout = Layout {
            epoch: frame.epoch,
            recovery_version: versions.recovery,
            first_version: versions.first,
            director: frame.director.clone(),
            sequencer: recruits.sequencer.service.clone(),
            commit_proxies: recruits.commit_proxies.iter().map(|p| p.service.clone()).collect(),
            resolvers: recruits
                .resolvers
                .iter()
                .zip(ranges)
                .map(|(peer, range)| ResolverEntry { service: peer.service.clone(), range })
                .collect(),
            logs,
            storage_teams: recruits.teams.clone(),
        };
        let format_level = previous.map_or(FORMAT_LEVEL, |p| p.config.format_level);
        let named = |members: &[Coordinator]| {
            members.iter().map(|member| member.clone().at_level(format_level)).collect()
        };
        let config = SystemConfig {
            cluster_id: frame.cluster,
            group_id: frame.group,
            format_level,
            epoch: frame.epoch,
            config_version: frame.follows.next(),
            coordinators: named(&frame.coordinators),
            next_coordinators: named(&frame.next_coordinators),
            parameters,
            policies: previous.map_or_else(Policies::default, |p| p.config.policies.clone()),
            nodes: every_node(frame, &layout, &recruits),
            layout,
            shards: shards.summary(),
        };
        let recorded = Recorded::new(config, shards);
        recorded.validate()?;
        Ok(Plan { recorded, versions, recruits, incarnation: frame.incarnation, copies })
    }

    pub(crate) fn layout(&self) -> &Layout<ServiceRef> {
        &self.recorded.config.layout
    }

    pub(crate) fn parameters(&self) -> &Parameters {
        &self.recorded.config.parameters
    }

    pub(crate) fn generation(&self) -> Generation {
        let Layout { epoch, recovery_version, first_version, .. } = *self.layout();
        Generation { epoch, recovery_version, first_version }
    }

    fn log_peers(&self) -> Vec<LogPeer> {
        let tags = self.layout().logs.iter().map(|log| log.tags.clone());
        let peers = self.recruits.logs.iter().map(|log| log.peer.clone());
        peers.zip(tags).map(|(peer, tags)| LogPeer { peer, tags }).collect()
    }

    /// The transaction system: every component whose failure ends the epoch.
    pub(crate) fn components(&self) -> impl Iterator<Item = &Peer> {
        let recruits = &self.recruits;
        std::iter::once(&recruits.sequencer)
            .chain(&recruits.commit_proxies)
            .chain(&recruits.resolvers)
            .chain(recruits.logs.iter().map(|log| &log.peer))
    }

    /// What each log is told.
    pub(crate) fn log_assignments(&self) -> Vec<(Peer, log::Assignment)> {
        let teams = &self.layout().storage_teams;
        let members = |tag| {
            let team = teams.iter().filter(|team| team.tag == tag);
            team.flat_map(StorageTeam::everybody).map(|(store, _)| store).collect()
        };
        let assignments = self.recruits.logs.iter().zip(&self.layout().logs).map(|(log, entry)| {
            let tags = entry.tags.iter().map(|&tag| TagMembers { tag, members: members(tag) });
            let assignment = log::Assignment {
                epoch: self.layout().epoch,
                director: self.incarnation,
                generation: self.generation(),
                tags: tags.collect(),
                copy: self.copies.get(&log.store).cloned().unwrap_or_default(),
            };
            (log.peer.clone(), assignment)
        });
        assignments.collect()
    }

    /// What the sequencer is told.
    pub(crate) fn sequencer_assignment(&self) -> sequencer::Assignment {
        let layout = self.layout();
        sequencer::Assignment {
            epoch: layout.epoch,
            director: self.incarnation,
            recovery_version: layout.recovery_version,
            first_version: layout.first_version,
        }
    }

    /// What each resolver is told.
    pub(crate) fn resolver_assignments(&self) -> Vec<(Peer, resolver::Assignment)> {
        let layout = self.layout();
        let window_versions = self.parameters().window_versions;
        let assignments =
            self.recruits.resolvers.iter().zip(&layout.resolvers).map(|(peer, entry)| {
                let assignment = resolver::Assignment {
                    epoch: layout.epoch,
                    director: self.incarnation,
                    recovery_version: layout.recovery_version,
                    first_version: layout.first_version,
                    range: entry.range.clone(),
                    window_versions,
                };
                (peer.clone(), assignment)
            });
        assignments.collect()
    }

    /// What each commit proxy is told; all are told the same.
    pub(crate) fn proxy_assignment(&self) -> commit_proxy::Assignment {
        let layout = self.layout();
        let resolvers = self.recruits.resolvers.iter().zip(&layout.resolvers);
        commit_proxy::Assignment {
            epoch: layout.epoch,
            director: self.incarnation,
            recovery_version: layout.recovery_version,
            first_version: layout.first_version,
            sequencer: self.recruits.sequencer.clone(),
            resolvers: resolvers
                .map(|(peer, entry)| ResolverPeer {
                    peer: peer.clone(),
                    range: entry.range.clone(),
                })
                .collect(),
            logs: self.log_peers(),
            shards: self.recorded.shards.clone(),
            peer_timeout_ms: self.parameters().peer_timeout_ms,
        }
    }

    /// The same epoch with another configuration.
    pub(crate) fn amended(&self, recorded: Recorded) -> Plan {
        Plan { recorded, ..self.clone() }
    }

    /// Every storage of the layout, once, newcomers included.
    pub(crate) fn storages(&self) -> BTreeMap<StoreId, ServiceRef> {
        let everybody = self.layout().storage_teams.iter().flat_map(StorageTeam::everybody);
        everybody.map(|(store, service)| (store, service.clone())).collect()
    }

    /// The storages that are members of a team.
    pub(crate) fn members(&self) -> BTreeMap<StoreId, ServiceRef> {
        let members = self.layout().storage_teams.iter().flat_map(|team| &team.members);
        members.map(|member| (member.store, member.service.clone())).collect()
    }

    /// What a storage is told that it holds or is to take a copy of, from the members that run.
    pub(crate) fn tags_of(&self, store: StoreId, nodes: &Registry) -> Vec<TagAssignment> {
        let assignment = |team: &StorageTeam<ServiceRef>| {
            let is_member = team.members.iter().any(|member| member.store == store);
            let is_joining = team.joining.iter().any(|newcomer| newcomer.store == store);
            (is_member || is_joining).then(|| TagAssignment {
                tag: team.tag,
                ranges: self.recorded.shards.ranges_of(team.tag).collect(),
                joining: (!is_member).then(|| Joining { sources: sources(team, nodes) }),
            })
        };
        self.layout().storage_teams.iter().filter_map(assignment).collect()
    }

    /// What a storage is told.
    pub(crate) fn storage_assignment(&self, tags: Vec<TagAssignment>) -> storage::Assignment {
        storage::Assignment {
            epoch: self.layout().epoch,
            director: self.incarnation,
            generation: self.generation(),
            tags,
            logs: self.log_peers(),
            window_versions: self.parameters().window_versions,
        }
    }

    /// What every log and storage keeps.
    pub(crate) fn keep_request(&self) -> log::KeepRequest {
        log::KeepRequest {
            epoch: self.layout().epoch,
            director: self.incarnation,
            recorded: self.recorded.clone(),
        }
    }
}

/// The members of a team that run.
fn sources(team: &StorageTeam<ServiceRef>, nodes: &Registry) -> Vec<CopySource> {
    let source = |member: &StorageMember<ServiceRef>| {
        let Whereabouts::Up(pid) = nodes.find(&member.service, member.store) else { return None };
        let peer = Peer { service: member.service.clone(), pid: pid.clone() };
        Some(CopySource { store: member.store, peer })
    };
    team.members.iter().filter_map(source).collect()
}

/// The nodes that were ever seen, and those that the layout or the coordinators name besides.
fn every_node(
    frame: &Frame,
    layout: &Layout<ServiceRef>,
    recruits: &Recruits,
) -> BTreeMap<NodeId, NodeEntry> {
    let mut nodes = recruits.nodes.clone();
    let coordinators = frame.coordinators.iter().chain(&frame.next_coordinators);
    let coordinators = coordinators.map(|coordinator| &coordinator.service);
    for service in layout.services().map(|(_, service)| service).chain(coordinators) {
        let node = &service.node;
        let zone = || NodeEntry::new(Zone::of_node(node), Vec::new());
        nodes.entry(node.clone()).or_insert_with(zone);
    }
    nodes
}

/// How many storages the teams of a new cluster take.
pub(crate) fn first_storages(parameters: &Parameters, shards: &ShardMap) -> usize {
    let users = shards.tags().into_iter().filter(|tag| *tag != Tag::SYSTEM).count();
    let size = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    size(parameters.config_team).max(size(parameters.replication).saturating_mul(users))
}

/// The storage teams of a new cluster: the configuration on the first `config_team` of `storages`,
/// each other tag on the next `replication` of them, from the first on again. They are spread over
/// zones in their order.
pub(crate) fn first_teams(
    parameters: &Parameters,
    shards: &ShardMap,
    storages: &[StorageMember<ServiceRef>],
) -> Vec<StorageTeam<ServiceRef>> {
    let mut taken = 0;
    let team = |tag: Tag| {
        let size = if tag == Tag::SYSTEM { parameters.config_team } else { parameters.replication };
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(storages.len());
        let from = if tag == Tag::SYSTEM { 0 } else { taken };
        taken += if tag == Tag::SYSTEM { 0 } else { size };
        let members = storages.iter().cycle().skip(from % storages.len().max(1)).take(size);
        StorageTeam { tag, members: members.cloned().collect(), joining: vec![] }
    };
    shards.tags().into_iter().map(team).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{lock_answer, pid, recorded, service};
    use plinth_types::{VERSION_GAP, Version};
    use proptest::prelude::*;

    fn frame() -> Frame {
        let config = recorded().config;
        Frame {
            cluster: config.cluster_id,
            group: config.group_id,
            coordinators: config.coordinators,
            next_coordinators: config.next_coordinators,
            epoch: Epoch(9),
            director: service("director-2@node-2"),
            incarnation: Incarnation(42),
            follows: ConfigVersion(4),
            first_parameters: Parameters { resolvers: 2, ..Parameters::default() },
            first_shards: ShardMap::initial(),
        }
    }

    fn versions() -> Versions {
        let first = Version(700 + 3 * VERSION_GAP);
        Versions { recovery: Version(700), known_committed: Version(600), first }
    }

    fn peer(name: &str) -> Peer {
        let service = service(name);
        Peer { pid: pid(service.node.as_str(), 8), service }
    }

    fn log(store: u128, name: &str, zone: &str, holds: &[u32]) -> LogRecruit {
        LogRecruit {
            peer: peer(name),
            store: StoreId(store),
            zone: zone.parse().unwrap(),
            holds: holds.iter().map(|tag| Tag(*tag)).collect(),
        }
    }

    fn recruits(logs: Vec<LogRecruit>) -> Recruits {
        let recorded = recorded();
        Recruits {
            sequencer: peer("sequencer-1@node-1"),
            commit_proxies: vec![peer("commit-proxy-1@node-1")],
            resolvers: vec![peer("resolver-1@node-1"), peer("resolver-1@node-2")],
            logs,
            teams: recorded.config.layout.storage_teams.clone(),
            nodes: recorded.config.nodes,
            reused: vec![],
            made: vec![],
        }
    }

    fn survivor(store: u128, tags: &[u32]) -> LockedLog {
        LockedLog {
            service: service(&format!("log-1@node-{store}")),
            pid: pid("node-1", u64::try_from(store).unwrap()),
            tags: tags.iter().map(|tag| Tag(*tag)).collect(),
            answer: lock_answer(store, 900, 800),
        }
    }

    fn copies(plan: &Plan) -> Vec<Vec<(u64, Vec<u32>)>> {
        let of = |source: &log::CopySource| {
            (source.pid.incarnation.0, source.tags.iter().map(|tag| tag.0).collect())
        };
        let assignments = plan.log_assignments();
        assignments.iter().map(|(_, told)| told.copy.iter().map(of).collect()).collect()
    }

    #[test]
    fn a_kept_log_copies_nothing_and_a_new_one_each_tag_from_who_holds_it() {
        let previous = recorded();
        let logs = vec![
            log(1, "log-1@node-1", "a", &[0]),
            log(2, "log-1@node-2", "b", &[1]),
            log(9, "log-1@node-3", "c", &[]),
        ];
        let survivors = [survivor(1, &[0]), survivor(2, &[1])];
        let plan = Plan::draw_up(
            &frame(),
            Some(&previous),
            versions(),
            &survivors,
            recruits(logs.clone()),
        )
        .unwrap();
        // Each now holds both tags: the kept ones lack one, the new one lacks both.
        assert_eq!(
            copies(&plan),
            [vec![(2, vec![1])], vec![(1, vec![0])], vec![(1, vec![0]), (2, vec![1])]]
        );
        let alone =
            Plan::draw_up(&frame(), Some(&previous), versions(), &survivors[..1], recruits(logs));
        assert_eq!(alone.unwrap_err(), PlanError::NoSource(Tag(1)));
    }

    #[test]
    fn the_plan_follows_what_was_recorded() {
        let mut previous = recorded();
        previous.config.parameters.failure_timeout_ms = 777;
        let logs = (1..)
            .zip(["a", "b", "c"])
            .map(|(store, zone)| log(store, &format!("log-1@node-{store}"), zone, &[0, 1]));
        let survivors = [survivor(1, &[0, 1])];
        let recruits = recruits(logs.collect());
        let plan = Plan::draw_up(&frame(), Some(&previous), versions(), &survivors, recruits);
        let plan = plan.unwrap();
        plan.recorded.validate_after(&previous).unwrap();
        assert_eq!(plan.parameters().failure_timeout_ms, 777);
        assert!(copies(&plan).iter().all(Vec::is_empty));
        assert_eq!(plan.components().count(), 7);
        assert_eq!(plan.storages().len(), 3);
        let tags = plan.tags_of(StoreId(11), &Registry::default());
        let storage = plan.storage_assignment(tags);
        assert_eq!(storage.tags[0].ranges, [KeyRange::system_shard()]);
        assert_eq!((storage.tags.len(), storage.logs.len()), (2, 3));
        let (_, told) = &plan.log_assignments()[0];
        assert_eq!(told.tags[1].members, [StoreId(11), StoreId(12), StoreId(13)]);
        assert_eq!(told.director, Incarnation(42));
    }

    #[test]
    fn each_shard_of_a_new_cluster_has_storages_of_its_own() {
        let shards = ShardMap(vec![
            (Key::default(), Tag(1)),
            (Key::from("k"), Tag(2)),
            (Key::from_static(plinth_types::SYSTEM_SHARD), Tag::SYSTEM),
            (Key::from_static(plinth_types::SYSTEM_SHARD_END), Tag(3)),
        ]);
        let parameters = Parameters { replication: 2, config_team: 3, ..Parameters::default() };
        let member = |number: u32| StorageMember {
            store: StoreId(number.into()),
            service: service(&format!("storage-1@node-{number}")),
        };
        let wanted = u32::try_from(first_storages(&parameters, &shards)).unwrap();
        assert_eq!(wanted, 6);
        let stores = |storages: u32| {
            let storages: Vec<_> = (1..=storages).map(member).collect();
            let teams = first_teams(&parameters, &shards, &storages);
            let stores = |team: &StorageTeam<_>| team.members.iter().map(|m| m.store.0).collect();
            teams.iter().map(stores).collect::<Vec<Vec<u128>>>()
        };
        assert_eq!(stores(wanted), [vec![1, 2, 3], vec![1, 2], vec![3, 4], vec![5, 6]]);
        assert_eq!(stores(3), [vec![1, 2, 3], vec![1, 2], vec![3, 1], vec![2, 3]]);
        assert_eq!(first_storages(&parameters, &ShardMap::initial()), 3);
    }

    #[test]
    fn the_first_epoch_has_defaults_and_copies_nothing() {
        let shards = ShardMap::initial();
        let members: Vec<_> = recorded().config.layout.storage_teams[0].members.clone();
        let parameters = Parameters { config_team: 2, ..Parameters::default() };
        let teams = first_teams(&parameters, &shards, &members);
        assert_eq!((teams[0].tag, teams[0].members.len()), (Tag::SYSTEM, 2));
        assert_eq!((teams[1].tag, teams[1].members.len()), (Tag(1), 3));
        let logs = vec![log(1, "log-1@node-1", "a", &[])];
        let recruits = Recruits { teams, ..recruits(logs) };
        let first = Versions {
            recovery: Version::ZERO,
            known_committed: Version::ZERO,
            first: Version(VERSION_GAP),
        };
        let plan = Plan::draw_up(&frame(), None, first, &[], recruits).unwrap();
        assert_eq!(plan.parameters(), &frame().first_parameters);
        assert_eq!(copies(&plan), [vec![]]);
        assert_eq!(plan.layout().logs[0].tags, [Tag(0), Tag(1)]);
    }

    proptest! {
        #[test]
        fn resolvers_cover_every_key_once(count in 1usize..=100) {
            let ranges = resolver_ranges(count);
            prop_assert_eq!(ranges.len(), count);
            prop_assert_eq!(&ranges[0].from, &Key::default());
            prop_assert_eq!(&ranges[count - 1].to, &None);
            prop_assert!(ranges.iter().all(|range| !range.is_empty()));
            prop_assert!(ranges.windows(2).all(|pair| pair[0].to.as_ref() == Some(&pair[1].from)));
        }

        /// Every tag gets as many logs as it should, never one twice, over as many zones as can be.
        #[test]
        fn tags_are_spread(
            zones in proptest::collection::vec(0u8..4, 1..7),
            holds in proptest::collection::vec(proptest::collection::btree_set(0u32..4, 0..4), 7),
            copies in 1usize..6,
        ) {
            let logs: Vec<LogRecruit> = zones
                .iter()
                .zip(&holds)
                .zip(1..)
                .map(|((zone, holds), store)| {
                    let holds: Vec<u32> = holds.iter().copied().collect();
                    log(store, "log-1@node-1", &format!("z{zone}"), &holds)
                })
                .collect();
            let tags: Vec<Tag> = (0..4).map(Tag).collect();
            let assigned = assign_tags(&logs, &tags, copies);
            let all_zones: BTreeSet<u8> = zones.iter().copied().collect();
            for tag in tags {
                let holders: Vec<usize> =
                    (0..logs.len()).filter(|index| assigned[*index].contains(&tag)).collect();
                prop_assert_eq!(holders.len(), copies.min(logs.len()));
                let zones: BTreeSet<u8> = holders.iter().map(|index| zones[*index]).collect();
                prop_assert_eq!(zones.len(), holders.len().min(all_zones.len()));
            }
            prop_assert!(assigned.iter().all(|tags| tags.is_sorted_by(|a, b| a < b)));
        }
    }
}
