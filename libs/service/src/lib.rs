//! The shell that every service lives in: its socket and connections, routes with their callers,
//! health, problem documents, the monitor stream, calls to other services, and its end.
//!
//! A service binds a [`Host`], takes the [`Context`] from it, spawns its tasks in the context's
//! scope, and runs with its [`Routes`] and its main future. Whatever happens to it, its end is an
//! [`Exit`] with a reason: it never ends the process that it runs in.
//!
//! Before a handler runs, a request has been checked: it is meant for this cluster and for this
//! process (`plinth-cluster`, `plinth-incarnation`), its caller is known, and the route lets that
//! caller in. Whether an epoch is stale is each service's own check.

mod announce;
mod budget;
mod caller;
mod conditional;
mod context;
mod directory;
mod docs;
mod document;
mod extract;
mod failure;
mod fields;
mod health;
mod host;
mod known;
mod monitor;
mod patient;
mod pool;
mod routes;
mod schemas;
mod secrets;
mod serve;
mod shell;
mod tagged;
mod transport;

pub use announce::{AnnouncedStore, announce};
pub use caller::{Caller, StateReads};
pub use conditional::{Condition, changed};
pub use context::Context;
pub use directory::{DIRECTORY_LEVEL, DirectoryError, Manifest, WorkerDirectory};
pub use document::{FENCED, Fails, LED, STORED, document_text};
pub use extract::{Body, Json, Query, SenderEpoch};
pub use failure::{Answer, Failure};
pub use health::ReleaseInfo;
pub use host::{Exit, Host, HostError, HostOptions, STOP_GRACE};
pub use known::KnownCoordinators;
pub use monitor::{MonitorEnd, watch};
pub use routes::Routes;
pub use secrets::{SECRET_MAX, SECRET_MIN, Secret, SecretError, Secrets};
pub use shell::RequestId;
pub use tagged::tagged;
pub use transport::{Sender, Transport};

/// Calls other services.
pub type Peers = plinth_api::Client<Transport>;

/// The largest body of a request, in bytes: a transaction of 10 MB in JSON, which makes four bytes of
/// three in base64, two of one quotation mark, and six of two where a client escapes all but ASCII.
pub const BODY_LIMIT: usize = 32 << 20;

/// The same between services: what a resolver is asked about a transaction names each key twice.
pub const SERVICE_BODY_LIMIT: usize = 3 * BODY_LIMIT;

/// Bytes of bodies that users' requests may hold at a time, in all, per service. Bodies of up to
/// [`SMALL_BODY`] are not counted: connections are bounded already.
pub const BODY_BUDGET: usize = 8 * BODY_LIMIT;

/// A body that counts for nothing, in bytes.
pub const SMALL_BODY: usize = 64 << 10;
