//! Runs simulated histories of the whole cluster: one seed, or a campaign of many.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use plinth_simulation::When;
use plinth_test_simulation::campaign::{self, Campaign, Outcome, Summary};
use plinth_test_simulation::record::{self, Heading, Record};
use plinth_test_simulation::scale::{self, Size};
use plinth_test_simulation::{Setup, log_if_asked, run};

/// A simulation allocates more than it does anything else, and this one does that faster.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// This executable as it was started, even if another build has taken its place since.
const SELF: &str = "/proc/self/exe";
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
        /// From this simulated millisecond on, for a while, messages overtake others.
        #[arg(long)]
        overtaking_ms: Option<u64>,
        /// Print this many of the last events, to compare two runs.
        #[arg(long, default_value_t = 0)]
        events: usize,
        /// Four nodes, of which one is lost, for good or for a while. One seed in eight is so anyway
        /// where no kind of fault is named.
        #[arg(long)]
        lose_node: bool,
        /// Change parameters, whatever the seed chooses.
        #[arg(long)]
        change_parameters: bool,
        /// Four nodes, which are drained, used again and removed.
        #[arg(long, conflicts_with = "lose_node")]
        drain_nodes: bool,
        /// Five nodes, whose coordinators join and leave.
        #[arg(long, conflicts_with_all = ["lose_node", "drain_nodes"])]
        change_members: bool,
    },
    /// What a cluster of a size costs, as a line of JSON.
    Cost {
        /// The size.
        #[command(flatten)]
        size: Size,
        /// The seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// What clusters of many sizes cost, as tables in Markdown.
    Scale,
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
        /// Where to note which seeds were run, and what came of them: a file with an ending, or a
        /// directory, in which each build has a file. Seeds that are noted there by an earlier
        /// campaign of the same build and the same faults are not run again.
        #[arg(long)]
        record: Option<PathBuf>,
        /// Four nodes, of which one is lost, for good or for a while. One seed in eight is so anyway
        /// where no kind of fault is named.
        #[arg(long)]
        lose_node: bool,
        /// Change parameters, whatever the seed chooses.
        #[arg(long)]
        change_parameters: bool,
        /// Four nodes, which are drained, used again and removed.
        #[arg(long, conflicts_with = "lose_node")]
        drain_nodes: bool,
        /// Five nodes, whose coordinators join and leave.
        #[arg(long, conflicts_with_all = ["lose_node", "drain_nodes"])]
        change_members: bool,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Seed {
            seed,
            control,
            fault,
            overtaking_ms,
            events,
            lose_node,
            change_parameters,
            drain_nodes,
            change_members,
        } => {
            let overtaking = overtaking_ms.map(Duration::from_millis);
            // What is named at all is all that is to be.
            let is_free = control.is_empty() && fault.is_empty() && !change_parameters;
            let mut setup = match () {
                () if lose_node => Setup::losing_a_node(),
                () if drain_nodes => Setup::draining_nodes(),
                () if change_members => Setup::changing_members(),
                () if is_free => Setup::of(seed),
                () => Setup::default(),
            };
            setup.changes_parameters =
                change_parameters.then_some(true).or(setup.changes_parameters);
            let faults = if fault.is_empty() { setup.faults } else { fault };
            let setup = Setup { faults, overtaking, kept_events: events, ..setup };
            one(seed, &control, setup)
        }
        Command::Cost { size, seed } => cost(seed, &size),
        Command::Scale => {
            scale::print_tables(Path::new(SELF), &mut std::io::stdout()).map(|()| true)
        }
        Command::Campaign {
            seeds,
            first,
            control,
            fault,
            jobs,
            record,
            lose_node,
            change_parameters,
            drain_nodes,
            change_members,
        } => {
            let mut campaign =
                Campaign { controls: control, faults: fault, ..Campaign::new(Path::new(SELF)) };
            campaign.jobs = jobs.unwrap_or(campaign.jobs);
            campaign.loses_a_node = lose_node;
            campaign.changes_parameters = change_parameters;
            campaign.drains_nodes = drain_nodes;
            campaign.changes_members = change_members;
            many(seeds, first, &campaign, record.as_deref())
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

fn cost(seed: u64, size: &Size) -> anyhow::Result<bool> {
    log_if_asked();
    println!("{}", serde_json::to_string(&scale::measure(seed, size)?)?);
    Ok(true)
}

/// Runs the seeds that the record does not hold yet, and sums up all of them.
fn many(
    seeds: u64,
    first: u64,
    campaign: &Campaign,
    record: Option<&Path>,
) -> anyhow::Result<bool> {
    let mut wanted: BTreeSet<u64> = (first..first.saturating_add(seeds)).collect();
    let mut progress = Progress::new(campaign);
    let mut open = None;
    if let Some(path) = record {
        let build = record::build(&campaign.executable).context(SELF)?;
        let heading = Heading { build, arguments: campaign.arguments() };
        let path = heading.place(path);
        let (record, done) = Record::open(&path, &heading)?;
        open = Some(record);
        for outcome in done {
            if wanted.remove(&outcome.seed()) {
                progress.add(&outcome);
            }
        }
        println!("{} seeds are noted in {} already", progress.summary.seeds, path.display());
    }
    let mut failure = None;
    campaign.run_all(wanted.into_iter(), |outcome| {
        let noted = open.as_mut().map_or(Ok(()), |record| record.note(&outcome));
        failure = noted.err();
        progress.run(&outcome);
        failure.is_none()
    })?;
    failure.map_or(Ok(progress.end()), Err)
}

/// How far a campaign has come, told as it goes on.
struct Progress<'a> {
    campaign: &'a Campaign,
    summary: Summary,
    began: Instant,
    ran: u64,
    simulated_before: u64,
}

#[expect(clippy::disallowed_methods, reason = "how fast it is in real time is what is told")]
impl Progress<'_> {
    fn new(campaign: &Campaign) -> Progress<'_> {
        let (began, summary) = (Instant::now(), Summary::default());
        Progress { campaign, summary, began, ran: 0, simulated_before: 0 }
    }

    /// A seed that was run before.
    fn add(&mut self, outcome: &Outcome) {
        self.summary.add(outcome);
        self.simulated_before = self.summary.simulated_seconds();
        if !outcome.is_well() {
            println!("{}", self.campaign.account(outcome));
        }
    }

    /// A seed that was run now.
    fn run(&mut self, outcome: &Outcome) {
        self.summary.add(outcome);
        self.ran += 1;
        if !outcome.is_well() {
            println!("{}", self.campaign.account(outcome));
        }
        if self.ran.is_multiple_of(50) {
            println!("{} seeds, {}", self.summary.seeds, self.speed());
        }
    }

    fn speed(&self) -> String {
        let took = self.began.elapsed().as_secs_f64();
        let simulated = self.summary.simulated_seconds() - self.simulated_before;
        format!(
            "{:.2} s a seed, {:.2} seeds and {:.0} simulated seconds a second",
            took / self.ran.max(1) as f64,
            self.ran as f64 / took,
            simulated as f64 / took
        )
    }

    /// Sums up. Answers whether all is well: with kinds of fault of its own choice, a campaign in
    /// which one of them is rare is not.
    fn end(&self) -> bool {
        println!("{}{}", self.summary.text(), self.speed());
        let chose = !self.campaign.faults.is_empty();
        self.summary.is_well() && (chose || self.summary.rare_kinds().is_empty())
    }
}
