//! Reads for several readers in one request: each is answered as if it were asked for alone.

use std::time::Duration;

use futures::future::join_all;
use plinth_api::storage::{
    KeysAnswer, KeysRead, READ_BATCH_KEYS, ReadBatch, ReadBatchAnswer, ReadRequest,
};
use plinth_api::{ErrorCode, Problem};
use plinth_service::{Answer, Failure, Json};
use plinth_types::Version;
use tokio::time::{Instant, timeout_at};

use crate::driver::Command;
use crate::http::Handle;

/// How long a batch waits for versions that have not arrived. It holds up those of its readers who
/// need not wait: whoever must wait longer asks again, alone.
const WAIT: Duration = Duration::from_millis(20);

/// Answers a batch.
///
/// # Errors
/// `limit_exceeded` where it asks for too many keys. What is wrong with one read is in its answer.
pub(crate) async fn read(handle: &Handle, batch: ReadBatch) -> Answer<ReadBatchAnswer> {
    let ReadBatch { epoch, reads } = batch;
    let asked: usize = reads.iter().map(|read| read.keys.len()).sum();
    if asked > READ_BATCH_KEYS {
        let detail = format!("a batch of reads may have {READ_BATCH_KEYS} keys, not {asked}");
        let failure = Failure::new(ErrorCode::LimitExceeded, detail);
        return Err(failure.with("limit", READ_BATCH_KEYS).with("actual", asked));
    }
    let deadline = Instant::now() + WAIT;
    let answers = reads.into_iter().map(async |KeysRead { version, newest, keys }| {
        let request = ReadRequest { epoch, version, newest, keys, ranges: Vec::new() };
        let read = handle.ask(|reply| Command::Read(request, reply));
        match timeout_at(deadline, read).await {
            Ok(Ok(Json(answer))) => {
                KeysAnswer { version: answer.version, values: answer.values, problem: None }
            }
            Ok(Err(Failure(problem))) => refused(version, *problem),
            Err(_) => {
                let detail = format!("version {version} has not arrived yet: ask for it alone");
                refused(version, Problem::new(ErrorCode::FutureVersion, detail))
            }
        }
    });
    Ok(Json(ReadBatchAnswer { reads: join_all(answers).await }))
}

fn refused(version: Version, problem: Problem) -> KeysAnswer {
    KeysAnswer { version, values: Vec::new(), problem: Some(problem) }
}
