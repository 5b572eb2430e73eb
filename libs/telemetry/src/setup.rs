//! Setting a process up, and letting go of it within a bound.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use plinth_types::{ClusterId, NodeId, ServiceRef};
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterFn};
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry};

use crate::exporter::{self, Health};
use crate::log_format::JsonLines;
use crate::passthrough::PassThrough;
use crate::sampler::RootSampler;

/// The SDK logs every failed attempt to export; the exporter here says it once.
const CALM: &str = "opentelemetry=off";

/// The instrumentation's name in exported spans.
const SCOPE: &str = "plinth";

/// How logs are written to standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, with `trace_id` and `span_id`.
    Json,
}

/// What a process tells about itself, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// `service.name`: the kind of service, such as `plinth-storage`.
    pub service: String,
    /// `service.instance.id`: which one, such as `storage-1@node-1`.
    pub instance: String,
    /// `process.pid`: the operating system's process id.
    pub os_pid: u32,
    /// `plinth.node`: the machine.
    pub node: Option<NodeId>,
    /// `plinth.cluster`: the cluster, where it is known at the start.
    pub cluster: Option<ClusterId>,
    /// Where traces go: the base URL of an OTLP receiver over HTTP, such as
    /// `http://127.0.0.1:4318`; `/v1/traces` is added. Without one nothing is recorded, and trace
    /// contexts are passed on as they came.
    pub otlp_endpoint: Option<String>,
    /// The share of user requests that is traced, 0 to 1.
    pub request_ratio: f64,
    /// What is logged: a level, or directives such as `info,plinth_log=debug`.
    pub log_filter: String,
    /// How it is logged.
    pub log_format: LogFormat,
}

impl Options {
    /// One user request in a hundred is traced, unless told otherwise.
    pub const REQUEST_RATIO: f64 = 0.01;

    /// The options of a service: no endpoint, one request in a hundred, `info`, text.
    #[must_use]
    pub fn for_service(service: &ServiceRef, os_pid: u32) -> Self {
        Options {
            node: Some(service.node.clone()),
            ..Options::new(format!("plinth-{}", service.kind()), service.to_string(), os_pid)
        }
    }

    /// The options of a process that is no service of a cluster, such as a command.
    #[must_use]
    pub fn new(service: impl Into<String>, instance: impl Into<String>, os_pid: u32) -> Self {
        Options {
            service: service.into(),
            instance: instance.into(),
            os_pid,
            node: None,
            cluster: None,
            otlp_endpoint: None,
            request_ratio: Self::REQUEST_RATIO,
            log_filter: "info".to_owned(),
            log_format: LogFormat::Text,
        }
    }

    fn resource(&self) -> Resource {
        let mut attributes = vec![
            KeyValue::new("service.name", self.service.clone()),
            KeyValue::new("service.instance.id", self.instance.clone()),
            KeyValue::new("service.namespace", "plinth"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("process.pid", i64::from(self.os_pid)),
        ];
        attributes
            .extend(self.node.iter().map(|node| KeyValue::new("plinth.node", node.to_string())));
        attributes.extend(
            self.cluster.iter().map(|cluster| KeyValue::new("plinth.cluster", cluster.to_string())),
        );
        Resource::builder_empty().with_attributes(attributes).build()
    }
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A process has one telemetry set-up, and it has it already.
    #[error("telemetry is already set up in this process; init must be called only once")]
    AlreadyInitialised,
    /// The filter has no valid form.
    #[error(
        "the log filter {filter:?} is not a level or a list of directives like info,plinth_log=debug"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The ratio is no share.
    #[error("the share of traced requests must be between 0 and 1, and {0} is not")]
    Ratio(f64),
    /// The endpoint is no URL that traces can be sent to.
    #[error("the OTLP endpoint {endpoint:?} is not a URL like http://host:4318")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// The exporter could not be built.
    #[error("the trace exporter can't be started")]
    Exporter(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why some spans may not have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlushError {
    /// The endpoint did not take everything in time.
    #[error("the trace endpoint did not take all spans in time")]
    TimedOut,
    /// The endpoint refused or was not there.
    #[error("the trace endpoint can't be reached or refuses spans")]
    Undelivered,
    /// It was shut down before.
    #[error("telemetry is already shut down")]
    ShutDown,
}

/// The handle to a process' telemetry. Cheap to clone; dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Telemetry {
    exporting: Option<Exporting>,
}

#[derive(Clone, Debug)]
struct Exporting {
    provider: SdkTracerProvider,
    health: Health,
}

impl Telemetry {
    /// Sends the spans that ended so far. Blocks for at most `timeout`.
    ///
    /// # Errors
    /// Spans may be lost or still under way.
    pub fn flush(&self, timeout: Duration) -> Result<(), FlushError> {
        self.bounded(timeout, |provider| provider.force_flush())
    }

    /// Sends the spans that ended so far and stops; later spans are dropped. Blocks for at most
    /// `timeout`, whatever the endpoint does.
    ///
    /// # Errors
    /// Spans may be lost, or it was shut down before.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), FlushError> {
        self.bounded(timeout, move |provider| provider.shutdown_with_timeout(timeout))
    }

    /// The SDK's own calls wait longer than they are told: for a fixed time, or for a thread to
    /// end. So they run on a thread that nobody waits for.
    fn bounded(
        &self,
        timeout: Duration,
        call: impl FnOnce(&SdkTracerProvider) -> opentelemetry_sdk::error::OTelSdkResult
        + Send
        + 'static,
    ) -> Result<(), FlushError> {
        use opentelemetry_sdk::error::OTelSdkError;
        let Some(exporting) = &self.exporting else {
            return Ok(());
        };
        let (done, result) = mpsc::sync_channel(1);
        let provider = exporting.provider.clone();
        std::thread::Builder::new()
            .name("telemetry-flush".to_owned())
            .spawn(move || {
                // The caller may have gone.
                let _ = done.send(call(&provider));
            })
            .map_err(|_| FlushError::Undelivered)?;
        match result.recv_timeout(timeout) {
            Ok(Ok(())) if exporting.health.is_failing() => Err(FlushError::Undelivered),
            Ok(Ok(())) => Ok(()),
            Ok(Err(OTelSdkError::AlreadyShutdown)) => Err(FlushError::ShutDown),
            Ok(Err(OTelSdkError::Timeout(_))) | Err(_) => Err(FlushError::TimedOut),
            Ok(Err(OTelSdkError::InternalFailure(_))) => Err(FlushError::Undelivered),
        }
    }
}

static INITIALISED: Mutex<bool> = Mutex::new(false);

/// Sets this process up: traces to the endpoint, logs to standard error.
///
/// # Errors
/// [`InitError::AlreadyInitialised`] from the second call on; the others if an option is invalid,
/// after which a call with better ones may follow.
pub fn init(options: Options) -> Result<Telemetry, InitError> {
    let mut initialised = INITIALISED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if *initialised {
        return Err(InitError::AlreadyInitialised);
    }
    let (dispatch, telemetry) = build(options)?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| InitError::AlreadyInitialised)?;
    *initialised = true;
    Ok(telemetry)
}

/// As [`init`], for the caller to install where it wants: a test on its own thread.
///
/// # Errors
/// An option is invalid.
pub fn build(options: Options) -> Result<(Dispatch, Telemetry), InitError> {
    if !(0.0..=1.0).contains(&options.request_ratio) {
        return Err(InitError::Ratio(options.request_ratio));
    }
    let logs = log_layer(&options)?;
    let (traces, exporting) = match &options.otlp_endpoint {
        Some(endpoint) => {
            let (traces, exporting) = export_layer(&options, endpoint)?;
            (traces, Some(exporting))
        }
        None => (passthrough_layer(), None),
    };
    // Traces come first: a log line's trace is the one that the traces' layer has entered.
    let subscriber = Registry::default().with(vec![traces, logs]);
    Ok((Dispatch::new(subscriber), Telemetry { exporting }))
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn log_layer(options: &Options) -> Result<BoxedLayer, InitError> {
    let filter = EnvFilter::builder()
        .parse(format!("{CALM},{}", options.log_filter))
        .map_err(|source| InitError::Filter { filter: options.log_filter.clone(), source })?;
    // A closed standard error must not take the service down, and reporting on it would panic.
    let layer =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    Ok(match options.log_format {
        LogFormat::Text => {
            layer.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed()
        }
        LogFormat::Json => layer
            .with_ansi(false)
            .fmt_fields(JsonFields::new())
            .event_format(JsonLines { instance: options.instance.clone() })
            .with_filter(filter)
            .boxed(),
    })
}

/// Plinth's own spans are exported and nobody else's: a library's spans are many, and those of the
/// exporter's own HTTP client would beget each other.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= LevelFilter::INFO && metadata.target().starts_with("plinth")
}

fn export_layer(options: &Options, endpoint: &str) -> Result<(BoxedLayer, Exporting), InitError> {
    let (processor, health) = exporter::processor(endpoint)?;
    let provider = SdkTracerProvider::builder()
        .with_resource(options.resource())
        .with_sampler(Box::new(RootSampler::new(options.request_ratio)) as Box<_>)
        .with_span_processor(processor)
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(SCOPE))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(FilterFn::new(is_ours).with_max_level_hint(LevelFilter::INFO))
        .boxed();
    Ok((layer, Exporting { provider, health }))
}

fn passthrough_layer() -> BoxedLayer {
    let spans_of_ours = |metadata: &Metadata<'_>| metadata.is_span() && is_ours(metadata);
    tracing_opentelemetry::layer()
        .with_tracer(PassThrough::default())
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(FilterFn::new(spans_of_ours).with_max_level_hint(LevelFilter::INFO))
        .boxed()
}
