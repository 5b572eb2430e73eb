//! What a load came to.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

use crate::recorder::{Counts, Recorder};
use crate::{Load, Operation};

/// Latencies of successful requests, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Distribution {
    /// The mean.
    pub mean_ms: f64,
    /// Half took no longer.
    pub p50_ms: f64,
    /// Nine in ten took no longer.
    pub p90_ms: f64,
    /// 99 in a hundred took no longer.
    pub p99_ms: f64,
    /// 999 in a thousand took no longer.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// One kind of operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperationReport {
    /// How many succeeded.
    pub succeeded: u64,
    /// How many failed, by code.
    pub errors: BTreeMap<String, u64>,
    /// Latencies of those that succeeded; none where none did.
    pub latency: Option<Distribution>,
}

/// What a load came to, warm-up excluded.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was asked for.
    pub load: Load,
    /// How long was measured, in seconds.
    pub seconds: f64,
    /// How many requests succeeded.
    pub succeeded: u64,
    /// How many failed.
    pub failed: u64,
    /// Requests without an answer at the end.
    pub unanswered: u64,
    /// Successful requests a second.
    pub per_second: f64,
    /// By operation.
    pub operations: BTreeMap<Operation, OperationReport>,
    /// The longest time without a success, in milliseconds.
    pub longest_gap_ms: f64,
    /// Processor time of the generator for each answered request, in microseconds.
    pub generator_cpu_us: Option<f64>,
    /// Processor time of all server processes for each answered request, in microseconds.
    pub server_cpu_us: Option<f64>,
}

impl Report {
    pub(crate) fn of(
        load: Load,
        recorder: &Recorder,
        now: Instant,
        generator: Option<Duration>,
        servers: Option<Duration>,
    ) -> Report {
        let operations: BTreeMap<Operation, OperationReport> = recorder
            .operations
            .iter()
            .map(|(operation, counts)| (*operation, OperationReport::of(counts)))
            .collect();
        let succeeded: u64 = operations.values().map(|operation| operation.succeeded).sum();
        let failed = operations.values().flat_map(|operation| operation.errors.values()).sum();
        let seconds = now.saturating_duration_since(recorder.since).as_secs_f64();
        let answered = succeeded + failed;
        let per_request = |time: Option<Duration>| {
            time.filter(|_| answered > 0).map(|time| time.as_secs_f64() * 1e6 / float(answered))
        };
        Report {
            load,
            seconds,
            succeeded,
            failed,
            unanswered: recorder.under_way(),
            per_second: float(succeeded) / seconds.max(f64::MIN_POSITIVE),
            operations,
            longest_gap_ms: recorder.longest_gap(now).as_secs_f64() * 1e3,
            generator_cpu_us: per_request(generator),
            server_cpu_us: per_request(servers),
        }
    }

    /// Failures by code, over all operations.
    #[must_use]
    pub fn errors(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (code, count) in self.operations.values().flat_map(|operation| &operation.errors) {
            *all.entry(code.clone()).or_default() += count;
        }
        all
    }
}

impl OperationReport {
    fn of(counts: &Counts) -> OperationReport {
        OperationReport {
            succeeded: counts.latencies.len(),
            errors: counts.errors.clone(),
            latency: (!counts.latencies.is_empty()).then(|| Distribution::of(&counts.latencies)),
        }
    }
}

impl Distribution {
    fn of(us: &Histogram<u64>) -> Distribution {
        let at = |quantile| float(us.value_at_quantile(quantile)) / 1e3;
        Distribution {
            mean_ms: us.mean() / 1e3,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: float(us.max()) / 1e3,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}
