//! Attempts, on ever newer knowledge of the layout, until one is done or time is up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{ClientError, Followed, Topology};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(5);
/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// When something must be done, and how long that was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) within: Duration,
}

impl Deadline {
    pub(crate) fn after(within: Duration) -> Deadline {
        Deadline { at: Instant::now() + within, within }
    }

    pub(crate) fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

/// What an attempt came to.
pub(crate) enum Attempt<T> {
    Done(T),
    Again(String),
}

/// Attempts until a deadline.
pub(crate) struct Attempts {
    topology: watch::Receiver<Option<Arc<Topology>>>,
    followed: Followed,
    deadline: Deadline,
    /// How long to wait before the next attempt; none before the first.
    pause: Option<Duration>,
    last: String,
}

impl Attempts {
    pub(crate) fn new(followed: &Followed, deadline: Deadline) -> Attempts {
        Attempts {
            topology: followed.watch(),
            followed: followed.clone(),
            deadline,
            pause: None,
            last: "no director tells the layout".to_owned(),
        }
    }

    /// What to make the next attempt on, and the time that is left for it: an epoch that accepts
    /// commits.
    pub(crate) async fn next(&mut self) -> Result<(Arc<Topology>, Duration), ClientError> {
        self.next_where(|topology| topology.live.accepting_commits).await
    }

    /// The same with any epoch, however little of it works.
    pub(crate) async fn next_in_any_state(
        &mut self,
    ) -> Result<(Arc<Topology>, Duration), ClientError> {
        self.next_where(|_| true).await
    }

    async fn next_where(
        &mut self,
        usable: impl Fn(&Topology) -> bool,
    ) -> Result<(Arc<Topology>, Duration), ClientError> {
        if let Some(pause) = self.pause {
            // A new layout is worth an attempt at once; else the same peers get a moment.
            tokio::select! {
                biased;
                _ = self.topology.changed() => self.pause = Some(PAUSE),
                () = sleep_until((Instant::now() + pause).min(self.deadline.at)) => {}
            }
        }
        let open = self
            .topology
            .wait_for(|topology| topology.as_ref().is_some_and(|topology| usable(topology)));
        let current = match timeout_at(self.deadline.at, open).await {
            Ok(Ok(current)) => current.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        let left = self.deadline.left();
        match current {
            Some(topology) if !left.is_zero() => Ok((topology, left)),
            _ => Err(ClientError::Unavailable {
                within_ms: u64::try_from(self.deadline.within.as_millis()).unwrap_or(u64::MAX),
                detail: std::mem::take(&mut self.last),
            }),
        }
    }

    pub(crate) fn failed(&mut self, why: String) {
        self.followed.doubt();
        self.last = why;
        self.pause = Some(self.pause.map_or(PAUSE, |pause| (pause * 2).min(MAX_PAUSE)));
    }
}
