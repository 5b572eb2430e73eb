//! What a coordinator shows at `/metrics`.

use std::time::Duration;

use plinth_telemetry::{Counter, CounterVec, Gauge, MetricError, Metrics};

/// The metrics; none where they could not be made, which is logged and hinders nothing.
pub(crate) struct Meters(Option<Made>);

struct Made {
    rejected: Gauge,
    appointed: Counter,
    ended: CounterVec,
    delayed: Counter,
    backoff_ms: Gauge,
}

impl Made {
    fn new(metrics: &Metrics) -> Result<Made, MetricError> {
        Ok(Made {
            rejected: metrics.gauge(
                "coordinator_rejected_configurations",
                "Configurations that could not be used when this coordinator decided how to start",
            )?,
            appointed: metrics.counter(
                "coordinator_appointments_total",
                "Directors that this coordinator has appointed",
            )?,
            ended: metrics.counter_vec(
                "coordinator_epochs_ended_total",
                "Epochs that this coordinator has seen to end, by whether they had become ready",
                &["ready"],
            )?,
            delayed: metrics.counter(
                "coordinator_delayed_appointments_total",
                "Appointments that had to wait because epochs kept failing",
            )?,
            backoff_ms: metrics.gauge(
                "coordinator_backoff_milliseconds",
                "How long the next appointment waits, 0 where none does",
            )?,
        })
    }
}

impl Meters {
    pub(crate) fn new(metrics: &Metrics) -> Meters {
        let made = Made::new(metrics).inspect_err(|error| {
            tracing::error!(%error, "metrics can't be shown");
        });
        Meters(made.ok())
    }

    /// So many configurations can't be used.
    pub(crate) fn show_rejected(&self, count: usize) {
        if let Some(made) = &self.0 {
            made.rejected.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A director was appointed.
    pub(crate) fn count_appointment(&self) {
        if let Some(made) = &self.0 {
            made.appointed.inc();
        }
    }

    /// An epoch is over.
    pub(crate) fn count_end(&self, was_ready: bool) {
        if let Some(made) = &self.0 {
            made.ended.with_label_values(&[if was_ready { "true" } else { "false" }]).inc();
        }
    }

    /// The next appointment waits so long; not at all, where it has been made.
    pub(crate) fn show_backoff(&self, delay: Duration) {
        if let Some(made) = &self.0 {
            if !delay.is_zero() {
                made.delayed.inc();
            }
            made.backoff_ms.set(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
        }
    }
}
