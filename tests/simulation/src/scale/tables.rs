//! Costs of clusters of many sizes, as tables in Markdown.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use super::{Cost, Requests, Size};

/// The cluster of which one measure is varied at a time.
const BASE: Size =
    Size { nodes: 10, coordinators: 5, logs: 3, commit_proxies: 1, resolvers: 1, shards: 1 };
/// Fewer messages than this a commit or a recovery are chance.
const FEW: f64 = 0.05;

/// What a commit's user waits for, or what tells of it afterwards in the same way: a lone commit's batch
/// is followed by an empty one.
const PIPELINE: [&str; 6] = [
    "PUT /v1/keys",
    "POST /v1/commits",
    "POST /v1/commit_versions",
    "POST /v1/resolutions",
    "POST /v1/entries",
    "POST /v1/committed_versions",
];
/// What storages do about a commit, for which nobody waits: they pull it, and say what is durable.
const STORAGES: [&str; 2] = ["GET /v1/entries", "POST /v1/pops"];

/// The requests of a commit that go through the pipeline.
#[must_use]
pub fn pipeline(cost: &Cost) -> f64 {
    PIPELINE.iter().filter_map(|kind| cost.commit.get(*kind)).sum()
}

/// The requests that storages make about a commit.
#[must_use]
pub fn beside(cost: &Cost) -> f64 {
    STORAGES.iter().filter_map(|kind| cost.commit.get(*kind)).sum()
}

/// Tables of costs by nodes, logs, proxies, resolvers and storages, and of one large cluster.
///
/// # Errors
/// A cluster's process fails, or nothing can be written.
pub fn print_tables(executable: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let vary = |values: &[u32], with: fn(u32) -> Size| values.iter().map(|n| with(*n)).collect();
    let series: [(&str, Vec<Size>); 6] = [
        ("nodes", vary(&[5, 10, 25, 50], |nodes| Size { nodes, ..BASE })),
        ("logs", vary(&[3, 6, 12, 24], |logs| Size { logs, ..BASE })),
        ("commit proxies", vary(&[1, 2, 4, 8], |commit_proxies| Size { commit_proxies, ..BASE })),
        ("resolvers", vary(&[1, 2, 4, 8], |resolvers| Size { resolvers, ..BASE })),
        ("storages", vary(&[1, 4, 16, 34], |shards| Size { shards, ..BASE })),
        (
            "all of it",
            vec![Size { nodes: 50, logs: 6, commit_proxies: 3, resolvers: 3, shards: 34, ..BASE }],
        ),
    ];
    for (what, sizes) in series {
        let costs: Vec<(Size, Cost)> = sizes
            .into_iter()
            .map(|size| Ok((size, cost(executable, &size)?)))
            .collect::<anyhow::Result<_>>()?;
        table(what, &costs, out)?;
    }
    Ok(())
}

/// Measures in a process of its own.
fn cost(executable: &Path, size: &Size) -> anyhow::Result<Cost> {
    let Size { nodes, coordinators, logs, commit_proxies, resolvers, shards } = size;
    let arguments = [
        ("--nodes", nodes),
        ("--coordinators", coordinators),
        ("--logs", logs),
        ("--commit-proxies", commit_proxies),
        ("--resolvers", resolvers),
        ("--shards", shards),
    ];
    let arguments = arguments.iter().flat_map(|(flag, n)| [(*flag).to_owned(), n.to_string()]);
    let mut command = Command::new(executable);
    let output = command.arg("cost").args(arguments).stdin(Stdio::null()).output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let last = printed.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| {
        format!("{size:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr))
    })
}

/// A table with a row for each cluster.
fn table(what: &str, costs: &[(Size, Cost)], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n## By {what}\n")?;
    writeln!(
        out,
        "| nodes | logs | proxies | resolvers | storages | start ms | recovery ms | messages a \
         recovery | pipeline, a commit | storages, a commit | idle a second |\n\
         |---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for (size, cost) in costs {
        let Size { nodes, logs, commit_proxies, resolvers, .. } = size;
        let Cost { storages, start_ms, recovery_ms, .. } = cost;
        let sum = |requests: &Requests| requests.values().sum::<f64>();
        writeln!(
            out,
            "| {nodes} | {logs} | {commit_proxies} | {resolvers} | {storages} | {start_ms} | \
             {recovery_ms} | {:.0} | {:.0} | {:.0} | {:.0} |",
            sum(&cost.recovery),
            pipeline(cost),
            beside(cost),
            sum(&cost.idle)
        )?;
    }
    let of = |of: fn(&Cost) -> Requests| costs.iter().map(|(_, cost)| of(cost)).collect::<Vec<_>>();
    kinds("Messages of a commit", &of(|cost| cost.commit.clone()), out)?;
    kinds("Messages of a recovery", &of(|cost| cost.recovery.clone()), out)?;
    kinds("Idle messages a second", &of(|cost| cost.idle.clone()), out)
}

/// A table with a row for each kind of request.
fn kinds(title: &str, costs: &[Requests], out: &mut dyn Write) -> io::Result<()> {
    let all: BTreeSet<&String> = costs.iter().flat_map(Requests::keys).collect();
    writeln!(out, "\n{title}, each cluster of the table above a column:\n")?;
    writeln!(out, "| request |{}", " |".repeat(costs.len()))?;
    writeln!(out, "|---|{}", "---|".repeat(costs.len()))?;
    for kind in all {
        let counts: Vec<f64> =
            costs.iter().map(|cost| cost.get(kind).copied().unwrap_or(0.0)).collect();
        if counts.iter().any(|count| *count >= FEW) {
            let cells: String =
                counts.iter().map(|count| format!(" {:.1} |", count.max(0.0))).collect();
            writeln!(out, "| `{kind}` |{cells}")?;
        }
    }
    Ok(())
}
