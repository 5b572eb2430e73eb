//! The commit proxy's state: what waits, which batches and read rounds are under way, and what is
//! known to be committed. Events come in, commands go out; the driver carries them out.

mod admission;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use plinth_api::commit_proxy::{Assignment, Committed, Opening, Status};
use plinth_api::log::Entry;
use plinth_api::resolver::{Resolution, Verdict};
use plinth_api::sequencer::{CommitVersion, CommitVersionRequest, CommittedRequest};
use plinth_api::{Taken, Tenure, TenureError};
use plinth_types::{Epoch, Incarnation, Version, Versionstamp};

use self::admission::{Granted, WaitingRead};
use crate::Limits;
use crate::command::{Command, PeerFailure, Ticket, Work};
use crate::refusal::Refusal;
use crate::throttle::Throttle;
use crate::transaction::{ByTag, Transaction};

#[derive(Clone, Debug)]
enum Stage {
    Versioning,
    Resolving(CommitVersion),
    /// From here on, its fate is the logs'. One verdict a transaction.
    Pushing(CommitVersion, Vec<Verdict>),
    Reporting(CommitVersion, Vec<Verdict>),
}

#[derive(Clone, Debug)]
struct Batch {
    transactions: Vec<(Ticket, Transaction)>,
    stage: Stage,
}

/// What belongs to the epoch served.
#[derive(Clone, Debug)]
struct Reign {
    members: Arc<Assignment>,
    open: bool,
    /// The number of the last request to the sequencer.
    requests: u64,
    waiting: VecDeque<(Ticket, Transaction)>,
    waiting_bytes: usize,
    batches: BTreeMap<Work, Batch>,
    /// Every log has everything up to here.
    known_committed: Version,
    /// What the newest push carried of it.
    pushed_known_committed: Version,
    /// The newest committed version of a batch that changes something.
    newest_change: Version,
    transactions: u64,
    waiting_reads: VecDeque<WaitingRead>,
    round: Option<(Work, Vec<Granted>)>,
    throttle: Throttle,
    /// Commits that the rate does not let begin yet, and since when they wait.
    held: VecDeque<(Ticket, Transaction, Duration)>,
    begun: u64,
    /// Whose turn it is, where only one may begin: that of a request for a read version.
    reads_next: bool,
}

/// The state.
#[derive(Clone, Debug)]
pub struct CommitProxy {
    limits: Limits,
    incarnation: Incarnation,
    tenure: Tenure,
    reign: Option<Reign>,
    works: u64,
    /// The time, since some moment: it never goes back.
    now: Duration,
    /// Why the process ends.
    ended: Option<String>,
}

impl CommitProxy {
    /// Serves no epoch yet.
    #[must_use]
    pub fn new(limits: Limits, incarnation: Incarnation) -> CommitProxy {
        CommitProxy {
            limits,
            incarnation,
            tenure: Tenure::default(),
            reign: None,
            works: 0,
            now: Duration::ZERO,
            ended: None,
        }
    }

    /// What time it is, for all that follows: the time since some moment, never less than before.
    pub fn set_time(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// Takes up an epoch, closed; what was under way in the one before is given up. A director may
    /// repeat its assignment; that changes nothing.
    ///
    /// # Errors
    /// The epoch is not above the one served, or the assignment is not possible.
    pub fn assign(&mut self, assignment: Assignment) -> Result<Vec<Command>, Refusal> {
        let mut tenure = self.tenure;
        if tenure.take(assignment.epoch, assignment.director)? == Taken::Again {
            return Ok(vec![]);
        }
        check_assignment(&assignment)?;
        self.tenure = tenure;
        let mut commands = Vec::new();
        if let Some(ended) = self.reign.take() {
            let reason = format!("epoch {} has begun", assignment.epoch);
            ended.give_up(&reason, &mut commands);
        }
        let recovery_version = assignment.recovery_version;
        self.reign = Some(Reign {
            members: Arc::new(assignment),
            open: false,
            requests: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            batches: BTreeMap::new(),
            known_committed: recovery_version,
            pushed_known_committed: recovery_version,
            newest_change: recovery_version,
            transactions: 0,
            waiting_reads: VecDeque::new(),
            round: None,
            throttle: Throttle::default(),
            held: VecDeque::new(),
            begun: 0,
            reads_next: true,
        });
        Ok(commands)
    }

    /// Opens to clients.
    ///
    /// # Errors
    /// The order is of another epoch, or another director's.
    pub fn open(&mut self, opening: &Opening) -> Result<(), Refusal> {
        self.tenure.holds(opening.epoch, opening.director)?;
        self.reign_of(opening.epoch)?.open = true;
        Ok(())
    }

    /// Takes a transaction.
    pub fn commit(
        &mut self,
        ticket: Ticket,
        epoch: Epoch,
        transaction: Transaction,
    ) -> Vec<Command> {
        if let Err(refusal) = self.accept(ticket, epoch, transaction) {
            return vec![Command::AnswerCommit { ticket, result: Err(refusal) }];
        }
        let mut commands = Vec::new();
        self.start_batches(&mut commands);
        commands
    }

    fn accept(
        &mut self,
        ticket: Ticket,
        epoch: Epoch,
        transaction: Transaction,
    ) -> Result<(), Refusal> {
        let Limits { waiting_transactions, waiting_bytes, .. } = self.limits;
        let now = self.now;
        let reign = self.reign_of(epoch)?;
        if !reign.open && !transaction.system {
            return Err(Refusal::Closed(epoch));
        }
        let bytes = reign.waiting_bytes + transaction.bytes;
        // System traffic is exempt from backpressure.
        let waiting = reign.waiting.len() + reign.held.len();
        let full = waiting >= waiting_transactions || bytes > waiting_bytes;
        if full && !transaction.system {
            return Err(Refusal::Full { waiting });
        }
        reign.waiting_bytes = bytes;
        if transaction.begins {
            reign.held.push_back((ticket, transaction, now));
            reign.admit(now);
        } else {
            reign.waiting.push_back((ticket, transaction));
        }
        Ok(())
    }

    /// Takes a request for a read version, for `count` transactions. It is served by a round that
    /// begins after it came.
    pub fn read_version(&mut self, ticket: Ticket, epoch: Epoch, count: u32) -> Vec<Command> {
        let (most, since) = (self.limits.waiting_reads, self.now);
        let accepted = self.reign_of(epoch).and_then(|reign| {
            if !reign.open {
                return Err(Refusal::Closed(epoch));
            }
            if reign.waiting_reads.len() >= most {
                return Err(Refusal::Full { waiting: most });
            }
            reign.waiting_reads.push_back(WaitingRead { ticket, count: count.max(1), since });
            Ok(())
        });
        if let Err(refusal) = accepted {
            return vec![Command::AnswerRead { ticket, result: Err(refusal) }];
        }
        let mut commands = Vec::new();
        self.start_round(&mut commands);
        commands
    }

    /// The sequencer has given a batch its place.
    pub fn versioned(&mut self, batch: Work, place: CommitVersion) -> Vec<Command> {
        let Some(reign) = &mut self.reign else { return vec![] };
        let Some(found) = reign.batches.get_mut(&batch) else { return vec![] };
        assert!(matches!(found.stage, Stage::Versioning), "a batch is given one place");
        let members = Arc::clone(&reign.members);
        if place.version <= place.prev || place.prev < members.recovery_version {
            let detail = format!("answered ({}, {})", place.prev, place.version);
            return self
                .failed(batch, PeerFailure { peer: members.sequencer.service.clone(), detail });
        }
        found.stage = Stage::Resolving(place);
        for (index, (_, transaction)) in (0u16..).zip(&mut found.transactions) {
            transaction.stamp(Versionstamp { version: place.version, index });
        }
        let requests = members
            .resolvers
            .iter()
            .map(|resolver| Resolution {
                epoch: members.epoch,
                prev: place.prev,
                version: place.version,
                transactions: found
                    .transactions
                    .iter()
                    .map(|(_, transaction)| transaction.footprint(&resolver.range))
                    .collect(),
            })
            .collect();
        vec![Command::Resolve { batch, members, requests }]
    }

    /// Every resolver has decided; `verdicts` has a list for each.
    pub fn resolved(&mut self, batch: Work, verdicts: &[Vec<Verdict>]) -> Vec<Command> {
        let Some(reign) = &mut self.reign else { return vec![] };
        let Some(found) = reign.batches.get_mut(&batch) else { return vec![] };
        let Stage::Resolving(place) = found.stage else {
            panic!("batch {batch:?} is decided once, after it was given a place");
        };
        let members = Arc::clone(&reign.members);
        let expected = found.transactions.len();
        if let Some((resolver, list)) =
            members.resolvers.iter().zip(verdicts).find(|(_, list)| list.len() != expected)
        {
            let detail = format!("answered {} verdicts for {expected} transactions", list.len());
            return self.failed(batch, PeerFailure { peer: resolver.peer.service.clone(), detail });
        }
        let least: Vec<Verdict> = (0..expected)
            .map(|index| verdicts.iter().map(|list| list[index]).min().unwrap_or(Verdict::Commit))
            .collect();
        let mut by_tag = ByTag::default();
        for ((_, transaction), verdict) in found.transactions.iter_mut().zip(&least) {
            if *verdict == Verdict::Commit {
                by_tag.add(std::mem::take(&mut transaction.mutations), &members.shards);
            }
        }
        found.stage = Stage::Pushing(place, least);
        let known_committed = reign.known_committed;
        reign.pushed_known_committed = known_committed;
        let entries = members
            .logs
            .iter()
            .map(|log| Entry {
                epoch: members.epoch,
                prev: place.prev,
                version: place.version,
                known_committed,
                messages: by_tag.for_log(&log.tags),
                traceparent: None,
            })
            .collect();
        let mut commands = vec![Command::Push { batch, members, entries }];
        self.start_batches(&mut commands);
        commands
    }

    /// Every log has the batch on disk, and so everything before it: it is committed.
    pub fn logged(&mut self, batch: Work) -> Vec<Command> {
        let Some(reign) = &mut self.reign else { return vec![] };
        let Some(found) = reign.batches.get_mut(&batch) else { return vec![] };
        let Stage::Pushing(place, verdicts) = &mut found.stage else {
            panic!("batch {batch:?} is pushed once, after it was decided");
        };
        let (place, verdicts) = (*place, std::mem::take(verdicts));
        reign.known_committed = reign.known_committed.max(place.version);
        if verdicts.contains(&Verdict::Commit) {
            reign.newest_change = reign.newest_change.max(place.version);
        }
        found.stage = Stage::Reporting(place, verdicts);
        let members = Arc::clone(&reign.members);
        let request = CommittedRequest { epoch: members.epoch, version: place.version };
        vec![Command::Report { batch, members, request }]
    }

    /// The sequencer knows that the batch is committed: now its clients may.
    pub fn reported(&mut self, batch: Work) -> Vec<Command> {
        let mut commands = Vec::new();
        let Some(reign) = &mut self.reign else { return commands };
        let Some(found) = reign.batches.remove(&batch) else { return commands };
        let Stage::Reporting(place, verdicts) = found.stage else {
            panic!("batch {batch:?} is reported once, after it was logged");
        };
        for (index, ((ticket, _), verdict)) in
            (0u16..).zip(found.transactions.into_iter().zip(verdicts))
        {
            let result = match Refusal::of_verdict(verdict) {
                None => {
                    reign.transactions += 1;
                    Ok(Committed { version: place.version, index })
                }
                Some(refusal) => Err(refusal),
            };
            commands.push(Command::AnswerCommit { ticket, result });
        }
        self.start_batches(&mut commands);
        commands
    }

    /// A round has its version: the sequencer has told it, and every log has confirmed the epoch.
    pub fn read(&mut self, round: Work, version: Version) -> Vec<Command> {
        let mut commands = Vec::new();
        let Some(reign) = &mut self.reign else { return commands };
        let Some((_, tickets)) = reign.round.take_if(|(under_way, _)| *under_way == round) else {
            return commands;
        };
        let answer = |(ticket, granted)| {
            let result = Ok((version, granted));
            Command::AnswerRead { ticket, result }
        };
        commands.extend(tickets.into_iter().map(answer));
        self.start_round(&mut commands);
        commands
    }

    /// A peer of the epoch has failed a batch or a round. Without it the epoch can't go on, and the
    /// chain of versions has a hole: everybody waiting is answered, and the process ends.
    pub fn failed(&mut self, work: Work, failure: PeerFailure) -> Vec<Command> {
        let mut commands = Vec::new();
        let under_way = |reign: &mut Reign| {
            reign.batches.contains_key(&work)
                || reign.round.as_ref().is_some_and(|(round, _)| *round == work)
        };
        if let Some(reign) = self.reign.take_if(under_way) {
            let PeerFailure { peer, detail } = failure;
            let reason = format!("epoch {}: {peer} failed: {detail}", reign.members.epoch);
            reign.give_up(&reason, &mut commands);
            commands.push(Command::Exit { reason: reason.clone() });
            self.ended = Some(reason);
        }
        commands
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let reign = self.reign.as_ref();
        Status {
            epoch: self.tenure.epoch(),
            open: reign.is_some_and(|reign| reign.open),
            committed: reign.map_or(Version::ZERO, |reign| reign.known_committed),
            transactions: reign.map_or(0, |reign| reign.transactions),
            begun: reign.map_or(0, |reign| reign.begun),
            per_second: reign.and_then(|reign| reign.throttle.per_second()),
        }
    }

    fn reign_of(&mut self, epoch: Epoch) -> Result<&mut Reign, Refusal> {
        if let Some(reason) = &self.ended {
            return Err(Refusal::GivenUp { reason: reason.clone() });
        }
        self.tenure.serves(epoch)?;
        let serving = self.tenure.epoch();
        self.reign.as_mut().ok_or_else(|| TenureError::NotBegun { asked: epoch, serving }.into())
    }

    fn next_work(&mut self) -> Work {
        self.works += 1;
        Work(self.works)
    }

    /// A lone transaction goes at once. While a batch is on its way to its place in the order the
    /// next one collects; once that one is with the logs the next one follows.
    fn start_batches(&mut self, commands: &mut Vec<Command>) {
        while let Some(transactions) = self.next_transactions() {
            self.start_batch(transactions, commands);
        }
        let idle = self.reign.as_ref().is_some_and(|reign| {
            reign.batches.is_empty()
                && reign.waiting.is_empty()
                && reign.newest_change > reign.pushed_known_committed
        });
        if idle {
            // Nothing else would carry the news that the last change is committed.
            self.start_batch(vec![], commands);
        }
    }

    fn next_transactions(&mut self) -> Option<Vec<(Ticket, Transaction)>> {
        let Limits { batch_transactions, batch_bytes, batches, .. } = self.limits;
        let reign = self.reign.as_mut()?;
        let with_transactions =
            || reign.batches.values().filter(|batch| !batch.transactions.is_empty());
        let collecting = with_transactions()
            .any(|batch| matches!(batch.stage, Stage::Versioning | Stage::Resolving(_)));
        if collecting || with_transactions().count() >= batches {
            return None;
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some((_, next)) = reign.waiting.front() {
            let alone = |(_, transaction): &(Ticket, Transaction)| transaction.system;
            let full = taken.len() >= usize::from(batch_transactions)
                || bytes + next.bytes > batch_bytes
                || next.system
                || taken.first().is_some_and(alone);
            if full && !taken.is_empty() {
                break;
            }
            bytes += next.bytes;
            taken.extend(reign.waiting.pop_front());
        }
        reign.waiting_bytes -= bytes;
        (!taken.is_empty()).then_some(taken)
    }

    fn start_batch(
        &mut self,
        transactions: Vec<(Ticket, Transaction)>,
        commands: &mut Vec<Command>,
    ) {
        let batch = self.next_work();
        let proxy = self.incarnation;
        let Some(reign) = &mut self.reign else { return };
        if transactions.is_empty() {
            // Counted as carried from now on: an empty batch calls for no other.
            reign.pushed_known_committed = reign.known_committed;
        }
        reign.requests += 1;
        let members = Arc::clone(&reign.members);
        let request = CommitVersionRequest { epoch: members.epoch, proxy, request: reign.requests };
        let tickets = transactions.iter().map(|(ticket, _)| *ticket).collect();
        reign.batches.insert(batch, Batch { transactions, stage: Stage::Versioning });
        commands.push(Command::AskVersion { batch, tickets, members, request });
    }

    fn start_round(&mut self, commands: &mut Vec<Command>) {
        let round = self.next_work();
        let now = self.now;
        let Some(reign) = &mut self.reign else { return };
        if reign.round.is_some() {
            return;
        }
        let granted = reign.grant(now);
        if granted.is_empty() {
            return;
        }
        let tickets = granted.iter().map(|(ticket, _)| *ticket).collect();
        reign.round = Some((round, granted));
        let members = Arc::clone(&reign.members);
        commands.push(Command::AskReadVersion { round, tickets, members });
    }
}

impl Reign {
    /// Answers everybody as well as can be: what no log was given will never be committed, of what
    /// the logs were given nobody knows.
    fn give_up(self, reason: &str, commands: &mut Vec<Command>) {
        let given_up = || Refusal::GivenUp { reason: reason.to_owned() };
        for batch in self.batches.into_values() {
            let verdicts = match batch.stage {
                Stage::Versioning | Stage::Resolving(_) => vec![],
                Stage::Pushing(_, verdicts) | Stage::Reporting(_, verdicts) => verdicts,
            };
            for (index, (ticket, _)) in batch.transactions.into_iter().enumerate() {
                let refusal = match verdicts.get(index) {
                    None => given_up(),
                    Some(verdict) => Refusal::of_verdict(*verdict)
                        .unwrap_or_else(|| Refusal::Unknown { reason: reason.to_owned() }),
                };
                commands.push(Command::AnswerCommit { ticket, result: Err(refusal) });
            }
        }
        let held = self.held.into_iter().map(|(ticket, transaction, _)| (ticket, transaction));
        for (ticket, _) in self.waiting.into_iter().chain(held) {
            commands.push(Command::AnswerCommit { ticket, result: Err(given_up()) });
        }
        let under_way = self.round.map(|(_, granted)| granted).unwrap_or_default();
        let under_way = under_way.into_iter().map(|(ticket, _)| ticket);
        for ticket in under_way.chain(self.waiting_reads.into_iter().map(|read| read.ticket)) {
            commands.push(Command::AnswerRead { ticket, result: Err(given_up()) });
        }
    }
}

/// An assignment must be one with which commits can go on.
fn check_assignment(assignment: &Assignment) -> Result<(), Refusal> {
    let Assignment { recovery_version, first_version, resolvers, logs, shards, .. } = assignment;
    let problem = if first_version <= recovery_version {
        format!("first_version {first_version} must be above recovery_version {recovery_version}")
    } else if resolvers.is_empty() {
        "resolvers must not be empty".to_owned()
    } else if logs.is_empty() {
        "logs must not be empty".to_owned()
    } else if let Some(tag) =
        shards.tags().into_iter().find(|tag| !logs.iter().any(|log| log.tags.contains(tag)))
    {
        format!("no log holds tag {tag}")
    } else if let Some(problem) = shards.problems().first() {
        format!("shards: {problem}")
    } else {
        return Ok(());
    };
    Err(Refusal::Assignment { problem })
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
