//! What reads tell of each list alone: who wrote its elements, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use super::{Kind, Operation, Outcome, Transaction};

/// What is known of one list.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// The longest read.
    pub(super) elements: Vec<u64>,
    /// Who appended each element, by the number of the transaction.
    pub(super) writers: BTreeMap<u64, usize>,
    /// The reads that fit, without what the reader had appended itself: who, and how many elements.
    pub(super) reads: Vec<(usize, usize)>,
    /// Acknowledged elements that no read shows.
    pub(super) unseen: Vec<u64>,
}

/// What was inferred.
pub(super) struct Found<'a> {
    pub(super) orders: BTreeMap<&'a str, Order>,
    pub(super) wrong: Vec<(Kind, String)>,
}

/// A read of what others had written.
struct External<'a> {
    reader: usize,
    elements: &'a [u64],
}

/// Infers the order of each list.
pub(super) fn infer(history: &[Transaction]) -> Found<'_> {
    let mut wrong = Vec::new();
    let mut orders: BTreeMap<&str, Order> = BTreeMap::new();
    let mut last_appends: BTreeMap<(&str, usize), u64> = BTreeMap::new();
    for (number, transaction) in history.iter().enumerate() {
        for operation in &transaction.operations {
            if let Operation::Append { list, element } = operation {
                let order = orders.entry(list).or_default();
                let before = order.writers.insert(*element, number);
                assert!(before.is_none(), "{element} is appended to {list} twice");
                last_appends.insert((list, number), *element);
            }
        }
    }
    let mut reads: BTreeMap<&str, Vec<External<'_>>> = BTreeMap::new();
    for (reader, transaction) in history.iter().enumerate() {
        for (list, elements) in externals(transaction, &mut wrong) {
            reads.entry(list).or_default().push(External { reader, elements });
        }
    }
    for (list, mut reads) in reads {
        let order = orders.entry(list).or_default();
        for read in &reads {
            look_into(history, list, order, &last_appends, read, &mut wrong);
        }
        // Of two that are as long the earlier one stays first.
        reads.sort_by_key(|read| std::cmp::Reverse(read.elements.len()));
        order.elements = reads.first().map(|read| read.elements.to_vec()).unwrap_or_default();
        for read in &reads {
            if order.elements.starts_with(read.elements) {
                order.reads.push((read.reader, read.elements.len()));
            } else {
                let longest = format!("{} and {:?}", history[reads[0].reader], order.elements);
                let other = format!("{} {:?}", history[read.reader], read.elements);
                wrong.push((
                    Kind::IncompatibleOrder,
                    format!("{list} was read as {other}, and by {longest}"),
                ));
            }
        }
    }
    for order in orders.values_mut() {
        let seen: BTreeSet<u64> = order.elements.iter().copied().collect();
        let is_unseen = |(element, writer): (&u64, &usize)| {
            let acknowledged = history[*writer].outcome == Outcome::Acknowledged;
            (acknowledged && !seen.contains(element)).then_some(*element)
        };
        order.unseen = order.writers.iter().filter_map(is_unseen).collect();
    }
    Found { orders, wrong }
}

/// The first read of each list, without the reader's own elements at its end. Later ones must be what
/// follows from it.
fn externals<'a>(
    transaction: &'a Transaction,
    wrong: &mut Vec<(Kind, String)>,
) -> BTreeMap<&'a str, &'a [u64]> {
    let mut first: BTreeMap<&str, &[u64]> = BTreeMap::new();
    let mut own: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for operation in &transaction.operations {
        match operation {
            Operation::Append { list, element } => own.entry(list).or_default().push(*element),
            Operation::Read { list, elements } => {
                let appended = own.get(list.as_str()).map(Vec::as_slice).unwrap_or_default();
                let Some(others) = elements.strip_suffix(appended) else {
                    let seen = format!(
                        "{transaction} appended {appended:?} to {list} and then read {elements:?}"
                    );
                    wrong.push((Kind::Internal, seen));
                    continue;
                };
                let before = *first.entry(list).or_insert(others);
                if before != others {
                    let seen = format!(
                        "{transaction} read {before:?} of {list}, appended {appended:?} and then \
                         read {elements:?}"
                    );
                    wrong.push((Kind::Internal, seen));
                }
            }
        }
    }
    first
}

/// What one read alone shows to be wrong.
fn look_into(
    history: &[Transaction],
    list: &str,
    order: &Order,
    last_appends: &BTreeMap<(&str, usize), u64>,
    read: &External<'_>,
    wrong: &mut Vec<(Kind, String)>,
) {
    let External { reader, elements } = *read;
    let mut seen = BTreeSet::new();
    for element in elements {
        let mut note = |kind, what: &str| {
            let reader = &history[reader];
            wrong.push((kind, format!("{reader} read {elements:?} of {list}: {element} {what}")));
        };
        if !seen.insert(*element) {
            note(Kind::Duplicate, "is there twice");
        }
        match order.writers.get(element) {
            None => note(Kind::Unwritten, "was appended by nobody"),
            Some(writer) if history[*writer].outcome == Outcome::Refused => {
                note(Kind::G1a, &format!("is of {}", history[*writer]));
            }
            Some(writer) if *writer == reader => {
                note(Kind::Internal, "is its own, and not yet there")
            }
            Some(writer) if elements.last() == Some(element) => {
                let last = last_appends.get(&(list, *writer));
                if last.is_some_and(|last| last != element && !seen.contains(last)) {
                    note(Kind::G1b, &format!("is not the last of {}", history[*writer]));
                }
            }
            Some(_) => {}
        }
    }
}
