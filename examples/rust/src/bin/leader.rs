//! Leader election: who first writes the key leads; the others watch it.
//!
//! The key holds the leader's term, its name and a count that it raises while it lives. A follower
//! watches the key. Where it goes, or does not change for a lease's time, the follower stands for
//! the next term. No clock decides who leads: every act of a leader is a transaction that also reads
//! the key, so one that was deposed while it slept acts no more. Leaders here resign, or fall silent
//! and are deposed. At the end the acts, in the order of their commits, must be of one leader at a
//! time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser as _;
use plinth_client::{Database, Key, Read, Transaction, Value, Versionstamp};
use plinth_examples::{Args, Crew, Failed, PATIENCE, Stop, below, list, parse};

/// A leader that shows no life for so long is deposed.
const LEASE: Duration = Duration::from_millis(500);
/// How often a leader acts in its term before it goes.
const ACTS: u64 = 10;

fn key() -> Key {
    Key::from("election/leader")
}

/// A term of a leader. Terms only grow.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    number: u64,
    leader: String,
}

impl Term {
    fn value(&self, beat: u64) -> Value {
        Value::from(format!("{} {} {beat}", self.number, self.leader).as_str())
    }

    fn of(value: &Value) -> anyhow::Result<Term> {
        let text: String = parse(value)?;
        let mut words = text.split(' ');
        let number = words.next().unwrap_or_default().parse().context("no term")?;
        Ok(Term { number, leader: words.next().context("no leader")?.to_owned() })
    }
}

/// Stands for the next term, against nobody but whom it has seen. None where another was quicker.
async fn stand(database: &Database, name: &str, seen: &Read) -> anyhow::Result<Option<Term>> {
    let won = database.run(PATIENCE, async |transaction: Transaction| {
        if transaction.get(&key()).await? != seen.value {
            return Ok(None);
        }
        let last = Key::from("election/term");
        let number = match transaction.get(&last).await? {
            Some(value) => parse::<u64>(&value)? + 1,
            None => 1,
        };
        let term = Term { number, leader: name.to_owned() };
        transaction.set(&last, &Value::from(number.to_string().as_str()))?;
        transaction.set(&key(), &term.value(0))?;
        Ok::<_, Failed>(Some(term))
    });
    Ok(won.await?)
}

/// Does something that only the leader may do, and shows that it lives. Says whether it still led.
async fn act(database: &Database, term: &Term, beat: u64) -> anyhow::Result<bool> {
    let prefix = "election/acts/";
    let entry = Key::from([prefix.as_bytes(), &[0; Versionstamp::LENGTH]].concat());
    let acted = database.run(PATIENCE, async |transaction: Transaction| {
        if !leads(&transaction, term).await? {
            return Ok(false);
        }
        transaction.set(&key(), &term.value(beat))?;
        transaction.set_versionstamped_key(&entry, prefix.len(), &term.value(beat))?;
        Ok::<_, Failed>(true)
    });
    Ok(acted.await?)
}

async fn resign(database: &Database, term: &Term) -> anyhow::Result<()> {
    let resigned = database.run(PATIENCE, async |transaction: Transaction| {
        if leads(&transaction, term).await? {
            transaction.clear(&key())?;
        }
        Ok::<_, Failed>(())
    });
    Ok(resigned.await?)
}

async fn leads(transaction: &Transaction, term: &Term) -> Result<bool, Failed> {
    Ok(match transaction.get(&key()).await? {
        Some(value) => Term::of(&value)? == *term,
        None => false,
    })
}

/// Leads for a term: acts, then resigns; every third term it falls silent, wakes up deposed, and
/// tries to act all the same.
async fn lead(database: &Database, term: &Term, stop: &Stop) -> anyhow::Result<()> {
    for beat in 1..=ACTS {
        if !act(database, term, beat).await? {
            return Ok(());
        }
    }
    if !term.number.is_multiple_of(3) {
        return resign(database, term).await;
    }
    while leader(database).await?.is_some_and(|leader| leader == *term) {
        // The others may have gone home.
        if stop.is_asked() {
            return Ok(());
        }
        tokio::time::sleep(LEASE).await;
    }
    ensure!(!act(database, term, ACTS + 1).await?, "{term:?} has acted after it was deposed");
    Ok(())
}

async fn leader(database: &Database) -> anyhow::Result<Option<Term>> {
    database.get(&key(), PATIENCE).await?.value.as_ref().map(Term::of).transpose()
}

async fn candidate(
    database: Database,
    name: String,
    terms: Arc<AtomicU64>,
    stop: Stop,
) -> anyhow::Result<()> {
    while !stop.is_asked() {
        let seen = database.get(&key(), PATIENCE).await?;
        if seen.value.is_some() && database.watch(&key(), &seen, LEASE).await?.is_some() {
            continue;
        }
        if let Some(term) = stand(&database, &name, &seen).await? {
            terms.fetch_max(term.number, Ordering::Relaxed);
            lead(&database, &term, &stop).await?;
        }
    }
    Ok(())
}

/// The number of acts. They must be of one leader at a time.
async fn check(database: &Database) -> anyhow::Result<usize> {
    let acts = database.run(PATIENCE, async |transaction: Transaction| {
        Ok::<_, Failed>(list(&transaction, &below("election/acts/")).await?)
    });
    let acts = acts.await?;
    let mut current = Term { number: 0, leader: String::new() };
    for (_, act) in &acts {
        let term = Term::of(act)?;
        ensure!(
            term == current || term.number > current.number,
            "{term:?} has acted in the time of {current:?}"
        );
        current = term;
    }
    Ok(acts.len())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let database = args.connect().await?;
    let cleared = database.run(PATIENCE, async |transaction: Transaction| {
        Ok::<_, Failed>(transaction.clear_range(&below("election/"))?)
    });
    cleared.await?;
    let terms = Arc::new(AtomicU64::new(0));
    let mut crew = Crew::default();
    for name in ["ada", "bert", "cleo"] {
        crew.add(|stop| candidate(database.clone(), name.to_owned(), Arc::clone(&terms), stop));
    }
    crew.run(&args, || format!("{} terms", terms.load(Ordering::Relaxed))).await?;
    let acts = check(&database).await?;
    let terms = terms.load(Ordering::Relaxed);
    println!("closed: {terms} terms, {acts} acts, one leader at a time");
    Ok(())
}
