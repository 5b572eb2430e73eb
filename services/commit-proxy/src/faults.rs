//! Deliberate faults, which the real runtime never has: what tests of the whole cluster must notice.

use std::time::Duration;

use plinth_api::resolver::Verdict;
use plinth_runtime::Runtime;
use plinth_types::Mutation;

use crate::command::Command;
use crate::refusal::Refusal;
use crate::transaction::Transaction;

/// How late is late.
const LATE: Duration = Duration::from_millis(50);

/// A call that nobody waits for, as over a slow network.
pub(crate) async fn late<T>(call: impl Future<Output = T>) -> T {
    tokio::time::sleep(LATE).await;
    call.await
}

/// Atomic operations conflict with nobody.
pub(crate) fn on_commit(runtime: &Runtime, transaction: &mut Transaction) {
    if !runtime.fault("commit_proxy.atomics_do_not_conflict") {
        return;
    }
    let is_atomic = |mutation: &&Mutation| matches!(mutation, Mutation::Atomic { .. });
    for mutation in transaction.mutations.iter().filter(is_atomic) {
        transaction.writes.retain(|range| *range != mutation.range());
    }
}

/// No empty batch goes out; and as it counts as under way, no other follows it.
pub(crate) fn on_commands(runtime: &Runtime, mut commands: Vec<Command>) -> Vec<Command> {
    let is_empty = |command: &Command| matches!(command, Command::AskVersion { tickets, .. } if tickets.is_empty());
    commands.retain(|command| !(is_empty(command) && runtime.fault("commit_proxy.no_empty_batch")));
    commands
}

/// What resolvers say is not listened to.
pub(crate) fn on_verdicts(runtime: &Runtime, verdicts: &mut [Vec<Verdict>]) {
    if runtime.fault("commit_proxy.ignore_verdicts") {
        verdicts.iter_mut().flatten().for_each(|verdict| *verdict = Verdict::Commit);
    }
}

/// What nobody knows is told as a conflict.
pub(crate) fn on_answer<T>(runtime: &Runtime, result: Result<T, Refusal>) -> Result<T, Refusal> {
    match result {
        Err(Refusal::Unknown { .. }) if runtime.fault("commit_proxy.conflict_for_unknown") => {
            Err(Refusal::Conflict)
        }
        result => result,
    }
}
