//! The programs in examples/ that run on their own, against a real cluster that recovers under them.
//! They check themselves; here what they have left in the cluster is looked at once more.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};

use anyhow::{Context as _, bail, ensure};
use plinth_test_processes::{Cluster, PATIENCE, eventually, executable, python, signal};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

use crate::Outcome;

/// An example that says twice a second how much it has done: `17 transfers, 3 audits`.
struct Example {
    child: Child,
    lines: Receiver<String>,
    errors: ChildStderr,
}

impl Example {
    fn start(mut command: Command) -> anyhow::Result<Example> {
        command.args(["--seconds", "3600"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let errors = child.stderr.take().context("no standard error")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Ok(Example { child, lines, errors })
    }

    /// Waits until it has done more than so much, and says how much.
    fn done_more_than(&mut self, known: u64) -> anyhow::Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let number = line.split(' ').next().unwrap_or_default().parse();
                    let done: u64 = number.with_context(|| line.clone())?;
                    if done > known {
                        return Ok(done);
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("it has not got on since {known}"),
                Err(RecvTimeoutError::Disconnected) => bail!("it has ended: {}", self.said()?),
            }
        }
    }

    /// What it has done up to now.
    fn done(&mut self) -> anyhow::Result<u64> {
        // The lines so far are of the past.
        while self.lines.try_recv().is_ok() {}
        self.done_more_than(0)
    }

    fn said(&mut self) -> anyhow::Result<String> {
        let mut said = String::new();
        self.errors.read_to_string(&mut said)?;
        Ok(said)
    }

    /// Ends it as Ctrl-C does, and gives its last line.
    fn close(mut self) -> anyhow::Result<String> {
        signal(self.child.id(), Signal::INT)?;
        let status = eventually("its end", || self.child.try_wait()?.context("it still runs"))?;
        ensure!(status.success(), "{status}: {}", self.said()?);
        let last = self.lines.iter().last().context("it has said nothing")?;
        ensure!(last.starts_with("closed: "), "{last}");
        Ok(last)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs an example through a recovery: it has done something before and something after.
fn through_a_recovery(cluster: &Cluster, command: Command) -> anyhow::Result<String> {
    let mut example = Example::start(command)?;
    example.done_more_than(0)?;
    let epoch = cluster.epoch()?;
    cluster.begin_recovery("an example runs")?;
    cluster.ready_above(epoch)?;
    let done = example.done()?;
    example.done_more_than(done)?;
    example.close()
}

/// A built example, connected to the cluster.
fn built(cluster: &Cluster, name: &str) -> anyhow::Result<Command> {
    let path = executable()?.with_file_name(name);
    ensure!(path.is_file(), "{} is missing: build the workspace first", path.display());
    let mut command = Command::new(path);
    command.arg("--secret-file").arg(cluster.directory().join("secret"));
    command.args(&cluster.ready.gateways);
    Ok(command)
}

/// All values below a prefix, in the order of their keys.
fn values(cluster: &Cluster, prefix: &str) -> anyhow::Result<Vec<Value>> {
    let mut values = Vec::new();
    let mut query = format!("prefix={prefix}");
    loop {
        let page: Value = cluster.get_json(&format!("/v1/keys?{query}&limit=10000"))?;
        let items = page["items"].as_array().context("no items")?;
        values.extend(items.iter().map(|item| item["value"].clone()));
        match page["cursor"].as_str() {
            Some(cursor) => query = format!("cursor={cursor}"),
            None => return Ok(values),
        }
    }
}

fn texts(cluster: &Cluster, prefix: &str) -> anyhow::Result<Vec<String>> {
    let text = |value: Value| Ok(value.as_str().context("no text")?.to_owned());
    values(cluster, prefix)?.into_iter().map(text).collect()
}

/// The bank's accounts hold what was deposited, and money was moved.
fn the_bank_is_whole(cluster: &Cluster, closed: &str) -> Outcome {
    let balances = texts(cluster, "bank/accounts/")?;
    let sum: i64 = balances.iter().map(|text| text.parse::<i64>()).sum::<Result<_, _>>()?;
    ensure!(balances.len() == 8 && sum == 800, "{balances:?}");
    let transfers = closed.split(' ').nth(1).context("no number")?.parse::<usize>()?;
    let entries = texts(cluster, "bank/ledger/")?.len();
    ensure!(transfers > 0 && entries == transfers, "{entries} entries: {closed}");
    Ok(())
}

#[test]
fn the_bank_in_python() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python/bank.py");
    let mut command = Command::new(python()?);
    command.arg(script).args(&cluster.ready.gateways);
    let closed = through_a_recovery(&cluster, command)?;
    the_bank_is_whole(&cluster, &closed)?;
    cluster.stop()
}

#[test]
fn the_bank_the_queue_and_the_election_in_rust() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let closed = through_a_recovery(&cluster, built(&cluster, "example-bank")?).context("bank")?;
    the_bank_is_whole(&cluster, &closed)?;

    through_a_recovery(&cluster, built(&cluster, "example-queue")?).context("queue")?;
    // Each is the key of a job, in the order in which they were taken.
    let taken =
        values(&cluster, "queue/taken/")?.iter().map(bytes).collect::<Result<Vec<_>, _>>()?;
    ensure!(taken.len() > 1 && taken.is_sorted_by(|a, b| a < b), "{taken:?}");
    ensure!(values(&cluster, "queue/jobs/")?.is_empty(), "jobs are left");

    through_a_recovery(&cluster, built(&cluster, "example-leader")?).context("leader")?;
    let mut terms: Vec<(u64, String)> = Vec::new();
    for act in texts(&cluster, "election/acts/")? {
        let mut words = act.split(' ');
        let number = words.next().context("no term")?.parse()?;
        terms.push((number, words.next().context("no leader")?.to_owned()));
    }
    terms.dedup();
    ensure!(terms.len() > 2, "{terms:?}");
    ensure!(terms.is_sorted_by(|a, b| a.0 < b.0), "two led at a time: {terms:?}");
    cluster.stop()
}

/// The bytes that JSON says.
fn bytes(value: &Value) -> anyhow::Result<Vec<u8>> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    match (value.as_str(), value["b64"].as_str()) {
        (Some(text), _) => Ok(text.as_bytes().to_vec()),
        (None, Some(text)) => Ok(STANDARD.decode(text)?),
        (None, None) => bail!("{value} is no bytes"),
    }
}
