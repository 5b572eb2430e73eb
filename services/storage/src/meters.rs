//! What a storage shows at `/metrics`.

use std::collections::BTreeMap;

use plinth_telemetry::{Counter, CounterVec, Gauge, MetricError, Metrics};
use plinth_types::Tag;

use crate::stream::Stream;

/// The metrics; none where they could not be made, which is logged and hinders nothing.
pub(crate) struct Meters(Option<Made>);

struct Made {
    reads: CounterVec,
    window_bytes: Gauge,
    lag_versions: Gauge,
    damaged: Gauge,
}

impl Made {
    fn new(metrics: &Metrics) -> Result<Made, MetricError> {
        Ok(Made {
            reads: metrics.counter_vec(
                "storage_reads_total",
                "Reads answered, by result",
                &["result"],
            )?,
            window_bytes: metrics
                .gauge("storage_window_bytes", "Bytes of versions held in memory")?,
            lag_versions: metrics.gauge(
                "storage_durable_lag_versions",
                "Versions by which the tag that lags most is ahead in memory of what is durable",
            )?,
            damaged: metrics.gauge(
                "storage_config_damaged",
                "1 while the kept configuration can't be read, else 0",
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

    pub(crate) fn count_read(&self, ok: bool) {
        if let Some(made) = &self.0 {
            let result = if ok { "ok" } else { "refused" };
            Counter::inc(&made.reads.with_label_values(&[result]));
        }
    }

    pub(crate) fn show_damage(&self, is_damaged: bool) {
        if let Some(made) = &self.0 {
            made.damaged.set(i64::from(is_damaged));
        }
    }

    pub(crate) fn show(&self, streams: &BTreeMap<Tag, Stream>) {
        let Some(made) = &self.0 else { return };
        let bytes: usize = streams.values().map(Stream::window_bytes).sum();
        let lags = streams
            .values()
            .map(|stream| stream.version().0.saturating_sub(stream.durable().version.0));
        made.window_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        made.lag_versions.set(lags.max().map_or(0, |lag| i64::try_from(lag).unwrap_or(i64::MAX)));
    }
}
