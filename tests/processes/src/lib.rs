//! Clusters of real processes for tests: `plinth up` in a directory of its own, killed and started
//! again at will, with a receiver for its traces and a look at its system calls.

pub mod added;
pub mod cluster;
pub mod golden;
pub mod machines;
pub mod otlp;
pub mod soak;
pub mod stores;
pub mod strace;
pub mod users;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

pub use added::Added;
pub use cluster::{Cluster, Ready, is_of_kind};

/// How long any state may take to come. Generous: machines are slow, and no test is about time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a test that repeats itself does so: `PLINTH_TEST_ROUNDS`, or 3.
///
/// # Errors
/// The variable is not a number above 0.
pub fn rounds() -> anyhow::Result<u32> {
    let Some(text) = std::env::var_os("PLINTH_TEST_ROUNDS") else { return Ok(3) };
    let rounds = text.to_str().and_then(|text| text.parse().ok()).filter(|rounds| *rounds > 0);
    rounds.with_context(|| format!("PLINTH_TEST_ROUNDS={} is no number of rounds", text.display()))
}

/// The executable under test, which lies beside this process' own, or above it where that is a test.
///
/// # Errors
/// It is not there.
pub fn executable() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let above = own.ancestors().skip(1).take(2).map(|directory| directory.join("plinth"));
    let mut found = above.filter(|path| path.is_file());
    found.next().with_context(|| {
        format!("there is no plinth beside {}: build the workspace first", own.display())
    })
}

/// The Python that has what the tests need, as `tools/setup test` installs it.
///
/// # Errors
/// It is not there.
pub fn python() -> anyhow::Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python");
    ensure!(path.is_file(), "{} is missing: run tools/setup test", path.display());
    Ok(path)
}

/// Tries until it succeeds, for as long as [`PATIENCE`] lasts.
///
/// # Errors
/// The last failure.
pub fn eventually<T>(
    what: &str,
    mut attempt: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => return Err(error).context(what.to_owned()),
            Err(_) => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}

/// Sends a signal to a process that the test has started, itself or through `plinth up`.
///
/// # Errors
/// There is no such process.
pub fn signal(os_pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(os_pid)?).context("process id 0")?;
    kill_process(pid, signal).with_context(|| format!("process {os_pid}"))
}

/// The living processes whose command line names this directory or something in it: everything that
/// a cluster there consists of. The directory must be one of the test's own.
///
/// # Errors
/// `/proc` can't be read.
pub fn processes_of(directory: &Path) -> anyhow::Result<Vec<u32>> {
    use std::os::unix::ffi::OsStrExt as _;
    let named = directory.as_os_str().as_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Whoever has ended meanwhile, or is a zombie, has no command line.
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if line.windows(named.len()).any(|part| part == named) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Whether a process has ended: it is no more, or nobody has asked yet how it ended. One that is ending
/// loses its command line first, and its ports later.
#[must_use]
pub fn has_ended(os_pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{os_pid}/stat"));
    stat.ok()
        .and_then(|stat| stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().to_owned()))
        .is_none_or(|rest| rest.starts_with(['Z', 'X']))
}

/// Tells what is left of a cluster in a directory, until it is gone with its ports.
#[derive(Debug, Default)]
pub struct Remains(BTreeSet<u32>);

impl Remains {
    /// The processes that have not ended; those that live are told to `each`.
    ///
    /// # Errors
    /// `/proc` can't be read.
    pub fn look(&mut self, directory: &Path, each: impl Fn(u32)) -> anyhow::Result<&BTreeSet<u32>> {
        let living = processes_of(directory)?;
        living.iter().copied().for_each(each);
        self.0.extend(living);
        self.0.retain(|pid| !has_ended(*pid));
        Ok(&self.0)
    }
}
