//! `plinth up --detach` and `plinth down`.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::cli::{DownArgs, UpArgs};
use crate::process::{self, FAILURE};

use super::prepare::{make_directory, pid_path};
use super::progress::{ERROR, READY, SAY};

/// How long a cluster may take to stop.
const STOP: Duration = Duration::from_secs(10);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// Starts a cluster in a process that stays, and returns when it is ready.
pub(super) fn up(args: &UpArgs) -> ExitCode {
    match start(args) {
        Ok(code) => code,
        Err(error) => process::usage(&error),
    }
}

fn start(args: &UpArgs) -> anyhow::Result<ExitCode> {
    make_directory(&args.data_dir)?;
    let log = args.data_dir.join("up.log");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("{} can't be written", log.display()))?;
    let own = std::env::args_os().skip(1).filter(|argument| argument != "--detach");
    let mut child = Command::new(process::executable()?)
        .args(own)
        .arg("--background")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0)
        .spawn()?;
    let Some(output) = child.stdout.take() else { bail!("the cluster's process has no output") };
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some(text) = line.strip_prefix(SAY) {
            if args.json {
                eprintln!("plinth: {text}");
            } else {
                println!("{text}");
            }
        } else if let Some(text) = line.strip_prefix(ERROR) {
            eprintln!("error: {text}");
        } else if let Some(report) = line.strip_prefix(READY.trim_end()) {
            if args.json {
                println!("{}", report.trim_start());
            }
            return Ok(ExitCode::SUCCESS);
        }
    }
    let status = child.wait()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILURE);
    Ok(ExitCode::from(if code == 0 { FAILURE } else { code }))
}

/// Stops the cluster of a directory.
#[must_use]
pub fn down(args: &DownArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return process::failure(&error.into()),
    };
    match runtime.block_on(stop(&args.data_dir)) {
        Ok(message) => {
            println!("{message}");
            ExitCode::SUCCESS
        }
        Err(error) => process::failure(&error),
    }
}

async fn stop(data_dir: &Path) -> anyhow::Result<String> {
    let shown = data_dir.display();
    let mut file = match File::open(pid_path(data_dir)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(format!("no cluster runs in {shown}"));
        }
        Err(error) => return Err(error).with_context(|| format!("{shown} can't be read")),
    };
    if is_free(&file) {
        return Ok(format!("no cluster runs in {shown}"));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let pid = text.trim().parse::<i32>().ok().and_then(Pid::from_raw);
    let Some(pid) = pid else { bail!("{} names no process", pid_path(data_dir).display()) };
    kill_process(pid, Signal::TERM).with_context(|| format!("process {text} can't be stopped"))?;
    let deadline = Instant::now() + STOP;
    while !is_free(&file) {
        if Instant::now() >= deadline {
            // Its foremen see its end and stop everything by themselves.
            kill_process(pid, Signal::KILL).ok();
            bail!("the cluster in {shown} did not stop in {} s and was killed", STOP.as_secs());
        }
        sleep(LOOK).await;
    }
    Ok(format!("the cluster in {shown} has stopped"))
}

/// Whether nobody holds the file. The lock that this takes is let go at once.
fn is_free(file: &File) -> bool {
    let free = flock(file, FlockOperation::NonBlockingLockShared).is_ok();
    if free {
        flock(file, FlockOperation::Unlock).ok();
    }
    free
}
