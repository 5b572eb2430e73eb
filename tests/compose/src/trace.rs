//! Traces as the recorder kept them, decoded by the protocol's own messages.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

/// A span of one trace.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its name.
    pub name: String,
    /// Its parent's id; none for a root.
    pub parent: Option<Vec<u8>>,
    /// Its kind.
    pub kind: SpanKind,
    /// `service.instance.id` of its process, such as `log-1@node-2`.
    pub instance: String,
}

/// One trace, by span id.
pub type Trace = BTreeMap<Vec<u8>, Span>;

/// The spans of a trace, out of what the recorder gave back.
///
/// # Errors
/// Something is not OTLP, or a span came twice.
pub fn decode(mut recorded: &[u8], trace_id: &str) -> anyhow::Result<Trace> {
    let mut trace = Trace::new();
    while let Some((length, rest)) = recorded.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length))?;
        let (export, rest) = rest.split_at_checked(length).context("an export is cut off")?;
        recorded = rest;
        for of_resource in ExportTraceServiceRequest::decode(export)?.resource_spans {
            let resource = of_resource.resource.context("spans without a resource")?;
            let instance = resource
                .attributes
                .into_iter()
                .find(|pair| pair.key == "service.instance.id")
                .and_then(|pair| pair.value?.value);
            let Some(any_value::Value::StringValue(instance)) = instance else {
                anyhow::bail!("spans of nobody in particular");
            };
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                if hex(&span.trace_id) != trace_id {
                    continue;
                }
                let parent = Some(span.parent_span_id.clone()).filter(|id| !id.is_empty());
                let (kind, name, instance) = (span.kind(), span.name, instance.clone());
                let before = trace.insert(span.span_id, Span { name, parent, kind, instance });
                ensure!(before.is_none(), "a span came twice: {before:?}");
            }
        }
    }
    ensure!(recorded.is_empty(), "the last export is cut off");
    Ok(trace)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks that a trace is whole: one root, every parent there, and each step from one service to
/// another a client's span above a server's. A storage applies what it has pulled from a log, without
/// a call from the commit proxy whose batch it is.
///
/// # Errors
/// What is not so.
pub fn check_whole(trace: &Trace) -> anyhow::Result<&Span> {
    let mut roots = trace.values().filter(|span| span.parent.is_none());
    let root = roots.next().context("the root has not come")?;
    ensure!(roots.next().is_none(), "several roots");
    for span in trace.values() {
        let Some(parent) = &span.parent else { continue };
        let parent = trace.get(parent).with_context(|| format!("{span:?} has lost its parent"))?;
        let is_pulled = span.name == "apply" && parent.instance.starts_with("commit-proxy-");
        ensure!(
            parent.instance == span.instance
                || is_pulled
                || (parent.kind, span.kind) == (SpanKind::Client, SpanKind::Server),
            "no call leads from {parent:?} to {span:?}"
        );
    }
    Ok(root)
}

/// The services that took part.
#[must_use]
pub fn instances(trace: &Trace) -> BTreeSet<&str> {
    trace.values().map(|span| span.instance.as_str()).collect()
}
