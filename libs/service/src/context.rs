//! What a service's code can reach: the runtime, its own identity, its peers, and what it shows of
//! itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use plinth_api::common::{Check, Info, MonitorLine, Readiness};
use plinth_runtime::{Runtime, Scope};
use plinth_telemetry::Metrics;
use plinth_types::{ClusterId, Epoch, Pid, ServiceRef, Version};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::{Peers, Secrets, Transport};

/// Monitor streams that a service serves at a time.
const MONITOR_LIMIT: usize = 512;

/// The cluster that a service belongs to, once it is known.
#[derive(Debug, Default)]
pub(crate) struct ClusterCell(RwLock<Option<ClusterId>>);

impl ClusterCell {
    pub(crate) fn new(cluster: Option<ClusterId>) -> Self {
        ClusterCell(RwLock::new(cluster))
    }

    pub(crate) fn get(&self) -> Option<ClusterId> {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, cluster: ClusterId) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(cluster);
    }
}

/// A service's surroundings. Cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    scope: Scope,
    service: ServiceRef,
    pid: Pid,
    peers: Peers,
    transport: Transport,
    metrics: Metrics,
    secrets: Secrets,
    cluster: Arc<ClusterCell>,
    started: Instant,
    line: watch::Sender<MonitorLine>,
    version: AtomicU64,
    checks: Mutex<BTreeMap<&'static str, Result<(), String>>>,
    stop: watch::Sender<bool>,
    stop_is_awaited: AtomicBool,
    monitors: Arc<Semaphore>,
}

/// What a context is made of.
pub(crate) struct Parts {
    pub(crate) runtime: Runtime,
    pub(crate) scope: Scope,
    pub(crate) service: ServiceRef,
    pub(crate) pid: Pid,
    pub(crate) peers: Peers,
    pub(crate) transport: Transport,
    pub(crate) metrics: Metrics,
    pub(crate) secrets: Secrets,
    pub(crate) cluster: Arc<ClusterCell>,
}

impl Context {
    pub(crate) fn new(parts: Parts) -> Context {
        let Parts { runtime, scope, service, pid, peers, transport, metrics, secrets, cluster } =
            parts;
        let line = MonitorLine { epoch: Epoch::ZERO, state: "starting".to_owned(), exit: None };
        Context(Arc::new(Inner {
            runtime,
            scope,
            service,
            pid,
            peers,
            transport,
            metrics,
            secrets,
            cluster,
            started: Instant::now(),
            line: watch::Sender::new(line),
            version: AtomicU64::new(0),
            checks: Mutex::default(),
            stop: watch::Sender::new(false),
            stop_is_awaited: AtomicBool::new(false),
            monitors: Arc::new(Semaphore::new(MONITOR_LIMIT)),
        }))
    }

    /// The world.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }

    /// Where the service spawns its tasks. They die with it; a panic in one of them ends it.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.0.scope
    }

    /// Which service this is.
    #[must_use]
    pub fn service(&self) -> &ServiceRef {
        &self.0.service
    }

    /// Which process this is.
    #[must_use]
    pub fn pid(&self) -> &Pid {
        &self.0.pid
    }

    /// Calls other services.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.0.peers
    }

    /// The service's metrics, shown at `/metrics`.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The cluster, once it is known.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.0.cluster.get()
    }

    /// Makes the cluster known: from now on requests bear it, and those of another are refused.
    pub fn set_cluster(&self, cluster: ClusterId) {
        self.0.cluster.set(cluster);
    }

    /// The epoch that the service acts in; 0 outside of one.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.0.line.borrow().epoch
    }

    /// Sets the epoch that `/v1/info`, the monitor stream and spans show.
    pub fn set_epoch(&self, epoch: Epoch) {
        self.0.line.send_if_modified(|line| {
            let changed = line.epoch != epoch;
            line.epoch = epoch;
            changed
        });
    }

    /// What the service says it is doing.
    #[must_use]
    pub fn state(&self) -> String {
        self.0.line.borrow().state.clone()
    }

    /// Says what the service is doing, such as a recovery phase. Monitors hear of it at once.
    pub fn set_state(&self, state: impl Into<String>) {
        let state = state.into();
        self.0.line.send_if_modified(|line| {
            let changed = line.state != state;
            line.state = state;
            changed
        });
    }

    /// Sets the newest commit version that the service knows, shown by `/v1/info`.
    pub fn set_version(&self, version: Version) {
        self.0.version.store(version.0, Ordering::Relaxed);
    }

    /// Sets a named check of `/readyz`; the error says why it does not hold. The service is ready
    /// when every check holds.
    pub fn set_check(&self, name: &'static str, result: Result<(), String>) {
        self.0.checks.lock().unwrap_or_else(PoisonError::into_inner).insert(name, result);
    }

    /// Waits until the service is asked to stop. Whoever waits for it is given
    /// [`crate::STOP_GRACE`] to end by itself; where nobody does, the service ends at once.
    pub async fn stopping(&self) {
        self.0.stop_is_awaited.store(true, Ordering::Relaxed);
        self.stop_requested().await;
    }

    pub(crate) async fn stop_requested(&self) {
        let mut stop = self.0.stop.subscribe();
        // The sender lives as long as this borrow, so the wait can't fail.
        let _ = stop.wait_for(|asked| *asked).await;
    }

    /// Asks the service to stop.
    pub fn request_stop(&self) {
        self.0.stop.send_replace(true);
    }

    /// Sends the last line of the monitor streams, with the reason, and ends them. Only the first
    /// reason counts.
    pub fn set_exit_reason(&self, reason: impl Into<String>) {
        self.0.line.send_if_modified(|line| {
            let first = line.exit.is_none();
            if first {
                line.exit = Some(reason.into());
            }
            first
        });
    }

    /// Who this is and where it stands, as `/v1/info` tells it.
    #[must_use]
    pub fn info(&self) -> Info {
        let version = self.0.version.load(Ordering::Relaxed);
        Info {
            service: self.0.service.clone(),
            node: self.0.service.node.clone(),
            pid: self.0.pid.clone(),
            epoch: self.epoch(),
            version: (version > 0).then_some(Version(version)),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The checks, as `/readyz` tells them.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let checks: Vec<Check> = self
            .0
            .checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(name, result)| Check {
                name: (*name).to_owned(),
                ok: result.is_ok(),
                detail: result.as_ref().err().cloned(),
            })
            .collect();
        Readiness { ready: checks.iter().all(|check| check.ok), checks }
    }

    /// Sends requests whose answers stream, or that no endpoint describes.
    #[must_use]
    pub fn transport(&self) -> &Transport {
        &self.0.transport
    }

    pub(crate) fn secrets(&self) -> &Secrets {
        &self.0.secrets
    }

    pub(crate) fn lines(&self) -> watch::Receiver<MonitorLine> {
        self.0.line.subscribe()
    }

    pub(crate) fn monitors(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.monitors)
    }

    /// Whether the service has ever waited for [`Context::stopping`].
    pub(crate) fn stop_is_awaited(&self) -> bool {
        self.0.stop_is_awaited.load(Ordering::Relaxed)
    }
}
