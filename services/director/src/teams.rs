//! The storage teams within an epoch: who is given a copy, who leaves, who is ordered away; and whether
//! the logs could be spread better ([`View::better_log`]). Pure: what is seen of the storages goes in,
//! one step comes out.
//!
//! # The argument for safety
//!
//! A team's *members* are the storages that have everything of a tag, or find what they lack in the
//! logs. Everything depends on that: reads go to members, the logs drop what all of them have, and a
//! newcomer's copy comes from one of them. So whoever becomes a member must have a whole copy, and the
//! logs must have kept the tag for it since. A change takes two steps, each a compare-and-set at the
//! coordinators ([`crate::amending`]):
//!
//! 1. [`Change::Join`]: the layout names the newcomer as *joining*. Every log of the epoch keeps that
//!    layout durably, and with it the tag's data for the newcomer, before the newcomer is told to take
//!    a copy. What the logs have dropped until then, all members have on disk, and so has the one that
//!    the copy's first page comes from: nothing is missing between the copy and the logs.
//! 2. [`Change::Complete`]: once the newcomer says, from its disk, that its copy is whole, it becomes a
//!    member, and the one that it replaces leaves. Only when every log keeps that layout do they stop
//!    to keep data for the one that has left.
//!
//! Nothing here is remembered but in the layout. A director may end at any point, and whoever comes
//! after it finds one of three states: the step was not recorded, and it is as if it had never been
//! thought of; the newcomer is joining, and the new epoch's logs keep the tag for it from their
//! assignment on, as those before did or would have done; or it is a member. A newcomer says itself how
//! far its copy is. Where the logs have dropped what it lacks, because it was not in the layout for a
//! while, it begins again.
//!
//! A team is never left without a whole copy that runs: a member is taken out only for another one that
//! is whole, or while another member is here and not behind; one that is too many, only while as many
//! others are as there should be copies. And a change is begun only while a
//! majority of the config team confirms it, before and after, without whoever leaves: it would end the
//! epoch otherwise, and each one after it.
//!
//! An order to remove a directory goes to a storage that no layout names and that *has data*: it was a
//! member or a newcomer once, and is never recruited again. Who is recruited is blank. So no directory
//! is ordered away while it is being taken in, not even by a director that is no longer the latest. And
//! none is while a copy is lacking.

mod leaving;
mod logs;
mod view;

use std::collections::BTreeMap;
use std::time::Duration;

use plinth_system_config::{
    FORMAT_LEVEL, JoiningMember, NodeEntry, Recorded, StorageMember, StorageTeam,
};
use plinth_types::{NodeId, ServiceRef, StoreId, Tag};

pub(crate) use self::leaving::Leaving;
pub(crate) use self::logs::LogSite;
pub(crate) use self::view::View;

/// The level of the written form that can name a newcomer.
const LEVEL: u32 = 2;

/// A change of the recorded layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A storage begins to take a copy of these tags, each in place of a member or of nobody.
    Join { store: StoreId, service: ServiceRef, places: Vec<(Tag, Option<StoreId>)>, why: String },
    /// A newcomer has a whole copy. Whom it replaces leaves, unless it is taken in beside the others.
    Complete { store: StoreId, service: ServiceRef, beside: bool },
    /// A newcomer is not wanted any more.
    Cancel { store: StoreId, service: ServiceRef, why: String },
    /// A member leaves, and nobody in its place yet.
    Drop { store: StoreId, service: ServiceRef, why: String },
    /// A member leaves one team, which has more copies than it should have.
    Leave { store: StoreId, service: ServiceRef, tag: Tag },
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Change(Change),
    /// A foreman is to make a storage.
    Make(ServiceRef),
}

impl Change {
    /// Its kind, in a word.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Change::Join { .. } => "join",
            Change::Complete { .. } => "complete",
            Change::Cancel { .. } => "cancel",
            Change::Drop { .. } => "drop",
            Change::Leave { .. } => "leave",
        }
    }

    /// What it is, for people.
    pub(crate) fn describe(&self) -> String {
        let tags = |places: &[(Tag, Option<StoreId>)]| {
            places.iter().map(|(tag, _)| tag.to_string()).collect::<Vec<_>>().join(", ")
        };
        match self {
            Change::Join { service, places, why, .. } => {
                format!("{service} joins the team of tag {}: {why}", tags(places))
            }
            Change::Complete { service, beside: false, .. } => {
                format!("{service} has a whole copy")
            }
            Change::Complete { service, beside: true, .. } => {
                format!("{service} has a whole copy, beside the others")
            }
            Change::Cancel { service, why, .. } => format!("{service} no longer joins: {why}"),
            Change::Drop { service, why, .. } => format!("{service} is dropped: {why}"),
            Change::Leave { service, tag, .. } => {
                format!(
                    "{service} leaves the team of tag {tag}: there are more copies than asked for"
                )
            }
        }
    }

    /// The configuration that the change makes of this one. `nodes` are those that report.
    pub(crate) fn apply(
        &self,
        recorded: &Recorded,
        nodes: &BTreeMap<NodeId, NodeEntry>,
    ) -> Recorded {
        let mut next = recorded.clone();
        next.config.config_version = recorded.config.config_version.next();
        for (node, entry) in nodes {
            NodeEntry::note(&mut next.config.nodes, node, entry.clone());
        }
        for team in &mut next.config.layout.storage_teams {
            self.apply_to(team);
        }
        next
    }

    fn apply_to(&self, team: &mut StorageTeam<ServiceRef>) {
        match self {
            Change::Join { store, service, places, .. } => {
                let place = places.iter().find(|(tag, _)| *tag == team.tag);
                if let Some((_, replaces)) = place {
                    let (store, service, replaces) = (*store, service.clone(), *replaces);
                    team.joining.push(JoiningMember { store, service, replaces });
                }
            }
            Change::Complete { store, beside, .. } => {
                let Some(at) = team.joining.iter().position(|one| one.store == *store) else {
                    return;
                };
                let JoiningMember { store, service, replaces } = team.joining.remove(at);
                team.members.retain(|member| *beside || Some(member.store) != replaces);
                team.members.push(StorageMember { store, service });
            }
            Change::Cancel { store, .. } => team.joining.retain(|one| one.store != *store),
            Change::Leave { store, tag, .. } if *tag == team.tag => {
                team.drop_member(*store);
            }
            Change::Leave { .. } => {}
            Change::Drop { store, .. } => team.drop_member(*store),
        }
    }
}

/// What is to be done next; nothing where all is as it should be, or can't be made better now.
pub(crate) fn next(view: &View<'_>) -> Option<Step> {
    let joining = view.joining();
    for (store, service) in &joining {
        let mut changes = of_newcomer(view, *store, service).into_iter();
        if let Some(change) = changes.find(|change| view.is_provable(change)) {
            return Some(Step::Change(change));
        }
    }
    if let Some(change) = lagging(view)
        && view.is_provable(&change)
    {
        return Some(Step::Change(change));
    }
    // One at a time: a second copy would only slow the first one down.
    if !joining.is_empty() {
        return None;
    }
    if let Some(change) = surplus(view) {
        return Some(Step::Change(change));
    }
    if view.recorded.config.format_level < LEVEL.min(FORMAT_LEVEL) {
        return None;
    }
    wanted(view)
}

/// What may become of a newcomer, the best first.
fn of_newcomer(view: &View<'_>, store: StoreId, service: &ServiceRef) -> Vec<Change> {
    let complete = |beside| Change::Complete { store, service: service.clone(), beside };
    let unwanted = unwanted(view, store, service);
    let cancel = unwanted.map(|why| Change::Cancel { store, service: service.clone(), why });
    if !view.is_whole(store) {
        return cancel.into_iter().collect();
    }
    if !view.is_stuck(store) {
        return vec![complete(false)];
    }
    // Those who stay can't confirm that a member leaves, but all of them with the newcomer may: then there
    // is one more, and whoever is of the least use can leave after it.
    let beside = cancel.is_none().then(|| complete(true));
    [complete(false)].into_iter().chain(cancel).chain(beside).collect()
}

/// Why a newcomer is not wanted any more.
fn unwanted(view: &View<'_>, store: StoreId, service: &ServiceRef) -> Option<String> {
    if view.gone(store) >= view.patience() {
        return Some(format!("it has been gone for {} s", view.gone(store).as_secs()));
    }
    if !view.is_usable(&service.node) {
        return Some(format!("{} is being drained", service.node));
    }
    let layout = &view.recorded.config.layout;
    let mut places = layout.storage_teams.iter().flat_map(|team| {
        let newcomers = team.joining.iter().filter(|newcomer| newcomer.store == store);
        newcomers.map(move |newcomer| (team, newcomer.replaces))
    });
    let is_wanted = |(team, replaces): (&StorageTeam<ServiceRef>, Option<StoreId>)| match replaces {
        None => team.members.len() < view.copies(team.tag),
        // How long it has been gone, only one director knows: it must be seen to be back.
        Some(member) => {
            !view.is_current(member, team.tag)
                || view.is_lagging(member)
                || view.is_crowded(member, &service.node)
                || view.is_to_go(member)
        }
    };
    if places.any(is_wanted) {
        return None;
    }
    Some("the team is complete without it".to_owned())
}

/// A member that is too far behind, where another one has everything.
fn lagging(view: &View<'_>) -> Option<Change> {
    let members = view.members();
    let (store, service) = members.iter().find(|(store, _)| view.is_lagging(**store))?;
    let has_another = |team: &StorageTeam<ServiceRef>| {
        let mut others = team.members.iter().filter(|member| member.store != *store);
        others.any(|other| view.is_current(other.store, team.tag) && !view.is_lagging(other.store))
    };
    view.teams_of(*store).all(has_another).then(|| {
        let what = match view.lacks_data(*store) {
            true => "has lost what the logs have dropped since".to_owned(),
            false => format!("is {} bytes of log behind", view.backlog(*store)),
        };
        let why = format!("it {what}, and must take a copy again");
        Change::Drop { store: *store, service: service.clone(), why }
    })
}

/// A member that is one too many, where enough of the others have everything: rather one that has not,
/// or that shares its zone.
fn surplus(view: &View<'_>) -> Option<Change> {
    view.recorded.config.layout.storage_teams.iter().find_map(|team| {
        let is_whole = |store| view.is_current(store, team.tag) && !view.is_lagging(store);
        let zones = view.zones_of(team);
        let can_leave = |leaver: &&StorageMember<ServiceRef>| {
            let others = team.members.iter().filter(|member| member.store != leaver.store);
            others.filter(|member| is_whole(member.store)).count() >= view.copies(team.tag)
        };
        let rank = |member: &&StorageMember<ServiceRef>| {
            let crowd = zones.get(&view.zone(&member.service.node)).copied();
            let is_to_go = view.is_to_go(member.store);
            (!is_whole(member.store), is_to_go, crowd, member.store)
        };
        let StorageMember { store, service } =
            team.members.iter().filter(can_leave).max_by_key(rank)?.clone();
        // Where one team can't spare anybody, another one may.
        Some(Change::Leave { store, service, tag: team.tag })
            .filter(|change| view.is_provable(change))
    })
}

/// A copy that is wanted, and who is to take it.
fn wanted(view: &View<'_>) -> Option<Step> {
    let members = view.members();
    // What is lost comes first, then what is too little, then what is to go, then what could be spread
    // better.
    let lost = members.iter().find_map(|(store, service)| {
        let why = format!("{service} {}", view.should_leave(*store)?);
        Some((replacing(view, *store), why))
    });
    let short = || {
        let teams = view.recorded.config.layout.storage_teams.iter();
        let short = teams.filter(|team| team.members.len() < view.copies(team.tag));
        let places: Vec<_> = short.map(|team| (team.tag, None)).collect();
        (!places.is_empty()).then(|| (places, "there are too few copies".to_owned()))
    };
    let to_go = || {
        let (store, service) = members.iter().find(|(store, _)| view.is_to_go(**store))?;
        let places = replacing(view, *store);
        // It serves on as well as ever: rather that than two copies on one node.
        let site = view.best_site(&places).filter(|site| !view.has_copy(site, &places));
        let why = format!("{} is being drained", service.node);
        site.map(|_| (places, why))
    };
    let crowded = || {
        let (store, service) = members.iter().find(|(store, _)| view.has_better_place(**store))?;
        let why = format!("{service} shares its zone with another copy");
        Some((replacing(view, *store), why))
    };
    let (places, why) = lost.or_else(short).or_else(to_go).or_else(crowded)?;
    let site = view.best_site(&places)?;
    match view.blank_storage(&site) {
        Some((store, service)) => {
            let change = Change::Join { store, service, places, why };
            view.is_provable(&change).then_some(Step::Change(change))
        }
        None => Some(Step::Make(view.free_name(&site)?)),
    }
}

fn replacing(view: &View<'_>, store: StoreId) -> Vec<(Tag, Option<StoreId>)> {
    view.teams_of(store).map(|team| (team.tag, Some(store))).collect()
}

/// Where copies are lacking, or they or the logs are not spread, in words.
pub(crate) fn degraded(view: &View<'_>) -> Vec<String> {
    let mut words = Vec::new();
    for team in &view.recorded.config.layout.storage_teams {
        let tag = team.tag;
        let (here, wanted) = (view.here(team).count(), view.copies(tag));
        if here < wanted {
            words.push(format!("{here} of {wanted} copies of tag {tag} are there"));
        }
        for (zone, count) in view.zones_of(team) {
            if count > 1 {
                words.push(format!("{count} copies of tag {tag} are in zone {zone}"));
            }
        }
        for (zone, count) in view.zones_of_logs_of(tag) {
            if count > 1 {
                words.push(format!("{count} logs of tag {tag} are in zone {zone}"));
            }
        }
    }
    words
}

/// How long a member may be behind and count as current, in versions: two seconds.
pub(crate) const LAG: u64 = 2 * plinth_types::VERSIONS_PER_SECOND;

/// A duration of a parameter.
pub(crate) const fn milliseconds(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[cfg(test)]
mod tests;
