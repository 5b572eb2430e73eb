//! `make bench`: three nodes of Plinth and three of etcd on loopback, one after the other in one
//! run, under the same load, and what comes of it as Markdown tables.
//!
//! - [`compare`]: throughput, latency and processor time by operation and connections.
//! - [`starts`]: from empty directories, and from `kill -9` of everything, to the first commit.
//! - [`failures`]: the longest gap in acknowledged commits when one process is killed.
//!
//! Absolute figures say something about the machine; the ratios are what is compared.

mod compare;
mod etcd;
mod failures;
mod machine;
mod plinth;
mod processes;
mod starts;
mod system;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use plinth_runtime::Runtime;

/// Compares Plinth with etcd on this machine.
#[derive(Debug, Parser)]
struct Cli {
    /// The executable of Plinth
    #[arg(long, value_name = "FILE")]
    plinth: PathBuf,
    /// The executable of etcd; without it only Plinth is measured
    #[arg(long, value_name = "FILE")]
    etcd: Option<PathBuf>,
    /// Where the clusters keep their data while they run: a directory on the disk to measure
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where the figures are written as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A short run: less time, fewer keys, fewer repetitions
    #[arg(long, env = "BENCH_QUICK", value_parser = clap::builder::FalseyValueParser::new())]
    quick: bool,
    /// What to measure, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', env = "BENCH_PARTS",
          default_values_t = [Part::Compare, Part::Starts, Part::Failures])]
    parts: Vec<Part>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The same load on both
    Compare,
    /// Cold start, and `kill -9` of everything
    Starts,
    /// One process killed at a time
    Failures,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// How many keys there are.
    keys: u64,
    /// How long one figure is measured.
    measure: Duration,
    /// How long the load runs before.
    warm_up: Duration,
    /// How often a figure is measured; the median counts.
    runs: usize,
    /// How often a start is measured.
    starts: usize,
    /// How often each kind of process is killed.
    kills: usize,
}

impl Extent {
    const FULL: Extent = Extent {
        keys: 100_000,
        measure: Duration::from_secs(5),
        warm_up: Duration::from_secs(1),
        runs: 3,
        starts: 10,
        kills: 20,
    };
    const QUICK: Extent = Extent {
        keys: 5_000,
        measure: Duration::from_secs(2),
        warm_up: Duration::from_millis(500),
        runs: 3,
        starts: 3,
        kills: 3,
    };
}

/// What every part needs.
struct Bench {
    world: Runtime,
    plinth: PathBuf,
    etcd: Option<PathBuf>,
    data_dir: PathBuf,
    extent: Extent,
}

impl Bench {
    /// An empty directory for a cluster.
    fn fresh(&self, name: &str) -> anyhow::Result<PathBuf> {
        let directory = self.data_dir.join(name);
        if directory.exists() {
            std::fs::remove_dir_all(&directory)
                .with_context(|| format!("{} can't be emptied", directory.display()))?;
        }
        std::fs::create_dir_all(&directory)?;
        Ok(directory)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(cli));
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let bench = Bench {
        world: Runtime::real(),
        plinth: cli.plinth,
        etcd: cli.etcd,
        data_dir: cli.data_dir,
        extent: if cli.quick { Extent::QUICK } else { Extent::FULL },
    };
    let machine = machine::describe(&bench)?;
    println!("{machine}");
    let mut found = serde_json::Map::new();
    found.insert("machine".to_owned(), machine.lines().skip(2).collect());
    for part in cli.parts {
        let (name, figures) = match part {
            Part::Compare => ("compare", compare::run(&bench).await?),
            Part::Starts => ("starts", starts::run(&bench).await?),
            Part::Failures => ("failures", failures::run(&bench).await?),
        };
        found.insert(name.to_owned(), figures);
        // After each part: an hour is not lost by the last minute.
        if let Some(file) = &cli.json {
            std::fs::write(file, serde_json::to_vec_pretty(&found)?)
                .with_context(|| format!("{} can't be written", file.display()))?;
        }
    }
    println!("Load average at the end: {}.", machine::load_average());
    std::fs::remove_dir_all(&bench.data_dir).ok();
    Ok(())
}
