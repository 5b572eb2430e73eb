//! Orders about nodes: the same on a gateway, a coordinator and the director.

use plinth_system_config::{Recorded, Standing, StandingError};
use plinth_types::{ConfigVersion, Epoch, NodeId, ServiceRef};
use serde::{Deserialize, Serialize};

use crate::config::PatchState;
use crate::{Endpoint, ErrorCode, Problem};

/// Orders how a node is to stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OrderNode {
    /// The node.
    pub node: NodeId,
    /// How it is to stand.
    pub standing: Standing,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

impl OrderNode {
    /// What it does, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let node = &self.node;
        match self.standing {
            Standing::InUse => format!("{node} is in use again"),
            Standing::Draining => format!("{node} is being drained"),
            Standing::Removed => format!("{node} is removed"),
        }
    }

    /// What has become of it, in the configuration that is in force or would be changed.
    #[must_use]
    pub fn answer(&self, state: PatchState, recorded: &Recorded, epoch: Epoch) -> NodeOrdered {
        NodeOrdered {
            state,
            config_version: recorded.config.config_version,
            epoch,
            node: self.node.clone(),
            standing: self.standing,
            remaining: recorded.config.remaining_on(&self.node),
        }
    }
}

/// What became of an order about a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeOrdered {
    /// How far it has come.
    pub state: PatchState,
    /// The number of the configuration that is in force, or, of a dry run, would be changed.
    pub config_version: ConfigVersion,
    /// The epoch that the order was taken in.
    pub epoch: Epoch,
    /// The node.
    pub node: NodeId,
    /// How it stands, or, of a dry run, would stand.
    pub standing: Standing,
    /// What the configuration names on it. A node that is being drained is drained once this is empty.
    pub remaining: Vec<ServiceRef>,
}

crate::config::outcome!(NodeOrdered);

/// A node about which something is ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeStanding {
    /// The node.
    pub node: NodeId,
    /// What is ordered.
    pub standing: Standing,
    /// Whether nothing is left on it.
    pub drained: bool,
    /// What the configuration still names on it.
    pub remaining: Vec<ServiceRef>,
}

impl NodeStanding {
    /// The nodes about which something is ordered, in the order of their names.
    #[must_use]
    pub fn all(recorded: &Recorded) -> Vec<NodeStanding> {
        let ordered = recorded.config.nodes.iter().filter(|(_, entry)| !entry.standing.is_in_use());
        let standing = ordered.map(|(node, entry)| {
            let (node, remaining) = (node.clone(), recorded.config.remaining_on(node));
            let drained = remaining.is_empty();
            NodeStanding { node, standing: entry.standing, drained, remaining }
        });
        standing.collect()
    }
}

/// Why a node can't be ordered to stand so, as a problem.
#[must_use]
pub fn refused(error: &StandingError) -> Problem {
    let code = match error {
        StandingError::Unknown(_) => ErrorCode::NotFound,
        StandingError::Removed(_)
        | StandingError::InUse(_)
        | StandingError::Remaining { .. }
        | StandingError::Needed { .. }
        | StandingError::NoOther { .. }
        | StandingError::SmallTeam { .. }
        | StandingError::Unwritable { .. } => ErrorCode::Unsatisfiable,
    };
    Problem::new(code, error.to_string()).with("field", "node")
}

/// `PUT /v1/standing`.
pub const ORDER_NODE: Endpoint<OrderNode, NodeOrdered> = Endpoint::put("/v1/standing");
