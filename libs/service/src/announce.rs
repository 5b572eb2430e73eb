//! Making oneself known to the node's foreman.

use std::time::Duration;

use plinth_api::Target;
use plinth_api::foreman::{ANNOUNCE, Announcement, Welcome};
use plinth_types::StoreId;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::Context;

/// The time between two announcements, and the time that one may take.
const PERIOD: Duration = Duration::from_secs(1);

/// The directory that is announced: none for a worker that keeps nothing, fixed, or learnt later.
#[derive(Debug)]
pub struct AnnouncedStore(watch::Receiver<Option<StoreId>>);

impl From<Option<StoreId>> for AnnouncedStore {
    fn from(store: Option<StoreId>) -> Self {
        AnnouncedStore(watch::channel(store).1)
    }
}

impl From<watch::Receiver<Option<StoreId>>> for AnnouncedStore {
    fn from(store: watch::Receiver<Option<StoreId>>) -> Self {
        AnnouncedStore(store)
    }
}

/// Announces the service to its node's foreman: at once, when the store changes, and every second,
/// for ever. What comes out is the foreman's last answer; the cluster that it names becomes the
/// service's own, where it knew none.
pub fn announce(
    context: &Context,
    foreman: Target,
    store: impl Into<AnnouncedStore>,
) -> watch::Receiver<Option<Welcome>> {
    let (welcomes, welcome) = watch::channel(None);
    let AnnouncedStore(store) = store.into();
    let task = keep_announcing(context.clone(), foreman, store, welcomes);
    drop(context.scope().spawn("announcing", task));
    welcome
}

async fn keep_announcing(
    context: Context,
    foreman: Target,
    mut store: watch::Receiver<Option<StoreId>>,
    welcomes: watch::Sender<Option<Welcome>>,
) {
    let mut last_error = None;
    loop {
        let (name, pid) = (context.service().name, context.pid().clone());
        let announcement = Announcement::new(name, pid, *store.borrow_and_update());
        let answer = context.peers().call(&foreman, &ANNOUNCE, &announcement, None, PERIOD).await;
        match answer {
            Ok(welcome) => {
                if context.cluster().is_none()
                    && let Some(cluster) = welcome.cluster
                {
                    context.set_cluster(cluster);
                }
                last_error = None;
                welcomes.send_replace(Some(welcome));
            }
            // Said once, not every second.
            Err(error) if last_error.as_ref() != Some(&error) => {
                tracing::warn!(foreman = foreman.address, %error, "the foreman does not take the announcement; it is repeated");
                last_error = Some(error);
            }
            Err(_) => {}
        }
        tokio::select! {
            biased;
            changed = store.changed() => if changed.is_err() { sleep(PERIOD).await },
            () = sleep(PERIOD) => {}
        }
    }
}
