//! Extractors that answer bad input with a problem naming the field.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use plinth_api::{ErrorCode, HEADER_EPOCH};
use plinth_types::Epoch;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::budget::Share;
use crate::fields::field_names;
use crate::{BODY_LIMIT, Caller, Failure, SERVICE_BODY_LIMIT};

/// The time a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(20);

/// How much of a refused body is read to its end, in bytes.
const DISCARD_LIMIT: usize = 2 * BODY_LIMIT;

/// A JSON body, in a request or an answer. Fields that it does not know are refused, unless a service
/// sends them: a person's typing error must not pass for a default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

/// A body as it came, of at most [`BODY_LIMIT`] bytes, of services [`SERVICE_BODY_LIMIT`].
#[derive(Clone, Debug, Default)]
pub struct Body(pub Bytes);

/// The query. Parameters that it does not know are refused, unless a service sends them: services
/// of two releases understand each other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<T>(pub T);

/// The sender's epoch, where it acts in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderEpoch(pub Option<Epoch>);

fn invalid(detail: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidRequest, detail)
}

impl<S: Sync> FromRequest<S> for Body {
    type Rejection = Failure;
    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let (head, mut body) = request.into_parts();
        // Who asks before it sends is told at once; nothing is on its way.
        let asks_first = head.headers.contains_key(header::EXPECT);
        let share = head.extensions.get::<Share>();
        let is_service = head.extensions.get::<Caller>() == Some(&Caller::Service);
        let limit = if is_service { SERVICE_BODY_LIMIT } else { BODY_LIMIT };
        let reading = async {
            let announced = body.size_hint().lower();
            let result = match usize::try_from(announced) {
                Ok(announced) if announced <= limit => {
                    collect(&mut body, announced, limit, share).await
                }
                Ok(_) | Err(_) => Err(Uncollected::Large { seen: announced, is_whole: true }),
            };
            match result {
                Ok(body) => Ok(body),
                Err(why) => {
                    let more = if asks_first { 0 } else { discard(&mut body).await };
                    Err(why.into_failure(limit, more))
                }
            }
        };
        timeout(BODY_TIME, reading).await.unwrap_or_else(|_| {
            Err(invalid(format!("the body did not arrive within {} s", BODY_TIME.as_secs())))
        })
    }
}

/// Why a body is not taken.
enum Uncollected {
    /// Its size as far as it was seen, which is the whole where its head says it.
    Large {
        seen: u64,
        is_whole: bool,
    },
    Refused(Failure),
    BrokenOff,
}

impl Uncollected {
    /// `more` bytes were read after it was refused.
    fn into_failure(self, limit: usize, more: u64) -> Failure {
        match self {
            Uncollected::Large { seen, is_whole } => {
                let actual = if is_whole { seen } else { seen.saturating_add(more) };
                let detail = format!(
                    "the body has {actual} bytes; the limit is {limit}: send less at a time"
                );
                let failure = Failure::new(ErrorCode::LimitExceeded, detail);
                failure.with("limit_bytes", limit).with("actual_bytes", actual)
            }
            Uncollected::Refused(failure) => failure,
            Uncollected::BrokenOff => invalid("the body broke off"),
        }
    }
}

/// Reads a body to its end. Only what it turns out to have is held of the budget.
async fn collect(
    body: &mut axum::body::Body,
    announced: usize,
    limit: usize,
    share: Option<&Share>,
) -> Result<Body, Uncollected> {
    let hold = |bytes| match share {
        Some(share) => share.hold(bytes).map_err(Uncollected::Refused),
        None => Ok(()),
    };
    hold(announced)?;
    let mut frames = Vec::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(Uncollected::BrokenOff) };
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size > limit {
            return Err(Uncollected::Large { seen: size as u64, is_whole: false });
        }
        hold(size)?;
        frames.push(data);
    }
    Ok(Body(match frames.len() {
        1 => frames.pop().unwrap_or_default(),
        _ => Bytes::from(frames.concat()),
    }))
}

/// Reads on for a while, and counts. Were the connection closed with unread bytes in it, the sender
/// would see it break and never read the answer.
async fn discard(body: &mut axum::body::Body) -> u64 {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > DISCARD_LIMIT {
            break;
        }
    }
    read as u64
}

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;
    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        if !is_json(request.headers()) {
            return Err(Failure::new(
                ErrorCode::UnsupportedMediaType,
                "the body must be JSON: send `Content-Type: application/json`",
            ));
        }
        let is_service = request.extensions().get::<Caller>() == Some(&Caller::Service);
        let Body(body) = Body::from_request(request, state).await?;
        // A list would be taken for the fields of a structure in their order, and an empty one for
        // all defaults.
        if body.trim_ascii_start().first() == Some(&b'[') {
            return Err(invalid("the body must be a JSON object"));
        }
        let parsed = if is_service { serde_json::from_slice(&body).ok() } else { strict(&body)? };
        parsed.map(Json).ok_or_else(|| json_failure::<T>(&body))
    }
}

/// A JSON body that may be left out.
impl<S: Sync, T: DeserializeOwned> OptionalFromRequest<S> for Json<T> {
    type Rejection = Failure;
    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Failure> {
        if request.body().is_end_stream() {
            return Ok(None);
        }
        <Json<T> as FromRequest<S>>::from_request(request, state).await.map(Some)
    }
}

/// Parses a body that may have no unknown fields. None where it is no `T` at all.
fn strict<T: DeserializeOwned>(body: &[u8]) -> Result<Option<T>, Failure> {
    let mut unknown = None;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let parsed = serde_ignored::deserialize(&mut deserializer, |path| {
        unknown.get_or_insert_with(|| path.to_string());
    });
    let parsed = parsed.and_then(|value| deserializer.end().map(|()| value)).ok();
    match unknown {
        Some(field) if parsed.is_some() => {
            let detail = format!("field {field} is unknown: /openapi.json lists what there is");
            Err(invalid(detail).with("field", field))
        }
        _ => Ok(parsed),
    }
}

/// Parses once more, keeping account of the path: only who sends bad input pays for that.
fn json_failure<T: DeserializeOwned>(body: &[u8]) -> Failure {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(_) => invalid("the body has something after its JSON value"),
        Err(error) if error.inner().is_data() && error.path().iter().next().is_some() => {
            let field = error.path().to_string();
            invalid(format!("field {field}: {}", error.inner())).with("field", field)
        }
        Err(error) => invalid(format!("the body is not valid: {}", error.inner())),
    }
}

/// What `curl -d` sends by itself counts as JSON, but not from a web page: a browser would let any
/// page send it here without asking.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return true;
    };
    let Ok(text) = value.to_str() else {
        return false;
    };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => true,
        "application/x-www-form-urlencoded" => !headers.contains_key(header::ORIGIN),
        other => other.starts_with("application/") && other.ends_with("+json"),
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                let json = HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, json)], body).into_response()
            }
            Err(error) => {
                tracing::error!(%error, "an answer can't be written as JSON");
                Failure::new(ErrorCode::Internal, "the answer can't be written").into_response()
            }
        }
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = parts.uri.query().unwrap_or_default();
        if parts.extensions.get::<Caller>() != Some(&Caller::Service)
            && let Some(known) = field_names::<T>()
        {
            let pairs = serde_urlencoded::from_str::<Vec<(String, String)>>(query)
                .map_err(|error| invalid(format!("the query is not valid: {error}")))?;
            if let Some((name, _)) = pairs.iter().find(|(name, _)| !known.contains(&name.as_str()))
            {
                let detail = format!("unknown parameter {name:?}; known: {}", known.join(", "));
                return Err(invalid(detail).with("field", name));
            }
        }
        let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(pairs).map(Query).map_err(|error| {
            let field = error.path().to_string();
            invalid(format!("query parameter {field}: {}", error.inner())).with("field", field)
        })
    }
}

impl<S: Sync> FromRequestParts<S> for SenderEpoch {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let Some(value) = parts.headers.get(HEADER_EPOCH) else {
            return Ok(SenderEpoch(None));
        };
        let epoch = value.to_str().ok().and_then(|text| text.parse().ok());
        epoch.map(|epoch| SenderEpoch(Some(epoch))).ok_or_else(|| {
            invalid(format!("header {HEADER_EPOCH} is not a number")).with("field", HEADER_EPOCH)
        })
    }
}
