//! Versionstamps in keys and in values: unique, in the order of commits, and what the commit is told
//! to be. By key they make a queue, to which later ones are only ever added at the end.

use futures::future::{BoxFuture, FutureExt as _};
use plinth_api::gateway::{Change, Stamping};
use plinth_types::Versionstamp;

use super::rows::{prefix, sights, stamped_key};
use crate::Anomaly;
use crate::history::{Fate, Transaction};
use crate::users::User;

pub(super) const NAME: &str = "stamps";
const KEYS: &str = "t/stamps/";
const QUEUE: &str = "t/stamps/queue/";
const VALUES: &str = "t/stamps/values/";
const USERS: usize = 2;

pub(super) fn start(user: User) -> Vec<BoxFuture<'static, ()>> {
    let user = user.in_workload(NAME);
    (0..USERS).map(|_| run(user.clone()).boxed()).collect()
}

async fn run(user: User) {
    while user.is_working() {
        if user.one_in(4) {
            user.transact(vec![prefix(KEYS)], Vec::new()).await;
        } else {
            let number = user.number();
            let key = format!("{VALUES}{number:08}").as_str().into();
            let value = [b"at ".as_slice(), &[0; Versionstamp::LENGTH]].concat().into();
            let value = Change::SetVersionstampedValue(Stamping { key, value, offset: 3 });
            let entry = stamped_key(QUEUE, &[], &number.to_string());
            user.transact(Vec::new(), vec![entry, value]).await;
        }
        user.pause().await;
    }
}

/// What was in the queue at one version is the beginning of what is in it at every later one.
pub(super) fn check(transactions: &[Transaction]) -> Vec<Anomaly> {
    let mut queues: Vec<_> = sights(transactions, QUEUE)
        .into_iter()
        .filter_map(|(who, rows)| match who.fate {
            Fate::Committed { version, .. } => Some((version, who, rows)),
            Fate::Refused(_) | Fate::Unknown(_) => None,
        })
        .collect();
    queues.sort_by_key(|(version, ..)| *version);
    let broken = queues.windows(2).find(|pair| {
        let (_, _, before) = &pair[0];
        let (_, _, after) = &pair[1];
        !before.iter().eq(after.iter().take(before.len()))
    });
    let seen = |pair: &[_]| {
        let [(_, before, _), (_, after, _)] = pair else { return String::new() };
        let (before, after): (&&Transaction, &&Transaction) = (before, after);
        format!("what {before} saw is not the beginning of what {after} saw")
    };
    broken.map(|pair| Anomaly::new(NAME, seen(pair))).into_iter().collect()
}
