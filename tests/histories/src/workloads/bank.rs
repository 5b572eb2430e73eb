//! A bank: transfers by reads and writes and by additions, and auditors who look at all accounts at
//! once or at one after the other.

use futures::future::{BoxFuture, FutureExt as _};
use plinth_api::gateway::{Change, ReadResult};

use super::rows::{key, operating, prefix, set, sights};
use crate::Anomaly;
use crate::checks::bank;
use crate::history::Transaction;
use crate::users::User;

pub(super) const NAME: &str = "bank";
const ACCOUNTS: &str = "t/bank/";
const COUNT: usize = 5;
const BALANCE: i64 = 100;
const USERS: usize = 3;

pub(super) fn start(user: User) -> Vec<BoxFuture<'static, ()>> {
    let user = user.in_workload(NAME);
    (0..USERS).map(|_| run(user.clone()).boxed()).collect()
}

fn account(number: usize) -> String {
    format!("{ACCOUNTS}{number}")
}

fn balance(bytes: &[u8]) -> i64 {
    // Shorter or longer ones are no balances, and show as another total.
    bytes.try_into().map_or(i64::MIN / 8, i64::from_le_bytes)
}

async fn run(user: User) {
    while user.is_working() && open(&user).await.is_none() {
        user.pause().await;
    }
    while user.is_working() {
        let from = user.below(COUNT);
        let to = (from + 1 + user.below(COUNT - 1)) % COUNT;
        let amount = i64::try_from(1 + user.below(9)).unwrap_or(1);
        match user.below(5) {
            0 => _ = user.transact(vec![prefix(ACCOUNTS)], Vec::new()).await,
            1 => _ = audit(&user).await,
            2 => {
                let add = |account: usize, amount: i64| {
                    Change::Add(operating(&self::account(account), &amount.to_le_bytes()[..]))
                };
                user.transact(Vec::new(), vec![add(from, -amount), add(to, amount)]).await;
            }
            _ => _ = transfer(&user, from, to, amount).await,
        }
        user.pause().await;
    }
}

/// Opens the accounts, unless they are.
async fn open(user: &User) -> Option<()> {
    let mut transaction = user.begin().await?;
    let reads = transaction.step(vec![prefix(ACCOUNTS)], Vec::new()).await?;
    if matches!(reads.as_slice(), [ReadResult::Range { items, .. }] if items.is_empty()) {
        let accounts = (0..COUNT).map(|number| set(&account(number), &BALANCE.to_le_bytes()[..]));
        transaction.step(Vec::new(), accounts.collect()).await?;
    }
    transaction.commit().await.reads().map(drop)
}

/// Reads one account after the other; the check takes them for one sight only if they are read at
/// once, the replay looks at each.
async fn audit(user: &User) -> Option<()> {
    let mut transaction = user.begin().await?;
    for number in 0..COUNT {
        transaction.step(vec![key(&account(number))], Vec::new()).await?;
    }
    transaction.step(vec![prefix(ACCOUNTS)], Vec::new()).await?;
    transaction.commit().await.reads().map(drop)
}

async fn transfer(user: &User, from: usize, to: usize, amount: i64) -> Option<()> {
    let mut transaction = user.begin().await?;
    let (from, to) = (account(from), account(to));
    let reads = transaction.step(vec![key(&from), key(&to)], Vec::new()).await?;
    let balance_of = |read: &ReadResult| match read {
        ReadResult::Key { value: Some(value), .. } => Some(balance(value.as_bytes())),
        ReadResult::Key { .. } | ReadResult::Range { .. } => None,
    };
    let balances: Vec<i64> = reads.iter().filter_map(balance_of).collect();
    let [a, b] = balances[..] else { return None };
    let writes = vec![
        set(&from, &(a - amount).to_le_bytes()[..]),
        set(&to, &(b + amount).to_le_bytes()[..]),
    ];
    transaction.step(Vec::new(), writes).await?;
    transaction.commit().await.reads().map(drop)
}

pub(super) fn check(transactions: &[Transaction]) -> Vec<Anomaly> {
    let total = BALANCE * i64::try_from(COUNT).unwrap_or(0);
    let snapshots: Vec<(String, Vec<i64>)> = sights(transactions, ACCOUNTS)
        .into_iter()
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(who, rows)| (who.to_string(), rows.into_values().map(balance).collect()))
        .collect();
    bank::check(total, &snapshots)
}
