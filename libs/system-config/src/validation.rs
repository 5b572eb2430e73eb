//! Whether a configuration makes sense as a whole. Every problem is reported, not just the first.
//!
//! Parameters say what is wanted and the layout what is: a raised replication factor is valid
//! before the next recovery has recruited for it. Such differences are [`Shortfall`]s and not
//! problems.

use std::collections::{BTreeMap, BTreeSet};

use plinth_types::{
    ClusterId, ConfigVersion, Epoch, Key, KeyRange, NodeId, ServiceKind, ServiceRef, StoreId, Tag,
    VERSION_GAP, Version,
};

use crate::{
    Coordinator, FORMAT_LEVEL, JoiningMember, Layout, ParameterError, Recorded, ShardMismatch,
    ShardProblem, Standing, StorageTeam, SystemConfig, names_of,
};

/// Something that a configuration must not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A parameter has a value that it must not have.
    #[error("parameter {0}")]
    Parameter(ParameterError),
    /// This release can't write the level.
    #[error("format_level is {0}, and this release writes up to {FORMAT_LEVEL}")]
    FormatLevel(u32),
    /// There is nobody to hold the epoch.
    #[error("there is no coordinator")]
    NoCoordinator,
    /// It names the next members, who are the members.
    #[error("next_coordinators names the members that there are")]
    NoNewMembers,
    /// Two coordinators have the same Raft identity.
    #[error("two coordinators have the Raft id {0}")]
    SameRaftId(u64),
    /// A service fills the same place twice.
    #[error("{service} stands twice among the {kind}s")]
    Twice {
        /// The place.
        kind: ServiceKind,
        /// The service.
        service: ServiceRef,
    },
    /// A service of another kind fills the place.
    #[error("{service} stands in the place of a {kind}")]
    WrongKind {
        /// The place.
        kind: ServiceKind,
        /// The service.
        service: ServiceRef,
    },
    /// A service is on a node that the configuration does not know.
    #[error("{service} is on node {node}, which is not among the nodes")]
    UnknownNode {
        /// The service.
        service: ServiceRef,
        /// Its node.
        node: NodeId,
    },
    /// A service is on a node that was removed.
    #[error("{service} is on node {node}, which was removed")]
    RemovedNode {
        /// The service.
        service: ServiceRef,
        /// Its node.
        node: NodeId,
    },
    /// The layout is of a later epoch than its configuration.
    #[error("the layout is of epoch {layout}, after the configuration's epoch {config}")]
    LayoutAhead {
        /// The layout's epoch.
        layout: Epoch,
        /// The configuration's.
        config: Epoch,
    },
    /// The epoch's first version is too close to the recovery version.
    #[error(
        "first_version is {first}, less than {VERSION_GAP} above the recovery version {recovery}"
    )]
    FirstVersion {
        /// The first version.
        first: Version,
        /// The recovery version.
        recovery: Version,
    },
    /// A place is empty.
    #[error("the layout has no {0}")]
    Vacant(ServiceKind),
    /// A resolver has no keys.
    #[error("{0} has an empty range of keys")]
    EmptyResolver(ServiceRef),
    /// No resolver has these keys.
    #[error("no resolver has the keys {}", range(.0))]
    ResolverGap(KeyRange),
    /// Two resolvers have these keys.
    #[error("two resolvers have the keys {}", range(.0))]
    ResolverOverlap(KeyRange),
    /// The shard map is not one.
    #[error("the shard map is not valid: {0}")]
    Shards(ShardProblem),
    /// The shards are not those that the configuration sums up.
    #[error(transparent)]
    ShardSummary(#[from] ShardMismatch),
    /// A shard's tag has no storages.
    #[error("tag {0} has shards, but no storage team")]
    NoTeam(Tag),
    /// Two teams have the same tag.
    #[error("two storage teams have tag {0}")]
    TwoTeams(Tag),
    /// Nobody holds a tag's data.
    #[error("the storage team of tag {0} has no members")]
    EmptyTeam(Tag),
    /// A storage is in the same team twice.
    #[error("{service} is in the storage team of tag {tag} twice")]
    TwiceInTeam {
        /// The tag.
        tag: Tag,
        /// The storage.
        service: ServiceRef,
    },
    /// A newcomer is to replace who is no member, or whom another one replaces.
    #[error(
        "{service} is to replace store {replaces} in the storage team of tag {tag}, which is no member of it that nobody else replaces"
    )]
    ReplacesNobody {
        /// The tag.
        tag: Tag,
        /// The newcomer.
        service: ServiceRef,
        /// Whom it is to replace.
        replaces: StoreId,
    },
    /// Nobody records a tag's mutations.
    #[error("tag {0} has a storage team, but no log holds it")]
    NoLog(Tag),
    /// A log holds what nobody will ever read.
    #[error("{service} holds tag {tag}, which has no storage team")]
    StrayTag {
        /// The log.
        service: ServiceRef,
        /// The tag.
        tag: Tag,
    },
    /// A log holds a tag twice.
    #[error("{service} holds tag {tag} twice")]
    TagTwice {
        /// The log.
        service: ServiceRef,
        /// The tag.
        tag: Tag,
    },
    /// One directory belongs to two services.
    #[error("store {store} belongs to {first} and to {second}")]
    SharedStore {
        /// The directory.
        store: StoreId,
        /// One service.
        first: ServiceRef,
        /// Another one.
        second: ServiceRef,
    },
    /// One service has two directories.
    #[error("{service} has the stores {first} and {second}")]
    TwoStores {
        /// The service.
        service: ServiceRef,
        /// One directory.
        first: StoreId,
        /// Another one.
        second: StoreId,
    },
    /// It would replace another cluster's configuration.
    #[error("it is of cluster {next}, and would replace one of cluster {previous}")]
    OtherCluster {
        /// The cluster of the one before.
        previous: ClusterId,
        /// The cluster of this one.
        next: ClusterId,
    },
    /// It would go back to an earlier epoch.
    #[error("it is of epoch {next}, and would replace one of epoch {previous}")]
    EpochBack {
        /// The epoch before.
        previous: Epoch,
        /// This one's.
        next: Epoch,
    },
    /// It is not the next configuration.
    #[error("it has number {next}, and the one after {previous} is due")]
    NotNext {
        /// The number before.
        previous: ConfigVersion,
        /// This one's.
        next: ConfigVersion,
    },
    /// It would go back to an earlier layout.
    #[error("its layout is of epoch {next}, and would replace one of epoch {previous}")]
    LayoutBack {
        /// The layout's epoch before.
        previous: Epoch,
        /// This one's.
        next: Epoch,
    },
    /// An epoch's versions would not be its own.
    #[error(
        "its layout starts at {next} after recovery version {recovery}, where the earlier one \
         started at {previous}: no version may belong to two epochs, nor change within one"
    )]
    Versions {
        /// The first version before.
        previous: Version,
        /// This one's.
        next: Version,
        /// This one's recovery version.
        recovery: Version,
    },
    /// It would be written at a lower level than before.
    #[error("format_level would go back from {previous} to {next}")]
    FormatLevelBack {
        /// The level before.
        previous: u32,
        /// This one's.
        next: u32,
    },
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is not valid: {}", list(.problems))]
pub struct Invalid {
    /// What is wrong; never empty.
    pub problems: Vec<Problem>,
}

/// Fewer copies of a tag than the parameters ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// What there is too little of: logs or storages.
    pub kind: ServiceKind,
    /// The tag.
    pub tag: Tag,
    /// How many hold it.
    pub present: usize,
    /// How many should.
    pub wanted: usize,
}

fn range(keys: &KeyRange) -> String {
    match &keys.to {
        Some(to) => format!("from {:?} to {to:?}", keys.from),
        None => format!("from {:?} on", keys.from),
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn verdict(problems: Vec<Problem>) -> Result<(), Invalid> {
    if problems.is_empty() { Ok(()) } else { Err(Invalid { problems }) }
}

impl Recorded {
    /// Whether the configuration makes sense as a whole.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn validate(&self) -> Result<(), Invalid> {
        verdict(self.problems())
    }

    /// Whether the configuration makes sense as a whole and may replace `previous`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn validate_after(&self, previous: &Recorded) -> Result<(), Invalid> {
        let mut problems = self.problems();
        problems.extend(succession_problems(&previous.config, &self.config));
        verdict(problems)
    }

    /// The tags with fewer logs or storages than the parameters ask for.
    #[must_use]
    pub fn shortfalls(&self) -> Vec<Shortfall> {
        let parameters = &self.config.parameters;
        let mut shortfalls = Vec::new();
        for team in &self.config.layout.storage_teams {
            let tag = team.tag;
            let copies =
                if tag == Tag::SYSTEM { parameters.config_team } else { parameters.replication };
            let logs = self.config.layout.logs_of(tag).count();
            for (kind, present, wanted) in [
                (ServiceKind::Log, logs, parameters.replication),
                (ServiceKind::Storage, team.members.len(), copies),
            ] {
                let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
                if present < wanted {
                    shortfalls.push(Shortfall { kind, tag, present, wanted });
                }
            }
        }
        shortfalls
    }

    /// Everything that is wrong with the configuration by itself.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let config = &self.config;
        let mut problems: Vec<Problem> =
            config.parameters.problems().into_iter().map(Problem::Parameter).collect();
        if config.format_level > FORMAT_LEVEL {
            problems.push(Problem::FormatLevel(config.format_level));
        }
        coordinator_problems(config, &mut problems);
        place_problems(config, &mut problems);
        version_problems(config, &mut problems);
        resolver_problems(&config.layout, &mut problems);
        problems.extend(self.shards.problems().into_iter().map(Problem::Shards));
        problems.extend(self.check_shards().err().map(Problem::ShardSummary));
        tag_problems(&config.layout, &self.shards.tags(), &mut problems);
        store_problems(&config.layout, &mut problems);
        problems
    }
}

fn coordinator_problems(config: &SystemConfig<ServiceRef>, problems: &mut Vec<Problem>) {
    if config.coordinators.is_empty() {
        problems.push(Problem::NoCoordinator);
    }
    let (members, next) = (&config.coordinators, &config.next_coordinators);
    if !next.is_empty() && names_of(next) == names_of(members) {
        problems.push(Problem::NoNewMembers);
    }
    for members in [members, next] {
        let mut ids = BTreeSet::new();
        let mut named = BTreeSet::new();
        for Coordinator { service, raft_id, .. } in members {
            if !ids.insert(*raft_id) {
                problems.push(Problem::SameRaftId(*raft_id));
            }
            if !named.insert(service) {
                let (kind, service) = (ServiceKind::Coordinator, service.clone());
                problems.push(Problem::Twice { kind, service });
            }
        }
    }
}

fn place_problems(config: &SystemConfig<ServiceRef>, problems: &mut Vec<Problem>) {
    let coordinators =
        config.every_coordinator().map(|member| (ServiceKind::Coordinator, &member.service));
    let mut seen = BTreeSet::new();
    for (kind, service) in coordinators.chain(config.layout.services()) {
        let first = seen.insert((kind, service));
        if !first {
            // A storage of several teams is in its place once for each. Coordinators are counted apart.
            if !matches!(kind, ServiceKind::Storage | ServiceKind::Coordinator) {
                problems.push(Problem::Twice { kind, service: service.clone() });
            }
            continue;
        }
        if service.kind() != kind {
            problems.push(Problem::WrongKind { kind, service: service.clone() });
        }
        if !config.nodes.contains_key(&service.node) {
            let node = service.node.clone();
            problems.push(Problem::UnknownNode { service: service.clone(), node });
        }
        if config.standing(&service.node) == Standing::Removed {
            let node = service.node.clone();
            problems.push(Problem::RemovedNode { service: service.clone(), node });
        }
    }
    let layout = &config.layout;
    for (kind, vacant) in [
        (ServiceKind::CommitProxy, layout.commit_proxies.is_empty()),
        (ServiceKind::Resolver, layout.resolvers.is_empty()),
        (ServiceKind::Log, layout.logs.is_empty()),
        (ServiceKind::Storage, layout.storage_teams.is_empty()),
    ] {
        if vacant {
            problems.push(Problem::Vacant(kind));
        }
    }
}

fn version_problems(config: &SystemConfig<ServiceRef>, problems: &mut Vec<Problem>) {
    let layout = &config.layout;
    if layout.epoch > config.epoch {
        problems.push(Problem::LayoutAhead { layout: layout.epoch, config: config.epoch });
    }
    let (first, recovery) = (layout.first_version, layout.recovery_version);
    if first < recovery.plus(VERSION_GAP) {
        problems.push(Problem::FirstVersion { first, recovery });
    }
}

fn resolver_problems(layout: &Layout<ServiceRef>, problems: &mut Vec<Problem>) {
    let mut ranges = Vec::new();
    for resolver in &layout.resolvers {
        if resolver.range.is_empty() {
            problems.push(Problem::EmptyResolver(resolver.service.clone()));
        } else {
            ranges.push(&resolver.range);
        }
    }
    ranges.sort();
    // Every key below `covered` has been seen; none stands for the end of the key space.
    let mut covered = Some(Key::default());
    for range in ranges {
        let seen = KeyRange { from: Key::default(), to: covered.clone() };
        if let Some(twice) = range.intersection(&seen) {
            problems.push(Problem::ResolverOverlap(twice));
        }
        covered = match (covered, &range.to) {
            (None, _) => None,
            (Some(covered), to) => {
                if covered < range.from {
                    let gap = KeyRange::new(covered.clone(), range.from.clone());
                    problems.push(Problem::ResolverGap(gap));
                }
                to.clone().map(|to| to.max(covered))
            }
        };
    }
    if let Some(from) = covered {
        problems.push(Problem::ResolverGap(KeyRange { from, to: None }));
    }
}

fn tag_problems(layout: &Layout<ServiceRef>, used: &[Tag], problems: &mut Vec<Problem>) {
    let mut tags = BTreeSet::new();
    for team in &layout.storage_teams {
        let tag = team.tag;
        if !tags.insert(tag) {
            problems.push(Problem::TwoTeams(tag));
        }
        if team.members.is_empty() {
            problems.push(Problem::EmptyTeam(tag));
        }
        let mut members = BTreeSet::new();
        for (_, service) in team.everybody() {
            if !members.insert(service) {
                problems.push(Problem::TwiceInTeam { tag, service: service.clone() });
            }
        }
        problems.extend(replacement_problems(team));
        if layout.logs_of(tag).next().is_none() {
            problems.push(Problem::NoLog(tag));
        }
    }
    problems.extend(used.iter().filter(|tag| !tags.contains(tag)).copied().map(Problem::NoTeam));
    for log in &layout.logs {
        let mut held = BTreeSet::new();
        for &tag in &log.tags {
            let service = || log.service.clone();
            if !held.insert(tag) {
                problems.push(Problem::TagTwice { service: service(), tag });
            } else if !tags.contains(&tag) {
                problems.push(Problem::StrayTag { service: service(), tag });
            }
        }
    }
}

fn replacement_problems(team: &StorageTeam<ServiceRef>) -> Vec<Problem> {
    let tag = team.tag;
    let mut left: BTreeSet<StoreId> = team.members.iter().map(|member| member.store).collect();
    let mut problems = Vec::new();
    for JoiningMember { service, replaces, .. } in &team.joining {
        if let Some(replaces) = *replaces
            && !left.remove(&replaces)
        {
            problems.push(Problem::ReplacesNobody { tag, service: service.clone(), replaces });
        }
    }
    problems
}

fn store_problems(layout: &Layout<ServiceRef>, problems: &mut Vec<Problem>) {
    let mut owners: BTreeMap<StoreId, &ServiceRef> = BTreeMap::new();
    let mut stores: BTreeMap<&ServiceRef, StoreId> = BTreeMap::new();
    for (_, store, service) in layout.durable() {
        let owner = *owners.entry(store).or_insert(service);
        if owner != service {
            let (first, second) = (owner.clone(), service.clone());
            problems.push(Problem::SharedStore { store, first, second });
        }
        let first = *stores.entry(service).or_insert(store);
        if first != store {
            let service = service.clone();
            problems.push(Problem::TwoStores { service, first, second: store });
        }
    }
}

fn succession_problems(
    previous: &SystemConfig<ServiceRef>,
    next: &SystemConfig<ServiceRef>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    if next.cluster_id != previous.cluster_id {
        problems
            .push(Problem::OtherCluster { previous: previous.cluster_id, next: next.cluster_id });
    }
    if next.epoch < previous.epoch {
        problems.push(Problem::EpochBack { previous: previous.epoch, next: next.epoch });
    }
    if next.config_version != previous.config_version.next() {
        problems.push(Problem::NotNext {
            previous: previous.config_version,
            next: next.config_version,
        });
    }
    if next.format_level < previous.format_level {
        problems.push(Problem::FormatLevelBack {
            previous: previous.format_level,
            next: next.format_level,
        });
    }
    let (old, new) = (&previous.layout, &next.layout);
    if new.epoch < old.epoch {
        problems.push(Problem::LayoutBack { previous: old.epoch, next: new.epoch });
    }
    let versions_fit = if new.epoch == old.epoch {
        (new.recovery_version, new.first_version) == (old.recovery_version, old.first_version)
    } else {
        new.recovery_version >= old.recovery_version
            && new.first_version >= new.recovery_version.max(old.first_version).plus(VERSION_GAP)
    };
    if !versions_fit {
        problems.push(Problem::Versions {
            previous: old.first_version,
            next: new.first_version,
            recovery: new.recovery_version,
        });
    }
    problems
}
