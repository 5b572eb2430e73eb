//! Whole recoveries: a real director, its neighbours faked over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod changes;
mod raising;
mod world;

use std::time::Duration;

use plinth_api::ErrorCode;
use plinth_api::Target;
use plinth_api::director::{
    APPOINT, Appointment, DISMISS, Dismissal, LAYOUT, LayoutQuery, LiveLayout, STATUS,
};
use plinth_director::{Config, serve};
use plinth_runtime::Runtime;
use plinth_service::{Context, Exit, Host, HostOptions, Secrets};
use plinth_system_config::{
    Envelope, LastRecovery, Parameters, RecoveryPhase, Service, ShardMap, keys, recorded_from_rows,
};
use plinth_types::{Epoch, ServiceKind, ServiceRef, VERSION_GAP, Version};
use tokio::task::JoinHandle;

use self::world::{Neighbours, service};

const LIMIT: Duration = Duration::from_secs(20);

/// A director with an epoch.
struct Director {
    context: Context,
    epoch: Epoch,
    running: JoinHandle<Exit>,
}

impl Director {
    /// Stands by; its epoch is 0.
    async fn standing_by(neighbours: &Neighbours) -> Director {
        let me = service("director-1@node-1");
        let options = HostOptions {
            service: me.clone(),
            bind: "127.0.0.1:0".to_owned(),
            advertise: None,
            cluster: None,
            secrets: Secrets::default(),
        };
        let host = Host::bind(Runtime::real(), options).await.unwrap();
        let context = host.context();
        let config = Config {
            coordinators: neighbours.coordinators(),
            foreman: None,
            parameters: Parameters::default(),
            shards: ShardMap::initial(),
        };
        #[expect(clippy::disallowed_methods, reason = "the director ends by itself")]
        let running = tokio::spawn(serve(host, config));
        Director { context, epoch: Epoch::ZERO, running }
    }

    async fn appointed(neighbours: &Neighbours, suspects: &[&str]) -> Director {
        let Director { context, running, .. } = Director::standing_by(neighbours).await;
        let epoch = neighbours.appoint(context.service(), context.pid());
        let appointment = Appointment {
            epoch,
            director: context.pid().incarnation,
            cause: "a test".to_owned(),
            suspects: suspects.iter().map(|suspect| service(suspect)).collect(),
            group_age_ms: 60_000,
        };
        let target = Target::from(context.pid());
        context.peers().call(&target, &APPOINT, &appointment, None, LIMIT).await.unwrap();
        Director { context, epoch, running }
    }

    async fn dismiss(&self, epoch: Epoch) {
        let director = self.context.pid().incarnation;
        let dismissal = Dismissal { epoch, director, reason: "a drill".to_owned() };
        let target = Target::from(self.context.pid());
        // It may be gone before it has answered.
        drop(self.context.peers().call(&target, &DISMISS, &dismissal, None, LIMIT).await);
    }

    /// Waits until the live layout is as it should be.
    async fn until(&self, holds: impl Fn(&LiveLayout) -> bool) -> LiveLayout {
        let target = Target::from(self.context.pid());
        let mut index = None;
        let waiting = async {
            loop {
                let query = LayoutQuery { index, wait_ms: 1_000 };
                let peers = self.context.peers();
                if let Ok(live) = peers.call(&target, &LAYOUT, &query, None, LIMIT).await {
                    if holds(&live) {
                        return live;
                    }
                    index = Some(live.index);
                }
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.expect("in time")
    }

    async fn until_ready(&self) -> LiveLayout {
        self.until(|live| live.accepting_commits).await
    }

    async fn exit(self) -> Exit {
        tokio::time::timeout(LIMIT, self.running).await.expect("in time").unwrap()
    }
}

/// What the series of a metric with these labels has come to.
fn count(metrics: &str, name: &str, labels: &[&str]) -> Option<u64> {
    let mut series = metrics.lines().filter(|line| line.starts_with(&format!("plinth_{name}{{")));
    let series = series.find(|line| labels.iter().all(|label| line.contains(label)))?;
    series.rsplit_once(' ')?.1.parse().ok()
}

/// How many system transactions have come to this step.
fn system_transactions(metrics: &str, step: &str) -> Option<u64> {
    count(metrics, "director_system_transactions_total", &[&format!("step=\"{step}\"")])
}

fn everything_is_counted(metrics: &str) {
    for phase in RecoveryPhase::ALL {
        let labels = [format!("phase=\"{phase}\""), "result=\"ok\"".to_owned()];
        let labels = labels.each_ref().map(String::as_str);
        let ended = count(metrics, "director_phase_seconds_count", &labels);
        assert_eq!(ended, Some(1), "{phase} in {metrics}");
    }
    for (step, times) in [("submitted", Some(1)), ("succeeded", Some(1)), ("failed", None)] {
        assert_eq!(system_transactions(metrics, step), times, "{step} in {metrics}");
    }
}

/// A cluster that has been through its first recovery, with its director gone.
async fn one_epoch() -> Neighbours {
    let neighbours = Neighbours::new().await;
    let director = Director::appointed(&neighbours, &[]).await;
    director.until_ready().await;
    director.context.request_stop();
    assert_eq!(director.exit().await, Exit::clean());
    neighbours.world().journal.clear();
    neighbours.world().farewells.clear();
    neighbours
}

fn names(services: &[&str]) -> Vec<ServiceRef> {
    services.iter().map(|name| service(name)).collect()
}

const LOGS: [&str; 3] = ["log-1@node-1", "log-1@node-2", "log-1@node-3"];
const STORAGES: [&str; 3] = ["storage-1@node-1", "storage-1@node-2", "storage-1@node-3"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_nothing_to_fully_recovered() {
    let neighbours = Neighbours::new().await;
    let director = Director::appointed(&neighbours, &[]).await;
    let live = director.until_ready().await;
    let target = Target::from(director.context.pid());
    let peers = director.context.peers();

    // Everybody is there and up.
    assert_eq!(live.config.layout.first_version, Version(VERSION_GAP));
    assert_eq!(live.directory.len(), 10);
    assert!(live.config.layout.services().all(|(_, one)| matches!(one, Service::Up(_))));
    live.recorded.validate().unwrap();

    // Recorded, kept and watched before the first commit; known as ready before clients are let in.
    let proxy = neighbours.world().only(ServiceKind::CommitProxy);
    let at = |entry: &str| neighbours.position(entry).unwrap_or_else(|| panic!("no {entry}"));
    let recorded = (1..=3)
        .filter_map(|n| neighbours.position(&format!("coordinator-1@node-{n} PUT /v1/holding")));
    let recorded = recorded.min().unwrap();
    let committed = at(&format!("{proxy} POST /v1/commits"));
    for log in LOGS {
        assert!(at(&format!("{log} POST /v1/locks")) < at(&format!("{log} PUT /v1/assignment")));
        assert!(at(&format!("{log} PUT /v1/assignment")) < recorded);
        let kept = at(&format!("{log} PUT /v1/system_config"));
        assert!(recorded < kept && kept < committed);
        assert!(at(&format!("{log} GET /v1/monitor")) < committed);
    }
    for storage in STORAGES {
        assert!(at(&format!("{storage} PUT /v1/assignment")) < committed);
        assert_eq!(neighbours.position(&format!("{storage} GET /v1/monitor")), None);
    }
    let ready = (1..=3)
        .filter_map(|n| neighbours.position(&format!("coordinator-1@node-{n} PUT /v1/ready")));
    assert!(ready.min().unwrap() < at(&format!("{proxy} PUT /v1/opening")));

    // What is in storage is what was recorded.
    {
        let world = neighbours.world();
        let config = world.row(keys::CONFIG).unwrap();
        let shards = live.recorded.shards.0.iter().map(|(start, _)| keys::shard(start));
        let shards = shards.map(|key| (key.clone(), world.row(key.as_bytes()).unwrap().clone()));
        assert_eq!(recorded_from_rows(config.as_bytes(), shards).unwrap(), live.recorded);
        let last: LastRecovery =
            serde_json::from_slice(world.row(keys::LAST_RECOVERY).unwrap().as_bytes()).unwrap();
        assert_eq!((last.made.len(), last.reused.len(), last.epoch), (6, 0, Epoch(1)));
    }

    // All phases, in order.
    let waiting = async {
        loop {
            let status = peers.call(&target, &STATUS, &plinth_api::Nothing {}, None, LIMIT).await;
            let status = status.unwrap();
            if status.phase == RecoveryPhase::FullyRecovered.as_str()
                && status.phases.iter().all(|phase| phase.duration_ms.is_some())
            {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let status = tokio::time::timeout(LIMIT, waiting).await.unwrap();
    let phases: Vec<&str> = status.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(phases, RecoveryPhase::ALL.map(RecoveryPhase::as_str));

    everything_is_counted(&director.context.metrics().render());

    // A component that dies ends the epoch, and the coordinators hear why.
    neighbours.kill(&service("log-1@node-2"));
    let exit = director.exit().await;
    assert_eq!((exit.status, exit.reason.as_str()), (1, "log-1@node-2 died"));
    let farewells = &neighbours.world().farewells;
    assert_eq!(farewells[0].reason, "log-1@node-2 died");
    assert_eq!(farewells[0].suspects, names(&["log-1@node-2"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_epoch_takes_up_the_same_logs_and_storages() {
    let neighbours = one_epoch().await;
    let before = neighbours.world().recorded.clone().unwrap();
    for (log, end) in LOGS.iter().zip([20, 10, 30]) {
        let mut world = neighbours.world();
        let log = world.logs.get_mut(&service(log)).unwrap();
        log.end = before.config.layout.first_version.plus(end);
        log.known_committed = before.config.layout.first_version.plus(10);
    }
    let director = Director::appointed(&neighbours, &[]).await;
    let live = director.until_ready().await;
    assert_eq!(director.epoch, Epoch(2));
    live.recorded.validate_after(&before).unwrap();
    let layout = &live.recorded.config.layout;
    assert_eq!(layout.recovery_version, before.config.layout.first_version.plus(10));
    let stores = |layout: &plinth_system_config::Layout<ServiceRef>| {
        layout.durable().map(|(_, store, _)| store).collect::<Vec<_>>()
    };
    assert_eq!(stores(layout), stores(&before.config.layout));
    assert!(neighbours.world().logs.values().all(|log| log.copied.is_empty()));
    for n in 1..=3 {
        assert_eq!(neighbours.count(&format!("foreman-1@node-{n} POST /v1/workers")), 0);
    }
}

/// What an earlier release has written goes on to be written in its form, so that a node that still has
/// that release can read it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_format_level_1_goes_on_at_that_level() {
    let neighbours = raising::one_epoch_at_level_1().await;
    let before = neighbours.world().recorded.clone().unwrap();
    let director = Director::appointed(&neighbours, &[]).await;
    let live = director.until_ready().await;
    live.recorded.validate_after(&before).unwrap();
    assert_eq!(live.recorded.config.format_level, 1);
    assert_eq!(live.recorded.config.parameters, before.config.parameters);
    let world = neighbours.world();
    let config = world.row(keys::CONFIG).unwrap();
    let envelope = Envelope::open(config.as_bytes(), "plinth.system-config", 1).unwrap();
    assert_eq!(envelope.level(), 1);
    assert!(!envelope.body().contains("storage_lost_ms"), "{}", envelope.body());
    let shards = live.recorded.shards.0.iter().map(|(start, _)| keys::shard(start));
    let shards = shards.map(|key| (key.clone(), world.row(key.as_bytes()).unwrap().clone()));
    assert_eq!(recorded_from_rows(config.as_bytes(), shards).unwrap(), live.recorded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_log_counts_as_missing_and_is_filled_from_survivors() {
    let neighbours = one_epoch().await;
    let first = neighbours.world().recorded.clone().unwrap().config.layout.first_version;
    let wiped = service("log-1@node-3");
    neighbours.wipe(&wiped);
    neighbours.start(wiped.clone()).await;
    let director = Director::appointed(&neighbours, &["log-1@node-3"]).await;
    let live = director.until_ready().await;
    // Its end of 0 does not count.
    assert_eq!(live.recorded.config.layout.recovery_version, first);
    let logs: Vec<&ServiceRef> =
        live.recorded.config.layout.logs.iter().map(|log| &log.service).collect();
    assert_eq!(logs, names(&LOGS).iter().collect::<Vec<_>>());
    let world = neighbours.world();
    let copied: Vec<usize> =
        LOGS.iter().map(|log| world.logs[&service(log)].copied.len()).collect();
    assert_eq!(copied, [0, 0, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_configuration_can_not_be_read_counts_unless_it_may_be_a_newer_one() {
    let neighbours = one_epoch().await;
    let before = neighbours.world().recorded.clone().unwrap();
    let (older, newer) = (service("log-1@node-1"), service("log-1@node-2"));
    {
        let mut world = neighbours.world();
        for log in [&older, &newer] {
            world.logs.get_mut(log).unwrap().config_damaged = true;
        }
        // It has taken up an epoch after the layout's, and may keep what that one has recorded.
        let generation = world.logs.get_mut(&newer).unwrap().generation.as_mut().unwrap();
        generation.epoch = before.config.layout.epoch.next();
    }
    let director = Director::appointed(&neighbours, &[]).await;
    let live = director.until_ready().await;
    let logs: Vec<_> = live.recorded.config.layout.logs.iter().map(|log| &log.service).collect();
    assert!(logs.contains(&&older) && !logs.contains(&&newer), "{logs:?}");
    let world = neighbours.world();
    assert_eq!(world.logs[&older].copied, []);
    assert!(!world.logs[&older].config_damaged, "it keeps the next one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_disk_is_full_is_passed_over() {
    let neighbours = one_epoch().await;
    let full = service("log-1@node-3");
    neighbours.world().logs.get_mut(&full).unwrap().disk_full = true;
    let director = Director::appointed(&neighbours, &[]).await;
    let live = director.until_ready().await;
    let logs: Vec<_> = live.recorded.config.layout.logs.iter().map(|log| &log.service).collect();
    assert!(logs.len() == LOGS.len() && !logs.contains(&&full), "{logs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_log_it_waits_and_goes_on_when_one_is_back() {
    let neighbours = one_epoch().await;
    for log in LOGS {
        neighbours.kill(&service(log));
    }
    let director = Director::appointed(&neighbours, &[]).await;
    let target = Target::from(director.context.pid());
    let waiting = async {
        loop {
            let peers = director.context.peers();
            let status = peers.call(&target, &STATUS, &plinth_api::Nothing {}, None, LIMIT).await;
            if let Some(reason) = status.unwrap().stalled {
                return reason;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reason = tokio::time::timeout(LIMIT, waiting).await.unwrap();
    assert!(reason.starts_with("no undamaged log that holds tag 0, 1 is locked"), "{reason}");
    neighbours.start(service("log-1@node-2")).await;
    director.until_ready().await;
    // The other two were started again by their foremen, and copied what they lack.
    assert!(neighbours.world().is_running("log-1".parse().unwrap(), "node-1"));
    assert_eq!(neighbours.world().logs[&service("log-1@node-1")].copied.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_director_that_can_not_record_its_layout_does_not_go_on() {
    let neighbours = one_epoch().await;
    neighbours.world().refuse_record = true;
    let director = Director::appointed(&neighbours, &[]).await;
    let exit = director.exit().await;
    assert_eq!(exit.status, 1);
    assert!(exit.reason.starts_with("recording_layout: the layout was refused"), "{}", exit.reason);
    let proxy = neighbours.world().only(ServiceKind::CommitProxy);
    assert_eq!(neighbours.position(&format!("{proxy} POST /v1/commits")), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_transaction_that_is_refused_ends_the_director() {
    for code in [ErrorCode::CommitUnknownResult, ErrorCode::NotReady, ErrorCode::Conflict] {
        let neighbours = one_epoch().await;
        neighbours.world().refuse_commit = Some(code);
        let director = Director::appointed(&neighbours, &[]).await;
        let context = director.context.clone();
        let exit = director.exit().await;
        let metrics = context.metrics().render();
        for (step, times) in [("submitted", Some(1)), ("succeeded", None), ("failed", Some(1))] {
            assert_eq!(system_transactions(&metrics, step), times, "{step} in {metrics}");
        }
        assert_eq!(exit.status, 1);
        assert!(exit.reason.starts_with("system_transaction: "), "{}", exit.reason);
        assert!(exit.reason.contains("committing the system transaction"), "{}", exit.reason);
        let proxy = neighbours.world().only(ServiceKind::CommitProxy);
        assert_eq!(neighbours.position(&format!("{proxy} PUT /v1/opening")), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_transaction_that_storage_does_not_return_ends_the_director() {
    let neighbours = one_epoch().await;
    {
        let mut world = neighbours.world();
        world.forget_commits = true;
        let recorded = world.recorded.as_mut().unwrap();
        recorded.config.parameters.system_transaction_timeout_ms = 1_000;
    }
    let director = Director::appointed(&neighbours, &[]).await;
    let exit = director.exit().await;
    let expected = "system_transaction: not durable in time: no majority of this epoch's";
    assert!(exit.reason.starts_with(expected), "{}", exit.reason);
    let proxy = neighbours.world().only(ServiceKind::CommitProxy);
    assert_eq!(neighbours.position(&format!("{proxy} PUT /v1/opening")), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storage_that_restarts_is_given_the_epoch_again() {
    let neighbours = one_epoch().await;
    let director = Director::appointed(&neighbours, &[]).await;
    director.until_ready().await;
    let storage = service("storage-1@node-2");
    let member = |live: &LiveLayout| live.config.layout.storage_teams[0].members[1].service.clone();
    neighbours.kill(&storage);
    let live = director.until(|live| member(live) == Service::Down(storage.clone())).await;
    assert!(live.accepting_commits);
    let entry = format!("{storage} PUT /v1/assignment");
    assert_eq!(neighbours.count(&entry), 1);
    let pid = neighbours.start(storage.clone()).await;
    director.until(|live| member(live) == Service::Up(pid.clone())).await;
    assert_eq!(neighbours.count(&entry), 2);
    assert_eq!(neighbours.count(&format!("{storage} PUT /v1/system_config")), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_not_ready_yet_is_asked_again() {
    let neighbours = Neighbours::new().await;
    let log = service("log-1@node-2");
    let entries = ["POST /v1/locks", "PUT /v1/assignment", "PUT /v1/system_config"]
        .map(|request| (format!("{log} {request}"), 2));
    neighbours.world().not_ready = entries.clone().into();
    let director = Director::appointed(&neighbours, &[]).await;
    director.until_ready().await;
    assert!(neighbours.world().not_ready.values().all(|left| *left == 0));
    for (entry, _) in entries {
        assert_eq!(neighbours.count(&entry), 1, "{entry}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_workers_hold_no_recovery_up() {
    let neighbours = one_epoch().await;
    // The foremen take them for running.
    let (log, storage) = (service("log-1@node-3"), service("storage-1@node-3"));
    neighbours.freeze(&log);
    neighbours.freeze(&storage);
    let begun = tokio::time::Instant::now();
    let director = Director::appointed(&neighbours, &["log-1@node-3"]).await;
    let live = director.until_ready().await;
    // One request to either that nobody cuts short takes five seconds.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let named = live.recorded.config.layout.logs.iter().map(|log| &log.service);
    assert!(named.clone().all(|named| *named != log), "{:?}", named.collect::<Vec<_>>());
    let member = &live.config.layout.storage_teams[0].members[2].service;
    assert_eq!(*member, Service::Down(storage));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreman_that_does_not_answer_holds_no_recovery_up() {
    let neighbours = one_epoch().await;
    // A node that is cut off: the coordinators have not noticed yet.
    for kind in ["log", "storage", "foreman"] {
        neighbours.freeze(&service(&format!("{kind}-1@node-3")));
    }
    let begun = tokio::time::Instant::now();
    let director = Director::appointed(&neighbours, &["log-1@node-3"]).await;
    let live = director.until_ready().await;
    // To wait for a worker to be made takes ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let logs = &live.recorded.config.layout.logs;
    assert!(logs.iter().all(|log| log.service.node.as_str() != "node-3"), "{logs:?}");
}

/// Nobody else may stand by: whoever is not appointed any more makes way, and only for its own epoch.
#[tokio::test]
async fn a_director_that_is_dismissed_exits_with_the_reason() {
    let neighbours = one_epoch().await;
    let director = Director::appointed(&neighbours, &[]).await;
    director.until_ready().await;
    director.dismiss(Epoch(director.epoch.0 - 1)).await;
    assert!(director.until_ready().await.accepting_commits, "it is another epoch that is over");
    director.dismiss(director.epoch).await;
    let exit = director.exit().await;
    assert!(exit.status != 0 && exit.reason.contains("a drill"), "{}", exit.reason);

    let idle = Director::standing_by(&neighbours).await;
    idle.dismiss(Epoch(9)).await;
    let exit = idle.exit().await;
    assert!(exit.status != 0 && exit.reason.contains("a drill"), "{}", exit.reason);
}
