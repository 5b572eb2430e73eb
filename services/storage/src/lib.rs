//! The storage: applies the logs' streams of its tags, and serves reads at a version.
//!
//! For each tag that it is assigned it pulls the tag's mutations from one of the epoch's logs that
//! hold it, in order, going to the next log when one fails. The newest versions live in memory, as
//! long as the window says and until they are durable; the store below holds one version of every
//! key, always one that is known to be committed, together with the (epoch, version) that it is. A
//! tag that is durable further than before is popped from every log that holds it.
//!
//! The system shard has a tag and a table of its own. Its changes are made durable at once, since a
//! recovery waits for them; user data follows within a fraction of a second.
//!
//! Invariants:
//!
//! - what is durable was known to be committed, so no recovery version is ever below it. A storage
//!   that finds otherwise stops and says so;
//! - a new epoch begins with what is known to be committed: everything else in memory is dropped
//!   and pulled again, since a recovery may have dropped it too;
//! - no version between a recovery version and the epoch's first one is served;
//! - a read at a version sees every change up to it and none above it, whatever has become durable
//!   meanwhile;
//! - a log is told to drop only what is durable here;
//! - a kept configuration is never replaced by an older one;
//! - a part of a copy is never taken for a whole one, whatever happens while it is taken, and
//!   nothing of it is read: [`copying`] has the argument.
//!
//! A storage that joins a team takes a copy from the members that its assignment names, and gives
//! copies to others. It decides neither: who is a member, the director says. A member that needs what
//! every log has dropped says so in `/readyz` and goes on asking.

mod batching;
mod config;
pub mod copying;
mod driver;
mod fetching;
mod http;
mod meters;
mod opening;
pub mod paging;
mod pulling;
mod reading;
pub mod records;
mod refusal;
pub mod stream;
mod waiting;
mod watching;
pub mod window;

use std::sync::Arc;

pub use config::{Config, Limits};
use plinth_service::{Exit, Host};
use plinth_store::Disk;
pub use refusal::{Breach, Refusal};
use tokio::sync::mpsc;

use crate::http::Handle;

/// What the endpoints look like.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    http::routes().openapi()
}

/// Serves until it is asked to stop, or until its disk fails.
pub async fn serve(host: Host, config: Config, disk: Arc<dyn Disk>) -> Exit {
    let context = host.context();
    let (sender, mut commands) = mpsc::channel(config.limits.commands);
    let routes = http::routes().with_state(Handle(sender.clone()));
    let main = async move {
        let work = opening::run(context.clone(), config, disk, sender, &mut commands);
        tokio::select! {
            biased;
            () = context.stopping() => Exit::clean(),
            exit = work => exit,
        }
    };
    host.run(routes, main).await
}
