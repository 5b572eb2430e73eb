//! Random numbers from the seed.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::{Mutex, PoisonError};

use plinth_runtime::Random;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

use crate::trace::Trace;

/// One stream of ChaCha: the seed is the key, the name picks the stream.
pub(crate) struct SeededRandom {
    name: String,
    generator: Mutex<ChaCha12Rng>,
    trace: Trace,
}

impl SeededRandom {
    pub(crate) fn new(seed: u64, name: &str, trace: Trace) -> Self {
        let mut generator = ChaCha12Rng::seed_from_u64(seed);
        let mut stream = DefaultHasher::new();
        stream.write(name.as_bytes());
        generator.set_stream(stream.finish());
        SeededRandom { name: name.to_owned(), generator: Mutex::new(generator), trace }
    }
}

impl Random for SeededRandom {
    fn next_u64(&self) -> u64 {
        let number = self.generator.lock().unwrap_or_else(PoisonError::into_inner).next_u64();
        self.trace.record(&self.name, "draw", &[&number.to_be_bytes()]);
        number
    }
}
