//! What the handlers share, and the routes together.

use std::sync::Arc;
use std::time::Duration;

use plinth_api::gateway::WatchEvent;
use plinth_client::Database;
use plinth_service::{Context, Failure, Routes};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::openapi::{HttpMethod, PathItem};
use utoipa::{PartialSchema as _, ToSchema as _};

use crate::room::{Room, Taken};
use crate::sessions::{Bounds, Sessions};
use crate::{Config, cluster, interactive, members, nodes, transactions, values, watching};

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Gateway(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) context: Context,
    pub(crate) database: Database,
    pub(crate) config: Config,
    sessions: Sessions,
    places: Arc<Semaphore>,
    watch_places: Arc<Semaphore>,
    answers: Room,
    /// Apart, so that two gateways that pass requests on to each other don't wait for each other.
    forwarded: Room,
}

impl Gateway {
    pub(crate) fn new(context: Context, database: Database, config: Config) -> Gateway {
        let places = Arc::new(Semaphore::new(config.requests));
        let watch_places = Arc::new(Semaphore::new(config.watches));
        let sessions = Sessions::new(Bounds {
            transactions: config.transactions,
            bytes: config.transaction_bytes,
        });
        let (answers, forwarded) = (Room::new(config.answer_bytes), Room::new(config.answer_bytes));
        Gateway(Arc::new(Inner {
            context,
            database,
            config,
            sessions,
            places,
            watch_places,
            answers,
            forwarded,
        }))
    }

    pub(crate) fn context(&self) -> &Context {
        &self.0.context
    }

    pub(crate) fn database(&self) -> &Database {
        &self.0.database
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.0.config.deadline
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// A place among the requests for data that are under way; none if there are too many.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.places).try_acquire_owned().ok()
    }

    /// Room for an answer of so many bytes of keys and values at most.
    pub(crate) async fn room(&self, bytes: usize) -> Result<Taken, Failure> {
        self.0.answers.take(bytes, self.deadline()).await
    }

    /// Room for an answer that another gateway gives.
    pub(crate) async fn room_to_forward(&self, bytes: usize) -> Result<Taken, Failure> {
        self.0.forwarded.take(bytes, self.deadline()).await
    }

    /// A place among the watches that wait.
    pub(crate) fn watch_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.watch_places).try_acquire_owned().ok()
    }
}

/// The routes of the public API.
pub(crate) fn routes() -> Routes<Gateway> {
    let description = "The public API: keys, transactions, and the state of the cluster.";
    Routes::new()
        .describe("Plinth gateway", description)
        .browsable()
        .merge(values::routes())
        .merge(transactions::routes())
        .merge(interactive::routes())
        .merge(cluster::routes())
        .merge(nodes::routes())
        .merge(members::routes())
        .document(with_suffixes)
}

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().openapi()
}

/// The router can't tell what follows "the rest of the path": `/atomic` and `/watch` are paths of
/// their own in the document.
fn with_suffixes(document: &mut utoipa::openapi::OpenApi) {
    let Some(item) = document.paths.paths.get_mut("/v1/keys/{*key}") else { return };
    let post = item.post.take();
    let watch = item.get.as_mut().map(watching::operation);
    // No handler names it: the two forms of an answer share one.
    let schemas = &mut document.components.get_or_insert_default().schemas;
    schemas.insert(WatchEvent::name().into_owned(), WatchEvent::schema());
    for (suffix, method, operation) in
        [("atomic", HttpMethod::Post, post), ("watch", HttpMethod::Get, watch)]
    {
        if let Some(operation) = operation {
            let item = PathItem::new(method, operation);
            document.paths.paths.insert(format!("/v1/keys/{{key}}/{suffix}"), item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_every_route_in_openapis_own_form() {
        let document = openapi();
        let paths: Vec<&str> = document.paths.paths.keys().map(String::as_str).collect();
        for path in [
            "/v1/keys/{key}",
            "/v1/keys/{key}/atomic",
            "/v1/keys/{key}/watch",
            "/v1/keys",
            "/v1/read_version",
            "/v1/transactions",
            "/v1/transactions/{id}/keys/{key}",
            "/v1/transactions/{id}/keys",
            "/v1/status",
            "/v1/layout",
        ] {
            assert!(paths.contains(&path), "{path} is missing from {paths:?}");
        }
    }
}
