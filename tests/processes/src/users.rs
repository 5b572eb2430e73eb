//! Users of transactions over HTTP, and a judge of what they saw: nothing but a strictly serializable
//! store, whatever befalls the cluster meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _, join_all};
use plinth_runtime::Runtime;
use plinth_test_histories::users::{Answer, Lost, User, World};
use plinth_test_histories::{Fate, Journal, Marks, Transaction, examine, look, workloads};

/// The longest pause between two transactions of a user: what all of them leave must fit into one read.
const PAUSE: Duration = Duration::from_millis(120);
/// How long a user waits for an answer. Longer than a gateway's own deadline.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often all is looked at in the end, if need be.
const LOOKS: usize = 10;

struct Gateways {
    runtime: Runtime,
    http: reqwest::Client,
    urls: Vec<String>,
    is_working: Arc<AtomicBool>,
}

impl World for Gateways {
    fn gateways(&self) -> usize {
        self.urls.len()
    }

    fn random(&self) -> u64 {
        self.runtime.random_u64()
    }

    fn is_working(&self) -> bool {
        self.is_working.load(Ordering::Relaxed)
    }

    fn pause(&self) -> Duration {
        PAUSE
    }

    fn post(
        &self,
        gateway: usize,
        path: String,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Answer, Lost>> {
        let request = self
            .http
            .post(format!("{}{path}", self.urls[gateway]))
            .header("content-type", "application/json")
            .body(body);
        async move {
            let lost = |error: reqwest::Error| match error.is_connect() {
                true => Lost::NotSent(error.to_string()),
                false => Lost::Unanswered(error.to_string()),
            };
            let answer = request.send().await.map_err(lost)?;
            let status = answer.status().as_u16();
            let body = answer.bytes().await.map_err(|error| Lost::Unanswered(error.to_string()))?;
            Ok(Answer { status, body })
        }
        .boxed()
    }
}

/// Everybody works until told to stop, then all is looked at once more.
fn use_it(user: &User) -> Result<Marks, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let tasks = workloads::ALL.iter().flat_map(|workload| (workload.start)(user.clone()));
        join_all(tasks).await;
        let mut marks = look(user).await;
        for _ in 1..LOOKS {
            if marks.is_ok() {
                break;
            }
            marks = look(user).await;
        }
        marks
    })
}

/// Users of every workload work at all of the gateways while `act` goes on, which is told what they have
/// done so far. What they saw is judged then, and how much each workload has done is printed.
///
/// # Errors
/// `act` fails, not all can be looked at in the end, a workload has committed nothing, or something was
/// seen that a strictly serializable store does not show: a lost write, a stale read.
pub fn while_they_work(
    gateways: Vec<String>,
    act: impl FnOnce(&Journal) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let journal = Journal::default();
    let is_working = Arc::new(AtomicBool::new(true));
    let world = Gateways {
        runtime: Runtime::real(),
        http: reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?,
        urls: gateways,
        is_working: Arc::clone(&is_working),
    };
    let user = User::new(Arc::new(world), journal.clone(), "users");
    let marks = std::thread::scope(|scope| {
        let users = scope.spawn(|| use_it(&user));
        let acted = act(&journal);
        is_working.store(false, Ordering::Relaxed);
        let panicked = |_| anyhow::Error::msg("the users panicked");
        let marks = users.join().map_err(panicked)?.map_err(anyhow::Error::msg);
        acted.and(marks)
    })?;
    let wrong = examine(&journal, Some(&marks));
    ensure!(wrong.is_empty(), "{wrong:#?}");
    let transactions = journal.transactions();
    let count = |is_it: &dyn Fn(&&Transaction) -> bool| transactions.iter().filter(is_it).count();
    for workload in workloads::ALL {
        let of = |transaction: &&Transaction| transaction.workload == workload.name;
        let committed = count(&|transaction| of(transaction) && transaction.is_committed());
        println!("  {}: {committed} of {} committed", workload.name, count(&of));
        ensure!(committed > 0, "{} has done nothing", workload.name);
    }
    let unknown = count(&|transaction| matches!(transaction.fate, Fate::Unknown(_)));
    println!("  {} transactions, {unknown} of unknown fate", transactions.len());
    Ok(())
}
