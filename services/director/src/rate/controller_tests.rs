use super::*;

const LOG: &str = "log-1@node-1";

fn service(name: &str) -> ServiceRef {
    name.parse().unwrap()
}

/// Storages that each apply so many transactions a second, behind a log, under a constant demand.
struct Play {
    controller: Controller,
    demand: f64,
    speeds: BTreeMap<ServiceRef, f64>,
    /// Those that do not answer.
    silent: BTreeSet<ServiceRef>,
    begun: f64,
    /// When each transaction committed, as versions; index is its number.
    committed_at: Vec<u64>,
    done: BTreeMap<ServiceRef, f64>,
    now_ms: u64,
    verdict: Verdict,
}

impl Play {
    fn new(demand: f64, speeds: &[(&str, f64)]) -> Play {
        Play {
            controller: Controller::default(),
            demand,
            speeds: speeds.iter().map(|(name, speed)| (service(name), *speed)).collect(),
            silent: BTreeSet::new(),
            begun: 0.0,
            committed_at: Vec::new(),
            done: BTreeMap::new(),
            now_ms: 0,
            verdict: Verdict::default(),
        }
    }

    /// Versions are microseconds.
    fn step(&mut self) {
        const STEP_MS: u64 = 10;
        self.now_ms += STEP_MS;
        let seconds = STEP_MS as f64 / 1_000.0;
        let rate =
            self.verdict.per_second.map_or(self.demand, |limit| self.demand.min(limit as f64));
        self.begun += rate * seconds;
        while self.committed_at.len() < self.begun as usize {
            self.committed_at.push(self.now_ms * 1_000);
        }
        for (who, speed) in &self.speeds {
            let done = self.done.entry(who.clone()).or_default();
            *done = (*done + speed * seconds).min(self.begun);
        }
    }

    fn durable(&self, who: &ServiceRef) -> Version {
        let done = self.done.get(who).copied().unwrap_or_default() as usize;
        Version(done.checked_sub(1).map_or(0, |last| self.committed_at[last]))
    }

    /// Lag in transactions.
    fn backlog(&self, who: &str) -> f64 {
        self.begun - self.done[&service(who)]
    }

    fn look(&mut self) {
        let seen = |who: &ServiceRef| StorageSeen {
            durable: BTreeMap::from([(Tag(1), self.durable(who))]),
            queue_bytes: 0,
        };
        let answers = self.speeds.keys().filter(|who| !self.silent.contains(*who));
        let log = LogSeen {
            committed: Version(self.committed_at.last().copied().unwrap_or_default()),
            ..LogSeen::default()
        };
        let look = Look {
            at: Duration::from_millis(self.now_ms),
            begun: Some(self.begun as u64),
            storages: answers.map(|who| (who.clone(), seen(who))).collect(),
            logs: BTreeMap::from([(service(LOG), log)]),
        };
        self.verdict = self.controller.look(&look);
    }

    /// Goes on for so long, as the director looks; calls `check` after each look.
    fn run(&mut self, seconds: u64, mut check: impl FnMut(&Play)) {
        let end = self.now_ms + seconds * 1_000;
        let mut next = self.now_ms;
        while self.now_ms < end {
            self.step();
            if self.now_ms >= next {
                self.look();
                check(self);
                next = self.now_ms + if self.controller.is_calm() { 1_000 } else { 200 };
            }
        }
    }
}

const A: &str = "storage-1@node-1";
const B: &str = "storage-1@node-2";

#[test]
fn nothing_is_limited_while_everybody_keeps_up() {
    let mut play = Play::new(5_000.0, &[(A, 6_000.0), (B, 5_100.0)]);
    play.run(60, |play| assert_eq!(play.verdict.per_second, None, "at {} ms", play.now_ms));
    assert!(play.controller.is_calm());
}

#[test]
fn a_slow_storage_bounds_the_backlog_and_commits_go_on_at_its_speed() {
    for (demand, speed) in [(5_000.0, 1_000.0), (3_000.0, 300.0), (2_000.0, 1_800.0)] {
        let mut play = Play::new(demand, &[(A, demand * 2.0), (B, demand * 2.0)]);
        play.run(10, |play| assert_eq!(play.verdict.per_second, None));
        play.speeds.insert(service(B), speed);
        let mut worst: f64 = 0.0;
        play.run(60, |play| worst = worst.max(play.backlog(B)));
        // What comes until the first limit, some 2 s of the demand.
        assert!(worst < demand * 2.5 + speed * 2.5, "{worst} of {demand}");
        let (begun, mut settled) = (play.begun, Vec::new());
        play.run(30, |play| {
            settled.push(play.verdict.standings[&service(B)].lag);
            let (who, why) = play.verdict.by.clone().unwrap_or((service(B), String::new()));
            assert_eq!(who, service(B), "{why}");
        });
        let per_second = (play.begun - begun) / 30.0;
        assert!(
            per_second > speed * 0.85 && per_second < speed * 1.15,
            "{per_second} a second begin, and {speed} get done"
        );
        assert!(settled.iter().all(|lag| *lag < TARGET * 2), "{settled:?}");
        // Well again, it catches up, and the limit goes.
        play.speeds.insert(service(B), demand * 2.0);
        play.run(30, |_| {});
        assert_eq!(play.verdict.per_second, None);
        assert!(play.controller.is_calm());
    }
}

#[test]
fn what_was_held_back_does_not_come_in_one_burst() {
    let mut play = Play::new(5_000.0, &[(A, 9_000.0), (B, 9_000.0)]);
    play.run(5, |_| {});
    play.speeds.insert(service(B), 500.0);
    play.run(60, |_| {});
    play.speeds.insert(service(B), 9_000.0);
    let mut last = play.verdict.per_second.expect("a limit");
    play.run(20, |play| {
        if let Some(limit) = play.verdict.per_second {
            assert!(limit <= last + last / 5, "{limit} after {last}");
            last = limit;
        }
    });
    assert_eq!(play.verdict.per_second, None);
    assert!(last >= 5_000, "it ended where it limited nothing: {last}");
}

#[test]
fn who_is_silent_or_has_never_caught_up_holds_up_nobody() {
    let mut play = Play::new(1_000.0, &[(A, 2_000.0), (B, 2_000.0)]);
    play.run(5, |_| {});
    play.silent.insert(service(B));
    play.speeds.insert(service(B), 0.0);
    play.run(60, |play| assert_eq!(play.verdict.per_second, None));
    // It answers again, a minute behind, and catches up.
    play.silent.clear();
    play.speeds.insert(service(B), 4_000.0);
    play.run(10, |play| assert_eq!(play.verdict.per_second, None));
    assert!(!play.verdict.standings[&service(B)].counts);
    play.run(60, |play| assert_eq!(play.verdict.per_second, None));
    assert!(play.verdict.standings[&service(B)].counts, "it has caught up");
    // Stuck for good, it is lost after a while, and only then.
    play.speeds.insert(service(B), 0.0);
    play.run(20, |_| {});
    assert_eq!(play.verdict.per_second, Some(FLOOR as u64));
    play.run(30, |_| {});
    assert_eq!(play.verdict.per_second, None);
}

#[test]
fn the_best_copy_counts_where_none_keeps_up() {
    let mut controller = Controller::default();
    let look = |at, committed, a, b| {
        let seen = |durable| StorageSeen {
            durable: BTreeMap::from([(Tag(1), Version(durable))]),
            queue_bytes: 0,
        };
        Look {
            at: Duration::from_millis(at),
            begun: Some(committed),
            storages: BTreeMap::from([(service(A), seen(a)), (service(B), seen(b))]),
            logs: BTreeMap::from([(
                service(LOG),
                LogSeen { committed: Version(committed), ..LogSeen::default() },
            )]),
        }
    };
    controller.look(&look(0, 1_000, 500, 200));
    controller.look(&look(10_000, 9_000, 600, 200));
    controller.look(&look(50_000, 50_000, 2_000, 300));
    let verdict = controller.look(&look(51_000, 51_000, 2_100, 300));
    let counts = |who| verdict.standings[&service(who)].counts;
    assert!(counts(A) && !counts(B), "{verdict:?}");
    // It does a hundred a second, and is far behind.
    assert_eq!(verdict.per_second, Some(50), "{verdict:?}");
    assert_eq!(verdict.by.map(|(who, _)| who), Some(service(A)));
}

#[test]
fn a_jump_of_versions_after_idleness_is_no_lag() {
    let mut controller = Controller::default();
    let look = |at, committed, durable| Look {
        at: Duration::from_millis(at),
        begun: Some(1),
        storages: BTreeMap::from([(
            service(A),
            StorageSeen { durable: BTreeMap::from([(Tag(1), Version(durable))]), queue_bytes: 7 },
        )]),
        logs: BTreeMap::from([(
            service(LOG),
            LogSeen { committed: Version(committed), ..LogSeen::default() },
        )]),
    };
    controller.look(&look(0, 100, 100));
    controller.look(&look(60_000, 100, 100));
    let verdict = controller.look(&look(61_000, 5_000_100, 100));
    assert_eq!(verdict.per_second, None);
    let expected = Standing { lag: Duration::ZERO, queue_bytes: 7, counts: true };
    assert_eq!(verdict.standings[&service(A)], expected);
}

#[test]
fn a_log_that_fills_up_limits_too() {
    let mut controller = Controller::default();
    let look = |at, queue_bytes| Look {
        at: Duration::from_millis(at),
        begun: Some(at),
        storages: BTreeMap::new(),
        logs: BTreeMap::from([(
            service(LOG),
            LogSeen { committed: Version(at), queue_bytes, queue_limit_bytes: 1_000 },
        )]),
    };
    for (at, bytes, limit) in
        [(0, 100, None), (500, 250, None), (1_000, 500, Some(1_000)), (1_500, 1_000, Some(500))]
    {
        let verdict = controller.look(&look(at, bytes));
        assert_eq!(verdict.per_second, limit, "{bytes} bytes: {:?}", verdict.by);
    }
}
