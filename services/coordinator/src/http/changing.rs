//! How a change of the configuration is made: passed on to the director of an epoch that is ready, made
//! here while none is.
//!
//! So a recovery that can't go on can always be configured out of. What is made here is durable in a
//! majority of the coordinators and voids the appointment: the next epoch begins, and its system
//! transaction brings the change into storage. The answer says so.

use std::sync::Arc;
use std::time::Duration;

use plinth_api::coordinator::Appointed;
use plinth_api::{CallError, ErrorCode};
use plinth_service::Failure;
use plinth_system_config::{Recorded, Supply};
use plinth_types::ServiceRef;
use tokio::time::{Instant, sleep};

use crate::config::{READY_LOOK, RECOVERY_PATIENCE};
use crate::node::{Group, Node};
use crate::state::{Applied, ClusterState, Command, Refusal};

/// What is asked for.
pub(super) trait Wish {
    /// What is answered.
    type Answer;

    /// Has the director of a ready epoch fulfil it.
    ///
    /// # Errors
    /// The call's.
    async fn pass_on(&self, node: &Node, appointed: &Appointed) -> Result<Self::Answer, CallError>;

    /// Judges it by what the coordinators agree on; `recorded` is the configuration of that.
    ///
    /// # Errors
    /// Why it must not be.
    fn judge(
        &self,
        node: &Node,
        state: &ClusterState,
        recorded: &Recorded,
    ) -> Result<Verdict<Self::Answer>, Failure>;
}

/// What comes of a wish that may be fulfilled.
pub(super) enum Verdict<T> {
    /// Nothing is to be done.
    Settled(T),
    /// This is to be done, and answered once it is.
    Due {
        /// What makes the change.
        command: Box<Command>,
        /// What it is, for the audit.
        what: String,
        /// The answer.
        answer: T,
    },
}

/// What the nodes that report can run.
pub(super) fn supply(node: &Node) -> Supply {
    let registry = node.registry();
    Supply(registry.nodes(Instant::now()).map(|report| report.supply()).collect())
}

/// Fulfils a wish at the leader, or has the director do it. A recovery gets time to become ready
/// first. Answers who has.
pub(super) async fn fulfil<W: Wish>(
    node: Arc<Node>,
    group: Group,
    wish: W,
) -> Result<(ServiceRef, W::Answer), Failure> {
    // A simulation has no time to wait for a recovery to be stuck.
    let is_impatient = node.context.runtime().fault("coordinator.impatient");
    let patience = if is_impatient { Duration::ZERO } else { RECOVERY_PATIENCE };
    let deadline = Instant::now() + patience;
    let me = || node.context.service().clone();
    loop {
        let state = node.read(&group).await?;
        let is_late = Instant::now() >= deadline;
        match (state.ready_director(), &state.recorded) {
            (Some(appointed), _) => match wish.pass_on(&node, appointed).await {
                // It has only just become ready, or is just ending.
                Err(error) if !is_late && is_away(&error) => {}
                answer => return Ok((appointed.service.clone(), answer?)),
            },
            (None, Some(recorded)) => match wish.judge(&node, &state, recorded)? {
                Verdict::Settled(answer) => return Ok((me(), answer)),
                Verdict::Due { command, what, answer } if is_late => {
                    let config_version = recorded.config.config_version.next();
                    tracing::info!(target: "plinth_audit", %config_version, what, "the configuration is changed while no epoch is ready");
                    if is_recorded(&node, &group, *command).await? {
                        return Ok((me(), answer));
                    }
                }
                Verdict::Due { .. } => {}
            },
            (None, None) => {
                let detail = "no configuration is recorded yet: what a new cluster begins with stands in its cluster file";
                return Err(Failure::new(ErrorCode::NotReady, detail));
            }
        }
        sleep(READY_LOOK).await;
    }
}

/// Whether a change is made here. It is not where an epoch has become ready or another configuration
/// was recorded meanwhile.
async fn is_recorded(node: &Node, group: &Group, command: Command) -> Result<bool, Failure> {
    match node.submit(group, command).await? {
        Applied::Refused(Refusal::Ready(_) | Refusal::Changed { .. }) => Ok(false),
        Applied::Refused(refusal) => Err(Failure::new(ErrorCode::NotReady, refusal.to_string())),
        Applied::Nothing | Applied::Done | Applied::Appointed(_) => {
            node.context.runtime().mark("coordinator.configured");
            Ok(true)
        }
    }
}

/// Whether the director is not there, or not there yet: the request had no effect then.
fn is_away(error: &CallError) -> bool {
    match error.code() {
        Some(ErrorCode::NotReady | ErrorCode::WrongIncarnation) => true,
        Some(_) => false,
        None => error.had_no_effect(),
    }
}
