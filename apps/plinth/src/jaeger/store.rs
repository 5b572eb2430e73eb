//! Traces in memory, put together from spans that come in any order, in pieces and twice.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

pub(super) type TraceId = [u8; 16];
pub(super) type SpanId = [u8; 8];

/// What a decoded message takes in memory, as a multiple of its encoded length: each of its texts
/// has a header and an allocation of its own.
const EXPANSION: usize = 4;
/// What a trace or a span takes beside its content, in bytes.
const OVERHEAD: usize = 512;

/// What is kept at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Traces.
    pub(super) traces: usize,
    /// Spans in one trace; later ones are rejected.
    pub(super) spans_per_trace: usize,
    /// Memory in bytes, estimated.
    pub(super) bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { traces: 10_000, spans_per_trace: 20_000, bytes: 256 << 20 }
    }
}

/// Who sent spans.
#[derive(Debug)]
pub(super) struct Process {
    /// `service.name`.
    pub(super) service: String,
    /// Everything the sender says about itself.
    pub(super) resource: Resource,
}

/// A span and who sent it.
#[derive(Debug)]
pub(super) struct StoredSpan {
    pub(super) span: Span,
    /// Index into the trace's processes.
    pub(super) process: usize,
    bytes: usize,
}

/// What is known of a trace so far.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) processes: Vec<Process>,
    pub(super) spans: BTreeMap<SpanId, StoredSpan>,
    root: Option<SpanId>,
    bytes: usize,
    touched: u64,
}

impl Trace {
    /// The spans with their senders.
    pub(super) fn spans(&self) -> impl Iterator<Item = (&Span, &Process)> {
        self.spans
            .values()
            .filter_map(|stored| Some((&stored.span, self.processes.get(stored.process)?)))
    }

    /// When the trace's first span began, in nanoseconds since 1970.
    pub(super) fn start(&self) -> u64 {
        self.spans.values().map(|stored| stored.span.start_time_unix_nano).min().unwrap_or(0)
    }

    /// What kind of trace it is: what its root does, nothing as long as the root is missing.
    fn class(&self) -> &str {
        self.root
            .and_then(|root| self.spans.get(&root))
            .map_or("", |stored| stored.span.name.as_str())
    }

    fn process(&mut self, resource: &Resource) -> usize {
        let known = self.processes.iter().rposition(|process| process.resource == *resource);
        known.unwrap_or_else(|| {
            self.bytes += OVERHEAD + EXPANSION * resource.encoded_len();
            self.processes.push(Process {
                service: service_name(resource).to_owned(),
                resource: resource.clone(),
            });
            self.processes.len() - 1
        })
    }

    /// Takes a span, or another copy of one that was sent twice.
    fn put(&mut self, id: SpanId, span: Span, resource: &Resource) {
        let process = self.process(resource);
        let bytes = OVERHEAD + EXPANSION * span.encoded_len();
        if span.parent_span_id.is_empty() {
            self.root = Some(id);
        }
        self.bytes += bytes;
        if let Some(replaced) = self.spans.insert(id, StoredSpan { span, process, bytes }) {
            self.bytes -= replaced.bytes;
        }
    }
}

fn service_name(resource: &Resource) -> &str {
    resource
        .attributes
        .iter()
        .find(|attribute| attribute.key == "service.name")
        .and_then(|attribute| attribute.value.as_ref()?.value.as_ref())
        .and_then(|value| match value {
            Value::StringValue(name) => Some(name.as_str()),
            _ => None,
        })
        .unwrap_or("unknown")
}

/// The traces of one kind.
#[derive(Default)]
struct Class {
    bytes: usize,
    /// Each with when it was added to last.
    members: Vec<(u64, TraceId)>,
}

/// All traces, within the limits.
#[derive(Debug)]
pub(super) struct Store {
    limits: Limits,
    traces: BTreeMap<TraceId, Trace>,
    bytes: usize,
    /// Counts exports, to tell which trace was added to last.
    clock: u64,
}

impl Store {
    pub(super) fn new(limits: Limits) -> Self {
        Store { limits, traces: BTreeMap::new(), bytes: 0, clock: 0 }
    }

    /// Takes an export and returns how many of its spans were rejected.
    pub(super) fn ingest(&mut self, request: ExportTraceServiceRequest) -> usize {
        self.clock += 1;
        let mut rejected = 0;
        for batch in request.resource_spans {
            let resource = batch.resource.unwrap_or_default();
            for span in batch.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                if !self.put(span, &resource) {
                    rejected += 1;
                }
            }
        }
        self.shrink();
        rejected
    }

    fn put(&mut self, mut span: Span, resource: &Resource) -> bool {
        let (Some(trace_id), Some(span_id)) = (id(&span.trace_id), id(&span.span_id)) else {
            return false;
        };
        if id::<8>(&span.parent_span_id).is_none() {
            span.parent_span_id.clear();
        }
        let trace = self.traces.entry(trace_id).or_insert_with(|| {
            self.bytes += OVERHEAD;
            Trace { bytes: OVERHEAD, ..Trace::default() }
        });
        if trace.spans.len() >= self.limits.spans_per_trace && !trace.spans.contains_key(&span_id) {
            return false;
        }
        trace.touched = self.clock;
        let before = trace.bytes;
        trace.put(span_id, span, resource);
        self.bytes = self.bytes - before + trace.bytes;
        true
    }

    /// Makes room where there is most: the kind of trace that takes the most memory loses its
    /// oldest ones. So a thousand requests a second don't push out the one recovery.
    fn shrink(&mut self) {
        while self.traces.len() > self.limits.traces || self.bytes > self.limits.bytes {
            let mut classes: BTreeMap<&str, Class> = BTreeMap::new();
            for (id, trace) in &self.traces {
                let class = classes.entry(trace.class()).or_default();
                class.bytes += trace.bytes;
                class.members.push((trace.touched, *id));
            }
            let Some(mut largest) = classes.into_values().max_by_key(|class| class.bytes) else {
                return;
            };
            largest.members.sort_unstable();
            // A tenth at once, so that the count above is not made for each span that comes.
            let victims = largest.members.len().div_ceil(10);
            for (_, id) in largest.members.into_iter().take(victims) {
                if let Some(trace) = self.traces.remove(&id) {
                    self.bytes -= trace.bytes;
                }
            }
        }
    }

    /// A trace, as far as it has arrived.
    pub(super) fn get(&self, id: &TraceId) -> Option<&Trace> {
        self.traces.get(id)
    }

    /// All traces, by id.
    pub(super) fn traces(&self) -> impl Iterator<Item = (&TraceId, &Trace)> {
        self.traces.iter()
    }

    /// The names of all services that sent spans.
    pub(super) fn services(&self) -> BTreeSet<&str> {
        self.traces
            .values()
            .flat_map(|trace| &trace.processes)
            .map(|process| process.service.as_str())
            .collect()
    }

    /// The names of a service's spans.
    pub(super) fn operations(&self, service: &str) -> BTreeSet<&str> {
        self.traces
            .values()
            .flat_map(Trace::spans)
            .filter(|(_, process)| process.service == service)
            .map(|(span, _)| span.name.as_str())
            .collect()
    }
}

/// An id of its full length, which is not all zeros.
fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    <[u8; N]>::try_from(bytes).ok().filter(|id| *id != [0; N])
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};

    use super::*;

    fn request(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let name = KeyValue {
            key: "service.name".to_owned(),
            value: Some(AnyValue { value: Some(Value::StringValue(service.to_owned())) }),
            ..KeyValue::default()
        };
        let resource = Some(Resource { attributes: vec![name], ..Resource::default() });
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource,
                scope_spans,
                ..ResourceSpans::default()
            }],
        }
    }

    fn span(trace: u128, id: u64, parent: u64, name: &str) -> Span {
        Span {
            trace_id: trace.to_be_bytes().to_vec(),
            span_id: id.to_be_bytes().to_vec(),
            parent_span_id: if parent == 0 { vec![] } else { parent.to_be_bytes().to_vec() },
            name: name.to_owned(),
            ..Span::default()
        }
    }

    fn recount(store: &Store) -> usize {
        store.traces.values().map(|trace| trace.bytes).sum()
    }

    #[test]
    fn a_trace_is_put_together_from_pieces_in_any_order() {
        let mut store = Store::new(Limits::default());
        for process in (0..12_u64).rev() {
            let parent = if process == 0 { 0 } else { 1 };
            let service = format!("plinth-{process}");
            let first = span(7, process * 10 + 1, parent, "first");
            let second = span(7, process * 10 + 2, process * 10 + 1, "second");
            assert_eq!(store.ingest(request(&service, vec![second])), 0);
            assert_eq!(store.ingest(request(&service, vec![first.clone()])), 0);
            // A retry sends a batch again.
            assert_eq!(store.ingest(request(&service, vec![first])), 0);
        }
        assert_eq!(store.traces.len(), 1);
        let trace = store.get(&7_u128.to_be_bytes()).unwrap();
        assert_eq!(trace.spans.len(), 24);
        assert_eq!(trace.processes.len(), 12);
        assert_eq!(trace.class(), "first");
        assert_eq!(store.services().len(), 12);
        assert_eq!(store.operations("plinth-3"), BTreeSet::from(["first", "second"]));
        assert_eq!(store.bytes, recount(&store));
    }

    #[test]
    fn malformed_ids_and_too_long_traces_are_rejected() {
        let mut store = Store::new(Limits { spans_per_trace: 2, ..Limits::default() });
        let mut short = span(1, 1, 0, "short");
        short.trace_id.pop();
        assert_eq!(
            store.ingest(request("a", vec![short, span(0, 1, 0, "zero"), span(1, 0, 0, "zero")])),
            3
        );
        assert!(store.traces.is_empty());
        let spans = (1..=4).map(|id| span(1, id, 0, "many")).collect();
        assert_eq!(store.ingest(request("a", spans)), 2);
        assert_eq!(store.ingest(request("a", vec![span(1, 1, 0, "again")])), 0);
        // A parent of zeros is none.
        let mut root = span(2, 1, 0, "root");
        root.parent_span_id = vec![0; 8];
        store.ingest(request("a", vec![root]));
        assert_eq!(store.get(&2_u128.to_be_bytes()).unwrap().class(), "root");
        assert_eq!(store.bytes, recount(&store));
    }

    #[test]
    fn a_flood_of_requests_does_not_push_out_a_recovery() {
        let limits = Limits { traces: 50, ..Limits::default() };
        let mut store = Store::new(limits);
        store.ingest(request("coordinator", vec![span(1, 1, 0, "recovery")]));
        for trace in 2..1000 {
            store.ingest(request("gateway", vec![span(trace, 1, 0, "GET /v1/keys/{key}")]));
            assert!(store.traces.len() <= limits.traces);
        }
        assert!(store.get(&1_u128.to_be_bytes()).is_some());
        assert!(store.get(&2_u128.to_be_bytes()).is_none());
        assert!(store.get(&999_u128.to_be_bytes()).is_some());
        assert_eq!(store.bytes, recount(&store));
    }

    #[test]
    fn memory_is_bounded() {
        let limits = Limits { bytes: 100_000, ..Limits::default() };
        let mut store = Store::new(limits);
        for trace in 1..200 {
            store.ingest(request("a", vec![span(trace, 1, 0, &"x".repeat(1000))]));
            assert!(store.bytes <= limits.bytes);
            assert_eq!(store.bytes, recount(&store));
        }
        assert!(store.traces.len() > 5);
        // One trace alone is too much.
        store.ingest(request("a", vec![span(1000, 1, 0, &"y".repeat(100_000))]));
        assert!(store.bytes <= limits.bytes);
    }
}
