//! Idempotency: transactions under a name, asked for several times at different gateways. Each takes
//! effect once: it stands in the log once, and counts once.

use futures::future::{BoxFuture, FutureExt as _};
use plinth_api::gateway::{Change, Operand, Operating};

use super::rows::{operating, sights, text};
use crate::Anomaly;
use crate::history::Transaction;
use crate::users::User;

pub(super) const NAME: &str = "ids";
const KEYS: &str = "t/ids/";
const LOG: &str = "t/ids/log";
const COUNT: &str = "t/ids/count";
const USERS: usize = 2;
/// How often one is asked for, at most.
const TIMES: usize = 3;

pub(super) fn start(user: User) -> Vec<BoxFuture<'static, ()>> {
    let user = user.in_workload(NAME);
    (0..USERS).map(|_| run(user.clone()).boxed()).collect()
}

async fn run(user: User) {
    while user.is_working() {
        let number = user.number();
        let one = Operating { key: COUNT.into(), operand: Operand::Number(1) };
        let entry = Change::AppendIfFits(operating(LOG, &*format!("{number},")));
        let name = format!("id-{number}");
        user.transact_by_name(name, TIMES, vec![entry, Change::Add(one)]).await;
        user.pause().await;
    }
}

pub(super) fn check(transactions: &[Transaction]) -> Vec<Anomaly> {
    let Some((who, rows)) = sights(transactions, KEYS).pop() else { return Vec::new() };
    let log = rows.get(LOG.as_bytes()).map(|log| text(log)).unwrap_or_default();
    let mut entries: Vec<&str> = log.split_terminator(',').collect();
    entries.sort_unstable();
    let twice = entries.windows(2).find(|pair| pair[0] == pair[1]);
    let count = rows.get(COUNT.as_bytes()).and_then(|bytes| (*bytes).try_into().ok());
    let count = count.map_or(0, u64::from_le_bytes);
    let mut wrong = Vec::new();
    if let Some(pair) = twice {
        let seen = format!("{who} saw that {} was committed twice", pair[0]);
        wrong.push(Anomaly::new("each id once", seen));
    } else if usize::try_from(count).ok() != Some(entries.len()) {
        let seen = format!("{who} saw {} entries, and a count of {count}", entries.len());
        wrong.push(Anomaly::new("each id once", seen));
    }
    wrong
}
