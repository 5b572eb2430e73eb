//! Registers: a few keys that are read, written blindly, and written after they were read.

use std::collections::BTreeMap;

use futures::future::{BoxFuture, FutureExt as _};
use plinth_api::gateway::{Change, ReadResult};

use super::rows::{key, set};
use super::set::outcome;
use crate::Anomaly;
use crate::checks::registers::{self, Action, Operation, Outcome};
use crate::history::Transaction;
use crate::users::User;

pub(super) const NAME: &str = "registers in transactions";
const KEYS: &str = "t/registers/";
const COUNT: usize = 3;
const USERS: usize = 3;

pub(super) fn start(user: User) -> Vec<BoxFuture<'static, ()>> {
    let user = user.in_workload(NAME);
    (0..USERS).map(|_| run(user.clone()).boxed()).collect()
}

async fn run(user: User) {
    while user.is_working() {
        let register = format!("{KEYS}{}", user.below(COUNT));
        let value = format!("{}", user.number());
        match user.below(4) {
            0 => _ = user.transact(Vec::new(), vec![set(&register, &*value)]).await,
            1 => _ = user.transact(vec![key(&register)], vec![set(&register, &*value)]).await,
            2 => _ = exchange(&user, &register, &value).await,
            _ => _ = user.transact(vec![key(&register)], Vec::new()).await,
        }
        user.pause().await;
    }
}

async fn exchange(user: &User, register: &str, value: &str) -> Option<()> {
    let mut transaction = user.begin().await?;
    transaction.step(vec![key(register)], Vec::new()).await?;
    transaction.step(Vec::new(), vec![set(register, value)]).await?;
    transaction.commit().await.reads().map(drop)
}

pub(super) fn check(transactions: &[Transaction]) -> Vec<Anomaly> {
    let mut operations: BTreeMap<String, Vec<Operation<Vec<u8>>>> = BTreeMap::new();
    for transaction in transactions.iter().filter(|transaction| transaction.workload == NAME) {
        let (began, ended) = (transaction.began, transaction.ended);
        let mut note = |key: &[u8], outcome, action| {
            let register = String::from_utf8_lossy(key).into_owned();
            let operation = Operation { began, ended, outcome, action };
            operations.entry(register).or_default().push(operation);
        };
        for (_, result) in transaction.reads() {
            if let ReadResult::Key { key, value } = result {
                let value = value.as_ref().map(|value| value.as_bytes().to_vec());
                note(key.as_bytes(), Outcome::Acknowledged, Action::Read(value));
            }
        }
        for change in transaction.changes() {
            if let Change::Set(setting) = change {
                let value = setting.value.as_bytes().to_vec();
                note(setting.key.as_bytes(), outcome(transaction), Action::Write(value));
            }
        }
    }
    operations
        .iter()
        .flat_map(|(register, operations)| registers::check(register, operations))
        .collect()
}
