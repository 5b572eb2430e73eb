//! What users do with transactions, a workload a module, each with a check of its own. That reads fit
//! the order of versions is checked of all of them together ([`crate::checks::replay`]).

mod atomics;
mod bank;
mod ids;
mod lists;
mod pairs;
mod registers;
mod ring;
mod rows;
mod set;
mod stamps;

use futures::future::BoxFuture;

use crate::Anomaly;
use crate::history::Transaction;
use crate::users::User;

/// A workload.
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// Its users, each of whom works until there is no more work.
    pub start: fn(User) -> Vec<BoxFuture<'static, ()>>,
    /// What is wrong with a history, of which the workload looks at its own transactions.
    pub check: fn(&[Transaction]) -> Vec<Anomaly>,
}

/// Every workload.
pub const ALL: &[Workload] = &[
    Workload { name: lists::NAME, start: lists::start, check: lists::check },
    Workload { name: bank::NAME, start: bank::start, check: bank::check },
    Workload { name: pairs::NAME, start: pairs::start, check: pairs::check },
    Workload { name: ring::NAME, start: ring::start, check: ring::check },
    Workload { name: set::NAME, start: set::start, check: set::check },
    Workload { name: registers::NAME, start: registers::start, check: registers::check },
    Workload { name: ids::NAME, start: ids::start, check: ids::check },
    Workload { name: stamps::NAME, start: stamps::start, check: stamps::check },
    Workload { name: atomics::NAME, start: atomics::start, check: atomics::check },
];

/// The workload of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Workload> {
    ALL.iter().find(|workload| workload.name == name)
}
