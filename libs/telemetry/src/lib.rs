//! Traces, logs and metrics, the same for every service.
//!
//! [`init`] sets a process up once: `tracing` is what the code speaks, OpenTelemetry is where spans
//! go, standard error is where logs go. Traces follow a request or a recovery through all
//! processes: a client span's context travels in the W3C `traceparent` header ([`inject`],
//! [`set_parent`]), or as text inside a log entry ([`current_traceparent`],
//! [`set_parent_from_traceparent`]) where the work happens later.
//!
//! What is sampled is decided where a trace begins, and everybody else follows: recoveries always,
//! user requests at a ratio, health checks and monitoring never.
//!
//! Telemetry must not hurt the service. An unreachable collector costs a bounded queue and one
//! line of log; no request and no exit ever waits for it longer than the caller says.
//!
//! [`Metrics`] belongs to one service instance and not to the process, since several services may
//! live in one.

mod exporter;
mod log_format;
mod metrics;
mod passthrough;
mod propagation;
mod sampler;
mod setup;
mod spans;

pub use metrics::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, LATENCY_SECONDS, MetricError,
    Metrics,
};
pub use opentelemetry::Context;
pub use propagation::{
    current_trace_id, current_traceparent, extract, inject, inject_from, set_parent,
    set_parent_from_traceparent, trace_id, traceparent,
};
pub use sampler::{QUIET_ROUTES, RECOVERY};
pub use setup::{FlushError, InitError, LogFormat, Options, Telemetry, build, init};
pub use spans::{
    ClientCall, ServerCall, client_span, deferred_span, record_epoch, record_error, record_status,
    record_version, recovery_span, server_span, step_span,
};
