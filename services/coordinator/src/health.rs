//! What the cluster can still bear: a pure function of what is recorded and of who runs.

use std::collections::BTreeMap;

use plinth_api::coordinator::ClusterHealth;
use plinth_api::foreman::{NodeReport, WorkerState};
use plinth_system_config::{Layout, NodeEntry, SystemConfig};
use plinth_types::{NodeId, ServiceKind, ServiceRef, StoreId};

/// What is looked at.
pub(crate) struct Seen<'a> {
    /// The nodes that have reported lately.
    pub(crate) nodes: &'a [NodeReport],
    /// The voting coordinators.
    pub(crate) voters: &'a [ServiceRef],
    /// The recorded configuration.
    pub(crate) config: Option<&'a SystemConfig<ServiceRef>>,
    /// Whether commits are accepted, and if not, why.
    pub(crate) ready: Result<(), String>,
}

/// Services that do the same, of which some must live.
struct Group {
    /// What they are, in words.
    name: String,
    /// How many must live.
    needed: usize,
    /// How many live on each node.
    living: BTreeMap<NodeId, usize>,
}

impl Group {
    /// How many nodes may be lost, the fullest first, with enough of the group left. None where there
    /// are not enough now.
    fn spare(&self) -> Option<u32> {
        let mut left: usize = self.living.values().sum();
        if left < self.needed {
            return None;
        }
        let mut counts: Vec<usize> = self.living.values().copied().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let mut lost = 0;
        for count in counts {
            left -= count;
            if left < self.needed {
                break;
            }
            lost += 1;
        }
        Some(lost)
    }
}

impl Seen<'_> {
    fn is_up(&self, service: &ServiceRef, store: Option<StoreId>) -> bool {
        self.nodes.iter().filter(|report| report.node == service.node).any(|report| {
            report.workers.iter().any(|worker| {
                worker.name == service.name
                    && worker.state == WorkerState::Up
                    && (store.is_none() || worker.store == store)
            })
        })
    }

    /// A group of named services. Who is missing becomes a reason.
    fn group<'s>(
        &self,
        name: String,
        needed: usize,
        services: impl Iterator<Item = (&'s ServiceRef, Option<StoreId>)>,
        reasons: &mut Vec<String>,
    ) -> Group {
        let mut living = BTreeMap::new();
        for (service, store) in services {
            if self.is_up(service, store) {
                *living.entry(service.node.clone()).or_default() += 1;
            } else {
                let reason = format!("{service} does not run");
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
        }
        Group { name, needed, living }
    }

    /// The groups that each must keep one member for no data to be lost.
    fn data(&self, layout: &Layout<ServiceRef>, reasons: &mut Vec<String>) -> Vec<Group> {
        let mut groups = Vec::new();
        for team in &layout.storage_teams {
            let tag = team.tag;
            let members = team.members.iter().map(|member| (&member.service, Some(member.store)));
            groups.push(self.group(format!("storages of tag {tag}"), 1, members, reasons));
            let logs = layout.logs_of(tag).map(|log| (&log.service, Some(log.store)));
            groups.push(self.group(format!("logs of tag {tag}"), 1, logs, reasons));
        }
        groups
    }

    /// The further groups without which no epoch becomes ready.
    fn availability(
        &self,
        config: &SystemConfig<ServiceRef>,
        reasons: &mut Vec<String>,
    ) -> Vec<Group> {
        let majority = |all: usize| all / 2 + 1;
        let voters = self.voters.iter().map(|voter| (voter, None));
        let team = config.layout.config_team();
        let members = team.iter().map(|member| (&member.service, Some(member.store)));
        let mut directors = BTreeMap::new();
        for report in self.nodes {
            let is_director = |worker: &&plinth_api::foreman::Worker| {
                worker.name.kind == ServiceKind::Director && worker.state == WorkerState::Up
            };
            let living = report.workers.iter().filter(is_director).count();
            directors.insert(report.node.clone(), living);
        }
        if directors.values().sum::<usize>() == 1 {
            reasons.push("no director stands by".to_owned());
        }
        let foremen = self.nodes.iter().map(|report| (report.node.clone(), 1)).collect();
        vec![
            self.group("coordinators".to_owned(), majority(self.voters.len()), voters, reasons),
            self.group("the config team".to_owned(), majority(team.len()), members, reasons),
            Group { name: "directors".to_owned(), needed: 1, living: directors },
            Group { name: "foremen".to_owned(), needed: 1, living: foremen },
        ]
    }
}

/// Says what the cluster can still bear.
pub(crate) fn assess(seen: &Seen<'_>) -> ClusterHealth {
    let mut reasons: Vec<String> = seen.ready.as_ref().err().cloned().into_iter().collect();
    let Some(config) = seen.config else {
        reasons.push("no configuration is recorded yet".to_owned());
        return ClusterHealth {
            healthy: false,
            may_lose_for_data: None,
            may_lose_for_availability: None,
            reasons,
        };
    };
    // Who is drained may be switched off.
    let wanted = |(node, entry): &(&NodeId, &NodeEntry)| {
        entry.standing.is_in_use() || !config.remaining_on(node).is_empty()
    };
    for (node, _) in config.nodes.iter().filter(wanted) {
        if !seen.nodes.iter().any(|report| report.node == *node) {
            reasons.push(format!("{node} does not report"));
        }
    }
    for team in &config.layout.storage_teams {
        for newcomer in &team.joining {
            let (service, tag) = (&newcomer.service, team.tag);
            reasons.push(format!("{service} is being given a copy of tag {tag}"));
        }
    }
    let copies = usize::try_from(config.parameters.replication).unwrap_or(usize::MAX);
    let data = seen.data(&config.layout, &mut reasons);
    for group in &data {
        let living: usize = group.living.values().sum();
        if living < copies {
            reasons.push(format!("{living} {} of {copies} that should be", group.name));
        }
    }
    let spare = |groups: &[Group]| {
        groups.iter().map(Group::spare).try_fold(u32::MAX, |least, spare| Some(least.min(spare?)))
    };
    let may_lose_for_data = spare(&data);
    let others = seen.availability(config, &mut reasons);
    for group in others.iter().filter(|group| group.spare().is_none()) {
        reasons.push(format!("too few of {}", group.name));
    }
    let available = match (may_lose_for_data, spare(&others)) {
        (Some(data), Some(others)) if seen.ready.is_ok() => Some(data.min(others)),
        _ => None,
    };
    ClusterHealth {
        healthy: reasons.is_empty(),
        may_lose_for_data,
        may_lose_for_availability: available,
        reasons,
    }
}

#[cfg(test)]
mod tests;
