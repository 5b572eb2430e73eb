//! Knobs: parameters of the cluster and limits of its services, within their bounds, as the seed draws
//! them. In a third of the seeds all are as they come; in the others each is changed one time in four,
//! to values at which queues fill, batches are cut, ranges come in parts and timeouts are near.

use std::fmt;
use std::time::Duration;

use plinth_runtime::Random;

use crate::cluster::Shape;

/// One time in so many a knob is turned, where any is.
const TURNED: u64 = 4;

/// Draws knobs.
struct Draw<'a> {
    random: &'a dyn Random,
    turned: Vec<String>,
}

impl Draw<'_> {
    /// Turns a knob to one of `values`, or leaves it.
    fn knob<T: Copy + fmt::Debug>(&mut self, name: &str, knob: &mut T, values: &[T]) {
        // Drawn in any case, so that what one knob takes changes no other.
        let (whether, which) = (self.random.next_u64(), self.random.next_u64());
        let bound = u64::try_from(values.len().max(1)).unwrap_or(1);
        let index = usize::try_from(which % bound).unwrap_or(0);
        if let Some(value) = values.get(index).filter(|_| whether.is_multiple_of(TURNED)) {
            *knob = *value;
            self.turned.push(format!("{name} = {value:?}"));
        }
    }
}

/// Turns a cluster's knobs. Answers which, a line each.
#[must_use]
pub fn turn(random: &dyn Random, shape: &mut Shape) -> Vec<String> {
    if random.next_u64().is_multiple_of(3) {
        return Vec::new();
    }
    let mut draw = Draw { random, turned: Vec::new() };
    parameters(&mut draw, shape);
    limits(&mut draw, shape);
    draw.turned
}

fn parameters(draw: &mut Draw<'_>, shape: &mut Shape) {
    let all = &mut shape.parameters;
    // Two copies at least, so that a disk may be damaged.
    draw.knob("replication", &mut all.replication, &[2, 3]);
    draw.knob("logs", &mut all.logs, &[3, 4, 5]);
    draw.knob("commit_proxies", &mut all.commit_proxies, &[2, 3]);
    draw.knob("resolvers", &mut all.resolvers, &[2, 3]);
    draw.knob("config_team", &mut all.config_team, &[2, 3]);
    draw.knob("failure_timeout_ms", &mut all.failure_timeout_ms, &[300, 700, 1_500]);
    draw.knob("rejoin_grace_ms", &mut all.rejoin_grace_ms, &[0, 50, 1_000]);
    draw.knob("start_grace_ms", &mut all.start_grace_ms, &[0, 1_000, 8_000]);
    draw.knob("peer_timeout_ms", &mut all.peer_timeout_ms, &[500, 2_000]);
    let patience = &mut all.system_transaction_timeout_ms;
    draw.knob("system_transaction_timeout_ms", patience, &[3_000, 20_000]);
    draw.knob("window_versions", &mut all.window_versions, &[1_000_000, 2_000_000, 10_000_000]);
}

fn limits(draw: &mut Draw<'_>, shape: &mut Shape) {
    let proxy = &mut shape.tuning.commit_proxy;
    draw.knob("batch_transactions", &mut proxy.batch_transactions, &[1, 2, 5]);
    draw.knob("batch_bytes", &mut proxy.batch_bytes, &[1, 300, 2_000]);
    draw.knob("batches", &mut proxy.batches, &[1, 2, 3]);
    draw.knob("waiting_transactions", &mut proxy.waiting_transactions, &[1, 4, 16]);
    draw.knob("waiting_reads", &mut proxy.waiting_reads, &[2, 8, 32]);

    let kept = &mut shape.tuning.sequencer.kept_answers;
    draw.knob("kept_answers", kept, &[8, 16]);
    let resolver = &mut shape.tuning.resolver;
    draw.knob("kept_verdicts", &mut resolver.kept_verdicts, &[32, 64]);
    draw.knob("waiting_batches", &mut resolver.waiting_batches, &[32, 64]);

    let log = &mut shape.tuning.log;
    draw.knob("log memory_bytes", &mut log.memory_bytes, &[0, 1_000, 20_000]);
    draw.knob("log pull_bytes", &mut log.pull_bytes, &[1, 500, 5_000]);
    draw.knob("log pull_entries", &mut log.pull_entries, &[1, 3, 20]);
    draw.knob("log waiting_entries", &mut log.waiting_entries, &[32, 64]);

    let storage = &mut shape.tuning.storage;
    let ms = Duration::from_millis;
    draw.knob("flush_delay", &mut storage.flush_delay, &[ms(0), ms(20), ms(700)]);
    draw.knob("flush_bytes", &mut storage.flush_bytes, &[1, 1_000, 10_000]);
    draw.knob("window_bytes", &mut storage.window_bytes, &[2_000, 20_000, 100_000]);
    draw.knob("read_bytes", &mut storage.read_bytes, &[200, 2_000]);
    draw.knob("read_wait", &mut storage.read_wait, &[ms(50), ms(300)]);
    draw.knob("pull_wait", &mut storage.pull_wait, &[ms(20), ms(200), ms(5_000)]);
    draw.knob("storage pull_bytes", &mut storage.pull_bytes, &[1, 2_000]);
    draw.knob("retry_delay", &mut storage.retry_delay, &[ms(5), ms(200)]);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use plinth_simulation::{Options, Simulation};

    use super::*;

    #[test]
    fn knobs_are_turned_within_their_bounds_and_some_seeds_have_none() {
        let (mut names, mut untouched) = (BTreeSet::new(), 0);
        for seed in 0..500 {
            let world = Simulation::new(seed, Options::default());
            let mut shape = Shape::default();
            let turned = turn(&*world.random("knobs"), &mut shape);
            assert_eq!(shape.parameters.problems(), [], "{turned:?}");
            untouched += u32::from(turned.is_empty());
            names
                .extend(turned.iter().filter_map(|one| one.split(" = ").next().map(str::to_owned)));
            let again =
                turn(&*Simulation::new(seed, Options::default()).random("knobs"), &mut shape);
            assert_eq!(turned, again);
        }
        assert_eq!(names.len(), 31, "{names:?}");
        assert!((100..250).contains(&untouched), "{untouched}");
    }
}
