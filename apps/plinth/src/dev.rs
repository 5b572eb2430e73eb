//! `plinth dev`: a whole cluster in this one process, on real disks and sockets.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use plinth_runtime::Runtime;
use plinth_service::StateReads;
use plinth_types::{ServiceKind, ServiceName, ServiceRef};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::cli::DevArgs;
use crate::in_process::{InProcess, Running, Task};
use crate::jaeger::Jaeger;
use crate::process;
use crate::up::{self, prepare};

/// How long the nodes have to stop.
const STOP: Duration = Duration::from_secs(6);
/// How long the spans that are left may take to be sent.
const FLUSH: Duration = Duration::from_millis(300);

/// Runs a cluster in this process until it is asked to stop.
pub(crate) fn dev(args: &DevArgs) -> ExitCode {
    let started = Instant::now();
    let prepared = match prepare::for_dev(args, &Runtime::real()) {
        Ok(prepared) => prepared,
        Err(error) => return process::usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return process::failure(&error.into()),
    };
    let result = runtime.block_on(run(args, prepared, started));
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => process::failure(&error),
    }
}

async fn run(args: &DevArgs, prepared: prepare::Prepared, started: Instant) -> anyhow::Result<()> {
    let (stop, mut stopped) = watch::channel(false);
    process::stop_on_signals(stop).context("signals can't be handled")?;
    let prepare::Prepared { cluster, jaeger_port, lock: _lock } = prepared;
    let jaeger = up::start_jaeger(&args.telemetry.otlp, jaeger_port).await?;
    let mut telemetry = args.telemetry.clone();
    telemetry.otlp = telemetry.otlp.or_else(|| jaeger.as_ref().map(Jaeger::url));
    let mut options = plinth_telemetry::Options::new("plinth-dev", "dev", std::process::id());
    options.cluster = Some(cluster.file.cluster);
    let telemetry = process::init_telemetry(options, &telemetry)?;

    let gateway = |(node, port): &(plinth_types::NodeId, u16)| {
        let name = ServiceName::new(ServiceKind::Gateway, 1);
        (ServiceRef::new(name, node.clone()), format!("127.0.0.1:{port}"))
    };
    let world = process::real_world();
    let in_process = InProcess {
        worlds: Arc::new(move |_| world.clone()),
        cluster: cluster.file.clone(),
        secrets: cluster.secrets.clone(),
        state_reads: StateReads::default(),
        bind: "127.0.0.1:0".to_owned(),
        binds: cluster.nodes.iter().map(gateway).collect(),
        running: Running::default(),
    };
    let mut nodes: Vec<Task> = cluster
        .nodes
        .iter()
        .map(|(node, _)| in_process.start_node(node, &cluster.data_dir))
        .collect();
    let voice = up::Voice::new(false);
    let result = {
        let limit = Duration::from_secs(args.ready_timeout);
        let mut ends: FuturesUnordered<_> = nodes.iter_mut().map(Task::exit).collect();
        let work = async {
            let ready = up::wait(&cluster, limit, &voice).await?;
            let jaeger_url = jaeger.as_ref().map(Jaeger::url);
            voice.ready(&ready.report(started.elapsed(), jaeger_url), &cluster, args.json);
            std::future::pending::<anyhow::Result<()>>().await
        };
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => Ok(()),
            end = ends.next() => Err(match end.flatten() {
                Some(exit) => anyhow!("a foreman ended: {}", exit.reason),
                None => anyhow!("a foreman panicked"),
            }),
            result = work => result,
        }
    };
    for node in &nodes {
        node.stop();
    }
    let deadline = Instant::now() + STOP;
    if result.is_ok() {
        for node in &mut nodes {
            // Whoever is late ends with the process.
            let _ = timeout_at(deadline, node.exit()).await;
        }
    }
    // As above.
    let _ = telemetry.shutdown(FLUSH);
    result
}
