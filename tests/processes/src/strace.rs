//! What a process asks of the system, seen from outside: that a sync has returned between the
//! receipt of a request and its answer can't be shown otherwise.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use rustix::process::Signal;

use crate::{eventually, signal};

/// How much of what is read and written is shown, in bytes: enough for a request's line and an
/// answer of Raft's.
const SHOWN: &str = "1024";
const CALLS: &str = "trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,fsync,fdatasync";

/// A tracer attached to a process.
pub struct Strace {
    child: Child,
    output: tempfile::NamedTempFile,
}

impl Strace {
    /// Attaches to a process and all its threads.
    ///
    /// # Errors
    /// `strace` is missing, or the system does not permit it.
    pub fn attach(os_pid: u32) -> anyhow::Result<Strace> {
        let output = tempfile::NamedTempFile::new()?;
        let mut child = Command::new("strace")
            .args(["-f", "-tt", "-y", "-s", SHOWN, "-e", CALLS, "-e", "signal=none", "-o"])
            .arg(output.path())
            .args(["-p", &os_pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("strace can't be started: `tools/setup test` installs it")?;
        let mut said = BufReader::new(child.stderr.take().context("no standard error")?).lines();
        match said.next() {
            Some(Ok(line)) if line.contains("attached") => {}
            other => {
                let _ = child.wait();
                bail!(
                    "strace can't attach to process {os_pid} ({other:?}): this test needs the right to trace (ptrace)"
                );
            }
        }
        // It says something about every thread that comes; unread, the pipe would fill up.
        std::thread::spawn(move || said.for_each(drop));
        Ok(Strace { child, output })
    }

    /// Detaches, and tells what was seen.
    ///
    /// # Errors
    /// What was written can't be understood.
    pub fn finish(mut self) -> anyhow::Result<Record> {
        signal(self.child.id(), Signal::INT)?;
        eventually("the end of strace", || self.child.try_wait()?.context("it still runs"))?;
        Record::parse(&std::fs::read_to_string(self.output.path())?)
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // Asked, not killed: what it traces must go on.
        if let Ok(None) = self.child.try_wait() {
            let _ = signal(self.child.id(), Signal::INT);
            let _ = self.child.wait();
        }
    }
}

/// A system call. Times are line numbers of the tracer's output: it sees one event after another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    name: String,
    /// The descriptor, and what it is: `12</path>`.
    descriptor: String,
    /// All of it, as it was printed.
    text: String,
    began: usize,
    returned: usize,
}

impl Call {
    fn is_read(&self) -> bool {
        matches!(self.name.as_str(), "read" | "readv" | "recvfrom" | "recvmsg")
    }

    fn is_write(&self) -> bool {
        matches!(self.name.as_str(), "write" | "writev" | "sendto" | "sendmsg")
    }

    fn is_sync(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync") && self.text.ends_with("= 0")
    }
}

/// A request that the process has received, and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The call that received it, as printed.
    pub request: String,
    /// The call that answered it, as printed.
    pub answer: String,
    /// The files that a sync which began after the receipt had returned for before the answer.
    pub synced: Vec<PathBuf>,
    answered: usize,
}

/// What was seen of a process.
#[derive(Clone, Debug)]
pub struct Record(Vec<Call>);

impl Record {
    fn parse(text: &str) -> anyhow::Result<Record> {
        let mut unfinished: HashMap<&str, (usize, String)> = HashMap::new();
        let mut calls = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let (thread, rest) = line.split_once(' ').context("a line without a thread")?;
            let (_, event) = rest.trim_start().split_once(' ').context("a line without a time")?;
            if event.starts_with("+++") || event.starts_with("---") || event.starts_with("???") {
                continue;
            }
            if let Some(begun) = event.strip_suffix(" <unfinished ...>") {
                unfinished.insert(thread, (at, begun.to_owned()));
            } else if event.starts_with("<... ") {
                let (_, rest) = event.split_once(" resumed>").context("resumed, and no more")?;
                // A call that was under way when the tracer came has no beginning.
                if let Some((began, begun)) = unfinished.remove(thread) {
                    calls.extend(call(&format!("{begun}{rest}"), began, at));
                }
            } else {
                calls.extend(call(event, at, at));
            }
        }
        ensure!(!calls.is_empty(), "nothing was seen");
        calls.sort_by_key(|call| call.returned);
        Ok(Record(calls))
    }

    /// The answered requests of a method and path, such as `POST /v1/entries`.
    #[must_use]
    pub fn exchanges(&self, request: &str) -> Vec<Exchange> {
        let head = format!("\"{request} HTTP/1.1");
        let received = self.0.iter().filter(|call| call.is_read() && call.text.contains(&head));
        received.filter_map(|received| self.answered(received)).collect()
    }

    /// A connection carries one request at a time, so the next answer on it is the request's.
    fn answered(&self, received: &Call) -> Option<Exchange> {
        let answer = self
            .0
            .iter()
            .filter(|call| call.is_write() && call.descriptor == received.descriptor)
            .filter(|call| call.began > received.returned && call.text.contains("\"HTTP/1.1 "))
            .min_by_key(|call| call.began)?;
        let between = |call: &&Call| call.began > received.returned && call.returned < answer.began;
        let synced = self.0.iter().filter(|call| call.is_sync()).filter(between);
        Some(Exchange {
            request: received.text.clone(),
            answer: answer.text.clone(),
            synced: synced.filter_map(|call| path(&call.descriptor)).collect(),
            answered: answer.began,
        })
    }

    /// The files that had this text written to them, and after that a sync, before a request was
    /// answered: for what may have been written before the request came.
    pub fn durable_before(&self, exchange: &Exchange, text: &str) -> Vec<PathBuf> {
        let written = self.0.iter().filter(|call| call.is_write() && call.text.contains(text));
        let durable = written.filter(|written| {
            self.0.iter().filter(|call| call.is_sync()).any(|sync| {
                sync.descriptor == written.descriptor
                    && sync.began > written.returned
                    && sync.returned < exchange.answered
            })
        });
        durable.filter_map(|written| path(&written.descriptor)).collect()
    }
}

fn call(text: &str, began: usize, returned: usize) -> Option<Call> {
    let (name, arguments) = text.split_once('(')?;
    let end = arguments.find([',', ')'])?;
    Some(Call {
        name: name.to_owned(),
        descriptor: arguments[..end].to_owned(),
        text: text.trim_end().to_owned(),
        began,
        returned,
    })
}

/// The path in `12</path>`.
fn path(descriptor: &str) -> Option<PathBuf> {
    let (_, rest) = descriptor.split_once('<')?;
    Some(PathBuf::from(rest.strip_suffix('>')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUSH: &str = r#"7 1.0 recvfrom(14<socket:[5]>, "POST /v1/entries HTTP/1.1\r\n", 8192, 0, NULL, NULL) = 99"#;
    const ANSWER: &str =
        r#"7 1.4 writev(14<socket:[5]>, [{iov_base="HTTP/1.1 200 OK\r\n", iov_len=9}], 1) = 9"#;

    fn synced(lines: &[&str]) -> Vec<Vec<PathBuf>> {
        let record = Record::parse(&lines.join("\n")).unwrap();
        record.exchanges("POST /v1/entries").into_iter().map(|found| found.synced).collect()
    }

    #[test]
    fn a_sync_counts_that_begins_after_the_receipt_and_returns_before_the_answer() {
        let begun = "8 1.1 fdatasync(9</d/1.log> <unfinished ...>";
        let resumed = "8 1.2 <... fdatasync resumed>) = 0";
        let whole = "8 1.2 fdatasync(9</d/1.log>) = 0";
        let one = vec![vec![PathBuf::from("/d/1.log")]];
        assert_eq!(synced(&[PUSH, begun, resumed, ANSWER]), one);
        assert_eq!(synced(&[PUSH, whole, ANSWER]), one);
        let none: Vec<Vec<PathBuf>> = vec![vec![]];
        assert_eq!(synced(&[begun, PUSH, resumed, ANSWER]), none);
        assert_eq!(synced(&[PUSH, begun, ANSWER, resumed]), none);
        assert_eq!(synced(&[PUSH, ANSWER, whole]), none);
        let failed = "8 1.2 fdatasync(9</d/1.log>) = -1 EIO (Input/output error)";
        assert_eq!(synced(&[PUSH, failed, ANSWER]), none);
    }

    #[test]
    fn a_text_is_durable_once_it_was_written_and_then_synced() {
        let written = r#"8 1.1 write(9</d/1.log>, "\4vote for 7", 12) = 12"#;
        let synced = "8 1.2 fdatasync(9</d/1.log>) = 0";
        let durable = |lines: &[&str]| {
            let record = Record::parse(&lines.join("\n")).unwrap();
            let exchanges = record.exchanges("POST /v1/entries");
            record.durable_before(&exchanges[0], "vote for 7").len()
        };
        assert_eq!(durable(&[written, synced, PUSH, ANSWER]), 1);
        assert_eq!(durable(&[written, PUSH, synced, ANSWER]), 1);
        assert_eq!(durable(&[synced, written, PUSH, ANSWER]), 0);
        assert_eq!(durable(&[written, PUSH, ANSWER, synced]), 0);
        assert_eq!(durable(&[PUSH, synced, ANSWER]), 0);
    }

    #[test]
    fn an_answer_is_looked_for_on_the_requests_own_connection() {
        let elsewhere = ANSWER.replace("14<socket:[5]>", "15<socket:[6]>");
        assert!(synced(&[PUSH, &elsewhere]).is_empty());
    }
}
