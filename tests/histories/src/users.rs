//! Users of the gateways' transactions, who note what they do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use plinth_api::gateway::{
    Begun, Change, ReadResult, Reading, Stamping, Steps, StepsAnswer, TransactionAnswer,
    TransactionRequest,
};
use plinth_api::{Outcome, Problem};
use plinth_types::{Key, Value, Versionstamp};
use serde::de::DeserializeOwned;

use crate::Anomaly;
use crate::history::{Fate, Journal, Moment, Step, Transaction};

/// What all keys of transactions begin with.
pub const PREFIX: &str = "t/";
/// What the marks begin with.
pub const MARKS: &str = "t/marks/";

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// There is no answer.
#[derive(Clone, Debug)]
pub enum Lost {
    /// The request was never sent.
    NotSent(String),
    /// It was, or may have been.
    Unanswered(String),
}

/// Where users act.
pub trait World: Send + Sync {
    /// How many gateways there are.
    fn gateways(&self) -> usize;
    /// 64 random bits.
    fn random(&self) -> u64;
    /// Whether users still work.
    fn is_working(&self) -> bool;
    /// The longest pause between two transactions of a user.
    fn pause(&self) -> Duration;
    /// Sends a JSON body to a path at a gateway, by POST.
    fn post(
        &self,
        gateway: usize,
        path: String,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Answer, Lost>>;
}

/// A user of one workload. A clone is another user of the same.
#[derive(Clone)]
pub struct User {
    world: Arc<dyn World>,
    journal: Journal,
    workload: &'static str,
    ids: Arc<AtomicU64>,
}

/// What a transaction came to, as far as a user needs it to go on.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// It was committed, and has read this.
    Committed(Vec<ReadResult>),
    /// It was not.
    Refused,
    /// Nobody knows.
    Unknown,
}

impl Told {
    /// What was read, if it was committed.
    #[must_use]
    pub fn reads(self) -> Option<Vec<ReadResult>> {
        match self {
            Told::Committed(reads) => Some(reads),
            Told::Refused | Told::Unknown => None,
        }
    }
}

impl User {
    /// A user who notes in this journal.
    #[must_use]
    pub fn new(world: Arc<dyn World>, journal: Journal, workload: &'static str) -> User {
        User { world, journal, workload, ids: Arc::default() }
    }

    /// The same user in another workload. Their transactions' numbers differ.
    #[must_use]
    pub fn in_workload(&self, workload: &'static str) -> User {
        User { workload, ..self.clone() }
    }

    /// Whether to go on.
    #[must_use]
    pub fn is_working(&self) -> bool {
        self.world.is_working()
    }

    /// A number below `bound`.
    #[must_use]
    pub fn below(&self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.world.random() % bound).unwrap_or(0)
    }

    /// Whether something that is to happen one time in `times` happens now.
    #[must_use]
    pub fn one_in(&self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Pauses for a while.
    pub async fn pause(&self) {
        let most = usize::try_from(self.world.pause().as_millis()).unwrap_or(usize::MAX);
        let pause = u64::try_from(self.below(most)).unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// A number that no transaction and nothing else has.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn any_gateway(&self) -> usize {
        self.below(self.world.gateways())
    }

    fn begin_record(&self) -> Transaction {
        Transaction {
            id: self.number(),
            workload: self.workload,
            began: self.journal.moment(),
            ended: 0,
            fate: Fate::Unknown("it goes on".to_owned()),
            is_late: false,
            mark: None,
            steps: Vec::new(),
        }
    }

    async fn post<T: DeserializeOwned>(
        &self,
        gateway: usize,
        path: String,
        body: &impl serde::Serialize,
    ) -> Result<T, Fate> {
        let body = match serde_json::to_vec(body) {
            Ok(body) => Bytes::from(body),
            Err(error) => return Err(Fate::Refused(error.to_string())),
        };
        let answer = match self.world.post(gateway, path, body).await {
            Ok(answer) => answer,
            Err(Lost::NotSent(why)) => return Err(Fate::Refused(why)),
            Err(Lost::Unanswered(why)) => return Err(Fate::Unknown(why)),
        };
        if (200..300).contains(&answer.status) {
            return serde_json::from_slice(&answer.body)
                .map_err(|error| Fate::Unknown(format!("an answer of another form: {error}")));
        }
        Err(match serde_json::from_slice::<Problem>(&answer.body) {
            Ok(problem) if problem.outcome == Outcome::NotCommitted => {
                Fate::Refused(problem.to_string())
            }
            Ok(problem) => Fate::Unknown(problem.to_string()),
            Err(error) => Fate::Unknown(format!("a problem of another form: {error}")),
        })
    }

    /// Makes a transaction in one request.
    pub async fn transact(&self, reads: Vec<Reading>, changes: Vec<Change>) -> Told {
        self.transact_as(None, reads, changes).await
    }

    /// The same under a name, asked for up to `times` times at gateways at random until it is
    /// acknowledged or refused, and then perhaps once more. It counts as one transaction.
    pub async fn transact_by_name(&self, name: String, times: usize, changes: Vec<Change>) -> Told {
        self.transact_as(Some((name, times)), Vec::new(), changes).await
    }

    async fn transact_as(
        &self,
        name: Option<(String, usize)>,
        reads: Vec<Reading>,
        mut changes: Vec<Change>,
    ) -> Told {
        let mut record = self.begin_record();
        if !changes.is_empty() {
            changes.push(mark(&mut record));
        }
        let (idempotency_id, mut times) = name.map_or((None, 1), |(id, times)| (Some(id), times));
        let request = TransactionRequest {
            checks: Vec::new(),
            reads: reads.clone(),
            mutations: changes.clone(),
            idempotency_id,
        };
        let mut fates: Vec<Fate> = Vec::new();
        let mut told = Vec::new();
        while times > 0 {
            times -= 1;
            let path = "/v1/transactions".to_owned();
            let answer = self.post::<TransactionAnswer>(self.any_gateway(), path, &request).await;
            let fate = match answer {
                Ok(answer) => {
                    let TransactionAnswer { version, versionstamp: stamp, reads } = answer;
                    told = reads;
                    times = if self.one_in(2) { times.min(1) } else { 0 };
                    Fate::Committed { version, stamp }
                }
                Err(fate) => fate,
            };
            fates.push(fate);
        }
        let (fate, other) = joint_fate(&fates);
        if let Some(other) = other {
            let id = record.id;
            let seen = format!("T{id} was told to be {fate:?}, and to be {other:?}");
            self.journal.complain(Anomaly::new("each id once", seen));
        }
        record.steps = vec![Step { reads: reads.into_iter().zip(told.clone()).collect(), changes }];
        self.finish(record, fate).with(told)
    }

    /// Begins a transaction of several requests.
    pub async fn begin(&self) -> Option<Interactive> {
        let record = self.begin_record();
        let gateway = self.any_gateway();
        let nothing = plinth_api::Nothing {};
        let begun: Begun =
            self.post(gateway, "/v1/transactions/begin".to_owned(), &nothing).await.ok()?;
        Some(Interactive {
            user: self.clone(),
            gateway,
            id: begun.transaction,
            record: Some(record),
        })
    }

    fn finish(&self, mut record: Transaction, fate: Fate) -> Told {
        record.ended = self.journal.moment();
        record.fate = fate;
        let told = match record.fate {
            Fate::Committed { .. } => Told::Committed(Vec::new()),
            Fate::Refused(_) => Told::Refused,
            Fate::Unknown(_) => Told::Unknown,
        };
        self.journal.note(record);
        told
    }

    /// The present.
    #[must_use]
    pub fn moment(&self) -> Moment {
        self.journal.moment()
    }
}

impl Told {
    fn with(self, reads: Vec<ReadResult>) -> Told {
        match self {
            Told::Committed(_) => Told::Committed(reads),
            told => told,
        }
    }
}

/// What several attempts under one name come to, and another fate that one was told, if any. One that
/// was refused may have taken effect as another, whose fate is not known.
fn joint_fate(fates: &[Fate]) -> (Fate, Option<Fate>) {
    let is_committed = |fate: &&Fate| matches!(fate, Fate::Committed { .. });
    if let Some(first) = fates.iter().find(is_committed) {
        let other = fates.iter().filter(is_committed).find(|fate| *fate != first);
        return (first.clone(), other.cloned());
    }
    let unknown = fates.iter().find(|fate| matches!(fate, Fate::Unknown(_)));
    let last = || fates.last().cloned().unwrap_or_else(|| Fate::Refused("never asked".to_owned()));
    (unknown.cloned().unwrap_or_else(last), None)
}

/// The change by which a transaction leaves its versionstamp.
fn mark(record: &mut Transaction) -> Change {
    let key = format!("{MARKS}{:08}", record.id);
    record.mark = Some(key.clone());
    let value = Value::from(vec![0; Versionstamp::LENGTH]);
    Change::SetVersionstampedValue(Stamping { key: Key::from(key.as_str()), value, offset: 0 })
}

/// A transaction of several requests. One that is dropped is given up: nothing of it takes effect.
pub struct Interactive {
    user: User,
    gateway: usize,
    id: String,
    /// Taken by the commit.
    record: Option<Transaction>,
}

impl Interactive {
    /// The gateway that keeps it, mostly; any other passes on what it is asked.
    fn gateway(&self) -> usize {
        if self.user.one_in(8) { self.user.any_gateway() } else { self.gateway }
    }

    /// Reads, then changes. None where it can't go on.
    pub async fn step(
        &mut self,
        reads: Vec<Reading>,
        mut changes: Vec<Change>,
    ) -> Option<Vec<ReadResult>> {
        let record = self.record.as_mut()?;
        if record.mark.is_none() && !changes.is_empty() {
            changes.push(mark(record));
        }
        let path = format!("/v1/transactions/{}/operations", self.id);
        let steps = Steps { reads: reads.clone(), mutations: changes.clone() };
        let answer = self.user.post::<StepsAnswer>(self.gateway(), path, &steps).await.ok()?;
        let told = answer.reads;
        let step = Step { reads: reads.into_iter().zip(told.clone()).collect(), changes };
        self.record.as_mut()?.steps.push(step);
        Some(told)
    }

    /// Commits.
    pub async fn commit(mut self) -> Told {
        let path = format!("/v1/transactions/{}/commit", self.id);
        let nothing = plinth_api::Nothing {};
        let answer = self.user.post::<TransactionAnswer>(self.gateway(), path, &nothing).await;
        let fate = match answer {
            Ok(answer) => Fate::Committed { version: answer.version, stamp: answer.versionstamp },
            Err(fate) => fate,
        };
        match self.record.take() {
            Some(record) => self.user.finish(record, fate),
            None => Told::Refused,
        }
    }
}

impl Drop for Interactive {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.user.finish(record, Fate::Refused("given up".to_owned()));
        }
    }
}
