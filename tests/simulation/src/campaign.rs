//! Many seeds, each in a process of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::report::Report;
use crate::{marks, nemesis};

/// What a child's report stands behind.
const MARK: &str = "simulated: ";

/// Every so many seeds each kind of fault takes place in one of them at least.
const KIND_SHARE: u64 = 100;
/// In so many seeds even a rare kind must have shown itself.
const ENOUGH_FOR_KINDS: u64 = 500;

/// What came of a seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It ran to its end, well or not.
    Ran(Report),
    /// Its process failed: what it printed.
    Failed {
        /// The seed.
        seed: u64,
        /// Everything it printed, errors last.
        output: String,
    },
}

impl Outcome {
    /// Whether nothing was broken.
    #[must_use]
    pub fn is_well(&self) -> bool {
        matches!(self, Outcome::Ran(report) if report.violations.is_empty())
    }

    /// Which seed it is of.
    #[must_use]
    pub fn seed(&self) -> u64 {
        match self {
            Outcome::Ran(report) => report.seed,
            Outcome::Failed { seed, .. } => *seed,
        }
    }
}

/// Prints a report for the campaign that started this process.
///
/// # Errors
/// It can't be written.
pub fn print(report: &Report) -> io::Result<()> {
    println!("\n{MARK}{}", serde_json::to_string(report)?);
    Ok(())
}

/// How seeds are run.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The `simulate` executable.
    pub executable: PathBuf,
    /// Deliberate faults that are switched on, as its `--control` takes them.
    pub controls: Vec<String>,
    /// The kinds of what befalls the cluster, by their names; without any each seed chooses.
    pub faults: Vec<String>,
    /// From this simulated millisecond on, for a while, messages overtake others in each seed.
    pub overtaking_ms: Option<u64>,
    /// How many processes run at a time.
    pub jobs: usize,
    /// Whether each cluster has four nodes and loses one for good.
    pub loses_a_node: bool,
    /// Whether parameters are changed in every seed.
    pub changes_parameters: bool,
    /// Whether each cluster has four nodes, which are drained and removed.
    pub drains_nodes: bool,
    /// Whether each cluster has five nodes whose coordinators join and leave.
    pub changes_members: bool,
}

impl Campaign {
    /// A campaign with this executable, on every processor.
    #[must_use]
    pub fn new(executable: &Path) -> Campaign {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        Campaign {
            executable: executable.to_owned(),
            controls: Vec::new(),
            faults: Vec::new(),
            overtaking_ms: None,
            jobs,
            loses_a_node: false,
            changes_parameters: false,
            drains_nodes: false,
            changes_members: false,
        }
    }

    /// The same with a deliberate fault.
    #[must_use]
    pub fn with_control(mut self, control: &str) -> Campaign {
        self.controls.push(control.to_owned());
        self
    }

    /// The same with messages that overtake others from this simulated millisecond on.
    #[must_use]
    pub fn overtaking(self, ms: u64) -> Campaign {
        Campaign { overtaking_ms: Some(ms), ..self }
    }

    /// The same with clusters of four nodes that lose one for good.
    #[must_use]
    pub fn losing_a_node(self) -> Campaign {
        Campaign { loses_a_node: true, ..self }
    }

    /// The same with changes of parameters in every seed.
    #[must_use]
    pub fn changing_parameters(self) -> Campaign {
        Campaign { changes_parameters: true, ..self }
    }

    /// The same with clusters of four nodes that are drained and removed.
    #[must_use]
    pub fn draining_nodes(self) -> Campaign {
        Campaign { drains_nodes: true, ..self }
    }

    /// The same with clusters of five nodes whose coordinators join and leave.
    #[must_use]
    pub fn changing_members(self) -> Campaign {
        Campaign { changes_members: true, ..self }
    }

    /// The same with these kinds of what befalls the cluster alone.
    #[must_use]
    pub fn with_faults(mut self, faults: &[&str]) -> Campaign {
        self.faults.extend(faults.iter().map(|fault| (*fault).to_owned()));
        self
    }

    /// What a seed's process is told beside the seed.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let controls = self.controls.iter().map(|control| ("--control", control));
        let faults = self.faults.iter().map(|fault| ("--fault", fault));
        let both = controls.chain(faults).flat_map(|(flag, of)| [flag.to_owned(), of.clone()]);
        let overtaking = self.overtaking_ms.map(|ms| format!("--overtaking-ms={ms}"));
        let lose_node = self.loses_a_node.then(|| "--lose-node".to_owned());
        let change = self.changes_parameters.then(|| "--change-parameters".to_owned());
        let drain = self.drains_nodes.then(|| "--drain-nodes".to_owned());
        let members = self.changes_members.then(|| "--change-members".to_owned());
        let setups = [overtaking, lose_node, change, drain, members];
        both.chain(setups.into_iter().flatten()).collect()
    }

    /// Runs one seed.
    ///
    /// # Errors
    /// Its process can't be started.
    pub fn run(&self, seed: u64) -> io::Result<Outcome> {
        let mut command = Command::new(&self.executable);
        command.arg("seed").arg(seed.to_string()).args(self.arguments());
        // A process of a second or two need not give memory back while it runs.
        command.env("MIMALLOC_PURGE_DELAY", "-1");
        let output = command.stdin(Stdio::null()).output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let report = printed.lines().find_map(|line| line.strip_prefix(MARK));
        Ok(match report.and_then(|text| serde_json::from_str(text).ok()) {
            Some(report) => Outcome::Ran(report),
            None => {
                let errors = String::from_utf8_lossy(&output.stderr);
                Outcome::Failed { seed, output: format!("{printed}{errors}{}", output.status) }
            }
        })
    }

    /// Runs seeds until there are no more or `each`, which is told of every one as it ends, says that
    /// it is enough.
    ///
    /// # Errors
    /// A process can't be started.
    pub fn run_all(
        &self,
        seeds: impl Iterator<Item = u64> + Send,
        each: impl FnMut(Outcome) -> bool + Send,
    ) -> io::Result<()> {
        let seeds = Mutex::new(seeds.fuse());
        let each = Mutex::new((true, each));
        let work = || {
            loop {
                let next = {
                    let goes_on = each.lock().unwrap_or_else(PoisonError::into_inner).0;
                    let mut seeds = seeds.lock().unwrap_or_else(PoisonError::into_inner);
                    if goes_on { seeds.next() } else { None }
                };
                let Some(seed) = next else { return Ok(()) };
                let outcome = self.run(seed)?;
                let mut each = each.lock().unwrap_or_else(PoisonError::into_inner);
                each.0 &= (each.1)(outcome);
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.jobs.max(1)).map(|_| scope.spawn(work)).collect();
            let end = |worker: std::thread::ScopedJoinHandle<'_, io::Result<()>>| {
                worker.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")))
            };
            workers.into_iter().try_for_each(end)
        })
    }

    /// The command that replays a seed, with what the services say.
    #[must_use]
    pub fn replay(&self, seed: u64) -> String {
        let arguments: String = self
            .arguments()
            .iter()
            .map(|argument| match argument.contains(' ') {
                true => format!(" '{argument}'"),
                false => format!(" {argument}"),
            })
            .collect();
        format!(
            "PLINTH_SIMULATION_LOG=info cargo run -q -p plinth-test-simulation --bin simulate -- seed {seed}{arguments}"
        )
    }

    /// A failure for people to read: the seed, how to replay it, what was broken, what was done.
    #[must_use]
    pub fn account(&self, outcome: &Outcome) -> String {
        match outcome {
            Outcome::Ran(report) => {
                let violations: Vec<String> =
                    report.violations.iter().map(|violation| format!("  {violation}")).collect();
                format!(
                    "seed {}: {} commits, {} epochs, {} ms simulated\nbroken:\n{}\nwhat was done:\n{}\nreplay: {}\n",
                    report.seed,
                    report.commits,
                    report.epochs,
                    report.simulated_ms,
                    violations.join("\n"),
                    report.account.join("\n"),
                    self.replay(report.seed)
                )
            }
            Outcome::Failed { seed, output } => {
                format!(
                    "seed {seed}: its process failed\n{output}\nreplay: {}\n",
                    self.replay(*seed)
                )
            }
        }
    }
}

/// What a campaign has come to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Seeds that ran.
    pub seeds: u64,
    /// Those in which enough happened.
    pub counted: u64,
    /// Seeds with something broken, by invariant.
    pub broken: BTreeMap<String, Vec<u64>>,
    /// How many seeds broke each invariant, first or later.
    pub found: BTreeMap<String, u64>,
    /// Seeds in which each kind of fault took place.
    pub kinds: BTreeMap<String, u64>,
    /// Seeds in which each mark was passed.
    pub marks: BTreeMap<String, u64>,
    /// Seeds with each workload.
    pub workloads: BTreeMap<String, u64>,
    /// Acknowledged commits.
    pub commits: u64,
    /// Epochs.
    pub epochs: u64,
    simulated_ms: u64,
}

impl Summary {
    /// Adds a seed's outcome.
    pub fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        match outcome {
            Outcome::Ran(report) => {
                self.counted += u64::from(report.counts());
                self.commits += report.commits;
                self.epochs += report.epochs;
                self.simulated_ms += report.simulated_ms;
                for kind in report.faults.keys() {
                    *self.kinds.entry(kind.clone()).or_default() += 1;
                }
                for mark in report.marks.keys() {
                    *self.marks.entry(mark.clone()).or_default() += 1;
                }
                for workload in &report.workloads {
                    *self.workloads.entry(workload.clone()).or_default() += 1;
                }
                let names: BTreeSet<&String> =
                    report.violations.iter().map(|violation| &violation.invariant).collect();
                for name in names {
                    *self.found.entry(name.clone()).or_default() += 1;
                }
                // The first is the cause, the others may be its consequences.
                if let Some(first) = report.violations.first() {
                    self.broken.entry(first.invariant.clone()).or_default().push(report.seed);
                }
            }
            Outcome::Failed { seed, .. } => {
                self.broken.entry("process failed".to_owned()).or_default().push(*seed);
            }
        }
    }

    /// Simulated seconds in all.
    #[must_use]
    pub fn simulated_seconds(&self) -> u64 {
        self.simulated_ms / 1000
    }

    /// Whether nothing was broken, and enough has happened in nine seeds of ten.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.broken.is_empty() && self.counted * 10 >= self.seeds * 9
    }

    /// The kinds of fault that took place in fewer than one seed of a hundred. Of a small campaign
    /// that says nothing, and none is answered.
    #[must_use]
    pub fn rare_kinds(&self) -> Vec<&'static str> {
        let seeds = |kind: &str| self.kinds.get(kind).copied().unwrap_or(0);
        let is_rare = |kind: &&str| seeds(kind) * KIND_SHARE < self.seeds;
        if self.seeds < ENOUGH_FOR_KINDS {
            Vec::new()
        } else {
            nemesis::kinds().filter(is_rare).collect()
        }
    }

    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        let list = |counts: &BTreeMap<String, u64>| {
            let counts = counts.iter().map(|(name, seeds)| format!("{name} {seeds}"));
            counts.collect::<Vec<_>>().join(", ")
        };
        let seen = |mark: &str| self.marks.get(mark).copied().unwrap_or(0);
        let marks: Vec<String> = marks::ALL
            .iter()
            .filter(|mark| seen(mark) > 0)
            .map(|mark| format!("{mark} {}", seen(mark)))
            .collect();
        let never: Vec<&str> = marks::ALL.into_iter().filter(|mark| seen(mark) == 0).collect();
        let broken: Vec<String> = self
            .broken
            .iter()
            .map(|(invariant, seeds)| format!("  {invariant}: {} seeds, {seeds:?}\n", seeds.len()))
            .collect();
        let or_none = |names: Vec<&str>| match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        };
        format!(
            "{} seeds, {} of them count; {} commits, {} epochs, {} s simulated\nseeds by kind of fault: {}\nkinds in fewer than one seed of {KIND_SHARE}: {}\nseeds by workload: {}\nseeds by rare path: {}\nnever taken: {}\n{}{}{}",
            self.seeds,
            self.counted,
            self.commits,
            self.epochs,
            self.simulated_seconds(),
            list(&self.kinds),
            or_none(self.rare_kinds()),
            list(&self.workloads),
            marks.join(", "),
            or_none(never),
            if broken.is_empty() { "nothing was broken\n" } else { "broken first:\n" },
            broken.concat(),
            if broken.is_empty() {
                String::new()
            } else {
                format!("broken: {}\n", list(&self.found))
            },
        )
    }
}
