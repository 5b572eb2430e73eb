//! A trace as a document of Jaeger's query API.

use std::fmt::Write as _;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::{Value, json};

use super::store::{Process, Trace, TraceId};

/// A name, a type of Jaeger's and a value.
pub(super) struct Tag {
    pub(super) key: String,
    kind: &'static str,
    value: Value,
}

impl Tag {
    fn new(key: &str, kind: &'static str, value: impl Into<Value>) -> Self {
        Tag { key: key.to_owned(), kind, value: value.into() }
    }

    fn of(attribute: &KeyValue) -> Self {
        let (kind, value) = match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(any_value::Value::BoolValue(value)) => ("bool", json!(value)),
            Some(any_value::Value::IntValue(value)) => ("int64", json!(value)),
            Some(any_value::Value::DoubleValue(value)) => ("float64", json!(value)),
            Some(value) => ("string", plain(value)),
            None => ("string", json!("")),
        };
        Tag { key: attribute.key.clone(), kind, value }
    }

    /// The value as one would search for it.
    pub(super) fn text(&self) -> String {
        match &self.value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    fn document(&self) -> Value {
        json!({"key": self.key, "type": self.kind, "value": self.value})
    }
}

/// A value as text; lists and maps as JSON text.
fn plain(value: &any_value::Value) -> Value {
    match value {
        any_value::Value::StringValue(text) => json!(text),
        nested => json!(nested_value(nested).to_string()),
    }
}

fn nested_value(value: &any_value::Value) -> Value {
    let inner = |value: Option<&AnyValue>| {
        value.and_then(|value| value.value.as_ref()).map_or(Value::Null, nested_value)
    };
    match value {
        any_value::Value::StringValue(text) => json!(text),
        any_value::Value::BoolValue(value) => json!(value),
        any_value::Value::IntValue(value) => json!(value),
        any_value::Value::DoubleValue(value) => json!(value),
        any_value::Value::BytesValue(bytes) => json!(hex(bytes)),
        any_value::Value::ArrayValue(list) => {
            list.values.iter().map(|value| inner(Some(value))).collect()
        }
        any_value::Value::KvlistValue(map) => Value::Object(
            map.values
                .iter()
                .map(|entry| (entry.key.clone(), inner(entry.value.as_ref())))
                .collect(),
        ),
        // A reference into a table of texts that only profiles have.
        any_value::Value::StringValueStrindex(index) => json!(index),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A span's attributes, and its kind and status, which Jaeger shows as tags.
pub(super) fn tags(span: &Span) -> Vec<Tag> {
    let mut tags: Vec<Tag> = span.attributes.iter().map(Tag::of).collect();
    let kind = match SpanKind::try_from(span.kind) {
        Ok(SpanKind::Server) => Some("server"),
        Ok(SpanKind::Client) => Some("client"),
        Ok(SpanKind::Producer) => Some("producer"),
        Ok(SpanKind::Consumer) => Some("consumer"),
        Ok(SpanKind::Internal) => Some("internal"),
        Ok(SpanKind::Unspecified) | Err(_) => None,
    };
    tags.extend(kind.map(|kind| Tag::new("span.kind", "string", kind)));
    if let Some(status) = &span.status {
        match StatusCode::try_from(status.code) {
            Ok(StatusCode::Error) => {
                tags.push(Tag::new("error", "bool", true));
                tags.push(Tag::new("otel.status_code", "string", "ERROR"));
            }
            Ok(StatusCode::Ok) => tags.push(Tag::new("otel.status_code", "string", "OK")),
            Ok(StatusCode::Unset) | Err(_) => {}
        }
        if !status.message.is_empty() {
            let message = status.message.as_str();
            tags.push(Tag::new("otel.status_description", "string", message));
        }
    }
    tags
}

/// What a sender says about itself, its service's name apart.
pub(super) fn process_tags(process: &Process) -> impl Iterator<Item = Tag> {
    process
        .resource
        .attributes
        .iter()
        .filter(|attribute| attribute.key != "service.name")
        .map(Tag::of)
}

/// How long a span took, in nanoseconds; nothing if its clock went backwards.
pub(super) fn duration(span: &Span) -> u64 {
    span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano)
}

fn log(event: &Event) -> Value {
    let mut fields = vec![Tag::new("event", "string", event.name.as_str()).document()];
    fields.extend(event.attributes.iter().map(|attribute| Tag::of(attribute).document()));
    json!({"timestamp": event.time_unix_nano / 1000, "fields": fields})
}

fn references(span: &Span) -> Vec<Value> {
    let reference = |kind: &str, trace: &[u8], span: &[u8]| json!({"refType": kind, "traceID": hex(trace), "spanID": hex(span)});
    let parent = (!span.parent_span_id.is_empty())
        .then(|| reference("CHILD_OF", &span.trace_id, &span.parent_span_id));
    let links =
        span.links.iter().map(|link| reference("FOLLOWS_FROM", &link.trace_id, &link.span_id));
    parent.into_iter().chain(links).collect()
}

/// The whole trace. Times are in microseconds since 1970.
pub(super) fn trace(id: &TraceId, trace: &Trace) -> Value {
    let spans: Vec<Value> = trace
        .spans
        .values()
        .map(|stored| {
            let span = &stored.span;
            json!({
                "traceID": hex(id),
                "spanID": hex(&span.span_id),
                "operationName": span.name,
                "references": references(span),
                "startTime": span.start_time_unix_nano / 1000,
                "duration": duration(span) / 1000,
                "tags": tags(span).iter().map(Tag::document).collect::<Vec<_>>(),
                "logs": span.events.iter().map(log).collect::<Vec<_>>(),
                "processID": process_key(stored.process),
                "warnings": null,
            })
        })
        .collect();
    let processes: serde_json::Map<String, Value> = trace
        .processes
        .iter()
        .enumerate()
        .map(|(index, process)| {
            let tags: Vec<Value> = process_tags(process).map(|tag| tag.document()).collect();
            (process_key(index), json!({"serviceName": process.service, "tags": tags}))
        })
        .collect();
    json!({"traceID": hex(id), "spans": spans, "processes": processes, "warnings": null})
}

fn process_key(index: usize) -> String {
    format!("p{}", index + 1)
}
