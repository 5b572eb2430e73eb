//! The interactive transactions that one gateway keeps: bounded in number and in bytes, and
//! forgotten when their time is over.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plinth_api::ErrorCode;
use plinth_client::Transaction;
use plinth_service::Failure;
use plinth_types::{Incarnation, ServiceRef};
use tokio::time::Instant;

/// How long an interactive transaction lives: as long as its read version may stay readable.
pub(crate) const LIFE: Duration = Duration::from_secs(5);

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
}

struct Session {
    transaction: Transaction,
    until: Instant,
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
            self.remove(number);
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
            kept.sessions.insert(number, Session { transaction, until, bytes: 0 });
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

    pub(crate) fn take(&self, number: u64) -> Option<Transaction> {
        self.with(|kept, now| kept.remove(number).filter(|session| session.until > now))
            .map(|session| session.transaction)
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
        assert!(sessions.take(2).is_some() && sessions.take(2).is_none());
        assert!(sessions.grow(3, 40).is_ok_and(|found| found.is_some()));
    }
}
