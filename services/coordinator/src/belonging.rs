//! Whether this coordinator still belongs to the group that it is active in, and where the group takes it to
//! answer.
//!
//! One that was removed gives its identity up: it waits, under a new one, to be let in again. It hears of its
//! removal as long as it is told anything; one that was away meanwhile hears of no leader, and asks. It
//! believes what a leader has read linearizably, or what it has itself applied, and nothing less.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use plinth_api::coordinator::{JOIN, JoinRequest, MEMBERS, Members};
use plinth_api::{Nothing, Target};
use tokio::time::{Instant, sleep, timeout};

use crate::ballots;
use crate::config::{ASK_LIMIT, FORWARD_LIMIT, JOIN_PAUSE, LEAVE_AFTER, LONELY_AFTER};
use crate::members::admit;
use crate::membership::Seats;
use crate::node::{Group, Node};

/// What Raft tells of this coordinator's own place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing that is known to be agreed upon.
    Unknown,
    /// It votes.
    Voter,
    /// It does not.
    Outside,
}

fn place(group: &Group) -> (Place, bool) {
    let metrics = group.raft.metrics();
    let metrics = metrics.borrow();
    let effective = &metrics.membership_config;
    let index = |id: Option<openraft::LogId<u64>>| id.map(|id| id.index);
    let is_applied = index(metrics.last_applied) >= index(*effective.log_id());
    let voters: Vec<u64> = effective.membership().voter_ids().collect();
    let place = match is_applied && !voters.is_empty() {
        false => Place::Unknown,
        true if voters.contains(&group.raft_id) => Place::Voter,
        true => Place::Outside,
    };
    (place, metrics.current_leader.is_some())
}

/// Whether Raft leaves open who leads. One that does not vote misses no leader: after a restart it names the
/// one of its last term for ever, itself perhaps. So its word counts only where it is known what it is.
fn is_in_the_dark(place: Place, has_leader: bool) -> bool {
    !has_leader || place == Place::Unknown
}

/// Watches over the membership of this coordinator for as long as it is active in the group.
pub(crate) fn belong(node: Arc<Node>, group: Group) -> BoxFuture<'static, ()> {
    // Boxed, because to leave is to become active again, with a task like this one.
    watch_over(node, group).boxed()
}

async fn watch_over(node: Arc<Node>, group: Group) {
    let mut raft = group.raft.server_metrics();
    let mut groups = node.group.subscribe();
    let mut lonely = Instant::now();
    let mut has_told = false;
    loop {
        raft.mark_unchanged();
        if !groups.borrow_and_update().as_ref().is_some_and(|now| now.is(&group)) {
            return;
        }
        let (place, has_leader) = place(&group);
        let is_joining = node.records.lock().await.part().is_joining;
        let in_the_dark = is_in_the_dark(place, has_leader);
        if !in_the_dark {
            lonely = Instant::now();
        }
        let mut pause = LONELY_AFTER;
        match (place, is_joining) {
            (Place::Voter, true) => {
                // Only now: what it has applied says so, and will after a restart.
                if let Err(failure) = ballots::joined(&node).await {
                    tracing::warn!(why = failure.0.detail, "the joining can't be noted");
                    pause = JOIN_PAUSE;
                }
            }
            (Place::Outside, false) => {
                sleep(LEAVE_AFTER).await;
                // Whoever votes by now must keep its votes.
                if self::place(&group).0 != Place::Outside {
                    continue;
                }
                return leave(&node, &group).await;
            }
            (Place::Voter | Place::Unknown, false)
                if in_the_dark && lonely.elapsed() >= LONELY_AFTER =>
            {
                if is_removed(&node, &group).await {
                    return leave(&node, &group).await;
                }
            }
            (Place::Voter, false) if has_leader && !has_told => {
                has_told = tell_address(&node, &group).await;
                pause = JOIN_PAUSE;
            }
            (Place::Voter | Place::Unknown | Place::Outside, _) => {}
        }
        if has_told && has_leader && !is_joining {
            pause = LONELY_AFTER;
        } else if is_joining {
            pause = JOIN_PAUSE;
        }
        tokio::select! {
            biased;
            changed = groups.changed() => if changed.is_err() { return },
            changed = timeout(pause, raft.changed()) => if matches!(changed, Ok(Err(_))) {
                // Raft has ended, and so will the service: there is nothing to hurry for.
                sleep(JOIN_PAUSE).await;
            },
        }
    }
}

async fn leave(node: &Arc<Node>, group: &Group) {
    tracing::warn!(group = %group.id, "this coordinator is no member of the group any more: it waits to be let in again");
    node.context.runtime().mark("coordinator.members.left");
    if let Err(failure) = ballots::leave(node, group).await {
        tracing::error!(why = failure.0.detail, "the group can't be left");
    }
}

/// Whether a leader that has just read so knows nothing of this coordinator.
async fn is_removed(node: &Node, group: &Group) -> bool {
    for (service, addresses) in node.contacts.everybody() {
        if service == *node.context.service() {
            continue;
        }
        for address in addresses {
            let target = Target::address(&address);
            let peers = node.context.peers();
            let told = peers.call(&target, &MEMBERS, &Nothing {}, None, ASK_LIMIT).await;
            if let Ok(Members { group: theirs, members, next_members, .. }) = told
                && theirs == group.id
            {
                // During a change, what Raft has need not be agreed upon yet.
                let me = node.context.service();
                let is_named = members.iter().any(|member| member.service == *me);
                return next_members.is_empty() && !is_named;
            }
        }
    }
    false
}

/// Tells the group where this coordinator answers, if that is elsewhere than the group knows.
async fn tell_address(node: &Arc<Node>, group: &Group) -> bool {
    let member = node.as_member(group.raft_id);
    let seats: Seats = group.seats();
    let mut voters = seats.voters.iter().flatten();
    let known = voters.find(|seat| seat.raft_id == group.raft_id);
    if known.is_none_or(|known| known.address == member.address) {
        return true;
    }
    let request = JoinRequest { group: group.id, member };
    if group.is_leading() {
        return admit(Arc::clone(node), group.clone(), request).await.is_ok();
    }
    let leader = group.leader();
    let Some(leader) = group.members().into_iter().find(|one| Some(one.raft_id) == leader) else {
        return false;
    };
    // A connection that is refused is tried again for as long as it may take: the likeliest comes first.
    let mut addresses = node.contacts.of(Some(&leader.service));
    if !addresses.contains(&leader.address) {
        addresses.push(leader.address);
    }
    for address in addresses {
        let peers = node.context.peers();
        let target = Target::address(&address);
        if peers.call(&target, &JOIN, &request, None, FORWARD_LIMIT).await.is_ok() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_that_one_outside_names_is_not_believed_before_it_knows_that_it_votes() {
        assert!(is_in_the_dark(Place::Unknown, true));
        assert!(is_in_the_dark(Place::Voter, false));
        assert!(!is_in_the_dark(Place::Voter, true));
        assert!(!is_in_the_dark(Place::Outside, true));
    }
}
