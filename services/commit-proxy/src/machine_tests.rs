use plinth_api::ErrorCode;
use plinth_api::commit_proxy::{LogPeer, Peer, Rate, ResolverPeer};
use plinth_system_config::ShardMap;
use plinth_types::{Key, KeyRange, Mutation, Pid, Tag, VERSION_GAP, Value};

use super::*;

const EPOCH: Epoch = Epoch(7);
const RV: Version = Version(300);
const FIRST: Version = Version(300 + VERSION_GAP);
const DIRECTOR: Incarnation = Incarnation(5);

fn peer(service: &str) -> Peer {
    let service: plinth_types::ServiceRef = service.parse().unwrap();
    let pid = Pid {
        node: service.node.clone(),
        os_pid: 1,
        incarnation: Incarnation(1),
        address: "node:1".to_owned(),
    };
    Peer { service, pid }
}

fn assignment(epoch: Epoch) -> Assignment {
    let tags = vec![Tag::SYSTEM, Tag(1)];
    Assignment {
        epoch,
        director: DIRECTOR,
        recovery_version: RV,
        first_version: FIRST,
        sequencer: peer("sequencer-1@a"),
        resolvers: vec![
            ResolverPeer {
                peer: peer("resolver-1@a"),
                range: KeyRange::new(Key::default(), "m".into()),
            },
            ResolverPeer {
                peer: peer("resolver-1@b"),
                range: KeyRange { from: "m".into(), to: None },
            },
        ],
        logs: vec![
            LogPeer { peer: peer("log-1@a"), tags: tags.clone() },
            LogPeer { peer: peer("log-1@b"), tags },
        ],
        shards: ShardMap::initial(),
        peer_timeout_ms: 1_000,
    }
}

fn closed() -> CommitProxy {
    let limits = Limits {
        batch_transactions: 2,
        batch_bytes: 100,
        batches: 2,
        waiting_transactions: 4,
        waiting_bytes: 1_000,
        waiting_reads: 2,
        rate_wait: Duration::from_secs(1),
    };
    let mut proxy = CommitProxy::new(limits, Incarnation(77));
    assert!(proxy.assign(assignment(EPOCH)).unwrap().is_empty());
    proxy
}

fn open() -> CommitProxy {
    let mut proxy = closed();
    proxy.open(&Opening { epoch: EPOCH, director: DIRECTOR }).unwrap();
    proxy
}

fn set(key: &str) -> Transaction {
    let key = Key::from(key);
    Transaction {
        read_version: None,
        reads: vec![],
        writes: vec![KeyRange::single(&key)],
        bytes: key.0.len(),
        mutations: vec![Mutation::Set { key, value: Value::default() }],
        stamps: vec![],
        system: false,
        begins: false,
    }
}

fn system() -> Transaction {
    Transaction { system: true, ..set("\u{7f}") }
}

/// A proxy with the rest of the pipeline played by the test.
struct Play {
    proxy: CommitProxy,
    commands: VecDeque<Command>,
    next: Version,
    answers: BTreeMap<Ticket, Result<Committed, Refusal>>,
    reads: BTreeMap<Ticket, Result<(Version, u32), Refusal>>,
    exits: Vec<String>,
}

impl Play {
    fn new(proxy: CommitProxy) -> Play {
        Play {
            proxy,
            commands: VecDeque::new(),
            next: FIRST,
            answers: BTreeMap::new(),
            reads: BTreeMap::new(),
            exits: vec![],
        }
    }

    fn take(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::AnswerCommit { ticket, result } => {
                    assert!(self.answers.insert(ticket, result).is_none(), "answered once");
                }
                Command::AnswerRead { ticket, result } => {
                    assert!(self.reads.insert(ticket, result).is_none(), "answered once");
                }
                Command::Exit { reason } => self.exits.push(reason),
                call => self.commands.push_back(call),
            }
        }
    }

    fn commit(&mut self, ticket: u64, transaction: Transaction) {
        let commands = self.proxy.commit(Ticket(ticket), EPOCH, transaction);
        self.take(commands);
    }

    fn read_version(&mut self, ticket: u64) {
        let commands = self.proxy.read_version(Ticket(ticket), EPOCH, 1);
        self.take(commands);
    }

    /// The next call; it stays unanswered.
    fn call(&mut self) -> Command {
        self.commands.pop_front().expect("a call")
    }

    /// Answers a call as healthy peers do, every verdict being commit. Entries pushed come out.
    fn serve(&mut self, call: Command) -> Option<Vec<Entry>> {
        let mut pushed = None;
        let commands = match call {
            Command::AskVersion { batch, request, .. } => {
                let prev = if request.request == 1 { RV } else { self.next.minus(10) };
                let version = self.next;
                self.next = self.next.plus(10);
                self.proxy.versioned(batch, CommitVersion { prev, version })
            }
            Command::Resolve { batch, requests, .. } => {
                let commit =
                    |request: &Resolution| vec![Verdict::Commit; request.transactions.len()];
                let verdicts: Vec<_> = requests.iter().map(commit).collect();
                self.proxy.resolved(batch, &verdicts)
            }
            Command::Push { batch, entries, .. } => {
                pushed = Some(entries);
                self.proxy.logged(batch)
            }
            Command::Report { batch, .. } => self.proxy.reported(batch),
            other => panic!("not expected: {other:?}"),
        };
        self.take(commands);
        pushed
    }

    /// Serves the next call and those that follow from it, up to a kind that `stop` names.
    fn serve_until(&mut self, stop: impl Fn(&Command) -> bool) -> Command {
        loop {
            let call = self.call();
            if stop(&call) {
                return call;
            }
            self.serve(call);
        }
    }

    fn serve_all(&mut self) -> Vec<Entry> {
        let mut first_log = vec![];
        while let Some(call) = self.commands.pop_front() {
            first_log.extend(self.serve(call).and_then(|entries| entries.into_iter().next()));
        }
        first_log
    }
}

fn is_push(command: &Command) -> bool {
    matches!(command, Command::Push { .. })
}

fn tickets(command: &Command) -> Vec<u64> {
    match command {
        Command::AskVersion { tickets, .. } | Command::AskReadVersion { tickets, .. } => {
            tickets.iter().map(|ticket| ticket.0).collect()
        }
        other => panic!("not expected: {other:?}"),
    }
}

fn fail(play: &mut Play, work: Work, peer: &str) {
    let failure = PeerFailure { peer: peer.parse().unwrap(), detail: "silent".to_owned() };
    let commands = play.proxy.failed(work, failure);
    play.take(commands);
}

fn code(play: &Play, ticket: u64) -> ErrorCode {
    play.answers[&Ticket(ticket)].as_ref().unwrap_err().code()
}

#[test]
fn a_lone_commit_goes_through_and_one_empty_batch_follows() {
    let mut play = Play::new(open());
    play.commit(1, set("k"));
    let entries = play.serve_all();
    assert_eq!(play.answers[&Ticket(1)], Ok(Committed { version: FIRST, index: 0 }));
    let [first, empty] = <[Entry; 2]>::try_from(entries).unwrap();
    assert_eq!((first.prev, first.version, first.known_committed), (RV, FIRST, RV));
    assert_eq!(first.messages.len(), 1);
    assert_eq!((empty.prev, empty.known_committed), (FIRST, FIRST));
    assert!(empty.messages.is_empty());
    assert_eq!(play.proxy.status().transactions, 1);
}

#[test]
fn a_commit_does_not_wait_for_an_empty_batch() {
    let mut play = Play::new(open());
    play.commit(1, set("k"));
    while play.answers.is_empty() {
        let call = play.call();
        play.serve(call);
    }
    let empty = play.call();
    assert_eq!(tickets(&empty), [] as [u64; 0]);
    play.commit(2, set("k"));
    let content = play.call();
    assert_eq!(tickets(&content), [2]);
}

#[test]
fn while_a_batch_finds_its_place_the_next_collects() {
    let mut play = Play::new(open());
    play.commit(1, set("a"));
    let first = play.call();
    for ticket in 2..=4 {
        play.commit(ticket, set("b"));
    }
    assert!(play.commands.is_empty());
    play.serve(first);
    let pushing = play.serve_until(is_push);
    // The first is with the logs: the second, full with two, goes on; the third waits its turn.
    let second = play.call();
    assert_eq!(tickets(&second), [2, 3]);
    assert!(play.commands.is_empty());
    play.serve(second);
    let second_pushing = play.serve_until(is_push);
    assert!(play.commands.is_empty(), "no more than two batches are under way");
    play.serve(second_pushing);
    assert!(play.answers.is_empty(), "nothing is answered before the sequencer knows");
    play.serve(pushing);
    play.serve_all();
    assert_eq!(play.answers.len(), 4);
    assert_eq!(play.answers[&Ticket(3)], Ok(Committed { version: FIRST.plus(10), index: 1 }));
}

#[test]
fn batches_are_bounded_by_bytes_and_a_large_transaction_goes_alone() {
    let mut play = Play::new(open());
    play.commit(1, set("a"));
    play.commit(2, set(&"b".repeat(90)));
    play.commit(3, set(&"c".repeat(300)));
    play.serve_until(is_push);
    assert_eq!(tickets(&play.call()), [2]);
}

#[test]
fn only_the_least_verdict_counts_and_losers_are_not_pushed() {
    let mut play = Play::new(open());
    play.commit(1, set("a"));
    let first = play.call();
    play.commit(2, set("b"));
    play.commit(3, set("x"));
    play.serve(first);
    play.serve_until(is_push);
    let second = play.serve_until(|command| matches!(command, Command::Resolve { .. }));
    let Command::Resolve { batch, requests, .. } = second else { panic!() };
    assert_eq!(requests[0].transactions[0].writes, [KeyRange::single(&"b".into())]);
    assert_eq!(requests[1].transactions[0].writes, []);
    let verdicts =
        [vec![Verdict::Commit, Verdict::Conflict], vec![Verdict::TooOld, Verdict::Commit]];
    let commands = play.proxy.resolved(batch, &verdicts);
    play.take(commands);
    let pushing = play.serve_until(is_push);
    let Command::Push { entries, .. } = &pushing else { panic!() };
    assert!(entries.iter().all(|entry| entry.messages.is_empty()));
    play.serve(pushing);
    play.serve_all();
    assert_eq!(play.answers[&Ticket(2)], Err(Refusal::TooOld));
    assert_eq!(play.answers[&Ticket(3)], Err(Refusal::Conflict));
}

#[test]
fn a_closed_proxy_passes_the_system_transaction_alone() {
    let mut play = Play::new(closed());
    play.commit(1, set("a"));
    assert_eq!(code(&play, 1), ErrorCode::NotReady);
    play.read_version(9);
    assert_eq!(play.reads[&Ticket(9)], Err(Refusal::Closed(EPOCH)));
    play.commit(2, system());
    play.serve_all();
    assert_eq!(play.answers[&Ticket(2)], Ok(Committed { version: FIRST, index: 0 }));
    let other = Opening { epoch: EPOCH, director: Incarnation(6) };
    assert!(play.proxy.open(&other).is_err());
    play.proxy.open(&Opening { epoch: EPOCH, director: DIRECTOR }).unwrap();
    play.commit(3, set("a"));
    let first = play.call();
    play.commit(4, system());
    play.commit(5, set("b"));
    play.serve(first);
    play.serve_until(is_push);
    assert_eq!(tickets(&play.call()), [4]);
}

#[test]
fn what_waits_is_bounded_and_says_so() {
    let mut play = Play::new(open());
    for ticket in 1..=6 {
        play.commit(ticket, set("a"));
    }
    assert_eq!(play.answers.len(), 1);
    assert_eq!(code(&play, 6), ErrorCode::Overloaded);
    play.commit(7, system());
    assert_eq!(play.answers.len(), 1);
}

#[test]
fn the_last_word_says_what_is_known_of_each_commit() {
    let mut play = Play::new(open());
    play.commit(1, set("a"));
    let Command::Push { batch, .. } = play.serve_until(is_push) else { panic!() };
    play.commit(2, set("b"));
    play.commit(3, set("c"));
    play.read_version(8);
    fail(&mut play, batch, "log-1@b");
    assert_eq!(code(&play, 1), ErrorCode::CommitUnknownResult);
    assert_eq!(code(&play, 2), ErrorCode::PeerUnavailable);
    assert_eq!(code(&play, 3), ErrorCode::PeerUnavailable);
    assert!(play.reads[&Ticket(8)].is_err());
    assert_eq!(play.exits, ["epoch 7: log-1@b failed: silent"]);
    play.commit(4, set("d"));
    assert_eq!(code(&play, 4), ErrorCode::PeerUnavailable);
    assert!(play.proxy.logged(batch).is_empty(), "too late");
}

#[test]
fn a_conflict_stays_a_conflict_when_the_epoch_ends() {
    let mut play = Play::new(open());
    play.commit(1, set("a"));
    let resolving = play.serve_until(|command| matches!(command, Command::Resolve { .. }));
    let Command::Resolve { batch, .. } = resolving else { panic!() };
    let commands = play.proxy.resolved(batch, &[vec![Verdict::Conflict], vec![Verdict::Commit]]);
    play.take(commands);
    fail(&mut play, batch, "log-1@a");
    assert_eq!(play.answers[&Ticket(1)], Err(Refusal::Conflict));
}

#[test]
fn nonsense_from_a_peer_ends_the_process() {
    let mut play = Play::new(open());
    play.commit(1, set("a"));
    let Command::AskVersion { batch, .. } = play.call() else { panic!() };
    let commands = play.proxy.versioned(batch, CommitVersion { prev: FIRST, version: FIRST });
    play.take(commands);
    assert!(play.exits[0].contains("sequencer-1@a"), "{:?}", play.exits);
    assert_eq!(code(&play, 1), ErrorCode::PeerUnavailable);
}

#[test]
fn a_round_serves_only_requests_that_came_before_it() {
    let mut play = Play::new(open());
    play.read_version(1);
    let first = play.call();
    assert_eq!(tickets(&first), [1]);
    play.read_version(2);
    play.read_version(3);
    play.read_version(4);
    assert_eq!(play.reads[&Ticket(4)], Err(Refusal::Full { waiting: 2 }));
    assert!(play.commands.is_empty());
    let Command::AskReadVersion { round, .. } = first else { panic!() };
    let commands = play.proxy.read(round, FIRST);
    play.take(commands);
    assert_eq!(play.reads[&Ticket(1)], Ok((FIRST, 1)));
    assert_eq!(tickets(&play.call()), [2, 3]);
    assert!(play.proxy.read(round, FIRST).is_empty(), "a round ends once");
}

#[test]
fn a_new_epoch_gives_up_what_was_under_way() {
    let mut play = Play::new(open());
    play.commit(1, set("a"));
    let pushing = play.serve_until(is_push);
    let Command::Push { batch, .. } = pushing else { panic!() };
    let next = Assignment {
        recovery_version: FIRST,
        first_version: FIRST.plus(VERSION_GAP),
        ..assignment(EPOCH.next())
    };
    let commands = play.proxy.assign(next.clone()).unwrap();
    play.take(commands);
    assert_eq!(code(&play, 1), ErrorCode::CommitUnknownResult);
    assert!(play.proxy.logged(batch).is_empty());
    fail(&mut play, batch, "log-1@a");
    assert!(play.exits.is_empty(), "an old epoch's failure is nobody's");
    assert!(!play.proxy.status().open);
    play.commit(2, set("a"));
    assert_eq!(code(&play, 2), ErrorCode::StaleEpoch);
    assert!(play.proxy.assign(next).unwrap().is_empty());
    assert!(play.proxy.assign(assignment(EPOCH)).is_err());
}

#[test]
fn an_assignment_must_be_possible() {
    let mut proxy = CommitProxy::new(Limits::default(), Incarnation(1));
    let base = assignment(EPOCH);
    for bad in [
        Assignment { first_version: RV, ..base.clone() },
        Assignment { logs: vec![], ..base.clone() },
        Assignment { resolvers: vec![], ..base.clone() },
        Assignment { shards: ShardMap(vec![]), ..base.clone() },
        Assignment { shards: ShardMap(vec![(Key::default(), Tag(4))]), ..base.clone() },
    ] {
        assert!(matches!(proxy.assign(bad), Err(Refusal::Assignment { .. })));
        assert_eq!(proxy.status().epoch, Epoch::ZERO);
    }
    assert!(proxy.assign(base).is_ok());
}

#[test]
fn versionstamps_are_the_places_that_are_answered() {
    use plinth_api::commit_proxy::{StampPart, StampPlace};
    let stamped = |key: &str| {
        let place = StampPlace { mutation: 0, part: StampPart::Key, offset: 1 };
        Transaction { writes: vec![], stamps: vec![place], ..set(key) }
    };
    let mut play = Play::new(open());
    play.commit(1, set("a"));
    let first = play.call();
    play.commit(2, stamped("b0123456789"));
    play.commit(3, stamped("c0123456789"));
    play.serve(first);
    play.serve_until(is_push);
    let resolve = play.serve_until(|command| matches!(command, Command::Resolve { .. }));
    let Command::Resolve { requests, .. } = &resolve else { panic!() };
    let writes: Vec<KeyRange> =
        requests[0].transactions.iter().flat_map(|footprint| footprint.writes.clone()).collect();
    play.serve(resolve);
    let push = play.serve_until(is_push);
    let Command::Push { entries, .. } = &push else { panic!() };
    let pushed: Vec<Key> =
        entries[0].messages[0].mutations.iter().map(|mutation| mutation.range().from).collect();
    play.serve(push);
    play.serve_all();
    let expected = [(2, b"b"), (3, b"c")].map(|(ticket, prefix)| {
        let place = play.answers[&Ticket(ticket)].clone().unwrap().versionstamp();
        Key::from([&prefix[..], &place.to_bytes()].concat())
    });
    assert_eq!(pushed, expected);
    assert_eq!(writes, expected.each_ref().map(KeyRange::single));
}

fn limited(per_second: u64) -> Play {
    let mut play = Play::new(open());
    let rate = Rate { epoch: EPOCH, director: DIRECTOR, per_second: Some(per_second) };
    let (begun, commands) = play.proxy.set_rate(&rate).unwrap();
    assert_eq!((begun, commands.len()), (0, 0));
    play
}

impl Play {
    fn at(&mut self, ms: u64) {
        self.proxy.set_time(Duration::from_millis(ms));
        let commands = self.proxy.tick();
        self.take(commands);
    }
}

fn begins(key: &str) -> Transaction {
    Transaction { begins: true, ..set(key) }
}

#[test]
fn transactions_begin_at_the_rate_and_whoever_has_begun_goes_on() {
    let mut play = limited(10);
    play.commit(1, begins("a"));
    assert!(play.commands.is_empty(), "nothing may begin yet");
    assert_eq!(play.proxy.next_tick(), Some(Duration::from_millis(100)));
    // What has a read version, and the system's, do not wait.
    play.commit(2, set("b"));
    assert_eq!(tickets(&play.call()), [2]);
    play.at(100);
    play.commit(3, begins("c"));
    assert_eq!(play.proxy.status().begun, 1);
    assert_eq!(play.proxy.status().per_second, Some(10));
    let rate = Rate { epoch: EPOCH, director: DIRECTOR, per_second: None };
    let (begun, commands) = play.proxy.set_rate(&rate).unwrap();
    play.take(commands);
    assert_eq!((begun, play.proxy.status().begun, play.proxy.next_tick()), (1, 2, None));
    assert!(play.proxy.set_rate(&Rate { director: Incarnation(6), ..rate }).is_err());
}

#[test]
fn a_round_grants_what_the_rate_lets_begin_and_both_kinds_have_turns() {
    let mut play = limited(100);
    let commands = play.proxy.read_version(Ticket(1), EPOCH, 50);
    play.take(commands);
    assert!(play.commands.is_empty());
    play.at(30);
    let Command::AskReadVersion { round, .. } = play.call() else { panic!() };
    let commands = play.proxy.read(round, FIRST);
    play.take(commands);
    assert_eq!(play.reads[&Ticket(1)], Ok((FIRST, 3)), "three of fifty");
    // One at a time, commits and reads take turns.
    for ticket in 10..14 {
        play.commit(ticket, begins("k"));
    }
    let (mut reads, mut now) = (0, 30);
    for ticket in 20..26 {
        let commands = play.proxy.read_version(Ticket(ticket), EPOCH, 1);
        play.take(commands);
        now += 10;
        play.at(now);
        let rounds: Vec<Work> = play
            .commands
            .iter()
            .filter_map(|command| match command {
                Command::AskReadVersion { round, .. } => Some(*round),
                _ => None,
            })
            .collect();
        play.commands.retain(|command| !matches!(command, Command::AskReadVersion { .. }));
        for round in rounds {
            reads += 1;
            let commands = play.proxy.read(round, FIRST);
            play.take(commands);
        }
    }
    assert_eq!((reads, play.proxy.status().begun), (3, 3 + 6));
}

#[test]
fn who_would_wait_too_long_is_told_to_come_again() {
    let mut play = limited(1);
    play.commit(1, begins("a"));
    play.commit(2, begins("b"));
    play.read_version(3);
    play.at(999);
    assert!(play.answers.is_empty() && play.reads.is_empty());
    play.at(1_000);
    assert_eq!(play.proxy.status().begun, 1);
    assert_eq!(code(&play, 2), ErrorCode::Overloaded);
    assert_eq!(play.reads[&Ticket(3)], Err(Refusal::Throttled { per_second: 1 }));
    play.serve_all();
    assert_eq!(play.answers[&Ticket(1)], Ok(Committed { version: FIRST, index: 0 }));
    // A new epoch begins without a limit.
    let commands = play.proxy.assign(assignment(Epoch(8))).unwrap();
    play.take(commands);
    assert_eq!(play.proxy.status().per_second, None);
}
