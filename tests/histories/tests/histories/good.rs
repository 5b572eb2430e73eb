//! Histories of lists that a serial execution has made are found to be good, and a read of them that
//! is changed is found out.

use std::collections::{BTreeMap, BTreeSet};

use plinth_test_histories::checks::lists::{Operation, Outcome, Transaction, find};
use proptest::prelude::*;

/// What a transaction is to do: which lists to read, which to append to, and its place in time: how
/// long before its turn it began, and after it ended.
#[derive(Clone, Debug)]
struct Plan {
    operations: Vec<(bool, u8)>,
    early: u64,
    late: u64,
    outcome: Outcome,
}

fn plan() -> impl Strategy<Value = Plan> {
    let outcome = prop_oneof![
        8 => Just(Outcome::Acknowledged),
        1 => Just(Outcome::Unknown),
        1 => Just(Outcome::Refused),
    ];
    let operations = proptest::collection::vec((any::<bool>(), 0u8..3), 1..5);
    (operations, 0u64..40, 0u64..40, outcome).prop_map(|(operations, early, late, outcome)| Plan {
        operations,
        early,
        late,
        outcome,
    })
}

/// Executes the plans one after the other. A refused one does nothing; one of unknown fate takes
/// effect every other time, perhaps after its end.
fn execute(plans: &[Plan]) -> Vec<Transaction> {
    let mut lists: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
    let mut element = 0;
    let mut history = Vec::new();
    for (number, plan) in (1u64..).zip(plans) {
        let takes_effect = match plan.outcome {
            Outcome::Acknowledged => true,
            Outcome::Refused => false,
            Outcome::Unknown => number % 2 == 0,
        };
        let mut then = lists.clone();
        let mut operations = Vec::new();
        for (reads, list) in &plan.operations {
            let name = format!("l{list}");
            if *reads {
                let elements = then.get(list).cloned().unwrap_or_default();
                // Of one whose fate is not known, or that was refused, no read counts.
                if plan.outcome == Outcome::Acknowledged {
                    operations.push(Operation::Read { list: name, elements });
                }
            } else {
                element += 1;
                then.entry(*list).or_default().push(element);
                operations.push(Operation::Append { list: name, element });
            }
        }
        if takes_effect {
            lists = then;
        }
        let turn = 100 * number;
        let ended = if plan.outcome == Outcome::Unknown {
            turn - plan.late
        } else {
            turn + 8 * plan.late + 1
        };
        let began = turn.saturating_sub(8 * plan.early).min(ended - 1);
        history.push(Transaction { id: number, began, ended, outcome: plan.outcome, operations });
    }
    // Everybody ends, and then all is read.
    let reads = (0u8..3).map(|list| Operation::Read {
        list: format!("l{list}"),
        elements: lists.get(&list).cloned().unwrap_or_default(),
    });
    let last = 100 * (plans.len() as u64 + 100);
    history.push(Transaction {
        id: 0,
        began: last,
        ended: last + 1,
        outcome: Outcome::Acknowledged,
        operations: reads.collect(),
    });
    history
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn a_serial_execution_is_good(plans in proptest::collection::vec(plan(), 0..40)) {
        let found = find(&execute(&plans));
        prop_assert!(found.is_empty(), "{:?}", found);
    }

    /// The last look begins after everybody else's end, so that it must show all that is acknowledged,
    /// once, and nothing else.
    #[test]
    fn a_changed_read_is_found_out(
        plans in proptest::collection::vec(plan(), 1..30),
        pick in any::<prop::sample::Index>(),
        change in 0u8..3,
        place in any::<prop::sample::Index>(),
    ) {
        let mut history = execute(&plans);
        let acknowledged: BTreeSet<u64> = history
            .iter()
            .filter(|transaction| transaction.outcome == Outcome::Acknowledged)
            .flat_map(|transaction| &transaction.operations)
            .filter_map(|operation| match operation {
                Operation::Append { element, .. } => Some(*element),
                Operation::Read { .. } => None,
            })
            .collect();
        let look = history.last_mut().map(|look| &mut look.operations).expect("a last look");
        let mut reads: Vec<&mut Vec<u64>> = look
            .iter_mut()
            .filter_map(|operation| match operation {
                Operation::Read { elements, .. } if !elements.is_empty() => Some(elements),
                Operation::Read { .. } | Operation::Append { .. } => None,
            })
            .collect();
        prop_assume!(!reads.is_empty());
        let which = pick.index(reads.len());
        let elements = &mut *reads[which];
        let at = place.index(elements.len());
        match change {
            0 => {
                let gone = elements.remove(at);
                prop_assume!(acknowledged.contains(&gone));
            }
            1 => {
                let twice = elements[at];
                elements.insert(at, twice);
            }
            _ => elements.insert(at, 1_000_000),
        }
        prop_assert!(!find(&history).is_empty(), "{:?}", history);
    }
}
