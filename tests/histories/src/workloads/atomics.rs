//! Atomic operations of every kind on a few keys, alone and several at once, and transactions that
//! read what they make of it. The replay is the check.

use futures::future::{BoxFuture, FutureExt as _};
use plinth_api::gateway::{Change, Reading};

use super::rows::{clear, key, operating, prefix};
use crate::Anomaly;
use crate::history::Transaction;
use crate::users::User;

pub(super) const NAME: &str = "atomics";
const KEYS: &str = "t/atomics/";
const COUNT: usize = 3;
const USERS: usize = 3;
/// Values that grow longer are cleared at times.
const CLEARED: usize = 24;

pub(super) fn start(user: User) -> Vec<BoxFuture<'static, ()>> {
    let user = user.in_workload(NAME);
    (0..USERS).map(|_| run(user.clone()).boxed()).collect()
}

fn change(user: &User) -> Change {
    let name = format!("{KEYS}{}", user.below(COUNT));
    if user.one_in(CLEARED) {
        return clear(&name);
    }
    let bytes: Vec<u8> =
        (0..1 + user.below(3)).map(|_| u8::try_from(user.below(256)).unwrap_or(0)).collect();
    let operating = operating(&name, bytes);
    match user.below(8) {
        0 => Change::Min(operating),
        1 => Change::Max(operating),
        2 => Change::And(operating),
        3 => Change::Or(operating),
        4 => Change::Xor(operating),
        5 => Change::AppendIfFits(operating),
        6 => Change::CompareAndClear(operating),
        _ => Change::Add(operating),
    }
}

async fn run(user: User) {
    while user.is_working() {
        let changes: Vec<Change> = (0..1 + user.below(2)).map(|_| change(&user)).collect();
        let read: Reading = if user.one_in(2) {
            prefix(KEYS)
        } else {
            key(&format!("{KEYS}{}", user.below(COUNT)))
        };
        match user.below(4) {
            0 => _ = user.transact(vec![read], Vec::new()).await,
            1 => _ = user.transact(Vec::new(), changes).await,
            2 => _ = user.transact(vec![read], changes).await,
            _ => _ = look_back(&user, read, changes).await,
        }
        user.pause().await;
    }
}

/// Reads, changes, and reads what became of it, which nobody else sees yet.
async fn look_back(user: &User, read: Reading, changes: Vec<Change>) -> Option<()> {
    let mut transaction = user.begin().await?;
    transaction.step(vec![read.clone()], changes).await?;
    transaction.step(vec![read], Vec::new()).await?;
    transaction.commit().await.reads().map(drop)
}

pub(super) fn check(_: &[Transaction]) -> Vec<Anomaly> {
    Vec::new()
}
