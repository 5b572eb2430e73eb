//! `plinth up`: a cluster on this machine, every service a process of its own.

mod detach;
mod foremen;
pub mod prepare;
mod progress;
mod ready;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use plinth_runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cli::UpArgs;
use crate::jaeger::{self, Jaeger};
use crate::process;

pub use detach::down;
pub use prepare::Cluster;
pub use ready::Ready;

pub(crate) use progress::Voice;
pub(crate) use ready::wait;

use foremen::Foremen;

/// The default port of the trace store.
pub(crate) const JAEGER_PORT: u16 = 16_686;

/// Starts a cluster and runs until it is asked to stop.
pub(crate) fn up(args: &UpArgs) -> ExitCode {
    if args.detach {
        return detach::up(args);
    }
    let voice = Voice::new(args.background);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return process::failure(&error.into()),
    };
    let started = Instant::now();
    let prepared = match prepare::for_up(args, &Runtime::real()) {
        Ok(prepared) => prepared,
        Err(error) => {
            voice.error(&error);
            return ExitCode::from(process::USAGE);
        }
    };
    let result = runtime.block_on(run(args, prepared, started, &voice));
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            voice.error(&error);
            ExitCode::from(process::FAILURE)
        }
    }
}

async fn run(
    args: &UpArgs,
    prepared: prepare::Prepared,
    started: Instant,
    voice: &Voice,
) -> anyhow::Result<()> {
    let (stop, mut stopped) = watch::channel(false);
    process::stop_on_signals(stop).context("signals can't be handled")?;
    let prepare::Prepared { cluster, jaeger_port, lock: _lock } = prepared;
    let cluster = Arc::new(cluster);

    let jaeger = start_jaeger(&args.telemetry.otlp, jaeger_port).await?;
    let otlp = args.telemetry.otlp.clone().or_else(|| jaeger.as_ref().map(Jaeger::url));
    let mut foremen = Foremen::start(&cluster, &args.telemetry, otlp.as_deref())?;
    let limit = Duration::from_secs(args.ready_timeout);
    let outcome = tokio::select! {
        biased;
        _ = stopped.wait_for(|stop| *stop) => Ok(None),
        failure = foremen.supervise() => Err(failure),
        ready = wait(&cluster, limit, voice) => ready.map(Some),
    };
    let ready = match outcome {
        Ok(Some(ready)) => ready,
        Ok(None) => {
            foremen.stop().await;
            return Ok(());
        }
        Err(error) => {
            foremen.stop().await;
            return Err(error);
        }
    };
    let jaeger_url = jaeger.as_ref().map(Jaeger::url);
    voice.ready(&ready.report(started.elapsed(), jaeger_url), &cluster, args.json);
    let outcome = tokio::select! {
        biased;
        _ = stopped.wait_for(|stop| *stop) => Ok(()),
        failure = foremen.supervise() => Err(failure),
    };
    voice.progress("stopping");
    foremen.stop().await;
    outcome
}

/// Starts the trace store, unless traces go elsewhere.
pub(crate) async fn start_jaeger(
    otlp: &Option<String>,
    port: Option<u16>,
) -> anyhow::Result<Option<Jaeger>> {
    let (None, Some(port)) = (otlp, port) else { return Ok(None) };
    let jaeger = jaeger::serve(&Runtime::real(), &format!("127.0.0.1:{port}"))
        .await
        .with_context(|| format!("the trace store can't listen at port {port}"))?;
    Ok(Some(jaeger))
}
