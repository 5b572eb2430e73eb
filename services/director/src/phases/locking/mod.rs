//! `locking`: no earlier epoch acknowledges anything from here on.
//!
//! Every log of the recorded layout is locked at this epoch, all at once. A lock is durable before
//! it is answered, and a locked log accepts nothing of an earlier epoch. **Keeps: a locked log
//! accepts nothing of an earlier epoch** (invariants 2 and 3), and with the quorum of
//! [`machine`] **an acknowledged commit survives** (invariant 5).

mod machine;

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use plinth_api::coordinator::Holding;
use plinth_api::log::{LOCK, LockAnswer, LockRequest};
use plinth_api::{CallError, ErrorCode, Target};
use plinth_system_config::Recorded;
use plinth_types::{Pid, ServiceRef, StoreId, Version};
use tokio::time::sleep;

use self::machine::{LockSet, Miscount, Patience, Verdict};
use crate::config::{LOCK_LIMIT, RETRY};
use crate::fatal::{Fatal, Words, is_superseded};
use crate::registry::{Registry, Whereabouts};
use crate::reign::Reign;

pub(crate) use self::machine::LockedLog;

/// The logs of the old layout that are locked at this epoch.
#[derive(Clone, Debug)]
pub(crate) struct Locked {
    /// The configuration that the epoch goes on from; none before the first epoch.
    pub(crate) recorded: Option<Recorded>,
    /// The logs that count.
    pub(crate) logs: Vec<LockedLog>,
    /// Those that answered and don't count, with what is wrong with them.
    pub(crate) damaged: Vec<(ServiceRef, StoreId, String)>,
}

/// Locks the recorded layout's logs, or those of a newer layout where a log keeps one.
pub(crate) async fn run(reign: &Reign, holding: &Holding) -> Result<Locked, Fatal> {
    let Some(mut recorded) = holding.recorded.clone() else {
        return Ok(Locked { recorded: None, logs: Vec::new(), damaged: Vec::new() });
    };
    loop {
        match lock(reign, &recorded).await? {
            Outcome::Locked(locked) => return Ok(*locked),
            Outcome::Newer(newer) => {
                tracing::warn!(have = %recorded.stamp(), found = %newer.stamp(), "a log keeps a newer configuration than the coordinators: it is taken up");
                recorded = *newer;
            }
        }
    }
}

enum Outcome {
    Locked(Box<Locked>),
    Newer(Box<Recorded>),
}

/// One attempt to lock one log.
struct Attempt {
    store: StoreId,
    pid: Pid,
    result: Result<LockAnswer, CallError>,
}

async fn lock(reign: &Reign, recorded: &Recorded) -> Result<Outcome, Fatal> {
    let appointment = &reign.accepted.appointment;
    let suspects: BTreeSet<ServiceRef> = appointment.suspects.iter().cloned().collect();
    let patience = Patience::new(recorded, Duration::from_millis(appointment.group_age_ms));
    let mut set = LockSet::new(recorded, &suspects, patience);
    set.miscount = miscount(reign);
    let mut registry = reign.registry();
    let mut attempts = FuturesUnordered::new();
    let mut under_way = BTreeSet::new();
    loop {
        let nodes = registry.borrow_and_update().clone();
        let unanswered: Vec<(StoreId, ServiceRef)> =
            set.unanswered().map(|(store, service)| (store, service.clone())).collect();
        for (store, service) in unanswered {
            match whereabouts(&set, &nodes, store, &service) {
                Whereabouts::Up(pid) => {
                    set.hope(store, None);
                    if under_way.insert(store) {
                        attempts.push(attempt(reign, store, pid.clone()));
                    }
                }
                Whereabouts::Lost(reason) => set.hope(store, Some(reason)),
                Whereabouts::Coming | Whereabouts::Unknown => set.hope(store, None),
            }
        }
        let wait = match set.judge(reign.elapsed()) {
            Verdict::Newer(newer) => {
                reign.mark("director.layout_was_stale");
                return Ok(Outcome::Newer(newer));
            }
            Verdict::Enough => {
                let locked = locked(recorded, &set);
                if !locked.damaged.is_empty() {
                    reign.mark("director.log_damaged");
                }
                return Ok(Outcome::Locked(Box::new(locked)));
            }
            Verdict::Grace { until } => until.saturating_sub(reign.elapsed()),
            Verdict::NotEnough { lacking } => {
                reign.stalled(Some(lacking));
                RETRY
            }
        };
        tokio::select! {
            biased;
            Some(attempt) = attempts.next() => {
                under_way.remove(&attempt.store);
                took(&mut set, attempt)?;
            }
            Ok(()) = registry.changed() => {}
            () = sleep(wait) => {}
        }
    }
}

/// What is counted wrongly: nothing, outside of a simulation of these faults.
fn miscount(reign: &Reign) -> Miscount {
    let runtime = reign.context.runtime();
    Miscount {
        by_name: runtime.fault("director.counts_logs_by_name"),
        as_desired: runtime.fault("director.counts_desired_logs"),
    }
}

/// Where a log is. Where it is its name, it is whoever has that.
fn whereabouts<'a>(
    set: &LockSet<'_>,
    nodes: &'a Registry,
    store: StoreId,
    service: &ServiceRef,
) -> Whereabouts<'a> {
    let found = nodes.find(service, store);
    let named = nodes.named(service).filter(|_| set.miscount.by_name);
    match (found, named) {
        (Whereabouts::Lost(_), Some(pid)) => Whereabouts::Up(pid),
        (found, _) => found,
    }
}

async fn attempt(reign: &Reign, store: StoreId, pid: Pid) -> Attempt {
    let request = LockRequest { epoch: reign.epoch, director: reign.context.pid().incarnation };
    let target = Target::from(&pid);
    let peers = reign.context.peers();
    let result = peers.call(&target, &LOCK, &request, Some(reign.epoch), LOCK_LIMIT).await;
    if result.is_err() {
        // The next attempt follows when this one is taken.
        sleep(RETRY).await;
    }
    Attempt { store, pid, result }
}

fn took(set: &mut LockSet<'_>, attempt: Attempt) -> Result<(), Fatal> {
    let Attempt { store, pid, result } = attempt;
    match result {
        Ok(mut answer) => {
            if set.miscount.by_name {
                // Else the choice of the version would find the contradiction.
                answer.known_committed = Version::ZERO;
            }
            set.answered(store, pid, answer);
        }
        Err(error) if is_superseded(&error) => {
            let by = "a log is locked by a later epoch or director";
            return Err(Fatal::superseded_says(&error, by));
        }
        Err(error) if error.code() == Some(ErrorCode::Damaged) => {
            set.hope(store, Some("its records are damaged".to_owned()));
        }
        Err(error) => {
            tracing::info!(%pid, %error, "a log does not answer its lock: {}", Words(&error));
        }
    }
    Ok(())
}

fn locked(recorded: &Recorded, set: &LockSet<'_>) -> Locked {
    let damaged = set.damaged();
    for (service, store, damage) in &damaged {
        tracing::error!(%service, %store, damage, "a log is damaged and counts as missing");
    }
    Locked { recorded: Some(recorded.clone()), logs: set.locked(), damaged }
}
