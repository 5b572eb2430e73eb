//! What users of transactions see while epochs end: nothing but a strictly serializable store.

use anyhow::{Context as _, ensure};
use plinth_api::director::LiveLayout;
use plinth_test_histories::Journal;
use plinth_test_processes::users::while_they_work;
use plinth_test_processes::{Cluster, eventually};

use crate::Outcome;

/// What must be acknowledged between two ends of epochs.
const COMMITS: usize = 150;
/// How often each kind of end comes.
const ROUNDS: usize = 3;

/// Ends one epoch after the other, each once enough was committed in it.
fn end_epochs(cluster: &Cluster, journal: &Journal) -> Outcome {
    let mut epoch = cluster.epoch()?;
    let ends = ["nothing", "commit-proxy", "sequencer", "log", "director"];
    for what in ends.into_iter().cycle().take(ROUNDS * ends.len()) {
        let before = journal.acknowledged();
        eventually("commits", || {
            let acknowledged = journal.acknowledged();
            ensure!(acknowledged >= before + COMMITS, "{acknowledged} after {before}");
            Ok(())
        })?;
        if what == "nothing" {
            cluster.begin_recovery("a test of histories")?;
        } else {
            let layout: LiveLayout = cluster.get_json("/v1/layout")?;
            let mut serving = layout.directory.into_iter();
            let victim = serving.find(|placed| placed.service.kind().as_str() == what);
            cluster.kill(victim.with_context(|| format!("no {what} serves"))?.pid.os_pid)?;
        }
        epoch = cluster.ready_above(epoch).with_context(|| format!("{what} killed"))?;
    }
    Ok(())
}

#[test]
fn histories_over_the_ends_of_epochs_are_strictly_serializable() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let gateways = cluster.ready.gateways.clone();
    while_they_work(gateways, |journal| end_epochs(&cluster, journal))?;
    cluster.stop()
}
