//! The interactive transactions that one gateway keeps: bounded in number and in bytes, and
//! forgotten when their time is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plinth_api::ErrorCode;
use plinth_client::Transaction;
use plinth_service::Failure;
use plinth_types::{Incarnation, ServiceRef};
use tokio::time::Instant;

/// How long an interactive transaction lives: as long as its read version may stay readable.
pub(crate) const LIFE: Duration = Duration::from_secs(5);
/// How many transactions that ended without effect are remembered. Of one that is forgotten, a
/// commit is told that nobody knows what became of it, which is never wrong.
const REMEMBERED: usize = 1 << 16;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Transactions.
    pub(crate) transactions: usize,
    /// Bytes of keys and values that they have written, about.
    pub(crate) bytes: usize,
}

/// The interactive transactions of a gateway.
pub(crate) struct Sessions {
    bounds: Bounds,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    sessions: BTreeMap<u64, Session>,
    /// Numbers in the order in which they expire. Some are gone already.
    expiries: VecDeque<(Instant, u64)>,
    bytes: usize,
    /// Those that ended without effect, and will never have one; and their order.
    without_effect: BTreeSet<u64>,
    remembered: VecDeque<u64>,
}

struct Session {
    transaction: Transaction,
    /// What counts of it in [`Kept::bytes`].
    bytes: usize,
}

impl Kept {
    fn remove(&mut self, number: u64) -> Option<Session> {
        let session = self.sessions.remove(&number)?;
        self.bytes -= session.bytes;
        Some(session)
    }

    fn forget_expired(&mut self, now: Instant) {
        while let Some((until, number)) = self.expiries.front().copied()
            && until <= now
        {
            self.expiries.pop_front();
            if self.remove(number).is_some() {
                self.had_no_effect(number);
            }
        }
    }

    fn had_no_effect(&mut self, number: u64) {
        if self.without_effect.insert(number) {
            self.remembered.push_back(number);
        }
        while self.remembered.len() > REMEMBERED
            && let Some(oldest) = self.remembered.pop_front()
        {
            self.without_effect.remove(&oldest);
        }
    }
}

impl Sessions {
    pub(crate) fn new(bounds: Bounds) -> Sessions {
        Sessions { bounds, kept: Mutex::default() }
    }

    /// Acts on those whose time is not over.
    fn with<T>(&self, act: impl FnOnce(&mut Kept, Instant) -> T) -> T {
        let now = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forget_expired(now);
        act(&mut kept, now)
    }

    /// Keeps a transaction under a number of its own.
    ///
    /// # Errors
    /// `overloaded`: there are too many.
    pub(crate) fn add(&self, number: u64, transaction: Transaction) -> Result<(), Failure> {
        self.with(|kept, now| {
            let most = self.bounds.transactions;
            if kept.sessions.len() >= most {
                let detail = format!("{most} transactions are open at this gateway: come again");
                return Err(Failure::new(ErrorCode::Overloaded, detail));
            }
            let until = now + LIFE;
            kept.expiries.push_back((until, number));
            kept.sessions.insert(number, Session { transaction, bytes: 0 });
            Ok(())
        })
    }

    pub(crate) fn get(&self, number: u64) -> Option<Transaction> {
        self.with(|kept, _| kept.sessions.get(&number).map(|session| session.transaction.clone()))
    }

    /// The transaction, which is to grow by so many bytes: they count from now on.
    ///
    /// # Errors
    /// `overloaded`: all of them together have written too much. None where there is no such one.
    pub(crate) fn grow(&self, number: u64, bytes: usize) -> Result<Option<Transaction>, Failure> {
        self.with(|kept, _| {
            let Some(session) = kept.sessions.get_mut(&number) else { return Ok(None) };
            let most = self.bounds.bytes;
            if kept.bytes.saturating_add(bytes) > most {
                let detail = format!(
                    "the transactions that are open at this gateway have written {most} bytes \
                     together, which is all it keeps: come again, or to another one"
                );
                return Err(Failure::new(ErrorCode::Overloaded, detail));
            }
            kept.bytes += bytes;
            session.bytes += bytes;
            Ok(Some(session.transaction.clone()))
        })
    }

    /// The transaction, to be committed. Unless [`Sessions::had_no_effect`] is told otherwise, it is
    /// taken to be committed from now on.
    ///
    /// # Errors
    /// `transaction_ended` where it is known to have had no effect; else it may have been committed,
    /// and it is `commit_unknown_result`.
    pub(crate) fn take(&self, number: u64) -> Result<Transaction, Failure> {
        self.with(|kept, _| match kept.remove(number) {
            Some(session) => Ok(session.transaction),
            None if kept.without_effect.contains(&number) => Err(ended()),
            None => Err(undecided()),
        })
    }

    /// Gives a transaction up. Answers whether it was there.
    pub(crate) fn give_up(&self, number: u64) -> bool {
        self.with(|kept, _| {
            let is_open = kept.remove(number).is_some();
            if is_open {
                kept.had_no_effect(number);
            }
            is_open
        })
    }

    /// A transaction that was taken was not committed, and never will be.
    pub(crate) fn had_no_effect(&self, number: u64) {
        self.with(|kept, _| kept.had_no_effect(number));
    }
}

/// Which transaction: of which process, and its number there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionId {
    pub(crate) gateway: ServiceRef,
    pub(crate) incarnation: Incarnation,
    pub(crate) number: u64,
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{:016x}", self.gateway, self.incarnation, self.number)
    }
}

impl SessionId {
    pub(crate) fn parse(text: &str) -> Option<SessionId> {
        let (rest, number) = text.rsplit_once('.')?;
        let (gateway, incarnation) = rest.rsplit_once('.')?;
        Some(SessionId {
            gateway: gateway.parse().ok()?,
            incarnation: incarnation.parse().ok()?,
            number: u64::from_str_radix(number, 16).ok()?,
        })
    }
}

pub(crate) fn ended() -> Failure {
    Failure::new(
        ErrorCode::TransactionEnded,
        "there is no such transaction: it has been committed or given up, was older than 5 s, or \
         its gateway has ended; begin it again",
    )
}

/// A commit of the transaction may have begun before.
pub(crate) fn undecided() -> Failure {
    Failure::new(
        ErrorCode::CommitUnknownResult,
        "the transaction is here no more, and may have been committed by an earlier request; a \
         commit with an Idempotency-Key is told what became of it",
    )
}

#[cfg(test)]
mod tests {
    use plinth_client::Database;
    use plinth_runtime::{Runtime, Scope};
    use plinth_service::{Peers, Sender, Transport};
    use tokio::time::advance;

    use super::*;

    #[test]
    fn an_id_names_its_gateway() {
        let id = SessionId {
            gateway: "gateway-1@node-2".parse().expect("a service"),
            incarnation: Incarnation(7),
            number: 0xabc,
        };
        assert_eq!(SessionId::parse(&id.to_string()), Some(id));
        for wrong in ["", "x", "gateway-1@node-2.7", "..", "a.b.c", "http://elsewhere.7.1"] {
            assert_eq!(SessionId::parse(wrong), None, "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn transactions_are_bounded_in_number_and_bytes_and_go_with_their_time() {
        let (scope, _end) = Scope::new();
        let peers = Peers::new(Transport::new(Runtime::real(), scope.clone(), &Sender::default()));
        let database = Database::new(&Runtime::real(), &scope, peers, vec![]);
        let sessions = Sessions::new(Bounds { transactions: 2, bytes: 100 });
        let begin = || database.begin(LIFE);
        let code = |failure: Failure| failure.0.code;
        assert!(sessions.add(1, begin()).is_ok());
        advance(LIFE / 2).await;
        assert!(sessions.add(2, begin()).is_ok());
        assert_eq!(sessions.add(3, begin()).map_err(code), Err(ErrorCode::Overloaded));
        assert!(sessions.grow(1, 60).is_ok_and(|found| found.is_some()));
        assert!(sessions.grow(2, 40).is_ok_and(|found| found.is_some()));
        assert_eq!(sessions.grow(2, 1).map(drop).map_err(code), Err(ErrorCode::Overloaded));
        assert!(sessions.grow(9, 1).is_ok_and(|found| found.is_none()), "no such one");
        advance(LIFE / 2).await;
        assert!(sessions.get(1).is_none(), "its time is over");
        assert!(sessions.add(3, begin()).is_ok() && sessions.get(2).is_some());
        assert!(sessions.grow(3, 60).is_ok_and(|found| found.is_some()), "its bytes are free");
        assert!(sessions.take(2).is_ok());
        assert_eq!(sessions.take(2).map(drop).map_err(code), Err(ErrorCode::CommitUnknownResult));
        assert!(sessions.grow(3, 40).is_ok_and(|found| found.is_some()));
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_known_to_have_had_no_effect_is_said_to_have_ended() {
        let (scope, _end) = Scope::new();
        let peers = Peers::new(Transport::new(Runtime::real(), scope.clone(), &Sender::default()));
        let database = Database::new(&Runtime::real(), &scope, peers, vec![]);
        let sessions = Sessions::new(Bounds { transactions: 9, bytes: 100 });
        for number in 1..=4 {
            sessions.add(number, database.begin(LIFE)).expect("room");
        }
        let told = |number| sessions.take(number).map(drop).map_err(|failure| failure.0.code);
        assert_eq!((told(1), told(2)), (Ok(()), Ok(())));
        // The first one met a conflict; of the second one the answer is lost.
        sessions.had_no_effect(1);
        assert!(sessions.give_up(3) && !sessions.give_up(3) && !sessions.give_up(2));
        advance(LIFE).await;
        let (ended, unknown) =
            (Err(ErrorCode::TransactionEnded), Err(ErrorCode::CommitUnknownResult));
        assert_eq!([told(1), told(2), told(3), told(4)], [ended, unknown, ended, ended]);
        assert_eq!(told(5), unknown, "nobody knows it");
        for number in 10..=10 + REMEMBERED as u64 {
            sessions.had_no_effect(number);
        }
        assert_eq!(told(1), unknown, "forgotten");
    }
}
