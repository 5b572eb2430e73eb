//! `monitoring`: whoever fails from here on ends the epoch, before the first transaction of it.
//!
//! A watch is held on every component of the transaction system: sequencer, commit proxies,
//! resolvers, logs. The phase ends when each of them has been heard. Storages are no cause for
//! recovery: one that dies is routed around and takes up the epoch again when it is back
//! ([`crate::tending`]). **Keeps: a failed component hangs no commit.**

use std::time::Duration;

use plinth_api::Target;
use plinth_api::commit_proxy::Peer;
use plinth_service::{MonitorEnd, watch};
use tokio::sync::mpsc;

use crate::amending::Book;
use crate::fatal::Fatal;
use crate::reign::Reign;

pub(crate) async fn run(reign: &Reign, book: &Book) -> Result<(), Fatal> {
    let components: Vec<Peer> = book.borrow().components().cloned().collect();
    let (heard, mut hearing) = mpsc::channel(components.len().max(1));
    let count = components.len();
    for component in components {
        let task = watch_one(reign.clone(), component, book.clone(), heard.clone());
        drop(reign.context.scope().spawn("monitoring", task));
    }
    for _ in 0..count {
        // A component that is never heard fails the epoch by its watch.
        hearing.recv().await;
    }
    Ok(())
}

async fn watch_one(reign: Reign, component: Peer, book: Book, heard: mpsc::Sender<()>) {
    // A change of the parameters holds from the next line on.
    let silence = || Duration::from_millis(book.borrow().parameters().failure_timeout_ms);
    let mut first = Some(heard);
    let epoch = reign.epoch;
    let mut later = None;
    let target = Target::from(&component.pid);
    let end = watch(&reign.context, &target, silence, |line| {
        if line.epoch > epoch && later.is_none() {
            later = Some(line.epoch);
            reign.fail(Fatal::superseded(format_args!(
                "{} serves epoch {}",
                component.service, line.epoch
            )));
        }
        if let Some(heard) = first.take() {
            // There is a place for each component.
            let _ = heard.try_send(());
        }
    });
    let end = end.await;
    tracing::warn!(service = %component.service, pid = %component.pid, ?end, "a component has ended");
    reign.fail(match end {
        MonitorEnd::Exited { reason } => Fatal::exited(&component.service, &reason),
        MonitorEnd::Gone { .. } => Fatal::of(&component.service, "died"),
        MonitorEnd::Silent { after } => {
            Fatal::of(&component.service, format_args!("was silent for {} ms", after.as_millis()))
        }
    });
    // Keeps the channel open until the failure is noted.
    drop(first);
}
