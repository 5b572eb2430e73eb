//! Changes of the group's membership, as the leader carries them out. What is due, [`crate::membership`]
//! says; an order only begins a change, and then waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use openraft::ChangeMembers;
use plinth_api::config::PatchState;
use plinth_api::coordinator::{BOOTSTRAP, BootstrapReport, FoundingMember, JoinRequest, STATUS};
use plinth_api::members::{MemberOrdered, OrderMember, RECORD_MEMBERS, RecordMembers, refused};
use plinth_api::{ErrorCode, Nothing, Outcome, Target};
use plinth_service::Failure;
use plinth_system_config::{Coordinator, MembersStep, Recorded, check_majority, names_of};
use plinth_types::ServiceRef;
use tokio::time::{Instant, sleep, timeout};

use crate::config::{
    ASK_LIMIT, CATCH_UP_LIMIT, CHANGE_LIMIT, FORGET_AFTER, MEMBERS_LIMIT, MEMBERS_LOOK,
    RECOVERY_PATIENCE, WRITE_LIMIT,
};
use crate::membership::{self, Seat, Seats, Step};
use crate::node::{Group, Node, no_quorum};
use crate::raft::Member;
use crate::state::{ClusterState, Command};

/// How far a newcomer may be behind, in entries, and still count as one that has the log.
const LAG: u64 = 10;
/// How long a newcomer may take until it waits to be let in: it may just have been taken out.
const NEWCOMER_LIMIT: Duration = Duration::from_secs(8);
/// How long it may take until it answers at all.
const ABSENT_LIMIT: Duration = Duration::from_secs(2);

/// Goes on with whatever change is under way. Never returns.
pub(crate) async fn tend(node: &Arc<Node>, group: &Group) {
    let mut states = group.states.clone();
    let mut raft = group.raft.server_metrics();
    let mut left: Option<(BTreeSet<u64>, Instant)> = None;
    loop {
        states.mark_unchanged();
        raft.mark_unchanged();
        let ordered = node.ordered.notified();
        let step = due(node, group).await;
        if !matches!(step, Step::Forget(_)) {
            left = None;
        }
        let is_idle = step == Step::Rest;
        if let Err(failure) = take(node, group, step, &mut left).await {
            tracing::debug!(why = failure.0.detail, "a change of the membership has to wait");
        }
        // Between two steps nothing may tell that the next one can be taken.
        let look = async {
            if is_idle { std::future::pending().await } else { sleep(MEMBERS_LOOK).await }
        };
        tokio::select! {
            biased;
            changed = states.changed() => if changed.is_err() { return std::future::pending().await },
            changed = raft.changed() => if changed.is_err() { return std::future::pending().await },
            () = ordered => {}
            () = look => {}
        }
    }
}

/// What is due, by what is agreed upon: a leader that was started again may know less than it once did.
async fn due(node: &Node, group: &Group) -> Step {
    let seen = |state: &ClusterState| membership::next(state, &group.seats(), node.wanted());
    if seen(&group.state()) == Step::Rest {
        return Step::Rest;
    }
    match node.read(group).await {
        Ok(state) => seen(&state),
        Err(_) => Step::Wait,
    }
}

/// Takes a step. What does not succeed is tried again.
async fn take(
    node: &Arc<Node>,
    group: &Group,
    step: Step,
    left: &mut Option<(BTreeSet<u64>, Instant)>,
) -> Result<(), Failure> {
    match step {
        Step::Rest | Step::Wait => Ok(()),
        Step::Finish(voters) | Step::Vote(voters) => {
            if node.voting.try_lock().is_err() {
                // It is being done, in two steps of its own.
                return Ok(());
            }
            tracing::info!(?voters, "the coordinators' group takes up other members");
            node.context.runtime().mark("coordinator.members.vote");
            // Whoever leaves goes on hearing for a while, and so hears that it has left.
            change(node, group, ChangeMembers::ReplaceAllVoters(voters)).await
        }
        Step::Move { to, newcomers } => {
            if let Some(newcomer) = newcomers.iter().find(|newcomer| !is_whole(group, **newcomer)) {
                return Err(no_quorum(format!("member {newcomer} does not have the log yet")));
            }
            node.context.runtime().mark("coordinator.members.move");
            node.write(group, Command::Move { to }).await.map(drop)
        }
        Step::Record { expected, members } => {
            let state = group.state();
            node.context.runtime().mark("coordinator.members.record");
            let what = format!("the coordinators are {}", list(&members));
            let next_coordinators = Vec::new();
            let request =
                RecordMembers { expected, coordinators: members, next_coordinators, what };
            record(node, &state, &request).await
        }
        Step::Forget(learners) => {
            let since = match left {
                Some((known, since)) if *known == learners => *since,
                _ => left.insert((learners.clone(), Instant::now())).1,
            };
            if since.elapsed() < FORGET_AFTER {
                return Ok(());
            }
            node.context.runtime().mark("coordinator.members.forget");
            change(node, group, ChangeMembers::RemoveNodes(learners)).await
        }
    }
}

async fn change(
    node: &Node,
    group: &Group,
    change: ChangeMembers<u64, Member>,
) -> Result<(), Failure> {
    let _one = node.voting.lock().await;
    match timeout(WRITE_LIMIT, group.raft.change_membership(change, true)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(no_quorum(format!("the membership can't be changed now: {error}"))),
        Err(_) => Err(no_quorum("the change of the membership takes too long: try again")),
    }
}

/// Whether a learner has what the leader has.
fn is_whole(group: &Group, raft_id: u64) -> bool {
    let metrics = group.raft.metrics();
    let metrics = metrics.borrow();
    let matched =
        metrics.replication.as_ref().and_then(|replication| *replication.get(&raft_id)?);
    let last = metrics.last_log_index.unwrap_or_default();
    matched.is_some_and(|matched| matched.index + LAG >= last)
}

async fn record(node: &Node, state: &ClusterState, request: &RecordMembers) -> Result<(), Failure> {
    let Some(appointed) = state.ready_director() else {
        return Err(Failure::new(ErrorCode::NotReady, "no epoch is ready"));
    };
    let target = Target::from(&appointed.pid);
    let peers = node.context.peers();
    peers.call(&target, &RECORD_MEMBERS, request, None, CHANGE_LIMIT).await?;
    Ok(())
}

fn list(members: &[Coordinator]) -> String {
    let names: Vec<String> = members.iter().map(|member| member.service.to_string()).collect();
    names.join(", ")
}

/// Carries an order out, and answers once it is in storage. The same order again goes on with it.
///
/// # Errors
/// Why it must not be; `no_quorum` where this is not the leader, and it has done nothing;
/// `commit_unknown_result` where the change may have begun: the next leader goes on with it.
pub(crate) async fn order(
    node: Arc<Node>,
    group: Group,
    order: OrderMember,
) -> Result<MemberOrdered, Failure> {
    let _turn = node.turn(&order).await?;
    let mut may_be = false;
    let made = carry_out(&node, &group, &order, &mut may_be).await;
    made.map_err(|failure| if may_be { unknown(failure) } else { failure })
}

/// What is told where the change may have begun: it goes on whatever has failed, or comes yet.
pub(crate) fn unknown(failure: Failure) -> Failure {
    let Failure(problem) = failure;
    if problem.outcome != Outcome::NotCommitted {
        return Failure(problem);
    }
    let detail = format!(
        "it may have begun, and goes on by itself then ({}): see /v1/members, or give the order again",
        problem.detail
    );
    Failure::new(ErrorCode::CommitUnknownResult, detail)
}

/// `may_be` is set once the change may have begun.
async fn carry_out(
    node: &Arc<Node>,
    group: &Group,
    order: &OrderMember,
    may_be: &mut bool,
) -> Result<MemberOrdered, Failure> {
    let (began, runtime) = (Instant::now(), node.context.runtime());
    let mut has_begun = false;
    loop {
        let state = node.read(group).await?;
        let recorded = state
            .recorded
            .as_ref()
            .ok_or_else(|| Failure::new(ErrorCode::NotReady, "no configuration is recorded yet"))?;
        let step = judge(&state, recorded, &group.seats(), order)?;
        let is_late = began.elapsed() >= MEMBERS_LIMIT;
        let answer = |state_of: PatchState, members: &[Coordinator]| {
            MemberOrdered::new(order, state_of, recorded, members, state.epoch)
        };
        match step {
            MembersStep::Done => {
                let told = match (membership::is_proved(&state), order.dry_run) {
                    (true, _) if has_begun => Some(PatchState::Durable),
                    (true, _) | (false, true) => Some(PatchState::Unchanged),
                    // The coordinators alone have it: it could be lost with all their disks.
                    (false, false) => is_late.then_some(PatchState::Recorded),
                };
                if let Some(told) = told {
                    return Ok(answer(told, &recorded.config.coordinators));
                }
            }
            MembersStep::UnderWay if runtime.fault("coordinator.answers_begun") => {
                return Ok(answer(PatchState::Durable, &recorded.config.next_coordinators));
            }
            MembersStep::UnderWay => {
                (has_begun, *may_be) = (true, true);
                node.ordered.notify_one();
                if is_late {
                    return Err(goes_on(order));
                }
            }
            MembersStep::Begin(after) => {
                if order.dry_run {
                    prepare(node, group, order, &after).await?;
                    return Ok(answer(PatchState::DryRun, &after));
                }
                if membership::is_proved(&state) {
                    has_begun |=
                        begin(node, group, (&state, recorded), order, after, may_be).await?;
                } else if began.elapsed() >= RECOVERY_PATIENCE || has_begun && is_late {
                    return Err(not_ready());
                }
            }
            MembersStep::TakeBack if order.dry_run => {
                return Ok(answer(PatchState::DryRun, &recorded.config.coordinators));
            }
            MembersStep::TakeBack => {
                if membership::is_proved(&state) {
                    let request = taking_back(recorded, order);
                    let made = is_done(record(node, &state, &request).await);
                    *may_be |= made.is_ok();
                    has_begun |= made?;
                } else if is_late {
                    return Err(not_ready());
                }
            }
        }
        if is_late {
            let detail = "it is not carried out yet: the same order again goes on with it";
            return Err(Failure::new(ErrorCode::DeadlineExceeded, detail));
        }
        sleep(MEMBERS_LOOK).await;
    }
}

fn taking_back(recorded: &Recorded, order: &OrderMember) -> RecordMembers {
    RecordMembers {
        expected: recorded.config.config_version,
        coordinators: recorded.config.coordinators.clone(),
        next_coordinators: Vec::new(),
        what: format!("{} does not become a coordinator after all", order.service),
    }
}

fn goes_on(order: &OrderMember) -> Failure {
    let what = order.describe();
    let detail = format!("{what} is under way, and goes on by itself: see /v1/members");
    Failure::new(ErrorCode::DeadlineExceeded, detail)
}

fn not_ready() -> Failure {
    let detail = "no epoch is ready: who the coordinators are must be in storage before it changes; /v1/status tells what is in the way";
    Failure::new(ErrorCode::NotReady, detail)
}

fn judge(
    state: &ClusterState,
    recorded: &Recorded,
    seats: &Seats,
    order: &OrderMember,
) -> Result<MembersStep, Failure> {
    let step = match &order.address {
        Some(address) => {
            let address = Some(Target::address(address).address);
            let newcomer = Coordinator { service: order.service.clone(), raft_id: 0, address };
            recorded.joining(&newcomer)
        }
        None => recorded.leaving(&order.service, membership::has_moved(state, seats)),
    };
    step.map_err(|error| refused(&error).into())
}

/// What is known of who is to be let in, once all that can be known before is as it should be: it answers
/// there, waits to be let in, and with it a majority would answer.
async fn prepare(
    node: &Node,
    group: &Group,
    order: &OrderMember,
    after: &[Coordinator],
) -> Result<Option<FoundingMember>, Failure> {
    let newcomer = match &order.address {
        Some(address) => Some(find(node, group, &order.service, address).await?),
        None => None,
    };
    let mut answering = who_answers(node, group, after).await;
    answering.extend(newcomer.iter().map(|newcomer| newcomer.service.clone()));
    check_majority(after, &answering).map_err(|error| Failure::from(refused(&error)))?;
    Ok(newcomer)
}

/// Begins a change. Answers whether it has: not where the configuration has changed meanwhile. Sets `may_be`
/// once it can't be told from here that it has not.
async fn begin(
    node: &Arc<Node>,
    group: &Group,
    (state, recorded): (&ClusterState, &Recorded),
    order: &OrderMember,
    mut after: Vec<Coordinator>,
    may_be: &mut bool,
) -> Result<bool, Failure> {
    let newcomer = prepare(node, group, order, &after).await?;
    // Until it is recorded nobody else waits for the newcomer.
    let _wanted = newcomer.as_ref().map(|newcomer| node.want(newcomer.raft_id));
    if let Some(newcomer) = &newcomer {
        teach(node, group, newcomer).await?;
        let is_it = |member: &&mut Coordinator| member.service == newcomer.service;
        if let Some(member) = after.iter_mut().find(is_it) {
            member.raft_id = newcomer.raft_id;
        }
    }
    let made = hand_over(node, state, recorded, order, after).await;
    *may_be |= made.is_ok();
    made
}

async fn hand_over(
    node: &Node,
    state: &ClusterState,
    recorded: &Recorded,
    order: &OrderMember,
    next_coordinators: Vec<Coordinator>,
) -> Result<bool, Failure> {
    let what = order.describe();
    let config_version = recorded.config.config_version.next();
    tracing::info!(target: "plinth_audit", %config_version, what, "the coordinators' membership changes");
    let request = RecordMembers {
        expected: recorded.config.config_version,
        coordinators: recorded.config.coordinators.clone(),
        next_coordinators,
        what,
    };
    is_done(record(node, state, &request).await)
}

/// Whether the director has recorded it. One that is away, is just ending, or builds on another
/// configuration by now has not, or it shows when the coordinators are read again.
fn is_done(recorded: Result<(), Failure>) -> Result<bool, Failure> {
    match recorded {
        Ok(()) => Ok(true),
        Err(Failure(problem)) => match problem.code {
            ErrorCode::Unsatisfiable | ErrorCode::InvalidRequest => Err(Failure(problem)),
            _ => Ok(false),
        },
    }
}

/// Who of these answers. The one that asks does.
async fn who_answers(node: &Node, group: &Group, members: &[Coordinator]) -> BTreeSet<ServiceRef> {
    let me = node.context.service();
    let seats = group.seats().everybody();
    let seats: BTreeMap<&ServiceRef, &str> =
        seats.iter().map(|seat| (&seat.service, seat.address.as_str())).collect();
    let asked = members.iter().map(|member| async {
        if member.service == *me {
            return Some(member.service.clone());
        }
        let target = Target::address(seats.get(&member.service)?);
        let peers = node.context.peers();
        let told = peers.call(&target, &STATUS, &Nothing {}, None, ASK_LIMIT).await.ok()?;
        let is_it = told.service == member.service && told.group == Some(group.id);
        is_it.then(|| member.service.clone())
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// The coordinator that waits at an address to be let in.
async fn find(
    node: &Node,
    group: &Group,
    service: &ServiceRef,
    address: &str,
) -> Result<FoundingMember, Failure> {
    let target = Target::address(address);
    let began = Instant::now();
    loop {
        let peers = node.context.peers();
        let report = peers.call(&target, &BOOTSTRAP, &Nothing {}, None, ASK_LIMIT).await;
        let why = match report {
            Ok(report) => match is_waiting(group, service, &report) {
                Ok(()) => {
                    let (service, raft_id) = (report.service, report.raft_id);
                    return Ok(FoundingMember { service, raft_id, address: target.address });
                }
                Err(why) => (NEWCOMER_LIMIT, Failure::new(ErrorCode::Unsatisfiable, why)),
            },
            Err(error) => (
                ABSENT_LIMIT,
                Failure::new(
                    ErrorCode::Unsatisfiable,
                    format!(
                        "no coordinator answers at {address} ({error}): start it there first, with `plinth node --coordinator {address}` on {}",
                        service.node
                    ),
                ),
            ),
        };
        let (limit, failure) = why;
        if began.elapsed() >= limit {
            return Err(failure);
        }
        sleep(MEMBERS_LOOK).await;
    }
}

fn is_waiting(group: &Group, service: &ServiceRef, report: &BootstrapReport) -> Result<(), String> {
    if report.service != *service {
        return Err(format!("it is {} that answers there, not {service}", report.service));
    }
    if report.joining != Some(group.id) {
        return Err(format!(
            "{service} does not wait to be let into this group: see the /v1/status of its own for what it waits for"
        ));
    }
    Ok(())
}

/// Makes a newcomer a learner, and waits until it has the log.
async fn teach(node: &Node, group: &Group, newcomer: &FoundingMember) -> Result<(), Failure> {
    set_node(node, group, newcomer).await?;
    let deadline = Instant::now() + CATCH_UP_LIMIT;
    while !is_whole(group, newcomer.raft_id) {
        if Instant::now() >= deadline {
            let detail = format!(
                "{} has not caught up within {} s: try again",
                newcomer.service,
                CATCH_UP_LIMIT.as_secs()
            );
            return Err(Failure::new(ErrorCode::NotReady, detail));
        }
        sleep(MEMBERS_LOOK).await;
    }
    Ok(())
}

/// Notes where somebody answers. Who is not there yet becomes a learner; whatever else is left there under its
/// name without a vote is taken out, for it never answers again.
async fn set_node(node: &Node, group: &Group, member: &FoundingMember) -> Result<(), Failure> {
    let seats = group.seats();
    let is_left = |seat: &&Seat| seat.service == member.service && seat.raft_id != member.raft_id;
    let left: BTreeSet<u64> =
        seats.learners.iter().filter(is_left).map(|seat| seat.raft_id).collect();
    if !left.is_empty() {
        change(node, group, ChangeMembers::RemoveNodes(left)).await?;
    }
    let known = Member { service: Some(member.service.clone()), address: member.address.clone() };
    let nodes = BTreeMap::from([(member.raft_id, known)]);
    change(node, group, ChangeMembers::SetNodes(nodes)).await
}

/// Lets a coordinator be what it asks to be, if it may.
///
/// # Errors
/// It is no member and nobody has ordered that it become one, or the membership can't be changed now.
pub(crate) async fn admit(
    node: Arc<Node>,
    group: Group,
    request: JoinRequest,
) -> Result<(), Failure> {
    let JoinRequest { member, .. } = request;
    let state = node.read(&group).await?;
    let seats = group.seats();
    let mut voters = seats.voters.iter().flatten();
    if let Some(known) = voters.clone().find(|known| known.raft_id == member.raft_id) {
        if known.address == member.address {
            return Ok(());
        }
        tracing::info!(service = %member.service, from = known.address, to = member.address, "answers elsewhere now");
        node.context.runtime().mark("coordinator.members.elsewhere");
        return set_node(&node, &group, &member).await;
    }
    if voters.any(|known| known.service == member.service) {
        return replace(&node, &group, member).await;
    }
    let wanted = state.recorded.as_ref().map(|recorded| &recorded.config.next_coordinators);
    if wanted.is_some_and(|wanted| names_of(wanted).contains(&member.service)) {
        if !seats.learners.iter().any(|known| known.raft_id == member.raft_id) {
            set_node(&node, &group, &member).await?;
        }
        return Err(Failure::new(ErrorCode::NotReady, "it is being let in"));
    }
    let detail = format!(
        "it is no member of the group: `plinth members add {} {}` lets it in",
        member.service, member.address
    );
    Err(Failure::new(ErrorCode::NotReady, detail))
}

/// Makes a coordinator a voter in place of the member of its name, whose votes are lost.
async fn replace(node: &Node, group: &Group, member: FoundingMember) -> Result<(), Failure> {
    let _one = node.voting.lock().await;
    let Some(seats) = group.seats().only().map(<[_]>::to_vec) else {
        return Err(no_quorum("the membership is being changed: try again"));
    };
    let mut voters: BTreeSet<u64> = seats
        .iter()
        .filter(|known| known.service != member.service)
        .map(|known| known.raft_id)
        .collect();
    voters.insert(member.raft_id);
    tracing::info!(service = %member.service, raft_id = member.raft_id, by = %node.context.service(), "joins");
    let newcomer = Member { service: Some(member.service), address: member.address };
    let _wanted = node.want(member.raft_id);
    let change = async {
        group.raft.add_learner(member.raft_id, newcomer, true).await?;
        group.raft.change_membership(voters, false).await
    };
    match timeout(WRITE_LIMIT, change).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(no_quorum(format!("the membership can't be changed now: {error}"))),
        Err(_) => Err(no_quorum("the change of the membership takes too long: try again")),
    }
}
