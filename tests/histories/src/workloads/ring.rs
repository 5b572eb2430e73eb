//! Cycle: keys that each name the next one and stay one ring, though transactions move them about.

use std::collections::BTreeMap;

use futures::future::{BoxFuture, FutureExt as _};
use plinth_api::gateway::ReadResult;

use super::rows::{key, prefix, set, sights, text};
use crate::Anomaly;
use crate::checks::ring;
use crate::history::Transaction;
use crate::users::{Interactive, User};

pub(super) const NAME: &str = "cycle";
const KEYS: &str = "t/cycle/";
const COUNT: u64 = 6;
const USERS: usize = 3;

pub(super) fn start(user: User) -> Vec<BoxFuture<'static, ()>> {
    let user = user.in_workload(NAME);
    (0..USERS).map(|_| run(user.clone()).boxed()).collect()
}

fn name(number: u64) -> String {
    format!("{KEYS}{number}")
}

async fn run(user: User) {
    while user.is_working() && close(&user).await.is_none() {
        user.pause().await;
    }
    while user.is_working() {
        if user.one_in(5) {
            user.transact(vec![prefix(KEYS)], Vec::new()).await;
        } else {
            swap(&user).await;
        }
        user.pause().await;
    }
}

/// Makes the ring, unless there is one.
async fn close(user: &User) -> Option<()> {
    let mut transaction = user.begin().await?;
    let reads = transaction.step(vec![prefix(KEYS)], Vec::new()).await?;
    if matches!(reads.as_slice(), [ReadResult::Range { items, .. }] if items.is_empty()) {
        let links =
            (0..COUNT).map(|number| set(&name(number), &*format!("{}", (number + 1) % COUNT)));
        transaction.step(Vec::new(), links.collect()).await?;
    }
    transaction.commit().await.reads().map(drop)
}

async fn next(transaction: &mut Interactive, number: u64) -> Option<u64> {
    let reads = transaction.step(vec![key(&name(number))], Vec::new()).await?;
    match reads.first() {
        Some(ReadResult::Key { value: Some(value), .. }) => text(value.as_bytes()).parse().ok(),
        _ => None,
    }
}

/// Changes the places of the two keys after one.
async fn swap(user: &User) -> Option<()> {
    let first = u64::try_from(user.below(usize::try_from(COUNT).unwrap_or(1))).unwrap_or(0);
    let mut transaction = user.begin().await?;
    let second = next(&mut transaction, first).await?;
    let third = next(&mut transaction, second).await?;
    let fourth = next(&mut transaction, third).await?;
    let link = |from: u64, to: u64| set(&name(from), &*format!("{to}"));
    let links = vec![link(first, third), link(second, fourth), link(third, second)];
    transaction.step(Vec::new(), links).await?;
    transaction.commit().await.reads().map(drop)
}

pub(super) fn check(transactions: &[Transaction]) -> Vec<Anomaly> {
    let number = |bytes: &[u8]| text(bytes).parse::<u64>().unwrap_or(u64::MAX);
    let snapshots: Vec<(String, BTreeMap<u64, u64>)> = sights(transactions, KEYS)
        .into_iter()
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(who, rows)| {
            let link = |(key, value): (&[u8], &[u8])| (number(&key[KEYS.len()..]), number(value));
            (who.to_string(), rows.into_iter().map(link).collect())
        })
        .collect();
    ring::check(&snapshots)
}
