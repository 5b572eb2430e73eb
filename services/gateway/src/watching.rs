//! Watches: by long poll, and as server-sent events.

use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use plinth_api::gateway::WatchEvent;
use plinth_client::Read;
use plinth_service::{Failure, Json};
use plinth_types::{Key, Value, Version};
use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{PartialSchema as _, ToSchema as _};

use crate::execute::{failed, invalid};
use crate::http::Gateway;
use crate::values::{accepts, with_version};

/// The longest that a long poll waits.
const LONGEST: Duration = Duration::from_secs(30);
/// How long one watch of a stream waits before it is begun again.
const STREAM_POLL: Duration = Duration::from_secs(30);
/// A stream says at least so often that it is alive.
const ALIVE: Duration = Duration::from_secs(10);

/// The parameters that only watches have.
const WATCHS: [&str; 4] = ["wait", "value", "value_b64", "absent"];

/// What a request says that it has seen.
pub(crate) struct Seen {
    pub(crate) value: Option<String>,
    pub(crate) value_b64: Option<String>,
    pub(crate) absent: bool,
}

impl Seen {
    /// The value seen; none where the request says nothing of it.
    fn known(self) -> Result<Option<Option<Value>>, Failure> {
        match (self.value, self.value_b64, self.absent) {
            (None, None, false) => Ok(None),
            (None, None, true) => Ok(Some(None)),
            (Some(text), None, false) => Ok(Some(Some(Value::from(text.as_str())))),
            (None, Some(text), false) => {
                // A `+` that was not escaped in the query has become a space.
                let bytes = STANDARD.decode(text.replace(' ', "+"));
                let bytes = bytes.map_err(|_| invalid("value_b64", "value_b64 is not base64"))?;
                Ok(Some(Some(Value::from(bytes))))
            }
            _ => Err(invalid("value", "say once what was seen: value, value_b64 or absent")),
        }
    }
}

/// Answers a watch. Without a word of what was seen, a long poll waits for the next change, and a
/// stream begins with the value as it is.
pub(crate) async fn watch(
    gateway: Gateway,
    key: Key,
    seen: Seen,
    wait: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let known = seen.known()?;
    let wait = match wait {
        None => LONGEST,
        Some(text) => duration(text)
            .filter(|wait| *wait <= LONGEST)
            .ok_or_else(|| invalid("wait", "wait must be such as 30s or 500ms, and at most 30s"))?,
    };
    let streams = accepts(headers, "text/event-stream");
    let place = gateway.watch_place().ok_or_else(|| {
        Failure::new(plinth_api::ErrorCode::Overloaded, "too many watches wait at this gateway")
    })?;
    let now = gateway.database().get(&key, gateway.deadline()).await.map_err(failed)?;
    let changed = known.as_ref().is_some_and(|seen| *seen != now.value);
    if !streams {
        let found = if changed {
            Some(now.clone())
        } else {
            gateway.database().watch(&key, &now, wait).await.map_err(failed)?
        };
        let changed = found.is_some();
        let Read { version, value } = found.unwrap_or(now);
        let event = WatchEvent { key, value, version, changed };
        return Ok(with_version(Json(event).into_response(), version));
    }
    let stream = async_stream::stream! {
        let _place = place;
        let mut last = now;
        let mut tell = known.is_none() || changed;
        loop {
            if tell {
                let Read { version, value } = last.clone();
                let event = WatchEvent { key: key.clone(), value, version, changed: true };
                yield event_of(&event, version);
            }
            match gateway.database().watch(&key, &last, STREAM_POLL).await {
                Ok(found) => {
                    tell = found.is_some();
                    last = found.unwrap_or(last);
                }
                // The client connects again, and is told what is wrong.
                Err(_) => return,
            }
        }
    };
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(ALIVE)).into_response())
}

/// How the document tells watches apart from reads: the router knows one route for both. Takes the
/// parameters of watches from the operation that reads.
pub(crate) fn operation(get: &mut Operation) -> Operation {
    let mut watch = get.clone();
    let is_watchs = |parameter: &RefOr<Parameter>| match parameter {
        RefOr::T(parameter) => WATCHS.contains(&parameter.name.as_str()),
        RefOr::Ref(_) => false,
    };
    get.parameters.iter_mut().for_each(|all| all.retain(|parameter| !is_watchs(parameter)));
    watch.parameters.iter_mut().for_each(|all| {
        all.retain(|parameter| match parameter {
            RefOr::T(parameter) => parameter.name != "consistency",
            RefOr::Ref(_) => true,
        });
    });
    watch.operation_id = Some("watch_key".to_owned());
    watch.summary = Some(
        "Waits until a key has another value than was seen. With `Accept: text/event-stream` every \
         value that follows is told."
            .to_owned(),
    );
    watch.description = None;
    let event = Ref::from_schema_name(WatchEvent::name());
    let json = ContentBuilder::new().schema(Some(event)).build();
    let text = ContentBuilder::new().schema(Some(String::schema())).build();
    let answer = ResponseBuilder::new()
        .description("what the key has, and whether that is another value")
        .content("application/json", json)
        .content("text/event-stream", text)
        .build();
    watch.responses.responses.insert("200".to_owned(), answer.into());
    watch.responses.responses.remove("404");
    watch
}

fn event_of(event: &WatchEvent, version: Version) -> Result<Event, std::convert::Infallible> {
    let data = serde_json::to_string(event).unwrap_or_default();
    Ok(Event::default().event("value").id(version.to_string()).data(data))
}

fn duration(text: &str) -> Option<Duration> {
    if let Some(ms) = text.strip_suffix("ms") {
        return ms.parse().ok().map(Duration::from_millis);
    }
    text.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_and_values_are_read_as_they_are_meant() {
        assert_eq!(duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        for wrong in ["", "s", "ms", "-1s", "1m", "1.5s", "30"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
        let seen = |value: Option<&str>, b64: Option<&str>, absent| Seen {
            value: value.map(str::to_owned),
            value_b64: b64.map(str::to_owned),
            absent,
        };
        assert_eq!(seen(None, None, false).known().expect("nothing"), None);
        assert_eq!(seen(None, None, true).known().expect("absent"), Some(None));
        assert_eq!(seen(Some("v"), None, false).known().expect("v"), Some(Some("v".into())));
        assert_eq!(seen(None, Some("dg=="), false).known().expect("v"), Some(Some("v".into())));
        assert!(seen(Some("v"), None, true).known().is_err());
        assert!(seen(None, Some("!"), false).known().is_err());
    }
}
