//! How worker processes are started, watched and ended. The machine does not know; the driver asks
//! a [`Spawner`]. Here is the one for child processes; a cluster in one process has its own.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use plinth_types::ServiceRef;
use rustix::process::{Pid as OsPid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use crate::workers::ProcessId;

/// The end of a log file that is searched for a process' last words, in bytes.
const TAIL: u64 = 4096;
/// Last words are cut off after this many characters.
const LAST_WORDS: usize = 400;

/// What is to be started.
#[derive(Clone, Debug)]
pub struct WorkerOrder {
    /// Which service.
    pub service: ServiceRef,
    /// Its own directory, for a durable one.
    pub directory: PathBuf,
    /// Where its output goes.
    pub log: PathBuf,
    /// Where its foreman answers, `host:port`.
    pub foreman: String,
}

/// How a process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is asked, and ends by itself.
    Asked,
    /// It is killed.
    Killed,
}

/// A worker's process.
pub trait Process: Send {
    /// What the operating system calls it; none where it is not a process of its own.
    fn id(&self) -> Option<ProcessId>;
    /// Waits for its end and tells how it ended. Cancel-safe.
    fn ended(&mut self) -> BoxFuture<'_, String>;
    /// Ends it. An already ended process is no error.
    fn end(&mut self, how: Ending);
}

/// Starts processes.
pub trait Spawner: Send + Sync {
    /// Starts a worker.
    ///
    /// # Errors
    /// The operating system's refusal.
    fn start(&self, order: &WorkerOrder) -> io::Result<Box<dyn Process>>;
    /// The living process that an earlier foreman started; none where it has ended.
    fn adopt(&self, process: ProcessId, log: &Path) -> Option<Box<dyn Process>>;
}

/// Gives a worker's command line, without the executable.
pub type Arguments = Box<dyn Fn(&WorkerOrder) -> Vec<OsString> + Send + Sync>;

/// Starts workers as child processes, each in a process group of its own, so that they outlive the
/// foreman and a terminal's Ctrl-C reaches none of them.
pub struct ChildProcesses {
    executable: PathBuf,
    arguments: Arguments,
}

impl ChildProcesses {
    /// Starts this executable with these arguments.
    #[must_use]
    pub fn new(executable: PathBuf, arguments: Arguments) -> Self {
        ChildProcesses { executable, arguments }
    }
}

impl Spawner for ChildProcesses {
    fn start(&self, order: &WorkerOrder) -> io::Result<Box<dyn Process>> {
        if let Some(parent) = order.log.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let output = OpenOptions::new().create(true).append(true).open(&order.log)?;
        let child = tokio::process::Command::new(&self.executable)
            .args((self.arguments)(order))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()?;
        let id = child.id().and_then(process_id);
        Ok(Box::new(Child { child, id, log: order.log.clone() }))
    }

    fn adopt(&self, process: ProcessId, log: &Path) -> Option<Box<dyn Process>> {
        let handle = pidfd_open(os_pid(process.os_pid)?, PidfdFlags::empty()).ok()?;
        // Only now that the handle is held can the id not be given to another process.
        if process_id(process.os_pid) != Some(process) {
            return None;
        }
        // The replacement is unsafe for the sake of types that could change their descriptor.
        #[expect(deprecated, reason = "an OwnedFd keeps its descriptor as long as it lives")]
        let handle = AsyncFd::new(handle).ok()?;
        Some(Box::new(Adopted { process, handle, log: log.to_owned() }))
    }
}

struct Child {
    child: tokio::process::Child,
    id: Option<ProcessId>,
    log: PathBuf,
}

impl Process for Child {
    fn id(&self) -> Option<ProcessId> {
        self.id
    }

    fn ended(&mut self) -> BoxFuture<'_, String> {
        async move {
            let how = match self.child.wait().await {
                Ok(status) => describe(status),
                Err(error) => format!("its end could not be waited for: {error}"),
            };
            with_last_words(how, &self.log)
        }
        .boxed()
    }

    fn end(&mut self, how: Ending) {
        // The child is not reaped before `ended` has returned, so the id is still its own.
        if let Some(pid) = self.child.id().and_then(os_pid) {
            // Only a process that has just ended refuses.
            let _ = rustix::process::kill_process(pid, signal(how));
        }
    }
}

struct Adopted {
    process: ProcessId,
    handle: AsyncFd<OwnedFd>,
    log: PathBuf,
}

impl Process for Adopted {
    fn id(&self) -> Option<ProcessId> {
        Some(self.process)
    }

    fn ended(&mut self) -> BoxFuture<'_, String> {
        async move {
            let how = match self.handle.readable().await {
                Ok(_) => "ended".to_owned(),
                Err(error) => format!("its end could not be waited for: {error}"),
            };
            with_last_words(how, &self.log)
        }
        .boxed()
    }

    fn end(&mut self, how: Ending) {
        // Only a process that has just ended refuses.
        let _ = pidfd_send_signal(self.handle.get_ref(), signal(how));
    }
}

const fn signal(how: Ending) -> Signal {
    match how {
        Ending::Asked => Signal::TERM,
        Ending::Killed => Signal::KILL,
    }
}

fn os_pid(pid: u32) -> Option<OsPid> {
    OsPid::from_raw(i32::try_from(pid).ok()?)
}

/// The process of this id as it is now; none where there is none, or only its remains.
#[must_use]
pub fn process_id(os_pid: u32) -> Option<ProcessId> {
    let stat = std::fs::read_to_string(format!("/proc/{os_pid}/stat")).ok()?;
    parse_stat(&stat).map(|start_ticks| ProcessId { os_pid, start_ticks })
}

/// The start time in a line of `/proc/<pid>/stat`, whose second field, the command, may hold
/// anything between its parentheses. A zombie counts as ended.
fn parse_stat(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn with_last_words(how: String, log: &Path) -> String {
    match last_line(log) {
        Some(line) => format!("{how}: {line}"),
        None => how,
    }
}

/// The last line of a log file that is not empty, without control characters.
#[must_use]
pub fn last_line(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let line = tail.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).take(LAST_WORDS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_command_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse_stat(&format!("17 (plinth) {rest}")), Some(4711));
        assert_eq!(parse_stat(&format!("17 (a) b) (c) {rest}")), Some(4711));
        assert_eq!(parse_stat(&format!("17 (plinth) {}", rest.replacen('S', "Z", 1))), None);
        assert_eq!(parse_stat("17 (plinth) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    fn shell(script: &'static str) -> ChildProcesses {
        ChildProcesses::new(
            PathBuf::from("/bin/sh"),
            Box::new(move |_| vec!["-c".into(), script.into()]),
        )
    }

    fn order(directory: &Path) -> WorkerOrder {
        WorkerOrder {
            service: "log-1@node-1".parse().unwrap(),
            directory: directory.join("log-1"),
            log: directory.join("log-1.log"),
            foreman: "127.0.0.1:1".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_child_tells_its_last_words() {
        let directory = tempfile::tempdir().unwrap();
        let spawner = shell("echo first; echo the reason >&2; exit 3");
        let mut child = spawner.start(&order(directory.path())).unwrap();
        assert_eq!(child.ended().await, "exited with status 3: the reason");
    }

    #[tokio::test]
    async fn a_living_process_is_adopted_and_ended_and_a_dead_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let order = order(directory.path());
        let spawner = shell("exec sleep 60");
        let mut child = spawner.start(&order).unwrap();
        let id = child.id().unwrap();
        let other = ProcessId { start_ticks: id.start_ticks + 1, ..id };
        assert!(spawner.adopt(other, &order.log).is_none());

        let mut adopted = spawner.adopt(id, &order.log).unwrap();
        adopted.end(Ending::Asked);
        assert_eq!(adopted.ended().await, "ended");
        assert_eq!(child.ended().await, "killed by signal 15");
        assert!(spawner.adopt(id, &order.log).is_none());
    }
}
