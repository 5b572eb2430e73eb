//! The gateway: the public API.
//!
//! It keeps no state: any number of gateways serve the same cluster, and a client may talk to any
//! of them. Reads are strictly serializable; a write is answered once it is committed, and where
//! its fate is not known the answer says so (`commit_unknown_result`). It refuses keys from `\xff` on,
//! which belong to the system.

mod cluster;
mod config;
mod http;
mod keys;

pub use config::Config;
pub use http::openapi;

use plinth_client::Database;
use plinth_service::{Exit, Host, announce};

/// Serves until it is asked to stop.
pub async fn serve(host: Host, config: Config) -> Exit {
    let context = host.context();
    if let Some(foreman) = config.foreman.clone() {
        announce(&context, foreman, None);
    }
    let database =
        Database::new(context.scope(), context.peers().clone(), config.coordinators.clone());
    let routes = http::routes().with_state(http::Gateway::new(context.clone(), database, config));
    let main = async move {
        context.stopping().await;
        Exit::clean()
    };
    host.run(routes, main).await
}
