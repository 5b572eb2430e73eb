//! What happens around every handler: request id, span, identity checks, caller, time limit,
//! problem documents, metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use plinth_api::{
    ErrorCode, HEADER_CLUSTER, HEADER_EPOCH, HEADER_INCARNATION, HEADER_REQUEST_ID,
    HEADER_SERVED_BY, Problem,
};
use plinth_telemetry::{
    CounterVec, HistogramVec, LATENCY_SECONDS, MetricError, Metrics, ServerCall,
};
use plinth_types::{ClusterId, Incarnation};
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, Span};

use crate::budget::Budget;
use crate::caller::{StateIsOpen, identify};
use crate::document::Statuses;
use crate::failure::{PROBLEM_JSON, code_of_status, document};
use crate::{Context, Failure};

/// The time a handler may take until its answer begins: more than any long poll waits.
const HANDLER_LIMIT: Duration = Duration::from_secs(60);
/// The longest request id that is taken from a caller.
const REQUEST_ID_LIMIT: usize = 128;
/// How much of a plain-text error becomes a problem's detail, in bytes.
const DETAIL_LIMIT: usize = 1 << 10;

tokio::task_local! {
    static REQUEST_ID: HeaderValue;
}

/// The id of the request that this task is handling, if it is.
pub(crate) fn current_request_id() -> Option<HeaderValue> {
    REQUEST_ID.try_with(Clone::clone).ok()
}

/// The request's id, as its caller gave it or as the shell made it. An extractor.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only visible ASCII is taken or made.
        self.0.to_str().unwrap_or_default()
    }

    /// The caller's, where it is one, or a new one.
    fn of(headers: &HeaderMap, context: &Context) -> RequestId {
        let given = headers.get(HEADER_REQUEST_ID).filter(|value| {
            (1..=REQUEST_ID_LIMIT).contains(&value.len())
                && value.as_bytes().iter().all(u8::is_ascii_graphic)
        });
        let made = || {
            HeaderValue::try_from(format!("{:016x}", context.runtime().random_u64()))
                .unwrap_or(HeaderValue::from_static("0"))
        };
        RequestId(given.cloned().unwrap_or_else(made))
    }
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts.extensions.get::<RequestId>().cloned().ok_or_else(|| {
            Failure::new(ErrorCode::Internal, "the request came without passing the shell")
        })
    }
}

/// Requests, by route.
struct HttpMetrics {
    requests: CounterVec,
    seconds: HistogramVec,
    undocumented: CounterVec,
}

/// What the shell knows while it serves.
pub(crate) struct Shell {
    context: Context,
    service: String,
    served_by: Option<HeaderValue>,
    metrics: HttpMetrics,
    statuses: Statuses,
    state: StateIsOpen,
    /// What users' bodies may hold.
    budget: Budget,
}

impl Shell {
    pub(crate) fn new(
        context: Context,
        statuses: Statuses,
        state: StateIsOpen,
    ) -> Result<Arc<Shell>, MetricError> {
        let metrics = HttpMetrics::new(context.metrics())?;
        let service = context.service().to_string();
        let served_by = HeaderValue::try_from(&service).ok();
        let budget = Budget::new();
        Ok(Arc::new(Shell { context, service, served_by, metrics, statuses, state, budget }))
    }

    /// Counts an answer, and those that the service's document does not name.
    fn observe(&self, method: &'static str, route: &str, status: StatusCode, took: Duration) {
        self.metrics.observe(method, route, status, took);
        if self.statuses.lack(method, route, status) {
            tracing::error!(method, route, %status, "the OpenAPI document does not name this status");
            self.metrics.undocumented.with_label_values(&[method, route, status.as_str()]).inc();
        }
    }
}

impl HttpMetrics {
    fn new(metrics: &Metrics) -> Result<HttpMetrics, MetricError> {
        Ok(HttpMetrics {
            requests: metrics.counter_vec(
                "http_requests_total",
                "Requests answered, by route and status.",
                &["method", "route", "status"],
            )?,
            seconds: metrics.histogram_vec(
                "http_request_seconds",
                "Time from a request's head to the head of its answer, by route.",
                &LATENCY_SECONDS,
                &["method", "route"],
            )?,
            undocumented: metrics.counter_vec(
                "http_undocumented_answers_total",
                "Answers with a status that the OpenAPI document does not name. Each is a bug.",
                &["method", "route", "status"],
            )?,
        })
    }

    fn observe(&self, method: &str, route: &str, status: StatusCode, took: Duration) {
        self.requests.with_label_values(&[method, route, status.as_str()]).inc();
        self.seconds.with_label_values(&[method, route]).observe(took.as_secs_f64());
    }
}

/// The layer itself.
pub(crate) async fn surround(
    State(shell): State<Arc<Shell>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let context = &shell.context;
    let id = RequestId::of(request.headers(), context);
    // Routes are few; paths are as many as callers like to make up.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    let method = request.method().clone();
    let method_label = method_label(&method);
    let span = plinth_telemetry::server_span(ServerCall {
        method: &method,
        route,
        service: &shell.service,
        request_id: id.as_str(),
    });
    plinth_telemetry::set_parent(&span, request.headers());
    // The request's epoch, where it is of one: the service may be about to take it up.
    let sender = request.headers().get(HEADER_EPOCH).and_then(|value| value.to_str().ok());
    let epoch = sender.and_then(|text| text.parse().ok()).unwrap_or_else(|| context.epoch().0);
    if epoch > 0 {
        plinth_telemetry::record_epoch(&span, epoch);
    }
    // Held until the answer: what a body was parsed into is as large as the body.
    let share = shell.budget.share();
    let response = match admit(context, request.headers()) {
        Ok(caller) => {
            // What services send is bounded by themselves, and must not wait for users.
            if caller != crate::Caller::Service {
                request.extensions_mut().insert(share.clone());
            }
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(shell.state);
            request.extensions_mut().insert(id.clone());
            let handling = REQUEST_ID.scope(id.0.clone(), next.run(request));
            match timeout(HANDLER_LIMIT, handling.instrument(span.clone())).await {
                Ok(response) => response,
                Err(_) => Failure::new(
                    ErrorCode::DeadlineExceeded,
                    format!("no answer within {} s", HANDLER_LIMIT.as_secs()),
                )
                .into_response(),
            }
        }
        Err(failure) => failure.into_response(),
    };
    drop(share);
    let mut response = with_problem(context, response, &id, &span).await;
    let headers = response.headers_mut();
    headers.insert(HEADER_REQUEST_ID, id.0);
    let traceparent = plinth_telemetry::traceparent(&span);
    if let Some(value) = traceparent.and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert("traceparent", value);
    }
    if let Some(service) = &shell.served_by {
        // A handler that has passed the request on says who has served it.
        headers.entry(HEADER_SERVED_BY).or_insert_with(|| service.clone());
    }
    plinth_telemetry::record_status(&span, response.status(), false);
    shell.observe(method_label, route, response.status(), started.elapsed());
    response
}

/// Methods are the caller's to make up, too.
fn method_label(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "PUT" => "PUT",
        "POST" => "POST",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        _ => "other",
    }
}

/// Refuses what is meant for another cluster or process, then tells who calls.
fn admit(context: &Context, headers: &HeaderMap) -> Result<crate::Caller, Failure> {
    if let Some(meant) = header::<ClusterId>(headers, HEADER_CLUSTER)?
        && let Some(own) = context.cluster()
        && meant != own
    {
        return Err(Failure::new(
            ErrorCode::WrongCluster,
            format!("this is {} of cluster {own}, not of {meant}", context.service()),
        )
        .with("cluster", own));
    }
    if let Some(meant) = header::<Incarnation>(headers, HEADER_INCARNATION)?
        && meant != context.pid().incarnation
    {
        let own = context.pid().incarnation;
        return Err(Failure::new(
            ErrorCode::WrongIncarnation,
            format!("this is {} in incarnation {own}, not {meant}", context.service()),
        )
        .with("incarnation", own));
    }
    identify(headers, context.secrets())
}

fn header<T: std::str::FromStr>(
    headers: &HeaderMap,
    name: &'static str,
) -> Result<Option<T>, Failure> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or_else(|| {
        Failure::new(ErrorCode::InvalidRequest, format!("header {name} is malformed"))
            .with("field", name)
    })
}

/// Every error is a problem document with the request's and the trace's id.
async fn with_problem(
    context: &Context,
    mut response: Response,
    id: &RequestId,
    span: &Span,
) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let mut problem = match response.extensions_mut().remove::<Failure>() {
        Some(failure) => *failure.0,
        None if is_problem(&response) => return response,
        None => {
            let body = std::mem::take(response.body_mut());
            let text = Limited::new(body, DETAIL_LIMIT).collect().await;
            let text = text.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            Problem::new(code_of_status(status), String::from_utf8_lossy(&text))
        }
    };
    let kind = context.service().kind();
    context.runtime().mark(format_args!("{kind}.answers.{}", problem.code.as_str()));
    problem.request_id = Some(id.as_str().to_owned());
    problem.trace_id = plinth_telemetry::trace_id(span);
    let mut answer = document(&problem);
    // What the handler added, such as `Allow`, stays; what describes the old body goes.
    for (name, value) in response.headers() {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}

fn is_problem(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM_JSON)
}
