//! Changes of parameters.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, HeaderValue};
use plinth_api::config::{
    ConfigPatch, ConfigPatched, PATCH_CONFIG, PatchQuery, PatchState, refused,
};
use plinth_api::coordinator::Appointed;
use plinth_api::{CallError, ErrorCode, Target};
use plinth_service::{Condition, Failure, Json, Query, patched};
use plinth_system_config::Recorded;

use super::changing::{Verdict, Wish, fulfil, supply};
use super::{PassedOn, Shared};
use crate::config::{CHANGE_FORWARD_LIMIT, CHANGE_LIMIT};
use crate::node::{Node, Place};
use crate::state::{ClusterState, Command};

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
            let change = Change { patch, condition, query };
            let made = fulfil(Arc::clone(&node), group, change);
            let (by, answer) = node.finish("change", made).await?;
            Ok(patched(HeaderValue::try_from(by.to_string()).ok(), answer))
        }
        Place::There(leader) => {
            let (target, limit) = (&leader.target, CHANGE_FORWARD_LIMIT);
            let (path, tag) = (query.path(&PATCH_CONFIG), condition.header());
            let peers = node.context.peers();
            let answer =
                peers.conditional(target, &PATCH_CONFIG, &path, tag, &patch, limit).await?;
            Ok(patched(answer.served_by, answer.body))
        }
    }
}

/// A change of parameters.
struct Change {
    patch: ConfigPatch,
    condition: Condition,
    query: PatchQuery,
}

impl Wish for Change {
    type Answer = ConfigPatched;

    async fn pass_on(
        &self,
        node: &Node,
        appointed: &Appointed,
    ) -> Result<ConfigPatched, CallError> {
        let (target, tag) = (Target::from(&appointed.pid), self.condition.header());
        let (path, patch, limit) = (self.query.path(&PATCH_CONFIG), &self.patch, CHANGE_LIMIT);
        let peers = node.context.peers();
        let answer = peers.conditional(&target, &PATCH_CONFIG, &path, tag, patch, limit).await?;
        Ok(answer.body)
    }

    fn judge(
        &self,
        node: &Node,
        state: &ClusterState,
        recorded: &Recorded,
    ) -> Result<Verdict<ConfigPatched>, Failure> {
        let (expected, epoch) = (recorded.config.config_version, state.epoch);
        self.condition.check(&expected)?;
        let proposal = recorded
            .propose(&self.patch.parameters.0, &supply(node))
            .map_err(|errors| Failure::from(refused(&errors)))?;
        let settled = match (self.query.dry_run, proposal.changed.is_empty()) {
            (true, _) => Some(PatchState::DryRun),
            (false, true) => Some(PatchState::Unchanged),
            (false, false) => None,
        };
        if let Some(state) = settled {
            let answer = ConfigPatched::new(proposal, state, expected, epoch);
            return Ok(Verdict::Settled(answer));
        }
        let (what, parameters) = (proposal.describe(), proposal.parameters.clone());
        let command = Command::Configure { expected, parameters, what: what.clone() };
        let command = Box::new(command);
        let answer = ConfigPatched::new(proposal, PatchState::Recorded, expected.next(), epoch);
        Ok(Verdict::Due { command, what, answer })
    }
}
