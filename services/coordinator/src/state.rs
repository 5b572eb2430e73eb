//! What the coordinators agree on: the latest appointment and the recorded configuration. Pure;
//! every coordinator applies the same commands in the same order.
//!
//! - Epochs strictly increase: every appointment, even of the same process, is a fresh one.
//! - A configuration is taken only from the latest appointed director, and only on top of the one
//!   it has read. Appointing the next epoch voids whatever the one before still sends.
//! - A configuration is never replaced by one that is not newer.
//! - Raft takes up another membership only after a configuration that names both is recorded and proved,
//!   and from then on no configuration is recorded that names either no more, until it has.
//! - An epoch is ready only once its layout is recorded.
//! - While no epoch is ready, parameters, orders about nodes and the format level are changed here. That voids the appointment in the same step:
//!   a director that has read the configuration of before can neither record nor become ready.

use std::collections::BTreeSet;

use plinth_api::coordinator::{Appointed, Founding, ReadyRequest, RecordRequest, Recovery};
use plinth_system_config::bootstrap::{EPOCH_GAP, Floor, apart};
use plinth_system_config::{MEMBERS_LEVEL, NodeEntry, Parameters, Recorded, Stamp};
use plinth_types::{
    ClusterId, ConfigVersion, Epoch, GroupId, Incarnation, NodeId, Pid, ServiceRef, Version,
};
use serde::{Deserialize, Serialize};

use crate::config::RECOVERIES;

/// What the coordinators agree on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClusterState {
    /// The cluster; none before the founding was applied.
    pub(crate) cluster: Option<ClusterId>,
    /// The founding; none before it was applied.
    pub(crate) group: Option<GroupId>,
    /// The latest epoch.
    pub(crate) epoch: Epoch,
    /// The epoch above which the group was founded or last taken up.
    pub(crate) epoch_floor: Epoch,
    /// The latest appointment.
    pub(crate) appointed: Option<Appointed>,
    /// The recorded configuration.
    pub(crate) recorded: Option<Recorded>,
    /// The configuration of the last ready epoch.
    pub(crate) ready: Option<Recorded>,
    /// The last ready epoch.
    pub(crate) ready_epoch: Epoch,
    /// The last recoveries, newest first.
    pub(crate) recoveries: Vec<Recovery>,
    /// No first version may be below this.
    pub(crate) version_floor: Version,
    /// Where the configuration came from that the group was founded with.
    pub(crate) source: String,
    /// The storage that it came from.
    pub(crate) storage: Option<ServiceRef>,
    /// Why the next epoch begins, where a change of the configuration has voided the appointment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) voided: Option<String>,
    /// The membership that Raft is about to take up. It is set once the configuration names it in
    /// storage, and is none again once Raft has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) moving: Option<BTreeSet<ServiceRef>>,
}

/// The memberships that Raft has at some place of its log, the next one last: two in its joint phase.
pub(crate) type Memberships = [BTreeSet<ServiceRef>];

/// A change, as it stands in the Raft log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Command {
    /// The group's first: what it was founded from.
    Found {
        /// The cluster.
        cluster: ClusterId,
        /// The founding.
        founding: Founding,
    },
    /// A configuration above the recorded one was found: Raft's state was rolled back.
    Adopt {
        /// The configuration.
        recorded: Recorded,
        /// The next epoch is not below this.
        epoch_floor: Epoch,
        /// No first version may be below this.
        version_floor: Version,
    },
    /// Appoints a director to a fresh epoch.
    Appoint {
        /// Which service.
        service: ServiceRef,
        /// Which process.
        pid: Pid,
        /// Why.
        cause: String,
        /// An epoch that somebody has served or was locked at; the fresh one is far above it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        above: Option<Epoch>,
    },
    /// Records a configuration.
    Record(RecordRequest),
    /// Changes parameters while no epoch is ready.
    Configure {
        /// The number of the configuration that is changed.
        expected: ConfigVersion,
        /// All of them, as they are to be.
        parameters: Parameters,
        /// What changes, for people.
        what: String,
    },
    /// Orders how a node stands while no epoch is ready.
    Order {
        /// The number of the configuration that is changed.
        expected: ConfigVersion,
        /// The node.
        node: NodeId,
        /// What the configuration says of it from now on.
        entry: NodeEntry,
        /// What is ordered, for people.
        what: String,
    },
    /// Raises the format level while no epoch is ready. Only once every coordinator is known to know this
    /// command: whoever does not can't read the log any more.
    Raise {
        /// The number of the configuration that is changed.
        expected: ConfigVersion,
        /// The level.
        level: u32,
        /// What changes, for people.
        what: String,
    },
    /// The epoch is ready.
    MarkReady(ReadyRequest),
    /// Raft takes up the next members of the configuration from here on.
    Move {
        /// Their names.
        to: BTreeSet<ServiceRef>,
    },
    /// An operator has a configuration put in the place of the recorded one while no epoch can become
    /// ready, and does without the confirmation of those whom only the one before names.
    Force {
        /// The number of the configuration that it replaces.
        expected: ConfigVersion,
        /// The configuration.
        recorded: Recorded,
    },
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Refusal {
    /// The group is not founded yet.
    #[error("the coordinators' group is not founded yet")]
    NotFounded,
    /// It was founded before.
    #[error("the coordinators' group is founded already")]
    Founded,
    /// The sender is not the latest appointed director.
    #[error("epoch {epoch} of director {director} is over: the latest is epoch {latest}")]
    Superseded {
        /// The sender's epoch.
        epoch: Epoch,
        /// The sender.
        director: Incarnation,
        /// The latest epoch.
        latest: Epoch,
    },
    /// The configuration that it builds on is no longer the recorded one.
    #[error("it builds on configuration {expected:?}, but {recorded:?} is recorded")]
    Changed {
        /// What it builds on.
        expected: Option<ConfigVersion>,
        /// What is recorded.
        recorded: Option<ConfigVersion>,
    },
    /// The configuration does not belong here.
    #[error("the configuration does not fit: {0}")]
    Unfit(String),
    /// The epoch's director makes changes, not the coordinators.
    #[error("epoch {0} is ready: its director changes the configuration")]
    Ready(Epoch),
    /// The epoch has recorded no layout.
    #[error("epoch {0} has recorded no layout, so it can't be ready")]
    NoLayout(Epoch),
}

/// The answer to a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Applied {
    /// An entry without a command.
    #[default]
    Nothing,
    /// It took effect, now or before.
    Done,
    /// The appointment with its fresh epoch.
    Appointed(Appointed),
    /// It changed nothing.
    Refused(Refusal),
}

impl Command {
    /// What is refused whatever the state, and so changes nothing. Once it is applied, all that was committed
    /// before it is. Every release knows it: one that did not could not read the log any more.
    pub(crate) fn mark() -> Command {
        let (expected, parameters) = (ConfigVersion(u64::MAX), Parameters::default());
        Command::Configure { expected, parameters, what: "nothing".to_owned() }
    }
}

impl ClusterState {
    /// Applies a command, where Raft has these memberships.
    pub(crate) fn apply_in(&mut self, command: Command, members: &Memberships) -> Applied {
        let before = (self.epoch, self.stamp());
        let result = match command {
            Command::Found { cluster, founding } => self.found(cluster, founding),
            _ if self.group.is_none() => Err(Refusal::NotFounded),
            Command::Adopt { recorded, epoch_floor, version_floor } => {
                self.adopt(recorded, Floor { epoch: epoch_floor, version: version_floor })
            }
            Command::Appoint { service, pid, cause, above } => {
                Ok(self.appoint(service, pid, cause, above))
            }
            Command::Record(request) => self.record(request, members),
            Command::Configure { expected, parameters, what } => {
                let cause = format!("parameters were changed: {what}");
                self.configure(expected, cause, |recorded| recorded.with_parameters(parameters))
            }
            Command::Order { expected, node, entry, what } => {
                self.configure(expected, what, |recorded| recorded.with_node(&node, entry))
            }
            Command::Raise { expected, level, what } => {
                self.configure(expected, what, |recorded| recorded.with_format_level(level))
            }
            Command::MarkReady(request) => self.mark_ready(request),
            Command::Move { to } => self.begin_move(to, members),
            Command::Force { expected, recorded } => self.force(expected, recorded),
        };
        assert!(self.epoch >= before.0, "an epoch went back from {} to {}", before.0, self.epoch);
        assert!(self.stamp() >= before.1, "an older configuration replaced a newer one");
        assert!(self.ready_epoch <= self.epoch, "an epoch is ready that was never appointed");
        result.unwrap_or_else(Applied::Refused)
    }

    /// The place of the recorded configuration; none before the first.
    #[must_use]
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.recorded.as_ref().map(Recorded::stamp)
    }

    /// The number of the recorded configuration; 0 before the first.
    #[must_use]
    pub(crate) fn config_version(&self) -> ConfigVersion {
        self.stamp().unwrap_or_default().config_version
    }

    /// How many epochs in a row have not become ready, the latest included.
    #[must_use]
    pub(crate) fn failed_epochs(&self) -> u64 {
        self.epoch.0 - self.ready_epoch.max(self.epoch_floor).0
    }

    /// Whether this process is the director of this, the latest epoch.
    #[must_use]
    pub(crate) fn is_latest(&self, epoch: Epoch, director: Incarnation) -> bool {
        let is_appointed = |latest: &Appointed| latest.pid.incarnation == director;
        epoch == self.epoch && self.appointed.as_ref().is_some_and(is_appointed)
    }

    fn found(&mut self, cluster: ClusterId, founding: Founding) -> Result<Applied, Refusal> {
        if let Some(group) = self.group {
            let same = group == founding.group && self.cluster == Some(cluster);
            return if same { Ok(Applied::Done) } else { Err(Refusal::Founded) };
        }
        *self = ClusterState {
            cluster: Some(cluster),
            group: Some(founding.group),
            epoch: founding.epoch_floor,
            epoch_floor: founding.epoch_floor,
            // Whoever founds from a configuration has it from a majority of its team, so its team
            // is the one that must confirm the next.
            ready: founding.recorded.clone(),
            recorded: founding.recorded,
            version_floor: founding.version_floor,
            source: founding.source,
            storage: founding.storage,
            ..ClusterState::default()
        };
        Ok(Applied::Done)
    }

    fn adopt(&mut self, recorded: Recorded, floor: Floor) -> Result<Applied, Refusal> {
        if self.stamp() >= Some(recorded.stamp()) {
            return Ok(Applied::Done);
        }
        if Some(recorded.config.cluster_id) != self.cluster {
            return Err(Refusal::Unfit("it is of another cluster".to_owned()));
        }
        self.epoch = self.epoch.max(floor.epoch).max(recorded.config.epoch);
        self.epoch_floor = self.epoch;
        self.version_floor = self.version_floor.max(floor.version);
        self.ready = Some(recorded.clone());
        self.recorded = Some(recorded);
        // The director of before acts on a state that was rolled back.
        self.appointed = None;
        // So was what it had begun, or the configuration names it.
        let named = self.recorded.as_ref().map(|recorded| recorded.config.memberships());
        self.moving.take_if(|moving| !named.is_some_and(|named| named.contains(moving)));
        Ok(Applied::Done)
    }

    fn force(&mut self, expected: ConfigVersion, forced: Recorded) -> Result<Applied, Refusal> {
        if self.recorded.as_ref() == Some(&forced) {
            return Ok(Applied::Done);
        }
        let recorded = self.stamp().map(|stamp| stamp.config_version);
        if recorded != Some(expected) {
            return Err(Refusal::Changed { expected: Some(expected), recorded });
        }
        let fault = if Some(forced.config.cluster_id) != self.cluster {
            Some("it is of another cluster".to_owned())
        } else if Some(forced.stamp()) <= self.stamp() {
            Some(format!("its number {} is not a new one", forced.config.config_version))
        } else if forced.config.epoch > self.epoch {
            Some(format!("epoch {} was never appointed", forced.config.epoch))
        } else {
            forced.check_shards().err().map(|mismatch| mismatch.to_string())
        };
        if let Some(fault) = fault {
            return Err(Refusal::Unfit(fault));
        }
        self.ready = Some(forced.clone());
        self.recorded = Some(forced);
        // Whoever has read the one before can't record on top of it any more.
        self.appointed = None;
        self.voided = Some("an operator has decided how to go on".to_owned());
        Ok(Applied::Done)
    }

    fn appoint(
        &mut self,
        service: ServiceRef,
        pid: Pid,
        cause: String,
        above: Option<Epoch>,
    ) -> Applied {
        // No group gets that far: such a number is a mistake, and above it there would soon be none.
        let is_possible = |above: &Epoch| *above > self.epoch && above.0 < u64::MAX / 2;
        if let Some(above) = above.filter(is_possible) {
            // Others of a group that is lost may have been told of later ones yet.
            let gap = Epoch(above.0.saturating_add(EPOCH_GAP));
            self.epoch = apart(gap, self.group.map_or(0, |group| group.0));
            self.epoch_floor = self.epoch;
        }
        self.epoch = self.epoch.next();
        let appointed = Appointed { epoch: self.epoch, service, pid, cause };
        self.appointed = Some(appointed.clone());
        self.voided = None;
        Applied::Appointed(appointed)
    }

    fn check_latest(&self, epoch: Epoch, director: Incarnation) -> Result<(), Refusal> {
        if self.is_latest(epoch, director) {
            return Ok(());
        }
        Err(Refusal::Superseded { epoch, director, latest: self.epoch })
    }

    fn record(
        &mut self,
        request: RecordRequest,
        members: &Memberships,
    ) -> Result<Applied, Refusal> {
        self.check_latest(request.epoch, request.director)?;
        if self.recorded.as_ref() == Some(&request.recorded) {
            return Ok(Applied::Done);
        }
        let recorded = self.recorded.as_ref().map(|recorded| recorded.config.config_version);
        if request.expected != recorded {
            return Err(Refusal::Changed { expected: request.expected, recorded });
        }
        let config = &request.recorded.config;
        let fault = if Some(config.cluster_id) != self.cluster {
            Some("it is of another cluster".to_owned())
        } else if Some(config.group_id) != self.group {
            Some("it is of another founding of the coordinators' group".to_owned())
        } else if config.epoch != request.epoch || config.layout.epoch != request.epoch {
            Some(format!("it is not of epoch {}", request.epoch))
        } else if config.config_version <= recorded.unwrap_or_default() {
            Some(format!("its number {} is not a new one", config.config_version))
        } else if config.layout.first_version < self.version_floor {
            Some(format!("its first version is below {}", self.version_floor))
        } else if let Some(unnamed) = self.unnamed(&request.recorded, members) {
            Some(format!("it does not name the coordinators' membership of {}", list(unnamed)))
        } else {
            request.recorded.check_shards().err().map(|mismatch| mismatch.to_string())
        };
        if let Some(fault) = fault {
            return Err(Refusal::Unfit(fault));
        }
        self.recorded = Some(request.recorded);
        Ok(Applied::Done)
    }

    /// The appointment of an epoch that is ready; none while none is.
    #[must_use]
    pub(crate) fn ready_director(&self) -> Option<&Appointed> {
        self.appointed.as_ref().filter(|_| self.ready_epoch == self.epoch)
    }

    fn configure(
        &mut self,
        expected: ConfigVersion,
        cause: String,
        change: impl FnOnce(&Recorded) -> Recorded,
    ) -> Result<Applied, Refusal> {
        if self.ready_director().is_some() {
            return Err(Refusal::Ready(self.epoch));
        }
        match &self.recorded {
            Some(recorded) if recorded.config.config_version == expected => {
                self.recorded = Some(change(recorded));
                self.appointed = None;
                self.voided = Some(cause);
                Ok(Applied::Done)
            }
            recorded => {
                let recorded = recorded.as_ref().map(|recorded| recorded.config.config_version);
                Err(Refusal::Changed { expected: Some(expected), recorded })
            }
        }
    }

    /// A membership that Raft has or is about to have, and that a configuration does not name. Whoever finds
    /// such a configuration alone would take a living group for lost.
    fn unnamed<'a>(
        &'a self,
        recorded: &Recorded,
        members: &'a Memberships,
    ) -> Option<&'a BTreeSet<ServiceRef>> {
        // An earlier level can't name two, and its directors know nothing of it.
        let named = recorded.config.memberships();
        let is_unnamed = |membership: &&BTreeSet<ServiceRef>| !named.contains(membership);
        let needed = members.iter().chain(&self.moving);
        needed
            .into_iter()
            .find(is_unnamed)
            .filter(|_| recorded.config.format_level >= MEMBERS_LEVEL)
    }

    /// Raft may take the next members up once a configuration that names both memberships is recorded and
    /// proved: durable in a majority of the storages that hold it.
    fn begin_move(
        &mut self,
        to: BTreeSet<ServiceRef>,
        members: &Memberships,
    ) -> Result<Applied, Refusal> {
        if self.moving.as_ref() == Some(&to) || matches!(members, [only] if *only == to) {
            return Ok(Applied::Done);
        }
        let is_named = |recorded: &Option<Recorded>| {
            recorded.as_ref().is_some_and(|recorded| {
                let named = recorded.config.memberships();
                let is_from = matches!(members, [only] if named.first() == Some(only));
                is_from
                    && named.len() == 2
                    && named.last() == Some(&to)
                    && Some(recorded.config.group_id) == self.group
            })
        };
        if self.moving.is_some() || !is_named(&self.recorded) || !is_named(&self.ready) {
            let why =
                format!("no configuration in storage names {} as the next members", list(&to));
            return Err(Refusal::Unfit(why));
        }
        self.moving = Some(to);
        Ok(Applied::Done)
    }

    /// Raft has these memberships from here on.
    pub(crate) fn note_members(&mut self, members: &Memberships) {
        if let [only] = members {
            self.moving.take_if(|moving| moving == only);
        }
    }

    fn mark_ready(&mut self, request: ReadyRequest) -> Result<Applied, Refusal> {
        self.check_latest(request.epoch, request.director)?;
        if self.stamp().map(|stamp| stamp.epoch) != Some(request.epoch) {
            return Err(Refusal::NoLayout(request.epoch));
        }
        self.ready.clone_from(&self.recorded);
        self.ready_epoch = request.epoch;
        self.recoveries.retain(|recovery| recovery.epoch != request.epoch);
        self.recoveries.insert(0, request.recovery);
        self.recoveries.truncate(RECOVERIES);
        Ok(Applied::Done)
    }
}

fn list(members: &BTreeSet<ServiceRef>) -> String {
    let names: Vec<String> = members.iter().map(ToString::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;
