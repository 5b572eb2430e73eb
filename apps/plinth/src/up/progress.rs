//! What `plinth up` says, and to whom: to a person at a terminal, or to the process that waits until
//! the cluster is ready and then returns (`--detach`).

use comfy_table::{ContentArrangement, Table, presets};

use super::prepare::Cluster;
use super::ready::Report;

/// Marks a line that is to be passed on to a person.
pub(crate) const SAY: &str = "say ";
/// Marks an error that is to be passed on.
pub(crate) const ERROR: &str = "error ";
/// Marks the last line: the report as JSON.
pub(crate) const READY: &str = "ready ";

/// Where `plinth up` speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// Progress to standard error, the result to standard output.
    Terminal,
    /// Marked lines to standard output, read by the process that detached this one. Nothing is said
    /// there after the last line: nobody reads it any more.
    Lines,
}

impl Voice {
    pub(crate) const fn new(background: bool) -> Voice {
        if background { Voice::Lines } else { Voice::Terminal }
    }

    /// Says what is waited for.
    pub(crate) fn progress(self, text: &str) {
        use std::io::Write as _;
        match self {
            Voice::Terminal => eprintln!("plinth: {text}"),
            // The reader may have gone; that is no reason to fail.
            Voice::Lines => {
                let _ = writeln!(std::io::stdout(), "{SAY}{text}");
            }
        }
    }

    /// Says why it ends.
    pub(crate) fn error(self, error: &anyhow::Error) {
        use std::io::Write as _;
        match self {
            Voice::Terminal => eprintln!("error: {error:#}"),
            Voice::Lines => {
                eprintln!("error: {error:#}");
                // As above.
                let _ = writeln!(std::io::stdout(), "{ERROR}{error:#}");
            }
        }
    }

    /// Says that the cluster is ready.
    pub(crate) fn ready(self, report: &Report, cluster: &Cluster, json: bool) {
        use std::io::Write as _;
        let line = serde_json::to_string(report).unwrap_or_default();
        let text = match self {
            Voice::Terminal if json => line,
            Voice::Terminal => table(report, cluster),
            Voice::Lines if json => format!("{READY}{line}"),
            Voice::Lines => {
                let table = table(report, cluster);
                let lines: String = table.lines().map(|line| format!("{SAY}{line}\n")).collect();
                format!("{lines}{READY}")
            }
        };
        let _ = writeln!(std::io::stdout(), "{text}");
        let _ = std::io::stdout().flush();
    }
}

/// The table for people.
fn table(report: &Report, cluster: &Cluster) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["node", "service", "role", "process", "url"]);
    for row in &report.processes {
        table.add_row([
            row.node.to_string(),
            row.service.clone(),
            row.role.clone(),
            row.os_pid.to_string(),
            row.url.clone(),
        ]);
    }
    let mut text = format!("{table}\n\nready after {} ms\n", report.ready_ms);
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("  {name:<9} {value}\n"));
    };
    line("gateways", &report.gateways.join("  "));
    if let Some(jaeger) = &report.jaeger {
        line("traces", jaeger);
    }
    line("logs", &format!("{}/*/*.log", cluster.data_dir.display()));
    if let Some(gateway) = report.gateways.first() {
        line("try", &format!("curl {gateway}/v1/status"));
        line("", &format!("curl -X PUT {gateway}/v1/keys/hello -d world"));
    }
    // Any coordinator passes it on to the leader.
    if let Some(coordinator) = cluster.file.coordinators.first() {
        line(
            "admin",
            &format!(
                "curl -H \"Authorization: Bearer $(cat '{}')\" -H 'content-type: application/json' -d '{{\"reason\":\"a test\"}}' {}/v1/recoveries",
                cluster.token_path().display(),
                coordinator.url
            ),
        );
    }
    text
}
