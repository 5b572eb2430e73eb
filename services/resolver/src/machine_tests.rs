use plinth_types::{Incarnation, Key, KeyRange, VERSION_GAP};

use super::*;

const RV: Version = Version(500);
const FIRST: Version = Version(500 + VERSION_GAP);
const EPOCH: Epoch = Epoch(4);
const WINDOW: u64 = 1_000;

fn assignment(epoch: Epoch) -> Assignment {
    Assignment {
        epoch,
        director: Incarnation(9),
        recovery_version: RV,
        first_version: FIRST,
        range: KeyRange::all(),
        window_versions: WINDOW,
    }
}

fn serving() -> Resolver {
    let mut resolver = Resolver::new(Limits { waiting_batches: 3, kept_verdicts: 4 });
    assert_eq!(resolver.assign(&assignment(EPOCH)), Ok(vec![]));
    resolver
}

fn batch(prev: Version, version: Version, transactions: Vec<Footprint>) -> Resolution {
    Resolution { epoch: EPOCH, prev, version, transactions }
}

fn transaction(read_version: Version, read: &str, write: &str) -> Footprint {
    let single = |key: &str| vec![KeyRange::single(&Key::from(key))];
    Footprint { read_version: Some(read_version), reads: single(read), writes: single(write) }
}

fn blind(write: &str) -> Footprint {
    Footprint {
        read_version: None,
        reads: vec![],
        writes: vec![KeyRange::single(&Key::from(write))],
    }
}

/// The verdicts of the only decision.
fn verdicts(decisions: Vec<Decision>) -> Vec<Verdict> {
    let [decision] = <[Decision; 1]>::try_from(decisions).unwrap();
    decision.result.unwrap()
}

fn at(offset: u64) -> Version {
    FIRST.plus(offset)
}

#[test]
fn a_read_conflicts_with_later_writes_only() {
    let mut resolver = serving();
    let first = resolver.resolve(Ticket(1), batch(RV, FIRST, vec![blind("a")]));
    assert_eq!(verdicts(first), [Verdict::Commit]);
    resolver.resolve(Ticket(2), batch(FIRST, at(10), vec![blind("b")]));
    let third = resolver.resolve(
        Ticket(3),
        batch(
            at(10),
            at(20),
            vec![
                transaction(FIRST, "a", "x"),
                transaction(FIRST, "b", "y"),
                transaction(at(10), "b", "z"),
            ],
        ),
    );
    assert_eq!(verdicts(third), [Verdict::Commit, Verdict::Conflict, Verdict::Commit]);
}

#[test]
fn within_a_batch_winners_count_and_losers_do_not() {
    let mut resolver = serving();
    let decisions = resolver.resolve(
        Ticket(1),
        batch(
            RV,
            at(5),
            vec![
                transaction(FIRST, "a", "b"),
                transaction(FIRST, "b", "c"),
                transaction(FIRST, "c", "d"),
            ],
        ),
    );
    assert_eq!(verdicts(decisions), [Verdict::Commit, Verdict::Conflict, Verdict::Commit]);
}

#[test]
fn only_transactions_that_read_can_be_too_old() {
    let mut resolver = serving();
    let below = Footprint { reads: vec![], ..transaction(RV, "a", "a") };
    let decisions = resolver
        .resolve(Ticket(1), batch(RV, FIRST, vec![transaction(RV, "a", "a"), below, blind("b")]));
    assert_eq!(verdicts(decisions), [Verdict::TooOld, Verdict::Commit, Verdict::Commit]);
    let later = resolver.resolve(
        Ticket(2),
        batch(
            FIRST,
            at(WINDOW + 7),
            vec![transaction(at(6), "q", "q"), transaction(at(7), "r", "r")],
        ),
    );
    assert_eq!(verdicts(later), [Verdict::TooOld, Verdict::Commit]);
}

#[test]
fn a_read_of_the_future_is_a_conflict() {
    let mut resolver = serving();
    let decisions =
        resolver.resolve(Ticket(1), batch(RV, FIRST, vec![transaction(at(9), "a", "a")]));
    assert_eq!(verdicts(decisions), [Verdict::Conflict]);
}

#[test]
fn early_batches_wait_for_the_chain() {
    let mut resolver = serving();
    assert_eq!(resolver.resolve(Ticket(3), batch(at(1), at(2), vec![blind("c")])), []);
    let reader = transaction(FIRST, "a", "b");
    assert_eq!(resolver.resolve(Ticket(2), batch(FIRST, at(1), vec![reader])), []);
    let decisions = resolver.resolve(Ticket(1), batch(RV, FIRST, vec![blind("a")]));
    let tickets: Vec<_> = decisions.iter().map(|decision| decision.ticket).collect();
    assert_eq!(tickets, [Ticket(1), Ticket(2), Ticket(3)]);
    assert!(decisions.iter().all(|decision| decision.result == Ok(vec![Verdict::Commit])));
    assert_eq!(resolver.status().version, at(2));
}

#[test]
fn a_batch_that_comes_again_gets_the_same_verdicts() {
    let mut resolver = serving();
    let conflicting = vec![transaction(FIRST, "a", "a"), transaction(FIRST, "a", "a")];
    let first = resolver.resolve(Ticket(1), batch(RV, at(1), conflicting.clone()));
    let expected = verdicts(first);
    assert_eq!(expected, [Verdict::Commit, Verdict::Conflict]);
    let again = resolver.resolve(Ticket(2), batch(RV, at(1), conflicting));
    assert_eq!(verdicts(again), expected);
    // While it waits, both callers are answered in the end.
    assert_eq!(resolver.resolve(Ticket(3), batch(at(2), at(3), vec![])), []);
    assert_eq!(resolver.resolve(Ticket(4), batch(at(2), at(3), vec![])), []);
    assert_eq!(resolver.resolve(Ticket(5), batch(at(1), at(2), vec![])).len(), 3);
}

#[test]
fn old_verdicts_are_forgotten_and_forks_refused() {
    let mut resolver = serving();
    let mut prev = RV;
    for offset in 0..6 {
        assert_eq!(resolver.resolve(Ticket(offset), batch(prev, at(offset), vec![])).len(), 1);
        prev = at(offset);
    }
    let refusal = |decisions: Vec<Decision>| decisions.into_iter().next().unwrap().result;
    let forgotten = refusal(resolver.resolve(Ticket(10), batch(RV, FIRST, vec![])));
    assert_eq!(forgotten, Err(Refusal::Forgotten { version: FIRST, newest: at(5) }));
    let fork = refusal(resolver.resolve(Ticket(11), batch(at(3), at(9), vec![])));
    assert_eq!(fork, Err(Refusal::Fork { prev: at(3), version: at(9) }));
    let order = refusal(resolver.resolve(Ticket(12), batch(at(7), at(7), vec![])));
    assert_eq!(order, Err(Refusal::Order { prev: at(7), version: at(7) }));
}

#[test]
fn what_waits_is_bounded_but_the_awaited_batch_always_enters() {
    let mut resolver = serving();
    for offset in 1..=3 {
        assert_eq!(resolver.resolve(Ticket(offset), batch(at(offset), at(offset + 1), vec![])), []);
    }
    let fourth = resolver.resolve(Ticket(4), batch(at(4), at(5), vec![]));
    assert_eq!(fourth[0].result, Err(Refusal::Waiting(3, RV)));
    assert_eq!(resolver.resolve(Ticket(5), batch(RV, at(1), vec![])).len(), 4);
}

#[test]
fn reads_need_a_version() {
    let mut resolver = serving();
    let unversioned = Footprint { read_version: None, ..transaction(FIRST, "a", "a") };
    let decisions = resolver.resolve(Ticket(1), batch(RV, FIRST, vec![blind("b"), unversioned]));
    assert_eq!(decisions[0].result, Err(Refusal::NoReadVersion(1)));
    assert_eq!(resolver.status().version, RV);
}

#[test]
fn a_new_epoch_starts_empty_and_refuses_what_waited() {
    let mut resolver = serving();
    resolver.resolve(Ticket(1), batch(RV, FIRST, vec![blind("a")]));
    assert_eq!(resolver.resolve(Ticket(2), batch(at(1), at(2), vec![])), []);
    let next = Assignment {
        epoch: EPOCH.next(),
        recovery_version: FIRST,
        first_version: FIRST.plus(VERSION_GAP),
        ..assignment(EPOCH)
    };
    let ended = resolver.assign(&next).unwrap();
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].result, Err(Refusal::Superseded(EPOCH.next())));
    assert_eq!(resolver.status().boundaries, 0);
    let stale = resolver.resolve(Ticket(3), batch(FIRST, at(1), vec![]));
    assert!(matches!(stale[0].result, Err(Refusal::Tenure(TenureError::Over { .. }))));
    assert_eq!(resolver.assign(&next), Ok(vec![]));
    assert!(resolver.assign(&assignment(EPOCH)).is_err());
}
