//! `plinth bench`: loads a cluster, or etcd for comparison, and says how it did.

use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use plinth_load::{
    Amount, Keys, Load, LoadError, Mix, OperationReport, Pace, Protocol, Report, drive,
};
use plinth_runtime::Runtime;

use crate::cli::{BenchArgs, BenchTarget};
use crate::process::{self, FAILURE};

/// Drives the load that the flags describe and prints its report.
pub(crate) fn bench(args: &BenchArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return process::failure(&error.into()),
    };
    match runtime.block_on(run(args)) {
        Ok(report) => {
            let text = if args.json {
                serde_json::to_string(&report).unwrap_or_default()
            } else {
                describe(&report)
            };
            println!("{text}");
            if report.succeeded > 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) }
        }
        Err(error) => process::usage(&error.into()),
    }
}

async fn run(args: &BenchArgs) -> Result<Report, LoadError> {
    let world = Runtime::real();
    let load = load(args);
    if args.fill {
        let report = drive(&world, load.filling()).await?;
        if report.failed > 0 {
            eprintln!(
                "plinth: while filling, {} writes failed: {:?}",
                report.failed,
                report.errors()
            );
        }
    }
    drive(&world, load).await
}

fn load(args: &BenchArgs) -> Load {
    let protocol = match args.target {
        BenchTarget::Plinth => Protocol::Plinth,
        BenchTarget::Etcd => Protocol::Etcd,
    };
    let mix = Mix { get: args.get, put: args.put, transaction: args.transaction };
    Load {
        connections: args.connections,
        pace: args.rate.map_or(Pace::Closed, Pace::Open),
        amount: Amount::Time(Duration::from_secs_f64(args.duration)),
        warm_up: Duration::from_secs_f64(args.warm_up),
        key_choice: args.zipf.map_or(Keys::Uniform, Keys::Zipfian),
        keys: args.keys,
        value_size: args.value_size,
        timeout: Duration::from_secs_f64(args.timeout),
        seed: args.seed,
        server_processes: args.server_pids.clone(),
        ..Load::new(protocol, args.url.clone(), mix)
    }
}

/// A report for people.
fn describe(report: &Report) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "operation",
        "done",
        "failed",
        "mean ms",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for (operation, OperationReport { succeeded, errors, latency }) in &report.operations {
        let failed: u64 = errors.values().sum();
        let mut row =
            vec![operation.as_str().to_owned(), succeeded.to_string(), failed.to_string()];
        if let Some(latency) = latency {
            row.extend(
                [
                    latency.mean_ms,
                    latency.p50_ms,
                    latency.p90_ms,
                    latency.p99_ms,
                    latency.p999_ms,
                    latency.max_ms,
                ]
                .map(|ms| format!("{ms:.2}")),
            );
        }
        table.add_row(row);
    }
    let mut text = format!("{table}\n\n");
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<24} {value}\n"));
    line("requests a second", format!("{:.0}", report.per_second));
    line("seconds", format!("{:.1}", report.seconds));
    line("longest gap", format!("{:.0} ms without a success", report.longest_gap_ms));
    for (code, count) in report.errors() {
        line(&format!("failed: {code}"), count.to_string());
    }
    if report.unanswered > 0 {
        line("unanswered at the end", report.unanswered.to_string());
    }
    let cpu = |us: Option<f64>| us.map(|us| format!("{us:.0} µs a request"));
    if let Some(cpu) = cpu(report.server_cpu_us) {
        line("processor, servers", cpu);
    }
    if let Some(cpu) = cpu(report.generator_cpu_us) {
        line("processor, generator", cpu);
    }
    text.truncate(text.trim_end().len());
    text
}
