//! Who does what in the new epoch. Pure: what is wanted and what there is in, seats out.
//!
//! What is healthy is kept; a vacancy goes to a worker that stands by, else to one that a foreman
//! makes. Copies are spread over zones before anything else, but a lack of zones is never a reason
//! to refuse: it is told as degraded, and undone by the next recovery that has the zones. Whatever is on
//! a node that is being drained is left, as long as another node can have it.
//!
//! The same input always gives the same seats, and a worker that was made for a seat takes exactly
//! that seat when it is placed again.

use std::collections::{BTreeMap, BTreeSet};

use plinth_types::{NodeId, Pid, ServiceKind, ServiceName, ServiceRef, StoreId, Tag, Zone};

/// A worker that runs and answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) service: ServiceRef,
    pub(crate) pid: Pid,
    /// Its directory; none for one that keeps nothing.
    pub(crate) store: Option<StoreId>,
    /// Whether it has never served an epoch. A leftover of an earlier one is second choice.
    pub(crate) fresh: bool,
    /// The tags of which it has everything that survives; none for one that copies what it needs.
    pub(crate) holds: Vec<Tag>,
}

/// A node that may get workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) node: NodeId,
    pub(crate) zone: Zone,
    /// What its foreman can make now.
    pub(crate) makes: BTreeSet<ServiceKind>,
    /// Names that are taken for good: of workers that run, and of what others still count on.
    pub(crate) taken: BTreeSet<ServiceName>,
    /// Whether a peer that the last exit named as unable to talk was on it.
    pub(crate) suspect: bool,
    /// Whether it is being drained: it gets something only where nobody else can have it.
    pub(crate) draining: bool,
}

/// What an epoch needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) logs: usize,
    /// Storages to find. 0 where the teams stand already: their members have the data.
    pub(crate) storages: usize,
    pub(crate) commit_proxies: usize,
    pub(crate) resolvers: usize,
    /// Copies of each tag. With as many nodes for them, nodes that are being drained are left.
    pub(crate) replication: usize,
}

/// Who takes a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// A worker that runs.
    Taken(Candidate),
    /// A foreman has to make it.
    Make { service: ServiceRef },
}

impl Seat {
    pub(crate) fn service(&self) -> &ServiceRef {
        match self {
            Seat::Taken(candidate) => &candidate.service,
            Seat::Make { service } => service,
        }
    }
}

/// Every seat of an epoch, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) seats: BTreeMap<ServiceKind, Vec<Seat>>,
    /// Where copies share a zone, in words.
    pub(crate) degraded: Vec<String>,
}

impl Placement {
    /// What has to be made before the placement can be taken.
    pub(crate) fn to_make(&self) -> impl Iterator<Item = &ServiceRef> {
        self.seats.values().flatten().filter_map(|seat| match seat {
            Seat::Make { service } => Some(service),
            Seat::Taken(_) => None,
        })
    }

    /// Those of a kind that run.
    pub(crate) fn taken(&self, kind: ServiceKind) -> impl Iterator<Item = &Candidate> {
        self.seats.get(&kind).into_iter().flatten().filter_map(|seat| match seat {
            Seat::Taken(candidate) => Some(candidate),
            Seat::Make { .. } => None,
        })
    }
}

/// Places everything that the epoch wants.
///
/// # Errors
/// What is lacking, in words: nobody stands by and no foreman can make it.
pub(crate) fn place(
    wanted: Wanted,
    sites: &[Site],
    candidates: &[Candidate],
) -> Result<Placement, String> {
    let mut placement = Placement::default();
    for (kind, count) in [
        (ServiceKind::Log, wanted.logs),
        (ServiceKind::Storage, wanted.storages),
        (ServiceKind::Sequencer, 1),
        (ServiceKind::CommitProxy, wanted.commit_proxies),
        (ServiceKind::Resolver, wanted.resolvers),
    ] {
        let mut seating = Seating::new(kind, wanted.replication, sites, candidates);
        for seated in 0..count {
            seating.seat_one().ok_or_else(|| {
                format!("{seated} of {count} {kind}s: none stands by, and no foreman makes one")
            })?;
        }
        placement.degraded.extend(seating.degraded(count));
        placement.seats.insert(kind, seating.seats);
    }
    Ok(placement)
}

/// One kind's seats while they are filled, one after the other with the best that is left.
struct Seating<'a> {
    kind: ServiceKind,
    /// Whether nodes that are not being drained are enough.
    can_leave: bool,
    sites: &'a [Site],
    candidates: Vec<&'a Candidate>,
    seats: Vec<Seat>,
    by_zone: BTreeMap<&'a Zone, usize>,
    by_node: BTreeMap<&'a NodeId, usize>,
}

/// What makes one seat better than another; the least is the best.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Whether its node is being drained, and there are enough others.
    leaves: bool,
    /// For what is durable: copies in the same zone so far.
    zone: usize,
    /// Whether its node is being drained.
    draining: bool,
    /// For what keeps nothing: whether it would sit with a suspect.
    suspect: bool,
    choice: Choice,
    /// Workers of this kind on the same node so far.
    node: usize,
    service: ServiceRef,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Choice {
    Kept,
    Fresh,
    Leftover,
    Made,
}

impl<'a> Seating<'a> {
    fn new(
        kind: ServiceKind,
        replication: usize,
        sites: &'a [Site],
        candidates: &'a [Candidate],
    ) -> Seating<'a> {
        let candidates: Vec<&Candidate> =
            candidates.iter().filter(|one| one.service.kind() == kind).collect();
        let can = |site: &&Site| {
            let mut here = candidates.iter().filter(|one| one.service.node == site.node);
            !site.draining && (site.makes.contains(&kind) || here.next().is_some())
        };
        let needed = if kind.is_durable() { replication } else { 1 };
        let can_leave = sites.iter().filter(can).count() >= needed;
        let (by_zone, by_node) = (BTreeMap::new(), BTreeMap::new());
        Seating { kind, can_leave, sites, candidates, seats: Vec::new(), by_zone, by_node }
    }

    fn rank(&self, site: &Site, choice: Choice, service: ServiceRef) -> Rank {
        let durable = self.kind.is_durable();
        Rank {
            leaves: site.draining && self.can_leave,
            zone: if durable { self.by_zone.get(&site.zone).copied().unwrap_or(0) } else { 0 },
            draining: site.draining,
            suspect: !durable && site.suspect,
            choice,
            node: self.by_node.get(&site.node).copied().unwrap_or(0),
            service,
        }
    }

    /// The lowest name of the kind that is free on the site.
    fn free_name(&self, site: &Site) -> ServiceRef {
        let mut name = ServiceName::new(self.kind, 1);
        let is_seated = |name| {
            let is_it =
                |seat: &Seat| seat.service().name == name && seat.service().node == site.node;
            self.seats.iter().any(is_it)
        };
        while site.taken.contains(&name) || is_seated(name) {
            name.number += 1;
        }
        ServiceRef::new(name, site.node.clone())
    }

    fn seat_one(&mut self) -> Option<()> {
        let sites = self.sites;
        let standing = self.candidates.iter().filter_map(|candidate| {
            let site = sites.iter().find(|site| site.node == candidate.service.node)?;
            let choice = if !candidate.holds.is_empty() {
                Choice::Kept
            } else if candidate.fresh {
                Choice::Fresh
            } else {
                Choice::Leftover
            };
            let seat = Seat::Taken((*candidate).clone());
            Some((self.rank(site, choice, candidate.service.clone()), site, seat))
        });
        let made = sites.iter().filter(|site| site.makes.contains(&self.kind)).map(|site| {
            let service = self.free_name(site);
            (self.rank(site, Choice::Made, service.clone()), site, Seat::Make { service })
        });
        let (_, site, seat) = standing.chain(made).min_by(|(a, ..), (b, ..)| a.cmp(b))?;
        self.candidates.retain(|candidate| candidate.service != *seat.service());
        *self.by_zone.entry(&site.zone).or_default() += 1;
        *self.by_node.entry(&site.node).or_default() += 1;
        self.seats.push(seat);
        Some(())
    }

    fn degraded(&self, count: usize) -> Option<String> {
        let zones = self.by_zone.len();
        (self.kind.is_durable() && zones < count)
            .then(|| format!("{count} {}s are in {zones} zones", self.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{pid, service};
    use proptest::prelude::*;

    const WANTED: Wanted =
        Wanted { logs: 3, storages: 3, commit_proxies: 1, resolvers: 1, replication: 3 };
    const WORKERS: [ServiceKind; 5] = [
        ServiceKind::Log,
        ServiceKind::Storage,
        ServiceKind::Sequencer,
        ServiceKind::CommitProxy,
        ServiceKind::Resolver,
    ];

    fn site(node: &str, zone: &str) -> Site {
        Site {
            node: node.parse().unwrap(),
            zone: zone.parse().unwrap(),
            makes: BTreeSet::from(WORKERS),
            taken: BTreeSet::new(),
            suspect: false,
            draining: false,
        }
    }

    fn sites() -> Vec<Site> {
        ["node-1", "node-2", "node-3"].map(|node| site(node, node)).to_vec()
    }

    fn candidate(name: &str, holds: &[u32]) -> Candidate {
        let service = service(name);
        let store = service.kind().is_durable().then(|| StoreId(u128::from(service.name.number)));
        let pid = pid(service.node.as_str(), 5);
        let holds = holds.iter().map(|tag| Tag(*tag)).collect();
        Candidate { service, pid, store, fresh: true, holds }
    }

    fn names(placement: &Placement, kind: ServiceKind) -> Vec<String> {
        placement.seats[&kind]
            .iter()
            .map(|seat| match seat {
                Seat::Taken(candidate) => candidate.service.to_string(),
                Seat::Make { service } => format!("make {service}"),
            })
            .collect()
    }

    /// Three nodes of before, and a fourth; the third is being drained.
    fn draining() -> (Vec<Site>, Vec<Candidate>) {
        let mut sites = sites();
        sites.push(site("node-4", "node-4"));
        sites[2].draining = true;
        let logs = ["node-1", "node-2", "node-3"].map(|node| format!("log-1@{node}"));
        let mut candidates: Vec<Candidate> =
            logs.iter().map(|name| candidate(name, &[0, 1])).collect();
        candidates.push(candidate("resolver-1@node-3", &[]));
        (sites, candidates)
    }

    #[test]
    fn a_node_that_is_drained_is_left_even_by_what_is_healthy() {
        let (sites, candidates) = draining();
        let placement = place(WANTED, &sites, &candidates).unwrap();
        let logs = ["log-1@node-1", "log-1@node-2", "make log-1@node-4"];
        assert_eq!(names(&placement, ServiceKind::Log), logs);
        assert_eq!(names(&placement, ServiceKind::Resolver), ["make resolver-1@node-1"]);
        // Even where there are fewer zones than logs.
        let wanted = Wanted { logs: 4, ..WANTED };
        let placement = place(wanted, &sites, &candidates).unwrap();
        assert!(!names(&placement, ServiceKind::Log).contains(&"log-1@node-3".to_owned()));
    }

    #[test]
    fn it_is_not_left_for_two_copies_on_one_node() {
        let (mut sites, candidates) = draining();
        sites.pop();
        let placement = place(WANTED, &sites, &candidates).unwrap();
        let logs = ["log-1@node-1", "log-1@node-2", "log-1@node-3"];
        assert_eq!(names(&placement, ServiceKind::Log), logs);
        assert_eq!(names(&placement, ServiceKind::Resolver), ["make resolver-1@node-1"]);
    }

    #[test]
    fn the_first_epoch_makes_everything_one_a_node() {
        let placement = place(WANTED, &sites(), &[]).unwrap();
        for (kind, expected) in [
            (ServiceKind::Log, vec!["log-1@node-1", "log-1@node-2", "log-1@node-3"]),
            (
                ServiceKind::Storage,
                vec!["storage-1@node-1", "storage-1@node-2", "storage-1@node-3"],
            ),
            (ServiceKind::Sequencer, vec!["sequencer-1@node-1"]),
            (ServiceKind::CommitProxy, vec!["commit-proxy-1@node-1"]),
            (ServiceKind::Resolver, vec!["resolver-1@node-1"]),
        ] {
            let expected: Vec<String> =
                expected.iter().map(|name| format!("make {name}")).collect();
            assert_eq!(names(&placement, kind), expected);
        }
        assert_eq!(placement.degraded, [""; 0]);
    }

    #[test]
    fn the_healthy_are_kept_and_vacancies_go_to_who_stands_by_in_another_zone() {
        let here = [
            candidate("log-1@node-1", &[0, 1]),
            candidate("log-1@node-2", &[0, 1]),
            candidate("log-2@node-1", &[]),
            candidate("log-4@node-3", &[]),
            candidate("sequencer-2@node-3", &[]),
        ];
        let placement = place(WANTED, &sites(), &here).unwrap();
        assert_eq!(
            names(&placement, ServiceKind::Log),
            ["log-1@node-1", "log-1@node-2", "log-4@node-3"]
        );
        assert_eq!(names(&placement, ServiceKind::Sequencer), ["sequencer-2@node-3"]);
    }

    #[test]
    fn a_lack_of_zones_degrades_and_does_not_refuse() {
        let two = &mut sites()[..2];
        two[0].taken.insert("log-1".parse().unwrap());
        two[1].taken.insert("log-1".parse().unwrap());
        let kept = [candidate("log-1@node-1", &[0]), candidate("log-1@node-2", &[0])];
        let placement = place(Wanted { storages: 0, ..WANTED }, two, &kept).unwrap();
        assert_eq!(
            names(&placement, ServiceKind::Log),
            ["log-1@node-1", "log-1@node-2", "make log-2@node-1"]
        );
        assert_eq!(placement.degraded, ["3 logs are in 2 zones"]);
        // When the zone is back, the next recovery undoes it.
        let mut kept = kept.to_vec();
        kept.push(candidate("log-2@node-1", &[0]));
        let placement = place(Wanted { storages: 0, ..WANTED }, &sites(), &kept).unwrap();
        assert_eq!(
            names(&placement, ServiceKind::Log),
            ["log-1@node-1", "log-1@node-2", "make log-1@node-3"]
        );
    }

    #[test]
    fn what_keeps_nothing_avoids_suspects_and_leftovers() {
        let mut sites = sites();
        sites[0].suspect = true;
        let mut leftover = candidate("resolver-1@node-2", &[]);
        leftover.fresh = false;
        let here = [
            candidate("sequencer-1@node-1", &[]),
            leftover.clone(),
            candidate("resolver-2@node-3", &[]),
            candidate("commit-proxy-1@node-1", &[]),
        ];
        let placement = place(WANTED, &sites, &here).unwrap();
        assert_eq!(names(&placement, ServiceKind::Sequencer), ["make sequencer-1@node-2"]);
        assert_eq!(names(&placement, ServiceKind::Resolver), ["resolver-2@node-3"]);
        // Rather one of those than none.
        let mut last = vec![sites[0].clone()];
        last[0].makes.clear();
        let wanted = Wanted { logs: 0, storages: 0, ..WANTED };
        let missing = place(wanted, &last, &here).unwrap_err();
        assert_eq!(missing, "0 of 1 resolvers: none stands by, and no foreman makes one");
        let mut here = here.to_vec();
        here.push(Candidate { service: service("resolver-1@node-1"), ..leftover });
        let placement = place(wanted, &last, &here).unwrap();
        assert_eq!(names(&placement, ServiceKind::Sequencer), ["sequencer-1@node-1"]);
        assert_eq!(names(&placement, ServiceKind::Resolver), ["resolver-1@node-1"]);
    }

    proptest! {
        /// Any nodes, zones and kept logs: every seat is filled once, zones are used as evenly as
        /// can be, and what is made takes its seat the next time.
        #[test]
        fn seats_are_filled_once_evenly_and_stably(
            zones in proptest::collection::vec(0u8..4, 1..6),
            kept in proptest::collection::btree_set((0usize..6, 1u32..3), 0..6),
            logs in 1usize..8,
        ) {
            let mut sites: Vec<Site> = zones
                .iter()
                .enumerate()
                .map(|(index, zone)| site(&format!("node-{index}"), &format!("zone-{zone}")))
                .collect();
            let kept: Vec<Candidate> = kept
                .iter()
                .filter(|(node, _)| *node < sites.len())
                .map(|(node, number)| candidate(&format!("log-{number}@node-{node}"), &[0, 1]))
                .collect();
            for log in &kept {
                let at = sites.iter_mut().find(|site| site.node == log.service.node).unwrap();
                at.taken.insert(log.service.name);
            }
            let wanted = Wanted { logs, ..WANTED };
            let placement = place(wanted, &sites, &kept).unwrap();
            let seats = &placement.seats[&ServiceKind::Log];
            let services: BTreeSet<&ServiceRef> = seats.iter().map(Seat::service).collect();
            prop_assert_eq!(services.len(), logs);
            let mut by_zone: BTreeMap<&Zone, usize> =
                sites.iter().map(|site| (&site.zone, 0)).collect();
            for service in services {
                let site = sites.iter().find(|site| site.node == service.node).unwrap();
                *by_zone.get_mut(&site.zone).unwrap() += 1;
            }
            let (least, most) = (by_zone.values().min().unwrap(), by_zone.values().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", by_zone);

            let mut all = kept.clone();
            for service in placement.to_make() {
                all.push(candidate(&service.to_string(), &[]));
                let at = sites.iter_mut().find(|site| site.node == service.node).unwrap();
                at.taken.insert(service.name);
            }
            let again = place(wanted, &sites, &all).unwrap();
            prop_assert_eq!(again.to_make().count(), 0);
            for (kind, seats) in &placement.seats {
                let one: Vec<_> = seats.iter().map(Seat::service).collect();
                let two: Vec<_> = again.seats[kind].iter().map(Seat::service).collect();
                prop_assert_eq!(one, two);
            }
        }
    }
}
