//! What follows from the orders of all lists together: which transaction comes before which, and the
//! cycles in that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{EdgeFiltered, EdgeRef as _};

use super::orders::Order;
use super::{Kind, Operation, Outcome, Transaction};

/// How many edges of a component are tried in the search for a short cycle.
const TRIES: usize = 500;

/// Why one transaction comes before another.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Why<'a> {
    /// Its element is before the other's.
    WroteBefore { list: &'a str, element: u64, next: u64 },
    /// The other has read its element.
    WasRead { list: &'a str, element: u64 },
    /// It has read the list without the other's element.
    ReadBefore { list: &'a str, element: u64 },
    /// It had ended when the other began.
    Ended,
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::WroteBefore { list, element, next } => {
                write!(f, "whose {element} stands before the {next} in {list} of")
            }
            Why::WasRead { list, element } => write!(f, "whose {element} in {list} was read by"),
            Why::ReadBefore { list, element } => {
                write!(f, "which read {list} without the {element} of")
            }
            Why::Ended => f.write_str("which had ended before the beginning of"),
        }
    }
}

/// Which edges a cycle may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Writes,
    Reads,
    AntiDependencies,
}

impl Why<'_> {
    /// None for the order of real time.
    fn class(&self) -> Option<Class> {
        match self {
            Why::WroteBefore { .. } => Some(Class::Writes),
            Why::WasRead { .. } => Some(Class::Reads),
            Why::ReadBefore { .. } => Some(Class::AntiDependencies),
            Why::Ended => None,
        }
    }
}

/// A transaction by its number, or a moment, which all that ended before lead to and which leads to
/// all that begin after: so real time takes an edge or two a transaction, not one a pair.
type Graph<'a> = DiGraph<Option<usize>, Why<'a>>;

/// The transactions that took effect: those that are acknowledged, and those that somebody saw.
fn effective(history: &[Transaction], orders: &BTreeMap<&str, Order>) -> BTreeSet<usize> {
    let acknowledged = history
        .iter()
        .enumerate()
        .filter(|(_, transaction)| transaction.outcome == Outcome::Acknowledged)
        .map(|(number, _)| number);
    let seen = orders.values().flat_map(|order| {
        order.elements.iter().filter_map(|element| order.writers.get(element)).copied()
    });
    let effective = acknowledged.chain(seen);
    effective.filter(|number| history[*number].outcome != Outcome::Refused).collect()
}

fn build<'a>(history: &[Transaction], orders: &BTreeMap<&'a str, Order>) -> Graph<'a> {
    let mut graph = Graph::new();
    let effective = effective(history, orders);
    let nodes: BTreeMap<usize, NodeIndex> =
        effective.iter().map(|number| (*number, graph.add_node(Some(*number)))).collect();
    let mut edge = |from: usize, to: usize, why: Why<'a>| {
        if let (Some(a), Some(b)) = (nodes.get(&from), nodes.get(&to))
            && from != to
        {
            graph.add_edge(*a, *b, why);
        }
    };
    for (list, order) in orders {
        let Order { elements, writers, reads, unseen } = order;
        // Whoever comes next after the first so many elements: those unseen, after the last one.
        let next_after = |count: usize| match elements.get(count) {
            Some(next) => std::slice::from_ref(next),
            None => unseen.as_slice(),
        };
        for (index, element) in elements.iter().enumerate() {
            for next in next_after(index + 1) {
                if let (Some(from), Some(to)) = (writers.get(element), writers.get(next)) {
                    edge(*from, *to, Why::WroteBefore { list, element: *element, next: *next });
                }
            }
        }
        for (reader, count) in reads {
            if let Some(element) = count.checked_sub(1).and_then(|last| elements.get(last))
                && let Some(writer) = writers.get(element)
            {
                edge(*writer, *reader, Why::WasRead { list, element: *element });
            }
            for element in next_after(*count) {
                if let Some(writer) = writers.get(element) {
                    edge(*reader, *writer, Why::ReadBefore { list, element: *element });
                }
            }
        }
    }
    add_real_time(history, &nodes, &mut graph);
    graph
}

fn add_real_time(
    history: &[Transaction],
    nodes: &BTreeMap<usize, NodeIndex>,
    graph: &mut Graph<'_>,
) {
    // One of unknown fate may take effect after its end.
    let mut ends: Vec<(u64, NodeIndex)> = nodes
        .iter()
        .filter(|(number, _)| history[**number].outcome == Outcome::Acknowledged)
        .map(|(number, node)| (history[*number].ended, *node))
        .collect();
    ends.sort_unstable();
    let mut moments: Vec<(u64, NodeIndex)> = Vec::with_capacity(ends.len());
    for (ended, node) in ends {
        let moment = graph.add_node(None);
        if let Some((_, before)) = moments.last() {
            graph.add_edge(*before, moment, Why::Ended);
        }
        graph.add_edge(node, moment, Why::Ended);
        moments.push((ended, moment));
    }
    for (number, node) in nodes {
        let before = moments.partition_point(|(ended, _)| *ended < history[*number].began);
        if let Some((_, moment)) = before.checked_sub(1).map(|last| moments[last]) {
            graph.add_edge(moment, *node, Why::Ended);
        }
    }
}

/// Answers a short cycle of each component of the dependencies, by the least kind that it has.
pub(super) fn cycles(
    history: &[Transaction],
    orders: &BTreeMap<&str, Order>,
) -> Vec<(Kind, String)> {
    let graph = build(history, orders);
    let mut found = Vec::new();
    // A component is told of once: what else is wrong with it may follow from that.
    let mut told: BTreeSet<NodeIndex> = BTreeSet::new();
    for real_time in [false, true] {
        for most in [Class::Writes, Class::Reads, Class::AntiDependencies] {
            let allowed = |why: &Why<'_>| why.class().map_or(real_time, |class| class <= most);
            let filtered = EdgeFiltered::from_fn(&graph, |edge| allowed(edge.weight()));
            for component in tarjan_scc(&filtered) {
                let component: BTreeSet<NodeIndex> = component.into_iter().collect();
                if component.len() < 2 || !component.is_disjoint(&told) {
                    continue;
                }
                if let Some(cycle) = cycle_in(&graph, &component, &allowed, most) {
                    found.push(describe(history, &graph, &cycle));
                    told.extend(component);
                }
            }
        }
    }
    found
}

/// An edge of a cycle: from, to, and why.
type Step<'g, 'a> = (NodeIndex, NodeIndex, &'g Why<'a>);

/// A short cycle in a component. With as few anti-dependencies as can be: one, if there is such a one.
fn cycle_in<'g, 'a>(
    graph: &'g Graph<'a>,
    component: &BTreeSet<NodeIndex>,
    allowed: &dyn Fn(&Why<'_>) -> bool,
    most: Class,
) -> Option<Vec<Step<'g, 'a>>> {
    let inside = || {
        graph
            .edge_references()
            .filter(|edge| allowed(edge.weight()))
            .filter(|edge| component.contains(&edge.source()) && component.contains(&edge.target()))
    };
    let of_class = || inside().filter(|edge| edge.weight().class() == Some(most)).take(TRIES);
    let few: &dyn Fn(&Why<'_>) -> bool =
        &|why| allowed(why) && why.class() != Some(Class::AntiDependencies);
    for way_back in [few, allowed] {
        let shortest = of_class()
            .filter_map(|edge| {
                let back = path(graph, component, way_back, edge.target(), edge.source())?;
                Some(
                    std::iter::once((edge.source(), edge.target(), edge.weight()))
                        .chain(back)
                        .collect::<Vec<_>>(),
                )
            })
            .min_by_key(Vec::len);
        if shortest.is_some() {
            return shortest;
        }
    }
    None
}

/// A shortest path.
fn path<'g, 'a>(
    graph: &'g Graph<'a>,
    component: &BTreeSet<NodeIndex>,
    allowed: &dyn Fn(&Why<'_>) -> bool,
    from: NodeIndex,
    to: NodeIndex,
) -> Option<Vec<Step<'g, 'a>>> {
    let mut reached: BTreeMap<NodeIndex, Step<'g, 'a>> = BTreeMap::new();
    let mut next = VecDeque::from([from]);
    while let Some(node) = next.pop_front() {
        if node == to {
            let mut steps = Vec::new();
            let mut at = to;
            while at != from {
                let step = reached.get(&at)?;
                steps.push(*step);
                at = step.0;
            }
            steps.reverse();
            return Some(steps);
        }
        for edge in graph.edges(node).filter(|edge| allowed(edge.weight())) {
            let target = edge.target();
            if component.contains(&target) && target != from && !reached.contains_key(&target) {
                reached.insert(target, (node, target, edge.weight()));
                next.push_back(target);
            }
        }
    }
    None
}

fn describe(history: &[Transaction], graph: &Graph<'_>, cycle: &[Step<'_, '_>]) -> (Kind, String) {
    // Moments are left out: a way over them is one step of real time.
    let mut steps: Vec<(usize, &Why<'_>)> = Vec::new();
    for (from, _, why) in cycle {
        if let Some(transaction) = graph[*from] {
            steps.push((transaction, why));
        }
    }
    // A cycle may begin at a moment; its first transaction is then in the middle.
    let count = |class| steps.iter().filter(|(_, why)| why.class() == class).count();
    let real_time = count(None) > 0;
    let reads = count(Some(Class::Reads));
    let kind = match (count(Some(Class::AntiDependencies)), real_time) {
        (0, false) if reads == 0 => Kind::G0,
        (0, false) => Kind::G1c,
        (0, true) if reads == 0 => Kind::G0RealTime,
        (0, true) => Kind::G1cRealTime,
        (_, false) if is_lost_update(history, &steps) => Kind::LostUpdate,
        (1, false) => Kind::GSingle,
        (1, true) => Kind::GSingleRealTime,
        (2, false) if steps.len() == 2 => Kind::WriteSkew,
        (_, false) => Kind::G2,
        (_, true) => Kind::G2RealTime,
    };
    let mut text = String::new();
    for (transaction, why) in &steps {
        text.push_str(&format!("{} {why} ", history[*transaction]));
    }
    if let Some((first, _)) = steps.first() {
        text.push_str(&history[*first].to_string());
    }
    (kind, text)
}

/// Whether a cycle is of one list alone, which a transaction has read before another one's append and
/// appended to itself.
fn is_lost_update(history: &[Transaction], steps: &[(usize, &Why<'_>)]) -> bool {
    let anti = steps.iter().find_map(|(reader, why)| match why {
        Why::ReadBefore { list, .. } => Some((*reader, *list)),
        _ => None,
    });
    let Some((reader, list)) = anti else { return false };
    let appends = history[reader].operations.iter().any(
        |operation| matches!(operation, Operation::Append { list: other, .. } if other == list),
    );
    let same = steps.iter().all(|(_, why)| match why {
        Why::WroteBefore { list: other, .. }
        | Why::WasRead { list: other, .. }
        | Why::ReadBefore { list: other, .. } => *other == list,
        Why::Ended => false,
    });
    appends && same
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Acknowledged => "acknowledged",
            Outcome::Refused => "refused",
            Outcome::Unknown => "of unknown fate",
        };
        write!(f, "T{} ({outcome}, {} to {})", self.id, self.began, self.ended)
    }
}
