//! A cluster that is larger costs no commit more than it must: what a commit waits for does not grow
//! with storages or nodes, and a recovery grows no worse than they do.

#![expect(clippy::expect_used, reason = "a failed expectation fails the test")]

use plinth_simulation::child;
use plinth_test_simulation::scale::{Cost, Size, is_off_the_hot_path, measure};

const SMALL: Size =
    Size { nodes: 5, coordinators: 3, logs: 3, commit_proxies: 1, resolvers: 1, shards: 1 };

/// In a process of its own, as every simulation.
fn cost(test: &str, number: u64) -> Cost {
    let outcome = child::run(test, number).expect("it starts");
    assert!(outcome.status.success(), "{}", outcome.output);
    let line = outcome.output.lines().find_map(|line| line.strip_prefix("cost: "));
    serde_json::from_str(line.expect("it tells its cost")).expect("a cost")
}

fn waited_for(cost: &Cost) -> f64 {
    cost.commit.iter().filter(|(kind, _)| !is_off_the_hot_path(kind)).map(|(_, n)| n).sum()
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
    let least = waited_for(&small);
    // From the user, proxy, version, verdicts, three logs, report.
    assert!((8.0..12.0).contains(&least), "{:?}", small.commit);
    for (larger, times) in [(&storages, 5.0), (&nodes, 2.0)] {
        assert!(waited_for(larger) < least + 1.0, "{:?}", larger.commit);
        assert!(recovery(larger) < recovery(&small) * times, "{:?}", larger.recovery);
        assert!(larger.recovery_ms < small.recovery_ms * 2 + 100, "{:?}", larger.phases);
    }
}
