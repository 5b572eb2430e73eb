//! Changes of parameters.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use plinth_api::config::{
    ConfigPatch, ConfigPatched, PATCH_CONFIG, PatchQuery, PatchState, refused,
};
use plinth_api::{Answered, CallError, ErrorCode, Target};
use plinth_service::{Condition, Failure, Json, Peers, Query};
use plinth_system_config::Recorded;

use super::changing::{Conditional, Verdict, Wish, carry_out, supply};
use super::{PassedOn, Shared};
use crate::node::Node;
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
    passed_on: PassedOn,
    Query(query): Query<PatchQuery>,
    headers: HeaderMap,
    Json(request): Json<ConfigPatch>,
) -> Result<Response, Failure> {
    let condition = Condition::of(&headers)?;
    let change = Conditional { endpoint: PATCH_CONFIG, request, condition, query };
    carry_out(node, passed_on, change).await
}

impl Wish for Conditional<ConfigPatch, ConfigPatched> {
    type Answer = ConfigPatched;

    async fn ask(
        &self,
        peers: &Peers,
        target: &Target,
        limit: Duration,
    ) -> Result<Answered<ConfigPatched>, CallError> {
        Conditional::ask(self, peers, target, limit).await
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
            .propose(&self.request.parameters.0, &supply(node))
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
