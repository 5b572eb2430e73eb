//! Walking the services of a layout.

use std::convert::Infallible;

use plinth_types::{ServiceKind, StoreId, Tag};

use crate::{
    JoiningMember, Layout, LogEntry, ResolverEntry, StorageMember, StorageTeam, SystemConfig,
};

impl<S> Layout<S> {
    /// The same layout with every service named in another way.
    pub fn map_services<T>(&self, mut name: impl FnMut(&S) -> T) -> Layout<T> {
        match self.try_map_services(|service| Ok::<T, Infallible>(name(service))) {
            Ok(layout) => layout,
            Err(never) => match never {},
        }
    }

    /// The same layout with every service named in another way.
    ///
    /// # Errors
    /// The first one of `name`; nothing is left out.
    pub fn try_map_services<T, E>(
        &self,
        mut name: impl FnMut(&S) -> Result<T, E>,
    ) -> Result<Layout<T>, E> {
        Ok(Layout {
            epoch: self.epoch,
            recovery_version: self.recovery_version,
            first_version: self.first_version,
            director: name(&self.director)?,
            sequencer: name(&self.sequencer)?,
            commit_proxies: self.commit_proxies.iter().map(&mut name).collect::<Result<_, E>>()?,
            resolvers: self
                .resolvers
                .iter()
                .map(|entry| {
                    Ok(ResolverEntry { service: name(&entry.service)?, range: entry.range.clone() })
                })
                .collect::<Result<_, E>>()?,
            logs: self
                .logs
                .iter()
                .map(|entry| {
                    Ok(LogEntry {
                        store: entry.store,
                        service: name(&entry.service)?,
                        tags: entry.tags.clone(),
                    })
                })
                .collect::<Result<_, E>>()?,
            storage_teams: self
                .storage_teams
                .iter()
                .map(|team| {
                    let members = team
                        .members
                        .iter()
                        .map(|member| {
                            Ok(StorageMember {
                                store: member.store,
                                service: name(&member.service)?,
                            })
                        })
                        .collect::<Result<_, E>>()?;
                    let joining = team
                        .joining
                        .iter()
                        .map(|newcomer| {
                            Ok(JoiningMember {
                                store: newcomer.store,
                                service: name(&newcomer.service)?,
                                replaces: newcomer.replaces,
                            })
                        })
                        .collect::<Result<_, E>>()?;
                    Ok(StorageTeam { tag: team.tag, members, joining })
                })
                .collect::<Result<_, E>>()?,
        })
    }

    /// Every service with the kind that its place calls for, once for each place: a storage of two
    /// teams comes twice.
    pub fn services(&self) -> impl Iterator<Item = (ServiceKind, &S)> {
        let single =
            [(ServiceKind::Director, &self.director), (ServiceKind::Sequencer, &self.sequencer)];
        let proxies = self.commit_proxies.iter().map(|proxy| (ServiceKind::CommitProxy, proxy));
        let resolvers = self.resolvers.iter().map(|entry| (ServiceKind::Resolver, &entry.service));
        let durable = self.durable().map(|(kind, _, service)| (kind, service));
        single.into_iter().chain(proxies).chain(resolvers).chain(durable)
    }

    /// Every durable worker with its directory, once for each place: logs, then storages by team,
    /// those that are joining it last.
    pub fn durable(&self) -> impl Iterator<Item = (ServiceKind, StoreId, &S)> {
        let logs = self.logs.iter().map(|log| (ServiceKind::Log, log.store, &log.service));
        let storages = self
            .storage_teams
            .iter()
            .flat_map(StorageTeam::everybody)
            .map(|(store, service)| (ServiceKind::Storage, store, service));
        logs.chain(storages)
    }

    /// Whether a durable worker's directory belongs to the layout.
    #[must_use]
    pub fn names_store(&self, store: StoreId) -> bool {
        self.durable().any(|(_, named, _)| named == store)
    }

    /// The storages of a tag that have a copy; none if the tag has no team.
    #[must_use]
    pub fn team(&self, tag: Tag) -> &[StorageMember<S>] {
        self.storage_teams.iter().find(|team| team.tag == tag).map_or(&[], |team| &team.members)
    }

    /// The storages that hold `\xff/system`.
    #[must_use]
    pub fn config_team(&self) -> &[StorageMember<S>] {
        self.team(Tag::SYSTEM)
    }

    /// The logs that hold a tag.
    pub fn logs_of(&self, tag: Tag) -> impl Iterator<Item = &LogEntry<S>> {
        self.logs.iter().filter(move |log| log.tags.contains(&tag))
    }
}

impl<S> StorageTeam<S> {
    /// Members, and then those that are joining, with their directories. The logs keep the tag's data
    /// for all of them.
    pub fn everybody(&self) -> impl Iterator<Item = (StoreId, &S)> {
        let members = self.members.iter().map(|member| (member.store, &member.service));
        members.chain(self.joining.iter().map(|newcomer| (newcomer.store, &newcomer.service)))
    }

    /// Takes a member out. A newcomer that was to take its place joins beside the others.
    pub fn drop_member(&mut self, store: StoreId) {
        self.members.retain(|member| member.store != store);
        for newcomer in &mut self.joining {
            newcomer.replaces.take_if(|replaces| *replaces == store);
        }
    }
}

impl<S> SystemConfig<S> {
    /// The same configuration with every service of the layout named in another way.
    pub fn map_services<T>(&self, mut name: impl FnMut(&S) -> T) -> SystemConfig<T> {
        match self.try_map_services(|service| Ok::<T, Infallible>(name(service))) {
            Ok(config) => config,
            Err(never) => match never {},
        }
    }

    /// The same configuration with every service of the layout named in another way.
    ///
    /// # Errors
    /// The first one of `name`; nothing is left out.
    pub fn try_map_services<T, E>(
        &self,
        name: impl FnMut(&S) -> Result<T, E>,
    ) -> Result<SystemConfig<T>, E> {
        Ok(SystemConfig {
            cluster_id: self.cluster_id,
            group_id: self.group_id,
            format_level: self.format_level,
            epoch: self.epoch,
            config_version: self.config_version,
            coordinators: self.coordinators.clone(),
            next_coordinators: self.next_coordinators.clone(),
            parameters: self.parameters.clone(),
            policies: self.policies.clone(),
            nodes: self.nodes.clone(),
            layout: self.layout.try_map_services(name)?,
            shards: self.shards,
        })
    }
}
