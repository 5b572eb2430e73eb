//! The whole service, over HTTP on loopback, on a simulated disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plinth_api::log::{
    ASSIGN, Assignment, CONFIRM, ConfirmQuery, CopySource, KEEP, KEPT, KeepRequest, LOCK, POP,
    PULL, PUSH, PopRequest, STATUS,
};
use plinth_api::{Endpoint, ErrorCode, Nothing, Target};
use plinth_log::{Config, Limits};
use plinth_runtime::{Runtime, Scope, ScopeGuard};
use plinth_service::{Exit, Host, HostOptions, Manifest, Peers, Secrets, Sender, Transport};
use plinth_store::{Disk, DiskDelays, SimulatedDisk};
use plinth_types::{ClusterId, Epoch, Pid, Tag, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use crate::fixture::{
    MEMBERS, USER, assignment, director, entry, lock_request, pull_query, recorded, versions,
};

const PATIENCE: Duration = Duration::from_secs(10);

struct Running {
    pid: Pid,
    peers: Peers,
    exit: JoinHandle<Option<Exit>>,
    _end: ScopeGuard,
}

fn directory() -> PathBuf {
    PathBuf::from("/data/log-1")
}

fn new_disk() -> SimulatedDisk {
    let delays = DiskDelays { open: Duration::ZERO..=Duration::ZERO, ..DiskDelays::default() };
    SimulatedDisk::new("node-1", Runtime::real().random(), delays, None)
}

async fn start(disk: &SimulatedDisk) -> Running {
    start_with(disk, Limits::default()).await
}

async fn start_with(disk: &SimulatedDisk, limits: Limits) -> Running {
    let (scope, end) = Scope::new();
    let options = HostOptions {
        service: "log-1@node-1".parse().unwrap(),
        bind: "127.0.0.1:0".to_owned(),
        advertise: None,
        cluster: Some(ClusterId(0xc1)),
        secrets: Secrets::default(),
    };
    let host = Host::bind(Runtime::real(), options).await.unwrap();
    let pid = host.context().pid().clone();
    let config = Config { directory: directory(), foreman: None, limits };
    let exit = scope.spawn("log", plinth_log::serve(host, config, Arc::new(disk.clone())));
    let sender =
        Sender { service: Some("director-1@node-1".parse().unwrap()), secrets: Secrets::default() };
    let peers = Peers::new(Transport::new(Runtime::real(), scope.clone(), &sender));
    let running = Running { pid, peers, exit, _end: end };
    running.wait_until_open().await;
    running
}

impl Running {
    async fn ask<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        endpoint: Endpoint<Req, Resp>,
        request: &Req,
    ) -> Result<Resp, ErrorCode> {
        let answer =
            self.peers.call(&Target::from(&self.pid), &endpoint, request, None, PATIENCE).await;
        answer.map_err(|error| error.code().unwrap_or_else(|| panic!("{error}")))
    }

    async fn wait_until_open(&self) {
        let opened = async {
            while self.ask(STATUS, &Nothing {}).await.err() == Some(ErrorCode::NotReady) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, opened).await.unwrap();
    }

    async fn append(&self, epoch: u64, prev: Version, tags: &[Tag]) -> Version {
        let status = self.ask(STATUS, &Nothing {}).await.unwrap();
        let version = prev.plus(10).max(status.generations.last().unwrap().first_version);
        let entry = entry(epoch, prev, version, status.end, tags);
        assert_eq!(self.ask(PUSH, &entry).await.unwrap().durable, version);
        version
    }

    async fn recover(&self, epoch: u64, assignment: &Assignment) {
        self.ask(LOCK, &lock_request(epoch)).await.unwrap();
        self.ask(ASSIGN, assignment).await.unwrap();
    }
}

#[tokio::test]
async fn an_epoch_over_http_and_the_next_after_a_loss_of_power() {
    let disk = new_disk();
    let log = start(&disk).await;
    log.recover(1, &assignment(1, Version::ZERO)).await;
    let first = log.append(1, Version::ZERO, &[Tag::SYSTEM]).await;
    let keep = KeepRequest { epoch: Epoch(1), director: director(1), recorded: recorded(1, 1) };
    log.ask(KEEP, &keep).await.unwrap();
    log.ask(CONFIRM, &ConfirmQuery { epoch: Epoch(1) }).await.unwrap();
    let second = log.append(1, first, &[USER]).await;
    for store in MEMBERS {
        let pop = PopRequest { epoch: Epoch(1), tag: Tag::SYSTEM, store, version: first };
        log.ask(POP, &pop).await.unwrap();
    }
    disk.power_loss(&*Runtime::real().random());
    drop(log);

    let log = start(&disk).await;
    assert_eq!(log.ask(KEPT, &Nothing {}).await.unwrap().recorded, Some(recorded(1, 1)));
    let late = entry(1, second, second.plus(10), second, &[USER]);
    assert_eq!(log.ask(PUSH, &late).await.unwrap_err(), ErrorCode::NotReady);
    let answer = log.ask(LOCK, &lock_request(2)).await.unwrap();
    assert_eq!((answer.end, answer.generation.unwrap().epoch), (second, Epoch(1)));
    assert_eq!(answer.store, Manifest::read(&disk, &directory()).unwrap().unwrap().store);
    assert_eq!(log.ask(PUSH, &late).await.unwrap_err(), ErrorCode::StaleEpoch);
    assert_eq!(log.ask(LOCK, &lock_request(1)).await.unwrap_err(), ErrorCode::StaleEpoch);
    log.ask(ASSIGN, &assignment(2, second)).await.unwrap();
    let third = log.append(2, second, &[USER]).await;
    let pulled = log.ask(PULL, &pull_query(USER, 2, Version::ZERO)).await.unwrap();
    assert_eq!(versions(&pulled), [second, third]);
}

#[tokio::test]
async fn a_pull_waits_for_the_next_entry() {
    let disk = new_disk();
    let log = start(&disk).await;
    log.recover(1, &assignment(1, Version::ZERO)).await;
    let first = log.append(1, Version::ZERO, &[USER]).await;
    let mut query = pull_query(USER, 1, first);
    query.wait_ms = 30_000;
    let pull = log.ask(PULL, &query);
    let push = async {
        tokio::task::yield_now().await;
        log.append(1, first, &[USER]).await
    };
    let (pulled, second) = tokio::join!(pull, push);
    assert_eq!(versions(&pulled.unwrap()), [second]);
    query = pull_query(USER, 1, second);
    assert_eq!(
        log.ask(PULL, &query).await.unwrap().end,
        second,
        "one that does not wait is answered at once"
    );
}

/// Pushes that arrive in another order than their chain's are all answered.
#[tokio::test]
async fn pushes_out_of_order_share_their_syncs() {
    let disk = new_disk();
    let log = start(&disk).await;
    log.recover(1, &assignment(1, Version::ZERO)).await;
    let first = log.append(1, Version::ZERO, &[USER]).await;
    let before = disk.counts().syncs;
    let chain: Vec<_> = (0..40_u64)
        .map(|number| entry(1, first.plus(number), first.plus(number + 1), first, &[USER]))
        .rev()
        .collect();
    let answers = futures::future::join_all(chain.iter().map(|entry| log.ask(PUSH, entry))).await;
    for (entry, answer) in chain.iter().zip(answers) {
        assert!(answer.unwrap().durable >= entry.version);
    }
    let syncs = disk.counts().syncs - before;
    assert!(syncs < 20, "{syncs} syncs for 40 pushes");
}

#[tokio::test]
async fn a_push_that_waits_is_refused_when_a_lock_comes() {
    let disk = new_disk();
    let log = start(&disk).await;
    log.recover(1, &assignment(1, Version::ZERO)).await;
    let first = log.append(1, Version::ZERO, &[USER]).await;
    let orphan = entry(1, first.plus(10), first.plus(20), first, &[USER]);
    let push = log.ask(PUSH, &orphan);
    let lock = async {
        tokio::task::yield_now().await;
        log.ask(LOCK, &lock_request(2)).await
    };
    let (pushed, locked) = tokio::join!(push, lock);
    assert_eq!(pushed.unwrap_err(), ErrorCode::StaleEpoch);
    assert_eq!(locked.unwrap().end, first);
}

#[tokio::test]
async fn a_new_log_copies_over_http() {
    let (old_disk, new_disk) = (new_disk(), new_disk());
    let old = start(&old_disk).await;
    old.recover(1, &assignment(1, Version::ZERO)).await;
    let mut end = Version::ZERO;
    for number in 0..20 {
        end = old.append(1, end, if number % 2 == 0 { &[USER] } else { &[Tag::SYSTEM] }).await;
    }
    old.ask(LOCK, &lock_request(2)).await.unwrap();
    let new = start(&new_disk).await;
    let copy = vec![CopySource { pid: old.pid.clone(), tags: vec![Tag::SYSTEM, USER] }];
    let copying = Assignment { copy, ..assignment(2, end) };
    // Asked twice, as a director does that had no answer: one copy serves both.
    let (first, second) = tokio::join!(new.ask(ASSIGN, &copying), new.ask(ASSIGN, &copying));
    first.unwrap();
    second.unwrap();
    for tag in [USER, Tag::SYSTEM] {
        let query = pull_query(tag, 2, Version::ZERO);
        let (had, has) =
            (old.ask(PULL, &query).await.unwrap(), new.ask(PULL, &query).await.unwrap());
        assert_eq!((had.entries, had.end), (has.entries, has.end));
    }
}

#[tokio::test]
async fn a_failed_sync_ends_the_process_and_nothing_is_acknowledged() {
    let disk = new_disk();
    let log = start(&disk).await;
    log.recover(1, &assignment(1, Version::ZERO)).await;
    let first = log.append(1, Version::ZERO, &[USER]).await;
    assert!(disk.fail_next_sync(&directory().join("store")));
    let next = entry(1, first, first.plus(10), first, &[USER]);
    let limit = PATIENCE;
    let push = log.peers.call(&Target::from(&log.pid), &PUSH, &next, None, limit).await;
    assert!(push.is_err());
    let exit = tokio::time::timeout(PATIENCE, log.exit).await.unwrap().unwrap().unwrap();
    assert_eq!(exit.status, 1);
    assert!(exit.reason.contains("the disk failed"), "{}", exit.reason);
}

#[tokio::test]
async fn a_full_disk_is_said_and_clears_by_itself() {
    let disk = new_disk();
    let log = start(&disk).await;
    log.recover(1, &assignment(1, Version::ZERO)).await;
    let first = log.append(1, Version::ZERO, &[USER]).await;
    disk.set_full(true);
    let next = entry(1, first, first.plus(10), first, &[USER]);
    let push = log.ask(PUSH, &next);
    let clear = async {
        let keep = KeepRequest { epoch: Epoch(1), director: director(1), recorded: recorded(1, 1) };
        // What was taken before the log noticed waits with the push.
        let limit = Duration::from_millis(100);
        let target = Target::from(&log.pid);
        let said = async {
            while let answer = log.peers.call(&target, &KEEP, &keep, None, limit).await
                && answer.err().and_then(|error| error.code()) != Some(ErrorCode::DiskFull)
            {
            }
        };
        tokio::time::timeout(PATIENCE, said).await.unwrap();
        disk.set_full(false);
    };
    let (pushed, ()) = tokio::join!(push, clear);
    assert_eq!(pushed.unwrap().durable, next.version);
}

#[tokio::test]
async fn a_damaged_log_takes_part_in_nothing_and_still_shows_its_configuration() {
    let disk = new_disk();
    let log = start(&disk).await;
    log.recover(1, &assignment(1, Version::ZERO)).await;
    let keep = KeepRequest { epoch: Epoch(1), director: director(1), recorded: recorded(1, 1) };
    log.ask(KEEP, &keep).await.unwrap();
    let first = log.append(1, Version::ZERO, &[USER]).await;
    log.append(1, first, &[USER]).await;
    disk.process_crash();
    drop(log);
    let store: &Path = &directory().join("store");
    assert!(disk.corrupt_row(store, plinth_log::records::ENTRIES, &first.0.to_be_bytes()));
    let log = start(&disk).await;
    assert_eq!(log.ask(LOCK, &lock_request(2)).await.unwrap_err(), ErrorCode::Damaged);
    assert_eq!(log.ask(KEPT, &Nothing {}).await.unwrap().recorded, Some(recorded(1, 1)));
}

#[tokio::test]
async fn a_log_that_cannot_read_back_what_it_wrote_ends_and_counts_as_missing_then() {
    let disk = new_disk();
    // Whatever is committed is read from the disk.
    let log = start_with(&disk, Limits { memory_bytes: 0, ..Limits::default() }).await;
    log.recover(1, &assignment(1, Version::ZERO)).await;
    let first = log.append(1, Version::ZERO, &[USER]).await;
    let second = log.append(1, first, &[USER]).await;
    log.append(1, second, &[USER]).await;
    let store: &Path = &directory().join("store");
    assert!(disk.corrupt_row(store, plinth_log::records::ENTRIES, &first.0.to_be_bytes()));
    // It has all of it in its books, and is locked as if it were whole.
    log.ask(LOCK, &lock_request(2)).await.unwrap();
    let pulled = log.ask(PULL, &pull_query(USER, 1, Version::ZERO)).await;
    assert!(pulled.is_err());
    let exit = tokio::time::timeout(PATIENCE, log.exit).await.unwrap().unwrap().unwrap();
    assert!(exit.reason.contains("can't be read back"), "{}", exit.reason);
    disk.process_crash();
    let log = start(&disk).await;
    assert_eq!(log.ask(LOCK, &lock_request(3)).await.unwrap_err(), ErrorCode::Damaged);
}

#[tokio::test]
async fn a_log_whose_configuration_cannot_be_read_is_locked_and_says_so() {
    let disk = new_disk();
    let log = start(&disk).await;
    log.recover(1, &assignment(1, Version::ZERO)).await;
    let keep = |epoch| KeepRequest {
        epoch: Epoch(epoch),
        director: director(epoch),
        recorded: recorded(epoch, epoch),
    };
    log.ask(KEEP, &keep(1)).await.unwrap();
    let end = log.append(1, Version::ZERO, &[USER]).await;
    disk.process_crash();
    drop(log);
    let store: &Path = &directory().join("store");
    assert!(disk.corrupt_row(store, plinth_log::records::META, b"config"));
    let log = start(&disk).await;
    assert_eq!(log.ask(KEPT, &Nothing {}).await.unwrap_err(), ErrorCode::Damaged);
    let answer = log.ask(LOCK, &lock_request(2)).await.unwrap();
    assert_eq!((answer.end, answer.config, answer.config_damaged), (end, None, true));
    assert_eq!(answer.generation.unwrap().epoch, Epoch(1));
    log.ask(KEEP, &keep(2)).await.unwrap();
    assert_eq!(log.ask(KEPT, &Nothing {}).await.unwrap().recorded, Some(recorded(2, 2)));
    let answer = log.ask(LOCK, &lock_request(2)).await.unwrap();
    assert!(!answer.config_damaged);
}

#[tokio::test]
async fn without_a_cluster_no_directory_is_made() {
    let disk = new_disk();
    let options = HostOptions {
        service: "log-1@node-1".parse().unwrap(),
        bind: "127.0.0.1:0".to_owned(),
        advertise: None,
        cluster: None,
        secrets: Secrets::default(),
    };
    let host = Host::bind(Runtime::real(), options).await.unwrap();
    let config = Config { directory: directory(), foreman: None, limits: Limits::default() };
    let exit = plinth_log::serve(host, config, Arc::new(disk.clone())).await;
    assert_eq!(exit.status, 2, "{}", exit.reason);
    assert_eq!(disk.list(Path::new("/data")).unwrap(), Vec::<String>::new());
}
