//! What every user is given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plinth_api::Target;
use plinth_runtime::{Random, Runtime};
use plinth_service::Transport;
use plinth_system_config::Parameters;
use plinth_test_histories::Journal;
use plinth_types::{NodeId, ServiceRef};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::findings::{Findings, now};
use crate::history::History;
use crate::user::Gateway;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The cluster starts.
    Starting,
    /// Users work, and things break.
    Working,
    /// Nothing breaks any more, and what was broken is whole.
    Healed,
    /// All has been looked at.
    Done,
}

/// When each node's gateway was last disturbed, and whose disk is damaged for good.
#[derive(Clone, Default)]
pub struct Weather(Arc<Mutex<BTreeMap<NodeId, Duration>>>, Arc<Mutex<BTreeSet<NodeId>>>);

impl Weather {
    /// A node's gateway can't be blamed for what happens about now.
    pub fn disturb(&self, node: &NodeId, at: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node.clone(), at);
    }

    /// What a node has on its disk is damaged, and nothing mends it.
    pub fn damage(&self, node: &NodeId) {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).insert(node.clone());
    }

    /// Whether a node's disk is damaged.
    #[must_use]
    pub fn is_damaged(&self, node: &NodeId) -> bool {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).contains(node)
    }

    /// Whether a node's gateway was disturbed at `since` or later.
    #[must_use]
    pub fn disturbed(&self, node: &NodeId, since: Duration) -> bool {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(node).copied();
        last.is_some_and(|last| last >= since)
    }
}

/// Where users act.
#[derive(Clone)]
pub struct Scene {
    /// The gateways, by node.
    pub gateways: Vec<(NodeId, Gateway)>,
    /// Where there is a coordinator, a member of the group or not. Those of the cluster file come first.
    pub coordinators: Vec<(ServiceRef, Target)>,
    /// The world as users see it.
    pub runtime: Runtime,
    /// Asks services as a service does.
    pub peers: Transport,
    /// Decides what they do.
    pub random: Arc<dyn Random>,
    /// How far the run has come.
    pub stage: watch::Receiver<Stage>,
    /// What they do and see.
    pub history: History,
    /// What they do and see in transactions.
    pub journal: Journal,
    /// Where they complain.
    pub findings: Findings,
    /// How many times longer than their shortest their pauses are.
    pub pace: u32,
    /// What they may not complain about.
    pub weather: Weather,
    /// What the cluster began with.
    pub parameters: Parameters,
}

impl Scene {
    /// A gateway at random.
    #[must_use]
    pub fn any_gateway(&self) -> Gateway {
        self.gateways[self.below(self.gateways.len())].1.clone()
    }

    /// A coordinator at random. Which one leads, and which are members, is no matter of the caller's.
    #[must_use]
    pub fn any_coordinator(&self) -> Target {
        self.coordinators[self.below(self.coordinators.len())].1.clone()
    }

    /// A number below `bound`.
    #[must_use]
    pub fn below(&self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.random.next_u64() % bound).unwrap_or(0)
    }

    /// Whether users still work.
    #[must_use]
    pub fn is_working(&self) -> bool {
        *self.stage.borrow() <= Stage::Working
    }

    /// Waits for a stage.
    pub async fn until(&self, stage: Stage) {
        let mut stages = self.stage.clone();
        // The sender lives as long as the run.
        let _ = stages.wait_for(|now| *now >= stage).await;
    }

    /// Pauses for up to `most`, times the seed's pace.
    pub async fn pause(&self, most: Duration) {
        let most = most.saturating_mul(self.pace);
        let ms = usize::try_from(most.as_millis()).unwrap_or(usize::MAX);
        sleep(Duration::from_millis(self.below(ms) as u64)).await;
    }

    /// Simulated time.
    #[must_use]
    pub fn now(&self) -> Duration {
        now().unwrap_or_default()
    }
}
