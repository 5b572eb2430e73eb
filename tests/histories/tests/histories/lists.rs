//! Each anomaly, made by hand, is named by its right name; and nothing else is found.

use plinth_test_histories::checks::lists::{Kind, Operation, Outcome, Transaction, find};

/// A transaction from a line of words: `a3` appends 3 to list a, `a=1,2` has read it.
fn transaction(id: u64, times: (u64, u64), outcome: Outcome, words: &str) -> Transaction {
    let operation = |word: &str| {
        let (list, rest) = word.split_at(1);
        let list = list.to_owned();
        match rest.strip_prefix('=') {
            Some(elements) => {
                let elements = elements.split_terminator(',');
                let elements = elements.map(|element| element.parse().expect("a number")).collect();
                Operation::Read { list, elements }
            }
            None => Operation::Append { list, element: rest.parse().expect("a number") },
        }
    };
    let operations = words.split_whitespace().map(operation).collect();
    Transaction { id, began: times.0, ended: times.1, outcome, operations }
}

/// Transactions all at the same time.
fn at_once(words: &[&str]) -> Vec<Transaction> {
    let numbered = (1..).zip(words);
    numbered
        .map(|(id, words)| transaction(id, (id, 100 + id), Outcome::Acknowledged, words))
        .collect()
}

/// Transactions one after the other.
fn in_turn(words: &[&str]) -> Vec<Transaction> {
    let numbered = (1..).zip(words);
    numbered
        .map(|(id, words)| transaction(id, (10 * id, 10 * id + 5), Outcome::Acknowledged, words))
        .collect()
}

fn kinds(history: &[Transaction]) -> Vec<Kind> {
    find(history).into_iter().map(|(kind, _)| kind).collect()
}

#[test]
fn nothing_is_found_in_good_histories() {
    for good in [
        in_turn(&["a1", "a=1 a2", "a=1,2 a=1,2", "b3 a4 a=1,2,4", "a=1,2,4 b=3"]),
        at_once(&["a1", "a=", "a=1", "a=1 a2", "a=1,2"]),
        // Appended blindly, and never seen: they may stand in any order.
        at_once(&["a1", "a2", "a3", "b=", "a="]),
        vec![],
    ] {
        assert_eq!(kinds(&good), [], "{good:?}");
    }
}

#[test]
fn a_dirty_write_is_a_cycle_of_writes() {
    let history = at_once(&["a1 b1", "a2 b2", "a=1,2 b=2,1"]);
    assert_eq!(kinds(&history), [Kind::G0]);
}

#[test]
fn a_read_of_what_was_refused_is_an_aborted_read() {
    let refused = transaction(1, (1, 2), Outcome::Refused, "a1");
    let reader = transaction(2, (3, 4), Outcome::Acknowledged, "a=1");
    assert_eq!(kinds(&[refused, reader]), [Kind::G1a]);
}

#[test]
fn a_read_amid_another_transaction_is_an_intermediate_read() {
    // The reader is early as well as late, by the order of a.
    let history = at_once(&["a1 a2", "a=1"]);
    assert!(kinds(&history).contains(&Kind::G1b), "{:?}", find(&history));
    assert_eq!(kinds(&at_once(&["a1 a2", "a=1,2"])), []);
}

#[test]
fn two_that_have_read_each_other_are_circular() {
    assert_eq!(kinds(&at_once(&["a1 b=2", "b2 a=1"])), [Kind::G1c]);
    assert_eq!(kinds(&at_once(&["a1 c=3", "b2 a=1", "c3 b=2"])), [Kind::G1c]);
}

#[test]
fn two_appends_after_the_same_read_lose_an_update() {
    assert_eq!(kinds(&at_once(&["a1", "a=1 a2", "a=1 a3", "a=1,2,3"])), [Kind::LostUpdate]);
    // The lost one may be gone entirely.
    assert_eq!(kinds(&at_once(&["a1", "a=1 a2", "a=1 a3", "a=1,3"])), [Kind::LostUpdate]);
    // Or nobody has read since.
    assert_eq!(kinds(&at_once(&["a1", "a=1 a2", "a=1 a3"])), [Kind::LostUpdate]);
}

#[test]
fn a_sight_of_half_a_transaction_is_a_read_skew() {
    assert_eq!(kinds(&at_once(&["a1 b2", "a=1 b=", "b=2"])), [Kind::GSingle]);
    // Over a third one.
    assert_eq!(kinds(&at_once(&["a1", "a=1 b2", "a= b=2"])), [Kind::GSingle]);
}

#[test]
fn two_that_each_miss_the_other_are_a_write_skew() {
    assert_eq!(kinds(&at_once(&["a= b1", "b= a2", "a=2 b=1"])), [Kind::WriteSkew]);
    assert_eq!(kinds(&at_once(&["a= b1", "b= a2"])), [Kind::WriteSkew]);
}

#[test]
fn three_that_each_miss_the_next_are_a_g2() {
    assert_eq!(kinds(&at_once(&["a= b1", "b= c2", "c= a3"])), [Kind::G2]);
}

#[test]
fn reads_that_disagree_are_incompatible() {
    let found = kinds(&at_once(&["a1", "a2", "a=1,2", "a=2,1"]));
    assert_eq!(found, [Kind::IncompatibleOrder]);
    assert_eq!(kinds(&at_once(&["a1", "a2", "a=1", "a=2"])), [Kind::IncompatibleOrder]);
}

#[test]
fn an_element_that_is_there_twice_or_from_nowhere_is_told() {
    assert_eq!(kinds(&at_once(&["a1", "a=1,1"])), [Kind::Duplicate]);
    assert_eq!(kinds(&at_once(&["a1", "a=1,7"])), [Kind::Unwritten]);
}

#[test]
fn a_transaction_that_does_not_see_itself_is_told() {
    assert_eq!(kinds(&at_once(&["a1 a="])), [Kind::Internal]);
    assert_eq!(kinds(&at_once(&["a1", "a=1 a="])), [Kind::Internal]);
    assert_eq!(kinds(&at_once(&["a=1 a1"])), [Kind::Internal]);
}

#[test]
fn a_stale_read_is_one_by_real_time_alone() {
    let stale = ["a1", "a="];
    assert_eq!(kinds(&in_turn(&stale)), [Kind::GSingleRealTime]);
    assert_eq!(kinds(&at_once(&stale)), []);
    // Though others lie between them.
    assert_eq!(kinds(&in_turn(&["a1", "b2", "b=2", "a="])), [Kind::GSingleRealTime]);
}

#[test]
fn an_acknowledged_append_that_is_gone_is_told() {
    assert_eq!(kinds(&in_turn(&["a1", "a=1 a2", "a3", "a=1,2"])), [Kind::GSingleRealTime]);
}

#[test]
fn a_read_of_the_future_and_an_order_against_time_are_told() {
    assert_eq!(kinds(&in_turn(&["a=1", "a1"])), [Kind::G1cRealTime]);
    let mut history = in_turn(&["a2", "a1"]);
    history.push(transaction(3, (40, 41), Outcome::Acknowledged, "a=1,2"));
    assert_eq!(kinds(&history), [Kind::G0RealTime]);
}

#[test]
fn misses_that_real_time_closes_are_told() {
    // Neither has begun when the other's reads were made, as far as one can tell; but the third saw it.
    let history = [
        transaction(1, (1, 10), Outcome::Acknowledged, "a= b1"),
        transaction(2, (20, 30), Outcome::Acknowledged, "c= a2"),
        transaction(3, (2, 40), Outcome::Acknowledged, "b= c3"),
    ];
    assert_eq!(kinds(&history), [Kind::G2]);
    let history = [
        transaction(1, (20, 30), Outcome::Acknowledged, "a= b1"),
        transaction(2, (1, 40), Outcome::Acknowledged, "b= c2"),
        transaction(3, (11, 12), Outcome::Acknowledged, "c="),
        transaction(4, (5, 10), Outcome::Acknowledged, "a3"),
    ];
    assert!(matches!(kinds(&history)[..], [Kind::GSingleRealTime]), "{:?}", find(&history));
    let history = [
        transaction(1, (1, 10), Outcome::Acknowledged, "a3"),
        transaction(2, (20, 30), Outcome::Acknowledged, "c= d4"),
        transaction(3, (1, 40), Outcome::Acknowledged, "a= c5"),
    ];
    assert_eq!(kinds(&history), [Kind::G2RealTime]);
}

#[test]
fn what_is_of_unknown_fate_binds_once_it_is_seen() {
    let unknown = |words| transaction(1, (1, 2), Outcome::Unknown, words);
    let reader = |words| transaction(2, (10, 11), Outcome::Acknowledged, words);
    let later = |words| transaction(3, (20, 21), Outcome::Acknowledged, words);
    assert_eq!(kinds(&[unknown("a1"), reader("a="), later("a=")]), []);
    assert_eq!(kinds(&[unknown("a1"), reader("a="), later("a=1")]), []);
    assert_eq!(kinds(&[unknown("a1"), reader("a=1"), later("a=")]), [Kind::GSingleRealTime]);
    assert_eq!(kinds(&[unknown("a1 b2"), reader("a=1 b="), later("b=2")]), [Kind::GSingle]);
    // Not before it began.
    assert_eq!(kinds(&[later("a1"), reader("a=1")]), [Kind::G1cRealTime]);
}

#[test]
fn a_cycle_says_who_and_why() {
    let (_, seen) = find(&at_once(&["a= b1", "b= a2"])).pop().expect("a skew");
    assert!(seen.contains("T1") && seen.contains("T2"), "{seen}");
    assert!(seen.contains("which read a without the 2 of"), "{seen}");
}

#[test]
#[should_panic(expected = "appended to a twice")]
fn the_same_element_twice_is_no_history() {
    let _ = find(&at_once(&["a1", "a1"]));
}
