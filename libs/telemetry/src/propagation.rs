//! Trace context between processes: the W3C `traceparent` and `tracestate` headers, and the same
//! `traceparent` as plain text for work that is picked up later.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACEPARENT: &str = "traceparent";

struct HeaderInjector<'a>(&'a mut HeaderMap);

impl Injector for HeaderInjector<'_> {
    fn set(&mut self, key: &str, value: String) {
        // An empty tracestate says nothing, and some receivers reject it.
        if value.is_empty() {
            return;
        }
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(key.as_bytes()), HeaderValue::from_str(&value))
        {
            self.0.insert(name, value);
        }
    }
}

struct HeaderExtractor<'a>(&'a HeaderMap);

impl Extractor for HeaderExtractor<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct TextExtractor<'a>(&'a str);

impl Extractor for TextExtractor<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// Writes the context of the span that is entered here into a request's headers. Without one, the
/// headers stay as they are.
pub fn inject(headers: &mut HeaderMap) {
    inject_context(&Context::current(), headers);
}

/// As [`inject`], for a span that need not be entered: a client span whose request is being built.
pub fn inject_from(span: &Span, headers: &mut HeaderMap) {
    inject_context(&span.context(), headers);
}

fn inject_context(context: &Context, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(context, &mut HeaderInjector(headers));
}

/// The context that a request's headers carry; an empty one if they carry none or a malformed one.
#[must_use]
pub fn extract(headers: &HeaderMap) -> Context {
    extract_context(&HeaderExtractor(headers))
}

/// The SDK's propagator takes ids that are too short, which the standard forbids: what another
/// receiver would read as another trace, or as none.
fn extract_context(carrier: &dyn Extractor) -> Context {
    let well_formed = carrier.get(TRACEPARENT).is_some_and(|text| {
        let mut lengths = text.trim().split('-').map(str::len);
        [2, 32, 16, 2].into_iter().all(|expected| lengths.next() == Some(expected))
    });
    if well_formed {
        TraceContextPropagator::new().extract_with_context(&Context::new(), carrier)
    } else {
        Context::new()
    }
}

/// Makes the caller's span, as its request's headers name it, the parent of `span`. Call it before
/// `span` is entered, injected or asked for its trace id. Headers without a valid context change
/// nothing.
pub fn set_parent(span: &Span, headers: &HeaderMap) {
    adopt(span, extract(headers));
}

/// Makes the span that `traceparent` names the parent of `span`, so that work done later joins the
/// trace that asked for it. Call it before `span` is entered, injected or asked for its trace id.
/// A malformed text changes nothing.
pub fn set_parent_from_traceparent(span: &Span, traceparent: &str) {
    adopt(span, extract_context(&TextExtractor(traceparent)));
}

fn adopt(span: &Span, parent: Context) {
    if parent.span().span_context().is_valid() {
        // Refused if the span is filtered out or nothing is set up: then there is nothing to join.
        let _ = span.set_parent(parent);
    }
}

/// The trace id of the span that is entered here, 32 hexadecimal digits, sampled or not.
#[must_use]
pub fn current_trace_id() -> Option<String> {
    hex_trace_id(&Context::current())
}

/// The trace id of a span, 32 hexadecimal digits, sampled or not.
#[must_use]
pub fn trace_id(span: &Span) -> Option<String> {
    hex_trace_id(&span.context())
}

fn hex_trace_id(context: &Context) -> Option<String> {
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| context.trace_id().to_string())
}

/// The `traceparent` of the span that is entered here, 55 characters, if it is sampled; else what
/// would be carried is of no use.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    sampled_traceparent(Context::current().span().span_context())
}

/// As [`current_traceparent`], for a span that need not be entered.
#[must_use]
pub fn traceparent(span: &Span) -> Option<String> {
    sampled_traceparent(span.context().span().span_context())
}

fn sampled_traceparent(context: &SpanContext) -> Option<String> {
    (context.is_valid() && context.is_sampled()).then(|| {
        format!(
            "00-{}-{}-{:02x}",
            context.trace_id(),
            context.span_id(),
            context.trace_flags().to_u8()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(traceparent: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, traceparent.parse().unwrap());
        headers
    }

    #[test]
    fn what_is_extracted_is_what_was_injected() {
        let mut received = headers(PARENT);
        received.insert("tracestate", "vendor=1".parse().unwrap());
        let mut sent = HeaderMap::new();
        inject_context(&extract(&received), &mut sent);
        assert_eq!(sent, received);
    }

    #[test]
    fn an_empty_tracestate_is_not_sent() {
        let mut sent = HeaderMap::new();
        inject_context(&extract(&headers(PARENT)), &mut sent);
        assert_eq!(sent, headers(PARENT));
    }

    #[test]
    fn a_malformed_header_is_no_context() {
        let zero = "00-00000000000000000000000000000000-0000000000000000-01";
        for text in ["", "00-abc-def-01", "garbage", zero] {
            let context = extract(&headers(text));
            assert!(!context.span().span_context().is_valid(), "{text}");
        }
        assert!(!extract(&HeaderMap::new()).span().span_context().is_valid());
    }

    #[test]
    fn a_traceparent_is_handed_on_only_if_sampled() {
        let context = extract(&headers(PARENT));
        assert_eq!(sampled_traceparent(context.span().span_context()).as_deref(), Some(PARENT));
        let unsampled = extract(&headers(&PARENT.replace("-01", "-00")));
        assert_eq!(sampled_traceparent(unsampled.span().span_context()), None);
    }

    #[test]
    fn without_a_setup_everything_is_empty_and_harmless() {
        let span = tracing::info_span!("alone");
        set_parent_from_traceparent(&span, PARENT);
        let mut sent = HeaderMap::new();
        inject_from(&span, &mut sent);
        assert!(sent.is_empty());
        assert_eq!(trace_id(&span), None);
        assert_eq!(current_traceparent(), None);
    }
}
