use plinth_api::foreman::WorkerState;
use plinth_system_config::FORMAT_LEVEL;
use plinth_types::Pid;

use super::*;

const CLUSTER: ClusterId = ClusterId(7);

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn workers() -> Workers {
    let kinds = [ServiceKind::Sequencer, ServiceKind::Log, ServiceKind::Storage];
    Workers::new("node-1".parse().unwrap(), kinds.into(), Some(CLUSTER))
}

fn announcement(who: &str, incarnation: u64, os_pid: u32, store: Option<u128>) -> Announcement {
    let pid = Pid {
        node: "node-1".parse().unwrap(),
        os_pid,
        incarnation: Incarnation(incarnation),
        address: "127.0.0.1:1".to_owned(),
    };
    Announcement::new(name(who), pid, store.map(StoreId))
}

fn create(who: &str, epoch: u64) -> CreateWorker {
    CreateWorker { name: name(who), epoch: Epoch(epoch), wait_ms: 0 }
}

fn process(os_pid: u32) -> ProcessId {
    ProcessId { os_pid, start_ticks: 1 }
}

/// The number of the one process that is to be started.
fn to_start(workers: &mut Workers) -> u64 {
    match workers.take_commands()[..] {
        [Command::Start { number, .. }] => number,
        ref other => panic!("one start expected, not {other:?}"),
    }
}

fn state(workers: &Workers, who: &str) -> WorkerState {
    workers.list().into_iter().find(|worker| worker.name == name(who)).unwrap().state
}

#[test]
fn a_wanted_worker_is_started_once_and_is_up_when_it_has_announced_itself() {
    let mut workers = workers();
    workers.create(at(0), &create("log-1", 1)).unwrap();
    let number = to_start(&mut workers);
    workers.create(at(1), &create("log-1", 1)).unwrap();
    assert_eq!(workers.take_commands(), []);
    workers.started(name("log-1"), number, Some(process(10)));
    assert_eq!(state(&workers, "log-1"), WorkerState::Starting);
    workers.announce(at(2), &announcement("log-1", 5, 10, None)).unwrap();
    assert_eq!(state(&workers, "log-1"), WorkerState::Starting, "without a store it is of no use");
    workers.announce(at(2), &announcement("log-1", 5, 10, Some(3))).unwrap();
    assert_eq!(state(&workers, "log-1"), WorkerState::Up);
    assert_eq!(
        workers.records(),
        [WorkerRecord {
            name: name("log-1"),
            store: Some(StoreId(3)),
            process: Some(process(10)),
            incarnation: Some(Incarnation(5)),
        }]
    );
}

#[test]
fn what_a_worker_reads_is_what_the_living_process_says() {
    let mut workers = workers();
    workers.create(at(0), &create("log-1", 1)).unwrap();
    let number = to_start(&mut workers);
    let reads = |workers: &Workers| workers.list()[0].format_level;
    assert_eq!(reads(&workers), None);
    workers.announce(at(1), &announcement("log-1", 5, 10, Some(3))).unwrap();
    assert_eq!(reads(&workers), Some(FORMAT_LEVEL));
    // The one after it is of an older release, and says nothing until it has announced itself.
    workers.ended(at(9), name("log-1"), number, "killed".to_owned());
    to_start(&mut workers);
    assert_eq!(reads(&workers), None);
    let old = Announcement { format_level: None, ..announcement("log-1", 6, 11, Some(3)) };
    workers.announce(at(10), &old).unwrap();
    assert_eq!((reads(&workers), state(&workers, "log-1")), (None, WorkerState::Up));
}

#[test]
fn a_worker_that_dies_young_is_restarted_at_once_and_then_ever_more_slowly() {
    let mut workers = workers();
    workers.want(at(0), name("sequencer-1"));
    let mut number = to_start(&mut workers);
    let mut now = at(0);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        workers.ended(now, name("sequencer-1"), number, "on purpose".to_owned());
        let until = workers.next_tick().unwrap_or(now);
        pauses.push((until - now).as_millis());
        workers.tick(until);
        now = until;
        number = to_start(&mut workers);
    }
    assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    now += YOUNG;
    workers.ended(now, name("sequencer-1"), number, "of old age".to_owned());
    to_start(&mut workers);
    let worker = workers.list().remove(0);
    assert_eq!((worker.exits, worker.last_exit.as_deref()), (11, Some("of old age")));
}

#[test]
fn the_end_of_a_former_process_changes_nothing() {
    let mut workers = workers();
    workers.want(at(0), name("sequencer-1"));
    let first = to_start(&mut workers);
    workers.ended(at(1), name("sequencer-1"), first, String::new());
    to_start(&mut workers);
    workers.ended(at(2), name("sequencer-1"), first, String::new());
    assert_eq!(workers.take_commands(), []);
    assert_eq!(workers.list()[0].exits, 1);
}

/// Otherwise a coordinator or log that lost its disk would run without anybody knowing of it.
#[test]
fn a_worker_of_ours_that_comes_up_with_another_directory_is_taken_as_what_it_is() {
    let mut workers = workers();
    workers.want(at(0), name("coordinator-1"));
    let first = to_start(&mut workers);
    workers.announce(at(0), &announcement("coordinator-1", 1, 1, Some(1))).unwrap();
    workers.ended(at(1), name("coordinator-1"), first, "killed".to_owned());
    to_start(&mut workers);
    let lost = workers.announce(at(2), &announcement("coordinator-1", 2, 2, Some(2)));
    assert_eq!(lost, Ok(Some(StoreId(1))));
    let worker = workers.list().remove(0);
    assert_eq!((worker.store, worker.state), (Some(StoreId(2)), WorkerState::Up));
    assert_eq!(workers.records()[0].store, Some(StoreId(2)));
}

#[test]
fn another_store_or_process_under_a_name_is_refused() {
    let mut workers = workers();
    workers.know(name("storage-1"), StoreId(1));
    assert!(matches!(
        workers.announce(at(0), &announcement("storage-1", 1, 1, Some(2))),
        Err(Refusal::OtherStore { .. })
    ));
    workers.announce(at(0), &announcement("storage-1", 1, 1, Some(1))).unwrap();

    workers.want(at(0), name("sequencer-1"));
    let number = to_start(&mut workers);
    workers.started(name("sequencer-1"), number, Some(process(10)));
    assert!(matches!(
        workers.announce(at(0), &announcement("sequencer-1", 1, 11, None)),
        Err(Refusal::OtherProcess { .. })
    ));
    workers.announce(at(0), &announcement("sequencer-1", 1, 10, None)).unwrap();
    // The operating system's id alone proves nothing: in a container it is always 1.
    assert!(matches!(
        workers.announce(at(0), &announcement("sequencer-1", 2, 10, None)),
        Err(Refusal::OtherProcess { .. })
    ));
}

#[test]
fn a_worker_of_another_node_is_refused() {
    let mut workers = workers();
    let mut stray = announcement("storage-1", 1, 1, None);
    stray.pid.node = "node-2".parse().unwrap();
    assert!(matches!(workers.announce(at(0), &stray), Err(Refusal::OtherNode { .. })));
}

#[test]
fn a_foreign_worker_is_believed_while_it_announces_itself() {
    let mut workers = workers();
    workers.announce(at(0), &announcement("director-1", 1, 1, None)).unwrap();
    workers.announce(at(1000), &announcement("director-1", 1, 1, None)).unwrap();
    assert_eq!(workers.next_tick(), Some(at(4000)));
    workers.tick(at(3999));
    assert_eq!(state(&workers, "director-1"), WorkerState::Up);
    workers.tick(at(4000));
    assert_eq!(state(&workers, "director-1"), WorkerState::Down);
    assert_eq!(workers.take_commands(), []);
    workers.announce(at(5000), &announcement("director-1", 2, 1, None)).unwrap();
    assert_eq!(state(&workers, "director-1"), WorkerState::Up);
}

#[test]
fn an_adopted_process_is_kept_when_it_speaks_and_ended_when_it_is_mute() {
    let mut workers = workers();
    workers.adopt(at(0), name("sequencer-1"), process(10), Some(Incarnation(5)));
    let mute = workers.adopt(at(0), name("log-1"), process(11), None);
    workers.want(at(0), name("log-1"));
    assert_eq!(workers.take_commands(), []);
    assert!(workers.announce(at(1), &announcement("sequencer-1", 6, 10, None)).is_err());
    workers.announce(at(1), &announcement("sequencer-1", 5, 10, None)).unwrap();
    workers.tick(MUTE);
    assert_eq!(workers.take_commands(), [Command::End { name: name("log-1"), number: mute }]);
    assert_eq!(workers.next_tick(), None);
    workers.ended(MUTE, name("log-1"), mute, "ended".to_owned());
    to_start(&mut workers);
}

#[test]
fn requests_of_the_past_and_for_other_kinds_are_refused() {
    let mut workers = Workers::new(
        "node-1".parse().unwrap(),
        [ServiceKind::Sequencer, ServiceKind::Log].into(),
        None,
    );
    workers.set_epoch(Epoch(3));
    assert_eq!(
        workers.create(at(0), &create("sequencer-1", 2)),
        Err(Refusal::StaleEpoch { given: Epoch(2), latest: Epoch(3) })
    );
    assert!(matches!(
        workers.create(at(0), &create("resolver-1", 3)),
        Err(Refusal::KindNotMade { .. })
    ));
    assert_eq!(workers.create(at(0), &create("log-1", 3)), Err(Refusal::NoCluster));
    workers.set_cluster(CLUSTER);
    workers.create(at(0), &create("log-1", 3)).unwrap();
}

#[test]
fn only_stateless_workers_of_ours_are_removed() {
    let mut workers = workers();
    assert!(matches!(workers.remove(name("log-1")), Err(Refusal::Unknown { .. })));
    workers.create(at(0), &create("log-1", 1)).unwrap();
    assert!(matches!(workers.remove(name("log-1")), Err(Refusal::Durable { .. })));
    workers.announce(at(0), &announcement("director-1", 1, 1, None)).unwrap();
    assert!(matches!(workers.remove(name("director-1")), Err(Refusal::Foreign { .. })));
    workers.take_commands();
    workers.create(at(0), &create("sequencer-1", 1)).unwrap();
    let number = to_start(&mut workers);
    workers.remove(name("sequencer-1")).unwrap();
    workers.remove(name("sequencer-1")).unwrap();
    assert_eq!(workers.take_commands(), [Command::End { name: name("sequencer-1"), number }]);
    workers.ended(at(1), name("sequencer-1"), number, String::new());
    assert!(workers.list().iter().all(|worker| worker.name != name("sequencer-1")));
}

#[test]
fn health_waits_for_every_log_and_storage_that_exists_and_for_nobody_else() {
    let mut workers = workers();
    assert!(workers.health().healthy && workers.settled());
    workers.know(name("storage-1"), StoreId(1));
    workers.know(name("coordinator-1"), StoreId(2));
    assert_eq!(workers.health().missing, [name("storage-1")]);
    workers.want(at(0), name("storage-1"));
    let number = to_start(&mut workers);
    assert!(!workers.settled());
    workers.ended(at(1), name("storage-1"), number, "damaged".to_owned());
    assert!(workers.settled() && !workers.health().healthy);
    workers.take_commands();
    workers.announce(at(2), &announcement("storage-1", 1, 1, Some(1))).unwrap();
    assert!(workers.health().healthy);
}

#[test]
fn stopping_ends_what_is_ours_and_starts_nothing() {
    let mut workers = workers();
    workers.want(at(0), name("sequencer-1"));
    let number = to_start(&mut workers);
    workers.announce(at(0), &announcement("director-1", 1, 1, None)).unwrap();
    workers.stop();
    workers.stop();
    assert_eq!(workers.take_commands(), [Command::End { name: name("sequencer-1"), number }]);
    assert!(!workers.all_ended());
    workers.ended(at(1), name("sequencer-1"), number, String::new());
    assert!(workers.all_ended());
    assert_eq!(workers.create(at(2), &create("log-1", 1)), Err(Refusal::Stopping));
    workers.tick(at(60_000));
    assert_eq!(workers.take_commands(), []);
}

#[test]
fn a_worker_that_something_else_starts_is_never_started_here() {
    let kinds = [ServiceKind::Sequencer, ServiceKind::Log];
    let mut workers = Workers::new("node-1".parse().unwrap(), kinds.into(), Some(CLUSTER));
    workers.announce(at(0), &announcement("storage-1", 5, 1, Some(3))).unwrap();
    // A director that knows it may ask for it.
    workers.create(at(1), &create("storage-1", 1)).unwrap();
    workers.tick(at(0) + SILENCE);
    assert_eq!(state(&workers, "storage-1"), WorkerState::Down);
    let again = workers.create(at(4000), &create("storage-1", 1));
    assert!(matches!(again, Err(Refusal::KindNotMade { .. })), "{again:?}");
    assert_eq!(workers.take_commands(), []);
    // Its container starts it again: every process there has the same id.
    workers.announce(at(5000), &announcement("storage-1", 6, 1, Some(3))).unwrap();
    assert_eq!(state(&workers, "storage-1"), WorkerState::Up);
}

#[test]
fn a_durable_worker_is_forgotten_only_by_its_store_and_once_it_has_ended_for_good() {
    let mut workers = workers();
    workers.create(at(0), &create("storage-1", 1)).unwrap();
    let number = to_start(&mut workers);
    workers.started(name("storage-1"), number, Some(process(10)));
    workers.announce(at(1), &announcement("storage-1", 5, 10, Some(7))).unwrap();
    let who = name("storage-1");
    let other = Refusal::NotThisStore { name: who, given: StoreId(8) };
    assert_eq!(workers.retire(who, StoreId(8)), Err(other.clone()));
    assert_eq!(workers.discard(who, StoreId(8)), Err(other));
    assert_eq!(workers.discard(who, StoreId(7)), Err(Refusal::Running { name: who }));

    workers.retire(who, StoreId(7)).unwrap();
    assert_eq!(workers.take_commands(), [Command::End { name: who, number }]);
    // Asked again, it is not ended twice; and while it runs it is not forgotten.
    workers.retire(who, StoreId(7)).unwrap();
    assert_eq!(workers.take_commands(), []);
    assert_eq!(workers.discard(who, StoreId(7)), Err(Refusal::Running { name: who }));
    workers.ended(at(2), who, number, "asked to".to_owned());
    assert_eq!(workers.take_commands(), []);
    assert_eq!(state(&workers, "storage-1"), WorkerState::Down);

    // The coordinators think otherwise after all.
    workers.want(at(3), who);
    let number = to_start(&mut workers);
    workers.started(who, number, Some(process(11)));
    assert_eq!(workers.discard(who, StoreId(7)), Err(Refusal::Running { name: who }));
    workers.retire(who, StoreId(7)).unwrap();
    assert_eq!(workers.take_commands().len(), 1);
    workers.ended(at(4), who, number, "asked to".to_owned());
    workers.discard(who, StoreId(7)).unwrap();
    assert!(workers.list().is_empty());
    assert!(matches!(workers.retire(who, StoreId(7)), Err(Refusal::Unknown { .. })));

    // What something else started, something else ends.
    workers.announce(at(5), &announcement("storage-2", 6, 12, Some(9))).unwrap();
    let refused = Refusal::Foreign { name: name("storage-2") };
    assert_eq!(workers.retire(name("storage-2"), StoreId(9)), Err(refused));
}
