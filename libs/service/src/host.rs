//! The life of a service: bound, serving, ended with a reason.

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use plinth_runtime::{Listener, Runtime, Scope, ScopeGuard};
use plinth_telemetry::{MetricError, Metrics};
use plinth_types::{ClusterId, Incarnation, Pid, ServiceRef};
use tokio::time::timeout;

use crate::caller::{StateIsOpen, StateReads};
use crate::context::{ClusterCell, Parts};
use crate::serve::serve;
use crate::{Context, Peers, Routes, Secrets, Sender, Transport};

/// The time that a service has to end by itself after it was asked to, where its main part waits
/// for [`Context::stopping`].
pub const STOP_GRACE: Duration = Duration::from_secs(5);
/// The time for open requests and the monitors' last lines to get out at the end.
const DRAIN: Duration = Duration::from_millis(250);

/// Who a service is and where it answers.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Which service.
    pub service: ServiceRef,
    /// `host:port` to listen at; port 0 takes a free one.
    pub bind: String,
    /// `host` or `host:port` at which others reach it; without one, where it listens.
    pub advertise: Option<String>,
    /// The cluster, where it is already known.
    pub cluster: Option<ClusterId>,
    /// What callers prove themselves with, and what this service proves itself with.
    pub secrets: Secrets,
}

/// A service could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The address can't be listened at.
    #[error("can't listen at {address}: {}", hint(.source))]
    Bind {
        /// `host:port`.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Others can't connect to "every address".
    #[error(
        "others can't reach {address}: say with --advertise under which name or address they can"
    )]
    Unreachable {
        /// The address that is listened at.
        address: String,
    },
    /// The metrics can't be set up.
    #[error("the metrics can't be set up")]
    Metrics(#[from] MetricError),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is in use by another process",
        io::ErrorKind::AddrNotAvailable => "the address is not one of this machine's",
        io::ErrorKind::PermissionDenied => "the port needs more rights than this process has",
        io::ErrorKind::InvalidInput => "it is not of the form host:port",
        _ => "the system refuses the address",
    }
}

/// How a service ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit status that a process of its own would have: 0 is well.
    pub status: u8,
    /// Why.
    pub reason: String,
}

impl Exit {
    /// The status of a panic.
    pub const PANIC: u8 = 101;

    /// It was asked to stop, or had nothing left to do.
    #[must_use]
    pub fn clean() -> Exit {
        Exit { status: 0, reason: "stopped".to_owned() }
    }

    /// It failed.
    #[must_use]
    pub fn failure(reason: impl Into<String>) -> Exit {
        Exit { status: 1, reason: reason.into() }
    }

    /// It was started wrongly: bad options, a foreign directory.
    #[must_use]
    pub fn usage(reason: impl Into<String>) -> Exit {
        Exit { status: 2, reason: reason.into() }
    }

    fn panic(task: &str, message: &str) -> Exit {
        Exit { status: Exit::PANIC, reason: format!("{task} panicked: {message}") }
    }
}

/// A service with its socket bound and its identity made. Dropping it ends everything in its scope.
pub struct Host {
    listener: Listener,
    context: Context,
    guard: ScopeGuard,
    state_reads: StateReads,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("pid", self.context.pid()).finish_non_exhaustive()
    }
}

impl Host {
    /// Binds the socket and makes the process' identity.
    ///
    /// # Errors
    /// The address can't be listened at, or nobody could connect to it.
    pub async fn bind(runtime: Runtime, options: HostOptions) -> Result<Host, HostError> {
        let HostOptions { service, bind, advertise, cluster, secrets } = options;
        let refused = |source| HostError::Bind { address: bind.clone(), source };
        let listener = runtime.network().bind(&bind).await.map_err(refused)?;
        let port = listener.local_addr().map_err(refused)?.port();
        let address = advertised(&bind, advertise.as_deref(), port)?;
        let pid = Pid {
            node: service.node.clone(),
            os_pid: runtime.process_id(),
            incarnation: Incarnation(runtime.random_u64()),
            address,
        };
        let (scope, guard) = Scope::new();
        let cluster = Arc::new(ClusterCell::new(cluster));
        let sender = Sender { service: Some(service.clone()), secrets: secrets.clone() };
        let transport =
            Transport::in_cluster(runtime.clone(), scope.clone(), &sender, Arc::clone(&cluster));
        let metrics = Metrics::new(&service)?;
        let peers = Peers::new(transport.clone());
        let parts =
            Parts { runtime, scope, service, pid, peers, transport, metrics, secrets, cluster };
        Ok(Host {
            listener,
            context: Context::new(parts),
            guard,
            state_reads: StateReads::default(),
        })
    }

    /// Says who may read the cluster's state, where [`StateReads::default`] does not suit.
    #[must_use]
    pub fn with_state_reads(mut self, reads: StateReads) -> Host {
        self.state_reads = reads;
        self
    }

    /// The service's surroundings.
    #[must_use]
    pub fn context(&self) -> Context {
        self.context.clone()
    }

    /// Serves until `main` returns, a task of the scope panics, or the service is asked to stop.
    /// Then says why to whoever monitors it, and drops everything in the scope.
    ///
    /// A request's handler is dropped where it stands when its caller goes away; what must be
    /// finished belongs to a task of the scope.
    pub async fn run(self, routes: Routes, main: impl Future<Output = Exit>) -> Exit {
        let Host { listener, context, guard, state_reads } = self;
        let open = listener.local_addr().is_ok_and(|address| state_reads.open(address.ip()));
        let exit = match routes.serve(context.clone(), StateIsOpen(open)) {
            Ok(router) => {
                let server = serve(&context, listener, router);
                let exit = until_exit(&context, main).await;
                context.set_exit_reason(exit.reason.clone());
                server.drain(DRAIN).await;
                exit
            }
            Err(error) => Exit::failure(format!("the metrics can't be set up: {error}")),
        };
        drop(guard);
        if exit.status == 0 {
            tracing::info!(service = %context.service(), reason = exit.reason, "ended");
        } else {
            tracing::error!(
                service = %context.service(),
                status = exit.status,
                reason = exit.reason,
                "ended",
            );
        }
        exit
    }
}

async fn until_exit(context: &Context, main: impl Future<Output = Exit>) -> Exit {
    let main = context.scope().enter(AssertUnwindSafe(main).catch_unwind());
    let mut main = std::pin::pin!(main);
    let ended = |result: Result<Exit, Box<dyn Any + Send>>| {
        result.unwrap_or_else(|panic| Exit::panic("the main task", &panic_message(&*panic)))
    };
    tokio::select! {
        biased;
        failure = context.scope().failed() => return Exit::panic(failure.task, &failure.message),
        result = &mut main => return ended(result),
        () = context.stop_requested() => {}
    }
    if !context.stop_is_awaited() {
        return Exit::clean();
    }
    tokio::select! {
        biased;
        failure = context.scope().failed() => Exit::panic(failure.task, &failure.message),
        result = timeout(STOP_GRACE, main) => match result {
            Ok(result) => ended(result),
            Err(_) => Exit::failure(format!(
                "stopping took longer than {} s and was cut short", STOP_GRACE.as_secs()
            )),
        },
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// Where others reach a service that listens at `bind`, whose port turned out to be `port`.
fn advertised(bind: &str, advertise: Option<&str>, port: u16) -> Result<String, HostError> {
    match advertise {
        Some(address) if has_port(address) => Ok(address.to_owned()),
        Some(host) => Ok(format!("{host}:{port}")),
        None => {
            let host = bind.rsplit_once(':').map_or(bind, |(host, _)| host);
            if matches!(host, "" | "0.0.0.0" | "[::]") {
                return Err(HostError::Unreachable { address: bind.to_owned() });
            }
            Ok(format!("{host}:{port}"))
        }
    }
}

/// A bare IPv6 address stands in brackets, so that its colons are not taken for a port's.
fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advertised_address_has_the_bound_port_unless_told_otherwise() {
        let address = |bind, advertise| advertised(bind, advertise, 7000).ok();
        assert_eq!(address("127.0.0.1:0", None).as_deref(), Some("127.0.0.1:7000"));
        assert_eq!(address("0.0.0.0:0", Some("log-1")).as_deref(), Some("log-1:7000"));
        assert_eq!(address("0.0.0.0:0", Some("proxy:80")).as_deref(), Some("proxy:80"));
        assert_eq!(address("[::1]:0", None).as_deref(), Some("[::1]:7000"));
        assert_eq!(address("0.0.0.0:7000", None), None);
        assert_eq!(address("[::]:7000", None), None);
    }
}
