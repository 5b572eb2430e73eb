//! The monitor stream: a line every 100 ms while a process lives, the end of the stream the moment
//! it dies.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyDataStream, BodyExt as _, Limited};
use hyper::body::Incoming;
use plinth_api::common::{MONITOR_PATH, MonitorLine};
use plinth_api::{ErrorCode, HEADER_INCARNATION, Problem, Target, TimeLimit, TransportError};
use tokio::time::{Instant, interval, timeout_at};

use crate::{Context, Failure};

/// The time between two lines.
const PERIOD: Duration = Duration::from_millis(100);
/// The longest line that a watcher takes, in bytes.
const LINE_LIMIT: usize = 64 << 10;

/// `GET /v1/monitor`.
#[utoipa::path(
    get,
    path = "/v1/monitor",
    tag = "process",
    summary = "A line every 100 ms while the process lives",
    responses((status = 200, description = "One JSON object a line; the last one bears the reason of an exit", content_type = "application/x-ndjson", body = MonitorLine))
)]
pub(crate) async fn monitor(State(context): State<Context>) -> Result<Response, Failure> {
    let slot = context.monitors().try_acquire_owned().map_err(|_| {
        Failure::new(ErrorCode::Overloaded, "too many monitor streams are open here")
    })?;
    let mut lines = context.lines();
    let stream = async_stream::stream! {
        let _slot = slot;
        let mut ticks = interval(PERIOD);
        loop {
            let line = lines.borrow_and_update().clone();
            let mut text = serde_json::to_vec(&line).unwrap_or_default();
            text.push(b'\n');
            yield Ok::<_, Infallible>(Bytes::from(text));
            if line.exit.is_some() {
                break;
            }
            ticks.reset();
            tokio::select! {
                biased;
                changed = lines.changed() => if changed.is_err() { break },
                _ = ticks.tick() => {}
            }
        }
    };
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    let body = axum::body::Body::from_stream(stream);
    Ok(([(header::CONTENT_TYPE, ndjson)], body).into_response())
}

/// How the watching of a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorEnd {
    /// It said so itself.
    Exited {
        /// Its reason.
        reason: String,
    },
    /// The connection ended or could not be made, or another process answers there: it is dead.
    Gone {
        /// What was seen.
        detail: String,
    },
    /// Nothing was heard for too long: frozen, or cut off.
    Silent {
        /// For how long.
        after: Duration,
    },
}

/// Watches a process until it ends or is silent for longer than `silence`, which is asked again with
/// every line. `on_line` sees every line; a change of its state comes at once.
pub async fn watch(
    context: &Context,
    target: &Target,
    silence: impl Fn() -> Duration + Send,
    mut on_line: impl FnMut(MonitorLine) + Send,
) -> MonitorEnd {
    let mut patience = silence();
    let body = match open(context, target, patience).await {
        Ok(body) => body,
        Err(end) => return end,
    };
    let mut deadline = Instant::now() + patience;
    let mut chunks = BodyDataStream::new(body);
    let mut buffer = BytesMut::new();
    loop {
        match timeout_at(deadline, chunks.next()).await {
            Err(_) => return MonitorEnd::Silent { after: patience },
            Ok(None) => return gone("the stream ended"),
            Ok(Some(Err(error))) => return gone(format!("the stream broke: {error}")),
            Ok(Some(Ok(chunk))) => buffer.extend_from_slice(&chunk),
        }
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(end + 1);
            let Ok(line) = serde_json::from_slice::<MonitorLine>(&line) else {
                return gone("what answers is not a monitor stream");
            };
            patience = silence();
            deadline = Instant::now() + patience;
            let exit = line.exit.clone();
            on_line(line);
            if let Some(reason) = exit {
                return MonitorEnd::Exited { reason };
            }
        }
        if buffer.len() > LINE_LIMIT {
            return gone("what answers is not a monitor stream");
        }
    }
}

fn gone(detail: impl Into<String>) -> MonitorEnd {
    MonitorEnd::Gone { detail: detail.into() }
}

async fn open(
    context: &Context,
    target: &Target,
    silence: Duration,
) -> Result<Incoming, MonitorEnd> {
    let mut request = Request::get(format!("http://{}{MONITOR_PATH}", target.address))
        .body(Bytes::new())
        .map_err(|error| gone(format!("{:?} is no address: {error}", target.address)))?;
    if let Some(incarnation) = target.incarnation
        && let Ok(value) = HeaderValue::try_from(incarnation.to_string())
    {
        request.headers_mut().insert(HEADER_INCARNATION, value);
    }
    request.extensions_mut().insert(TimeLimit(silence));
    let answer = context.transport().open(request).await.map_err(|error| match error {
        TransportError::Timeout { .. } => MonitorEnd::Silent { after: silence },
        TransportError::Connect { .. } | TransportError::Broken { .. } => gone(error.to_string()),
    })?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer.into_body());
    }
    let body = Limited::new(answer.into_body(), LINE_LIMIT).collect();
    let body = timeout_at(Instant::now() + silence, body).await;
    let problem = body
        .ok()
        .and_then(Result::ok)
        .and_then(|body| serde_json::from_slice::<Problem>(&body.to_bytes()).ok());
    Err(gone(problem.map_or_else(|| format!("it answers {status}"), |found| found.to_string())))
}
