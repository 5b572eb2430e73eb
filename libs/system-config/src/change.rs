//! A change of parameters: whether it may be made, and what the configuration is after it. Pure.
//!
//! A change is judged as a whole, by the configuration that it would make and by the nodes that
//! report. What it does not raise is never a reason to refuse it: a cluster that has lost nodes can
//! still be configured, and so can a recovery that lacks something.

use std::collections::{BTreeMap, BTreeSet};

use plinth_types::{NodeId, ServiceKind};
use serde::{Deserialize, Serialize};

use crate::{Applied, Parameter, ParameterError, Parameters, Recorded, encode_stored};

/// The most workers of a kind that a change of parameters asks of one node.
pub const WORKERS_PER_NODE: u64 = 8;

/// What a node that reports can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSupply {
    /// The node.
    pub node: NodeId,
    /// The kinds of worker that its foreman can make.
    pub makes: BTreeSet<ServiceKind>,
    /// How many workers of each kind run on it.
    pub runs: BTreeMap<ServiceKind, u64>,
}

/// What the nodes that report can run, each node once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supply(pub Vec<NodeSupply>);

impl Supply {
    /// How many nodes can run a worker of this kind.
    pub(crate) fn nodes(&self, kind: ServiceKind) -> u64 {
        self.0.iter().filter(|node| node.room(kind) > 0).count() as u64
    }

    /// How many workers of this kind the nodes can run.
    fn room(&self, kind: ServiceKind) -> u64 {
        self.0.iter().map(|node| node.room(kind)).sum()
    }
}

impl NodeSupply {
    fn room(&self, kind: ServiceKind) -> u64 {
        let running = self.runs.get(&kind).copied().unwrap_or(0);
        if self.makes.contains(&kind) { running.max(WORKERS_PER_NODE) } else { running }
    }
}

/// Why parameters can't be changed so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// No parameter is named.
    #[error("no parameter is named: there is nothing to change")]
    Nothing,
    /// A parameter is unknown, or would have a value that it must not have.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// Each copy needs a node of its own.
    #[error(
        "{name} is {value}, and {nodes} nodes report that can run a {kind}: it can be at most {nodes}"
    )]
    TooFewNodes {
        /// The parameter.
        name: &'static str,
        /// What it is to be.
        value: u64,
        /// What each copy needs.
        kind: ServiceKind,
        /// How many nodes can run one.
        nodes: u64,
    },
    /// The nodes can't run so many.
    #[error(
        "{name} is {value}, and the {nodes} nodes that report can run {room} {kind}s: it can be at most {room}"
    )]
    NoRoom {
        /// The parameter.
        name: &'static str,
        /// What it is to be.
        value: u64,
        /// What there would be too many of.
        kind: ServiceKind,
        /// How many nodes report.
        nodes: u64,
        /// How many they can run.
        room: u64,
    },
    /// Releases of before could not read it.
    #[error("the configuration could not be written at format level {level}: {reason}")]
    Unwritable {
        /// The cluster's level.
        level: u32,
        /// What stands in the way.
        reason: String,
    },
}

impl ChangeError {
    /// The parameter that should be another.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            ChangeError::Parameter(error) => Some(error.name()),
            ChangeError::TooFewNodes { name, .. } | ChangeError::NoRoom { name, .. } => Some(name),
            ChangeError::Nothing | ChangeError::Unwritable { .. } => None,
        }
    }

    /// Whether nothing is wrong with the value, and the nodes that report can't satisfy it.
    #[must_use]
    pub const fn is_unsatisfiable(&self) -> bool {
        matches!(self, ChangeError::TooFewNodes { .. } | ChangeError::NoRoom { .. })
    }
}

/// A parameter that is to be another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ChangedParameter)]
pub struct Changed {
    /// Its name.
    pub name: String,
    /// What it was.
    pub from: u64,
    /// What it is from now on.
    pub to: u64,
    /// How the change takes effect.
    pub applied: Applied,
}

/// A change that may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Every parameter as it is after the change.
    pub parameters: Parameters,
    /// What is another, in the order of the fields. Empty where all is so already.
    pub changed: Vec<Changed>,
}

impl Proposal {
    /// Whether the change takes effect by a new epoch.
    #[must_use]
    pub fn begins_epoch(&self) -> bool {
        self.changed.iter().any(|changed| changed.applied == Applied::NewEpoch)
    }

    /// What changes, for people: `logs from 3 to 2, replication from 3 to 2`.
    #[must_use]
    pub fn describe(&self) -> String {
        let words = self.changed.iter().map(|Changed { name, from, to, .. }| {
            let (from, to) = (from.to_string(), to.to_string());
            format!("{name} from {from} to {to}")
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

impl Recorded {
    /// Judges a change of parameters, by name and value, as a whole.
    ///
    /// # Errors
    /// Everything that is wrong with it; never empty.
    pub fn propose(
        &self,
        changes: &BTreeMap<String, u64>,
        supply: &Supply,
    ) -> Result<Proposal, Vec<ChangeError>> {
        let before = &self.config.parameters;
        let mut after = before.clone();
        let mut errors: Vec<ChangeError> = Vec::new();
        if changes.is_empty() {
            errors.push(ChangeError::Nothing);
        }
        for (name, value) in changes {
            errors.extend(after.set(name, *value).err().map(ChangeError::from));
        }
        // What is wrong with other parameters was so before.
        let known = before.problems();
        let problems = after.problems().into_iter().filter(|problem| !known.contains(problem));
        errors.extend(problems.map(|problem| as_asked(problem, changes).into()));
        let pairs = before.all().into_iter().zip(after.all());
        let changed: Vec<(Parameter, Parameter)> =
            pairs.filter(|(before, after)| before.value != after.value).collect();
        if errors.is_empty() {
            let (raised, supply) = (changed.iter(), self.config.usable(supply));
            let raised = raised.filter(|(before, after)| after.value > before.value);
            errors.extend(raised.filter_map(|(_, after)| unsatisfied(after, &supply)));
        }
        if errors.is_empty() {
            let next = self.with_parameters(after.clone());
            let (level, error) = (next.config.format_level, encode_stored(&next.config).err());
            let unwritable = |error: crate::EncodeError| error.to_string();
            errors.extend(
                error.map(unwritable).map(|reason| ChangeError::Unwritable { level, reason }),
            );
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let changed = changed.into_iter().map(|(before, after)| Changed {
            name: after.name.to_owned(),
            from: before.value,
            to: after.value,
            applied: after.applied,
        });
        Ok(Proposal { parameters: after, changed: changed.collect() })
    }

    /// The next configuration, which differs in its parameters alone.
    #[must_use]
    pub fn with_parameters(&self, parameters: Parameters) -> Recorded {
        let mut next = self.clone();
        next.config.config_version = self.config.config_version.next();
        next.config.parameters = parameters;
        next
    }
}

/// A value that is too large for its field is told as it was asked for.
fn as_asked(mut problem: ParameterError, changes: &BTreeMap<String, u64>) -> ParameterError {
    if let ParameterError::OutOfBounds { name, value, .. } = &mut problem
        && let Some(asked) = changes.get(*name)
    {
        *value = *asked;
    }
    problem
}

/// Why the nodes that report can't satisfy a parameter.
pub(crate) fn unsatisfied(parameter: &Parameter, supply: &Supply) -> Option<ChangeError> {
    let Parameter { name, value, .. } = *parameter;
    let spread: &[ServiceKind] = match name {
        "replication" => &[ServiceKind::Storage, ServiceKind::Log],
        "config_team" => &[ServiceKind::Storage],
        _ => &[],
    };
    let (kind, nodes) = spread
        .iter()
        .map(|kind| (*kind, supply.nodes(*kind)))
        .min_by_key(|(_, nodes)| *nodes)
        .unzip();
    if let (Some(kind), Some(nodes)) = (kind, nodes)
        && value > nodes
    {
        return Some(ChangeError::TooFewNodes { name, value, kind, nodes });
    }
    let kind = match name {
        "logs" => ServiceKind::Log,
        "commit_proxies" => ServiceKind::CommitProxy,
        "resolvers" => ServiceKind::Resolver,
        _ => return None,
    };
    let (room, nodes) = (supply.room(kind), supply.0.len() as u64);
    (value > room).then_some(ChangeError::NoRoom { name, value, kind, nodes, room })
}
