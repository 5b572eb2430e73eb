//! How a change of the configuration is made: passed on to the director of an epoch that is ready, made
//! here while none is.
//!
//! So a recovery that can't go on can always be configured out of. What is made here is durable in a
//! majority of the coordinators and voids the appointment: the next epoch begins, and its system
//! transaction brings the change into storage. The answer says so.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::HeaderValue;
use plinth_api::config::{Outcome, PatchQuery};
use plinth_api::{Answered, CallError, Endpoint, ErrorCode, Target};
use plinth_service::{Condition, Failure, Peers, changed};
use plinth_system_config::{Recorded, Supply};
use plinth_types::ServiceRef;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::{PassedOn, Shared};
use crate::config::{CHANGE_FORWARD_LIMIT, CHANGE_LIMIT, READY_LOOK, RECOVERY_PATIENCE};
use crate::node::{Group, Node, Place};
use crate::state::{Applied, ClusterState, Command, Refusal};

/// What is asked for.
pub(super) trait Wish: Sized + Send + Sync + 'static {
    /// What is answered.
    type Answer: Outcome + Serialize + Send;

    /// Asks another service to fulfil it, the director of a ready epoch or the leader.
    ///
    /// # Errors
    /// The call's.
    fn ask(
        &self,
        peers: &Peers,
        target: &Target,
        limit: Duration,
    ) -> impl Future<Output = Result<Answered<Self::Answer>, CallError>> + Send;

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

/// A change under a condition, at an endpoint that every service has it at.
pub(super) struct Conditional<Req, Resp> {
    /// Where it is asked for.
    pub(super) endpoint: Endpoint<Req, Resp>,
    /// What is to be.
    pub(super) request: Req,
    /// What must be the case.
    pub(super) condition: Condition,
    /// How it is asked for.
    pub(super) query: PatchQuery,
}

impl<Req: Serialize, Resp: DeserializeOwned> Conditional<Req, Resp> {
    /// Asks another service for it.
    ///
    /// # Errors
    /// The call's.
    pub(super) async fn ask(
        &self,
        peers: &Peers,
        target: &Target,
        limit: Duration,
    ) -> Result<Answered<Resp>, CallError> {
        let (path, tag) = (self.query.path(&self.endpoint), self.condition.header());
        peers.conditional(target, &self.endpoint, &path, tag, &self.request, limit).await
    }
}

/// Has the leader see to a wish, which may be this one.
///
/// # Errors
/// Why it is not fulfilled.
pub(super) async fn carry_out(
    node: Shared,
    PassedOn(passed_on): PassedOn,
    wish: impl Wish,
) -> Result<Response, Failure> {
    match node.place(passed_on)? {
        Place::Here(group) => {
            let made = fulfil(Arc::clone(&node), group, wish);
            let (by, answer) = node.finish("change", made).await?;
            Ok(changed(HeaderValue::try_from(by.to_string()).ok(), answer))
        }
        Place::There(leader) => {
            let peers = node.context.peers();
            let answer = wish.ask(peers, &leader.target, CHANGE_FORWARD_LIMIT).await?;
            Ok(changed(answer.served_by, answer.body))
        }
    }
}

/// What the nodes that report can run.
pub(super) fn supply(node: &Node) -> Supply {
    let registry = node.registry();
    Supply(registry.nodes(Instant::now()).map(|report| report.supply()).collect())
}

/// Fulfils a wish at the leader, or has the director do it. A recovery gets time to become ready
/// first. Answers who has.
async fn fulfil<W: Wish>(
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
            (Some(appointed), _) => {
                let (peers, director) = (node.context.peers(), Target::from(&appointed.pid));
                match wish.ask(peers, &director, CHANGE_LIMIT).await {
                    // It has only just become ready, or is just ending.
                    Err(error) if !is_late && is_away(&error) => {}
                    answer => return Ok((appointed.service.clone(), answer?.body)),
                }
            }
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
