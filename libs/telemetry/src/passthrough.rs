//! A tracer that records nothing: it passes the caller's trace context on unchanged, and gives work
//! that has none a fresh, unsampled trace id, so that logs and problem documents can still name it.

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{
    Span, SpanBuilder, SpanContext, Status, TraceContextExt, TraceFlags, TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

/// Makes [`PassThroughSpan`]s.
#[derive(Clone, Debug, Default)]
pub(crate) struct PassThrough {
    ids: RandomIdGenerator,
}

/// A span context and nothing else.
#[derive(Debug)]
pub(crate) struct PassThroughSpan(SpanContext);

impl Tracer for PassThrough {
    type Span = PassThroughSpan;

    fn build_with_context(&self, _builder: SpanBuilder, parent: &Context) -> PassThroughSpan {
        let parent = parent.span();
        if parent.span_context().is_valid() {
            return PassThroughSpan(parent.span_context().clone());
        }
        PassThroughSpan(SpanContext::new(
            self.ids.new_trace_id(),
            self.ids.new_span_id(),
            TraceFlags::default(),
            false,
            TraceState::default(),
        ))
    }
}

impl Span for PassThroughSpan {
    fn add_event_with_timestamp<T>(&mut self, _name: T, _at: SystemTime, _with: Vec<KeyValue>)
    where
        T: Into<Cow<'static, str>>,
    {
    }

    fn span_context(&self) -> &SpanContext {
        &self.0
    }

    fn is_recording(&self) -> bool {
        false
    }

    fn set_attribute(&mut self, _attribute: KeyValue) {}

    fn set_status(&mut self, _status: Status) {}

    fn update_name<T>(&mut self, _name: T)
    where
        T: Into<Cow<'static, str>>,
    {
    }

    fn add_link(&mut self, _to: SpanContext, _with: Vec<KeyValue>) {}

    fn end_with_timestamp(&mut self, _at: SystemTime) {}
}
