//! The exporter: OTLP over HTTP from a thread of its own, quiet about a collector that is away.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_otlp::{RetryPolicy, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter as SdkSpanExporter,
};

use crate::setup::InitError;

/// How long a finished span waits for company. Short, so that a trace can be looked at soon.
const DELAY: Duration = Duration::from_millis(200);
/// Spans kept while the collector is slow or away; more are dropped.
const QUEUE: usize = 8192;
/// Spans in one request.
const BATCH: usize = 512;
/// The time one batch may take, retries included; then it is dropped.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the last batch failed to arrive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health(Arc<AtomicBool>);

impl Health {
    pub(crate) fn is_failing(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Wraps an exporter: says once that the collector went away and once that it is back, and hides
/// each single failure from the SDK, which would log them all.
struct Quiet<E> {
    inner: E,
    endpoint: String,
    health: Health,
}

impl<E: fmt::Debug> fmt::Debug for Quiet<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quiet").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<E: SdkSpanExporter> SdkSpanExporter for Quiet<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        match self.inner.export(batch).await {
            Ok(()) => {
                if self.health.0.swap(false, Ordering::AcqRel) {
                    tracing::info!(endpoint = self.endpoint, "traces are being delivered again");
                }
            }
            Err(error) => {
                if !self.health.0.swap(true, Ordering::AcqRel) {
                    tracing::warn!(
                        endpoint = self.endpoint,
                        spans,
                        reason = %error,
                        "traces can't be delivered and are dropped until the endpoint answers",
                    );
                }
            }
        }
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.inner.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// A processor that sends batches to `<endpoint>/v1/traces`, and what tells whether they arrive.
pub(crate) fn processor(endpoint: &str) -> Result<(BatchSpanProcessor, Health), InitError> {
    let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    if !url.starts_with("http://") {
        return Err(InitError::Endpoint { endpoint: endpoint.to_owned() });
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(http_client()?)
        .with_endpoint(url)
        .with_timeout(EXPORT_TIMEOUT)
        .with_retry_policy(RetryPolicy::recommended())
        .build()
        .map_err(|error| InitError::Exporter(Box::new(error)))?;
    let health = Health::default();
    let exporter = Quiet { inner: exporter, endpoint: endpoint.to_owned(), health: health.clone() };
    let processor = BatchSpanProcessor::builder(exporter)
        .with_batch_config(
            BatchConfigBuilder::default()
                .with_scheduled_delay(DELAY)
                .with_max_queue_size(QUEUE)
                .with_max_export_batch_size(BATCH)
                .build(),
        )
        .build();
    Ok((processor, health))
}

/// The blocking client starts a runtime of its own, which must not happen on a thread that belongs
/// to another one.
fn http_client() -> Result<reqwest::blocking::Client, InitError> {
    let build = || {
        reqwest::blocking::Client::builder()
            // The collector is a neighbour: a proxy meant for the world outside can't reach it.
            .no_proxy()
            .timeout(ATTEMPT_TIMEOUT)
            .build()
    };
    std::thread::Builder::new()
        .name("telemetry-setup".to_owned())
        .spawn(build)
        .map_err(|error| InitError::Exporter(Box::new(error)))?
        .join()
        .map_err(|_| InitError::Exporter("the HTTP client could not be built".into()))?
        .map_err(|error| InitError::Exporter(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};

    use opentelemetry_sdk::error::OTelSdkError;
    use tracing::{Event, Level, Subscriber};
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{Layer, Registry};

    use super::*;

    /// Answers as the script says, the last answer first.
    #[derive(Debug)]
    struct Scripted(Mutex<Vec<bool>>);

    impl SdkSpanExporter for Scripted {
        async fn export(&self, _batch: Vec<SpanData>) -> OTelSdkResult {
            if self.0.lock().unwrap().pop().unwrap() {
                Ok(())
            } else {
                Err(OTelSdkError::InternalFailure("refused".to_owned()))
            }
        }
    }

    struct Levels(Arc<Mutex<Vec<Level>>>);

    impl<S: Subscriber> Layer<S> for Levels {
        fn on_event(&self, event: &Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            self.0.lock().unwrap().push(*event.metadata().level());
        }
    }

    #[test]
    fn an_outage_is_logged_once_when_it_begins_and_once_when_it_ends() {
        let levels = Arc::new(Mutex::new(Vec::new()));
        let health = Health::default();
        let exporter = Quiet {
            inner: Scripted(Mutex::new(vec![true, true, false, false, false, true])),
            endpoint: "http://collector:4318".to_owned(),
            health: health.clone(),
        };
        let subscriber = Registry::default().with(Levels(levels.clone()));
        let failing = tracing::subscriber::with_default(subscriber, || {
            [(); 6].map(|()| {
                let export = std::pin::pin!(exporter.export(Vec::new()));
                let result = export.poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(result, Poll::Ready(Ok(()))));
                health.is_failing()
            })
        });
        assert_eq!(failing, [false, true, true, true, false, false]);
        assert_eq!(*levels.lock().unwrap(), [Level::WARN, Level::INFO]);
    }
}
