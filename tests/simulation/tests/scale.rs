//! A cluster that is larger costs no commit more than it must: what a commit waits for does not grow
//! with storages or nodes, and a recovery grows no worse than they do.

#![expect(clippy::expect_used, reason = "a failed expectation fails the test")]

use plinth_simulation::child;
use plinth_test_simulation::scale::{Cost, Size, beside, measure, pipeline};

const SMALL: Size =
    Size { nodes: 5, coordinators: 3, logs: 3, commit_proxies: 1, resolvers: 1, shards: 1 };

/// In a process of its own, as every simulation.
fn cost(test: &str, number: u64) -> Cost {
    let outcome = child::run(test, number).expect("it starts");
    assert!(outcome.status.success(), "{}", outcome.output);
    let line = outcome.output.lines().find_map(|line| line.strip_prefix("cost: "));
    serde_json::from_str(line.expect("it tells its cost")).expect("a cost")
}

fn recovery(cost: &Cost) -> f64 {
    cost.recovery.values().sum()
}

#[test]
fn what_a_commit_waits_for_grows_with_no_storage_and_no_node() {
    let test = "what_a_commit_waits_for_grows_with_no_storage_and_no_node";
    let sizes = [SMALL, Size { shards: 5, ..SMALL }, Size { nodes: 10, ..SMALL }];
    if let Some(number) = child::seed() {
        let index = usize::try_from(number).expect("a small number");
        let cost = measure(1, &sizes[index]).expect("a cost");
        println!("\ncost: {}", serde_json::to_string(&cost).expect("JSON"));
        return;
    }
    let [small, storages, nodes] = [0, 1, 2].map(|number| cost(test, number));
    assert_eq!((small.storages, storages.storages), (3, 15));
    // From the user, to the proxy; then, for the commit's batch and the empty one that follows, a
    // version, verdicts, three logs, and the report.
    assert_eq!(pipeline(&small).round(), 14.0, "{:?}", small.commit);
    for (larger, times) in [(&storages, 5.0), (&nodes, 2.0)] {
        assert_eq!(pipeline(larger).round(), 14.0, "{:?}", larger.commit);
        assert!(beside(larger) < beside(&small) * times, "{:?}", larger.commit);
        assert!(recovery(larger) < recovery(&small) * times, "{:?}", larger.recovery);
        assert!(larger.recovery_ms < small.recovery_ms * 2 + 100, "{:?}", larger.phases);
    }
}
