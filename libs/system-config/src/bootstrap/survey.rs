//! What the answers amount to: the newest configuration, what could not be used, and the highest
//! epoch and version that anybody has heard of.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use plinth_types::{Epoch, ServiceKind, StoreId, VERSION_GAP, Version};

use super::{
    EPOCH_GAP, Floor, Inputs, Keeper, Kept, Known, Missing, Rejected, VERSION_GAPS, WorkerReport,
};
use crate::{Recorded, Stamp};

/// A configuration and who keeps it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) recorded: Arc<Recorded>,
    pub(super) keeper: Keeper,
}

/// What the workers' answers amount to.
#[derive(Debug)]
pub(super) struct Survey {
    /// The newest configuration of this cluster that a worker keeps.
    pub(super) newest: Option<Found>,
    /// What could not be used.
    pub(super) rejected: Vec<Rejected>,
    /// The directories that keep a valid configuration of this cluster.
    pub(super) valid: BTreeSet<StoreId>,
    /// Initial nodes and workers that have not answered.
    pub(super) missing: Vec<Missing>,
}

impl Survey {
    pub(super) fn of(inputs: &Inputs) -> Survey {
        let mut survey = Survey {
            newest: None,
            rejected: Vec::new(),
            valid: BTreeSet::new(),
            missing: Vec::new(),
        };
        let unheard =
            inputs.initial_nodes.iter().filter(|node| !inputs.foremen.contains_key(*node));
        survey.missing.extend(unheard.cloned().map(Missing::Foreman));
        for manifest in inputs.manifests() {
            if !inputs.workers.contains_key(&manifest.store) {
                let (service, store) = (manifest.service.clone(), manifest.store);
                survey.missing.push(Missing::Worker(Keeper { service, store }));
            }
        }
        for (store, worker) in &inputs.workers {
            survey.add(inputs, *store, worker);
        }
        survey
    }

    fn add(&mut self, inputs: &Inputs, store: StoreId, worker: &WorkerReport) {
        let keeper = Keeper { service: worker.service.clone(), store };
        if let Some(reason) = &worker.spoiled {
            self.reject(keeper.clone(), reason.clone());
        }
        let recorded = match &worker.kept {
            Known::None => return,
            Known::Unknown => return self.missing.push(Missing::Worker(keeper)),
            Known::Has(Kept::Corrupt(reason)) => return self.reject(keeper, reason.clone()),
            Known::Has(Kept::Readable(recorded)) => recorded,
        };
        let theirs = recorded.config.cluster_id;
        if theirs != inputs.cluster_id {
            return self.reject(keeper, format!("it is of cluster {theirs}"));
        }
        self.valid.insert(store);
        let better = self
            .newest
            .as_ref()
            .is_none_or(|newest| rank(recorded, &keeper) > rank(&newest.recorded, &newest.keeper));
        if better {
            self.newest = Some(Found { recorded: Arc::clone(recorded), keeper });
        }
    }

    fn reject(&mut self, keeper: Keeper, reason: String) {
        self.rejected.push(Rejected { store: keeper.store, service: keeper.service, reason });
    }
}

/// Which of two is taken: the newer one; of equal ones a storage's, and of those the first by name,
/// so that every coordinator names the same.
fn rank<'a>(recorded: &Recorded, keeper: &'a Keeper) -> (Stamp, bool, Reverse<&'a Keeper>) {
    (recorded.stamp(), keeper.service.kind() == ServiceKind::Storage, Reverse(keeper))
}

/// Every configuration of this cluster that anybody has: workers', and coordinators' of any group.
pub(super) fn configurations(inputs: &Inputs) -> impl Iterator<Item = &Arc<Recorded>> {
    let workers = inputs.workers.values().filter_map(|worker| match &worker.kept {
        Known::Has(Kept::Readable(recorded)) => Some(recorded),
        _ => None,
    });
    let coordinators = inputs.running().filter_map(|(_, report)| report.recorded.as_ref());
    workers.chain(coordinators).filter(|recorded| recorded.config.cluster_id == inputs.cluster_id)
}

/// Whether two configurations with the same place differ.
pub(super) fn is_ambiguous(inputs: &Inputs, stamp: Stamp) -> bool {
    let mut same = configurations(inputs).filter(|recorded| recorded.stamp() == stamp);
    let Some(first) = same.next() else { return false };
    same.any(|other| other != first)
}

/// Above everything that anybody has heard of.
pub(super) fn floor(inputs: &Inputs) -> Floor {
    let mut epoch = Epoch::ZERO;
    let mut version = Version::ZERO;
    for (_, report) in inputs.running() {
        epoch = epoch.max(report.epoch);
    }
    for Recorded { config, .. } in configurations(inputs).map(Arc::as_ref) {
        epoch = epoch.max(config.epoch).max(config.layout.epoch);
        version = version.max(config.layout.first_version).max(config.layout.recovery_version);
    }
    for held in inputs.own_manifests().filter_map(|manifest| manifest.held.as_ref()) {
        epoch = epoch.max(held.epoch).max(held.generation);
        version = version.max(held.version);
    }
    Floor {
        epoch: Epoch(epoch.0.saturating_add(EPOCH_GAP)),
        version: version.plus(VERSION_GAPS.saturating_mul(VERSION_GAP)),
    }
}
