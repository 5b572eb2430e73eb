//! A set: users add elements, each a key of its own, and read the whole of it, from either end.

use std::collections::BTreeSet;

use futures::future::{BoxFuture, FutureExt as _};

use super::rows::{prefix, set, sights, text};
use crate::Anomaly;
use crate::checks::sets::{self, Addition, Outcome, Sight};
use crate::history::{Fate, Transaction};
use crate::users::User;
use plinth_api::gateway::{Change, Reading};

pub(super) const NAME: &str = "set";
const ELEMENTS: &str = "t/set/";
const USERS: usize = 2;

pub(super) fn start(user: User) -> Vec<BoxFuture<'static, ()>> {
    let user = user.in_workload(NAME);
    (0..USERS).map(|_| run(user.clone()).boxed()).collect()
}

async fn run(user: User) {
    while user.is_working() {
        if user.one_in(3) {
            let reverse = user.one_in(2);
            user.transact(vec![Reading { reverse, ..prefix(ELEMENTS) }], Vec::new()).await;
        } else {
            let element = format!("{ELEMENTS}{:08}", user.number());
            user.transact(Vec::new(), vec![set(&element, "")]).await;
        }
        user.pause().await;
    }
}

fn element(key: &[u8]) -> u64 {
    text(&key[ELEMENTS.len()..]).parse().unwrap_or(u64::MAX)
}

pub(super) fn check(transactions: &[Transaction]) -> Vec<Anomaly> {
    let additions: Vec<Addition> = transactions
        .iter()
        .flat_map(|transaction| {
            transaction.changes().filter_map(|change| match change {
                Change::Set(setting) if setting.key.as_bytes().starts_with(ELEMENTS.as_bytes()) => {
                    Some(Addition {
                        element: element(setting.key.as_bytes()),
                        began: transaction.began,
                        ended: transaction.ended,
                        outcome: outcome(transaction),
                    })
                }
                _ => None,
            })
        })
        .collect();
    let sights: Vec<Sight> = sights(transactions, ELEMENTS)
        .into_iter()
        .map(|(transaction, rows)| Sight {
            began: transaction.began,
            ended: transaction.ended,
            elements: rows.into_keys().map(element).collect::<BTreeSet<u64>>(),
        })
        .collect();
    sets::check(&additions, &sights)
}

/// What became of a transaction. One whose fate was only found out later may have taken effect after
/// its end.
pub(super) fn outcome(transaction: &Transaction) -> Outcome {
    match transaction.fate {
        Fate::Committed { .. } if transaction.is_late => Outcome::Unknown,
        Fate::Committed { .. } => Outcome::Acknowledged,
        Fate::Refused(_) => Outcome::Refused,
        Fate::Unknown(_) => Outcome::Unknown,
    }
}
