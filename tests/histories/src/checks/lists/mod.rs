//! Transactions that append to lists and read them, checked as Elle does (Kingsbury and Alvaro, VLDB
//! 2020): since every element is appended once, a read tells who wrote what it saw and in which
//! order, so the dependencies between transactions are known, and a cycle of them is an anomaly.
//!
//! What is found has Adya's names. It is strict serializability that is checked: a cycle that needs
//! the order of real time to close is an anomaly too, named `…-realtime`.
//!
//! - An acknowledged transaction was committed between its beginning and its end.
//! - A refused one was not: nobody may see its elements.
//! - One of unknown fate was committed if somebody sees an element of it, some time after it began.
//!
//! The elements that no read shows are the last ones of their list, in an order that nobody knows:
//! lists only grow.

mod dependencies;
mod orders;

use std::fmt;

use crate::Anomaly;
use crate::history::Moment;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was committed.
    Acknowledged,
    /// It was not, and never will be.
    Refused,
    /// Either.
    Unknown,
}

/// A step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// An element was appended, which no other transaction has appended to any list.
    Append {
        /// The list.
        list: String,
        /// The element.
        element: u64,
    },
    /// The whole list was read.
    Read {
        /// The list.
        list: String,
        /// Its elements, in their order.
        elements: Vec<u64>,
    },
}

/// A transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// What to call it.
    pub id: u64,
    /// Before it took effect.
    pub began: Moment,
    /// After it took effect, if it is acknowledged.
    pub ended: Moment,
    /// What became of it.
    pub outcome: Outcome,
    /// What it did, in order. Of reads only those that were answered.
    pub operations: Vec<Operation>,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A transaction did not see what it had itself read or written before.
    Internal,
    /// A list has an element twice.
    Duplicate,
    /// A list has an element that nobody appended.
    Unwritten,
    /// An element of a refused transaction was read.
    G1a,
    /// A list was read in the middle of another transaction.
    G1b,
    /// Two reads of a list don't agree about its order.
    IncompatibleOrder,
    /// A cycle of writes over writes.
    G0,
    /// A cycle of those and of reads of what was written.
    G1c,
    /// A list was read, another transaction appended to it, and yet the first one's append took effect.
    LostUpdate,
    /// A cycle with one read of what was written later.
    GSingle,
    /// Two transactions each read what the other wrote, before it was written.
    WriteSkew,
    /// A cycle with several reads of what was written later.
    G2,
    /// A [`Kind::G0`] that real time closes.
    G0RealTime,
    /// A [`Kind::G1c`] that real time closes.
    G1cRealTime,
    /// A [`Kind::GSingle`] that real time closes: a stale read, or an acknowledged write that is gone.
    GSingleRealTime,
    /// A [`Kind::G2`] that real time closes.
    G2RealTime,
}

impl Kind {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Internal => "internal",
            Kind::Duplicate => "duplicate",
            Kind::Unwritten => "unwritten",
            Kind::G1a => "G1a",
            Kind::G1b => "G1b",
            Kind::IncompatibleOrder => "incompatible order",
            Kind::G0 => "G0",
            Kind::G1c => "G1c",
            Kind::LostUpdate => "lost update",
            Kind::GSingle => "G-single",
            Kind::WriteSkew => "write skew",
            Kind::G2 => "G2",
            Kind::G0RealTime => "G0-realtime",
            Kind::G1cRealTime => "G1c-realtime",
            Kind::GSingleRealTime => "G-single-realtime",
            Kind::G2RealTime => "G2-realtime",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Answers what is wrong, each with its kind, in words.
///
/// # Panics
/// Two transactions append the same element to a list, or one does so twice: then reads tell nothing.
#[must_use]
pub fn find(history: &[Transaction]) -> Vec<(Kind, String)> {
    let orders::Found { orders, mut wrong } = orders::infer(history);
    wrong.extend(dependencies::cycles(history, &orders));
    wrong
}

/// [`find`], as anomalies named `lists: …`.
///
/// # Panics
/// As [`find`].
#[must_use]
pub fn check(history: &[Transaction]) -> Vec<Anomaly> {
    let named = |(kind, seen): (Kind, String)| Anomaly::new(format!("lists: {kind}"), seen);
    find(history).into_iter().map(named).collect()
}
