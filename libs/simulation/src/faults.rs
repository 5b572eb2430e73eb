//! Deliberate faults, asked for by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use plinth_runtime::Random;

use crate::trace::Trace;

/// How often a fault point that is switched on fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Each time it is passed.
    Always,
    /// The next time it is passed, and then no more.
    Once,
    /// One time in so many, at random.
    OneIn(u64),
}

/// The fault points that are switched on, everywhere or at one host. All others are off.
pub struct Faults {
    random: Arc<dyn Random>,
    trace: Trace,
    points: Mutex<BTreeMap<String, Point>>,
    marks: Mutex<BTreeMap<String, u64>>,
}

#[derive(Default)]
struct Point {
    everywhere: Option<When>,
    hosts: BTreeMap<String, When>,
    fired: u64,
}

impl Faults {
    pub(crate) fn new(random: Arc<dyn Random>, trace: Trace) -> Self {
        Faults { random, trace, points: Mutex::default(), marks: Mutex::default() }
    }

    /// Switches a point on at every host.
    pub fn switch_on(&self, point: &str, when: When) {
        self.change(point, |point| point.everywhere = Some(when));
    }

    /// Switches a point on at one host, whatever holds for the others.
    pub fn switch_on_at(&self, host: &str, point: &str, when: When) {
        self.change(point, |point| _ = point.hosts.insert(host.to_owned(), when));
    }

    /// Switches a point off everywhere.
    pub fn switch_off(&self, point: &str) {
        self.change(point, |point| {
            point.everywhere = None;
            point.hosts.clear();
        });
    }

    /// Switches a point off at one host, whatever holds for the others.
    pub fn switch_off_at(&self, host: &str, point: &str) {
        self.change(point, |point| _ = point.hosts.remove(host));
    }

    /// How often a point has fired: a test of a fault shows by it that the fault took place.
    #[must_use]
    pub fn fired(&self, point: &str) -> u64 {
        self.points
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(point)
            .map_or(0, |point| point.fired)
    }

    /// How often each mark was passed.
    #[must_use]
    pub fn marks(&self) -> BTreeMap<String, u64> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The points as the processes of one host see them.
    pub(crate) fn at(self: &Arc<Self>, host: &str) -> Arc<dyn plinth_runtime::Faults> {
        Arc::new(HostFaults { faults: Arc::clone(self), host: host.to_owned() })
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Point)) {
        change(
            self.points
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(name.to_owned())
                .or_default(),
        );
    }

    fn fires(&self, host: &str, name: &str) -> bool {
        let mut points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(point) = points.get_mut(name) else {
            return false;
        };
        let Some(when) = point.hosts.get(host).copied().or(point.everywhere) else {
            return false;
        };
        let fires = match when {
            When::Always => true,
            When::Once => {
                if point.hosts.remove(host).is_none() {
                    point.everywhere = None;
                }
                true
            }
            When::OneIn(times) => self.random.next_u64().is_multiple_of(times.max(1)),
        };
        if fires {
            point.fired += 1;
            self.trace.record(host, "fault", &[name.as_bytes()]);
        }
        fires
    }
}

struct HostFaults {
    faults: Arc<Faults>,
    host: String,
}

impl plinth_runtime::Faults for HostFaults {
    fn fires(&self, point: &'static str) -> bool {
        self.faults.fires(&self.host, point)
    }

    fn passed(&self, mark: &dyn fmt::Display) {
        let mut marks = self.faults.marks.lock().unwrap_or_else(PoisonError::into_inner);
        *marks.entry(mark.to_string()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use crate::{Options, Simulation, When};

    #[test]
    fn a_point_is_off_until_it_is_switched_on() {
        let world = Simulation::new(1, Options::default());
        let (a, b) = (world.runtime("a"), world.runtime("b"));
        assert!(!a.fault("x"));
        world.faults().switch_on("x", When::Always);
        assert!(a.fault("x") && b.fault("x") && !a.fault("y"));
        world.faults().switch_off("x");
        assert!(!a.fault("x"));
        assert_eq!(world.faults().fired("x"), 2);
    }

    #[test]
    fn once_is_once_and_one_host_is_one_host() {
        let world = Simulation::new(1, Options::default());
        let (a, b) = (world.runtime("a"), world.runtime("b"));
        world.faults().switch_on_at("b", "x", When::Once);
        assert!(!a.fault("x"));
        assert!(b.fault("x"));
        assert!(!b.fault("x"));
    }

    #[test]
    fn marks_are_counted_whoever_passes_them() {
        let world = Simulation::new(1, Options::default());
        world.runtime("a").mark("x");
        world.runtime("b").mark(format_args!("{}", "x"));
        world.runtime("b").mark("y");
        assert_eq!(world.faults().marks(), [("x".to_owned(), 2), ("y".to_owned(), 1)].into());
    }

    #[test]
    fn one_in_ten_is_about_one_in_ten() {
        let world = Simulation::new(1, Options::default());
        let a = world.runtime("a");
        world.faults().switch_on("x", When::OneIn(10));
        let fired = (0..1000).filter(|_| a.fault("x")).count();
        assert!((50..200).contains(&fired), "{fired}");
    }
}
