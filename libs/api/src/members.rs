//! Orders about the coordinators' membership: the same on a gateway and a coordinator; and what the
//! coordinators' leader has the director record of them.

use plinth_system_config::{Coordinator, MembersError, Recorded};
use plinth_types::{ConfigVersion, Epoch, ServiceRef};
use serde::{Deserialize, Serialize};

use crate::config::PatchState;
use crate::coordinator::FoundingMember;
use crate::{Endpoint, ErrorCode, Problem};

/// `POST /v1/members`: a coordinator that runs and waits to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AddMember {
    /// Which service, such as `coordinator-1@node-4`.
    pub service: ServiceRef,
    /// Where it answers, `host:port`; the host is resolved at each connect.
    #[schema(min_length = 3, max_length = 261)]
    pub address: String,
}

/// Orders that a coordinator be a member of the group, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OrderMember {
    /// Which service.
    pub service: ServiceRef,
    /// Where it answers, `host:port`. Without one it is to be no member.
    #[serde(default)]
    pub address: Option<String>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

impl OrderMember {
    /// What it does, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let service = &self.service;
        match &self.address {
            Some(address) => format!("{service} at {address} becomes a coordinator of the group"),
            None => format!("{service} leaves the coordinators' group"),
        }
    }
}

/// What became of an order about the membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MemberOrdered {
    /// How far it has come.
    pub state: PatchState,
    /// The number of the configuration that is in force, or, of a dry run, would be changed.
    pub config_version: ConfigVersion,
    /// The epoch that the order was taken in.
    pub epoch: Epoch,
    /// The coordinator.
    pub service: ServiceRef,
    /// Whether it is a member, or, of a dry run, would be one.
    pub member: bool,
    /// The members, or, of a dry run, those that there would be.
    pub members: Vec<FoundingMember>,
    /// What to think of, where there is something.
    #[serde(default)]
    pub note: Option<String>,
}

impl MemberOrdered {
    /// The answer: `members` are those of the configuration, or those that there would be.
    #[must_use]
    pub fn new(
        order: &OrderMember,
        state: PatchState,
        recorded: &Recorded,
        members: &[Coordinator],
        epoch: Epoch,
    ) -> MemberOrdered {
        let count = members.len();
        let note = count.is_multiple_of(2).then(|| {
            format!(
                "{count} coordinators bear the loss of no more than {} do: add or remove one",
                count - 1
            )
        });
        MemberOrdered {
            state,
            config_version: recorded.config.config_version,
            epoch,
            service: order.service.clone(),
            member: order.address.is_some(),
            members: members.iter().map(as_member).collect(),
            note,
        }
    }
}

/// A coordinator of the configuration as the group's list shows it.
#[must_use]
pub fn as_member(coordinator: &Coordinator) -> FoundingMember {
    FoundingMember {
        service: coordinator.service.clone(),
        raft_id: coordinator.raft_id,
        address: coordinator.address.clone().unwrap_or_default(),
    }
}

/// The coordinators' leader has the director of a ready epoch record who the members are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RecordMembers {
    /// The number of the configuration that is changed. Another one is refused.
    pub expected: ConfigVersion,
    /// The members, or those of before a change.
    pub coordinators: Vec<Coordinator>,
    /// The members after the change that begins; empty where one is over.
    pub next_coordinators: Vec<Coordinator>,
    /// What is done, for people.
    pub what: String,
}

/// It is recorded, and in storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MembersRecorded {
    /// The number of the configuration that says so.
    pub config_version: ConfigVersion,
}

/// Why a coordinator can't join or leave, as a problem.
#[must_use]
pub fn refused(error: &MembersError) -> Problem {
    let code = match error {
        MembersError::Unknown(_) => ErrorCode::NotFound,
        MembersError::WrongKind(_) => ErrorCode::InvalidRequest,
        MembersError::Elsewhere { .. }
        | MembersError::SharedAddress { .. }
        | MembersError::RemovedNode(_)
        | MembersError::Last(_)
        | MembersError::TooMany { .. }
        | MembersError::UnderWay { .. }
        | MembersError::TooFar(_)
        | MembersError::NoMajority { .. }
        | MembersError::Level { .. }
        | MembersError::Invalid(_)
        | MembersError::Unwritable(_) => ErrorCode::Unsatisfiable,
    };
    Problem::new(code, error.to_string()).with("field", "service")
}

/// `PUT /v1/members` of a gateway or coordinator.
pub const ORDER_MEMBER: Endpoint<OrderMember, MemberOrdered> = Endpoint::put("/v1/members");
/// `PUT /v1/members` of a director.
pub const RECORD_MEMBERS: Endpoint<RecordMembers, MembersRecorded> = Endpoint::put("/v1/members");
