//! What a director shows at `/metrics`. It serves one epoch in its life, so a count above 1 is of the
//! changes within that epoch.

use std::time::Duration;

use plinth_system_config::RecoveryPhase;
use plinth_telemetry::{CounterVec, HistogramVec, MetricError, Metrics};

/// Upper bounds of phases' times, in seconds. The first ones are usual; whoever waits for somebody who
/// lacks is in the last ones.
const SECONDS: [f64; 10] = [0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0];

/// How far a system transaction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A commit proxy is given it.
    Submitted,
    /// It is durable where it has to be.
    Succeeded,
    /// It is not, and the director ends.
    Failed,
}

/// The metrics; none where they could not be made, which is logged and hinders nothing.
pub(crate) struct Meters(Option<Made>);

struct Made {
    phases: HistogramVec,
    transactions: CounterVec,
}

impl Made {
    fn new(metrics: &Metrics) -> Result<Made, MetricError> {
        Ok(Made {
            phases: metrics.histogram_vec(
                "director_phase_seconds",
                "Time of each phase of the recovery, by phase and by whether it came to its end",
                &SECONDS,
                &["phase", "result"],
            )?,
            transactions: metrics.counter_vec(
                "director_system_transactions_total",
                "System transactions, by how far they have come",
                &["step"],
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

    pub(crate) fn phase(&self, phase: RecoveryPhase, took: Duration, ok: bool) {
        if let Some(made) = &self.0 {
            let result = if ok { "ok" } else { "failed" };
            let labels = [phase.as_str(), result];
            made.phases.with_label_values(&labels).observe(took.as_secs_f64());
        }
    }

    pub(crate) fn system_transaction(&self, step: Step) {
        if let Some(made) = &self.0 {
            let step = match step {
                Step::Submitted => "submitted",
                Step::Succeeded => "succeeded",
                Step::Failed => "failed",
            };
            made.transactions.with_label_values(&[step]).inc();
        }
    }
}
