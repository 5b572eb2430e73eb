//! Traces as the recorder kept them: exports, each behind its length.

use anyhow::{Context as _, ensure};
use plinth_test_processes::otlp::{Trace, decode};

/// What there is of a trace in what the recorder gave back.
///
/// # Errors
/// Something is not OTLP, or a span came twice.
pub fn recorded(mut exports: &[u8], trace_id: &str) -> anyhow::Result<Trace> {
    let mut spans = Vec::new();
    while let Some((length, rest)) = exports.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length))?;
        let (export, rest) = rest.split_at_checked(length).context("an export is cut off")?;
        exports = rest;
        spans.extend(decode(export)?);
    }
    ensure!(exports.is_empty(), "the last export is cut off");
    Trace::of(trace_id, spans)
}
