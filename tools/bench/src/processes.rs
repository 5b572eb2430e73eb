//! Processes that the benchmark started, and those that they started in turn.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

/// How long a process may take to end.
const END: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// A child that is killed when it is dropped.
pub(crate) struct Owned(Child);

impl Owned {
    /// Starts a command, its output in a file.
    pub(crate) fn spawn(command: &mut Command, log: &Path) -> anyhow::Result<Owned> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} can't be started", command.get_program().display()))?;
        Ok(Owned(child))
    }

    /// The process' id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to stop, waits for its end, and reaps it.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        signal(self.id(), Signal::TERM)?;
        let deadline = Instant::now() + END;
        while self.0.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                bail!("process {} does not end", self.id());
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Whether it has ended, with its status in words.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<String>> {
        Ok(self.0.try_wait()?.map(|status| status.to_string()))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // One that has ended refuses, and is reaped all the same.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal.
pub(crate) fn signal(process: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw).context("no process id")?;
    kill_process(pid, signal).with_context(|| format!("process {process} takes no signal"))
}

/// `kill -9` of processes, and the wait until none of them runs.
pub(crate) async fn kill_all(processes: &[u32]) -> anyhow::Result<()> {
    for process in processes {
        // It may have ended because another one did.
        let _ = signal(*process, Signal::KILL);
    }
    let deadline = Instant::now() + END;
    for process in processes {
        while parent_if_running(*process).is_some() {
            if Instant::now() >= deadline {
                bail!("process {process} does not end");
            }
            sleep(LOOK).await;
        }
    }
    Ok(())
}

/// A process and everything below it.
pub(crate) fn tree(root: u32) -> anyhow::Result<Vec<u32>> {
    let mut children = BTreeMap::<u32, Vec<u32>>::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(parent) = parent_if_running(process) {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(process) = found.get(next).copied() {
        found.extend(children.remove(&process).unwrap_or_default());
        next += 1;
    }
    Ok(found)
}

/// The parent of a process that is no zombie.
fn parent_if_running(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(parent)
}

/// The resident memory of processes, in bytes. Pages that several of them share count for each.
pub(crate) fn resident(processes: &[u32]) -> u64 {
    let of = |process: &u32| -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
        Some(kib << 10)
    };
    processes.iter().filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tree_is_found_and_killed_to_the_last() {
        let directory = std::env::temp_dir();
        let log = directory.join(format!("plinth-bench-{}.log", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & sleep 1000 & wait"]);
        let owned = Owned::spawn(&mut command, &log).expect("sh");
        let deadline = Instant::now() + END;
        let all = loop {
            let all = tree(owned.id()).expect("/proc");
            if all.len() == 3 {
                break all;
            }
            assert!(Instant::now() < deadline, "{all:?}");
            sleep(LOOK).await;
        };
        assert!(resident(&all) > 0);
        kill_all(&all).await.expect("killed");
        assert_eq!(all.iter().find_map(|process| parent_if_running(*process)), None);
        std::fs::remove_file(log).expect("there");
    }
}
