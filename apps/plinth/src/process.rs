//! A process of one service: telemetry, signals, exit status.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use plinth_runtime::Runtime;
use plinth_service::Exit;
use plinth_store_rocksdb::RocksDisk;
use plinth_telemetry::Telemetry;
use plinth_types::{ServiceKind, ServiceRef};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::{LogFormat, ServiceArgs, TelemetryArgs};
use crate::launch::Launch;
use crate::roster::{self, World};
use crate::tuning::Tuning;

/// How long an ending process tries to send the spans it still has.
const FLUSH: Duration = Duration::from_millis(300);

/// The exit status of a request that the cluster refuses or of a failure.
pub(crate) const FAILURE: u8 = 1;
/// The exit status of a wrong use.
pub(crate) const USAGE: u8 = 2;

/// An error with what caused it, as one line.
#[must_use]
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

/// Says what is wrong with the use of a command.
pub(crate) fn usage(error: &anyhow::Error) -> ExitCode {
    complain(error, USAGE)
}

/// Says why a command failed.
pub(crate) fn failure(error: &anyhow::Error) -> ExitCode {
    complain(error, FAILURE)
}

fn complain(error: &anyhow::Error, status: u8) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(status)
}

/// The real world.
pub(crate) fn real_world() -> World {
    World {
        runtime: Runtime::real(),
        disk: Arc::new(RocksDisk::default()),
        tuning: Tuning::default(),
    }
}

/// Runs a service, but a foreman, as this process.
pub(crate) fn run(kind: ServiceKind, args: &ServiceArgs) -> ExitCode {
    run_with(kind, args, roster::run)
}

/// Runs whatever is made of a launch as this process.
pub(crate) fn run_with<F>(
    kind: ServiceKind,
    args: &ServiceArgs,
    run: impl FnOnce(World, Launch) -> F,
) -> ExitCode
where
    F: Future<Output = Exit>,
{
    let (stop, stopped) = watch::channel(false);
    let launch = match Launch::from_args(kind, args, stopped) {
        Ok(launch) => launch,
        Err(error) => return usage(&error),
    };
    let telemetry = match start_telemetry(&launch.service, &args.telemetry, &launch) {
        Ok(telemetry) => telemetry,
        Err(error) => return usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&error.into()),
    };
    let exit = runtime.block_on(async {
        if let Err(error) = stop_on_signals(stop) {
            return Exit::failure(format!("signals can't be handled: {error}"));
        }
        run(real_world(), launch).await
    });
    // What blocks, such as a flush to disk, must not hold the end up.
    runtime.shutdown_background();
    end(&exit, &telemetry)
}

fn end(exit: &Exit, telemetry: &Telemetry) -> ExitCode {
    if let Err(error) = telemetry.shutdown(FLUSH) {
        tracing::debug!(%error, "some spans are lost");
    }
    // Whoever looks at the log's end finds the reason, however early the service ended.
    if exit.status != 0 {
        tracing::error!(status = exit.status, "the process ends: {}", exit.reason);
    }
    ExitCode::from(exit.status)
}

fn start_telemetry(
    service: &ServiceRef,
    args: &TelemetryArgs,
    launch: &Launch,
) -> anyhow::Result<Telemetry> {
    let mut options = plinth_telemetry::Options::for_service(service, std::process::id());
    options.cluster = Some(launch.cluster.cluster);
    init_telemetry(options, args)
}

/// Sets telemetry up as flags say.
pub(crate) fn init_telemetry(
    mut options: plinth_telemetry::Options,
    args: &TelemetryArgs,
) -> anyhow::Result<Telemetry> {
    options.otlp_endpoint.clone_from(&args.otlp);
    options.log_filter.clone_from(&args.log);
    options.log_format = match args.log_format {
        LogFormat::Text => plinth_telemetry::LogFormat::Text,
        LogFormat::Json => plinth_telemetry::LogFormat::Json,
    };
    plinth_telemetry::init(options).map_err(|error| anyhow::anyhow!(with_sources(&error)))
}

/// Asks for a stop at SIGINT, SIGTERM and SIGHUP.
pub(crate) fn stop_on_signals(stop: watch::Sender<bool>) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // The scope's guard is let go without ending it: signals count as long as the process lives.
    let (scope, guard) = plinth_runtime::Scope::new();
    std::mem::forget(guard);
    scope.spawn("signals", async move {
        loop {
            tokio::select! {
                biased;
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            stop.send_replace(true);
        }
    });
    Ok(())
}

/// The executable that runs, to start it again with another subcommand.
pub(crate) fn executable() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?)
}
