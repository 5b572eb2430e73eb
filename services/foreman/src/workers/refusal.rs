//! What a foreman refuses, and how the wire says it.

use plinth_api::ErrorCode;
use plinth_types::{Epoch, NodeId, ServiceKind, ServiceName, StoreId};

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is meant for another node's foreman.
    #[error(
        "{name} announces itself on {node}, and this foreman is {here}'s; point --foreman to the foreman of {node}"
    )]
    OtherNode {
        /// Who.
        name: ServiceName,
        /// The node it is on.
        node: NodeId,
        /// This node.
        here: NodeId,
    },
    /// Another directory has the name.
    #[error(
        "{name} of this node is store {known}, and not {given}; give the new worker another number, or put the old directory back"
    )]
    OtherStore {
        /// The name.
        name: ServiceName,
        /// The store that has it.
        known: StoreId,
        /// The store that wants it.
        given: StoreId,
    },
    /// Another living process has the name.
    #[error(
        "{name} of this node already runs as another process; give the new worker another number, or end the other first"
    )]
    OtherProcess {
        /// The name.
        name: ServiceName,
    },
    /// A director of an epoch that is over asks.
    #[error("epoch {given} is over, the latest is {latest}")]
    StaleEpoch {
        /// Whose epoch.
        given: Epoch,
        /// The latest.
        latest: Epoch,
    },
    /// This foreman can't make such workers.
    #[error("the foreman of {node} does not make workers of kind {kind}")]
    KindNotMade {
        /// The kind.
        kind: ServiceKind,
        /// The node.
        node: NodeId,
    },
    /// The cluster is not founded yet, as far as this node knows.
    #[error(
        "this node has not yet written down which cluster it belongs to; a durable worker is made once it has"
    )]
    NoCluster,
    /// No such worker.
    #[error("there is no worker {name} on {node}")]
    Unknown {
        /// The name.
        name: ServiceName,
        /// The node.
        node: NodeId,
    },
    /// A durable worker's directory may hold the last copy of something.
    #[error(
        "{name} is durable: it can't be removed before the recorded layout is known not to name it"
    )]
    Durable {
        /// The name.
        name: ServiceName,
    },
    /// Another directory has the name than the one that is to go.
    #[error("{name} of this node is not store {given}")]
    NotThisStore {
        /// The name.
        name: ServiceName,
        /// The store that is asked for.
        given: StoreId,
    },
    /// The recorded layout names the directory, or none is recorded.
    #[error("{name} can't be removed: the recorded layout may need its store {store}")]
    Named {
        /// The name.
        name: ServiceName,
        /// Its store.
        store: StoreId,
    },
    /// Whether a directory is needed, the coordinators did not say.
    #[error(
        "{name} can't be removed before a coordinator tells that the layout does not name it: {detail}"
    )]
    NoCoordinator {
        /// The name.
        name: ServiceName,
        /// What the last one said.
        detail: String,
    },
    /// It runs.
    #[error("{name} still runs")]
    Running {
        /// The name.
        name: ServiceName,
    },
    /// Something else started it, and must end it.
    #[error("{name} was not started by this foreman; end it where it was started")]
    Foreign {
        /// The name.
        name: ServiceName,
    },
    /// The foreman is ending.
    #[error("the foreman is stopping")]
    Stopping,
}

impl Refusal {
    /// The problem code that carries it.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Refusal::OtherNode { .. } | Refusal::KindNotMade { .. } => ErrorCode::InvalidRequest,
            Refusal::OtherStore { .. }
            | Refusal::OtherProcess { .. }
            | Refusal::NotThisStore { .. } => ErrorCode::DuplicateName,
            Refusal::StaleEpoch { .. } => ErrorCode::StaleEpoch,
            Refusal::NoCluster
            | Refusal::Stopping
            | Refusal::NoCoordinator { .. }
            | Refusal::Running { .. } => ErrorCode::NotReady,
            Refusal::Unknown { .. } => ErrorCode::NotFound,
            Refusal::Durable { .. } => ErrorCode::NotImplemented,
            Refusal::Foreign { .. } | Refusal::Named { .. } => ErrorCode::Forbidden,
        }
    }
}
