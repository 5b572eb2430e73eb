//! What the users asked and were told, in one order. They share a host and so a clock: what ended at
//! an earlier moment than another began was over before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use plinth_system_config::{Parameters, Stamp};
use plinth_types::{Epoch, Incarnation, NodeId, Version};

use crate::user::{Fate, Gateway};

/// A point in the users' order of events.
pub type Moment = u64;

/// A write. Every value is written once at most, under whatever key.
#[derive(Clone, Debug)]
pub struct Write {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// When it was asked for.
    pub began: Moment,
    /// When its fate was told.
    pub ended: Moment,
    /// What became of it.
    pub fate: Fate,
}

/// A read that was answered.
#[derive(Clone, Debug)]
pub struct Read {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Option<Bytes>,
    /// The version it was read at.
    pub version: Version,
    /// When it was asked for.
    pub began: Moment,
    /// When it was answered.
    pub ended: Moment,
}

/// What a watch told.
#[derive(Clone, Debug)]
pub struct Sight {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Option<Bytes>,
    /// The version that it was said to have it at.
    pub version: Version,
}

/// A configuration that was told.
#[derive(Clone, Debug)]
pub struct Told {
    /// Which one.
    pub stamp: Stamp,
    /// Its parameters.
    pub parameters: Parameters,
    /// When it was asked for.
    pub began: Moment,
    /// When it was answered.
    pub ended: Moment,
}

/// What became of a change of parameters: the place of the configuration that it made or may have made,
/// and its parameters.
#[derive(Clone, Debug)]
pub enum ChangeFate {
    /// It is in storage.
    Durable(Stamp, Parameters),
    /// The coordinators have it.
    Recorded(Stamp, Parameters),
    /// Nobody knows.
    Unknown(Stamp, Parameters),
    /// It was not made, and never will be.
    Refused,
}

/// A change of parameters.
#[derive(Clone, Debug)]
pub struct Change {
    /// When its fate was told.
    pub ended: Moment,
    /// What became of it.
    pub fate: ChangeFate,
}

/// Everything.
#[derive(Default)]
pub(crate) struct Record {
    moment: Moment,
    pub(crate) writes: Vec<Write>,
    pub(crate) reads: Vec<Read>,
    pub(crate) sights: Vec<Sight>,
    pub(crate) configs: Vec<Told>,
    pub(crate) changes: Vec<Change>,
    /// The epochs that are known to have accepted commits, since when.
    pub(crate) accepted: BTreeMap<Epoch, Moment>,
    /// Whether every coordinator has lost its disk at some time.
    pub(crate) is_wiped: bool,
    /// When the coordinators' disks were put back to what they had been, if they were.
    pub(crate) forgot: Option<Moment>,
    /// The nodes on which the disk of a log or a storage was put back: what they say to be durable or
    /// locked may go back.
    pub(crate) rolled_back: BTreeSet<NodeId>,
    /// The directors of each epoch, as any coordinator ever named them.
    pub(crate) directors: BTreeMap<Epoch, BTreeMap<Incarnation, String>>,
}

/// The record that all users share. A clone is the same one.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Record>>);

impl Record {
    /// The configurations that were told, but for what coordinators told that had been put back and
    /// could not know it yet: before an epoch accepted commits again.
    pub(crate) fn told(&self) -> Vec<Told> {
        let knew_again = |forgot: Moment| self.accepted.values().copied().find(|at| *at > forgot);
        let is_unaware = |told: &Told| {
            self.forgot.is_some_and(|forgot| {
                told.ended > forgot && knew_again(forgot).is_none_or(|again| told.began < again)
            })
        };
        self.configs.iter().filter(|told| !is_unaware(told)).cloned().collect()
    }
}

impl History {
    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present, which no other event shares.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let mut record = self.record();
        record.moment += 1;
        record.moment
    }

    /// Writes a value that nobody has written before.
    pub async fn put(&self, gateway: &Gateway, key: &str, value: String) -> Fate {
        let began = self.moment();
        let value = Bytes::from(value);
        let fate = gateway.put(key, value.clone()).await;
        let ended = self.moment();
        let key = key.to_owned();
        self.record().writes.push(Write { key, value, began, ended, fate: fate.clone() });
        fate
    }

    /// Reads a key; none where there was no answer.
    pub async fn get(&self, gateway: &Gateway, key: &str) -> Option<Option<Bytes>> {
        let began = self.moment();
        let (version, value) = gateway.get(key).await.ok()?;
        let ended = self.moment();
        let (key, read) = (key.to_owned(), value.clone());
        self.record().reads.push(Read { key, value, version, began, ended });
        Some(read)
    }

    /// How many writes were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        let record = self.record();
        record.writes.iter().filter(|write| matches!(write.fate, Fate::Committed(_))).count()
    }
}
