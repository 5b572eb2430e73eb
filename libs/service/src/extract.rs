//! Extractors that answer bad input with a problem naming the field.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use plinth_api::{ErrorCode, HEADER_EPOCH};
use plinth_types::Epoch;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::fields::field_names;
use crate::{BODY_LIMIT, Caller, Failure};

/// The time a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(20);

/// How much of a refused body is read to its end, in bytes.
const DISCARD_LIMIT: usize = 4 * BODY_LIMIT;

/// A JSON body, in a request or an answer. Fields that it does not know are refused, unless a service
/// sends them: a person's typing error must not pass for a default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

/// A body as it came, of at most [`BODY_LIMIT`] bytes.
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
        let reading = async {
            let announced = body.size_hint().lower();
            let result = if announced > BODY_LIMIT as u64 {
                Err(too_large())
            } else {
                collect(&mut body).await
            };
            if result.is_err() && !asks_first {
                discard(&mut body).await;
            }
            result
        };
        timeout(BODY_TIME, reading).await.unwrap_or_else(|_| {
            Err(invalid(format!("the body did not arrive within {} s", BODY_TIME.as_secs())))
        })
    }
}

fn too_large() -> Failure {
    let detail = format!("the body is larger than {BODY_LIMIT} bytes: send less at a time");
    Failure::new(ErrorCode::LimitExceeded, detail).with("limit_bytes", BODY_LIMIT)
}

async fn collect(body: &mut axum::body::Body) -> Result<Body, Failure> {
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => Ok(Body(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(invalid("the body broke off")),
    }
}

/// Reads on for a while. Were the connection closed with unread bytes in it, the sender would see
/// it break and never read the answer.
async fn discard(body: &mut axum::body::Body) {
    let mut left = DISCARD_LIMIT;
    while let Some(Ok(frame)) = body.frame().await {
        let size = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(size) else {
            return;
        };
        left = rest;
    }
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
