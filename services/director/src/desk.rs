//! What the director's routes and its recovery share.

use std::sync::Arc;

use plinth_api::director::Dismissal;
use plinth_service::Context;
use plinth_types::Epoch;
use tokio::sync::watch;

use crate::changing::Orders;
use crate::live::Live;
use crate::progress::Progress;
use crate::reign::Accepted;

/// What the director's routes and its recovery share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) context: Context,
    pub(crate) progress: Arc<Progress>,
    pub(crate) live: Live,
    pub(crate) orders: Orders,
    appointed: watch::Sender<Option<Accepted>>,
    /// The highest epoch that it was asked to serve.
    highest: watch::Sender<Epoch>,
    dismissed: watch::Sender<Option<Dismissal>>,
}

impl Desk {
    pub(crate) fn new(context: Context) -> Desk {
        Desk {
            context,
            progress: Arc::default(),
            live: Live::new(),
            orders: Orders::new(),
            appointed: watch::Sender::new(None),
            highest: watch::Sender::new(Epoch::ZERO),
            dismissed: watch::Sender::new(None),
        }
    }

    /// Accepts the first appointment. Returns the epoch that the director serves: a later
    /// appointment is not accepted, and one of a later epoch ends the director.
    pub(crate) fn appoint(&self, accepted: Accepted) -> Epoch {
        let asked = accepted.appointment.epoch;
        let mut serving = asked;
        self.appointed.send_if_modified(|first| match first {
            Some(first) => {
                serving = first.appointment.epoch;
                false
            }
            None => {
                *first = Some(accepted);
                true
            }
        });
        self.highest.send_if_modified(|highest| {
            let is_higher = asked > *highest;
            *highest = asked.max(*highest);
            is_higher
        });
        serving
    }

    /// Waits for the appointment.
    pub(crate) async fn appointed(&self) -> Accepted {
        let mut appointed = self.appointed.subscribe();
        loop {
            if let Some(accepted) = appointed.borrow_and_update().clone() {
                return accepted;
            }
            if appointed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The coordinators say that an epoch is over.
    pub(crate) fn dismiss(&self, dismissal: Dismissal) {
        self.dismissed.send_replace(Some(dismissal));
    }

    /// Waits until the coordinators say that this epoch is over, or whichever, and for their reason.
    pub(crate) async fn dismissed(&self, serving: Option<Epoch>) -> String {
        let mut dismissed = self.dismissed.subscribe();
        let is_meant = |given: &Option<Dismissal>| {
            given
                .as_ref()
                .is_some_and(|dismissal| serving.is_none_or(|serving| dismissal.epoch == serving))
        };
        let given = dismissed.wait_for(is_meant).await.map(|given| given.clone());
        match given {
            Ok(Some(dismissal)) => dismissal.reason,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Waits for an appointment to a later epoch than this.
    pub(crate) async fn superseded(&self, serving: Epoch) -> Epoch {
        let mut highest = self.highest.subscribe();
        let later = highest.wait_for(|highest| *highest > serving).await.map(|epoch| *epoch);
        match later {
            Ok(epoch) => epoch,
            Err(_) => std::future::pending().await,
        }
    }
}
