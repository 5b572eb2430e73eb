//! Disks that go back to what they had before: a backup is put back, or the disk had lied of what it had
//! synced.

use std::time::Duration;

use plinth_simulation::{MUTE, When};
use plinth_store::Image;
use plinth_types::{NodeId, ServiceKind, ServiceName, ServiceRef};
use turmoil::Sim;

use super::{Nemesis, Undo, names};
use crate::cluster::Cluster;

/// How long foremen are mute after a start, where they are: longer than a bootstrap waits for them.
const SLOW_FOREMEN: Duration = Duration::from_secs(7);

impl Nemesis {
    /// Notes how a worker's disk is now, for it to be so again at `until`. It is one node's only, so that
    /// everything has another copy.
    pub(super) fn roll_back(
        &mut self,
        cluster: &Cluster,
        node: NodeId,
        kind: ServiceKind,
        until: Duration,
    ) -> Option<String> {
        // The configuration must have one, too.
        if cluster.parameters().config_team < 3 {
            return None;
        }
        let node = self.damaged.get_or_insert(node).clone();
        let services = cluster.node(&node).ok()?.services();
        let workers: Vec<ServiceRef> =
            services.into_iter().filter(|service| service.kind() == kind).collect();
        let worker = self.one_of(&workers)?.clone();
        let image = cluster.image(&worker)?;
        self.undo.push((until, Undo::RollBack(worker.clone(), image)));
        Some(format!("{worker}'s disk will be at {:.3} as it is now", until.as_secs_f64()))
    }

    /// A worker's disk is as it was.
    pub(super) fn put_back(
        &mut self,
        cluster: &Cluster,
        worker: &ServiceRef,
        image: &Image,
        now: Duration,
    ) {
        if cluster.put_back(worker, image) {
            self.history.record().rolled_back.insert(worker.node.clone());
            self.note(now, &format!("{worker}'s disk is put back"));
        }
    }

    /// Notes how the coordinators' disks are now, for them to be so again at `until`: once in a history.
    pub(super) fn roll_back_coordinators(
        &mut self,
        cluster: &Cluster,
        until: Duration,
    ) -> Option<String> {
        if std::mem::replace(&mut self.rolls_back_coordinators, true) {
            return None;
        }
        let images = cluster.coordinators().into_iter().filter_map(|(coordinator, _)| {
            let image = cluster.image(&coordinator)?;
            Some((coordinator, image))
        });
        self.undo.push((until, Undo::RollBackCoordinators(images.collect())));
        let until = until.as_secs_f64();
        Some(format!("the coordinators' disks will be at {until:.3} as they are now"))
    }

    /// All nodes lose their power, and the coordinators' disks are as they were.
    pub(super) fn put_coordinators_back(
        &mut self,
        sim: &mut Sim<'_>,
        cluster: &mut Cluster,
        images: &[(ServiceRef, Image)],
    ) {
        let now = sim.elapsed();
        let until = self.later(now);
        self.take_all_power(sim, cluster, until);
        if self.random.next_u64().is_multiple_of(2) {
            self.mute_foremen(cluster, until + SLOW_FOREMEN);
        }
        for (coordinator, image) in images {
            cluster.put_back(coordinator, image);
        }
        let moment = self.history.moment();
        let mut record = self.history.record();
        // What they alone had since is lost with their disks.
        record.is_wiped = true;
        record.forgot = Some(moment);
        drop(record);
        self.note(now, "all nodes lost power, and the coordinators' disks are put back");
    }

    /// Whoever asks the foremen what they have waits in vain until then.
    fn mute_foremen(&mut self, cluster: &Cluster, until: Duration) {
        for node in names(cluster) {
            let foreman = ServiceRef::new(ServiceName::new(ServiceKind::Foreman, 1), node);
            self.world.faults().switch_on_at(&foreman.to_string(), MUTE, When::Always);
            self.weather.disturb(&foreman.node, until);
            self.undo.push((until, Undo::Point(MUTE, foreman)));
        }
    }
}
