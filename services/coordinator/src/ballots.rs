//! The ballots as they are held: every step is durable before it is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use plinth_api::Target;
use plinth_api::coordinator::{
    ACCEPT, AcceptRequest, Bootstrap, BootstrapReport, CHOSEN, Founding, PROMISE, Promise,
    PromiseRequest,
};
use plinth_service::Failure;
use plinth_types::{GroupId, ServiceRef};
use tokio::time::Instant;

use crate::config::ASK_LIMIT;
use crate::founding::{Plan, Verdict, names, next_ballot};
use crate::node::{Group, Node};
use crate::raft::{self, Member};
use crate::records::Part;

/// How a ballot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ballot {
    /// The founding was chosen.
    Chosen,
    /// Others have founded a group.
    Founded,
    /// Too few took part; the next must be above this one.
    Failed {
        /// The highest ballot heard of.
        highest: u64,
    },
}

/// Answers a request for a promise.
///
/// # Errors
/// The disk's refusal.
pub(crate) async fn promise(node: &Arc<Node>, request: PromiseRequest) -> Result<Promise, Failure> {
    let this = Arc::clone(node);
    let work = async move {
        let mut records = this.records.lock().await;
        let mut part = records.part().clone();
        let promise = part.acceptor.promise(request.ballot, &request.renounce, records.raft_id());
        let has_left = part.acceptor.active_group().is_none();
        records.set(part).await.map_err(|error| this.disk_failure(&error))?;
        if has_left {
            this.deactivate().await;
        }
        Ok(promise)
    };
    node.finish("promise", work).await
}

/// Answers a request to accept a founding.
///
/// # Errors
/// The disk's refusal.
pub(crate) async fn accept(node: &Arc<Node>, request: AcceptRequest) -> Result<bool, Failure> {
    let this = Arc::clone(node);
    let work = async move {
        let mut records = this.records.lock().await;
        let mut part = records.part().clone();
        let is_accepted = part.acceptor.accept(request.ballot, request.founding);
        records.set(part).await.map_err(|error| this.disk_failure(&error))?;
        Ok(is_accepted)
    };
    node.finish("accept", work).await
}

/// Takes up a founding that all who must have accepted.
///
/// # Errors
/// The disk's refusal, or Raft does not start.
pub(crate) async fn choose(node: &Arc<Node>, request: AcceptRequest) -> Result<bool, Failure> {
    let this = Arc::clone(node);
    let work = async move {
        let AcceptRequest { ballot, founding } = request;
        let mut records = this.records.lock().await;
        if !names(&founding, this.context.service(), records.raft_id()) {
            return Ok(false);
        }
        let mut part = records.part().clone();
        let was_active = part.acceptor.active_group();
        if !part.acceptor.choose(ballot, &founding) {
            return Ok(false);
        }
        if was_active.is_none() {
            part.founding = Some(founding);
            part.is_joining = false;
            enter(&this, &mut records, part).await?;
        }
        Ok(true)
    };
    node.finish("choose", work).await
}

/// Takes up the founding that was accepted here, after a majority was seen to act in it.
///
/// # Errors
/// The disk's refusal, or Raft does not start.
pub(crate) async fn take_up_accepted(node: &Arc<Node>, group: GroupId) -> Result<bool, Failure> {
    let this = Arc::clone(node);
    let work = async move {
        let mut records = this.records.lock().await;
        let mut part = records.part().clone();
        let Some((_, founding)) = part.acceptor.accepted.clone() else { return Ok(false) };
        let is_me = names(&founding, this.context.service(), records.raft_id());
        if founding.group != group || !is_me || part.acceptor.active_group().is_some() {
            return Ok(false);
        }
        part.acceptor.join(group);
        part.founding = Some(founding);
        part.is_joining = false;
        enter(&this, &mut records, part).await?;
        Ok(true)
    };
    node.finish("take up the founding", work).await
}

/// Notes that the group has taken it in.
///
/// # Errors
/// The disk's refusal.
pub(crate) async fn joined(node: &Arc<Node>) -> Result<(), Failure> {
    let this = Arc::clone(node);
    let work = async move {
        let mut records = this.records.lock().await;
        let part = Part { is_joining: false, ..records.part().clone() };
        records.set(part).await.map_err(|error| this.disk_failure(&error))
    };
    node.finish("joined", work).await
}

/// Leaves the group's membership, which a change has taken it out of: what it has is given up with the
/// identity that it had, and under a new one it waits to be let in.
///
/// # Errors
/// The disk's refusal, or Raft does not start.
pub(crate) async fn leave(node: &Arc<Node>, group: &Group) -> Result<(), Failure> {
    let (this, id, raft_id) = (Arc::clone(node), group.id, group.raft_id);
    let work = async move {
        let mut records = this.records.lock().await;
        let mut part = records.part().clone();
        if part.acceptor.active_group() != Some(id) || records.raft_id() != raft_id {
            return Ok(());
        }
        this.deactivate().await;
        part.acceptor.join(id);
        part.founding = None;
        part.is_joining = true;
        let raft_id = this.context.runtime().random_u64();
        records.enter_as(raft_id, part).await.map_err(|error| this.disk_failure(&error))?;
        this.activate(&records).await.map_err(|error| broken(&this, error))
    };
    node.finish("leave", work).await
}

/// Enters a living group under an identity that has never voted. Answers with that identity.
///
/// # Errors
/// The disk's refusal, or Raft does not start.
pub(crate) async fn rejoin(node: &Arc<Node>, group: GroupId) -> Result<u64, Failure> {
    let this = Arc::clone(node);
    let work = async move {
        let mut records = this.records.lock().await;
        let mut part = records.part().clone();
        if part.acceptor.active_group() != Some(group) {
            this.deactivate().await;
            part.acceptor.join(group);
            part.founding = None;
            part.is_joining = true;
            let raft_id = this.context.runtime().random_u64();
            records.enter_as(raft_id, part).await.map_err(|error| this.disk_failure(&error))?;
        }
        this.activate(&records).await.map_err(|error| broken(&this, error))?;
        Ok(records.raft_id())
    };
    node.finish("rejoin", work).await
}

async fn enter(
    node: &Arc<Node>,
    records: &mut crate::records::Records,
    part: Part,
) -> Result<(), Failure> {
    let bootstrap = part.founding.as_ref().map(founded);
    records.enter(part).await.map_err(|error| node.disk_failure(&error))?;
    node.activate(records).await.map_err(|error| broken(node, error))?;
    if let Some(bootstrap) = bootstrap {
        // What it could not use itself, whoever has proposed.
        let rejected = node.bootstrap.borrow().rejected.clone();
        node.decide(Bootstrap { rejected, ..bootstrap }, None);
    }
    Ok(())
}

fn broken(node: &Node, error: String) -> Failure {
    node.set_broken(error.clone());
    Failure::new(plinth_api::ErrorCode::Damaged, error)
}

fn founded(founding: &Founding) -> Bootstrap {
    let stamp = founding.recorded.as_ref().map(|recorded| recorded.stamp()).unwrap_or_default();
    Bootstrap {
        source: founding.source.clone(),
        storage: founding.storage.clone(),
        epoch: stamp.epoch,
        config_version: stamp.config_version,
        rejected: Vec::new(),
        waiting_for: None,
    }
}

/// What this coordinator tells its peers.
///
/// # Errors
/// The disk's refusal.
pub(crate) async fn report(node: &Arc<Node>) -> Result<BootstrapReport, Failure> {
    let records = node.records.lock().await;
    let peek = raft::peek(records.store()).map_err(|error| node.disk_failure(&error))?;
    let Part { acceptor, is_joining, .. } = records.part();
    let mut memberships = peek.voters.iter();
    let names = |voters: Option<&Vec<(u64, Member)>>| -> Vec<ServiceRef> {
        let members = voters.into_iter().flatten();
        members.filter_map(|(_, member)| member.service.clone()).collect()
    };
    let (members, next_members) = (names(memberships.next()), names(memberships.next()));
    for (_, member) in peek.voters.iter().flatten() {
        if let Some(service) = &member.service {
            node.contacts.learn(service, &member.address);
        }
    }
    // Who has been let in and has not noted it yet may have voted.
    let mut voters = peek.voters.iter().flatten();
    let is_waiting = *is_joining && !voters.any(|(raft_id, _)| *raft_id == records.raft_id());
    let nodes = node.registry().nodes(Instant::now()).cloned().collect();
    Ok(BootstrapReport {
        service: node.context.service().clone(),
        raft_id: records.raft_id(),
        group: acceptor.group.filter(|_| !is_waiting),
        joining: acceptor.active_group().filter(|_| *is_joining),
        recorded: peek.state.stamp().map(|stamp| (stamp.epoch, stamp.config_version)),
        epoch: peek.state.epoch,
        promised: acceptor.promised,
        formatted: acceptor.accepted.as_ref().map(|(_, founding)| founding.group),
        // Without members nothing was ever agreed upon in it.
        running: peek.is_used && !members.is_empty() && !is_waiting,
        members,
        next_members,
        configuration: peek.state.recorded.clone(),
        nodes,
    })
}

/// Holds a ballot on a plan.
pub(crate) async fn hold(node: &Arc<Node>, plan: &Plan, heard: u64) -> Ballot {
    let ballot = next_ballot(heard, node.context.runtime().random_u64());
    let request = PromiseRequest { ballot, renounce: plan.renounce.clone() };
    let asked = plan.concerned();
    let promises: BTreeMap<ServiceRef, Promise> =
        join_all(asked.iter().map(|(service, address)| {
            let request = request.clone();
            async move {
                let promise = if service == node.context.service() {
                    promise(node, request).await.ok()?
                } else {
                    let target = Target::address(address);
                    let peers = node.context.peers();
                    peers.call(&target, &PROMISE, &request, None, ASK_LIMIT).await.ok()?
                };
                Some((service.clone(), promise))
            }
        }))
        .await
        .into_iter()
        .flatten()
        .collect();
    let founding = match plan.weigh(&promises) {
        Verdict::Propose(founding) => founding,
        Verdict::Founded(group) => {
            tracing::info!(%group, "a group was founded meanwhile");
            return Ballot::Founded;
        }
        Verdict::TooFew { highest } => return Ballot::Failed { highest: highest.max(ballot) },
    };
    let request = AcceptRequest { ballot, founding: *founding };
    let accepted = ask_concerned(node, plan, &request, false).await;
    if !plan.is_enough(|service| accepted.contains(service)) {
        return Ballot::Failed { highest: ballot };
    }
    tracing::info!(group = %request.founding.group, source = request.founding.source, "founded");
    ask_concerned(node, plan, &request, true).await;
    Ballot::Chosen
}

/// Asks those concerned, and the founding's members, to accept it, or to take it up. Answers who did.
async fn ask_concerned(
    node: &Arc<Node>,
    plan: &Plan,
    request: &AcceptRequest,
    is_chosen: bool,
) -> BTreeSet<ServiceRef> {
    let mut asked = plan.concerned();
    for member in &request.founding.members {
        asked.entry(member.service.clone()).or_insert_with(|| member.address.clone());
    }
    let answers = join_all(asked.into_iter().map(|(service, address)| async move {
        if service == *node.context.service() {
            let own = request.clone();
            let done = if is_chosen { choose(node, own).await } else { accept(node, own).await };
            return done.unwrap_or(false).then_some(service);
        }
        let endpoint = if is_chosen { &CHOSEN } else { &ACCEPT };
        let target = Target::address(&address);
        let answer = node.context.peers().call(&target, endpoint, request, None, ASK_LIMIT).await;
        answer.is_ok_and(|answer| answer.accepted).then_some(service)
    }));
    answers.await.into_iter().flatten().collect()
}
