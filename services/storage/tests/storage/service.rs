//! The whole service, over HTTP on loopback, on a simulated disk, with faked logs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plinth_api::commit_proxy::{LogPeer, Peer};
use plinth_api::log::{Generation, KEEP, KEPT, KeepRequest};
use plinth_api::storage::{
    ASSIGN, Assignment, CopySource, Joining, KeysRead, READ, READ_BATCH, READ_BATCH_KEYS,
    RangeRead, ReadAnswer, ReadBatch, ReadRequest, SHARD_CONFIG, STATUS, ShardConfig,
    ShardConfigQuery, Status, TagAssignment, WATCH, WatchRequest,
};
use plinth_api::{Endpoint, ErrorCode, Nothing, Target};
use plinth_runtime::{Runtime, Scope, ScopeGuard};
use plinth_service::{Exit, Host, Peers, Secrets, Sender, Transport};
use plinth_storage::{Config, Limits};
use plinth_store::{DiskDelays, SimulatedDisk};
use plinth_system_config::{Recorded, decode_stored, keys};
use plinth_types::{
    ConfigVersion, Epoch, Incarnation, Key, KeyRange, Mutation, Pid, SYSTEM_SHARD, Tag, Value,
    Version,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use crate::fixture::{Log, generation, options};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const USER: Tag = Tag(1);

pub(crate) struct Running {
    pub(crate) pid: Pid,
    pub(crate) peers: Peers,
    pub(crate) exit: JoinHandle<Option<Exit>>,
    _end: ScopeGuard,
}

pub(crate) fn new_disk() -> SimulatedDisk {
    let delays = DiskDelays { open: Duration::ZERO..=Duration::ZERO, ..DiskDelays::default() };
    SimulatedDisk::new("node-1", Runtime::real().random(), delays, None)
}

pub(crate) async fn start(disk: &SimulatedDisk) -> Running {
    start_with(disk, Limits::default()).await
}

pub(crate) async fn start_with(disk: &SimulatedDisk, limits: Limits) -> Running {
    start_as("storage-1@node-1", disk, limits).await
}

pub(crate) async fn start_as(name: &str, disk: &SimulatedDisk, limits: Limits) -> Running {
    start_in(Runtime::real(), name, disk, limits).await
}

pub(crate) async fn start_in(
    runtime: Runtime,
    name: &str,
    disk: &SimulatedDisk,
    limits: Limits,
) -> Running {
    let (scope, end) = Scope::new();
    let host = Host::bind(runtime, options(name)).await.unwrap();
    let pid = host.context().pid().clone();
    let limits = Limits { read_wait: Duration::from_millis(300), ..limits };
    let config = Config { directory: PathBuf::from("/data/storage-1"), foreman: None, limits };
    let exit = scope.spawn("storage", plinth_storage::serve(host, config, Arc::new(disk.clone())));
    let service = Some("director-1@node-1".parse().unwrap());
    let sender = Sender { service, secrets: Secrets::default() };
    let peers = Peers::new(Transport::new(Runtime::real(), scope.clone(), &sender));
    let running = Running { pid, peers, exit, _end: end };
    running.status_when(|_| true).await;
    running
}

pub(crate) fn assignment(generation: Generation, logs: &[&Log]) -> Assignment {
    let below = KeyRange::new(Key::default(), Key::from_static(SYSTEM_SHARD));
    let peer = |log: &&Log| LogPeer {
        peer: Peer { service: "log-1@node-1".parse().unwrap(), pid: log.pid.clone() },
        tags: vec![Tag::SYSTEM, USER],
    };
    Assignment {
        epoch: generation.epoch,
        director: Incarnation(generation.epoch.0),
        generation,
        tags: vec![
            TagAssignment {
                tag: Tag::SYSTEM,
                ranges: vec![KeyRange::system_shard()],
                joining: None,
            },
            TagAssignment { tag: USER, ranges: vec![below], joining: None },
        ],
        logs: logs.iter().map(peer).collect(),
        window_versions: 5_000_000,
    }
}

/// The same for a storage that joins both teams, with these sources.
pub(crate) fn joining(generation: Generation, logs: &[&Log], sources: &[CopySource]) -> Assignment {
    let mut assignment = assignment(generation, logs);
    for tag in &mut assignment.tags {
        tag.joining = Some(Joining { sources: sources.to_vec() });
    }
    assignment
}

pub(crate) fn set(key: impl Into<Key>, value: &str) -> Vec<Mutation> {
    vec![Mutation::Set { key: key.into(), value: value.into() }]
}

pub(crate) fn read(epoch: u64, version: Version, keys: &[&str]) -> ReadRequest {
    let keys = keys.iter().map(|key| Key::from(*key)).collect();
    ReadRequest { epoch: Epoch(epoch), version, newest: false, keys, ranges: Vec::new() }
}

/// The values as text, `-` for none.
pub(crate) fn values(answer: &ReadAnswer) -> Vec<String> {
    let text = |value: &Value| String::from_utf8(value.as_bytes().to_vec()).unwrap();
    answer.values.iter().map(|value| value.as_ref().map_or("-".to_owned(), text)).collect()
}

pub(crate) fn recorded(epoch: u64, config_version: u64) -> Recorded {
    let golden =
        include_bytes!("../../../../libs/system-config/tests/golden/recorded-level-1.json");
    let mut recorded: Recorded = decode_stored(golden).unwrap();
    recorded.config.epoch = Epoch(epoch);
    recorded.config.config_version = ConfigVersion(config_version);
    recorded
}

impl Running {
    pub(crate) async fn ask<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        endpoint: Endpoint<Req, Resp>,
        request: &Req,
    ) -> Result<Resp, ErrorCode> {
        let answer =
            self.peers.call(&Target::from(&self.pid), &endpoint, request, None, PATIENCE).await;
        answer.map_err(|error| error.code().unwrap_or_else(|| panic!("{error}")))
    }

    pub(crate) async fn status_when(&self, condition: impl Fn(&Status) -> bool) -> Status {
        let reached = async {
            loop {
                match self.ask(STATUS, &Nothing {}).await {
                    Ok(status) if condition(&status) => return status,
                    Ok(_) | Err(ErrorCode::NotReady) => {
                        tokio::time::sleep(Duration::from_millis(1)).await
                    }
                    Err(code) => panic!("{code:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap()
    }

    pub(crate) async fn shard_config(&self, version: Version) -> ShardConfig {
        let query = ShardConfigQuery { version: Some(version), wait_ms: 10_000 };
        self.ask(SHARD_CONFIG, &query).await.unwrap()
    }
}

#[tokio::test]
async fn an_epoch_and_the_next_after_a_loss_of_power() {
    let disk = new_disk();
    let first = generation(1, Version::ZERO);
    let log = Log::start("log-1@node-1", first).await;
    let storage = start(&disk).await;
    assert_eq!(
        storage.ask(READ, &read(1, Version(1), &["a"])).await.unwrap_err(),
        ErrorCode::NotReady
    );
    storage.ask(ASSIGN, &assignment(first, &[&log])).await.unwrap();

    let system = log.push(Tag::SYSTEM, set(keys::CONFIG, "config 1"));
    log.commit();
    let config = storage.shard_config(system).await;
    assert_eq!((config.version, config.epoch), (system, Epoch(1)));
    assert_eq!(config.config, Some("config 1".into()));

    let one = log.push(USER, set("a", "1"));
    let two = log.push(USER, set("a", "2"));
    log.commit();
    assert_eq!(values(&storage.ask(READ, &read(1, two, &["a", "b"])).await.unwrap()), ["2", "-"]);
    assert_eq!(values(&storage.ask(READ, &read(1, one, &["a"])).await.unwrap()), ["1"]);
    assert_eq!(values(&storage.ask(READ, &read(1, system, &["a"])).await.unwrap()), ["-"]);
    log.wait_for(|held| held.pops.iter().any(|pop| pop.tag == USER && pop.version == two)).await;
    assert_eq!(
        storage.ask(READ, &read(1, two.plus(1), &["a"])).await.unwrap_err(),
        ErrorCode::FutureVersion
    );
    assert_eq!(
        storage.ask(READ, &read(1, Version(7), &["a"])).await.unwrap_err(),
        ErrorCode::TransactionTooOld
    );
    assert_eq!(storage.ask(READ, &read(2, two, &["a"])).await.unwrap_err(), ErrorCode::NotReady);
    assert_eq!(storage.ask(READ, &read(0, two, &["a"])).await.unwrap_err(), ErrorCode::StaleEpoch);
    let foreign = RangeRead { range: KeyRange::all(), limit: 10, reverse: false };
    let foreign = ReadRequest { ranges: vec![foreign], ..read(1, two, &[]) };
    assert_eq!(storage.ask(READ, &foreign).await.unwrap_err(), ErrorCode::WrongShard);

    disk.power_loss(&*Runtime::real().random());
    drop(storage);
    let storage = start(&disk).await;
    let found = storage.shard_config(system).await;
    assert_eq!((found.config, found.epoch), (Some("config 1".into()), Epoch(1)));
    let stale = Assignment { epoch: Epoch(0), ..assignment(first, &[&log]) };
    assert_eq!(storage.ask(ASSIGN, &stale).await.unwrap_err(), ErrorCode::StaleEpoch);

    let second = generation(2, two);
    log.begin(second);
    storage.ask(ASSIGN, &assignment(second, &[&log])).await.unwrap();
    let three = log.push(USER, set("a", "3"));
    log.commit();
    assert_eq!(values(&storage.ask(READ, &read(2, three, &["a"])).await.unwrap()), ["3"]);
    let between = second.first_version.minus(1);
    assert_eq!(
        storage.ask(READ, &read(2, between, &["a"])).await.unwrap_err(),
        ErrorCode::TransactionTooOld
    );
    let durable = |status: &Status| status.tags.iter().all(|tag| tag.durable == three);
    let status = storage.status_when(durable).await;
    assert!(status.tags.iter().all(|tag| tag.durable_epoch == Epoch(2)));
}

#[tokio::test]
async fn each_read_of_a_batch_is_answered_as_if_it_were_alone() {
    let disk = new_disk();
    let first = generation(1, Version::ZERO);
    let log = Log::start("log-1@node-1", first).await;
    let storage = start(&disk).await;
    storage.ask(ASSIGN, &assignment(first, &[&log])).await.unwrap();
    let one = log.push(USER, set("a", "1"));
    let two = log.push(USER, set("a", "2"));
    log.commit();
    // It has arrived once a read of it is answered.
    storage.ask(READ, &read(1, two, &["a"])).await.unwrap();
    let part = |version, keys: &[&str]| {
        let keys = keys.iter().map(|key| Key::from(*key)).collect();
        KeysRead { version, newest: false, keys }
    };
    let reads = vec![
        part(two, &["a", "b"]),
        part(two.plus(1), &["a"]),
        part(one, &["a"]),
        part(Version(7), &["a"]),
        part(two, &["\u{10ffff}"]),
        KeysRead { newest: true, ..part(Version::ZERO, &["a"]) },
    ];
    let batch = ReadBatch { epoch: Epoch(1), reads };
    let answers = storage.ask(READ_BATCH, &batch).await.unwrap().reads;
    let told: Vec<_> = answers
        .iter()
        .map(|answer| match &answer.problem {
            Some(problem) => Err(problem.code),
            None => Ok(answer.values.iter().flatten().map(|v| v.as_bytes().to_vec()).collect()),
        })
        .collect();
    let value = |text: &str| Ok(vec![text.as_bytes().to_vec()]);
    let expected = [
        value("2"),
        Err(ErrorCode::FutureVersion),
        value("1"),
        Err(ErrorCode::TransactionTooOld),
        Ok(vec![]),
        value("2"),
    ];
    assert_eq!(told, expected);
    assert_eq!(answers[0].values.len(), 2, "one that has no value, too");
    let many = vec!["a"; READ_BATCH_KEYS];
    let full = ReadBatch { epoch: Epoch(1), reads: vec![part(two, &many)] };
    assert_eq!(storage.ask(READ_BATCH, &full).await.unwrap().reads[0].values.len(), many.len());
    let over = ReadBatch { epoch: Epoch(1), reads: vec![part(two, &many), part(two, &["a"])] };
    assert_eq!(storage.ask(READ_BATCH, &over).await.unwrap_err(), ErrorCode::LimitExceeded);
    let stale = ReadBatch { epoch: Epoch(0), reads: vec![part(two, &["a"])] };
    let answers = storage.ask(READ_BATCH, &stale).await.unwrap().reads;
    assert_eq!(answers[0].problem.as_ref().unwrap().code, ErrorCode::StaleEpoch);
}

#[tokio::test]
async fn what_a_recovery_drops_is_dropped_here() {
    let disk = new_disk();
    let first = generation(1, Version::ZERO);
    let log = Log::start("log-1@node-1", first).await;
    let storage = start(&disk).await;
    storage.ask(ASSIGN, &assignment(first, &[&log])).await.unwrap();
    let kept = log.push(USER, set("a", "kept"));
    log.commit();
    let void = log.push(USER, set("a", "void"));
    assert_eq!(values(&storage.ask(READ, &read(1, void, &["a"])).await.unwrap()), ["void"]);

    let second = generation(2, kept);
    log.begin(second);
    storage.ask(ASSIGN, &assignment(second, &[&log])).await.unwrap();
    let new = log.push(USER, set("b", "new"));
    log.commit();
    assert_eq!(
        values(&storage.ask(READ, &read(2, new, &["a", "b"])).await.unwrap()),
        ["kept", "new"]
    );
    let other = Assignment { director: Incarnation(9), ..assignment(second, &[&log]) };
    assert_eq!(storage.ask(ASSIGN, &other).await.unwrap_err(), ErrorCode::Superseded);
    assert_eq!(
        storage.ask(ASSIGN, &assignment(first, &[&log])).await.unwrap_err(),
        ErrorCode::StaleEpoch
    );
}

/// It can have lost what it once had: its disk was put back to an earlier time, or lied.
#[tokio::test]
async fn a_member_that_lacks_what_the_logs_have_dropped_says_so() {
    let disk = new_disk();
    let first = generation(1, Version::ZERO);
    let log = Log::start("log-1@node-1", first).await;
    log.push(USER, set("a", "lost"));
    log.commit();
    log.drop_all();
    let storage = start(&disk).await;
    storage.ask(ASSIGN, &assignment(first, &[&log])).await.unwrap();
    let status = storage.status_when(|status| status.lacks.contains(&USER)).await;
    assert_eq!(status.epoch, Epoch(1));
    let last = log.push(USER, set("b", "there"));
    log.commit();
    assert_eq!(
        storage.ask(READ, &read(1, last, &["a"])).await.unwrap_err(),
        ErrorCode::FutureVersion
    );
}

/// Memory is bounded: a storage whose disk takes nothing pulls no more, and goes on by itself.
#[tokio::test]
async fn a_full_disk_holds_the_pullers_until_it_has_room() {
    let disk = new_disk();
    let first = generation(1, Version::ZERO);
    let log = Log::start("log-1@node-1", first).await;
    let limits = Limits { window_bytes: 10_000, ..Limits::default() };
    let storage = start_with(&disk, limits).await;
    storage.ask(ASSIGN, &assignment(first, &[&log])).await.unwrap();
    disk.set_full(true);
    let large = log.push(USER, set("large", &"x".repeat(20_000)));
    log.commit();
    storage.status_when(|status| status.tags[1].known_committed == large).await;
    let next = log.push(USER, set("next", "value"));
    log.commit();
    let asked = read(1, next, &["next"]);
    assert_eq!(storage.ask(READ, &asked).await.unwrap_err(), ErrorCode::FutureVersion);
    disk.set_full(false);
    storage.status_when(|status| status.tags[1].durable == next).await;
    assert_eq!(values(&storage.ask(READ, &asked).await.unwrap()), ["value"]);
}

#[tokio::test]
async fn a_log_that_fails_is_left_for_the_next() {
    let disk = new_disk();
    let first = generation(1, Version::ZERO);
    let logs = [Log::start("log-1@node-1", first).await, Log::start("log-2@node-1", first).await];
    let storage = start(&disk).await;
    storage.ask(ASSIGN, &assignment(first, &[&logs[0], &logs[1]])).await.unwrap();
    for (broken, working) in [(0, 1), (1, 0)] {
        logs[working].held.send_modify(|held| held.broken = false);
        logs[broken].held.send_modify(|held| held.broken = true);
        for log in &logs {
            log.push(USER, set("a", &format!("{working}")));
            log.commit();
        }
        let version = logs[working].held.borrow().end;
        let answer = storage.ask(READ, &read(1, version, &["a"])).await.unwrap();
        assert_eq!(values(&answer), [format!("{working}")]);
    }
}

#[tokio::test]
async fn a_durable_state_above_the_recovery_version_ends_the_storage() {
    let disk = new_disk();
    let first = generation(1, Version::ZERO);
    let log = Log::start("log-1@node-1", first).await;
    let storage = start(&disk).await;
    storage.ask(ASSIGN, &assignment(first, &[&log])).await.unwrap();
    let version = log.push(USER, set("a", "1"));
    log.commit();
    storage.status_when(|status| status.tags.iter().all(|tag| tag.durable == version)).await;
    let wrong = assignment(generation(2, version.minus(1)), &[&log]);
    let answer =
        storage.peers.call(&Target::from(&storage.pid), &ASSIGN, &wrong, None, PATIENCE).await;
    assert!(answer.is_err());
    let exit = tokio::time::timeout(PATIENCE, storage.exit).await.unwrap().unwrap().unwrap();
    assert_eq!(exit.status, 1);
    assert!(exit.reason.contains("recovery version"), "{}", exit.reason);
}

#[tokio::test]
async fn a_kept_configuration_survives_and_is_never_replaced_by_an_older_one() {
    let disk = new_disk();
    let storage = start(&disk).await;
    assert_eq!(storage.ask(KEPT, &Nothing {}).await.unwrap().recorded, None);
    let request = |epoch, number| KeepRequest {
        epoch: Epoch(epoch),
        director: Incarnation(epoch),
        recorded: recorded(epoch, number),
    };
    storage.ask(KEEP, &request(3, 7)).await.unwrap();
    assert_eq!(storage.ask(KEEP, &request(3, 6)).await.unwrap_err(), ErrorCode::Superseded);
    assert_eq!(storage.ask(KEEP, &request(2, 9)).await.unwrap_err(), ErrorCode::StaleEpoch);
    storage.ask(KEEP, &request(3, 7)).await.unwrap();
    disk.power_loss(&*Runtime::real().random());
    drop(storage);
    let storage = start(&disk).await;
    assert_eq!(storage.ask(KEPT, &Nothing {}).await.unwrap().recorded, Some(recorded(3, 7)));
    assert_eq!(storage.ask(KEEP, &request(2, 9)).await.unwrap_err(), ErrorCode::StaleEpoch);
}

/// Nothing has come of the tags yet that could be made durable.
#[tokio::test]
async fn a_storage_knows_its_tags_from_the_first_kept_configuration_on() {
    let disk = new_disk();
    let first = generation(1, Version::ZERO);
    let log = Log::start("log-1@node-1", first).await;
    let storage = start(&disk).await;
    let tags = |status: &Status| status.tags.iter().map(|tag| tag.tag).collect::<Vec<_>>();
    assert_eq!(tags(&storage.status_when(|_| true).await), []);
    let assigned = assignment(first, &[&log]);
    storage.ask(ASSIGN, &assigned).await.unwrap();
    let (epoch, director) = (Epoch(1), assigned.director);
    let request = KeepRequest { epoch, director, recorded: recorded(1, 1) };
    storage.ask(KEEP, &request).await.unwrap();
    disk.power_loss(&*Runtime::real().random());
    drop(storage);
    let storage = start(&disk).await;
    let wanted: Vec<Tag> = assigned.tags.iter().map(|tag| tag.tag).collect();
    assert_eq!(tags(&storage.status_when(|_| true).await), wanted);

    // And it begins where they begin.
    let second = generation(2, Version::ZERO);
    log.begin(second);
    storage.ask(ASSIGN, &assignment(second, &[&log])).await.unwrap();
    let version = log.push(USER, set("a", "1"));
    log.commit();
    let answer = storage.ask(READ, &read(2, version, &["a"])).await.unwrap();
    assert_eq!(values(&answer), ["1"]);
}

#[tokio::test]
async fn a_kept_configuration_that_cannot_be_read_is_said_and_healed_by_the_next() {
    let disk = new_disk();
    let storage = start(&disk).await;
    let request = |epoch, number| KeepRequest {
        epoch: Epoch(epoch),
        director: Incarnation(epoch),
        recorded: recorded(epoch, number),
    };
    storage.ask(KEEP, &request(3, 7)).await.unwrap();
    disk.power_loss(&*Runtime::real().random());
    drop(storage);
    let store = PathBuf::from("/data/storage-1/store");
    assert!(disk.corrupt_row(&store, plinth_storage::records::META, b"config"));
    let storage = start(&disk).await;
    assert_eq!(storage.ask(KEPT, &Nothing {}).await.unwrap_err(), ErrorCode::Damaged);
    storage.ask(KEEP, &request(4, 8)).await.unwrap();
    assert_eq!(storage.ask(KEPT, &Nothing {}).await.unwrap().recorded, Some(recorded(4, 8)));
    disk.power_loss(&*Runtime::real().random());
    drop(storage);
    let storage = start(&disk).await;
    assert_eq!(storage.ask(KEPT, &Nothing {}).await.unwrap().recorded, Some(recorded(4, 8)));
}

#[tokio::test]
async fn a_watch_fires_for_another_value_once_that_is_committed() {
    let disk = new_disk();
    let first = generation(1, Version::ZERO);
    let log = Log::start("log-1@node-1", first).await;
    let storage = start(&disk).await;
    storage.ask(ASSIGN, &assignment(first, &[&log])).await.unwrap();
    let one = log.push(USER, set("a", "1"));
    log.commit();
    let watch = |seen: Option<&str>, from: Version, wait_ms: u64| WatchRequest {
        epoch: Epoch(1),
        key: "a".into(),
        seen: seen.map(Value::from),
        from,
        wait_ms,
    };
    let at_once = storage.ask(WATCH, &watch(None, one, 20_000)).await.unwrap();
    assert_eq!((at_once.changed, at_once.value), (true, Some("1".into())));
    let nothing = storage.ask(WATCH, &watch(Some("1"), one, 1)).await.unwrap();
    assert_eq!((nothing.changed, nothing.value), (false, None));

    // The same value again, and another key, are no change; what is not committed is none yet.
    let two = one.plus(20);
    let (waiting, early) = (watch(Some("1"), one, 20_000), watch(Some("1"), two, 20_000));
    let (waiting, early, ()) =
        tokio::join!(storage.ask(WATCH, &waiting), storage.ask(WATCH, &early), async {
            log.push(USER, set("a", "1"));
            log.push(USER, set("b", "1"));
            let version = log.push(USER, set("a", "2"));
            storage.ask(READ, &read(1, version, &["a"])).await.unwrap();
            let newest = ReadRequest { newest: true, ..read(1, Version::ZERO, &["a"]) };
            let answer = storage.ask(READ, &newest).await.unwrap();
            assert_eq!((values(&answer), answer.version), (vec!["1".to_owned()], one));
            log.commit();
        });
    for answer in [waiting.unwrap(), early.unwrap()] {
        assert_eq!((answer.changed, answer.value), (true, Some("2".into())));
    }

    // A new epoch ends a watch: whoever watches begins again.
    let version = log.held.borrow().end;
    let waiting = watch(Some("2"), version, 20_000);
    let second = generation(2, version);
    let (ended, ()) = tokio::join!(storage.ask(WATCH, &waiting), async {
        log.begin(second);
        storage.ask(ASSIGN, &assignment(second, &[&log])).await.unwrap();
    });
    assert_eq!(ended.unwrap_err(), ErrorCode::StaleEpoch);
}
