//! What users do, a workload a module. Each has an invariant of its own, and leaves what it did and
//! saw in the history for the [`crate::invariants`].

mod config;
mod counters;
mod registers;
mod sideband;
mod status;

use futures::future::{BoxFuture, FutureExt as _};

use crate::scene::Scene;

pub(crate) use config::CONFIG;

/// Everything that the users of a cluster do. Each ends by itself once they no longer work.
#[must_use]
pub fn all(scene: &Scene) -> Vec<(&'static str, BoxFuture<'static, ()>)> {
    let mut tasks = Vec::new();
    for number in 0..registers::USERS {
        tasks.push(("registers", registers::run(scene.clone(), number).boxed()));
    }
    for number in 0..counters::USERS {
        tasks.push(("counters", counters::run(scene.clone(), number).boxed()));
    }
    tasks.push(("sideband", sideband::run(scene.clone()).boxed()));
    tasks.push(("config", config::run(scene.clone()).boxed()));
    for gateway in 0..scene.gateways.len() {
        tasks.push(("status", status::run(scene.clone(), gateway).boxed()));
    }
    tasks
}

/// The keys that users write.
#[must_use]
pub fn keys() -> Vec<String> {
    let counters = (0..counters::USERS).map(counters::key);
    registers::keys().into_iter().chain(counters).chain([sideband::KEY.to_owned()]).collect()
}
