//! Lists that transactions append to and read, of three forms: a value with all elements, a row an
//! element by its place, and a row an element by its versionstamp. The first is appended to by an
//! atomic operation, or by reading and writing all of it; the second by reading the range and writing
//! the next row; the third blindly.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt as _};
use plinth_api::gateway::{Change, ReadResult, Reading};
use plinth_types::Key;

use super::rows::{key, operating, prefix, range, rows, set, stamped_key, text};
use super::set::outcome;
use crate::Anomaly;
use crate::checks::lists::{self, Operation, Outcome};
use crate::history::Transaction;
use crate::users::User;

pub(super) const NAME: &str = "lists";
const VALUES: &str = "t/lists/value/";
const PLACES: &str = "t/lists/places/";
const STAMPS: &str = "t/lists/stamps/";
const USERS: usize = 4;
/// A list that has been chosen so often is left to itself, and a new one begins: a read stays short.
const FULL: usize = 16;

/// How a list is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Value,
    Places,
    Stamps,
}

const FORMS: [Form; 3] = [Form::Value, Form::Places, Form::Stamps];

impl Form {
    fn prefix(self) -> &'static str {
        match self {
            Form::Value => VALUES,
            Form::Places => PLACES,
            Form::Stamps => STAMPS,
        }
    }
}

/// A list: what its keys begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct List {
    form: Form,
    number: usize,
}

impl List {
    fn name(&self) -> String {
        let slash = if self.form == Form::Value { "" } else { "/" };
        format!("{}{:04}{slash}", self.form.prefix(), self.number)
    }

    fn reading(&self, user: &User) -> Reading {
        match self.form {
            Form::Value if user.one_in(2) => key(&self.name()),
            // With its neighbours, which may not be there yet.
            Form::Value => {
                let last = List { number: self.number + 2, ..self.clone() };
                range(&self.name(), &last.name())
            }
            Form::Places | Form::Stamps => prefix(&self.name()),
        }
    }

    /// An append that needs to know nothing; none where the list's form has no such one.
    fn append_blindly(&self, element: u64) -> Option<Change> {
        match self.form {
            Form::Value => {
                Some(Change::AppendIfFits(operating(&self.name(), &*format!("{element},"))))
            }
            Form::Places => None,
            // Of two in one transaction the first one's key comes first.
            Form::Stamps => {
                Some(stamped_key(&self.name(), &element.to_be_bytes(), &element.to_string()))
            }
        }
    }

    /// An append to a list whose elements were read.
    fn append(&self, element: u64, elements: &[u64]) -> Change {
        match self.form {
            Form::Value => {
                let all: String =
                    elements.iter().chain([&element]).map(|e| format!("{e},")).collect();
                set(&self.name(), &*all)
            }
            Form::Places => {
                let place = format!("{}{:04}", self.name(), elements.len());
                set(&place, &*element.to_string())
            }
            Form::Stamps => stamped_key(&self.name(), &element.to_be_bytes(), &element.to_string()),
        }
    }
}

/// The lists that are in use: one of each form.
type Lists = Arc<Mutex<[(usize, usize); FORMS.len()]>>;

pub(super) fn start(user: User) -> Vec<BoxFuture<'static, ()>> {
    let (user, lists) = (user.in_workload(NAME), Lists::default());
    (0..USERS).map(|_| run(user.clone(), Arc::clone(&lists)).boxed()).collect()
}

/// Some list in use.
fn choose(user: &User, lists: &Lists) -> List {
    let which = user.below(FORMS.len());
    let mut lists = lists.lock().unwrap_or_else(PoisonError::into_inner);
    let (number, chosen) = &mut lists[which];
    *chosen += 1;
    if *chosen > FULL {
        (*number, *chosen) = (*number + 1, 1);
    }
    List { form: FORMS[which], number: *number }
}

async fn run(user: User, lists: Lists) {
    while user.is_working() {
        let mut chosen = vec![choose(&user, &lists)];
        if user.one_in(2) {
            let other = choose(&user, &lists);
            if other.form != chosen[0].form {
                chosen.push(other);
            }
        }
        match user.below(4) {
            0 => read(&user, &chosen).await,
            1 => append_blindly(&user, &chosen).await,
            _ => _ = read_and_append(&user, &chosen).await,
        }
        user.pause().await;
    }
}

async fn read(user: &User, chosen: &[List]) {
    let reads = chosen.iter().map(|list| list.reading(user)).collect();
    user.transact(reads, Vec::new()).await;
}

/// Reads the first list and appends to those that can be appended to unseen.
async fn append_blindly(user: &User, chosen: &[List]) {
    let reads = if user.one_in(2) {
        chosen.iter().take(1).map(|list| list.reading(user)).collect()
    } else {
        vec![]
    };
    let mut changes = Vec::new();
    for list in chosen {
        for _ in 0..1 + user.below(2) {
            changes.extend(list.append_blindly(user.number()));
        }
    }
    user.transact(reads, changes).await;
}

async fn read_and_append(user: &User, chosen: &[List]) -> Option<()> {
    let mut transaction = user.begin().await?;
    let reads = chosen.iter().map(|list| list.reading(user)).collect();
    let reads = transaction.step(reads, Vec::new()).await?;
    // At times only one of two that were read: that is how skews are written.
    let count = 1 + user.below(chosen.len());
    let mut changes = Vec::new();
    let mut readable = Vec::new();
    for (list, read) in chosen.iter().zip(&reads).rev().take(count) {
        let elements = elements(&list.name(), read).unwrap_or_default();
        changes.push(list.append(user.number(), &elements));
        // What bears a versionstamp can't be read before the commit.
        if list.form != Form::Stamps && user.one_in(3) {
            readable.push(list.reading(user));
        }
    }
    transaction.step(Vec::new(), changes).await?;
    if !readable.is_empty() {
        transaction.step(readable, Vec::new()).await?;
    }
    if user.one_in(16) {
        // Given up: nothing of it may be seen.
        return None;
    }
    transaction.commit().await.reads().map(drop)
}

/// What a read tells of a list; none where it is not about all of it.
fn elements(name: &str, result: &ReadResult) -> Option<Vec<u64>> {
    let of_value = |value: &[u8]| -> Vec<u64> {
        text(value)
            .split_terminator(',')
            .map(|element| element.parse().unwrap_or(u64::MAX))
            .collect()
    };
    match result {
        ReadResult::Key { key, value } => (key.as_bytes() == name.as_bytes())
            .then(|| value.as_ref().map(|value| of_value(value.as_bytes())).unwrap_or_default()),
        ReadResult::Range { from, to, items, more } => {
            let covers = |name: &[u8]| {
                from.as_bytes() <= name && to.as_ref().is_none_or(|to: &Key| name < to.as_bytes())
            };
            if *more || !covers(name.as_bytes()) {
                return None;
            }
            if name.starts_with(VALUES) {
                let item = items.iter().find(|item| item.key.as_bytes() == name.as_bytes());
                return Some(item.map(|item| of_value(item.value.as_bytes())).unwrap_or_default());
            }
            let reading = Reading { limit: Some(u32::MAX), ..Reading::default() };
            let read = (reading, result.clone());
            let rows = rows(&read, name)?;
            Some(rows.into_values().flat_map(of_value).collect())
        }
    }
}

/// The list that a change appends to, and the element.
fn appended(change: &Change) -> Option<(String, u64)> {
    let list = |key: &[u8], length: usize| key.get(..length).map(text);
    let (key, value) = match change {
        Change::Set(setting) => (&setting.key, text(setting.value.as_bytes())),
        Change::SetVersionstampedKey(stamping) => (&stamping.key, text(stamping.value.as_bytes())),
        Change::AppendIfFits(operating) => {
            (&operating.key, text(operating.operand.clone().into_value().as_bytes()))
        }
        _ => return None,
    };
    // The last one that is written is the one that was not there before.
    let element = value.trim_end_matches(',').rsplit(',').next()?.parse().ok()?;
    let key = key.as_bytes();
    let name = if key.starts_with(VALUES.as_bytes()) {
        list(key, key.len())
    } else {
        let before =
            [PLACES, STAMPS].into_iter().find(|prefix| key.starts_with(prefix.as_bytes()))?;
        list(key, before.len() + "0000/".len())
    };
    Some((name?, element))
}

/// The transactions as the checker takes them.
fn history(transactions: &[Transaction]) -> Vec<lists::Transaction> {
    let appends = transactions.iter().flat_map(Transaction::changes).filter_map(appended);
    let names: BTreeSet<String> = appends.map(|(name, _)| name).collect();
    let mut history = Vec::new();
    for transaction in transactions {
        let mut operations = Vec::new();
        // What a transaction has read before it changed anything is a sight of its own, whatever
        // becomes of it.
        let mut sight = Vec::new();
        let mut has_changed = false;
        for step in &transaction.steps {
            for (_, result) in &step.reads {
                for name in &names {
                    if let Some(elements) = elements(name, result) {
                        let read = Operation::Read { list: name.clone(), elements };
                        if !has_changed {
                            sight.push(read.clone());
                        }
                        operations.push(read);
                    }
                }
            }
            for (list, element) in step.changes.iter().filter_map(appended) {
                has_changed = true;
                operations.push(Operation::Append { list, element });
            }
        }
        let (id, began, ended) = (transaction.id, transaction.began, transaction.ended);
        let outcome = outcome(transaction);
        if outcome != Outcome::Acknowledged && !sight.is_empty() {
            let outcome = Outcome::Acknowledged;
            history.push(lists::Transaction { id, began, ended, outcome, operations: sight });
        }
        if outcome == Outcome::Refused {
            operations.retain(|operation| matches!(operation, Operation::Append { .. }));
        }
        if !operations.is_empty() {
            history.push(lists::Transaction { id, began, ended, outcome, operations });
        }
    }
    history
}

pub(super) fn check(transactions: &[Transaction]) -> Vec<Anomaly> {
    lists::check(&history(transactions))
}
