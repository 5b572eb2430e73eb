//! Raft's messages over HTTP. Each names the founding of its group and the identity that it is meant
//! for, and others are refused: at the address of a member that has lost its votes a newcomer may
//! answer, which must never vote in its name.

use std::time::Duration;

use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Timeout, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use plinth_api::{CallError, Endpoint, ErrorCode, Target, TransportError};
use plinth_service::Peers;
use plinth_types::GroupId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Member, TypeConfig};
use crate::contacts::Contacts;

/// A message within a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Grouped<T> {
    /// The founding of the group.
    pub(crate) group_id: GroupId,
    /// The identity that it is meant for.
    pub(crate) to: u64,
    /// The message.
    pub(crate) message: T,
}

/// Asks to append entries; without any, a heartbeat.
pub(crate) type AppendMessage = Grouped<AppendEntriesRequest<TypeConfig>>;
/// The answer to it.
pub(crate) type AppendAnswer = Result<AppendEntriesResponse<u64>, RaftError<u64>>;
/// Asks for a vote.
pub(crate) type VoteMessage = Grouped<VoteRequest<u64>>;
/// The answer to it.
pub(crate) type VoteAnswer = Result<VoteResponse<u64>, RaftError<u64>>;
/// A piece of a snapshot.
pub(crate) type SnapshotMessage = Grouped<InstallSnapshotRequest<TypeConfig>>;
/// The answer to it.
pub(crate) type SnapshotAnswer =
    Result<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>>;

/// `POST /v1/raft/append`.
pub(crate) const APPEND: Endpoint<AppendMessage, AppendAnswer> = Endpoint::post("/v1/raft/append");
/// `POST /v1/raft/vote`.
pub(crate) const VOTE: Endpoint<VoteMessage, VoteAnswer> = Endpoint::post("/v1/raft/vote");
/// `POST /v1/raft/snapshot`.
pub(crate) const SNAPSHOT: Endpoint<SnapshotMessage, SnapshotAnswer> =
    Endpoint::post("/v1/raft/snapshot");

/// How long openraft waits before it tries a member again that could not be reached.
const RETRY: Duration = Duration::from_millis(100);

/// Makes connections within a group.
#[derive(Clone)]
pub(crate) struct Network {
    peers: Peers,
    contacts: Contacts,
    group_id: GroupId,
    own: u64,
}

impl Network {
    /// Connections of the member `own` of a group.
    #[must_use]
    pub(crate) fn new(peers: Peers, contacts: Contacts, group_id: GroupId, own: u64) -> Network {
        Network { peers, contacts, group_id, own }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, member: &Member) -> Connection {
        Connection { network: self.clone(), target, member: member.clone() }
    }
}

/// The way to one member.
pub(crate) struct Connection {
    network: Network,
    target: u64,
    member: Member,
}

impl Connection {
    /// Where it may answer, the likeliest first: where it has answered before, and where Raft's membership
    /// says. A coordinator that has moved tells the group itself, once it hears of a leader; where all have
    /// moved at once, nobody would hear of one. A message for another identity is refused wherever it
    /// comes to.
    fn addresses(&self) -> Vec<String> {
        let mut all = self.network.contacts.of(self.member.service.as_ref());
        if !all.contains(&self.member.address) {
            all.push(self.member.address.clone());
        }
        all
    }

    /// Notes what has become of a call.
    fn note<T>(&self, address: &str, several: bool, answer: &Result<T, CallError>) {
        let Some(service) = self.member.service.as_ref().filter(|_| several) else { return };
        match answer {
            Ok(_) => self.network.contacts.found(service, address),
            Err(_) => self.network.contacts.lost(service, address),
        }
    }

    /// Calls it where it answers. What never came to it may be sent elsewhere.
    async fn call<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        endpoint: &Endpoint<Req, Resp>,
        message: &Req,
        limit: Duration,
    ) -> Result<Resp, CallError> {
        let addresses = self.addresses();
        let (peers, several) = (&self.network.peers, addresses.len() > 1);
        let mut left = addresses.len();
        for address in &addresses {
            let answer =
                peers.call(&Target::address(address), endpoint, message, None, limit).await;
            self.note(address, several, &answer);
            left -= 1;
            let is_elsewhere = match &answer {
                Err(CallError::Transport(TransportError::Connect { .. })) => true,
                Err(CallError::Problem(problem)) => problem.code == ErrorCode::WrongGroup,
                _ => false,
            };
            if !is_elsewhere || left == 0 {
                return answer;
            }
        }
        Err(CallError::Request("it has no address".to_owned()))
    }

    async fn send<Req, Resp, E>(
        &self,
        endpoint: &Endpoint<Grouped<Req>, Result<Resp, E>>,
        message: Req,
        action: RPCTypes,
        limit: Duration,
    ) -> Result<Resp, RPCError<u64, Member, E>>
    where
        Req: Serialize,
        Resp: DeserializeOwned,
        E: DeserializeOwned + std::error::Error,
    {
        let message = Grouped { group_id: self.network.group_id, to: self.target, message };
        match self.call(endpoint, &message, limit).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(RPCError::RemoteError(RemoteError::new_with_node(
                self.target,
                self.member.clone(),
                error,
            ))),
            Err(CallError::Transport(TransportError::Timeout { .. })) => {
                Err(RPCError::Timeout(Timeout {
                    action,
                    id: self.network.own,
                    target: self.target,
                    timeout: limit,
                }))
            }
            Err(error @ (CallError::Transport(_) | CallError::Problem(_))) => {
                Err(RPCError::Unreachable(Unreachable::new(&error)))
            }
            Err(error) => Err(RPCError::Network(NetworkError::new(&error))),
        }
    }
}

impl RaftNetwork<TypeConfig> for Connection {
    async fn append_entries(
        &mut self,
        message: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, Member, RaftError<u64>>> {
        self.send(&APPEND, message, RPCTypes::AppendEntries, option.hard_ttl()).await
    }

    async fn install_snapshot(
        &mut self,
        message: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<
        InstallSnapshotResponse<u64>,
        RPCError<u64, Member, RaftError<u64, InstallSnapshotError>>,
    > {
        self.send(&SNAPSHOT, message, RPCTypes::InstallSnapshot, option.hard_ttl()).await
    }

    async fn vote(
        &mut self,
        message: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, Member, RaftError<u64>>> {
        self.send(&VOTE, message, RPCTypes::Vote, option.hard_ttl()).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY))
    }
}
