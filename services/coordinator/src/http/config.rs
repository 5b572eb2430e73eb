//! Changes of parameters: passed on to the director of an epoch that is ready, made here while none is.
//!
//! So a recovery that can't go on can always be configured out of. What is made here is durable in a
//! majority of the coordinators and voids the appointment: the next epoch begins, and its system
//! transaction brings the change into storage. The answer says so.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, HeaderValue};
use plinth_api::config::{
    ConfigPatch, ConfigPatched, PATCH_CONFIG, PatchQuery, PatchState, refused,
};
use plinth_api::coordinator::Appointed;
use plinth_api::{CallError, ErrorCode, Target};
use plinth_service::{Condition, Failure, Json, Query, patched};
use plinth_system_config::{Proposal, Recorded, Supply};
use plinth_types::ServiceRef;
use tokio::time::{Instant, sleep};

use super::{PassedOn, Shared};
use crate::config::{CHANGE_FORWARD_LIMIT, CHANGE_LIMIT, READY_LOOK, RECOVERY_PATIENCE};
use crate::node::{Group, Node, Place};
use crate::state::{Applied, Command, Refusal};

/// Why parameters may not be changed.
pub(super) const REFUSALS: &[ErrorCode] = &[
    ErrorCode::PreconditionFailed,
    ErrorCode::PreconditionRequired,
    ErrorCode::Unsatisfiable,
    ErrorCode::CommitUnknownResult,
];

/// `PATCH /v1/config`.
#[utoipa::path(
    patch,
    path = "/v1/config",
    operation_id = "patch_config",
    tag = "status",
    summary = "Changes parameters",
    params(PatchQuery, ("If-Match" = String, Header, description = "The ETag of the configuration that is changed, or *")),
    request_body = ConfigPatch,
    responses(
        (status = 200, description = "It is made, and in storage; or would be, or is so already", body = ConfigPatched),
        (status = 202, description = "No epoch is ready: the coordinators have it, and the next epoch brings it into storage", body = ConfigPatched),
    )
)]
pub(super) async fn patch(
    State(node): State<Shared>,
    PassedOn(passed_on): PassedOn,
    Query(query): Query<PatchQuery>,
    headers: HeaderMap,
    Json(patch): Json<ConfigPatch>,
) -> Result<Response, Failure> {
    let condition = Condition::of(&headers)?;
    match node.place(passed_on)? {
        Place::Here(group) => {
            let change = Change { node: Arc::clone(&node), group, patch, condition, query };
            let (by, answer) = node.finish("change", change.make()).await?;
            Ok(patched(HeaderValue::try_from(by.to_string()).ok(), answer))
        }
        Place::There(leader) => {
            let (target, limit) = (&leader.target, CHANGE_FORWARD_LIMIT);
            let (path, tag) = (query.path(), condition.header());
            let peers = node.context.peers();
            let answer = peers.conditional(target, &PATCH_CONFIG, path, tag, &patch, limit).await?;
            Ok(patched(answer.served_by, answer.body))
        }
    }
}

/// A change at the leader.
struct Change {
    node: Arc<Node>,
    group: Group,
    patch: ConfigPatch,
    condition: Condition,
    query: PatchQuery,
}

impl Change {
    /// Makes it, or has the director make it. A recovery gets time to become ready first.
    async fn make(self) -> Result<(ServiceRef, ConfigPatched), Failure> {
        // A simulation has no time to wait for a recovery to be stuck.
        let is_impatient = self.node.context.runtime().fault("coordinator.impatient");
        let patience = if is_impatient { Duration::ZERO } else { RECOVERY_PATIENCE };
        let deadline = Instant::now() + patience;
        loop {
            let state = self.node.read(&self.group).await?;
            let is_late = Instant::now() >= deadline;
            match (state.ready_director(), &state.recorded) {
                (Some(appointed), _) => match self.pass_on(appointed).await {
                    // It has only just become ready, or is just ending.
                    Err(error) if !is_late && is_away(&error) => {}
                    answer => return Ok((appointed.service.clone(), answer?)),
                },
                (None, Some(recorded)) => {
                    let proposal = self.judge(recorded)?;
                    let me = || self.node.context.service().clone();
                    let config_version = recorded.config.config_version;
                    let answered = |proposal, state_of| {
                        ConfigPatched::new(proposal, state_of, config_version, state.epoch)
                    };
                    if self.query.dry_run {
                        return Ok((me(), answered(proposal, PatchState::DryRun)));
                    }
                    if proposal.changed.is_empty() {
                        return Ok((me(), answered(proposal, PatchState::Unchanged)));
                    }
                    if is_late && let Some(answer) = self.record(recorded, proposal).await? {
                        return Ok((me(), answer));
                    }
                }
                (None, None) => {
                    let detail = "no configuration is recorded yet: what a new cluster begins with stands in its cluster file";
                    return Err(Failure::new(ErrorCode::NotReady, detail));
                }
            }
            sleep(READY_LOOK).await;
        }
    }

    async fn pass_on(&self, appointed: &Appointed) -> Result<ConfigPatched, CallError> {
        let (target, tag) = (Target::from(&appointed.pid), self.condition.header());
        let peers = self.node.context.peers();
        let (path, patch, limit) = (self.query.path(), &self.patch, CHANGE_LIMIT);
        let answer = peers.conditional(&target, &PATCH_CONFIG, path, tag, patch, limit).await?;
        Ok(answer.body)
    }

    fn judge(&self, recorded: &Recorded) -> Result<Proposal, Failure> {
        self.condition.check(&recorded.config.config_version)?;
        let supply = {
            let registry = self.node.registry();
            Supply(registry.nodes(Instant::now()).map(|report| report.supply()).collect())
        };
        let proposal = recorded.propose(&self.patch.parameters.0, &supply);
        proposal.map_err(|errors| refused(&errors).into())
    }

    /// Makes it here. None where an epoch has become ready or another configuration was recorded
    /// meanwhile.
    async fn record(
        &self,
        recorded: &Recorded,
        proposal: Proposal,
    ) -> Result<Option<ConfigPatched>, Failure> {
        let expected = recorded.config.config_version;
        let (what, parameters) = (proposal.describe(), proposal.parameters.clone());
        tracing::info!(target: "plinth_audit", config_version = %expected.next(), what, "parameters are changed while no epoch is ready");
        let command = Command::Configure { expected, parameters, what };
        match self.node.submit(&self.group, command).await? {
            Applied::Refused(Refusal::Ready(_) | Refusal::Changed { .. }) => Ok(None),
            Applied::Refused(refusal) => {
                Err(Failure::new(ErrorCode::NotReady, refusal.to_string()))
            }
            Applied::Nothing | Applied::Done | Applied::Appointed(_) => {
                self.node.context.runtime().mark("coordinator.configured");
                let epoch = self.group.state().epoch;
                let state = PatchState::Recorded;
                Ok(Some(ConfigPatched::new(proposal, state, expected.next(), epoch)))
            }
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
