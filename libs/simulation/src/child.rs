//! Each seed in a process of its own.
//!
//! A test calls [`seed`] first. In the parent it is `None`: the test runs itself as a child once for
//! each of its seeds with [`run`] and compares. In a child it is the seed to run; at the end the
//! child calls [`report`].

use std::env;
use std::io;
use std::process::{Command, ExitStatus};

use crate::Simulation;

const SEED: &str = "PLINTH_SIMULATION_SEED";
const REPORT: &str = "simulated: ";

/// What became of a child.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// What [`report`] said: the same text for the same history. `None` where it did not get that far.
    pub report: Option<String>,
    /// Everything it printed, errors last.
    pub output: String,
}

/// The seed that this process is to run, if it is a child, or if a person has set it to replay one.
#[must_use]
pub fn seed() -> Option<u64> {
    env::var(SEED).ok()?.parse().ok()
}

/// Says how the run went, for the parent to compare.
pub fn report(world: &Simulation) {
    let trace = world.trace();
    println!("\n{REPORT}{} events, hash {}", trace.events(), trace.hash());
}

/// Runs a test of this executable, by its full name, as the child for a seed.
///
/// # Errors
/// When it can't be started.
pub fn run(test: &str, seed: u64) -> io::Result<Outcome> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["--exact", test, "--nocapture", "--include-ignored"]).env(SEED, seed.to_string());
    let output = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let printed = text(&output.stdout);
    let report = printed.lines().find_map(|line| line.strip_prefix(REPORT)).map(str::to_owned);
    Ok(Outcome { status: output.status, report, output: printed + &text(&output.stderr) })
}

/// The command that replays a seed.
#[must_use]
pub fn replay_command(package: &str, test: &str, seed: u64) -> String {
    format!("{SEED}={seed} cargo test -p {package} -- --exact {test} --nocapture --include-ignored")
}
