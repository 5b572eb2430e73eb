//! What is counted.

use plinth_telemetry::{Counter, CounterVec, Gauge, MetricError, Metrics};

use crate::refusal::Refusal;

/// The proxy's metrics.
pub(crate) struct Meters {
    commits: CounterVec,
    batches: Counter,
    transactions: Counter,
    rate: Gauge,
}

impl Meters {
    pub(crate) fn new(metrics: &Metrics) -> Result<Meters, MetricError> {
        Ok(Meters {
            commits: metrics.counter_vec(
                "commits_total",
                "Answered commits, by the code of the answer.",
                &["code"],
            )?,
            batches: metrics.counter("commit_batches_total", "Batches, empty ones included.")?,
            transactions: metrics
                .counter("commit_batch_transactions_total", "Transactions of all batches.")?,
            rate: metrics.gauge(
                "transactions_limit_per_second",
                "Transactions that may begin here in a second; -1 where there is no limit.",
            )?,
        })
    }

    pub(crate) fn rate(&self, per_second: Option<u64>) {
        let limit = per_second.map(|rate| i64::try_from(rate).unwrap_or(i64::MAX));
        self.rate.set(limit.unwrap_or(-1));
    }

    pub(crate) fn batch(&self, transactions: usize) {
        self.batches.inc();
        self.transactions.inc_by(transactions as u64);
    }

    pub(crate) fn answer(&self, refusal: Option<&Refusal>) {
        let code = refusal.map_or("committed", |refusal| refusal.code().as_str());
        self.commits.with_label_values(&[code]).inc();
    }
}
