//! Changes that are asked for: of parameters, of how nodes stand, and of the format level by the
//! administrator, of who the coordinators are by their leader. The task that makes
//! every change of the epoch's configuration ([`crate::replicating`]) makes these too, one at a time.
//!
//! A change is judged as a whole before anything is done, then recorded, kept, committed and proved
//! ([`crate::amending`]), and only then answered. One that asks for other components ends the epoch
//! after that: the next recovery recruits by it. Whatever fails on the way ends the director, and the
//! caller hears that the outcome is not known: the next epoch has the change or has it not, whole.

use std::sync::Arc;

use plinth_api::config::{
    ConfigPatch, ConfigPatched, LevelRaised, PatchState, RaiseLevel, level_refused, refused,
};
use plinth_api::members::{self, MembersRecorded, RecordMembers};
use plinth_api::nodes::{self, NodeOrdered, OrderNode};
use plinth_api::{ErrorCode, foreman::NodeReport};
use plinth_service::{Condition, Failure};
use plinth_system_config::{Proposal, Readers, Recorded, Supply};
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};

use crate::amending::{Account, Book, amend};
use crate::config::ORDERS;
use crate::fatal::Fatal;
use crate::registry::Registry;
use crate::reign::Reign;

type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// A change that is asked for.
pub(crate) enum Order {
    /// Of parameters.
    Parameters {
        patch: ConfigPatch,
        condition: Condition,
        dry_run: bool,
        reply: Reply<ConfigPatched>,
    },
    /// Of the level that the configuration is written at.
    Level(Raising, Reply<LevelRaised>),
    /// Of how a node stands.
    Node(OrderNode, Reply<NodeOrdered>),
    /// Of who the coordinators are.
    Members(RecordMembers, Reply<MembersRecorded>),
}

/// The format level is to be raised.
pub(crate) struct Raising {
    pub(crate) order: RaiseLevel,
    pub(crate) condition: Condition,
    pub(crate) dry_run: bool,
}

/// The way from those who ask to the task that makes changes. A clone is the same one.
#[derive(Clone)]
pub(crate) struct Orders {
    sender: mpsc::Sender<Order>,
    receiver: Arc<tokio::sync::Mutex<mpsc::Receiver<Order>>>,
}

impl Orders {
    pub(crate) fn new() -> Orders {
        let (sender, receiver) = mpsc::channel(ORDERS);
        Orders { sender, receiver: Arc::new(tokio::sync::Mutex::new(receiver)) }
    }

    /// The end at which orders come, for as long as it is kept.
    pub(crate) async fn take(&self) -> OwnedMutexGuard<mpsc::Receiver<Order>> {
        Arc::clone(&self.receiver).lock_owned().await
    }

    /// Gives an order, and waits until it is carried out.
    ///
    /// # Errors
    /// The change is refused, there are too many at once, or the director ends before it has been
    /// made, so that nobody knows whether it will be.
    pub(crate) async fn give<T>(
        &self,
        order: impl FnOnce(Reply<T>) -> Order,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        if self.sender.try_send(order(reply)).is_err() {
            return Err(Failure::new(ErrorCode::Overloaded, "too many changes at once"));
        }
        answer.await.unwrap_or_else(|_| {
            let detail = "the director ended on the way: read the configuration to see whether the change was made";
            Err(Failure::new(ErrorCode::CommitUnknownResult, detail))
        })
    }
}

/// What the nodes that report can run.
fn supply(nodes: &Registry) -> Supply {
    Supply(nodes.nodes().map(|report| report.supply()).collect())
}

/// Makes a change, or answers why not.
pub(crate) async fn carry_out(
    reign: &Reign,
    book: &Book,
    account: &mut Account,
    order: Order,
) -> Result<(), Fatal> {
    let recorded = book.borrow().recorded.clone();
    match order {
        Order::Parameters { patch, condition, dry_run, reply } => {
            let judged = judge(reign, &recorded, &patch, &condition, dry_run);
            change_parameters(reign, book, account, recorded, judged, reply).await
        }
        Order::Level(raising, reply) => {
            raise_level(reign, book, account, recorded, raising, reply).await
        }
        Order::Node(order, reply) => order_node(reign, book, account, recorded, order, reply).await,
        Order::Members(order, reply) => {
            record_members(reign, book, account, recorded, order, reply).await
        }
    }
}

/// A change of parameters, and what becomes of it where it is not made.
fn judge(
    reign: &Reign,
    recorded: &Recorded,
    patch: &ConfigPatch,
    condition: &Condition,
    dry_run: bool,
) -> Result<(Proposal, Option<PatchState>), Failure> {
    condition.check(&recorded.config.config_version)?;
    let proposal = recorded
        .propose(&patch.parameters.0, &supply(&reign.nodes()))
        .map_err(|errors| Failure::from(refused(&errors)))?;
    let state = match (dry_run, proposal.changed.is_empty()) {
        (true, _) => Some(PatchState::DryRun),
        (false, true) => Some(PatchState::Unchanged),
        (false, false) => None,
    };
    Ok((proposal, state))
}

async fn change_parameters(
    reign: &Reign,
    book: &Book,
    account: &mut Account,
    recorded: Recorded,
    judged: Result<(Proposal, Option<PatchState>), Failure>,
    reply: Reply<ConfigPatched>,
) -> Result<(), Fatal> {
    let config_version = recorded.config.config_version;
    // Whoever has gone away hears nothing, here and below.
    let proposal = match judged {
        Ok((proposal, None)) => proposal,
        Ok((proposal, Some(state))) => {
            let answer = ConfigPatched::new(proposal, state, config_version, reign.epoch);
            let _ = reply.send(Ok(answer));
            return Ok(());
        }
        Err(failure) => {
            let _ = reply.send(Err(failure));
            return Ok(());
        }
    };
    let (what, begins_epoch) = (proposal.describe(), proposal.begins_epoch());
    let next = recorded.with_parameters(proposal.parameters.clone());
    let config_version = next.config.config_version;
    tracing::info!(target: "plinth_audit", %config_version, what, "parameters are changed");
    amend(reign, book, account, next, format!("parameters: {what}")).await?;
    let answer = ConfigPatched::new(proposal, PatchState::Durable, config_version, reign.epoch);
    let _ = reply.send(Ok(answer));
    if begins_epoch {
        return Err(Fatal::new(format!("parameters were changed: {what}")));
    }
    Ok(())
}

/// Raises the level that the configuration is written at: everywhere, from the transaction on that this
/// makes.
async fn raise_level(
    reign: &Reign,
    book: &Book,
    account: &mut Account,
    recorded: Recorded,
    Raising { order, condition, dry_run }: Raising,
    reply: Reply<LevelRaised>,
) -> Result<(), Fatal> {
    let nodes = reign.nodes();
    let readers = nodes.nodes().map(|report| (report.node.clone(), report.reads())).collect();
    let raised = || recorded.raised(order.level, &Readers(readers), &order.without);
    let version = recorded.config.config_version;
    let judged = condition
        .check(&version)
        .and_then(|()| raised().map_err(|error| level_refused(&error).into()));
    let answer = |state, version| order.answer(state, &recorded, version, reign.epoch);
    let next = match judged {
        Ok(Some(next)) if !dry_run => next,
        Ok(next) => {
            let state = if next.is_some() { PatchState::DryRun } else { PatchState::Unchanged };
            let _ = reply.send(Ok(answer(state, version)));
            return Ok(());
        }
        Err(failure) => {
            let _ = reply.send(Err(failure));
            return Ok(());
        }
    };
    let (config_version, what) = (next.config.config_version, order.describe(&recorded));
    tracing::info!(target: "plinth_audit", %config_version, what, "the format level is raised");
    amend(reign, book, account, next, what).await?;
    let _ = reply.send(Ok(answer(PatchState::Durable, config_version)));
    Ok(())
}

/// Records who the coordinators are. What Raft does before and after, their leader brings about.
async fn record_members(
    reign: &Reign,
    book: &Book,
    account: &mut Account,
    recorded: Recorded,
    order: RecordMembers,
    reply: Reply<MembersRecorded>,
) -> Result<(), Fatal> {
    let RecordMembers { expected, coordinators, next_coordinators, what } = order;
    let config = &recorded.config;
    let config_version = config.config_version;
    if (&config.coordinators, &config.next_coordinators) == (&coordinators, &next_coordinators) {
        // An earlier request has done it, and its answer was lost.
        let _ = reply.send(Ok(MembersRecorded { config_version }));
        return Ok(());
    }
    if config_version != expected {
        let detail = format!("configuration {config_version} is recorded, not {expected}");
        let _ = reply.send(Err(Failure::new(ErrorCode::PreconditionFailed, detail)));
        return Ok(());
    }
    let seen = reign.nodes().nodes().map(|report| (report.node.clone(), report.entry())).collect();
    let next = match recorded.with_members(coordinators, next_coordinators, &seen) {
        Ok(next) => next,
        Err(error) => {
            let _ = reply.send(Err(members::refused(&error).into()));
            return Ok(());
        }
    };
    let config_version = next.config.config_version;
    amend(reign, book, account, next, what).await?;
    let _ = reply.send(Ok(MembersRecorded { config_version }));
    Ok(())
}

/// Orders how a node stands. What follows of it, the looks at the teams and logs bring about.
async fn order_node(
    reign: &Reign,
    book: &Book,
    account: &mut Account,
    recorded: Recorded,
    order: OrderNode,
    reply: Reply<NodeOrdered>,
) -> Result<(), Fatal> {
    let nodes = reign.nodes();
    let seen = nodes.node(&order.node).map(NodeReport::entry);
    let next = match recorded.ordered(&order.node, order.standing, seen, &supply(&nodes)) {
        Ok(Some(next)) if !order.dry_run => next,
        Ok(next) => {
            let state = if next.is_some() { PatchState::DryRun } else { PatchState::Unchanged };
            let _ = reply.send(Ok(order.answer(state, &recorded, reign.epoch)));
            return Ok(());
        }
        Err(error) => {
            let _ = reply.send(Err(nodes::refused(&error).into()));
            return Ok(());
        }
    };
    let (config_version, what) = (next.config.config_version, order.describe());
    tracing::info!(target: "plinth_audit", %config_version, what, "a node is ordered about");
    let answer = order.answer(PatchState::Durable, &next, reign.epoch);
    amend(reign, book, account, next, what).await?;
    let _ = reply.send(Ok(answer));
    Ok(())
}
