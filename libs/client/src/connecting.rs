//! Connecting from outside of the cluster.

use std::sync::Arc;
use std::time::Duration;

use plinth_api::coordinator::{BOOTSTRAP, PROCESSES, ProcessRow};
use plinth_api::{CallError, ErrorCode, Nothing, Target};
use plinth_runtime::{Runtime, Scope};
use plinth_service::{Peers, Secret, Secrets, Sender, Transport};
use plinth_types::{ServiceKind, ServiceName};
use tokio::time::sleep;

use crate::Database;
use crate::attempts::Deadline;

/// How long one gateway or coordinator is waited for before the next is asked.
const ASK: Duration = Duration::from_secs(1);
/// Between two rounds, while nobody answers.
const PAUSE: Duration = Duration::from_millis(50);

/// There is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// No address was given.
    #[error("name a gateway or a coordinator, such as http://localhost:4000")]
    NoAddress,
    /// Nobody said in time who the coordinators are.
    #[error("not connected within {within_ms} ms: {detail}")]
    Unreachable {
        /// The time given.
        within_ms: u64,
        /// What the last one that was asked said.
        detail: String,
    },
    /// The cluster does not let this program in.
    #[error("the cluster does not let this program in: {0}")]
    Refused(String),
}

impl Database {
    /// Connects to a cluster from a program that is no part of it. `urls` are of any gateways or
    /// coordinators, `http://host:port`; they tell who the coordinators are, and are not needed
    /// after that: who they are later on, the layout tells. The program talks to proxies and
    /// storages itself, so it must reach them, and prove itself by the cluster's `secret`; one
    /// without it goes through a gateway's HTTP.
    ///
    /// The connection lasts as long as the database or one of its clones.
    ///
    /// # Errors
    /// [`ConnectError::Refused`] where the secret is missing or not the cluster's;
    /// [`ConnectError::Unreachable`] after `within`.
    pub async fn connect(
        runtime: &Runtime,
        urls: &[impl AsRef<str>],
        secret: Option<Secret>,
        within: Duration,
    ) -> Result<Database, ConnectError> {
        let (scope, guard) = Scope::new();
        let secrets = Secrets { cluster: secret, administrator: None };
        let sender = Sender { service: None, secrets };
        let peers = Peers::new(Transport::new(runtime.clone(), scope.clone(), &sender));
        let contacts: Vec<Target> = urls.iter().map(|url| Target::address(url.as_ref())).collect();
        let coordinators = coordinators(&peers, &contacts, within).await?;
        for coordinator in &coordinators {
            may_enter(&peers, coordinator).await?;
        }
        let mut database = Database::new(runtime, &scope, peers, coordinators);
        database.connection = Some(Arc::new(guard));
        Ok(database)
    }
}

/// Asks one contact after the other who the coordinators are.
async fn coordinators(
    peers: &Peers,
    contacts: &[Target],
    within: Duration,
) -> Result<Vec<Target>, ConnectError> {
    let deadline = Deadline::after(within);
    let mut detail = None;
    loop {
        for contact in contacts {
            let limit = ASK.min(deadline.left());
            match peers.call(contact, &PROCESSES, &Nothing {}, None, limit).await {
                Ok(processes) => {
                    let found: Vec<Target> =
                        processes.processes.iter().filter_map(coordinator).collect();
                    if !found.is_empty() {
                        return Ok(found);
                    }
                    detail = Some(format!("{} knows no coordinator", contact.address));
                }
                Err(CallError::Problem(problem)) if !problem.retryable => {
                    return Err(ConnectError::Refused(problem.detail));
                }
                Err(error) => detail = Some(error.to_string()),
            }
        }
        let Some(why) = &detail else { return Err(ConnectError::NoAddress) };
        if deadline.left() <= PAUSE {
            let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
            return Err(ConnectError::Unreachable { within_ms, detail: why.clone() });
        }
        sleep(PAUSE).await;
    }
}

/// Asks what only services may ask, so that a wrong secret shows now and not as silence later. A
/// coordinator that does not answer says nothing about it.
async fn may_enter(peers: &Peers, coordinator: &Target) -> Result<(), ConnectError> {
    match peers.call(coordinator, &BOOTSTRAP, &Nothing {}, None, ASK).await {
        Err(CallError::Problem(problem))
            if matches!(problem.code, ErrorCode::Unauthenticated | ErrorCode::Forbidden) =>
        {
            Err(ConnectError::Refused(problem.detail))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn coordinator(row: &ProcessRow) -> Option<Target> {
    let name: ServiceName = row.service.parse().ok()?;
    (name.kind == ServiceKind::Coordinator).then(|| Target::address(&row.url))
}
