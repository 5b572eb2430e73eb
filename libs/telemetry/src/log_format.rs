//! Logs as JSON, one object a line, each with the trace it belongs to.

use std::fmt;

use opentelemetry::trace::TraceContextExt;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats events as JSON lines.
pub(crate) struct JsonLines {
    /// Who logs: the service's instance name.
    pub(crate) instance: String,
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    target: &'a str,
    service: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    fields: Map<String, Value>,
    /// The outermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    spans: Vec<SpanLine>,
}

#[derive(Serialize)]
struct SpanLine {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Box<RawValue>>,
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = JsonVisitor::default();
        event.record(&mut fields);
        let spans = context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
            .map(|span| SpanLine {
                name: span.name(),
                fields: span
                    .extensions()
                    .get::<FormattedFields<N>>()
                    .and_then(|fields| RawValue::from_string(fields.fields.clone()).ok()),
            })
            .collect();
        let trace = opentelemetry::Context::current();
        let trace = trace.span().span_context().clone();
        let line = Line {
            timestamp,
            level: event.metadata().level().as_str(),
            target: event.metadata().target(),
            service: &self.instance,
            trace_id: trace.is_valid().then(|| trace.trace_id().to_string()),
            span_id: trace.is_valid().then(|| trace.span_id().to_string()),
            message: fields.0.remove("message"),
            fields: fields.0,
            spans,
        };
        let line = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

#[derive(Default)]
struct JsonVisitor(Map<String, Value>);

impl JsonVisitor {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for JsonVisitor {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::Layer;
    use tracing_subscriber::fmt::format::JsonFields;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(act: impl FnOnce()) -> Vec<Value> {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let provider = SdkTracerProvider::builder().build();
        let logs = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .fmt_fields(JsonFields::new())
            .event_format(JsonLines { instance: "log-1@node-1".to_owned() });
        let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber =
            tracing_subscriber::Registry::default().with(vec![traces.boxed(), logs.boxed()]);
        tracing::subscriber::with_default(subscriber, act);
        let bytes = buffer.0.lock().unwrap();
        std::str::from_utf8(&bytes)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn a_line_bears_its_trace_and_its_spans() {
        let mut trace_id = None;
        let lines = logged(|| {
            tracing::info_span!("recovery", plinth.epoch = 7).in_scope(|| {
                trace_id = crate::current_trace_id();
                tracing::warn!(tag = 3_u64, "a \"log\" is\nslow");
            });
        });
        let line = &lines[0];
        assert_eq!(lines.len(), 1);
        assert_eq!(line["trace_id"].as_str(), trace_id.as_deref());
        assert_eq!(line["span_id"].as_str().map(str::len), Some(16));
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["service"], "log-1@node-1");
        assert_eq!(line["message"], "a \"log\" is\nslow");
        assert_eq!(line["fields"]["tag"], 3);
        assert_eq!(line["spans"][0]["name"], "recovery");
        assert_eq!(line["spans"][0]["fields"]["plinth.epoch"], 7);
    }

    #[test]
    fn outside_of_a_span_there_is_no_trace() {
        let lines = logged(|| tracing::info!("alone"));
        assert_eq!(lines[0]["message"], "alone");
        assert_eq!(lines[0].get("trace_id"), None);
        assert_eq!(lines[0].get("spans"), None);
    }
}
