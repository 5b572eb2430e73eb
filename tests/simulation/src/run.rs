//! One history, from a seed.

use std::ops::RangeInclusive;
use std::panic;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use plinth_api::Target;
use plinth_runtime::{Random, Scope};
use plinth_service::{Secrets, Sender, Transport};
use plinth_simulation::{Options, Simulation, When};
use plinth_system_config::Parameters;
use plinth_test_histories::Journal;
use plinth_types::{NodeId, ServiceRef};
use tokio::sync::watch;

use crate::cluster::{Cluster, Shape};
use crate::findings::Findings;
use crate::history::History;
use crate::inspector::inspect;
use crate::knobs;
use crate::log;
use crate::nemesis::Nemesis;
use crate::overtaking::overtake;
use crate::report::{self, Report};
use crate::scene::{Scene, Stage, Weather};
use crate::user::User;
use crate::workloads::Workloads;

/// How long a cluster may take to start, where nothing is broken.
const START: Duration = Duration::from_secs(30);
/// Which of sixteen seeds is about what is rare.
const RARE: u64 = 9;
/// The longest that a message takes on a network that is well, in milliseconds.
const LATENCIES: [u64; 4] = [2, 5, 10, 20];
/// How long messages overtake others, where they do.
const OVERTAKING: Duration = Duration::from_millis(50);
/// How many times longer than their shortest the users' pauses are: in some seeds much is under way at
/// a time, in others each commit has batches of its own.
const PACES: [u32; 3] = [1, 3, 6];
/// The same on a network on which each commit takes long.
const PACES_ON_SLOW_NETWORKS: [u32; 3] = [1, 1, 2];
/// From this latency on a network is one of those.
const SLOW_NETWORK: Duration = Duration::from_millis(10);
/// How much longer things break where too little has happened yet.
const OVERTIME: Duration = Duration::from_secs(20);
/// How long after things begin to break a node is lost, where one is.
const LOSS: Duration = Duration::from_secs(2);
/// How long a node is away that comes back.
const AWAY: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(14);
/// The simulated time after which a history has failed to end.
const END: Duration = Duration::from_secs(400);

/// What a history is like, apart from its seed.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How large the cluster is.
    pub shape: Shape,
    /// How long things break.
    pub chaos: RangeInclusive<Duration>,
    /// Deliberate faults that are switched on from the beginning.
    pub controls: Vec<(String, When)>,
    /// The kinds of what befalls the cluster, by their names; without any the seed chooses.
    pub faults: Vec<String>,
    /// Whether the seed turns knobs ([`knobs`]).
    pub knobs: bool,
    /// The moment from which on, for a while, messages overtake others.
    pub overtaking: Option<Duration>,
    /// How many of the last events are kept as text, to compare two runs.
    pub kept_events: usize,
    /// Whether a node that has data is lost for good meanwhile, so that another one must take a copy.
    pub loses_a_node: bool,
    /// Whether parameters are changed meanwhile; without it the seed decides.
    pub changes_parameters: Option<bool>,
    /// Whether nodes are drained and removed meanwhile.
    pub drains_nodes: bool,
    /// Whether coordinators join and leave meanwhile.
    pub changes_members: bool,
}

impl Setup {
    /// What a seed is about, where nobody says. One in eight loses a node, one has nodes drained,
    /// one has its parameters changed all the while, and one its coordinators. One in sixteen
    /// is about what is too rare for the others.
    #[must_use]
    pub fn of(seed: u64) -> Setup {
        match seed % 16 {
            0 | 8 => Setup::losing_a_node(),
            2 | 10 => Setup::draining_nodes(),
            6 | 14 => Setup::changing_members(),
            4 | 12 => Setup { changes_parameters: Some(true), ..Setup::default() },
            RARE => Setup::rare(seed / 16),
            _ => Setup::default(),
        }
    }

    /// A few kinds of fault, and often, that lead to what other seeds hardly ever meet: a director that
    /// is stopped in a short phase, disks that go back to what they had before.
    #[must_use]
    pub fn rare(number: u64) -> Setup {
        let setup = |faults: &[&str]| Setup {
            faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
            ..Setup::default()
        };
        match number % 4 {
            0 => setup(&["kill", "stop directors"]),
            1 => setup(&["kill", "kill several", "delay", "rolled-back log"]),
            2 => Setup {
                chaos: Duration::from_secs(12)..=Duration::from_secs(18),
                ..setup(&["kill", "power loss", "rolled-back coordinators"])
            },
            // Whoever is found to have lost something takes a copy again, and may lose of that, too.
            _ => {
                let Setup { shape, chaos, controls, .. } = Setup::losing_a_node();
                let shape = Shape { nodes: 3, ..shape };
                let rest = setup(&["kill", "slow disk", "rolled-back storage"]);
                let (knobs, changes_parameters) = (false, Some(false));
                Setup { shape, chaos, controls, knobs, changes_parameters, ..rest }
            }
        }
    }

    /// A cluster of four nodes that loses one for good. What else befalls it leaves it a chance:
    /// nothing takes the disks of others, or all power.
    #[must_use]
    pub fn losing_a_node() -> Setup {
        let parameters = Parameters { storage_lost_ms: 1_500, ..Parameters::default() };
        Setup {
            shape: Shape { nodes: 4, parameters, ..Shape::default() },
            chaos: Duration::from_secs(9)..=Duration::from_secs(16),
            // So that the little data makes many pages, and things break between them.
            controls: [
                ("storage.small_pages", When::Always),
                ("storage.slow_copy", When::OneIn(20)),
            ]
            .map(|(point, when)| (point.to_owned(), when))
            .to_vec(),
            loses_a_node: true,
            // A config team of two, which is one of them, does not outlive the loss of one.
            knobs: false,
            changes_parameters: Some(false),
            ..Setup::default()
        }
    }

    /// A cluster of four nodes that are drained, used again and removed all the while.
    #[must_use]
    pub fn draining_nodes() -> Setup {
        let parameters = Parameters { storage_lost_ms: 5_000, ..Parameters::default() };
        Setup {
            shape: Shape { nodes: 4, parameters, ..Shape::default() },
            chaos: Duration::from_secs(10)..=Duration::from_secs(20),
            // A config team of two, which is one of them, can't change its members.
            knobs: false,
            changes_parameters: Some(false),
            drains_nodes: true,
            ..Setup::default()
        }
    }

    /// A cluster of five nodes whose coordinators join and leave all the while: three at the beginning,
    /// and two more that wait. Whatever a seed has may befall it. All coordinators may lose their disks in
    /// the middle of a change: the configuration names both memberships then, in storage and in the logs,
    /// and a founding needs a majority of each. One node's disk may be damaged: the workload leaves the
    /// group three members that no order is about, so that those who stay are a majority.
    #[must_use]
    pub fn changing_members() -> Setup {
        Setup {
            shape: Shape { nodes: 5, waiting: 2, ..Shape::default() },
            chaos: Duration::from_secs(12)..=Duration::from_secs(22),
            changes_members: true,
            ..Setup::default()
        }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            shape: Shape::default(),
            chaos: Duration::from_secs(4)..=Duration::from_secs(9),
            controls: Vec::new(),
            faults: Vec::new(),
            knobs: true,
            overtaking: None,
            kept_events: 0,
            loses_a_node: false,
            changes_parameters: None,
            drains_nodes: false,
            changes_members: false,
        }
    }
}

/// Runs a seed's history. What went wrong in it stands in the report.
///
/// # Errors
/// The cluster can't be set up, which is the harness' own failure.
pub fn run(seed: u64, setup: &Setup) -> anyhow::Result<(Report, Simulation)> {
    let findings = Findings::default();
    log::watch(&findings);
    catch_panics(findings.clone());

    // How slow a network is when it is well belongs to the seed, too.
    let latency = Duration::from_millis(LATENCIES[usize::try_from(latency_of(seed) % 4)?]);
    let options = Options {
        duration: END,
        latency: Duration::ZERO..=latency,
        kept_events: setup.kept_events,
        ..Options::default()
    };
    let world = Simulation::new(seed, options);
    if setup.changes_parameters == Some(true) {
        // So that the leader often makes a change itself, past a director that recovers.
        world.faults().switch_on("coordinator.impatient", When::OneIn(2));
    }
    // Where a recovery takes long, more of what happens happens meanwhile.
    if world.random("lingering").next_u64().is_multiple_of(3) {
        world.faults().switch_on("director.lingers", When::OneIn(4));
    }
    for (point, when) in &setup.controls {
        world.faults().switch_on(point, *when);
    }
    let mut sim = world.sim();
    let mut shape = setup.shape.clone();
    let turned =
        if setup.knobs { knobs::turn(&*world.random("knobs"), &mut shape) } else { vec![] };
    let mut cluster = Cluster::new(&world, &shape)?;
    cluster.power_on(&mut sim);
    let (stage, stages) = watch::channel(Stage::Starting);
    let stage = Arc::new(stage);
    let (history, weather) = (History::default(), Weather::default());
    let journal = Journal::default();
    let mut workloads = Workloads::choose(&*world.random("workloads"));
    if let Some(changes) = setup.changes_parameters {
        workloads = workloads.changing(changes);
    }
    workloads = workloads.draining(setup.drains_nodes).joining(setup.changes_members);
    // One of the three that have data. No user asks it, since it never answers again.
    let mut doomed = cluster.nodes().get(usize::try_from(seed % 3)?).map(|node| node.id.clone());
    doomed.take_if(|_| !setup.loses_a_node);
    let gateways = cluster.nodes().iter().filter(|node| Some(&node.id) != doomed.as_ref());
    let gateways = gateways.map(|node| (node.id.clone(), node.gateway())).collect();
    let users = Users {
        world: world.clone(),
        stage: Arc::clone(&stage),
        stages,
        gateways,
        coordinators: cluster.coordinators(),
        secrets: cluster.secrets().clone(),
        history: history.clone(),
        journal: journal.clone(),
        workloads: workloads.clone(),
        findings: findings.clone(),
        weather: weather.clone(),
        parameters: shape.parameters,
        pace: pace(&*world.random("pace"), latency),
    };
    sim.client("users", users.act());
    let seen = Seen { world, history, journal, findings, weather, stage, turned, workloads };
    let nemesis = drive(&mut sim, &mut cluster, &seen, setup, latency, doomed);
    let simulated = sim.elapsed();
    let report = seen.report(seed, setup, nemesis, simulated)?;
    Ok((report, seen.world))
}

/// What a run is steered and judged by.
struct Seen {
    world: Simulation,
    history: History,
    journal: Journal,
    findings: Findings,
    weather: Weather,
    stage: Arc<watch::Sender<Stage>>,
    /// The knobs that were turned.
    turned: Vec<String>,
    /// What users do.
    workloads: Workloads,
}

/// Lets the history happen: things break, are healed, and all is looked at. Ends with the first
/// finding. `doomed` is the node that is lost meanwhile.
fn drive(
    sim: &mut turmoil::Sim<'_>,
    cluster: &mut Cluster,
    seen: &Seen,
    setup: &Setup,
    latency: Duration,
    mut doomed: Option<NodeId>,
) -> Option<Nemesis> {
    let Seen { world, history, journal, findings, weather, stage, .. } = seen;
    let mut nemesis: Option<Nemesis> = None;
    let (mut heal_at, mut lose_at) = (Duration::MAX, Duration::MAX);
    loop {
        match sim.step() {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => {
                findings.report("ends", error.to_string());
                break;
            }
        }
        if !findings.is_empty() {
            break;
        }
        let now = sim.elapsed();
        if setup.overtaking.is_some_and(|from| (from..from + OVERTAKING).contains(&now)) {
            overtake(sim);
        }
        let at = *stage.borrow();
        match (at, &mut nemesis) {
            (Stage::Working, None) => {
                heal_at = now + between(world, &setup.chaos);
                lose_at = now + LOSS;
                let (weather, history) = (weather.clone(), history.clone());
                let only = &setup.faults;
                let mut begun = Nemesis::new(world, weather, history, latency, only, now);
                spare(&mut begun, setup, &seen.workloads);
                nemesis = Some(begun);
            }
            (Stage::Working, Some(nemesis)) if now >= lose_at && doomed.is_some() => {
                if let Some(doomed) = doomed.take() {
                    // Some come back, after others have begun to take their place.
                    let returns = world.random("loss").next_u64().is_multiple_of(2);
                    let back = returns.then(|| now + between(world, &AWAY));
                    if returns {
                        cluster.power_loss(sim, &doomed, true);
                    } else {
                        cluster.lose(sim, &doomed);
                    }
                    nemesis.lost(now, &doomed, back);
                }
            }
            (Stage::Working, Some(nemesis))
                if now >= heal_at && is_enough(history, journal, now - heal_at) =>
            {
                nemesis.heal(sim, cluster);
                stage.send_replace(Stage::Healed);
            }
            (Stage::Working, Some(nemesis)) => {
                if now >= heal_at && commits(history, journal) < report::COMMITS {
                    nemesis.calm();
                }
                nemesis.step(sim, cluster);
            }
            (Stage::Starting | Stage::Healed | Stage::Done, _) => {}
        }
    }
    nemesis
}

/// Leaves out what would be too much beside what the run is about.
fn spare(nemesis: &mut Nemesis, setup: &Setup, workloads: &Workloads) {
    if setup.loses_a_node {
        nemesis.spare_majorities();
    }
    if setup.drains_nodes {
        nemesis.spare_disks();
    }
    if workloads.changes_parameters() {
        nemesis.spare_config();
    }
}

impl Seen {
    /// What became of the run.
    fn report(
        &self,
        seed: u64,
        setup: &Setup,
        nemesis: Option<Nemesis>,
        simulated: Duration,
    ) -> anyhow::Result<Report> {
        let (faults, done) =
            nemesis.map_or_else(Default::default, |nemesis| (nemesis.counts, nemesis.account));
        let knobs = self.turned.iter().map(|knob| format!("          knob {knob}"));
        let (reads, epochs) = {
            let record = self.history.record();
            (record.reads.len() as u64, record.directors.len() as u64)
        };
        let (trace, points) = (self.world.trace(), self.world.faults());
        Ok(Report {
            seed,
            hash: trace.hash().to_string(),
            events: trace.events(),
            simulated_ms: u64::try_from(simulated.as_millis())?,
            workloads: self.workloads.names().map(str::to_owned).collect(),
            commits: commits(&self.history, &self.journal),
            reads,
            epochs,
            faults,
            fired: setup.controls.iter().map(|(point, _)| points.fired(point)).sum(),
            marks: points.marks(),
            violations: self.findings.all(),
            account: knobs.chain(done).collect(),
        })
    }
}

/// The number of a seed's latency. Those about what is rare have the same remainder.
fn latency_of(seed: u64) -> u64 {
    if seed % 16 == RARE { seed / 64 } else { seed }
}

/// Whether the history has what a seed needs to count, or has gone on for too long to wait for it.
fn is_enough(history: &History, journal: &Journal, overtime: Duration) -> bool {
    overtime > OVERTIME
        || (commits(history, journal) >= report::COMMITS
            && history.record().directors.len() as u64 >= report::EPOCHS)
}

/// How many commits were acknowledged.
fn commits(history: &History, journal: &Journal) -> u64 {
    (history.acknowledged() + journal.acknowledged()) as u64
}

fn pace(random: &dyn Random, latency: Duration) -> u32 {
    let paces = if latency < SLOW_NETWORK { PACES } else { PACES_ON_SLOW_NETWORKS };
    let any = usize::try_from(random.next_u64()).unwrap_or(usize::MAX);
    paces[any % paces.len()]
}

fn between(world: &Simulation, range: &RangeInclusive<Duration>) -> Duration {
    let width = range.end().saturating_sub(*range.start()).as_millis();
    let width = u64::try_from(width).unwrap_or(u64::MAX).saturating_add(1);
    *range.start() + Duration::from_millis(world.random("chaos").next_u64() % width)
}

/// A panic anywhere is a broken promise, whoever catches it.
fn catch_panics(findings: Findings) {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        findings.report("panic", info.to_string());
        before(info);
    }));
}

/// All users, on one host.
struct Users {
    world: Simulation,
    stage: Arc<watch::Sender<Stage>>,
    stages: watch::Receiver<Stage>,
    gateways: Vec<(NodeId, String)>,
    coordinators: Vec<(ServiceRef, Target)>,
    secrets: Secrets,
    history: History,
    journal: Journal,
    workloads: Workloads,
    findings: Findings,
    weather: Weather,
    parameters: Parameters,
    pace: u32,
}

impl Users {
    fn peers(&self, scope: Scope) -> turmoil::Result<Transport> {
        let service: ServiceRef = "gateway-99@users".parse()?;
        let sender = Sender { service: Some(service), secrets: self.secrets.clone() };
        Ok(Transport::new(self.world.runtime("inspector"), scope, &sender))
    }

    async fn act(self) -> turmoil::Result {
        let (scope, _guard) = Scope::new();
        let user = User::new(self.world.runtime("users"), scope.clone());
        let gateway = |(node, address): &(NodeId, String)| (node.clone(), user.gateway(address));
        let scene = Scene {
            gateways: self.gateways.iter().map(gateway).collect(),
            coordinators: self.coordinators.clone(),
            runtime: self.world.runtime("users"),
            peers: self.peers(scope.clone())?,
            random: self.world.random("what users do"),
            stage: self.stages,
            history: self.history,
            journal: self.journal,
            findings: self.findings,
            pace: self.pace,
            weather: self.weather,
            parameters: self.parameters,
        };
        for (_, gateway) in &scene.gateways {
            if let Err(error) = gateway.ready(START).await {
                scene.findings.report("starts", error.to_string());
                return Ok(());
            }
        }
        self.stage.send_replace(Stage::Working);
        let spawn = |(name, task)| scope.spawn(name, task);
        let working = self.workloads.start(&scene).into_iter().map(spawn);
        let working = join_all(working.collect::<Vec<_>>());
        scene.until(Stage::Healed).await;
        // A panic among them has been reported.
        let _ = working.await;
        inspect(&scene, &self.workloads).await;
        self.stage.send_replace(Stage::Done);
        Ok(())
    }
}
