//! The leader's task: there is a living director of the latest epoch, or the next is appointed.
//!
//! A new leader adopts a director that lives. Every appointment is a fresh epoch, durable in Raft
//! before the director hears of it. A director that has exited, or was taken for dead, is never
//! appointed again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use plinth_api::coordinator::{Appointed, Farewell};
use plinth_api::director::{APPOINT, Appointment, DISMISS, Dismissal, STATUS};
use plinth_api::{Nothing, Target};
use plinth_service::{Failure, MonitorEnd, watch};
use plinth_system_config::Parameters;
use plinth_telemetry::{record_error, recovery_span};
use plinth_types::{Epoch, Incarnation, NodeId, ServiceRef};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tracing::{Instrument as _, Span};

use crate::backoff;
use crate::config::ASK_LIMIT;
use crate::members;
use crate::node::{Event, Group, Node, Start, View};
use crate::registry::Candidate;
use crate::state::{Applied, ClusterState, Command};

/// The cause where an appointment is void and nobody says why.
const VOID: &str = "the appointment is void";
/// Between two looks at something that has no event of its own.
const LOOK: Duration = Duration::from_millis(100);

/// Leads, whenever this coordinator is the leader and knows how it starts. Never returns.
pub(crate) async fn run(node: Arc<Node>, mut events: mpsc::Receiver<Event>) {
    let mut spent = BTreeSet::new();
    loop {
        let (group, adopt) = until_leading(&node).await;
        tracing::info!(term = group.raft.metrics().borrow().current_term, "leading");
        let mut leader = Leader {
            node: &node,
            group: &group,
            spent: &mut spent,
            cause: None,
            over: None,
            suspects: Vec::new(),
            is_first: true,
            is_asked: false,
            asked: BTreeSet::new(),
            above: None,
        };
        tokio::select! {
            biased;
            () = until_deposed(&node, &group) => tracing::info!("not leading any more"),
            () = leader.lead(adopt, &mut events) => {}
            () = members::tend(&node, &group) => {}
        }
        node.view.send_replace(View::default());
    }
}

async fn until_leading(node: &Node) -> (Group, Option<Arc<Command>>) {
    let mut start = node.start.subscribe();
    let mut groups = node.group.subscribe();
    loop {
        let decided = match &*start.borrow_and_update() {
            Start::Decided(adopt) => Some(adopt.clone()),
            Start::Deciding => None,
        };
        let active = groups.borrow_and_update().clone();
        match (decided, active) {
            (Some(adopt), Some(group)) => {
                if group.is_leading() {
                    return (group, adopt);
                }
                let mut metrics = group.raft.server_metrics();
                metrics.mark_unchanged();
                tokio::select! {
                    biased;
                    _ = start.changed() => {}
                    _ = groups.changed() => {}
                    // A leader is seen in two steps; the second may have come before the look.
                    changed = timeout(LOOK, metrics.changed()) => {
                        if matches!(changed, Ok(Err(_))) {
                            // Raft has ended, and so will the service: there is nothing to hurry for.
                            sleep(LOOK).await;
                        }
                    }
                }
            }
            _ => tokio::select! {
                biased;
                _ = start.changed() => {}
                _ = groups.changed() => {}
            },
        }
    }
}

async fn until_deposed(node: &Node, group: &Group) {
    let mut metrics = group.raft.server_metrics();
    let mut groups = node.group.subscribe();
    loop {
        metrics.mark_unchanged();
        let is_active = groups.borrow_and_update().as_ref().is_some_and(|now| now.is(group));
        if !is_active || !group.is_leading() {
            return;
        }
        tokio::select! {
            biased;
            changed = metrics.changed() => if changed.is_err() { return },
            changed = groups.changed() => if changed.is_err() { return },
        }
    }
}

struct Leader<'a> {
    node: &'a Arc<Node>,
    group: &'a Group,
    /// Directors that are never appointed again.
    spent: &'a mut BTreeSet<Incarnation>,
    /// Why the next epoch begins, where something has ended the one before.
    cause: Option<String>,
    /// The appointment that has ended last. Where it was voided, the state names it no more.
    over: Option<Appointed>,
    suspects: Vec<ServiceRef>,
    /// Whether this leader has appointed nobody yet.
    is_first: bool,
    /// Whether somebody has asked for the next epoch.
    is_asked: bool,
    /// Epochs in place of which another one was asked for.
    asked: BTreeSet<Epoch>,
    /// The latest epoch that a director has heard of, where the coordinators' group does not know it.
    above: Option<Epoch>,
}

impl Leader<'_> {
    async fn lead(&mut self, adopt: Option<Arc<Command>>, events: &mut mpsc::Receiver<Event>) {
        while let Err(failure) = self.prepare(adopt.as_deref()).await {
            self.fail(&failure).await;
        }
        loop {
            if let Err(failure) = self.step(events).await {
                self.fail(&failure).await;
            }
        }
    }

    async fn fail(&self, failure: &Failure) {
        self.problem(Some(failure.0.detail.clone()));
        sleep(LOOK).await;
    }

    fn problem(&self, problem: Option<String>) {
        self.node.view.send_if_modified(|view| {
            let is_new = view.problem != problem;
            if is_new && let Some(problem) = &problem {
                tracing::warn!(problem, "no epoch can be begun");
            }
            view.problem = problem;
            is_new
        });
    }

    /// What comes before any appointment.
    async fn prepare(&self, adopt: Option<&Command>) -> Result<(), Failure> {
        let state = self.node.read(self.group).await?;
        if state.group.is_none() {
            let founding = self.group.founding.as_deref().ok_or_else(|| {
                Failure::new(plinth_api::ErrorCode::NotReady, "the group's founding is not here")
            })?;
            let cluster = self.node.cluster.cluster_id;
            let found = Command::Found { cluster, founding: founding.clone() };
            self.node.write(self.group, found).await?;
        }
        if let Some(adopt) = adopt {
            self.node.context.runtime().mark("coordinator.adopted_stored_config");
            self.node.write(self.group, adopt.clone()).await?;
        }
        Ok(())
    }

    async fn step(&mut self, events: &mut mpsc::Receiver<Event>) -> Result<(), Failure> {
        let state = self.node.read(self.group).await?;
        match state.appointed.as_ref() {
            Some(appointed) if !self.spent.contains(&appointed.pid.incarnation) => {
                match self.take_up(&state, appointed).await {
                    Ok(span) => self.watch_over(appointed, span, events).await,
                    Err(cause) => self.end(appointed, cause, Vec::new()),
                }
                Ok(())
            }
            _ => self.appoint(&state, events).await,
        }
    }

    /// An epoch is over.
    fn end(&mut self, appointed: &Appointed, cause: String, suspects: Vec<ServiceRef>) {
        tracing::warn!(epoch = %appointed.epoch, director = %appointed.service, cause, "the epoch is over");
        self.node.meters.count_end(self.group.state().ready_epoch == appointed.epoch);
        self.spent.insert(appointed.pid.incarnation);
        self.cause = Some(cause);
        self.over = Some(appointed.clone());
        self.suspects = suspects;
        self.node.view.send_replace(View::default());
    }

    /// Makes sure that the appointed director lives and knows of its epoch. Answers the span of the
    /// recovery that it begins, if it has just been told.
    async fn take_up(
        &self,
        state: &ClusterState,
        appointed: &Appointed,
    ) -> Result<Option<Span>, String> {
        let peers = self.node.context.peers();
        let target = Target::from(&appointed.pid);
        let who = &appointed.service;
        let status = peers
            .call(&target, &STATUS, &Nothing {}, None, ASK_LIMIT)
            .await
            .map_err(|error| format!("{who} is gone: {error}"))?;
        if status.epoch == appointed.epoch {
            self.node.context.runtime().mark("coordinator.adopted_living_director");
            return Ok(None);
        }
        if status.epoch != Epoch::ZERO {
            return Err(format!("{who} serves epoch {}", status.epoch));
        }
        let span = recovery_span(&self.node.context.service().to_string(), appointed.epoch.0);
        let age = self.group.since.elapsed().as_millis();
        let appointment = Appointment {
            epoch: appointed.epoch,
            director: appointed.pid.incarnation,
            cause: appointed.cause.clone(),
            suspects: self.suspects.clone(),
            group_age_ms: u64::try_from(age).unwrap_or(u64::MAX),
        };
        let epoch = Some(state.epoch);
        let call = async { peers.call(&target, &APPOINT, &appointment, epoch, ASK_LIMIT).await };
        match call.instrument(span.clone()).await {
            Ok(_) => Ok(Some(span)),
            Err(error) => {
                record_error(&span, &error);
                Err(format!("{who} does not take the appointment: {error}"))
            }
        }
    }

    /// Watches the director until its epoch is over.
    async fn watch_over(
        &mut self,
        appointed: &Appointed,
        mut span: Option<Span>,
        events: &mut mpsc::Receiver<Event>,
    ) {
        let node = Arc::clone(self.node);
        let epoch = appointed.epoch;
        let director = appointed.pid.incarnation;
        // A change of the parameters holds from the next line on.
        let known = self.group.states.clone();
        let silence = || {
            let state = known.borrow();
            let recorded = state.recorded.as_ref();
            let now = recorded.map(|recorded| recorded.config.parameters.failure_timeout_ms);
            Duration::from_millis(now.unwrap_or_else(|| Parameters::default().failure_timeout_ms))
        };
        node.view.send_replace(View { watched: Some(director), ..View::default() });
        let target = Target::from(&appointed.pid);
        let shown = &node.view;
        let watching = watch(&node.context, &target, silence, |line| {
            shown.send_if_modified(|view| {
                let is_new = view.phase.as_ref() != Some(&line.state);
                view.phase = Some(line.state);
                is_new
            });
        });
        let mut watching = std::pin::pin!(watching);
        let mut states = self.group.states.clone();
        let (cause, suspects) = loop {
            let (is_ready, voided) = {
                let state = states.borrow_and_update();
                let is_void = state.appointed.as_ref() != Some(appointed);
                (state.ready_epoch == epoch, is_void.then(|| state.voided.clone()))
            };
            if let Some(why) = voided {
                break (why.unwrap_or_else(|| VOID.to_owned()), Vec::new());
            }
            if is_ready && let Some(span) = span.take() {
                // A span ends where it was left last.
                span.in_scope(|| tracing::info!(%epoch, "the recovery is over"));
            }
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(Event::Farewell(Farewell { epoch: of, director: who, reason, suspects, later }))
                        if of == epoch && who == director =>
                    {
                        self.above = self.above.max(later);
                        break (format!("{}: {reason}", appointed.service), suspects);
                    }
                    Some(Event::Begin { over, reason }) if over == epoch => {
                        self.is_asked = true;
                        self.asked.insert(epoch);
                        break (reason, Vec::new());
                    }
                    Some(Event::Begin { .. } | Event::Farewell(_)) => {}
                    None => return,
                },
                end = &mut watching => break (describe(&appointed.service, end), Vec::new()),
                changed = states.changed() => if changed.is_err() { return },
            }
        };
        if let Some(span) = &span {
            record_error(span, &cause);
            span.in_scope(|| tracing::info!(%epoch, "the recovery has failed"));
        }
        self.end(appointed, cause, suspects);
    }

    /// Appoints the next director, once there is one and it is time. Whoever asks for a new epoch
    /// does not wait for the time.
    async fn appoint(
        &mut self,
        state: &ClusterState,
        events: &mut mpsc::Receiver<Event>,
    ) -> Result<(), Failure> {
        let node = self.node;
        self.asked.retain(|asked| *asked > state.ready_epoch);
        let asked = u64::try_from(self.asked.len()).unwrap_or(u64::MAX);
        let failed = state.failed_epochs().saturating_sub(asked);
        let delay = if self.is_first {
            Duration::ZERO
        } else {
            backoff::delay(failed, node.context.runtime().random_u64())
        };
        if !delay.is_zero() {
            let delay_ms = delay.as_millis();
            tracing::warn!(failed, delay_ms, "epochs keep failing: the next appointment waits");
        }
        node.meters.show_backoff(delay);
        let due = Instant::now() + delay;
        let candidate = loop {
            let news = node.reported.notified();
            let wait = match self.next_candidate(state) {
                Ok(candidate) => match due.checked_duration_since(Instant::now()) {
                    Some(wait) if !wait.is_zero() && !self.is_asked => {
                        self.problem(Some(format!(
                            "{failed} epochs in a row have failed: the next one begins in {} ms",
                            delay.as_millis()
                        )));
                        wait
                    }
                    _ => break candidate,
                },
                Err(problem) => {
                    self.problem(Some(problem));
                    self.dismiss(state).await;
                    LOOK
                }
            };
            // Told of a report, or at least looked again: reports also expire.
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(Event::Begin { over, .. }) if over == state.epoch => self.is_asked = true,
                    Some(Event::Begin { .. } | Event::Farewell(_)) => {}
                    None => return Ok(()),
                },
                _ = timeout(wait, news) => {}
            }
        };
        self.problem(None);
        let cause = self.cause.clone().or_else(|| state.voided.clone());
        let cause = cause.unwrap_or_else(|| first_cause(state));
        let command = Command::Appoint {
            service: candidate.service.clone(),
            pid: candidate.pid.clone(),
            cause,
            above: self.above.filter(|above| *above > state.epoch),
        };
        if let Applied::Appointed(appointed) = node.write(self.group, command).await? {
            assert!(appointed.epoch > state.epoch, "an appointment is always a fresh epoch");
            tracing::info!(epoch = %appointed.epoch, director = %appointed.service, cause = appointed.cause, "appointed");
            (self.is_first, self.is_asked) = (false, false);
            node.meters.count_appointment();
        }
        node.meters.show_backoff(Duration::ZERO);
        Ok(())
    }

    /// Where nobody stands by, the director of the epoch that is over may well live: frozen for a
    /// while, or told nothing of it, as no later epoch has begun. It makes way for another one.
    async fn dismiss(&self, state: &ClusterState) {
        let Some(appointed) = &self.over else { return };
        let dismissal = Dismissal {
            epoch: appointed.epoch,
            director: appointed.pid.incarnation,
            reason: self.cause.clone().unwrap_or_else(|| first_cause(state)),
        };
        let (peers, target) = (self.node.context.peers(), Target::from(&appointed.pid));
        if peers.call(&target, &DISMISS, &dismissal, Some(state.epoch), ASK_LIMIT).await.is_ok() {
            self.node.context.runtime().mark("coordinator.dismissed_director");
        }
    }

    fn next_candidate(&self, state: &ClusterState) -> Result<Candidate, String> {
        let node = self.node;
        let now = Instant::now();
        let registry = node.registry();
        if state.recorded.is_none() {
            let cluster = &node.cluster;
            let missing = registry.without_id(now, &cluster.initial_nodes, cluster.cluster_id);
            if !missing.is_empty() {
                let names: Vec<&str> = missing.iter().map(|node| node.as_str()).collect();
                return Err(format!(
                    "these nodes have not written the cluster's id yet: {}",
                    names.join(", ")
                ));
            }
        }
        let mut spent = self.spent.clone();
        spent.extend(state.appointed.as_ref().map(|appointed| appointed.pid.incarnation));
        let recorded = state.recorded.as_ref();
        let standing = |node: &NodeId| {
            recorded.map(|recorded| recorded.config.standing(node)).unwrap_or_default()
        };
        registry
            .candidate(now, &spent, &node.context.service().node, standing)
            .ok_or_else(|| "no director stands by: start one".to_owned())
    }
}

fn first_cause(state: &ClusterState) -> String {
    match (&state.appointed, &state.recorded) {
        (Some(appointed), _) => format!("{} is gone", appointed.service),
        (None, Some(_)) => {
            format!("the coordinators' group starts from a configuration of {}", state.source)
        }
        (None, None) => "cold start".to_owned(),
    }
}

fn describe(service: &ServiceRef, end: MonitorEnd) -> String {
    match end {
        MonitorEnd::Exited { reason } => format!("{service} has exited: {reason}"),
        MonitorEnd::Gone { detail } => format!("{service} is gone: {detail}"),
        MonitorEnd::Silent { after } => {
            format!("{service} was silent for {} ms", after.as_millis())
        }
    }
}

#[cfg(test)]
mod tests;
