//! Which request comes next. Pure: the same seed draws the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::distr::weighted::WeightedIndex;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Zipf};

use crate::{Keys, Load, LoadError, Operation};

/// Draws operations and keys for one connection.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    random: ChaCha8Rng,
    operations: WeightedIndex<u32>,
    keys: Draw,
    count: u64,
}

#[derive(Clone, Debug)]
enum Draw {
    Uniform,
    Zipfian(Zipf<f64>),
    /// Shared by all connections.
    Sequential(Arc<AtomicU64>),
}

impl Workload {
    /// The workload of each connection.
    ///
    /// # Errors
    /// The load is out of its bounds.
    pub(crate) fn of_connections(load: &Load) -> Result<Vec<Workload>, LoadError> {
        let operations =
            WeightedIndex::new(load.mix.weights()).map_err(|error| LoadError::OutOfBounds {
                what: "mix",
                bounds: "more than nothing",
                given: error.to_string(),
            })?;
        let keys = match load.key_choice {
            Keys::Uniform => Draw::Uniform,
            Keys::Sequential => Draw::Sequential(Arc::default()),
            Keys::Zipfian(exponent) => {
                #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 keys nobody counts")]
                let count = load.keys as f64;
                Draw::Zipfian(Zipf::new(count, exponent).map_err(|error| {
                    LoadError::OutOfBounds {
                        what: "zipf exponent",
                        bounds: "0 or more",
                        given: error.to_string(),
                    }
                })?)
            }
        };
        Ok((0..load.connections)
            .map(|connection| {
                let mut random = ChaCha8Rng::seed_from_u64(load.seed);
                random.set_stream(connection as u64);
                Workload {
                    random,
                    operations: operations.clone(),
                    keys: keys.clone(),
                    count: load.keys,
                }
            })
            .collect())
    }

    /// The next operation and the number of its key.
    pub(crate) fn next(&mut self) -> (Operation, u64) {
        let operation = Operation::ALL[self.operations.sample(&mut self.random)];
        let key = match &self.keys {
            Draw::Uniform => self.random.random_range(0..self.count),
            Draw::Sequential(next) => next.fetch_add(1, Ordering::Relaxed) % self.count,
            Draw::Zipfian(zipf) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "ranks are whole numbers from 1 to the number of keys"
                )]
                let rank = zipf.sample(&mut self.random) as u64;
                rank.clamp(1, self.count) - 1
            }
        };
        (operation, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mix, Protocol};

    fn load(key_choice: Keys) -> Load {
        let mix = Mix { get: 8, put: 2, transaction: 0 };
        Load { key_choice, keys: 100, ..Load::new(Protocol::Plinth, vec![], mix) }
    }

    fn draws(load: &Load, connection: usize, count: usize) -> Vec<(Operation, u64)> {
        let mut workload = Workload::of_connections(load).expect("valid").remove(connection);
        (0..count).map(|_| workload.next()).collect()
    }

    #[test]
    fn a_seed_draws_the_same_and_connections_draw_differently() {
        let load = load(Keys::Uniform);
        assert_eq!(draws(&load, 0, 50), draws(&load, 0, 50));
        assert_ne!(draws(&load, 0, 50), draws(&load, 1, 50));
        assert_ne!(draws(&load, 0, 50), draws(&Load { seed: 2, ..load }, 0, 50));
    }

    #[test]
    fn operations_come_in_proportion() {
        let drawn = draws(&load(Keys::Uniform), 0, 10_000);
        let count = |wanted| drawn.iter().filter(|(operation, _)| *operation == wanted).count();
        assert_eq!(count(Operation::Transaction), 0);
        assert!((7_700..8_300).contains(&count(Operation::Get)), "{}", count(Operation::Get));
    }

    #[test]
    fn zipf_draws_the_first_keys_most_and_uniform_draws_all_alike() {
        let per_key = |key_choice| {
            let mut counts = [0; 100];
            for (_, key) in draws(&load(key_choice), 0, 100_000) {
                counts[usize::try_from(key).expect("small")] += 1;
            }
            counts
        };
        let uniform = per_key(Keys::Uniform);
        assert!(uniform.iter().all(|count| (800..1_200).contains(count)), "{uniform:?}");
        let zipf = per_key(Keys::Zipfian(1.0));
        // The n-th key of 100 is drawn with 1 / (n H(100)), where H(100) is 5.187.
        for (key, expected) in [(0, 19_278), (1, 9_639), (9, 1_928)] {
            let seen: i32 = zipf[key];
            assert!((seen - expected).abs() < expected / 8, "key {key}: {seen}, not {expected}");
        }
    }

    #[test]
    fn in_sequence_every_key_comes_once() {
        let load = load(Keys::Sequential).filling();
        let mut workloads = Workload::of_connections(&load).expect("valid");
        let mut seen: Vec<u64> = (0..100).map(|draw| workloads[draw % 7].next().1).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }
}
