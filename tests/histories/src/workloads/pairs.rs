//! Write skew: of each pair of guards one may leave as long as the other one is there. Who has left
//! has a row, so whoever looks whether both are there reads a range in which there is nothing.

use futures::future::{BoxFuture, FutureExt as _};
use plinth_api::gateway::ReadResult;

use super::rows::{clear, key, prefix, set, sights};
use crate::Anomaly;
use crate::history::Transaction;
use crate::users::User;

pub(super) const NAME: &str = "pairs";
const PAIRS: usize = 2;
const USERS: usize = 3;

pub(super) fn start(user: User) -> Vec<BoxFuture<'static, ()>> {
    let user = user.in_workload(NAME);
    (0..USERS).map(|_| run(user.clone()).boxed()).collect()
}

fn pair(number: usize) -> String {
    format!("t/pairs/{number}/")
}

async fn run(user: User) {
    while user.is_working() {
        let pair = pair(user.below(PAIRS));
        if user.one_in(5) {
            user.transact(vec![prefix(&pair)], Vec::new()).await;
        } else {
            change(&user, &pair).await;
        }
        user.pause().await;
    }
}

/// One that has left comes back; where both are there, one leaves.
async fn change(user: &User, pair: &str) -> Option<()> {
    let guards = [format!("{pair}a"), format!("{pair}b")];
    let by_key = user.one_in(2);
    let reads =
        if by_key { guards.iter().map(|guard| key(guard)).collect() } else { vec![prefix(pair)] };
    let mut transaction = user.begin().await?;
    let reads = transaction.step(reads, Vec::new()).await?;
    let mut gone = Vec::new();
    for read in reads {
        match read {
            ReadResult::Key { key, value: Some(_) } => gone.push(key),
            ReadResult::Key { value: None, .. } => {}
            ReadResult::Range { items, .. } => gone.extend(items.into_iter().map(|item| item.key)),
        }
    }
    let change = match gone.first() {
        Some(back) => clear(&super::rows::text(back.as_bytes())),
        None => set(&guards[user.below(2)], "gone"),
    };
    transaction.step(Vec::new(), vec![change]).await?;
    transaction.commit().await.reads().map(drop)
}

pub(super) fn check(transactions: &[Transaction]) -> Vec<Anomaly> {
    let left = (0..PAIRS).find_map(|number| {
        let sights = sights(transactions, &pair(number));
        let (who, _) = sights.into_iter().find(|(_, rows)| rows.len() > 1)?;
        Some(Anomaly::new(NAME, format!("{who} saw that both of pair {number} had left")))
    });
    left.into_iter().collect()
}
