//! Registers whose values are each written once: linearizable, as Gibbons and Korach decide it
//! ("Testing Shared Memories", 1997).
//!
//! A value's operations are its write and the reads that saw it. Its *zone* reaches between the
//! earliest end and the latest beginning among them. If the earliest end comes first (a forward zone),
//! the register must have held the value all that while: so no two such zones may overlap. If not (a
//! backward zone), all of the value's operations share a moment, and the register must have held it at
//! one within the zone: so that zone may not lie within a forward one of another value.

use std::collections::BTreeMap;

use crate::Anomaly;
use crate::history::Moment;

pub use super::lists::Outcome;

const NAME: &str = "registers";

/// What was done to a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<V> {
    /// A value was written, which nobody else writes there.
    Write(V),
    /// This was read; at the beginning there is nothing.
    Read(Option<V>),
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<V> {
    /// Before it took effect.
    pub began: Moment,
    /// After it took effect, if it is acknowledged.
    pub ended: Moment,
    /// What became of it. Reads are acknowledged.
    pub outcome: Outcome,
    /// What was done.
    pub action: Action<V>,
}

/// A value's write and reads.
#[derive(Debug)]
struct Cluster {
    written: Option<Written>,
    /// The first end and the last beginning.
    first_end: Moment,
    last_beginning: Moment,
    first_read_ended: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct Written {
    began: Moment,
    outcome: Outcome,
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster { written: None, first_end: Moment::MAX, last_beginning: 0, first_read_ended: None }
    }
}

impl Cluster {
    fn add(&mut self, began: Moment, ended: Moment) {
        self.first_end = self.first_end.min(ended);
        self.last_beginning = self.last_beginning.max(began);
    }
}

/// Answers what is wrong with one register's operations.
#[must_use]
pub fn check<V: Ord + std::fmt::Debug>(
    register: &str,
    operations: &[Operation<V>],
) -> Vec<Anomaly> {
    let mut clusters: BTreeMap<Option<&V>, Cluster> = BTreeMap::new();
    // Nothing is there before anybody begins.
    let nothing = clusters.entry(None).or_default();
    nothing.written = Some(Written { began: 0, outcome: Outcome::Acknowledged });
    nothing.add(0, 0);
    for Operation { began, ended, outcome, action } in operations {
        match action {
            Action::Write(value) => {
                let cluster = clusters.entry(Some(value)).or_default();
                cluster.written = Some(Written { began: *began, outcome: *outcome });
                // What is of unknown fate may take effect at any time after its beginning.
                let end = if *outcome == Outcome::Acknowledged { *ended } else { Moment::MAX };
                cluster.add(*began, end);
            }
            Action::Read(value) => {
                let cluster = clusters.entry(value.as_ref()).or_default();
                cluster.add(*began, *ended);
                let first = cluster.first_read_ended.get_or_insert(*ended);
                *first = (*first).min(*ended);
            }
        }
    }
    let mut wrong = Vec::new();
    let mut forward: Vec<Zone<'_, V>> = Vec::new();
    let mut backward: Vec<Zone<'_, V>> = Vec::new();
    for (value, cluster) in &clusters {
        let mut note = |what: &str| wrong.push(format!("{register}: {value:?} {what}"));
        let Some(written) = cluster.written else {
            note("was read, and written by nobody");
            continue;
        };
        match (cluster.first_read_ended, written.outcome) {
            (Some(_), Outcome::Refused) => {
                note("was read, and its write was refused");
                continue;
            }
            (None, Outcome::Refused | Outcome::Unknown) => continue,
            (Some(read), _) if read < written.began => {
                note("was read before it was written");
                continue;
            }
            _ => {}
        }
        let (end, beginning) = (cluster.first_end, cluster.last_beginning);
        if end < beginning {
            forward.push((end, beginning, *value));
        } else {
            backward.push((beginning, end, *value));
        }
    }
    wrong.extend(overlaps(register, forward, backward));
    wrong.into_iter().map(|seen| Anomaly::new(NAME, seen)).collect()
}

/// A value and the moments that it is bound to.
type Zone<'a, V> = (Moment, Moment, Option<&'a V>);

/// What can't have been there one after the other. A value of a `forward` zone was there for all of it;
/// one of a `backward` zone was there at some moment of it at least.
fn overlaps<V: std::fmt::Debug>(
    register: &str,
    mut forward: Vec<Zone<'_, V>>,
    backward: Vec<Zone<'_, V>>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    forward.sort_by_key(|(from, ..)| *from);
    for pair in forward.windows(2) {
        if let [(_, to, a), (from, _, b)] = pair
            && from < to
        {
            wrong.push(format!(
                "{register}: {a:?} was there until moment {to} and {b:?} from moment {from} on"
            ));
        }
    }
    for (from, to, value) in backward {
        let around = forward.partition_point(|(start, ..)| *start < from);
        let around = around.checked_sub(1).map(|last| forward[last]);
        if let Some((start, end, other)) = around.filter(|(_, end, _)| to < *end) {
            wrong.push(format!(
                "{register}: {value:?} was written between moments {from} and {to}, and from {start} \
                 to {end} {other:?} was there"
            ));
        }
    }
    wrong
}
