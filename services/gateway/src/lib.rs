//! The gateway: the public API.
//!
//! It keeps no state but the interactive transactions that were begun at it: any number of gateways
//! serve the same cluster, and a client may talk to any of them. Reads are strictly serializable
//! unless the caller wants less. A write is answered once it is committed; where an attempt's fate
//! is not known it is settled by another one, so that a failure on the way is latency, and a write
//! takes effect once. Keys from `\xff` on belong to the system: the administrator may read them,
//! nobody writes them here.
//!
//! Requests for data that are under way, watches and interactive transactions are bounded in
//! number, and the latter in bytes, as are answers with many values; whoever comes beyond that waits
//! or is told to come again.

mod admission;
mod cluster;
mod config;
mod deleting;
mod execute;
mod forwarding;
mod http;
mod interactive;
mod keys;
mod members;
mod naming;
mod nodes;
mod ranges;
mod room;
mod sessions;
mod transactions;
mod values;
mod watching;

pub use config::Config;
pub use http::openapi;

use plinth_client::{Database, forget_outcomes};
use plinth_service::{Exit, Host, announce};

/// Serves until it is asked to stop.
pub async fn serve(host: Host, mut config: Config) -> Exit {
    let context = host.context();
    if let Some(foreman) = config.foreman.clone() {
        config.coordinators = config.coordinators.with_news(announce(&context, foreman, None));
    }
    let database = Database::new(
        context.runtime(),
        context.scope(),
        context.peers().clone(),
        config.coordinators.clone(),
    );
    forget_outcomes(context.scope(), database.clone());
    let routes = http::routes().with_state(http::Gateway::new(context.clone(), database, config));
    let main = async move {
        context.stopping().await;
        Exit::clean()
    };
    host.run(routes, main).await
}
