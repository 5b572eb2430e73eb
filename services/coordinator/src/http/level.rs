//! Raising of the level that the configuration is written at.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use plinth_api::config::{
    LevelRaised, PatchQuery, PatchState, RAISE_LEVEL, RaiseLevel, level_refused,
};
use plinth_api::{Answered, CallError, ErrorCode, Target};
use plinth_service::{Condition, Failure, Json, Peers, Query};
use plinth_system_config::{LevelError, Readers, Recorded};
use tokio::time::Instant;

use super::changing::{Conditional, Verdict, Wish, carry_out};
use super::{PassedOn, Shared};
use crate::node::Node;
use crate::state::{ClusterState, Command};

/// Why the level may not be raised.
pub(super) const REFUSALS: &[ErrorCode] = &[
    ErrorCode::NotFound,
    ErrorCode::PreconditionFailed,
    ErrorCode::PreconditionRequired,
    ErrorCode::Unsatisfiable,
    ErrorCode::CommitUnknownResult,
];

/// `PUT /v1/format_level`.
#[utoipa::path(
    put,
    path = "/v1/format_level",
    operation_id = "raise_format_level",
    tag = "status",
    summary = "Raises the level that the configuration is written at, for ever",
    params(PatchQuery, ("If-Match" = String, Header, description = "The ETag of the configuration that is changed, or *")),
    request_body = RaiseLevel,
    responses(
        (status = 200, description = "It is raised, and in storage; or would be, or is so already", body = LevelRaised),
        (status = 202, description = "No epoch is ready: the coordinators have it, and the next epoch brings it into storage", body = LevelRaised),
    )
)]
pub(super) async fn raise(
    State(node): State<Shared>,
    passed_on: PassedOn,
    Query(query): Query<PatchQuery>,
    headers: HeaderMap,
    Json(request): Json<RaiseLevel>,
) -> Result<Response, Failure> {
    let condition = Condition::of(&headers)?;
    let raising = Conditional { endpoint: RAISE_LEVEL, request, condition, query };
    carry_out(node, passed_on, raising).await
}

/// What the nodes that report can read.
fn readers(node: &Node) -> Readers {
    let registry = node.registry();
    let reports = registry.nodes(Instant::now());
    Readers(reports.map(|report| (report.node.clone(), report.reads())).collect())
}

fn refused(error: LevelError) -> Failure {
    level_refused(&error).into()
}

impl Wish for Conditional<RaiseLevel, LevelRaised> {
    type Answer = LevelRaised;

    async fn ask(
        &self,
        peers: &Peers,
        target: &Target,
        limit: Duration,
    ) -> Result<Answered<LevelRaised>, CallError> {
        Conditional::ask(self, peers, target, limit).await
    }

    fn judge(
        &self,
        node: &Node,
        state: &ClusterState,
        recorded: &Recorded,
    ) -> Result<Verdict<LevelRaised>, Failure> {
        let (order, expected) = (&self.request, recorded.config.config_version);
        self.condition.check(&expected)?;
        let readers = readers(node);
        let next = recorded.raised(order.level, &readers, &order.without).map_err(refused)?;
        if next.is_some() {
            recorded.check_order_is_known(&readers).map_err(refused)?;
        }
        let answer = |of, version| order.answer(of, recorded, version, state.epoch);
        let next = match next {
            None => return Ok(Verdict::Settled(answer(PatchState::Unchanged, expected))),
            Some(_) if self.query.dry_run => {
                return Ok(Verdict::Settled(answer(PatchState::DryRun, expected)));
            }
            Some(next) => next.config,
        };
        let what = order.describe(recorded);
        let command = Command::Raise { expected, level: next.format_level, what: what.clone() };
        let answer = answer(PatchState::Recorded, next.config_version);
        Ok(Verdict::Due { command: Box::new(command), what, answer })
    }
}
