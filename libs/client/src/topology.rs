//! Who does what now, as the director tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use plinth_api::director::{LAYOUT, LayoutQuery, LiveLayout};
use plinth_api::{CallError, Nothing, Target, coordinator};
use plinth_runtime::Scope;
use plinth_service::{KnownCoordinators, Peers};
use plinth_system_config::{Service, SystemConfig};
use plinth_types::{Epoch, KeyRange, Pid, Tag};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

/// How long the director may hold a long poll.
const POLL: Duration = Duration::from_secs(10);
/// How long a coordinator may take to say who the director is.
const ASK: Duration = Duration::from_millis(500);
/// How long a peer is waited for before the layout is doubted.
const PATIENCE: Duration = Duration::from_millis(400);
/// Between two attempts, while nobody answers.
const PAUSE: Duration = Duration::from_millis(10);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// Who serves the current epoch.
#[derive(Clone, Debug)]
pub struct Topology {
    /// The director's account.
    pub live: LiveLayout,
}

impl Topology {
    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.live.config.layout.epoch
    }

    /// The commit proxies that run.
    pub fn commit_proxies(&self) -> impl Iterator<Item = &Pid> {
        self.live.config.layout.commit_proxies.iter().filter_map(up)
    }

    /// The storages that run and hold a tag.
    pub fn storages(&self, tag: Tag) -> impl Iterator<Item = &Pid> {
        self.live.config.layout.team(tag).iter().filter_map(|member| up(&member.service))
    }

    /// Every storage that runs.
    #[must_use]
    pub fn all_storages(&self) -> BTreeSet<Target> {
        let members = self.live.config.layout.storage_teams.iter().flat_map(|team| &team.members);
        members.filter_map(|member| up(&member.service)).map(Target::from).collect()
    }

    /// Which tag a key belongs to.
    #[must_use]
    pub fn tag_of(&self, key: &[u8]) -> Option<Tag> {
        self.live.recorded.shards.tag_of(key)
    }

    /// The shards that a range touches, each with its part of the range, in key order.
    #[must_use]
    pub fn within(&self, range: &KeyRange) -> BTreeMap<KeyRange, Tag> {
        self.live.recorded.shards.within(range).collect()
    }
}

fn up(service: &Service) -> Option<&Pid> {
    match service {
        Service::Up(pid) => Some(pid),
        Service::Down(_) => None,
    }
}

/// The newest layout that is known, and the way to doubt it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Followed {
    newest: watch::Receiver<Option<Arc<Topology>>>,
    doubt: Arc<Notify>,
}

impl Followed {
    /// The newest layout; none while no director has told one.
    #[must_use]
    pub fn newest(&self) -> Option<Arc<Topology>> {
        self.newest.borrow().clone()
    }

    /// A view that changes with each newer layout.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Topology>>> {
        self.newest.clone()
    }

    /// Says that peers do not answer as the layout promises: the coordinators are asked at once
    /// whether its director is still the latest. A director that is frozen or cut off would
    /// otherwise be believed for as long as a poll lasts.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Waits until an epoch is over. Meant for who waits for a peer of that epoch: while nothing
    /// comes, the layout is doubted every so often.
    pub async fn superseded(&self, epoch: Epoch) {
        let mut newest = self.watch();
        loop {
            let over = newest.wait_for(|newest| {
                newest.as_ref().is_some_and(|topology| topology.epoch() > epoch)
            });
            // The inner error is the follower's end, and with it the service's.
            if timeout(PATIENCE, over).await.is_ok() {
                return;
            }
            self.doubt();
        }
    }
}

/// Follows the live layout for as long as the scope lives.
#[must_use]
pub fn follow(scope: &Scope, peers: Peers, coordinators: KnownCoordinators) -> Followed {
    let (sender, newest) = watch::channel(None);
    let doubt = Arc::new(Notify::new());
    let followed = Followed { newest, doubt: Arc::clone(&doubt) };
    drop(scope.spawn("following the layout", async move {
        let mut pause = PAUSE;
        loop {
            for coordinator in coordinators.targets_after(named(&sender)) {
                let Some(director) = director(&peers, &coordinator).await else { continue };
                if follow_director(&peers, &director, &sender, &doubt).await {
                    pause = PAUSE;
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }));
    followed
}

/// The coordinators that the newest layout names. A program that is no part of the cluster has no foreman
/// to hear of them from, and outlives those that it was told of when it connected.
fn named(newest: &watch::Sender<Option<Arc<Topology>>>) -> Vec<Target> {
    let newest = newest.borrow();
    let configs = newest.iter().map(|topology| &topology.live.recorded.config);
    let addresses = configs.flat_map(SystemConfig::coordinator_addresses);
    addresses.map(|(_, address)| Target::address(&address)).collect()
}

async fn director(peers: &Peers, coordinator: &Target) -> Option<Target> {
    let status =
        peers.call(coordinator, &coordinator::STATUS, &Nothing {}, None, ASK).await.ok()?;
    status.director.map(|appointed| Target::from(&appointed.pid))
}

/// Follows one director until it is gone or doubted. Says whether it told anything.
async fn follow_director(
    peers: &Peers,
    director: &Target,
    sender: &watch::Sender<Option<Arc<Topology>>>,
    doubt: &Notify,
) -> bool {
    let mut told = false;
    let mut query = LayoutQuery::default();
    let wait = u64::try_from(POLL.as_millis()).unwrap_or(u64::MAX);
    loop {
        // The first question is answered at once, and what is doubted then is older.
        let limit = if told { POLL + ASK } else { ASK };
        let call = async { peers.call(director, &LAYOUT, &query, None, limit).await };
        let answer = tokio::select! {
            biased;
            answer = call => answer,
            () = doubt.notified(), if told => return told,
        };
        let live = match answer {
            Ok(live) => live,
            // A director that has no layout yet says so; the coordinator may know a newer one.
            Err(CallError::Problem(_) | CallError::Transport(_)) => return told,
            Err(error @ (CallError::Answer { .. } | CallError::Request(_))) => {
                tracing::warn!(%error, "the director's layout can't be read");
                return told;
            }
        };
        told = true;
        query = LayoutQuery { index: Some(live.index), wait_ms: wait };
        sender.send_if_modified(|current| {
            let newer = current.as_ref().is_none_or(|current| {
                (current.epoch(), current.live.index) < (live.config.layout.epoch, live.index)
            });
            if newer {
                *current = Some(Arc::new(Topology { live }));
            }
            newer
        });
    }
}
