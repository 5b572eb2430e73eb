//! Runs simulated histories of the whole cluster: one seed, or a campaign of many.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use plinth_simulation::When;
use plinth_test_simulation::campaign::{self, Campaign, Outcome, Summary};
use plinth_test_simulation::{Setup, run};

/// The real time that a seed may take. Generous: on a machine of its own it is seconds.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs simulated histories of the whole cluster.
#[derive(Debug, Parser)]
#[command(name = "simulate")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One seed, in this process. `PLINTH_SIMULATION_LOG=info` shows what the services say.
    Seed {
        /// The seed.
        seed: u64,
        /// A deliberate fault: its point, or `point=N` to have it fire one time in N.
        #[arg(long)]
        control: Vec<String>,
        /// A kind of what befalls the cluster, such as `power loss`; the only one, and others named so.
        #[arg(long)]
        fault: Vec<String>,
        /// Print this many of the last events, to compare two runs.
        #[arg(long, default_value_t = 0)]
        events: usize,
        /// Four nodes, of which one is lost for good.
        #[arg(long)]
        lose_node: bool,
        /// Change parameters, whatever the seed chooses.
        #[arg(long)]
        change_parameters: bool,
    },
    /// Many seeds, each in a process of its own.
    Campaign {
        /// How many.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 1)]
        first: u64,
        /// A deliberate fault, as above.
        #[arg(long)]
        control: Vec<String>,
        /// A kind of what befalls the cluster, as above.
        #[arg(long)]
        fault: Vec<String>,
        /// How many processes at a time; as many as there are processors unless said.
        #[arg(long)]
        jobs: Option<usize>,
        /// Four nodes, of which one is lost for good.
        #[arg(long)]
        lose_node: bool,
        /// Change parameters, whatever the seed chooses.
        #[arg(long)]
        change_parameters: bool,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Seed { seed, control, fault, events, lose_node, change_parameters } => {
            let mut setup = if lose_node { Setup::losing_a_node() } else { Setup::default() };
            setup.changes_parameters =
                change_parameters.then_some(true).or(setup.changes_parameters);
            one(seed, &control, Setup { faults: fault, kept_events: events, ..setup })
        }
        Command::Campaign { seeds, first, control, fault, jobs, lose_node, change_parameters } => {
            std::env::current_exe().map_err(anyhow::Error::from).and_then(|executable| {
                let mut campaign =
                    Campaign { controls: control, faults: fault, ..Campaign::new(&executable) };
                campaign.jobs = jobs.unwrap_or(campaign.jobs);
                campaign.loses_a_node = lose_node;
                campaign.changes_parameters = change_parameters;
                many(seeds, first, &campaign)
            })
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("simulate: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Ends the process of a seed in which something spins without end, so that time stands still.
#[expect(clippy::disallowed_methods, reason = "it is about real time")]
fn watch_over() {
    let began = Instant::now();
    std::thread::spawn(move || {
        while let Some(left) = PATIENCE.checked_sub(began.elapsed()) {
            std::thread::park_timeout(left);
        }
        eprintln!("it has not ended after {} s of real time: something spins", PATIENCE.as_secs());
        std::process::exit(3);
    });
}

fn one(seed: u64, controls: &[String], mut setup: Setup) -> anyhow::Result<bool> {
    watch_over();
    for control in controls {
        setup.controls.push(parse(control)?);
    }
    let (report, world) = run(seed, &setup)?;
    if setup.kept_events > 0 {
        print!("{}", world.trace().dump());
    }
    campaign::print(&report)?;
    Ok(report.violations.is_empty())
}

fn parse(control: &str) -> anyhow::Result<(String, When)> {
    match control.split_once('=') {
        None => Ok((control.to_owned(), When::Always)),
        Some((point, times)) => {
            let times = times
                .parse()
                .with_context(|| format!("--control {control}: =N is not a number"))?;
            if times == 0 {
                bail!("--control {control}: one time in 0 is never");
            }
            Ok((point.to_owned(), When::OneIn(times)))
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how fast it is in real time is what is told")]
fn many(seeds: u64, first: u64, runner: &Campaign) -> anyhow::Result<bool> {
    let began = Instant::now();
    let mut summary = Summary::default();
    runner.run_all(first..first.saturating_add(seeds), |outcome: Outcome| {
        summary.add(&outcome);
        if !outcome.is_well() {
            println!("{}", runner.account(&outcome));
        }
        if summary.seeds.is_multiple_of(50) {
            let took = began.elapsed().as_secs_f64();
            println!("{} seeds, {:.2} s a seed", summary.seeds, took / summary.seeds as f64);
        }
        true
    })?;
    let took = began.elapsed().as_secs_f64();
    println!(
        "{}{:.2} s a seed, {:.0} simulated seconds a second",
        summary.text(),
        took / summary.seeds.max(1) as f64,
        summary.simulated_seconds() as f64 / took
    );
    Ok(summary.is_well())
}
