//! What the examples share: how they are started, how long they run, and what a transaction of
//! theirs may fail with. The examples themselves are in `src/bin`.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use plinth_client::{
    ClientError, Database, Key, KeyRange, RangeOptions, Runtime, Secret, Transaction,
    TransactionError, Value,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long the cluster may take for a transaction: long enough for a recovery.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often an example says how far it is.
const PERIOD: Duration = Duration::from_millis(500);

/// The command line of every example.
#[derive(Clone, Debug, Parser)]
pub struct Args {
    /// Gateways or coordinators of the cluster, http://host:port.
    #[arg(required = true)]
    pub urls: Vec<String>,
    /// The file that holds the cluster's secret.
    #[arg(long, default_value = "data/secret")]
    pub secret_file: PathBuf,
    /// How long to run, unless Ctrl-C comes first.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
}

impl Args {
    /// Connects to the cluster.
    ///
    /// # Errors
    /// The secret can't be read, or there is no connection.
    pub async fn connect(&self) -> anyhow::Result<Database> {
        let secret = Secret::from_file(&self.secret_file)?;
        Ok(Database::connect(&Runtime::real(), &self.urls, Some(secret), PATIENCE).await?)
    }

    async fn end(&self) -> io::Result<()> {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs_f64(self.seconds)) => Ok(()),
            interrupt = tokio::signal::ctrl_c() => interrupt,
        }
    }
}

/// The workers of an example.
pub struct Crew<T> {
    tasks: JoinSet<anyhow::Result<T>>,
    stop: watch::Sender<bool>,
}

impl<T: Send + 'static> Default for Crew<T> {
    fn default() -> Self {
        Crew { tasks: JoinSet::new(), stop: watch::Sender::new(false) }
    }
}

impl<T: Send + 'static> Crew<T> {
    /// Adds a worker, which begins at once. What it gives is what it has done.
    pub fn add<F>(&mut self, worker: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = anyhow::Result<T>> + Send + 'static,
    {
        self.tasks.spawn(worker(Stop(self.stop.subscribe())));
    }

    /// Lets them work until the time is over, Ctrl-C comes, or one of them fails.
    ///
    /// # Errors
    /// The first failure.
    pub async fn run(
        mut self,
        args: &Args,
        progress: impl Fn() -> String,
    ) -> anyhow::Result<Vec<T>> {
        let mut done = Vec::new();
        let mut ticks = tokio::time::interval(PERIOD);
        let mut end = std::pin::pin!(args.end());
        while !*self.stop.borrow() {
            tokio::select! {
                over = &mut end => {
                    over?;
                    self.stop.send_replace(true);
                }
                _ = ticks.tick() => println!("{}", progress()),
                Some(result) = self.tasks.join_next() => done.push(result??),
            }
        }
        while let Some(result) = self.tasks.join_next().await {
            done.push(result??);
        }
        Ok(done)
    }
}

/// Says when to stop.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Whether it is time.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        *self.0.borrow()
    }
}

/// The keys that begin with a text that ends in a slash.
#[must_use]
pub fn below(prefix: &str) -> KeyRange {
    // `0` follows `/`.
    KeyRange::new(
        Key::from(prefix),
        Key::from(format!("{}0", &prefix[..prefix.len() - 1]).as_str()),
    )
}

/// Every key of a range with its value, as they are at one version.
///
/// # Errors
/// The cluster's reason.
pub async fn list(
    transaction: &Transaction,
    range: &KeyRange,
) -> Result<Vec<(Key, Value)>, ClientError> {
    let mut rest = range.clone();
    let mut found = Vec::new();
    loop {
        let page = transaction.get_range(&rest, RangeOptions::default()).await?;
        found.extend(page.items.into_iter().map(|item| (item.key, item.value)));
        match found.last() {
            Some((last, _)) if page.more => rest.from = last.successor(),
            _ => return Ok(found),
        }
    }
}

/// What a value says in text.
///
/// # Errors
/// It says something else.
pub fn parse<T: FromStr>(value: &Value) -> anyhow::Result<T> {
    let text = std::str::from_utf8(value.as_bytes())?;
    text.parse().ok().with_context(|| format!("{text:?} is not what is kept here"))
}

/// Why a transaction of an example ended: the cluster's reason, for which [`Database::run`] runs it
/// again where that helps, or the example's own.
#[derive(Debug)]
pub enum Failed {
    /// The cluster's.
    Client(ClientError),
    /// The example's.
    Own(anyhow::Error),
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Failed {
        Failed::Client(error)
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Failed {
        Failed::Own(error)
    }
}

impl From<Failed> for anyhow::Error {
    fn from(failed: Failed) -> anyhow::Error {
        match failed {
            Failed::Client(error) => error.into(),
            Failed::Own(error) => error,
        }
    }
}

impl TransactionError for Failed {
    fn client_error(&self) -> Option<&ClientError> {
        match self {
            Failed::Client(error) => Some(error),
            Failed::Own(_) => None,
        }
    }
}
