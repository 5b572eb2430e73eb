//! A bank: transfers that never lose or make money, and auditors that look on.
//!
//! Tellers move money between accounts, several at a time, each transfer with an entry in the
//! ledger. The transaction is run again until it conflicts with no other, and takes effect once
//! whatever fails on the way. Auditors add up all accounts as they are at one version. At the end
//! the ledger accounts for every balance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{bail, ensure};
use clap::Parser as _;
use plinth_client::{Database, Key, Transaction, Value};
use plinth_examples::{Args, Crew, Failed, PATIENCE, Stop, below, list, parse};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

const ACCOUNTS: i64 = 8;
const DEPOSIT: i64 = 100;

fn account(number: i64) -> Key {
    Key::from(format!("bank/accounts/{number:02}").as_str())
}

fn money(amount: i64) -> Value {
    Value::from(amount.to_string().as_str())
}

/// Forgets the last bank, and gives each account its deposit.
async fn open(database: &Database) -> anyhow::Result<()> {
    let opened = database.run(PATIENCE, async |transaction: Transaction| {
        transaction.clear_range(&below("bank/"))?;
        for number in 0..ACCOUNTS {
            transaction.set(&account(number), &money(DEPOSIT))?;
        }
        Ok::<_, Failed>(())
    });
    Ok(opened.await?)
}

/// What an account has.
async fn balance(transaction: &Transaction, account: &Key) -> Result<i64, Failed> {
    let value = transaction.get(account).await?.unwrap_or_default();
    Ok(parse(&value)?)
}

/// Moves money, if the payer has so much. Says whether it did.
async fn transfer(
    database: &Database,
    name: &str,
    (payer, payee): (i64, i64),
    amount: i64,
) -> anyhow::Result<bool> {
    let (from, to) = (account(payer), account(payee));
    let entry = Key::from(format!("bank/ledger/{name}").as_str());
    let moved = database.run(PATIENCE, async |transaction: Transaction| {
        let had = balance(&transaction, &from).await?;
        let got = balance(&transaction, &to).await?;
        if had < amount {
            return Ok::<_, Failed>(false);
        }
        transaction.set(&from, &money(had - amount))?;
        transaction.set(&to, &money(got + amount))?;
        transaction.set(&entry, &Value::from(format!("{payer} {payee} {amount}").as_str()))?;
        Ok(true)
    });
    Ok(moved.await?)
}

/// All balances, and the entries of the ledger.
async fn books(
    database: &Database,
    with_ledger: bool,
) -> anyhow::Result<(BTreeMap<Key, i64>, Vec<Value>)> {
    let read = database.run(PATIENCE, async |transaction: Transaction| {
        let accounts = list(&transaction, &below("bank/accounts/")).await?;
        let ledger = if with_ledger {
            list(&transaction, &below("bank/ledger/")).await?
        } else {
            Vec::new()
        };
        Ok::<_, Failed>((accounts, ledger))
    });
    let (accounts, ledger) = read.await?;
    let accounts = accounts
        .into_iter()
        .map(|(key, value)| Ok((key, parse(&value)?)))
        .collect::<Result<_, anyhow::Error>>()?;
    Ok((accounts, ledger.into_iter().map(|(_, entry)| entry).collect()))
}

/// The balances that follow from the ledger.
fn follow(ledger: &[Value]) -> anyhow::Result<BTreeMap<Key, i64>> {
    let mut balances: BTreeMap<Key, i64> =
        (0..ACCOUNTS).map(|number| (account(number), DEPOSIT)).collect();
    for entry in ledger {
        let text: String = parse(entry)?;
        let numbers: Vec<i64> = text.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [payer, payee, amount] = numbers[..] else { bail!("{text:?} is no entry") };
        *balances.entry(account(payer)).or_default() -= amount;
        *balances.entry(account(payee)).or_default() += amount;
    }
    Ok(balances)
}

async fn teller(
    database: Database,
    number: u64,
    made: Arc<AtomicU64>,
    stop: Stop,
) -> anyhow::Result<u64> {
    let mut lot = StdRng::seed_from_u64(number);
    let mut transfers = 0;
    for attempt in 0_u64.. {
        if stop.is_asked() {
            break;
        }
        let payer = lot.random_range(0..ACCOUNTS);
        let payee = (payer + lot.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let amount = lot.random_range(1..=20);
        let name = format!("{number}-{attempt}");
        if transfer(&database, &name, (payer, payee), amount).await? {
            transfers += 1;
            made.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(transfers)
}

async fn auditor(database: Database, made: Arc<AtomicU64>, stop: Stop) -> anyhow::Result<u64> {
    while !stop.is_asked() {
        let total: i64 = books(&database, false).await?.0.values().sum();
        ensure!(total == ACCOUNTS * DEPOSIT, "the auditor finds {total}");
        made.fetch_add(1, Ordering::Relaxed);
    }
    Ok(0)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let database = args.connect().await?;
    open(&database).await?;
    let (transfers, audits) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut crew = Crew::default();
    for number in 0..4 {
        crew.add(|stop| teller(database.clone(), number, Arc::clone(&transfers), stop));
    }
    for _ in 0..2 {
        crew.add(|stop| auditor(database.clone(), Arc::clone(&audits), stop));
    }
    let progress = || {
        let count = |what: &AtomicU64| what.load(Ordering::Relaxed);
        format!("{} transfers, {} audits", count(&transfers), count(&audits))
    };
    let acknowledged: u64 = crew.run(&args, &progress).await?.into_iter().sum();

    let (balances, ledger) = books(&database, true).await?;
    let entries = ledger.len() as u64;
    ensure!(entries == acknowledged, "{acknowledged} transfers were made, {entries} are entered");
    let expected = follow(&ledger)?;
    ensure!(balances == expected, "the ledger says {expected:?}, the accounts {balances:?}");
    println!("closed: {}, all of {}", progress(), balances.values().sum::<i64>());
    Ok(())
}
