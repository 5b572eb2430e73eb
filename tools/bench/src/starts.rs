//! From the start of processes to the first acknowledged commit.

use std::path::Path;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::Bench;
use crate::system::{Kind, System, kinds};
use crate::table::{Table, median_and_worst};

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<()> {
    let mut table =
        Table::new(["from the start of processes to the first commit", "median ms", "worst ms"]);
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
        for (what, figures) in [("empty directories", cold), ("kill -9 of everything", killed)] {
            let (median, worst) = median_and_worst(&figures).context("nothing was measured")?;
            table.row([format!("{name}, {what}"), format!("{median:.0}"), format!("{worst:.0}")]);
        }
    }
    println!("## Starts\n\n{table}\nOf {} each.\n", bench.extent.starts);
    Ok(())
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
