//! What the node tells the coordinators: every one of them, every half second and at each change,
//! so that whichever leads knows. What they answer goes to the driver.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use plinth_api::Target;
use plinth_api::coordinator::REPORT;
use plinth_service::Context;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::{REPORT_EVERY, REPORT_LIMIT};
use crate::coordinators::Targets;
use crate::driver::{Message, Snapshot};

/// The pause after the first report that did not get through; it doubles up to the usual interval.
/// Short, because at a cold start everybody waits for the coordinators to appear.
const FIRST_RETRY: Duration = Duration::from_millis(20);
/// How often a node reports that belongs to no cluster yet: the founding waits for it.
const UNFOUNDED_EVERY: Duration = Duration::from_millis(50);
/// How long a coordinator may be silent before it is said.
const PATIENCE: Duration = Duration::from_secs(5);
/// The least time between two reports, however much changes.
const BREATH: Duration = Duration::from_millis(10);

/// Reports to every coordinator for as long as the foreman lives, and to others as they are heard of.
pub(crate) fn spawn(
    context: &Context,
    coordinators: &Targets,
    snapshot: &watch::Receiver<Arc<Snapshot>>,
    driver: &mpsc::Sender<Message>,
) {
    let (context, snapshot, driver) = (context.clone(), snapshot.clone(), driver.clone());
    let mut targets = coordinators.clone();
    drop(context.scope().clone().spawn("registrations", async move {
        let mut reported: BTreeSet<Target> = BTreeSet::new();
        loop {
            let now: BTreeSet<Target> = targets.borrow_and_update().iter().cloned().collect();
            for coordinator in now.difference(&reported) {
                let task = report(
                    context.clone(),
                    coordinator.clone(),
                    targets.clone(),
                    snapshot.clone(),
                    driver.clone(),
                );
                drop(context.scope().spawn("registration", task));
            }
            reported = now;
            if targets.changed().await.is_err() {
                return;
            }
        }
    }));
}

async fn report(
    context: Context,
    coordinator: Target,
    targets: Targets,
    mut snapshot: watch::Receiver<Arc<Snapshot>>,
    driver: mpsc::Sender<Message>,
) {
    let mut retry = FIRST_RETRY;
    let mut told = false;
    let mut silent_since = None;
    // One that is named no more is left alone.
    while targets.borrow().contains(&coordinator) {
        let report = Arc::clone(&snapshot.borrow_and_update());
        let sent = Instant::now();
        let answer =
            context.peers().call(&coordinator, &REPORT, &report.report, None, REPORT_LIMIT).await;
        let pause = match answer {
            Ok(orders) => {
                (told, silent_since) = (false, None);
                retry = FIRST_RETRY;
                if driver.send(Message::Orders(orders)).await.is_err() {
                    return;
                }
                if report.report.cluster.is_some() { REPORT_EVERY } else { UNFOUNDED_EVERY }
            }
            Err(error) => {
                let away = *silent_since.get_or_insert(sent);
                // A coordinator that is away for a moment is ordinary; of others it is said once.
                if !told && away.elapsed() >= PATIENCE {
                    tracing::warn!(
                        coordinator = %coordinator.address,
                        %error,
                        "the coordinator has not answered for {} s: check that it runs, and that its address, of the cluster file or of coordinators.json, is the right one",
                        PATIENCE.as_secs()
                    );
                    told = true;
                }
                let pause = retry;
                retry = (retry * 2).min(REPORT_EVERY);
                pause
            }
        };
        sleep(BREATH).await;
        match timeout_at(sent + pause, snapshot.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_)) => return,
        }
    }
}
