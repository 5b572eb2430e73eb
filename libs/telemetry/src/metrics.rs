//! Prometheus metrics of one service instance.

use std::collections::HashMap;
use std::sync::Arc;

use plinth_types::ServiceRef;
use prometheus::core::Collector;
use prometheus::{HistogramOpts, Opts, Registry, TextEncoder};

/// A count that only grows.
pub type Counter = prometheus::IntCounter;
/// Counts by label.
pub type CounterVec = prometheus::IntCounterVec;
/// A number that goes up and down.
pub type Gauge = prometheus::IntGauge;
/// Numbers by label.
pub type GaugeVec = prometheus::IntGaugeVec;
/// A distribution.
pub type Histogram = prometheus::Histogram;
/// Distributions by label.
pub type HistogramVec = prometheus::HistogramVec;
/// A metric that can't be: its name is malformed, or taken in this registry.
pub type MetricError = prometheus::Error;

/// Buckets for durations in seconds: 100 µs to 10 s.
pub const LATENCY_SECONDS: [f64; 16] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// The metrics of one service instance: every one is named `plinth_…` and bears the labels
/// `service` and `node`. Cheap to clone; clones share the metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Given to each metric and not to the registry, which would render them in random order.
    labels: Arc<HashMap<String, String>>,
}

impl Metrics {
    /// An empty set of metrics.
    ///
    /// # Errors
    /// None that a valid service reference can cause; the registry checks its prefix.
    pub fn new(service: &ServiceRef) -> Result<Self, MetricError> {
        let labels = HashMap::from([
            ("service".to_owned(), service.name.to_string()),
            ("node".to_owned(), service.node.to_string()),
        ]);
        let registry = Registry::new_custom(Some("plinth".to_owned()), None)?;
        Ok(Metrics { registry, labels: Arc::new(labels) })
    }

    fn options(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help).const_labels(HashMap::clone(&self.labels))
    }

    fn histogram_options(&self, name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
        HistogramOpts { common_opts: self.options(name, help), buckets: buckets.to_vec() }
    }

    /// A counter `plinth_<name>`; by convention the name ends in `_total`.
    ///
    /// # Errors
    /// The name is malformed or taken.
    pub fn counter(&self, name: &str, help: &str) -> Result<Counter, MetricError> {
        self.register(Counter::with_opts(self.options(name, help))?)
    }

    /// Counters by label; keep the labels' values few.
    ///
    /// # Errors
    /// The name or a label is malformed, or the name is taken.
    pub fn counter_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<CounterVec, MetricError> {
        self.register(CounterVec::new(self.options(name, help), labels)?)
    }

    /// A gauge `plinth_<name>`.
    ///
    /// # Errors
    /// The name is malformed or taken.
    pub fn gauge(&self, name: &str, help: &str) -> Result<Gauge, MetricError> {
        self.register(Gauge::with_opts(self.options(name, help))?)
    }

    /// Gauges by label; keep the labels' values few.
    ///
    /// # Errors
    /// The name or a label is malformed, or the name is taken.
    pub fn gauge_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, MetricError> {
        self.register(GaugeVec::new(self.options(name, help), labels)?)
    }

    /// A histogram `plinth_<name>` with these buckets' upper bounds, ascending; see
    /// [`LATENCY_SECONDS`].
    ///
    /// # Errors
    /// The name is malformed or taken, or the bounds don't ascend.
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, MetricError> {
        let options = self.histogram_options(name, help, buckets);
        self.register(Histogram::with_opts(options)?)
    }

    /// Histograms by label; keep the labels' values few.
    ///
    /// # Errors
    /// As [`Metrics::histogram`], and a label is malformed.
    pub fn histogram_vec(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, MetricError> {
        let options = self.histogram_options(name, help, buckets);
        self.register(HistogramVec::new(options, labels)?)
    }

    fn register<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, MetricError> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    /// All metrics in Prometheus' text format (`text/plain; version=0.0.4`), ordered by name.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for family in self.registry.gather() {
            let before = text.len();
            // One family that can't be shown must not hide the others.
            if let Err(error) = TextEncoder::new().encode_utf8(&[family], &mut text) {
                text.truncate(before);
                tracing::error!(%error, "a metric can't be rendered");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(&"log-1@node-2".parse().unwrap()).unwrap()
    }

    #[test]
    fn metrics_render_with_the_instance_they_belong_to() {
        let metrics = metrics();
        metrics.counter("pushes_total", "Pushes.").unwrap().inc_by(3);
        metrics
            .gauge_vec("queue_bytes", "Bytes.", &["tag"])
            .unwrap()
            .with_label_values(&["t1"])
            .set(-4);
        metrics
            .histogram("fsync_seconds", "Time of an fsync.", &LATENCY_SECONDS)
            .unwrap()
            .observe(0.003);
        let text = metrics.render();
        for line in [
            "# HELP plinth_pushes_total Pushes.",
            "# TYPE plinth_pushes_total counter",
            r#"plinth_pushes_total{node="node-2",service="log-1"} 3"#,
            r#"plinth_queue_bytes{node="node-2",service="log-1",tag="t1"} -4"#,
            r#"plinth_fsync_seconds_bucket{node="node-2",service="log-1",le="0.005"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn two_instances_in_one_process_share_nothing() {
        let (one, two) = (metrics(), metrics());
        one.counter("pushes_total", "Pushes.").unwrap().inc();
        two.counter("pushes_total", "Pushes.").unwrap();
        assert!(two.render().contains("} 0"));
        assert!(one.render().contains("} 1"));
    }

    #[test]
    fn a_name_is_taken_once() {
        let metrics = metrics();
        metrics.counter("pushes_total", "Pushes.").unwrap();
        assert!(metrics.counter("pushes_total", "Pushes.").is_err());
        assert!(metrics.counter("no spaces", "x").is_err());
    }
}
