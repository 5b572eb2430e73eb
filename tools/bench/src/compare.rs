//! The same load on both systems, and the ratios.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};
use plinth_load::{Amount, Load, Mix, Operation, Report, drive};
use serde_json::{Value, json};

use crate::system::{Kind, System, kinds};
use crate::table::{Table, median};
use crate::{Bench, processes};

/// Connections, one figure each.
const CONNECTIONS: [usize; 4] = [1, 16, 64, 256];
/// Answers that say that a server has no such operation.
const NOT_THERE: [&str; 5] =
    ["not_found", "method_not_allowed", "not_implemented", "http_404", "http_501"];

/// In this order: what writes less comes first, since etcd's reads get slower after writes.
const OPERATIONS: [Operation; 3] = [Operation::Get, Operation::Transaction, Operation::Put];

/// The reports of one system, by operation and connections.
type Figures = BTreeMap<(Operation, usize), Vec<Report>>;

struct Measured {
    kind: Kind,
    figures: Figures,
    missing: Vec<Operation>,
    resident_mib: u64,
}

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Value> {
    let mut all = Vec::new();
    for kind in kinds(bench) {
        let directory = bench.fresh(&format!("compare-{}", kind.name()))?;
        let measured = measure(bench, *kind, &directory).await;
        all.push(measured.with_context(|| kind.name())?);
        std::fs::remove_dir_all(directory).ok();
    }
    println!("## The same load\n\n{}", show(&all));
    Ok(json!({ "figures": all.iter().flat_map(figures).collect::<Vec<_>>() }))
}

async fn measure(bench: &Bench, kind: Kind, directory: &Path) -> anyhow::Result<Measured> {
    eprintln!("bench: {}: filling {} keys", kind.name(), bench.extent.keys);
    let mut system = System::start(bench, kind, directory)?;
    system.settled().await?;
    let filling = load(bench, kind, &system, Operation::Put, 64).await?.filling();
    let filled = drive(&bench.world, filling).await?;
    ensure!(filled.failed == 0, "filling: {:?}", filled.errors());
    let mut figures = Figures::new();
    let mut missing = Vec::new();
    let mut resident_mib = 0;
    for operation in OPERATIONS {
        // Reads and transactions are measured on a system that was just started.
        if operation != Operation::Put {
            system.stop().await?;
            system = System::start(bench, kind, directory)?;
            system.settled().await?;
            resident_mib = processes::resident(&system.processes()?) >> 20;
        }
        if !is_there(bench, kind, &system, operation).await? {
            missing.push(operation);
            continue;
        }
        for connections in CONNECTIONS {
            eprintln!("bench: {}: {} with {connections}", kind.name(), operation.as_str());
            for _ in 0..bench.extent.runs {
                let load = load(bench, kind, &system, operation, connections).await?;
                let report = drive(&bench.world, load).await?;
                figures.entry((operation, connections)).or_default().push(report);
            }
        }
    }
    system.stop().await?;
    Ok(Measured { kind, figures, missing, resident_mib })
}

async fn load(
    bench: &Bench,
    kind: Kind,
    system: &System,
    operation: Operation,
    connections: usize,
) -> anyhow::Result<Load> {
    let url = system.best_url().await?;
    Ok(Load {
        connections,
        amount: Amount::Time(bench.extent.measure),
        warm_up: bench.extent.warm_up,
        keys: bench.extent.keys,
        server_processes: system.processes()?,
        ..Load::new(kind.protocol(), vec![url], Mix::only(operation))
    })
}

/// Whether the system knows the operation at all.
async fn is_there(
    bench: &Bench,
    kind: Kind,
    system: &System,
    operation: Operation,
) -> anyhow::Result<bool> {
    let one = Load {
        amount: Amount::Requests(1),
        warm_up: std::time::Duration::ZERO,
        ..load(bench, kind, system, operation, 1).await?
    };
    let report = drive(&bench.world, one).await?;
    let errors = report.errors();
    if errors.keys().any(|code| NOT_THERE.contains(&code.as_str())) {
        return Ok(false);
    }
    ensure!(errors.is_empty(), "{}: {errors:?}", operation.as_str());
    Ok(true)
}

/// The medians of one cell.
struct Cell {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    server_us: Option<f64>,
    generator_us: Option<f64>,
}

impl Cell {
    fn of(reports: &[Report], operation: Operation) -> Option<Cell> {
        let of = |figure: &dyn Fn(&Report) -> Option<f64>| {
            median(&reports.iter().filter_map(figure).collect::<Vec<_>>())
        };
        let latency = |report: &Report| report.operations.get(&operation)?.latency.clone();
        Some(Cell {
            per_second: of(&|report| Some(report.per_second))?,
            p50_ms: of(&|report| Some(latency(report)?.p50_ms))?,
            p99_ms: of(&|report| Some(latency(report)?.p99_ms))?,
            server_us: of(&|report| report.server_cpu_us),
            generator_us: of(&|report| report.generator_cpu_us),
        })
    }

    fn show(&self) -> String {
        let Cell { per_second, p50_ms, p99_ms, .. } = self;
        format!("{per_second:.0} ({p50_ms:.2} / {p99_ms:.2})")
    }
}

/// Every cell of one system.
fn figures(measured: &Measured) -> Vec<Value> {
    let cells = measured.figures.iter().filter_map(|((operation, connections), reports)| {
        let cell = Cell::of(reports, *operation)?;
        Some(json!({
            "system": measured.kind.name(), "operation": operation.as_str(),
            "connections": connections, "per_second": cell.per_second, "p50_ms": cell.p50_ms,
            "p99_ms": cell.p99_ms, "server_cpu_us": cell.server_us,
        }))
    });
    cells.collect()
}

fn show(all: &[Measured]) -> String {
    let find = |kind: Kind| all.iter().find(|measured| measured.kind == kind);
    let (etcd, plinth) = (find(Kind::Etcd), find(Kind::Plinth));
    let mut table = Table::new([
        "operation",
        "connections",
        "etcd",
        "plinth",
        "plinth / etcd",
        "etcd, µs CPU",
        "plinth, µs CPU",
        "generator, µs CPU",
    ]);
    let absent = || "–".to_owned();
    let number = |number: Option<f64>| number.map_or_else(absent, |number| format!("{number:.0}"));
    for operation in OPERATIONS {
        for connections in CONNECTIONS {
            let cell = |measured: Option<&Measured>| {
                Cell::of(measured?.figures.get(&(operation, connections))?, operation)
            };
            let (etcd, plinth) = (cell(etcd), cell(plinth));
            let ratio = match (&etcd, &plinth) {
                (Some(etcd), Some(plinth)) => {
                    format!("{:.2}", plinth.per_second / etcd.per_second)
                }
                _ => absent(),
            };
            let show = |cell: &Option<Cell>| cell.as_ref().map_or_else(absent, Cell::show);
            let server = |cell: &Option<Cell>| number(cell.as_ref().and_then(|c| c.server_us));
            table.row([
                operation.as_str().to_owned(),
                connections.to_string(),
                show(&etcd),
                show(&plinth),
                ratio,
                server(&etcd),
                server(&plinth),
                number(plinth.as_ref().and_then(|cell| cell.generator_us)),
            ]);
        }
    }
    let mut text = format!(
        "{table}\nRequests a second (p50 / p99 in ms), a closed loop on one server: etcd's leader, \
         Plinth's first gateway. Processor time is a request's, over all servers. Reads are \
         linearizable; they and transactions (compare, put) are measured after a restart.\n"
    );
    for measured in all {
        let name = measured.kind.name();
        text.push_str(&format!(
            "\n- {name}: {} MiB resident after the restart",
            measured.resident_mib
        ));
        for operation in &measured.missing {
            text.push_str(&format!(
                "\n- {name} has no {} yet; it was left out",
                operation.as_str()
            ));
        }
        for ((operation, connections), reports) in &measured.figures {
            let errors: Vec<_> = reports.iter().flat_map(Report::errors).collect();
            if !errors.is_empty() {
                let operation = operation.as_str();
                text.push_str(&format!(
                    "\n- {name}, {operation}, {connections}: failed {errors:?}"
                ));
            }
        }
    }
    text.push('\n');
    text
}
