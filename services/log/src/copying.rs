//! Replaying: a log that lacks data takes it from the logs that have it, before it serves an epoch.

use std::time::Duration;

use plinth_api::log::{Assignment, PULL, PullQuery, STATUS};
use plinth_api::{CallError, ErrorCode, Nothing, Problem, Target};
use plinth_service::Context;
use plinth_types::{Pid, Tag, Version};

use crate::config::Limits;
use crate::machine::Copied;

/// How long one request to a source may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Copies (popped, RV] of every tag that the assignment names a source for.
///
/// # Errors
/// A source does not answer, or lacks what it should have.
pub(crate) async fn copy(
    context: Context,
    limits: Limits,
    assignment: Assignment,
) -> Result<Vec<Copied>, Problem> {
    let mut copied = Vec::new();
    for source in &assignment.copy {
        let target = Target::from(&source.pid);
        let status = context
            .peers()
            .call(&target, &STATUS, &Nothing {}, Some(assignment.epoch), PATIENCE)
            .await
            .map_err(|error| failed(&source.pid, &error))?;
        for &tag in &source.tags {
            let extent = status.tags.iter().find(|extent| extent.tag == tag);
            let popped = extent.ok_or_else(|| lacks(&source.pid, tag))?.popped;
            copied.push(copy_tag(&context, limits, &assignment, &source.pid, tag, popped).await?);
        }
    }
    Ok(copied)
}

async fn copy_tag(
    context: &Context,
    limits: Limits,
    assignment: &Assignment,
    source: &Pid,
    tag: Tag,
    popped: Version,
) -> Result<Copied, Problem> {
    let recovery_version = assignment.generation.recovery_version;
    let mut copied = Copied { tag, popped, known_committed: Version::ZERO, entries: Vec::new() };
    let mut after = popped;
    while after < recovery_version {
        let query = PullQuery {
            tag,
            epoch: assignment.epoch,
            after,
            known_committed: Version::ZERO,
            wait_ms: 0,
            limit_bytes: limits.pull_bytes,
        };
        let answer = context
            .peers()
            .call(&Target::from(source), &PULL, &query, Some(assignment.epoch), PATIENCE)
            .await
            .map_err(|error| failed(source, &error))?;
        if answer.end <= after {
            return Err(lacks(source, tag));
        }
        after = answer.end;
        copied.known_committed = copied.known_committed.max(answer.known_committed);
        copied
            .entries
            .extend(answer.entries.into_iter().filter(|entry| entry.version <= recovery_version));
    }
    Ok(copied)
}

fn failed(source: &Pid, error: &CallError) -> Problem {
    Problem::new(ErrorCode::PeerUnavailable, format!("can't copy from {source}: {error}"))
}

fn lacks(source: &Pid, tag: Tag) -> Problem {
    let detail =
        format!("{source} does not hold tag {tag} up to the recovery version: name another source");
    Problem::new(ErrorCode::PeerUnavailable, detail)
}
