//! What users of transactions see while epochs end: nothing but a strictly serializable store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _, join_all};
use plinth_api::director::LiveLayout;
use plinth_runtime::Runtime;
use plinth_test_histories::users::{Answer, Lost, User, World};
use plinth_test_histories::{Fate, Journal, Transaction, examine, look, workloads};
use plinth_test_processes::{Cluster, eventually};

use crate::Outcome;

/// The longest pause between two transactions of a user: what all of them leave must fit into one read.
const PAUSE: Duration = Duration::from_millis(120);
/// How long a user waits for an answer. Longer than a gateway's own deadline.
const PATIENCE: Duration = Duration::from_secs(10);
/// What must be acknowledged between two ends of epochs.
const COMMITS: usize = 150;
/// How often each kind of end comes.
const ROUNDS: usize = 3;

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
fn use_it(user: &User) -> Result<plinth_test_histories::Marks, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let tasks = workloads::ALL.iter().flat_map(|workload| (workload.start)(user.clone()));
        join_all(tasks).await;
        let mut marks = look(user).await;
        for _ in 0..10 {
            if marks.is_ok() {
                break;
            }
            marks = look(user).await;
        }
        marks
    })
}

/// Ends one epoch after the other, each once enough was committed in it.
fn end_epochs(cluster: &Cluster, journal: &Journal) -> Outcome {
    let mut epoch = cluster.epoch()?;
    let ends = ["nothing", "commit-proxy", "sequencer", "log", "director"];
    for what in ends.into_iter().cycle().take(ROUNDS * ends.len()) {
        let before = journal.acknowledged();
        eventually("commits", || {
            let acknowledged = journal.acknowledged();
            ensure!(acknowledged >= before + COMMITS, "{acknowledged} after {before}");
            Ok(())
        })?;
        if what == "nothing" {
            cluster.begin_recovery("a test of histories")?;
        } else {
            let layout: LiveLayout = cluster.get_json("/v1/layout")?;
            let mut serving = layout.directory.into_iter();
            let victim = serving.find(|placed| placed.service.kind().as_str() == what);
            cluster.kill(victim.with_context(|| format!("no {what} serves"))?.pid.os_pid)?;
        }
        epoch = cluster.ready_above(epoch).with_context(|| format!("{what} killed"))?;
    }
    Ok(())
}

#[test]
fn histories_over_the_ends_of_epochs_are_strictly_serializable() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let journal = Journal::default();
    let is_working = Arc::new(AtomicBool::new(true));
    let world = Gateways {
        runtime: Runtime::real(),
        http: reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?,
        urls: cluster.ready.gateways.clone(),
        is_working: Arc::clone(&is_working),
    };
    let user = User::new(Arc::new(world), journal.clone(), "users");
    let marks = std::thread::scope(|scope| {
        let users = scope.spawn(|| use_it(&user));
        let ended = end_epochs(&cluster, &journal);
        is_working.store(false, Ordering::Relaxed);
        let marks = users.join().expect("no panic").map_err(anyhow::Error::msg);
        ended.and(marks)
    })?;
    let wrong = examine(&journal, Some(&marks));
    ensure!(wrong.is_empty(), "{wrong:#?}");
    let transactions = journal.transactions();
    let count = |is_it: &dyn Fn(&&Transaction) -> bool| transactions.iter().filter(is_it).count();
    for workload in workloads::ALL {
        let of = |transaction: &&Transaction| transaction.workload == workload.name;
        let committed = count(&|transaction| of(transaction) && transaction.is_committed());
        eprintln!("{}: {committed} of {} committed", workload.name, count(&of));
        ensure!(committed > 0, "{} has done nothing", workload.name);
    }
    let unknown = count(&|transaction| matches!(transaction.fate, Fate::Unknown(_)));
    eprintln!("{} transactions, {unknown} of unknown fate", transactions.len());
    cluster.stop()
}
