//! What users do, a workload a module. Each has an invariant of its own, and leaves what it did and
//! saw in the history for the [`crate::invariants`].

mod config;
mod counters;
mod members;
mod nodes;
mod parameters;
mod recorded;
mod registers;
mod selectors;
mod sideband;
mod status;
mod stores;
mod transactions;
mod watches;

use futures::future::{BoxFuture, FutureExt as _};
use plinth_runtime::Random;
use plinth_test_histories::workloads as histories;

use crate::scene::Scene;

pub(crate) use config::{CONFIG, look as look_at_config};
pub(crate) use stores::LAYOUT;
pub(crate) use transactions::user;
pub(crate) use watches::fires as watch_fires;

/// How many workloads of single keys a seed has, and how many of transactions.
const SINGLE: usize = 2;
const TRANSACTIONS: usize = 3;

/// The workload that is chosen most often.
const LISTS: &str = "lists";
/// The workloads of single keys.
const SINGLES: [&str; 3] = ["registers", "counters", "sideband"];
/// What reads in other ways. A seed has one of them or none.
const OTHERS: [&str; 2] = [WATCHES, "selectors"];
const WATCHES: &str = "watches";

/// What the users of a seed do.
#[derive(Clone, Debug)]
pub struct Workloads {
    singles: Vec<&'static str>,
    transactions: Vec<&'static str>,
    other: Option<&'static str>,
    /// Whether parameters are changed.
    changes: bool,
    /// Whether nodes are drained and removed.
    drains: bool,
    /// Whether coordinators join and leave.
    joins: bool,
}

/// The workload that changes parameters.
const PARAMETERS: &str = "parameters";
/// The workload that drains and removes nodes.
const DRAINING: &str = "draining";
/// The workload that lets coordinators join and leave.
const MEMBERS: &str = "members";
/// One seed in so many has parameters changed.
const CHANGING: u64 = 3;

impl Workloads {
    /// Some, at random.
    #[must_use]
    pub fn choose(random: &dyn Random) -> Workloads {
        let mut names: Vec<&str> = histories::ALL.iter().map(|workload| workload.name).collect();
        let mut transactions = Vec::new();
        if random.next_u64().is_multiple_of(2) {
            // It tells most of what is wrong.
            transactions.push(LISTS);
            names.retain(|name| *name != LISTS);
        }
        transactions.extend(some(random, names, TRANSACTIONS - transactions.len()));
        let other = usize::try_from(random.next_u64() % 3).unwrap_or(0);
        let singles = some(random, SINGLES.to_vec(), SINGLE);
        let changes = random.next_u64().is_multiple_of(CHANGING);
        let other = OTHERS.get(other).copied();
        Workloads { singles, transactions, other, changes, drains: false, joins: false }
    }

    /// The same, with or without changes of parameters.
    #[must_use]
    pub fn changing(self, changes: bool) -> Workloads {
        Workloads { changes, ..self }
    }

    /// Whether parameters are changed.
    #[must_use]
    pub fn changes_parameters(&self) -> bool {
        self.changes
    }

    /// The same, with or without orders about nodes.
    #[must_use]
    pub fn draining(self, drains: bool) -> Workloads {
        Workloads { drains, ..self }
    }

    /// The same, with or without orders about the coordinators' membership.
    #[must_use]
    pub fn joining(self, joins: bool) -> Workloads {
        Workloads { joins, ..self }
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let changes = self.changes.then_some(PARAMETERS);
        let both = self.singles.iter().chain(&self.transactions).chain(&self.other).copied();
        let orders = [self.drains.then_some(DRAINING), self.joins.then_some(MEMBERS)];
        both.chain(changes).chain(orders.into_iter().flatten())
    }

    /// Everything that users do. Each task ends by itself once they no longer work.
    pub(crate) fn start(&self, scene: &Scene) -> Vec<(&'static str, BoxFuture<'static, ()>)> {
        let mut tasks: Vec<(&str, BoxFuture<'static, ()>)> = Vec::new();
        if self.singles.contains(&"registers") {
            for number in 0..registers::USERS {
                tasks.push(("registers", registers::run(scene.clone(), number).boxed()));
            }
        }
        if self.singles.contains(&"counters") {
            for number in 0..counters::USERS {
                tasks.push(("counters", counters::run(scene.clone(), number).boxed()));
            }
        }
        if self.singles.contains(&"sideband") {
            tasks.push(("sideband", sideband::run(scene.clone()).boxed()));
        }
        match self.other {
            Some(WATCHES) => tasks.push((WATCHES, watches::run(scene.clone()).boxed())),
            Some(name) => {
                let users = (0..selectors::USERS).map(|_| selectors::run(scene.clone()));
                tasks.extend(users.map(|task| (name, task.boxed())));
            }
            None => {}
        }
        let user = user(scene);
        for name in &self.transactions {
            if let Some(workload) = histories::by_name(name) {
                tasks.extend((workload.start)(user.clone()).into_iter().map(|task| (*name, task)));
            }
        }
        if self.changes {
            tasks.push((PARAMETERS, parameters::run(scene.clone()).boxed()));
        }
        if self.drains {
            tasks.push((DRAINING, nodes::run(scene.clone()).boxed()));
        }
        if self.joins {
            tasks.push((MEMBERS, members::run(scene.clone()).boxed()));
        }
        tasks.push(("config", config::run(scene.clone()).boxed()));
        tasks.push(("stores", stores::run(scene.clone()).boxed()));
        tasks.push(("recorded", recorded::run(scene.clone()).boxed()));
        for gateway in 0..scene.gateways.len() {
            tasks.push(("status", status::run(scene.clone(), gateway).boxed()));
        }
        tasks
    }

    /// Whether anybody watches keys.
    #[must_use]
    pub(crate) fn watch(&self) -> bool {
        self.other == Some(WATCHES)
    }

    /// The single keys that users write.
    #[must_use]
    pub(crate) fn keys(&self) -> Vec<String> {
        let of = |name: &&str| match *name {
            "registers" => registers::keys(),
            "counters" => (0..counters::USERS).map(counters::key).collect(),
            _ => vec![sideband::KEY.to_owned()],
        };
        let watched = self.watch().then(|| watches::KEY.to_owned());
        self.singles.iter().flat_map(of).chain(watched).collect()
    }
}

/// So many of them, at random.
fn some(random: &dyn Random, mut from: Vec<&'static str>, count: usize) -> Vec<&'static str> {
    let mut chosen = Vec::new();
    while chosen.len() < count && !from.is_empty() {
        let bound = u64::try_from(from.len()).unwrap_or(1);
        let index = usize::try_from(random.next_u64() % bound).unwrap_or(0);
        chosen.push(from.remove(index));
    }
    chosen
}
