//! From the start of processes to the first acknowledged commit.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Bench;
use crate::system::{Kind, System, kinds};
use crate::table::{Goal, Table, median_and_worst};

/// What a start after `kill -9` of everything is to stay under, in milliseconds.
const GOAL: Goal = Goal { median: 1_000.0, worst: 1_000.0 };

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Value> {
    let head = ["from the start of processes to the first commit", "median ms", "worst ms", "goal"];
    let (mut table, mut all) = (Table::new(head), Vec::new());
    for kind in kinds(bench) {
        let name = kind.name();
        eprintln!("bench: {name}: {} starts from nothing and from kill -9", bench.extent.starts);
        let (mut cold, mut killed) = (Vec::new(), Vec::new());
        for _ in 0..bench.extent.starts {
            let directory = bench.fresh(&format!("start-{name}"))?;
            cold.push(
                start(bench, *kind, &directory).await.with_context(|| format!("{name}, empty"))?,
            );
            killed.push(
                start(bench, *kind, &directory).await.with_context(|| format!("{name}, killed"))?,
            );
            std::fs::remove_dir_all(directory).ok();
        }
        for (what, figures, goal) in
            [("empty directories", cold, None), ("kill -9 of everything", killed, Some(GOAL))]
        {
            let (median, worst) = median_and_worst(&figures).context("nothing was measured")?;
            let (median_ms, worst_ms) = (format!("{median:.0}"), format!("{worst:.0}"));
            let word = goal.map_or_else(|| "–".to_owned(), |goal| goal.show(median, worst));
            table.row([format!("{name}, {what}"), median_ms, worst_ms, word]);
            all.push(json!({
                "system": name, "from": what, "median_ms": median, "worst_ms": worst,
                "goal_met": goal.map(|goal| goal.is_met(median, worst)), "all_ms": figures,
            }));
        }
    }
    println!(
        "## Starts\n\n{table}\nOf {} each. The goal after `kill -9` of everything is under {:.0} ms.\n",
        bench.extent.starts, GOAL.worst
    );
    Ok(json!({ "goal_ms": GOAL.worst, "starts": all }))
}

/// Starts a system, waits for its first commit, lets it settle, and kills everything.
async fn start(bench: &Bench, kind: Kind, directory: &Path) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut system = System::start(bench, kind, directory)?;
    system.first_write(kind).await?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    system.settled().await?;
    system.kill().await?;
    Ok(took)
}
