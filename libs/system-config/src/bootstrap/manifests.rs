//! A configuration from what durable workers have, where none can be read anywhere.
//!
//! Workers know their directories, epochs, versions and tags, and the rows of the system shard tell
//! which keys belong to which tag. Nobody knows the parameters, so this is never done unless an
//! operator says so.

use std::collections::{BTreeMap, BTreeSet};

use plinth_types::{
    ConfigVersion, Epoch, GroupId, KeyRange, NodeId, ServiceKind, ServiceName, ServiceRef, Tag,
    VERSION_GAP, Version, Zone,
};

use super::{Doubt, EPOCH_GAP, Held, Inputs, Keeper, Manifest};
use crate::{
    Coordinator, FORMAT_LEVEL, Layout, LogEntry, NodeEntry, Parameters, Policies, Recorded,
    ResolverEntry, ShardMap, StorageMember, StorageTeam, SystemConfig,
};

type Worker<'a> = (&'a Manifest, &'a Held);

fn workers(inputs: &Inputs, kind: ServiceKind) -> Vec<Worker<'_>> {
    let of_kind = inputs.own_manifests().filter(|manifest| manifest.service.kind() == kind);
    let mut workers: Vec<Worker<'_>> =
        of_kind.filter_map(|manifest| Some((manifest, manifest.held.as_ref()?))).collect();
    workers.sort_by(|(a, _), (b, _)| a.service.cmp(&b.service));
    workers
}

fn keeper(manifest: &Manifest) -> Keeper {
    Keeper { service: manifest.service.clone(), store: manifest.store }
}

/// The configuration, and what is lost or doubtful about it. `coordinators` are to be its own.
///
/// # Errors
/// Why there is none, in words.
pub(super) fn rebuild(
    inputs: &Inputs,
    coordinators: &BTreeSet<ServiceRef>,
) -> Result<(Recorded, Vec<Doubt>), String> {
    let mut doubts = vec![Doubt::DefaultParameters];
    let all_logs = workers(inputs, ServiceKind::Log);
    let newest = all_logs.iter().map(|(_, held)| held.generation).max().unwrap_or_default();
    if newest == Epoch::ZERO {
        return Err("no log that says what it has was ever part of an epoch".to_owned());
    }
    let (logs, older): (Vec<_>, Vec<_>) =
        all_logs.into_iter().partition(|(_, held)| held.generation == newest);
    for (manifest, held) in older {
        doubts.push(Doubt::OlderLog { log: keeper(manifest), epoch: held.generation, newest });
    }
    let storages = workers(inputs, ServiceKind::Storage);
    let tags: BTreeSet<Tag> =
        storages.iter().flat_map(|(_, held)| held.tags.iter().copied()).collect();
    let shards = shards(&storages, &tags)?;
    for tag in tags.iter().copied().chain(shards.tags()) {
        if !logs.iter().any(|(_, held)| held.tags.contains(&tag)) {
            return Err(format!("no log of epoch {newest} that says what it has holds tag {tag}"));
        }
        if !tags.contains(&tag) {
            return Err(format!("no storage that says what it has holds tag {tag}"));
        }
    }
    let furthest = storages.iter().map(|(_, held)| held.generation).max().unwrap_or_default();
    for (manifest, held) in storages.iter().filter(|(_, held)| !held.tags.is_empty()) {
        if held.generation < furthest {
            let (storage, epoch) = (keeper(manifest), held.generation);
            doubts.push(Doubt::OlderStorage { storage, epoch, newest: furthest });
        }
    }
    let epoch = logs.iter().chain(&storages).map(|(_, held)| held.epoch).fold(newest, Epoch::max);
    // Whoever decides, it is the same.
    let node = coordinators.first().map_or(&inputs.me.node, |first| &first.node);
    let layout = layout(node, newest, &logs, &storages, &tags);
    let config = SystemConfig {
        cluster_id: inputs.cluster_id,
        // Of no group: the founding gives its own to the next configuration.
        group_id: GroupId(0),
        format_level: FORMAT_LEVEL,
        epoch,
        // Above any that there can have been.
        config_version: ConfigVersion(epoch.0.saturating_add(EPOCH_GAP)),
        coordinators: (0..)
            .zip(coordinators)
            // Where they answer, the next configuration says.
            .map(|(raft_id, service)| Coordinator {
                service: service.clone(),
                raft_id,
                address: None,
            })
            .collect(),
        next_coordinators: Vec::new(),
        parameters: Parameters::default(),
        policies: Policies::default(),
        nodes: nodes(inputs, coordinators),
        layout,
        shards: shards.summary(),
    };
    let recorded = Recorded::new(config, shards);
    recorded.validate().map_err(|invalid| invalid.to_string())?;
    Ok((recorded, doubts))
}

/// The layout of an epoch whose logs these are. What keeps nothing is named on `node`, and recruited anew.
fn layout(
    node: &NodeId,
    epoch: Epoch,
    logs: &[Worker<'_>],
    storages: &[Worker<'_>],
    tags: &BTreeSet<Tag>,
) -> Layout<ServiceRef> {
    let team = |tag: Tag| StorageTeam {
        tag,
        // One whose copy is not whole holds nothing.
        joining: Vec::new(),
        members: storages
            .iter()
            .filter(|(_, held)| held.tags.contains(&tag))
            .map(|(manifest, _)| StorageMember {
                store: manifest.store,
                service: manifest.service.clone(),
            })
            .collect(),
    };
    let here = |kind| ServiceRef::new(ServiceName::new(kind, 1), node.clone());
    Layout {
        // What the logs have taken up. The versions are told by the logs themselves when they are
        // locked, and the group's floor keeps new ones apart.
        epoch,
        recovery_version: Version::ZERO,
        first_version: Version(VERSION_GAP),
        director: here(ServiceKind::Director),
        sequencer: here(ServiceKind::Sequencer),
        commit_proxies: vec![here(ServiceKind::CommitProxy)],
        resolvers: vec![ResolverEntry {
            service: here(ServiceKind::Resolver),
            range: KeyRange::all(),
        }],
        logs: logs
            .iter()
            .map(|(manifest, held)| LogEntry {
                store: manifest.store,
                service: manifest.service.clone(),
                tags: held.tags.iter().copied().filter(|tag| tags.contains(tag)).collect(),
            })
            .collect(),
        storage_teams: tags.iter().copied().map(team).collect(),
    }
}

/// The shards as the storage with the newest rows has them. A cluster that never had others than the
/// first ones needs no rows.
fn shards(storages: &[Worker<'_>], tags: &BTreeSet<Tag>) -> Result<ShardMap, String> {
    let readable = storages.iter().filter_map(|(_, held)| {
        let shards = held.shards.as_ref().filter(|shards| shards.problems().is_empty())?;
        Some((held.generation, held.version, shards))
    });
    if let Some((.., shards)) = readable.max_by_key(|(epoch, version, _)| (*epoch, *version)) {
        return Ok(shards.clone());
    }
    let first = ShardMap::initial();
    if tags.iter().copied().eq(first.tags()) {
        return Ok(first);
    }
    Err("no storage has readable rows that say which keys belong to which tag".to_owned())
}

fn nodes(inputs: &Inputs, coordinators: &BTreeSet<ServiceRef>) -> BTreeMap<NodeId, NodeEntry> {
    let named = inputs.foremen.keys().chain(coordinators.iter().map(|service| &service.node));
    named.map(|node| (node.clone(), NodeEntry::new(Zone::of_node(node), Vec::new()))).collect()
}
