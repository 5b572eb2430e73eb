//! The search of Jaeger's query API: a trace is found if one of its spans has all that is asked
//! for.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::str::FromStr;

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value;

use super::document;
use super::store::{Process, Store, Trace, TraceId};

/// Traces in one answer, where the caller names no limit, and at most.
const DEFAULT_LIMIT: usize = 20;
const MOST: usize = 1500;

/// What a caller looks for. Times in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Search {
    ids: Vec<TraceId>,
    service: Option<String>,
    operation: Option<String>,
    earliest: Option<u64>,
    latest: Option<u64>,
    shortest: Option<u64>,
    longest: Option<u64>,
    tags: BTreeMap<String, String>,
    limit: usize,
}

impl Search {
    /// Reads a query's parameters. Unknown and empty ones say nothing.
    pub(super) fn parse(parameters: &[(String, String)]) -> Result<Self, String> {
        let mut search = Search { limit: DEFAULT_LIMIT, ..Search::default() };
        for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
            let malformed = || format!("the parameter {name} has the malformed value {value:?}");
            match name.as_str() {
                "traceID" => search.ids.push(parse_trace_id(value).ok_or_else(malformed)?),
                "service" => search.service = Some(value.clone()),
                "operation" => search.operation = Some(value.clone()),
                "start" => search.earliest = Some(microseconds(value).ok_or_else(malformed)?),
                "end" => search.latest = Some(microseconds(value).ok_or_else(malformed)?),
                "minDuration" => search.shortest = Some(duration(value).ok_or_else(malformed)?),
                "maxDuration" => search.longest = Some(duration(value).ok_or_else(malformed)?),
                "limit" => {
                    search.limit = usize::from_str(value).map_err(|_| malformed())?.min(MOST);
                }
                "tags" => search.tags.extend(
                    serde_json::from_str::<BTreeMap<String, Value>>(value)
                        .map_err(|_| malformed())?
                        .into_iter()
                        .map(|(key, value)| match value {
                            Value::String(text) => (key, text),
                            other => (key, other.to_string()),
                        }),
                ),
                // One tag: name, colon, value.
                "tag" => {
                    let (key, value) = value.split_once(':').ok_or_else(malformed)?;
                    search.tags.insert(key.to_owned(), value.to_owned());
                }
                _ => {}
            }
        }
        Ok(search)
    }

    /// The traces found, the youngest first.
    pub(super) fn run(&self, store: &Store) -> Vec<Value> {
        let mut found: Vec<(&TraceId, &Trace)> = if self.ids.is_empty() {
            store.traces().filter(|(_, trace)| self.matches(trace)).collect()
        } else {
            self.ids.iter().filter_map(|id| Some((id, store.get(id)?))).collect()
        };
        found.sort_by_cached_key(|(id, trace)| (Reverse(trace.start()), **id));
        found.iter().take(self.limit).map(|(id, trace)| document::trace(id, trace)).collect()
    }

    fn matches(&self, trace: &Trace) -> bool {
        trace.spans().any(|(span, process)| self.matches_span(span, process))
    }

    fn matches_span(&self, span: &Span, process: &Process) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        let within = |low: Option<u64>, value: u64, high: Option<u64>| {
            low.is_none_or(|low| value >= low) && high.is_none_or(|high| value <= high)
        };
        is(&self.service, &process.service)
            && is(&self.operation, &span.name)
            && within(self.earliest, span.start_time_unix_nano, self.latest)
            && within(self.shortest, document::duration(span), self.longest)
            && self.has_tags(span, process)
    }

    fn has_tags(&self, span: &Span, process: &Process) -> bool {
        if self.tags.is_empty() {
            return true;
        }
        let mut present = document::tags(span);
        present.extend(document::process_tags(process));
        self.tags
            .iter()
            .all(|(key, value)| present.iter().any(|tag| tag.key == *key && tag.text() == *value))
    }
}

/// A trace id of up to 32 hexadecimal digits; leading zeros may be missing.
pub(super) fn parse_trace_id(text: &str) -> Option<TraceId> {
    let digits = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(u128::to_be_bytes)
}

/// Microseconds as a number, in nanoseconds.
fn microseconds(text: &str) -> Option<u64> {
    u64::from_str(text).ok()?.checked_mul(1000)
}

/// A duration as a number and a unit, such as `1.5ms`, in nanoseconds.
fn duration(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| c != '.' && !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let nanoseconds = match unit {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    };
    // Saturates, and what is asked for is approximate anyway.
    Some((f64::from_str(number).ok()? * nanoseconds) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, expected) in [
            ("250ns", Some(250)),
            ("100us", Some(100_000)),
            ("1.5ms", Some(1_500_000)),
            ("2s", Some(2_000_000_000)),
            ("1m", Some(60_000_000_000)),
            ("5", None),
            ("ms", None),
            ("5 parsecs", None),
            ("", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    #[test]
    fn trace_ids_may_lack_leading_zeros() {
        assert_eq!(parse_trace_id("ff"), Some(255_u128.to_be_bytes()));
        assert_eq!(parse_trace_id(&"f".repeat(32)), Some([255; 16]));
        for text in ["", "+f", "xyz", &"f".repeat(33)] {
            assert_eq!(parse_trace_id(text), None, "{text}");
        }
    }

    #[test]
    fn a_malformed_parameter_is_named() {
        let parameters = [("minDuration".to_owned(), "long".to_owned())];
        let error = Search::parse(&parameters).unwrap_err();
        assert!(error.contains("minDuration") && error.contains("long"), "{error}");
    }
}
