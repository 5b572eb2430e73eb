//! Decides what to start from: gathers what can be learnt, has it weighed by the pure decision, and
//! does what that says. Again and again until it is decided, and again after a group was renounced.

use std::collections::BTreeSet;
use std::sync::Arc;

use plinth_api::coordinator::{Bootstrap, Founding, JOIN, JoinRequest};
use plinth_api::{CallError, ErrorCode, Target};
use plinth_system_config::BootstrapSource;
use plinth_system_config::bootstrap::{
    Decision, Floor, Inputs, Known, Missing, Outcome, RaftState, decide, recovery_option,
};
use plinth_types::{Epoch, GroupId, ServiceRef, Version};
use tokio::time::{Instant, sleep, timeout};

use crate::ballots::{self, Ballot};
use crate::config::{BALLOT_TURN, BOOTSTRAP_ROUND, FORWARD_LIMIT, JOIN_PAUSE};
use crate::founding::{Plan, Quorum};
use crate::inputs;
use crate::node::{DECIDING, Node, Start};
use crate::state::Command;

/// How long a re-founding waits for coordinators that have not answered, before it goes on with the
/// majority that has.
const STRAGGLERS: std::time::Duration = std::time::Duration::from_secs(2);

/// How long it waits before it tells that an operator may decide without whoever is missing.
const OPERATORS_TURN: std::time::Duration = std::time::Duration::from_secs(10);

/// Decides, whenever there is something to decide. Never returns.
pub(crate) async fn run(node: Arc<Node>) {
    let mut start = node.start.subscribe();
    loop {
        let mut round =
            Round { node: &node, heard: 0, since: Instant::now(), rejected: vec![], joins: None };
        while !node.is_decided() {
            round.hold().await;
            if node.is_decided() {
                break;
            }
            drop(timeout(BOOTSTRAP_ROUND, start.wait_for(is_decided)).await);
        }
        // Ends only with the node, which this task holds.
        drop(start.wait_for(|start| !is_decided(start)).await);
    }
}

fn is_decided(start: &Start) -> bool {
    matches!(start, Start::Decided(_))
}

struct Round<'a> {
    node: &'a Arc<Node>,
    heard: u64,
    since: Instant,
    /// What could not be used, as it was told last.
    rejected: Vec<String>,
    /// The group that it has asked to be let into, and what it started from.
    joins: Option<(GroupId, Bootstrap)>,
}

impl Round<'_> {
    async fn hold(&mut self) {
        let node = self.node;
        let inputs = match inputs::gather(node, self.since).await {
            Ok(inputs) => inputs,
            Err(failure) => return self.wait(&failure.0.detail, &[]),
        };
        if node.is_decided() {
            // A founding was taken up while others were asked: what was learnt is of before it.
            return;
        }
        let outcome = decide(&inputs);
        let rejected = texts(&outcome);
        self.report_rejected(&rejected);
        match outcome.decision.clone() {
            Decision::GoOn { group_id, .. } => self.go_on(&inputs, &outcome, group_id, None).await,
            Decision::GoOnFounding { group_id, discard } => {
                for manifest in discard {
                    tracing::info!(service = %manifest.service, store = %manifest.store, "left over by a founding that did not finish");
                }
                self.go_on(&inputs, &outcome, group_id, None).await;
            }
            Decision::AdoptHigher { group_id, recorded, floor, .. } => {
                let floor = floor.apart(node.context.runtime().random_u128());
                let command = Command::Adopt {
                    recorded: Arc::unwrap_or_clone(recorded),
                    epoch_floor: floor.epoch,
                    version_floor: floor.version,
                };
                self.go_on(&inputs, &outcome, group_id, Some(Arc::new(command))).await;
            }
            Decision::Rejoin { group_id, .. } => self.rejoin(&outcome, group_id).await,
            Decision::Refound { recorded, from, members, former, renounce, floor }
            | Decision::RebuildFromManifests { recorded, from, members, former, renounce, floor } =>
            {
                let mut concerned = members.iter().chain(&former);
                let is_complete = concerned.all(|member| is_heard(&inputs, member));
                if !is_complete && self.since.elapsed() < STRAGGLERS {
                    return self.wait("the other coordinators' answers", &rejected);
                }
                let mut lost: BTreeSet<GroupId> = renounce.into_values().collect();
                lost.insert(recorded.config.group_id);
                let source = match &outcome.decision {
                    Decision::RebuildFromManifests { .. } => BootstrapSource::Manifests,
                    _ => BootstrapSource::Storage,
                };
                let founding = Founding {
                    recorded: Some(Arc::unwrap_or_clone(recorded)),
                    storage: from.map(|keeper| keeper.service),
                    ..founding(node, source, floor)
                };
                let plan = plan(node, [&members, &former], Quorum::Majority, lost, founding);
                self.ballot(plan, &rejected).await;
            }
            Decision::ColdStart { members } => {
                let floor = Floor { epoch: Epoch::ZERO, version: Version::ZERO };
                let founding = founding(node, BootstrapSource::Default, floor);
                let nobody = BTreeSet::new();
                let plan = plan(node, [&members, &nobody], Quorum::All, BTreeSet::new(), founding);
                self.ballot(plan, &rejected).await;
            }
            Decision::Wait { missing } => {
                let mut what = list(&missing);
                if self.since.elapsed() > OPERATORS_TURN && recovery_option(&inputs).is_ok() {
                    what += "; if that never comes, decide with `plinth recover`";
                }
                self.wait(&what, &rejected);
            }
            Decision::Unready { obstacle } => {
                self.wait(&format!("an operator: {obstacle}"), &rejected);
            }
        }
    }

    /// Tells of configurations that can't be used, when there are others than before.
    fn report_rejected(&mut self, rejected: &[String]) {
        if self.rejected == rejected {
            return;
        }
        for one in rejected.iter().filter(|one| !self.rejected.contains(one)) {
            tracing::warn!(rejected = one, "a configuration can't be used");
        }
        self.node.meters.show_rejected(rejected.len());
        self.rejected = rejected.to_vec();
    }

    async fn go_on(
        &mut self,
        inputs: &Inputs,
        outcome: &Outcome,
        group: GroupId,
        adopt: Option<Arc<Command>>,
    ) {
        let node = self.node;
        if node.active().is_none() && acts_in(inputs, group) {
            // Accepted here, but what came of it was never heard.
            match ballots::take_up_accepted(node, group).await {
                Ok(true) => {}
                Ok(false) => return self.rejoin(outcome, group).await,
                Err(failure) => return self.wait(&failure.0.detail, &[]),
            }
        }
        if node.active().is_none_or(|active| active.id != group) {
            return self.wait("the founding of the coordinators' group", &texts(outcome));
        }
        // A founding that was taken up just now, here too, has said what it started from.
        // One that was let in while it asked has been so ever since it first asked.
        let joined = self.joins.as_ref().filter(|(asked, _)| *asked == group);
        let status = joined.map_or_else(|| status(outcome), |(_, joined)| joined.clone());
        node.decide_first(status, adopt);
    }

    async fn rejoin(&mut self, outcome: &Outcome, group: GroupId) {
        let node = self.node;
        self.joins = Some((group, status(outcome)));
        let raft_id = match ballots::rejoin(node, group).await {
            Ok(raft_id) => raft_id,
            Err(failure) => return self.wait(&failure.0.detail, &[]),
        };
        let request = JoinRequest { group, member: node.as_member(raft_id) };
        for (service, addresses) in node.contacts.everybody() {
            if service == *node.context.service() {
                continue;
            }
            for address in addresses {
                let target = Target::address(&address);
                let peers = node.context.peers();
                let answer = peers.call(&target, &JOIN, &request, None, 2 * FORWARD_LIMIT).await;
                match answer {
                    Ok(_) => return self.let_in(outcome).await,
                    // Asked often enough by itself: an order or a change of the membership takes longer.
                    Err(CallError::Problem(problem)) if problem.code == ErrorCode::NotReady => {
                        self.wait(&format!("to be let in: {}", problem.detail), &[]);
                        return sleep(JOIN_PAUSE).await;
                    }
                    Err(error) => self.wait(&format!("{service} to let it join: {error}"), &[]),
                }
            }
        }
    }

    /// The group has let it in, which it hears of a little later.
    async fn let_in(&self, outcome: &Outcome) {
        let node = self.node;
        let deadline = Instant::now() + FORWARD_LIMIT;
        while node.records.lock().await.part().is_joining {
            if Instant::now() >= deadline {
                return self.wait("to hear that it was let in", &[]);
            }
            sleep(BOOTSTRAP_ROUND).await;
        }
        node.decide_first(status(outcome), None);
    }

    async fn ballot(&mut self, plan: Plan, rejected: &[String]) {
        self.wait("the founding of the coordinators' group", rejected);
        let me = self.node.context.service();
        let turn = plan.members.keys().position(|service| service == me).unwrap_or_default();
        if turn > 0 {
            // The first goes ahead; should it not, the next. Ballots that meet only delay.
            let turns = u32::try_from(turn).unwrap_or(u32::MAX);
            let mut start = self.node.start.subscribe();
            let wait = BALLOT_TURN.saturating_mul(turns);
            if timeout(wait, start.wait_for(is_decided)).await.is_ok() {
                return;
            }
        }
        if let Ballot::Failed { highest } = ballots::hold(self.node, &plan, self.heard).await {
            self.heard = self.heard.max(highest);
            let jitter = self.node.context.runtime().random_u64() % 100;
            sleep(std::time::Duration::from_millis(jitter)).await;
        }
    }

    fn wait(&self, what: &str, rejected: &[String]) {
        self.node.bootstrap.send_if_modified(|bootstrap| {
            if bootstrap.source != DECIDING {
                return false;
            }
            let is_new = bootstrap.waiting_for.as_deref() != Some(what);
            if is_new {
                tracing::info!(waiting_for = what, "bootstrap");
                bootstrap.waiting_for = Some(what.to_owned());
            }
            bootstrap.rejected = rejected.to_vec();
            is_new
        });
        if !self.node.is_decided() {
            self.node.context.set_check("bootstrap", Err(format!("waiting for {what}")));
        }
    }
}

/// A founding of a new group that starts from nothing; its members are filled in by its ballot.
pub(crate) fn founding(node: &Node, source: BootstrapSource, floor: Floor) -> Founding {
    let group = GroupId(node.context.runtime().random_u128());
    // The first group of a cluster has none before it.
    let floor = if floor.epoch == Epoch::ZERO { floor } else { floor.apart(group.0) };
    Founding {
        group,
        members: Vec::new(),
        recorded: None,
        epoch_floor: floor.epoch,
        version_floor: floor.version,
        source: text(source).to_owned(),
        storage: None,
    }
}

/// What is needed to hold a ballot on a founding with these members, and with those of before taking part.
/// A coordinator that nobody has said the address of can't be asked, but still counts.
pub(crate) fn plan(
    node: &Node,
    [members, former]: [&BTreeSet<ServiceRef>; 2],
    quorum: Quorum,
    lost: BTreeSet<GroupId>,
    founding: Founding,
) -> Plan {
    let addresses = |services: &BTreeSet<ServiceRef>| {
        let known = |service: &ServiceRef| node.contacts.of(Some(service)).into_iter().next();
        let address = |service: &ServiceRef| known(service).unwrap_or_default();
        services.iter().map(|service| (service.clone(), address(service))).collect()
    };
    Plan {
        members: addresses(members),
        former: addresses(former),
        quorum,
        unheard: node.context.runtime().random_u64(),
        renounce: lost.into_iter().collect(),
        founding,
    }
}

/// Whether a majority of the members of a group was heard to act in it.
fn acts_in(inputs: &Inputs, group: GroupId) -> bool {
    let acting = |state: &Known<RaftState>| matches!(state, Known::Has(RaftState::Running(report)) if report.group_id == group);
    let members = inputs.peers.values().find_map(|state| match state {
        Known::Has(RaftState::Running(report)) if report.group_id == group => {
            Some(report.members.len())
        }
        _ => None,
    });
    let count = inputs.peers.values().filter(|state| acting(state)).count();
    members.is_some_and(|members| count > members / 2)
}

fn is_heard(inputs: &Inputs, member: &ServiceRef) -> bool {
    *member == inputs.me || inputs.peers.get(member).is_some_and(|state| *state != Known::Unknown)
}

pub(crate) fn list(missing: &[Missing]) -> String {
    let all: Vec<String> = missing.iter().map(ToString::to_string).collect();
    all.join(", ")
}

fn texts(outcome: &Outcome) -> Vec<String> {
    outcome
        .rejected
        .iter()
        .map(|rejected| {
            format!("{} (store {}): {}", rejected.service, rejected.store, rejected.reason)
        })
        .collect()
}

pub(crate) fn text(source: BootstrapSource) -> &'static str {
    match source {
        BootstrapSource::Raft => "raft",
        BootstrapSource::Peers => "peers",
        BootstrapSource::Storage => "storage",
        BootstrapSource::Default => "default",
        BootstrapSource::Manifests => "manifests",
    }
}

fn status(outcome: &Outcome) -> Bootstrap {
    let mut bootstrap = crate::node::deciding();
    if let Some(status) = outcome.status() {
        text(status.source).clone_into(&mut bootstrap.source);
        bootstrap.storage = status.storage;
        bootstrap.epoch = status.epoch;
        bootstrap.config_version = status.config_version;
    }
    bootstrap.rejected = texts(outcome);
    bootstrap
}
