//! A receiver of OTLP over HTTP that understands nothing of it: it keeps every export as it came and
//! gives all of them back, one after the other, each behind its length as four bytes (big-endian).

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{get, post};

/// The largest export, in bytes.
const EXPORT_LIMIT: usize = 16 << 20;
/// All that is kept, in bytes: what comes above is refused, and the test sees it missing.
const KEPT_LIMIT: usize = 256 << 20;

type Kept = Arc<Mutex<Vec<u8>>>;

async fn export(State(kept): State<Kept>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes());
    if kind != Some(b"application/x-protobuf") || headers.contains_key(header::CONTENT_ENCODING) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE;
    }
    let Ok(length) = u32::try_from(body.len()) else { return StatusCode::PAYLOAD_TOO_LARGE };
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() + body.len() > KEPT_LIMIT {
        return StatusCode::INSUFFICIENT_STORAGE;
    }
    kept.extend(length.to_be_bytes());
    kept.extend(body);
    // An empty ExportTraceServiceResponse: everything was taken.
    StatusCode::OK
}

async fn exports(State(kept): State<Kept>) -> Vec<u8> {
    kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let app = Router::new()
        .route("/v1/traces", post(export).layer(DefaultBodyLimit::max(EXPORT_LIMIT)))
        .route("/exports", get(exports))
        .route("/readyz", get(async || StatusCode::OK))
        .with_state(Kept::default());
    let mut servers = tokio::task::JoinSet::new();
    for address in std::env::args().skip(1) {
        #[expect(clippy::disallowed_methods, reason = "it is no service, and is never simulated")]
        let listener = tokio::net::TcpListener::bind(&address)
            .await
            .with_context(|| format!("{address} can't be listened at"))?;
        let app = app.clone();
        servers.spawn(async move { axum::serve(listener, app).await });
    }
    let first = servers.join_next().await.context("usage: otlp-recorder HOST:PORT …")?;
    Ok(first??)
}
