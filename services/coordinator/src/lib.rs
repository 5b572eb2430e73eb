//! The coordinator: holds the epoch and the recorded layout, in Raft; its leader appoints the
//! director and watches it.
//!
//! - Every appointment is a fresh epoch, durable in a majority before the director hears of it.
//! - A layout is recorded only by the latest appointed director, on top of the one it has read.
//! - A configuration is never replaced by an older one, and defaults never replace any.
//! - A vote, an entry, a promise is durable before it is answered; who has lost its votes never
//!   votes again under the same identity.
//!
//! What it starts from is decided by [`plinth_system_config::bootstrap`], from what this crate
//! gathers. It repairs nothing and recovers nothing: that is the director's.

mod backoff;
mod ballots;
mod belonging;
mod bootstrap;
mod config;
mod contacts;
mod founding;
mod health;
mod http;
mod inputs;
mod leader;
mod members;
mod membership;
mod meters;
mod node;
mod raft;
mod records;
mod recovering;
mod registry;
mod state;

use std::sync::Arc;

use plinth_service::{Exit, Host, WorkerDirectory, announce};
use plinth_store::Disk;
use tokio::sync::mpsc;

use crate::node::Node;
use crate::records::{Records, TABLES};

pub use config::{ClusterFile, Config, CoordinatorAddress};

/// What the leader's task may have to do at a time.
const EVENTS: usize = 64;

/// The document of the coordinator's API.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    http::routes().openapi()
}

/// Runs a coordinator until it is asked to stop or something ends it.
pub async fn serve(host: Host, config: Config, disk: Arc<dyn Disk>) -> Exit {
    let context = host.context();
    if let Err(fault) = config.cluster.check(context.service()) {
        return Exit::usage(fault);
    }
    let Config { directory, cluster, foreman } = config;
    context.set_cluster(cluster.cluster_id);
    let opened = WorkerDirectory::open_or_create(
        &*disk,
        directory,
        Some(cluster.cluster_id),
        context.service(),
        context.runtime(),
    );
    let directory = match opened {
        Ok(directory) => directory,
        Err(error) => return error.exit(),
    };
    let store = match disk.open(&directory.store_path(), TABLES).await {
        Ok(store) => store,
        Err(error) => return Exit::failure(error.to_string()),
    };
    let records = match Records::open(store, context.runtime()).await {
        Ok(records) => records,
        Err(error) => return Exit::failure(error.to_string()),
    };
    if let Some(foreman) = foreman.clone() {
        drop(announce(&context, foreman, Some(directory.manifest().store)));
    }
    context.set_check("bootstrap", Err("not decided".to_owned()));
    let (events, received) = mpsc::channel(EVENTS);
    let node = Node::new(context.clone(), cluster, foreman, records, events);
    let routes = http::routes().with_state(Arc::clone(&node));
    let main = async move {
        let started = {
            let records = node.records.lock().await;
            node.activate(&records).await
        };
        if let Err(error) = started {
            return Exit::failure(error);
        }
        drop(context.scope().spawn("bootstrap", bootstrap::run(Arc::clone(&node))));
        drop(context.scope().spawn("leader", leader::run(Arc::clone(&node), received)));
        let exit = tokio::select! {
            biased;
            reason = node.broken() => Exit::failure(reason),
            () = context.stopping() => Exit::clean(),
        };
        // Held until here, so that no other process takes the directory while this one lives.
        drop(directory);
        exit
    };
    host.run(routes, main).await
}
