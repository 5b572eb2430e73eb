//! Raising the level that the configuration is written at: whether it may be, and what the
//! configuration is after it. Pure.
//!
//! A level is never taken back, and what is written at it is gone for a release that does not read
//! it. So nothing is taken on trust: every node that may read the configuration has to say that it
//! can, and one that does not answer has to be named by the administrator.

use std::collections::{BTreeMap, BTreeSet};

use plinth_types::NodeId;

use crate::{FORMAT_LEVEL, Recorded, Standing, encode_stored};

/// What a release reads that does not say so: the newest level when releases began to say it.
pub const UNSAID_LEVEL: u32 = 3;

const _: () = assert!(UNSAID_LEVEL <= FORMAT_LEVEL, "no release before this one wrote more");

/// The nodes that report, each with the highest level that all of its processes say they read; none
/// where one does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readers(pub BTreeMap<NodeId, Option<u32>>);

/// Why a node does not count as one that reads a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReading {
    /// It says so.
    #[error("reads up to level {0}")]
    UpTo(u32),
    /// One of its processes is of a release that does not say, or has not announced itself yet.
    #[error(
        "has a process that does not say what it reads, which counts as level {UNSAID_LEVEL}: run the same release everywhere"
    )]
    Unsaid,
    /// Nobody knows what it would read when it comes back.
    #[error(
        "does not report: start it, or name it under `without` if it never comes back with an older release"
    )]
    Silent,
}

/// Why the level can't be raised so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// It would go back.
    #[error(
        "the format level is {current} and never goes back: what is written at it can't always be said at level {asked}"
    )]
    Back {
        /// The cluster's level.
        current: u32,
        /// What was asked for.
        asked: u32,
    },
    /// No such level.
    #[error("this release knows no format level {0}: it writes up to level {FORMAT_LEVEL}")]
    Unknown(u32),
    /// A node is named that nobody knows.
    #[error("no node {0} is known: it is not in the configuration and does not report")]
    UnknownNode(NodeId),
    /// There are nodes that could not read what is written.
    #[error("not every node reads format level {level}: {}", list(.nodes))]
    Unreadable {
        /// What was asked for.
        level: u32,
        /// Which nodes, and why; never empty.
        nodes: Vec<(NodeId, NotReading)>,
    },
    /// While no epoch is ready the coordinators record it themselves, in words that a release does not
    /// know that does not say what it reads.
    #[error(
        "no epoch is ready, and coordinators of an older release could not read the order: {}",
        list(.0)
    )]
    NotNow(Vec<(NodeId, NotReading)>),
    /// It could not be written.
    #[error("the configuration could not be written at format level {level}: {reason}")]
    Unwritable {
        /// What was asked for.
        level: u32,
        /// What stands in the way.
        reason: String,
    },
}

fn list(nodes: &[(NodeId, NotReading)]) -> String {
    nodes.iter().map(|(node, why)| format!("{node} {why}")).collect::<Vec<_>>().join("; ")
}

impl Readers {
    /// Why a node does not count as one that reads a level; none where it does.
    fn fault(&self, node: &NodeId, level: u32) -> Option<NotReading> {
        match self.0.get(node) {
            None => Some(NotReading::Silent),
            Some(None) => (level > UNSAID_LEVEL).then_some(NotReading::Unsaid),
            Some(Some(reads)) => (level > *reads).then_some(NotReading::UpTo(*reads)),
        }
    }
}

impl Recorded {
    /// The configuration written at a higher level; none where it is already. A node of `without`
    /// may be silent: the administrator knows what it will run.
    ///
    /// # Errors
    /// Why it must not be.
    pub fn raised(
        &self,
        level: u32,
        readers: &Readers,
        without: &BTreeSet<NodeId>,
    ) -> Result<Option<Recorded>, LevelError> {
        let current = self.config.format_level;
        if level > FORMAT_LEVEL {
            return Err(LevelError::Unknown(level));
        }
        if level < current {
            return Err(LevelError::Back { current, asked: level });
        }
        let is_known =
            |node: &&NodeId| self.config.nodes.contains_key(node) || readers.0.contains_key(node);
        if let Some(unknown) = without.iter().find(|node| !is_known(node)) {
            return Err(LevelError::UnknownNode(unknown.clone()));
        }
        if level == current {
            return Ok(None);
        }
        let faults = self.reading_nodes(readers).into_iter().filter_map(|node| {
            let fault = readers.fault(node, level)?;
            let is_excused = fault == NotReading::Silent && without.contains(node);
            (!is_excused).then(|| (node.clone(), fault))
        });
        let nodes: Vec<(NodeId, NotReading)> = faults.collect();
        if !nodes.is_empty() {
            return Err(LevelError::Unreadable { level, nodes });
        }
        let next = self.with_format_level(level);
        encode_stored(&next.config)
            .map_err(|error| LevelError::Unwritable { level, reason: error.to_string() })?;
        Ok(Some(next))
    }

    /// Whether every node knows the order that the coordinators record while no epoch is ready.
    ///
    /// # Errors
    /// The nodes of which that is not known.
    pub fn check_order_is_known(&self, readers: &Readers) -> Result<(), LevelError> {
        let unsaid = |node: &&NodeId| readers.0.get(*node) == Some(&None);
        let nodes = self.reading_nodes(readers).into_iter().filter(unsaid);
        let nodes: Vec<_> = nodes.map(|node| (node.clone(), NotReading::Unsaid)).collect();
        if nodes.is_empty() { Ok(()) } else { Err(LevelError::NotNow(nodes)) }
    }

    /// The next configuration, which differs in its level alone.
    #[must_use]
    pub fn with_format_level(&self, level: u32) -> Recorded {
        let mut next = self.clone();
        next.config.config_version = self.config.config_version.next();
        next.config.format_level = level;
        next
    }

    /// The nodes that may read the configuration: those that report and those that are known, but for
    /// those that were removed, and those that are drained and off.
    fn reading_nodes<'a>(&'a self, readers: &'a Readers) -> BTreeSet<&'a NodeId> {
        let config = &self.config;
        let reads = |node: &&NodeId| match config.standing(node) {
            Standing::InUse => true,
            Standing::Draining => {
                readers.0.contains_key(*node) || !config.remaining_on(node).is_empty()
            }
            Standing::Removed => false,
        };
        config.nodes.keys().chain(readers.0.keys()).filter(reads).collect()
    }
}
