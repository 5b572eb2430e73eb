//! Which traces are kept.
//!
//! Only the span that begins a trace is judged here; every other span follows its parent, or a
//! trace would have holes.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

use crate::spans::HTTP_ROUTE;

/// The name of the span that begins a recovery's trace. A root span of this name, or one that
/// begins with it and a dot, is always sampled.
pub const RECOVERY: &str = "recovery";

/// Routes that many callers ask all the time and that say nothing about a user's request. A trace
/// that begins at one of them, or below it, is never sampled.
pub const QUIET_ROUTES: [&str; 7] =
    ["/livez", "/readyz", "/version", "/metrics", "/openapi.json", "/v1/info", "/v1/monitor"];

/// How a trace begins, as far as sampling cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    Recovery,
    Request,
    Background,
}

fn classify(name: &str, kind: &SpanKind, attributes: &[KeyValue]) -> Root {
    let below_recovery = name.strip_prefix(RECOVERY).is_some_and(|rest| rest.starts_with('.'));
    if name == RECOVERY || below_recovery {
        return Root::Recovery;
    }
    let route = attributes
        .iter()
        .find(|attribute| attribute.key.as_str() == HTTP_ROUTE)
        .map(|attribute| attribute.value.as_str());
    match (kind, route) {
        (SpanKind::Server, Some(route)) if !is_quiet(&route) => Root::Request,
        _ => Root::Background,
    }
}

fn is_quiet(route: &str) -> bool {
    QUIET_ROUTES.iter().any(|quiet| {
        route.strip_prefix(quiet).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Follows the parent; a root is sampled by what it is.
#[derive(Clone, Debug)]
pub(crate) struct RootSampler {
    requests: Sampler,
}

impl RootSampler {
    /// `request_ratio`: the share of user requests that is sampled, 0 to 1.
    pub(crate) fn new(request_ratio: f64) -> Self {
        RootSampler { requests: Sampler::TraceIdRatioBased(request_ratio) }
    }
}

impl ShouldSample for RootSampler {
    fn should_sample(
        &self,
        parent_context: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        span_kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let parent = parent_context
            .map(|context| context.span().span_context().clone())
            .filter(opentelemetry::trace::SpanContext::is_valid);
        let decision = match &parent {
            Some(parent) if parent.is_sampled() => SamplingDecision::RecordAndSample,
            Some(_) => SamplingDecision::Drop,
            None => match classify(name, span_kind, attributes) {
                Root::Recovery => SamplingDecision::RecordAndSample,
                Root::Background => SamplingDecision::Drop,
                Root::Request => {
                    self.requests
                        .should_sample(None, trace_id, name, span_kind, attributes, links)
                        .decision
                }
            },
        };
        SamplingResult {
            decision,
            attributes: Vec::new(),
            trace_state: parent
                .map_or_else(TraceState::default, |parent| parent.trace_state().clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags};

    use super::*;

    fn decide(
        ratio: f64,
        parent: Option<TraceFlags>,
        name: &str,
        kind: SpanKind,
        route: Option<&str>,
    ) -> SamplingDecision {
        let context = parent.map(|flags| {
            Context::new().with_remote_span_context(SpanContext::new(
                TraceId::from(7),
                SpanId::from(9),
                flags,
                true,
                TraceState::default(),
            ))
        });
        let attributes: Vec<KeyValue> =
            route.map(|route| KeyValue::new(HTTP_ROUTE, route.to_owned())).into_iter().collect();
        RootSampler::new(ratio)
            .should_sample(context.as_ref(), TraceId::from(7), name, &kind, &attributes, &[])
            .decision
    }

    #[test]
    fn a_recovery_is_always_sampled() {
        for name in ["recovery", "recovery.lock_logs"] {
            assert_eq!(
                decide(0.0, None, name, SpanKind::Internal, None),
                SamplingDecision::RecordAndSample
            );
        }
        assert_eq!(
            decide(0.0, None, "recoverymania", SpanKind::Internal, None),
            SamplingDecision::Drop
        );
    }

    #[test]
    fn requests_are_sampled_by_ratio() {
        let route = Some("/v1/commit");
        assert_eq!(
            decide(0.0, None, "POST /v1/commit", SpanKind::Server, route),
            SamplingDecision::Drop
        );
        assert_eq!(
            decide(1.0, None, "POST /v1/commit", SpanKind::Server, route),
            SamplingDecision::RecordAndSample
        );
    }

    #[test]
    fn health_monitoring_and_background_work_are_never_sampled() {
        for route in ["/livez", "/readyz/quorum", "/metrics", "/v1/monitor", "/v1/info"] {
            assert_eq!(
                decide(1.0, None, "GET", SpanKind::Server, Some(route)),
                SamplingDecision::Drop,
                "{route}"
            );
        }
        assert_eq!(
            decide(1.0, None, "GET /v1/peek", SpanKind::Client, Some("/v1/peek")),
            SamplingDecision::Drop
        );
        assert_eq!(decide(1.0, None, "compact", SpanKind::Internal, None), SamplingDecision::Drop);
        assert_eq!(
            decide(1.0, None, "GET", SpanKind::Server, Some("/v1/information")),
            SamplingDecision::RecordAndSample,
        );
    }

    #[test]
    fn a_parent_decides_for_its_children() {
        let sampled = Some(TraceFlags::SAMPLED);
        assert_eq!(
            decide(0.0, sampled, "GET", SpanKind::Server, Some("/v1/info")),
            SamplingDecision::RecordAndSample
        );
        let unsampled = Some(TraceFlags::default());
        assert_eq!(
            decide(1.0, unsampled, "recovery", SpanKind::Internal, None),
            SamplingDecision::Drop
        );
    }
}
