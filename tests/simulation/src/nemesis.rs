//! What befalls machines and networks: faults at random moments, several at a time, each undone after
//! a while. Which kinds a seed has, and how often they come, the seed decides too, so that some
//! histories are calm, and some have much of one kind.

mod kinds;
mod rolling_back;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plinth_runtime::Random;
use plinth_service::STOP_GRACE;
use plinth_simulation::{DROP_REPLY, MUTE, Simulation, When};
use plinth_store::{Disk as _, DiskDelays, Image, SimulatedDisk};
use plinth_types::{NodeId, ServiceKind, ServiceRef};
use turmoil::Sim;

use crate::cluster::{Cluster, DATA, Node};
use crate::history::History;
use crate::scene::Weather;

use self::kinds::{KINDS, Kind, ON_DEMAND};

/// The names of all kinds of fault that a seed may choose.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.into_iter().map(Kind::name)
}

/// The fault point of a disk without checksums: what is damaged is read as if it were whole.
const UNNOTICED: &str = "disk.unnoticed_block";
/// The most that a wall clock is wrong. Callers' ids are kept for a day by the gateways' wall clocks,
/// so two of them may be a day apart; nothing else may rest on them.
const WRONG_CLOCK: Duration = Duration::from_secs(11 * 60 * 60);
/// Milliseconds within which a fault follows another one at once, where it does.
const AT_ONCE: u64 = 60;
/// The least time between two faults where users are to get something done.
const CALM: Duration = Duration::from_millis(2_000);
/// Milliseconds by which a node that is cut off from all others is so longer than a fault lasts.
const MISSED: u64 = 3_000;
/// The slowest that a slow network or disk gets.
const SLOW: Duration = Duration::from_millis(300);

/// How a fault ends.
#[derive(Clone, Debug)]
enum Undo {
    Power(NodeId),
    Repair(NodeId, NodeId),
    RepairOneWay(NodeId, NodeId),
    Release(NodeId, NodeId),
    Latency(NodeId, NodeId),
    Point(&'static str, ServiceRef),
    Disk(NodeId),
    RollBack(ServiceRef, Image),
    RollBackCoordinators(Vec<(ServiceRef, Image)>),
}

/// Does it.
pub struct Nemesis {
    world: Simulation,
    random: Arc<dyn Random>,
    weather: Weather,
    history: History,
    kinds: Vec<Kind>,
    /// The mean time between two faults.
    pace: Duration,
    /// Whether faults come one at a time only, and seldom.
    is_calm: bool,
    latency: Duration,
    /// The node whose disk is damaged, or has lost something. It is one only, so that everything has a
    /// whole copy.
    damaged: Option<NodeId>,
    /// Whether a coordinator has lost its directory while others kept theirs.
    lost_coordinator: bool,
    /// Whether the storages have lost the configuration.
    lost_config: bool,
    /// Whether they may not.
    spares_config: bool,
    /// Whether the coordinators' disks are put back, once in a history.
    rolls_back_coordinators: bool,
    next: Duration,
    undo: Vec<(Duration, Undo)>,
    /// How often each kind took place.
    pub counts: BTreeMap<String, u64>,
    /// What was done, a line each.
    pub account: Vec<String>,
}

impl Nemesis {
    /// One whose first fault comes soon after `now`. `latency` is the network's when it is well, `only`
    /// names the kinds of fault; without any the seed chooses some.
    #[must_use]
    pub fn new(
        world: &Simulation,
        weather: Weather,
        history: History,
        latency: Duration,
        only: &[String],
        now: Duration,
    ) -> Nemesis {
        let random = world.random("nemesis");
        let is_named = |kind: &Kind| only.iter().any(|name| name == kind.name());
        let all = KINDS.into_iter().chain(ON_DEMAND);
        let mut kinds: Vec<Kind> = all.filter(is_named).collect();
        if kinds.is_empty() {
            kinds = KINDS.into_iter().filter(|_| random.next_u64().is_multiple_of(3)).collect();
            // Without it a seed might see one epoch only.
            if !kinds.contains(&Kind::Kill) {
                kinds.push(Kind::Kill);
            }
        }
        let paces = [400, 1_000, 2_500];
        let pace = Duration::from_millis(paces[pick(&*random, paces.len())]);
        let mut nemesis = Nemesis {
            world: world.clone(),
            random,
            weather,
            history,
            kinds,
            pace,
            is_calm: false,
            latency,
            damaged: None,
            lost_coordinator: false,
            lost_config: false,
            spares_config: false,
            rolls_back_coordinators: false,
            next: now,
            undo: Vec::new(),
            counts: BTreeMap::new(),
            account: Vec::new(),
        };
        nemesis.schedule(now);
        nemesis
    }

    /// Leaves out what could take a majority of disks or of power together with a node that is lost.
    pub fn spare_majorities(&mut self) {
        let kinds = [Kind::Kill, Kind::KillSeveral, Kind::Delay, Kind::DropReplies, Kind::SlowDisk];
        self.kinds.retain(|kind| kinds.contains(kind));
    }

    /// Leaves out what damages disks for good. Where a change of the config team is interrupted, the team
    /// before it must confirm the next epoch, and who was to leave can't: it bears no further loss then.
    pub fn spare_disks(&mut self) {
        self.kinds.retain(|kind| !matches!(kind, Kind::CorruptBlock | Kind::LostConfig));
    }

    /// Leaves out the loss of the configuration. While a recovery is under way it is the operator's turn after
    /// that: logs that it has locked can't show that no newer configuration was recorded.
    pub fn spare_config(&mut self) {
        self.spares_config = true;
    }

    /// From now on faults are so far apart that users get something done.
    pub fn calm(&mut self) {
        self.is_calm = true;
    }

    /// A node was lost, for good or until `back`.
    pub fn lost(&mut self, at: Duration, node: &NodeId, back: Option<Duration>) {
        *self.counts.entry("loss of a node".to_owned()).or_default() += 1;
        match back {
            None => self.note(at, &format!("{node} is lost for good, with its disk")),
            Some(back) => {
                self.undo.push((back, Undo::Power(node.clone())));
                self.note(at, &format!("{node} is away until {:.3}", back.as_secs_f64()));
            }
        }
    }

    /// Does what is due.
    pub fn step(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster) {
        let now = sim.elapsed();
        let due: Vec<Undo> =
            self.undo.extract_if(.., |(at, _)| *at <= now).map(|(_, undo)| undo).collect();
        for undo in due {
            self.end(sim, cluster, undo);
        }
        if now >= self.next {
            let kind = self.kinds[pick(&*self.random, self.kinds.len())];
            if let Some(what) = self.begin(kind, sim, cluster) {
                *self.counts.entry(kind.name().to_owned()).or_default() += 1;
                self.note(now, &what);
            }
            self.schedule(now);
        }
    }

    /// Makes everything whole.
    pub fn heal(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster) {
        for (_, undo) in std::mem::take(&mut self.undo) {
            self.end(sim, cluster, undo);
        }
        self.world.faults().switch_off(DROP_REPLY);
        self.world.faults().switch_off(MUTE);
        let nodes = names(cluster);
        for (a, b) in pairs(&nodes) {
            sim.release(a.as_str(), b.as_str());
            sim.repair(a.as_str(), b.as_str());
        }
        for node in &nodes {
            cluster.power_back(sim, node);
        }
        self.note(sim.elapsed(), "everything is healed");
    }

    fn schedule(&mut self, now: Duration) {
        let twice = u64::try_from(self.pace.as_millis()).unwrap_or(u64::MAX) * 2;
        // Some come while the one before is being recovered from.
        let at_once = self.random.next_u64().is_multiple_of(4) && !self.is_calm;
        let within = if at_once { AT_ONCE } else { twice };
        let least = if self.is_calm { CALM } else { Duration::ZERO };
        self.next = now + least + Duration::from_millis(self.random.next_u64() % within);
    }

    fn note(&mut self, at: Duration, what: &str) {
        tracing::info!("NEMESIS {what}");
        self.account.push(format!("{:>9.3} {what}", at.as_secs_f64()));
    }

    /// A time after `now`: mostly short, sometimes long.
    fn later(&self, now: Duration) -> Duration {
        let most = [300, 1_000, 4_000][pick(&*self.random, 3)];
        now + Duration::from_millis(50 + self.random.next_u64() % most)
    }

    /// Begins a fault. Answers what was done; none where it can't be now.
    fn begin(&mut self, kind: Kind, sim: &mut Sim<'_>, cluster: &mut Cluster) -> Option<String> {
        let now = sim.elapsed();
        let until = self.later(now);
        let nodes = names(cluster);
        let on: Vec<NodeId> = cluster
            .nodes()
            .iter()
            .filter(|node| node.is_on())
            .map(|node| node.id.clone())
            .collect();
        let services: Vec<ServiceRef> =
            cluster.nodes().iter().flat_map(|node| node.services()).collect();
        let node = self.one_of(&on)?.clone();
        let for_a_while = format!("for {} ms", (until - now).as_millis());
        match kind {
            Kind::Kill => {
                let service = self.one_of(&services)?.clone();
                self.kill(cluster, &service, now).then(|| format!("killed {service}"))
            }
            Kind::KillSeveral => {
                let mut killed = Vec::new();
                for service in services {
                    if self.random.next_u64().is_multiple_of(3) && self.kill(cluster, &service, now)
                    {
                        killed.push(service.to_string());
                    }
                }
                (!killed.is_empty()).then(|| format!("killed {}", killed.join(", ")))
            }
            Kind::Stop => {
                let service = self.one_of(&services)?.clone();
                if matters_to_gateway(&service) {
                    self.weather.disturb(&service.node, now + STOP_GRACE);
                }
                cluster.stop(&service).then(|| format!("asked {service} to stop"))
            }
            Kind::StopDirectors => {
                let directors = services.iter().filter(|one| one.kind() == ServiceKind::Director);
                let stopped = directors.filter(|director| cluster.stop(director)).count();
                (stopped > 0).then(|| format!("asked {stopped} directors to stop"))
            }
            Kind::RolledBackLog => self.roll_back(cluster, node, ServiceKind::Log, until),
            Kind::RolledBackStorage => self.roll_back(cluster, node, ServiceKind::Storage, until),
            Kind::RolledBackCoordinators => self.roll_back_coordinators(cluster, until + CALM),
            Kind::PowerLoss | Kind::Blackout | Kind::LostCoordinator | Kind::LostConfig => {
                let what = self.begin_on_power(kind, sim, cluster, node, until)?;
                Some(format!("{what}, {for_a_while}"))
            }
            Kind::Cut | Kind::Isolate | Kind::OneWay | Kind::Hold | Kind::Delay => {
                self.begin_on_network(kind, sim, &node, &nodes, until)
            }
            Kind::DropReplies | Kind::Mute => {
                let service = self.one_of(&services)?.clone();
                let (point, when, what) = match kind {
                    Kind::Mute => (MUTE, When::Always, "is mute"),
                    _ => (DROP_REPLY, When::OneIn(5), "loses one answer in five"),
                };
                self.world.faults().switch_on_at(&service.to_string(), point, when);
                if matters_to_gateway(&service) {
                    self.weather.disturb(&service.node, until);
                }
                self.undo.push((until, Undo::Point(point, service.clone())));
                Some(format!("{service} {what}, {for_a_while}"))
            }
            Kind::ClockStep => self.step_clock(&node),
            Kind::WipeLog => self.wipe_log(cluster, node),
            Kind::SlowDisk | Kind::FullDisk | Kind::FailedSync | Kind::CorruptBlock => {
                self.begin_on_disk(kind, cluster, node, until, &for_a_while)
            }
        }
    }

    /// Takes the power of a node, or of all, and some of what they had with it.
    fn begin_on_power(
        &mut self,
        kind: Kind,
        sim: &mut Sim<'_>,
        cluster: &mut Cluster,
        node: NodeId,
        until: Duration,
    ) -> Option<String> {
        match kind {
            Kind::PowerLoss => {
                let silently = self.random.next_u64().is_multiple_of(2);
                self.take_power(sim, cluster, &node, silently, until);
                let how = if silently { "silently" } else { "with its connections closed" };
                Some(format!("{node} lost power {how}"))
            }
            Kind::Blackout => {
                self.take_all_power(sim, cluster, until);
                let wiped = self.random.next_u64().is_multiple_of(4) && !self.lost_config;
                if wiped {
                    cluster.lose_coordinators();
                    self.history.record().is_wiped = true;
                }
                let what = if wiped { " and every coordinator its directory" } else { "" };
                Some(format!("all nodes lost power{what}"))
            }
            Kind::LostCoordinator if !self.lost_coordinator && !self.lost_config => {
                // With another's log damaged, only one of three would be left.
                let node = self.damaged.get_or_insert(node).clone();
                if !cluster.node(&node).is_ok_and(Node::is_on) {
                    return None;
                }
                self.lost_coordinator = true;
                self.take_power(sim, cluster, &node, true, until);
                cluster.lose_coordinator(&node);
                Some(format!("{node} lost power and its coordinator's directory"))
            }
            Kind::LostConfig if self.account.is_empty() && !self.spares_config => {
                self.lost_config = true;
                // From here on each log is needed as it is, until the next epoch is recorded.
                self.kinds.retain(|kind| *kind != Kind::CorruptBlock);
                self.take_all_power(sim, cluster, until);
                cluster.lose_coordinators();
                cluster.damage_kept_configs();
                self.history.record().is_wiped = true;
                let what = "all nodes lost power, every coordinator its directory";
                Some(format!("{what} and every storage its configuration"))
            }
            _ => None,
        }
    }

    fn take_power(
        &mut self,
        sim: &mut Sim<'_>,
        cluster: &mut Cluster,
        node: &NodeId,
        silently: bool,
        until: Duration,
    ) {
        cluster.power_loss(sim, node, silently);
        self.weather.disturb(node, until);
        self.undo.push((until, Undo::Power(node.clone())));
    }

    fn take_all_power(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster, until: Duration) {
        for node in names(cluster) {
            self.take_power(sim, cluster, &node, true, until);
        }
    }

    /// Sets a node's wall clock, mostly by little, sometimes by hours.
    fn step_clock(&self, node: &NodeId) -> Option<String> {
        let most = [Duration::from_secs(2), Duration::from_secs(120), WRONG_CLOCK];
        let most = u64::try_from(most[pick(&*self.random, 3)].as_millis()).ok()?;
        let ahead = i64::try_from(self.random.next_u64() % (2 * most)).ok()?;
        let ahead = ahead - i64::try_from(most).ok()?;
        self.world.set_clock(node.as_str(), ahead);
        Some(format!("{node}'s wall clock is set {ahead} ms ahead of the right time"))
    }

    /// Begins a fault of the network, around a node or between two.
    fn begin_on_network(
        &mut self,
        kind: Kind,
        sim: &mut Sim<'_>,
        node: &NodeId,
        nodes: &[NodeId],
        until: Duration,
    ) -> Option<String> {
        let for_a_while = format!("for {} ms", (until - sim.elapsed()).as_millis());
        match kind {
            Kind::Cut => {
                let (a, b) = self.two_of(nodes)?;
                sim.partition(a.as_str(), b.as_str());
                self.undo.push((until, Undo::Repair(a.clone(), b.clone())));
                Some(format!("{a} and {b} are cut off from each other, {for_a_while}"))
            }
            Kind::Isolate => {
                // One at a time, and long enough, mostly, that the others go on without it.
                let is_cut = |(_, undo): &(_, Undo)| matches!(undo, Undo::Repair(..));
                if self.undo.iter().any(is_cut) {
                    return None;
                }
                let until = until + Duration::from_millis(self.random.next_u64() % MISSED);
                let for_a_while = format!("for {} ms", (until - sim.elapsed()).as_millis());
                for other in nodes.iter().filter(|other| *other != node) {
                    sim.partition(node.as_str(), other.as_str());
                    self.undo.push((until, Undo::Repair(node.clone(), other.clone())));
                }
                Some(format!("{node} is cut off from all others, {for_a_while}"))
            }
            Kind::OneWay => {
                let (a, b) = self.two_of(nodes)?;
                sim.partition_oneway(a.as_str(), b.as_str());
                self.undo.push((until, Undo::RepairOneWay(a.clone(), b.clone())));
                Some(format!("what {a} sends to {b} is lost, {for_a_while}"))
            }
            Kind::Hold => {
                let (a, b) = self.two_of(nodes)?;
                sim.hold(a.as_str(), b.as_str());
                self.undo.push((until, Undo::Release(a.clone(), b.clone())));
                Some(format!("what {a} and {b} send each other is held back, {for_a_while}"))
            }
            Kind::Delay => {
                let (a, b) = self.two_of(nodes)?;
                let most = self.slow();
                sim.set_link_max_message_latency(a.as_str(), b.as_str(), most);
                self.undo.push((until, Undo::Latency(a.clone(), b.clone())));
                Some(format!("messages between {a} and {b} take up to {most:?}, {for_a_while}"))
            }
            _ => None,
        }
    }

    /// Begins a fault of a node's disk.
    fn begin_on_disk(
        &mut self,
        kind: Kind,
        cluster: &mut Cluster,
        node: NodeId,
        until: Duration,
        for_a_while: &str,
    ) -> Option<String> {
        match kind {
            Kind::SlowDisk => {
                let most = self.slow();
                let sync = most / 10..=most;
                cluster.set_disk(&node, DiskDelays { sync, ..DiskDelays::default() }, false);
                self.undo.push((until, Undo::Disk(node.clone())));
                Some(format!("{node}'s disk takes up to {most:?} to sync, {for_a_while}"))
            }
            Kind::FullDisk => {
                cluster.set_disk(&node, DiskDelays::default(), true);
                // Its foreman may end over it, and everything with it.
                self.weather.disturb(&node, until);
                self.undo.push((until, Undo::Disk(node.clone())));
                Some(format!("{node}'s disk is full, {for_a_while}"))
            }
            Kind::FailedSync => {
                let disk = cluster.node(&node).ok()?.disk.clone();
                let store = self.any_store(&disk, &node)?;
                disk.fail_next_sync(&store)
                    .then(|| format!("the next sync of {} at {node} fails", store.display()))
            }
            // With fewer copies of the configuration a majority of them might be damaged.
            Kind::CorruptBlock if cluster.parameters().config_team >= 3 => {
                let node = self.damaged.get_or_insert(node).clone();
                let disk = cluster.node(&node).ok()?.disk.clone();
                let store = self.any_store(&disk, &node)?;
                let noticed = !self.world.runtime("nemesis").fault(UNNOTICED);
                let (table, first, rows) = disk.corrupt_block(&store, &*self.random, noticed)?;
                self.weather.damage(&node);
                let (store, first) = (store.display(), first.escape_ascii());
                Some(format!("{rows} rows of {table} in {store} from {first} on are damaged"))
            }
            _ => None,
        }
    }

    /// A store of a node, open or not.
    fn any_store(&self, disk: &SimulatedDisk, node: &NodeId) -> Option<PathBuf> {
        let directory = Path::new(DATA).join(node.as_str());
        let found = disk.list(&directory).unwrap_or_default();
        let stores: Vec<PathBuf> =
            found.iter().map(|name| directory.join(name).join("store")).collect();
        self.one_of(&stores).cloned()
    }

    fn end(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster, undo: Undo) {
        match undo {
            Undo::Power(node) => {
                if cluster.power_back(sim, &node) {
                    self.weather.disturb(&node, sim.elapsed());
                    self.note(sim.elapsed(), &format!("{node} has power again"));
                }
            }
            Undo::Repair(a, b) => sim.repair(a.as_str(), b.as_str()),
            Undo::RepairOneWay(a, b) => sim.repair_oneway(a.as_str(), b.as_str()),
            Undo::Release(a, b) => sim.release(a.as_str(), b.as_str()),
            Undo::Latency(a, b) => {
                sim.set_link_max_message_latency(a.as_str(), b.as_str(), self.latency);
            }
            Undo::Point(point, service) => {
                self.world.faults().switch_off_at(&service.to_string(), point);
            }
            Undo::Disk(node) => cluster.set_disk(&node, DiskDelays::default(), false),
            Undo::RollBack(service, image) => {
                self.put_back(cluster, &service, &image, sim.elapsed());
            }
            Undo::RollBackCoordinators(images) => {
                self.put_coordinators_back(sim, cluster, &images);
            }
        }
    }

    fn kill(&self, cluster: &Cluster, service: &ServiceRef, now: Duration) -> bool {
        if matters_to_gateway(service) {
            self.weather.disturb(&service.node, now);
        }
        cluster.kill(service)
    }

    /// Takes a log's directory. It is one node's only, so that everything has another copy.
    fn wipe_log(&mut self, cluster: &Cluster, node: NodeId) -> Option<String> {
        let node = self.damaged.get_or_insert(node);
        cluster.wipe_log(node).map(|log| format!("{log} lost its directory"))
    }

    fn slow(&self) -> Duration {
        let most = u64::try_from(SLOW.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(20 + self.random.next_u64() % most)
    }

    fn one_of<'a, T>(&self, all: &'a [T]) -> Option<&'a T> {
        all.get(pick(&*self.random, all.len()))
    }

    fn two_of<'a>(&self, nodes: &'a [NodeId]) -> Option<(&'a NodeId, &'a NodeId)> {
        let first = pick(&*self.random, nodes.len());
        let step = 1 + pick(&*self.random, nodes.len().checked_sub(1)?);
        Some((nodes.get(first)?, nodes.get((first + step) % nodes.len())?))
    }
}

/// Whether a gateway of the same node goes down with a service: it does with its own process, and
/// with the foreman that holds it.
fn matters_to_gateway(service: &ServiceRef) -> bool {
    matches!(service.kind(), ServiceKind::Gateway | ServiceKind::Foreman)
}

fn names(cluster: &Cluster) -> Vec<NodeId> {
    cluster.nodes().iter().map(|node| node.id.clone()).collect()
}

fn pairs(nodes: &[NodeId]) -> impl Iterator<Item = (&NodeId, &NodeId)> {
    nodes.iter().enumerate().flat_map(|(index, a)| nodes[index + 1..].iter().map(move |b| (a, b)))
}

/// A number below `bound`, 0 where there is none.
fn pick(random: &dyn Random, bound: usize) -> usize {
    let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
    usize::try_from(random.next_u64() % bound).unwrap_or(0)
}
