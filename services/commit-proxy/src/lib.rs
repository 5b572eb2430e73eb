//! The commit proxy: turns commits into batches, takes each batch through the pipeline, and serves
//! read versions.
//!
//! A batch asks the sequencer for its place in the order, has every resolver judge it, goes to
//! **every** log of the epoch, is reported to the sequencer, and only then are its clients
//! answered: whoever is told of a commit finds it below every read version asked for afterwards.
//! Batching is by load: a lone transaction goes at once; while a batch is on its way to the logs
//! the next one collects, and several may be with the logs.
//!
//! Each push carries what its proxy knows to be committed. When the last change's news has nothing
//! left to travel with, one empty batch carries it; an empty batch calls for no other.
//!
//! A read version is the sequencer's latest committed version, asked for at the same time as a
//! confirmation by every log that no newer epoch has locked it. A round serves only requests that
//! came before it began. So a proxy that has been deposed without knowing can't serve a stale one.
//!
//! Invariants: nothing is pushed that a resolver refused; nothing is answered as committed that one
//! log has not acknowledged; what a log may have been given and not every log acknowledged is
//! answered `commit_unknown_result`, never as a conflict and never as not committed.
//!
//! Where the director has set a rate, no more transactions begin than that: read versions are given
//! out, and commits that have asked for none are taken, at that rate. Whoever would wait for too
//! long is told to come again. The system transaction is exempt.
//!
//! It repairs nothing. A peer that is silent, refuses, or answers nonsense ends the process, which
//! names it: the versions handed out form a chain, and a hole in it can only be mended by the next
//! epoch.

mod calls;
mod command;
mod config;
mod driver;
mod faults;
mod http;
mod machine;
mod meters;
mod refusal;
mod throttle;
mod transaction;

pub use command::{Command, PeerFailure, Ticket, Work};
pub use config::{Config, Limits};
pub use machine::CommitProxy;
use plinth_service::{Exit, Host};
pub use refusal::Refusal;
pub use transaction::{Transaction, TransactionError};

use crate::driver::Handle;
use crate::meters::Meters;

/// What the endpoints look like.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    http::routes().openapi()
}

/// Serves until a peer of its epoch fails or it is asked to stop.
pub async fn serve(host: Host, config: Config) -> Exit {
    let context = host.context();
    let meters = match Meters::new(context.metrics()) {
        Ok(meters) => meters,
        Err(error) => return Exit::failure(format!("metrics: {error}")),
    };
    let (handle, events) = Handle::new();
    let routes = http::routes().with_state(handle);
    context.set_state("standby");
    if let Some(foreman) = config.foreman {
        plinth_service::announce(&context, foreman, None);
    }
    let main = {
        let context = context.clone();
        async move {
            let drive = driver::drive(context.clone(), config.limits, meters, events);
            tokio::select! {
                biased;
                () = context.stopping() => Exit::clean(),
                reason = drive => Exit::failure(reason),
            }
        }
    };
    host.run(routes, main).await
}
