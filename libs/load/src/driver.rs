//! Connections that send, each a task.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use plinth_runtime::{Runtime, Scope, ScopeGuard};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::cpu::CpuMeter;
use crate::protocol::Payload;
use crate::recorder::Recorder;
use crate::workload::Workload;
use crate::{Amount, Load, LoadError, Pace, Protocol, Report, Request, Verdict};

/// The pause before a connection that was lost or refused is tried again.
const RECONNECT: Duration = Duration::from_millis(5);
/// The code of a request that got no connection, or lost it.
const CONNECTION: &str = "connection";
/// The code of a request that was not answered in time.
const TIMEOUT: &str = "timeout";

/// What all connections share.
struct Shared {
    load: Load,
    runtime: Runtime,
    payload: Payload,
    recorder: Mutex<Recorder>,
    begun: Instant,
    /// The number of the next request.
    next: AtomicU64,
    finished: Notify,
}

impl Shared {
    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the next request is due: none once there have been enough.
    fn next_due(&self) -> Option<Instant> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if let Amount::Requests(most) = self.load.amount
            && number >= most
        {
            return None;
        }
        match self.load.pace {
            Pace::Closed => Some(Instant::now()),
            #[expect(clippy::cast_precision_loss, reason = "requests stay far below 2^53")]
            Pace::Open(rate) => Some(self.begun + Duration::from_secs_f64(number as f64 / rate)),
        }
    }

    fn is_finished(&self) -> bool {
        match self.load.amount {
            Amount::Time(_) => false,
            Amount::Requests(most) => {
                let recorder = self.recorder();
                recorder.answered >= most
            }
        }
    }
}

/// A load that is being driven. Dropping it ends it.
pub struct Driving {
    shared: Arc<Shared>,
    servers: CpuMeter,
    generator: CpuMeter,
    _guard: ScopeGuard,
}

/// Begins to drive a load.
///
/// # Errors
/// The load is out of its bounds.
pub fn start(runtime: &Runtime, load: Load) -> Result<Driving, LoadError> {
    let addresses = load.check()?;
    let workloads = Workload::of_connections(&load)?;
    let mut random = ChaCha8Rng::seed_from_u64(load.seed);
    let payload = Payload::new(load.value_size, || random.random());
    let now = Instant::now();
    let servers = CpuMeter::start(&load.server_processes);
    let shared = Arc::new(Shared {
        load,
        runtime: runtime.clone(),
        payload,
        recorder: Mutex::new(Recorder::new(now)),
        begun: now,
        next: AtomicU64::new(0),
        finished: Notify::new(),
    });
    let (scope, guard) = Scope::new();
    for (address, workload) in addresses.iter().cycle().zip(workloads) {
        let sender = Sender {
            shared: Arc::clone(&shared),
            scope: scope.clone(),
            address: address.clone(),
            host: HeaderValue::try_from(address).ok(),
            connection: None,
        };
        drop(scope.spawn("sending", sender.run(workload)));
    }
    let generator = CpuMeter::start(&[std::process::id()]);
    Ok(Driving { shared, servers, generator, _guard: guard })
}

/// Drives a load to its end.
///
/// # Errors
/// The load is out of its bounds.
pub async fn drive(runtime: &Runtime, load: Load) -> Result<Report, LoadError> {
    let (warm_up, amount) = (load.warm_up, load.amount);
    let mut driving = start(runtime, load)?;
    if !warm_up.is_zero() {
        sleep(warm_up).await;
        driving.reset();
    }
    match amount {
        Amount::Time(time) => sleep(time).await,
        Amount::Requests(_) => driving.shared.finished.notified().await,
    }
    Ok(driving.report())
}

impl Driving {
    /// Forgets what was measured so far and begins anew.
    pub fn reset(&mut self) {
        self.shared.recorder().reset(Instant::now());
        self.servers = CpuMeter::start(&self.shared.load.server_processes);
        self.generator = CpuMeter::start(&[std::process::id()]);
    }

    /// How many requests have succeeded since the start or the last reset.
    #[must_use]
    pub fn succeeded(&self) -> u64 {
        self.shared.recorder().operations.values().map(|counts| counts.latencies.len()).sum()
    }

    /// The longest time without a success since then, up to now.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        self.shared.recorder().longest_gap(Instant::now())
    }

    /// What it came to since then.
    pub fn report(&mut self) -> Report {
        let (generator, servers) = (self.generator.read(), self.servers.read());
        let recorder = self.shared.recorder();
        Report::of(self.shared.load.clone(), &recorder, Instant::now(), generator, servers)
    }
}

type Connection = http1::SendRequest<Full<Bytes>>;

/// One connection's work.
struct Sender {
    shared: Arc<Shared>,
    scope: Scope,
    address: String,
    host: Option<HeaderValue>,
    connection: Option<Connection>,
}

impl Sender {
    async fn run(mut self, mut workload: Workload) {
        while let Some(due) = self.shared.next_due() {
            if due > Instant::now() {
                sleep_until(due).await;
            }
            let (operation, key) = workload.next();
            let Shared { load, payload, .. } = &*self.shared;
            let protocol = load.protocol;
            let request = protocol.request(operation, key, payload);
            self.shared.recorder().sent();
            let verdict =
                match timeout(load.timeout, self.exchange(protocol, operation, request)).await {
                    Ok(Ok(verdict)) => verdict,
                    Ok(Err(())) => Verdict::Failed(CONNECTION.to_owned()),
                    Err(_) => Verdict::Failed(TIMEOUT.to_owned()),
                };
            let now = Instant::now();
            let lost = match verdict {
                Verdict::Done => {
                    self.shared.recorder().succeeded(operation, now - due, now);
                    false
                }
                Verdict::Failed(code) => {
                    let lost = code == CONNECTION || code == TIMEOUT;
                    self.shared.recorder().failed(operation, code);
                    lost
                }
            };
            if self.shared.is_finished() {
                self.shared.finished.notify_one();
            }
            if lost {
                self.connection = None;
                sleep(RECONNECT).await;
            }
        }
    }

    /// One request on this connection, made where there is none.
    async fn exchange(
        &mut self,
        protocol: Protocol,
        operation: crate::Operation,
        request: Request,
    ) -> Result<Verdict, ()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        connection.ready().await.map_err(drop)?;
        let answer = connection.send_request(self.message(request)?).await.map_err(drop)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(drop)?.to_bytes();
        self.connection = Some(connection);
        Ok(protocol.verdict(operation, status, &body))
    }

    fn message(&self, request: Request) -> Result<http::Request<Full<Bytes>>, ()> {
        let mut message = http::Request::new(Full::new(request.body));
        *message.method_mut() = request.method;
        *message.uri_mut() = request.path.parse().map_err(drop)?;
        let headers = message.headers_mut();
        if let Some(host) = &self.host {
            headers.insert(header::HOST, host.clone());
        }
        if let Some(kind) = request.content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        Ok(message)
    }

    async fn connect(&self) -> Result<Connection, ()> {
        let network = self.shared.runtime.network();
        let stream = network.connect(&self.address).await.map_err(drop)?;
        let (connection, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(drop)?;
        let driver = async move {
            // Whoever waits for the answer hears of the error.
            let _ = driver.await;
        };
        drop(self.scope.spawn("connection", driver));
        Ok(connection)
    }
}
