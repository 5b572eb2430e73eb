//! One epoch of one director: what all its phases share.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use plinth_api::commit_proxy::Peer;
use plinth_api::director::Appointment;
use plinth_api::{CallError, Endpoint, Nothing, Target, coordinator};
use plinth_service::{Context, KnownCoordinators};
use plinth_system_config::{Parameters, RecoveryPhase, ShardMap};
use plinth_telemetry::{record_epoch, record_error, set_parent_from_traceparent, step_span};
use plinth_types::Epoch;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::Instrument as _;

use crate::changing::Orders;
use crate::config::{
    ASSIGN_LIMIT, BUSY_PAUSE, COORDINATOR_LIMIT, REGISTRY_PERIOD, REGISTRY_PERIOD_RECOVERING,
    RETRY, SUPERSEDED_PERIOD,
};
use crate::coordinators::Coordinators;
use crate::desk::Desk;
use crate::fatal::{Fatal, may_pass};
use crate::live::Live;
use crate::meters::{Meters, Step};
use crate::progress::Progress;
use crate::registry::Registry;

/// How long a director lingers before a phase, where a simulation wants it to.
const LINGER: Duration = Duration::from_millis(300);

/// An appointment as it was accepted.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) appointment: Appointment,
    /// The appointment request's trace, which the recovery goes on in.
    pub(crate) traceparent: Option<String>,
    pub(crate) trace_id: Option<String>,
    pub(crate) at: Instant,
    pub(crate) unix_ms: u64,
}

/// One epoch of one director. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reign {
    pub(crate) context: Context,
    pub(crate) epoch: Epoch,
    pub(crate) accepted: Arc<Accepted>,
    pub(crate) coordinators: Arc<Coordinators>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) live: Live,
    /// Changes of parameters that are asked for.
    pub(crate) orders: Orders,
    /// What a new cluster begins with.
    pub(crate) first_parameters: Arc<Parameters>,
    pub(crate) first_shards: Arc<ShardMap>,
    pub(crate) meters: Arc<Meters>,
    registry: watch::Receiver<Arc<Registry>>,
    /// The first failure of anything that runs beside the phases.
    failure: watch::Sender<Option<Fatal>>,
}

impl Reign {
    /// Begins the epoch: from now on the registry is followed.
    pub(crate) fn begin(
        context: Context,
        accepted: Accepted,
        coordinators: KnownCoordinators,
        first_parameters: Arc<Parameters>,
        desk: &Desk,
    ) -> Reign {
        let (progress, live) = (Arc::clone(&desk.progress), desk.live.clone());
        let epoch = accepted.appointment.epoch;
        context.set_epoch(epoch);
        progress.appointed(epoch);
        let coordinators = Arc::new(Coordinators::new(context.clone(), coordinators));
        let (nodes, registry) = watch::channel(Arc::default());
        let follow = follow(Arc::clone(&coordinators), epoch, nodes, live.clone());
        drop(context.scope().spawn("registry", follow));
        let accepted = Arc::new(accepted);
        let failure = watch::Sender::new(None);
        let meters = Arc::new(Meters::new(context.metrics()));
        let reign = Reign {
            context,
            epoch,
            accepted,
            coordinators,
            progress,
            live,
            meters,
            orders: desk.orders.clone(),
            first_parameters,
            first_shards: Arc::new(ShardMap::initial()),
            registry,
            failure,
        };
        drop(reign.context.scope().spawn("superseded", heed(reign.clone())));
        reign
    }

    /// Since the appointment.
    pub(crate) fn elapsed(&self) -> Duration {
        self.accepted.at.elapsed()
    }

    /// The registry of nodes, and word of its changes.
    pub(crate) fn registry(&self) -> watch::Receiver<Arc<Registry>> {
        self.registry.clone()
    }

    /// The registry as it was last seen.
    pub(crate) fn nodes(&self) -> Arc<Registry> {
        Arc::clone(&self.registry.borrow())
    }

    /// Ends the epoch. Only the first reason counts.
    pub(crate) fn fail(&self, fatal: Fatal) {
        self.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(fatal);
            }
            is_first
        });
    }

    /// Waits for something beside the phases to fail.
    pub(crate) async fn failed(&self) -> Fatal {
        let mut failure = self.failure.subscribe();
        loop {
            let first = failure.borrow_and_update().clone();
            if let Some(fatal) = first {
                return fatal;
            }
            if failure.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Goes through a phase, under its name in status, monitor stream, log and trace. Whatever
    /// fails beside it fails it.
    pub(crate) async fn phase<T>(
        &self,
        phase: RecoveryPhase,
        work: impl Future<Output = Result<T, Fatal>>,
    ) -> Result<T, Fatal> {
        let span = step_span(phase.as_str(), &self.context.service().to_string());
        if let Some(traceparent) = &self.accepted.traceparent {
            set_parent_from_traceparent(&span, traceparent);
        }
        record_epoch(&span, self.epoch.0);
        self.progress.enter(phase, self.elapsed());
        self.context.set_state(phase.as_str());
        tracing::info!(epoch = self.epoch.0, %phase, "recovery phase");
        let work = async {
            if self.context.runtime().fault("director.lingers") {
                sleep(LINGER).await;
            }
            work.await
        };
        let work = async {
            tokio::select! {
                biased;
                fatal = self.failed() => Err(fatal),
                result = work => result,
            }
        };
        let began = Instant::now();
        let result = work.instrument(span.clone()).await;
        self.progress.leave(self.elapsed());
        self.tell_end(phase, began.elapsed(), result.as_ref().err());
        result.map_err(|fatal| {
            record_error(&span, &fatal);
            Fatal { reason: format!("{phase}: {}", fatal.reason), ..fatal }
        })
    }

    /// Logs and counts that a phase is over, and what came of the system transaction.
    fn tell_end(&self, phase: RecoveryPhase, took: Duration, fatal: Option<&Fatal>) {
        let (epoch, took_ms) = (self.epoch.0, took.as_millis());
        self.meters.phase(phase, took, fatal.is_none());
        match fatal {
            None => tracing::info!(epoch, %phase, took_ms, "recovery phase is over"),
            Some(fatal) => {
                tracing::warn!(epoch, %phase, took_ms, reason = fatal.reason, "recovery phase has failed");
            }
        }
        if phase == RecoveryPhase::SystemTransaction {
            let step = if fatal.is_none() { Step::Succeeded } else { Step::Failed };
            self.meters.system_transaction(step);
            match fatal {
                None => tracing::info!(epoch, "system transaction succeeded"),
                Some(fatal) => {
                    tracing::error!(epoch, reason = fatal.reason, "system transaction failed");
                }
            }
        }
    }

    /// A rare path is taken.
    pub(crate) fn mark(&self, mark: impl fmt::Display) {
        self.context.runtime().mark(mark);
    }

    /// Shows why the phase waits, or that it goes on.
    pub(crate) fn stalled(&self, reason: Option<String>) {
        if let Some(phase) = self.progress.stall(reason.clone())
            && let Some(reason) = reason
        {
            self.mark(format_args!("director.stalled.{phase}"));
            tracing::warn!(epoch = self.epoch.0, reason, "recovery is stalled");
        }
    }

    /// Calls a component or storage of the epoch.
    pub(crate) async fn call<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        peer: &Peer,
        endpoint: Endpoint<Req, Resp>,
        request: &Req,
        limit: Duration,
    ) -> Result<Resp, CallError> {
        self.ask(peer, &endpoint, request, limit).await
    }

    async fn ask<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        peer: &Peer,
        endpoint: &Endpoint<Req, Resp>,
        request: &Req,
        limit: Duration,
    ) -> Result<Resp, CallError> {
        let target = Target::from(&peer.pid);
        self.context.peers().call(&target, endpoint, request, Some(self.epoch), limit).await
    }

    /// Calls a component that the epoch can't do without, and again for up to [`ASSIGN_LIMIT`] while
    /// it is not ready for it: a worker that has just been started counts as up before its store is
    /// open. The request must be one that may be repeated.
    pub(crate) async fn tell<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        peer: &Peer,
        doing: &str,
        endpoint: Endpoint<Req, Resp>,
        request: &Req,
        limit: Duration,
    ) -> Result<Resp, Fatal> {
        let deadline = Instant::now() + limit.min(ASSIGN_LIMIT);
        let mut pause = BUSY_PAUSE;
        loop {
            match self.ask(peer, &endpoint, request, limit).await {
                Err(error) if may_pass(&error) && Instant::now() + pause < deadline => {
                    tracing::info!(service = %peer.service, %error, "{doing} has to wait");
                    sleep(pause).await;
                    pause = (2 * pause).min(RETRY);
                }
                answer => return answer.map_err(|error| Fatal::call(peer, doing, &error)),
            }
        }
    }

    /// Calls a component that the epoch can't do without, once.
    pub(crate) async fn tell_once<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        peer: &Peer,
        doing: &str,
        endpoint: Endpoint<Req, Resp>,
        request: &Req,
        limit: Duration,
    ) -> Result<Resp, Fatal> {
        self.call(peer, endpoint, request, limit)
            .await
            .map_err(|error| Fatal::call(peer, doing, &error))
    }
}

/// Hears of a later epoch while this one recovers. A recovery that waits for what is not there would
/// otherwise wait for ever, and its director could not be appointed again.
async fn heed(reign: Reign) {
    while !reign.live.accepts_commits() {
        sleep(SUPERSEDED_PERIOD).await;
        let epoch = reign.epoch;
        let told =
            reign.coordinators.call(coordinator::STATUS, &Nothing {}, epoch, COORDINATOR_LIMIT);
        if let Ok(status) = told.await
            && status.epoch > epoch
        {
            let later = format_args!("epoch {} has begun", status.epoch).to_string();
            return reign.fail(Fatal::superseded(later));
        }
    }
}

/// Follows the coordinators' registry of nodes.
async fn follow(
    coordinators: Arc<Coordinators>,
    epoch: Epoch,
    nodes: watch::Sender<Arc<Registry>>,
    live: Live,
) {
    let layout = live.subscribe();
    loop {
        match coordinators.call(coordinator::NODES, &Nothing {}, epoch, COORDINATOR_LIMIT).await {
            Ok(answer) => {
                let registry = Registry::new(answer.nodes);
                nodes.send_if_modified(|known| {
                    let changed = **known != registry;
                    *known = Arc::new(registry);
                    changed
                });
            }
            Err(error) => {
                tracing::debug!(%error, "no coordinator tells the nodes");
                sleep(RETRY).await;
            }
        }
        let is_ready = layout.borrow().as_ref().is_some_and(|live| live.accepting_commits);
        sleep(if is_ready { REGISTRY_PERIOD } else { REGISTRY_PERIOD_RECOVERING }).await;
    }
}
