//! A work queue: jobs are handed out in the order in which they were committed, each to one worker.
//!
//! A job's key ends in the versionstamp of its commit, so the first key is the oldest job, and two
//! producers never meet. A worker takes the first job: it removes it and enters it in the record, in
//! one transaction. The record's keys are versionstamps too: they are the order of taking. At the
//! end that must be the order of the jobs, with each of them there once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser as _;
use plinth_client::{Database, Isolation, Key, RangeOptions, Transaction, Value, Versionstamp};
use plinth_examples::{Args, Crew, Failed, PATIENCE, Stop, below, list, parse};

/// Jobs that may wait; producers hold back beyond that.
const LONGEST: usize = 100;
/// How long a worker that finds nothing waits for the signal, and a producer that holds back.
const PAUSE: Duration = Duration::from_millis(500);
/// Written with every job, so that idle workers can watch it.
const SIGNAL: &str = "queue/signal";

/// A key whose last bytes will be the commit's versionstamp, and where they begin.
fn stamped(prefix: &str) -> (Key, usize) {
    let key = [prefix.as_bytes(), &[0; Versionstamp::LENGTH]].concat();
    (Key::from(key), prefix.len())
}

/// The versionstamp of a key.
fn stamp(prefix: &str, key: &Key) -> anyhow::Result<Versionstamp> {
    let rest = key.as_bytes().strip_prefix(prefix.as_bytes());
    rest.and_then(Versionstamp::from_prefix).with_context(|| format!("{key} has no versionstamp"))
}

async fn enqueue(database: &Database, job: &str) -> anyhow::Result<()> {
    let (key, offset) = stamped("queue/jobs/");
    let written = database.run(PATIENCE, async |transaction: Transaction| {
        transaction.set_versionstamped_key(&key, offset, &Value::from(job))?;
        transaction.set(&Key::from(SIGNAL), &Value::from(job))?;
        Ok::<_, Failed>(())
    });
    Ok(written.await?)
}

/// The oldest job, taken by nobody else; none where no job waits.
async fn take(database: &Database) -> anyhow::Result<Option<String>> {
    let (record, offset) = stamped("queue/taken/");
    let taken = database.run(PATIENCE, async |transaction: Transaction| {
        let first = RangeOptions { limit: 1, ..RangeOptions::default() };
        let found = transaction.get_range(&below("queue/jobs/"), first).await?;
        let Some(job) = found.items.into_iter().next() else { return Ok(None) };
        transaction.clear(&job.key)?;
        transaction.set_versionstamped_key(&record, offset, &Value(job.key.0.clone()))?;
        Ok::<_, Failed>(Some(parse(&job.value)?))
    });
    Ok(taken.await?)
}

/// Jobs that wait, up to so many.
async fn waiting(database: &Database) -> anyhow::Result<usize> {
    let counted = database.run(PATIENCE, async |transaction: Transaction| {
        let options = RangeOptions {
            limit: LONGEST,
            isolation: Isolation::Snapshot,
            ..RangeOptions::default()
        };
        let found = transaction.get_range(&below("queue/jobs/"), options).await?;
        Ok::<_, Failed>(found.items.len())
    });
    Ok(counted.await?)
}

async fn producer(database: Database, name: u64, stop: Stop) -> anyhow::Result<Vec<String>> {
    let mut produced = Vec::new();
    while !stop.is_asked() {
        if waiting(&database).await? >= LONGEST {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let job = format!("{name}-{}", produced.len());
        enqueue(&database, &job).await?;
        produced.push(job);
    }
    Ok(produced)
}

async fn worker(
    database: Database,
    taken: Arc<AtomicU64>,
    stop: Stop,
) -> anyhow::Result<Vec<String>> {
    let mut done = Vec::new();
    while !stop.is_asked() {
        let seen = database.get(&Key::from(SIGNAL), PATIENCE).await?;
        match take(&database).await? {
            Some(job) => {
                done.push(job);
                taken.fetch_add(1, Ordering::Relaxed);
            }
            // A job that came since then has changed the signal.
            None => _ = database.watch(&Key::from(SIGNAL), &seen, PAUSE).await?,
        }
    }
    Ok(done)
}

/// Compares what was produced and what was handed out with the record.
async fn check(
    database: &Database,
    produced: &[String],
    handed_out: &[String],
) -> anyhow::Result<()> {
    let taken = database.run(PATIENCE, async |transaction: Transaction| {
        Ok::<_, Failed>(list(&transaction, &below("queue/taken/")).await?)
    });
    let mut jobs = Vec::new();
    for (_, job) in taken.await? {
        jobs.push(stamp("queue/jobs/", &Key(job.0))?);
    }
    ensure!(jobs.is_sorted_by(|a, b| a < b), "jobs were taken out of order, or twice: {jobs:?}");
    ensure!(jobs.len() == produced.len(), "{} of {} are recorded", jobs.len(), produced.len());
    let produced: BTreeSet<&String> = produced.iter().collect();
    let set: BTreeSet<&String> = handed_out.iter().collect();
    ensure!(set.len() == handed_out.len(), "a job was handed out twice");
    ensure!(set == produced, "produced and handed out differ");
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let database = args.connect().await?;
    let cleared = database.run(PATIENCE, async |transaction: Transaction| {
        Ok::<_, Failed>(transaction.clear_range(&below("queue/"))?)
    });
    cleared.await?;
    let taken = Arc::new(AtomicU64::new(0));
    let mut crew = Crew::default();
    for name in 0..3 {
        crew.add(|stop| {
            let produced = producer(database.clone(), name, stop);
            async { Ok((produced.await?, Vec::new())) }
        });
    }
    for _ in 0..3 {
        crew.add(|stop| {
            let done = worker(database.clone(), Arc::clone(&taken), stop);
            async { Ok((Vec::new(), done.await?)) }
        });
    }
    let progress = || format!("{} jobs taken", taken.load(Ordering::Relaxed));
    let (produced, handed_out): (Vec<_>, Vec<_>) =
        crew.run(&args, progress).await?.into_iter().unzip();
    let (produced, mut handed_out) = (produced.concat(), handed_out.concat());
    while let Some(job) = take(&database).await? {
        handed_out.push(job);
    }
    check(&database, &produced, &handed_out).await?;
    println!("closed: {} jobs, each taken once and in order", produced.len());
    Ok(())
}
