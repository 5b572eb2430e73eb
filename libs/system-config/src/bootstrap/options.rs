//! What an operator may do where nothing can be decided: found the coordinators' group again from
//! what there is, knowing what may be lost by it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use plinth_types::{Epoch, GroupId, ServiceRef, StoreId, Tag};

use super::decide::{Group, census};
use super::refound::{is_majority, newest};
use super::survey::{Survey, configurations, floor, is_ambiguous};
use super::{
    BootstrapSource, Decision, Floor, ForemanReport, Inputs, Keeper, Known, Missing, decide, logs,
    manifests,
};
use crate::{Recorded, Stamp};

/// What may be lost, or is not known. Each is a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It has not answered.
    Unheard(Missing),
    /// A coordinator that has not answered will be no member.
    LeftOut(ServiceRef),
    /// A group is given up.
    GivenUp(GroupId),
    /// Too few storages of the configuration's team have one that can be read.
    TeamLost {
        /// How many have.
        valid: usize,
        /// How many there are.
        members: usize,
    },
    /// A log of the configuration's layout does not say that it is the newest.
    LogUnproven(Keeper),
    /// A worker has served a later epoch.
    LaterEpoch {
        /// The worker.
        service: ServiceRef,
        /// The epoch.
        epoch: Epoch,
    },
    /// Another configuration has the same place.
    Ambiguous(Stamp),
    /// The parameters are not known.
    DefaultParameters,
    /// A log that an earlier epoch has left is not used.
    OlderLog {
        /// The log.
        log: Keeper,
        /// Its newest epoch.
        epoch: Epoch,
        /// That of the others.
        newest: Epoch,
    },
    /// A storage is behind others: it may have been replaced.
    OlderStorage {
        /// The storage.
        storage: Keeper,
        /// Its newest epoch.
        epoch: Epoch,
        /// That of the others.
        newest: Epoch,
    },
    /// There is nothing to go on from: the cluster is begun as a new one, with whatever id it has.
    BeginsAnew,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::Unheard(missing) => {
                write!(f, "{missing} has not answered: what it has is not taken into account")
            }
            Doubt::LeftOut(service) => write!(
                f,
                "{service} has not answered and will be no member of the new group; it joins when it \
                 comes back, and must not be started while the new members are down"
            ),
            Doubt::GivenUp(group) => {
                write!(
                    f,
                    "the coordinators' group {group} is given up, with all it has agreed upon"
                )
            }
            Doubt::TeamLost { valid, members } => write!(
                f,
                "only {valid} of the {members} storages of the configuration's team have one that can \
                 be read"
            ),
            Doubt::LogUnproven(Keeper { service, store }) => write!(
                f,
                "{service} (store {store}) does not show that no later epoch was in force: changes \
                 and commits of a later one would be lost"
            ),
            Doubt::LaterEpoch { service, epoch } => write!(
                f,
                "{service} has taken part in epoch {epoch}, after the configuration's: what that one \
                 has recorded is lost"
            ),
            Doubt::Ambiguous(stamp) => {
                write!(f, "another configuration has {stamp} as well; the one shown is taken")
            }
            Doubt::DefaultParameters => {
                f.write_str("every parameter goes back to its default, and policies too")
            }
            Doubt::OlderLog { log, epoch, newest } => write!(
                f,
                "{} (store {}) was last part of epoch {epoch}, others of {newest}: it is not used",
                log.service, log.store
            ),
            Doubt::OlderStorage { storage, epoch, newest } => write!(
                f,
                "{} (store {}) was last part of epoch {epoch}, others of {newest}: it may have been \
                 replaced",
                storage.service, storage.store
            ),
            Doubt::BeginsAnew => f.write_str(
                "nothing is left to go on from: the cluster begins with defaults and without data",
            ),
        }
    }
}

/// What an operator may have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryOption {
    /// The configuration to go on from; none to begin anew.
    pub recorded: Option<Arc<Recorded>>,
    /// The worker that keeps it; none if no single one does.
    pub from: Option<Keeper>,
    /// Where it is from.
    pub source: BootstrapSource,
    /// The coordinators of the new group: those that have answered.
    pub members: BTreeSet<ServiceRef>,
    /// Those of before a change of the membership that have answered, and will be no members. They must
    /// promise as well.
    pub former: BTreeSet<ServiceRef>,
    /// Groups that are given up.
    pub renounce: BTreeSet<GroupId>,
    /// Where the group's epochs and versions start.
    pub floor: Floor,
    /// What may be lost; an empty list says that nothing is.
    pub doubts: Vec<Doubt>,
}

/// Why an operator has nothing to decide.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoOption {
    /// A majority of the coordinators is there.
    #[error("a majority of the coordinators' group {0} is there: it goes on by itself")]
    Alive(GroupId),
    /// The coordinators decide by themselves.
    #[error("the coordinators are about to go on by themselves")]
    Decided,
    /// There is no configuration, and none can be made.
    #[error("no configuration can be read anywhere, and none can be made: {0}")]
    NothingLeft(String),
    /// No coordinator could be a member.
    #[error("no coordinator of the configuration or of the cluster file has answered")]
    NoCoordinator,
}

/// What the operator may have done. Only the newest configuration is ever offered: an older one would
/// undo what was acknowledged.
///
/// # Errors
/// There is nothing to decide, or nothing that could be done.
pub fn recovery_option(inputs: &Inputs) -> Result<RecoveryOption, NoOption> {
    if let Ok(Some(group)) = Group::leading(inputs)
        && census(inputs, Some(group.id), &group.memberships).is_alive()
    {
        return Err(NoOption::Alive(group.id));
    }
    match decide(inputs).decision {
        Decision::Refound { .. }
        | Decision::RebuildFromManifests { .. }
        | Decision::ColdStart { .. } => return Err(NoOption::Decided),
        // These take a majority, which is not there.
        Decision::GoOn { .. }
        | Decision::GoOnFounding { .. }
        | Decision::AdoptHigher { .. }
        | Decision::Rejoin { .. }
        | Decision::Wait { .. }
        | Decision::Unready { .. } => {}
    }
    let survey = Survey::of(inputs);
    let renounce: BTreeSet<GroupId> = inputs.running().map(|(_, report)| report.group_id).collect();
    let mut doubts: Vec<Doubt> = renounce.iter().copied().map(Doubt::GivenUp).collect();
    doubts.extend(survey.missing.iter().cloned().map(Doubt::Unheard));
    let newest = newest(inputs, &survey);
    let Answered { members, former, silent } =
        Answered::of(inputs, newest.as_ref().map(|(recorded, _)| &**recorded));
    if members.is_empty() {
        return Err(NoOption::NoCoordinator);
    }
    doubts.extend(silent.into_iter().map(Doubt::LeftOut));
    let floor = floor(inputs);
    if let Some((recorded, from)) = newest {
        doubts.extend(unproven(inputs, &survey.valid, &recorded));
        let source = BootstrapSource::Storage;
        let recorded = Some(recorded);
        return Ok(RecoveryOption {
            recorded,
            from,
            source,
            members,
            former,
            renounce,
            floor,
            doubts,
        });
    }
    if inputs.manifests().next().is_none() && inputs.workers.is_empty() {
        check_empty(inputs, &doubts)?;
        doubts.push(Doubt::BeginsAnew);
        let source = BootstrapSource::Default;
        let (recorded, from) = (None, None);
        return Ok(RecoveryOption {
            recorded,
            from,
            source,
            members,
            former,
            renounce,
            floor,
            doubts,
        });
    }
    let (recorded, more) = manifests::rebuild(inputs, &members).map_err(NoOption::NothingLeft)?;
    doubts.extend(more);
    Ok(RecoveryOption {
        recorded: Some(Arc::new(recorded)),
        from: None,
        source: BootstrapSource::Manifests,
        members,
        former,
        renounce,
        floor,
        doubts,
    })
}

/// Whether nothing is left indeed, where nobody has said that there is anything.
fn check_empty(inputs: &Inputs, doubts: &[Doubt]) -> Result<(), NoOption> {
    // Silence is never taken for none, whoever says so.
    let silent = doubts.iter().find(|doubt| !matches!(doubt, Doubt::GivenUp(_)));
    if let Some(silent) = silent {
        return Err(NoOption::NothingLeft(silent.to_string()));
    }
    let is_foreign = |report: &ForemanReport| {
        report.cluster_id.is_some_and(|theirs| theirs != inputs.cluster_id)
    };
    if inputs.foremen.values().any(is_foreign) {
        return Err(NoOption::NothingLeft("a node belongs to another cluster".to_owned()));
    }
    Ok(())
}

/// The coordinators that a founding concerns.
struct Answered {
    /// They have answered, and will be members.
    members: BTreeSet<ServiceRef>,
    /// They have answered, and were members before a change.
    former: BTreeSet<ServiceRef>,
    /// They have not.
    silent: BTreeSet<ServiceRef>,
}

impl Answered {
    fn of(inputs: &Inputs, newest: Option<&Recorded>) -> Answered {
        let mut memberships = match newest {
            Some(recorded) => recorded.config.memberships(),
            None => vec![inputs.cluster_file.clone()],
        };
        let has_answered = |member: &ServiceRef| *inputs.coordinator(member) != Known::Unknown;
        let next = memberships.pop().unwrap_or_default();
        let (members, mut silent): (BTreeSet<_>, BTreeSet<_>) =
            next.into_iter().partition(has_answered);
        let before = memberships.pop().unwrap_or_default();
        let before =
            before.into_iter().filter(|one| !members.contains(one) && !silent.contains(one));
        let (former, more): (BTreeSet<_>, BTreeSet<_>) = before.partition(has_answered);
        silent.extend(more);
        Answered { members, former, silent }
    }
}

/// What keeps the newest known configuration from being known to be the newest.
fn unproven(inputs: &Inputs, valid: &BTreeSet<StoreId>, recorded: &Recorded) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    let layout = &recorded.config.layout;
    let stamp = recorded.stamp();
    if is_ambiguous(inputs, stamp) {
        doubts.push(Doubt::Ambiguous(stamp));
    }
    debug_assert!(configurations(inputs).all(|other| other.stamp() <= stamp));
    let team = layout.config_team();
    let valid = team.iter().filter(|member| valid.contains(&member.store)).count();
    if !is_majority(valid, team.len()) && !logs::show_newest(inputs, recorded) {
        doubts.push(Doubt::TeamLost { valid, members: team.len() });
        let unproven =
            layout.logs_of(Tag::SYSTEM).filter(|log| !logs::vouches(inputs, log.store, recorded));
        doubts.extend(unproven.map(|log| {
            Doubt::LogUnproven(Keeper { service: log.service.clone(), store: log.store })
        }));
        doubts.extend(logs::later(inputs, recorded).map(|(manifest, epoch)| Doubt::LaterEpoch {
            service: manifest.service.clone(),
            epoch,
        }));
    }
    doubts
}
