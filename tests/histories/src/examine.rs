//! The end of a history: a last look at everything there is, and all checks.

use std::collections::BTreeMap;

use plinth_api::gateway::{ReadResult, Reading};
use plinth_types::{Key, Versionstamp};

use crate::Anomaly;
use crate::checks::{real_time, replay};
use crate::history::{Journal, settle};
use crate::users::{MARKS, PREFIX, User};
use crate::workloads;

/// The workload that the last look belongs to.
pub(crate) const LOOK: &str = "last look";
/// The most rows that a look may bring, which is the gateway's limit.
const ROWS: u32 = 10_000;

/// The marks of all transactions that took effect.
pub type Marks = BTreeMap<String, Versionstamp>;

/// Reads, in one transaction, everything that transactions have left, and answers their marks. It is
/// noted and checked like every other read. Nothing may be under way any more.
///
/// # Errors
/// It was not answered, or there is too much.
pub async fn look(user: &User) -> Result<Marks, String> {
    let everything =
        Reading { prefix: Some(PREFIX.into()), limit: Some(ROWS), ..Reading::default() };
    let reads = user.in_workload(LOOK).transact(vec![everything], Vec::new()).await.reads();
    let Some([ReadResult::Range { items, more, .. }]) = reads.as_deref() else {
        return Err("the last look is not answered".to_owned());
    };
    if *more {
        return Err(format!("there are more than {ROWS} rows: users do too much for a last look"));
    }
    let text = |key: &Key| String::from_utf8_lossy(key.as_bytes()).into_owned();
    let marks = items.iter().filter(|item| item.key.as_bytes().starts_with(MARKS.as_bytes()));
    let marks = marks.filter_map(|item| {
        Some((text(&item.key), Versionstamp::from_prefix(item.value.as_bytes())?))
    });
    Ok(marks.collect())
}

/// Answers all that is wrong. Without a last look, what needs the fate of every transaction is not
/// checked.
#[must_use]
pub fn examine(journal: &Journal, marks: Option<&Marks>) -> Vec<Anomaly> {
    let mut wrong = journal.complaints();
    let mut transactions = journal.transactions();
    if let Some(marks) = marks {
        wrong.extend(settle(&mut transactions, marks));
    }
    for workload in workloads::ALL {
        wrong.extend((workload.check)(&transactions));
    }
    wrong.extend(real_time::check(&transactions));
    if marks.is_some() {
        wrong.extend(replay::check(&transactions));
    }
    wrong
}
