//! However messages are lost and delayed, whoever proposes and whoever loses its store: two
//! foundings never both have enough members to elect a leader, and at a cold start no two are even
//! taken up.

use std::collections::{BTreeMap, BTreeSet};

use plinth_types::{Epoch, ServiceKind, ServiceName, Version};
use proptest::prelude::*;

use super::*;

const COORDINATORS: u32 = 3;
const MANY: u32 = 5;
const PROPOSERS: usize = 2;

fn name(number: u32) -> ServiceRef {
    let node = format!("node-{number}").parse().unwrap();
    ServiceRef::new(ServiceName::new(ServiceKind::Coordinator, 1), node)
}

fn founding(group: u128) -> Founding {
    Founding {
        group: GroupId(group),
        members: vec![],
        recorded: None,
        epoch_floor: Epoch::ZERO,
        version_floor: Version::ZERO,
        source: "default".to_owned(),
        storage: None,
    }
}

fn hosts(of: impl IntoIterator<Item = u32>) -> BTreeMap<ServiceRef, String> {
    of.into_iter().map(|n| (name(n), format!("host-{n}:1"))).collect()
}

fn plan(quorum: Quorum, group: u128) -> Plan {
    plan_of(COORDINATORS, quorum, group)
}

fn plan_of(coordinators: u32, quorum: Quorum, group: u128) -> Plan {
    Plan {
        unheard: 1_000_000 + group as u64 * 1_000,
        members: hosts(0..coordinators),
        former: BTreeMap::new(),
        quorum,
        renounce: vec![],
        founding: founding(group),
    }
}

/// A coordinator: its identity and its part.
#[derive(Clone, Debug)]
struct Coordinator {
    raft_id: u64,
    acceptor: Acceptor,
}

/// A proposer in the middle of a ballot, as its messages come and go.
#[derive(Clone, Debug)]
struct Proposer {
    plan: Plan,
    ballot: u64,
    proposed: Option<Founding>,
    accepted: BTreeSet<ServiceRef>,
}

/// A step of a ballot with some of the coordinators; the others' messages are lost or late.
#[derive(Clone, Debug)]
enum Step {
    Begin { proposer: usize, round: u8, with: Vec<u32> },
    Accept { proposer: usize, with: Vec<u32> },
    Choose { proposer: usize, with: Vec<u32> },
    Wipe { at: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let with = || {
        prop_oneof![
            2 => Just((0..MANY).collect()),
            1 => proptest::sample::subsequence((0..MANY).collect::<Vec<_>>(), 1..=3),
        ]
    };
    let proposer = 0..PROPOSERS;
    prop_oneof![
        4 => (proposer.clone(), 0..6u8, with())
            .prop_map(|(proposer, round, with)| Step::Begin { proposer, round, with }),
        8 => (proposer.clone(), with()).prop_map(|(proposer, with)| Step::Accept { proposer, with }),
        8 => (proposer, with()).prop_map(|(proposer, with)| Step::Choose { proposer, with }),
        1 => (0..MANY).prop_map(|at| Step::Wipe { at }),
    ]
}

struct World {
    quorum: Quorum,
    /// Identities that were given out.
    identities: u64,
    coordinators: Vec<Coordinator>,
    proposers: Vec<Proposer>,
    groups: u128,
    /// Whether the membership was growing, and whether who proposes next has heard of it.
    between: Option<(bool, bool)>,
    /// Foundings by group, as they were proposed.
    foundings: BTreeMap<GroupId, Founding>,
}

impl World {
    fn new(quorum: Quorum) -> World {
        let coordinators = match quorum {
            Quorum::All => COORDINATORS,
            Quorum::Majority => MANY,
        };
        let proposer = |index: usize| Proposer {
            plan: plan(quorum, index as u128 + 1),
            ballot: 0,
            proposed: None,
            accepted: BTreeSet::new(),
        };
        World {
            quorum,
            identities: u64::from(coordinators),
            coordinators: (0..coordinators)
                .map(|n| Coordinator { raft_id: u64::from(n) + 1, acceptor: Acceptor::default() })
                .collect(),
            proposers: (0..PROPOSERS).map(proposer).collect(),
            groups: 100,
            between: None,
            foundings: BTreeMap::new(),
        }
    }

    /// Of these, the ones that there are.
    fn existing(&self, with: Vec<u32>) -> impl Iterator<Item = u32> + use<> {
        let all = self.coordinators.len();
        with.into_iter().filter(move |at| (*at as usize) < all)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Wipe { at } => {
                self.identities += 1;
                let raft_id = self.identities;
                if let Some(one) = self.coordinators.get_mut(at as usize) {
                    *one = Coordinator { raft_id, acceptor: Acceptor::default() };
                }
            }
            Step::Begin { proposer, round, with } => {
                self.groups += 1;
                let plan = match self.between {
                    Some((grows, has_heard)) => plan_between(grows, has_heard, self.groups),
                    None => plan_of(self.coordinators.len() as u32, self.quorum, self.groups),
                };
                // Two proposers may even come to the same ballot.
                let ballot = next_ballot(u64::from(round) << 32, 0);
                let promises = self
                    .existing(with)
                    .map(|at| {
                        let one = &mut self.coordinators[at as usize];
                        (name(at), one.acceptor.promise(ballot, &[], one.raft_id))
                    })
                    .collect();
                let proposed = match plan.weigh(&promises) {
                    Verdict::Propose(founding) => Some(*founding),
                    Verdict::Founded(_) | Verdict::TooFew { .. } => None,
                };
                if let Some(founding) = &proposed {
                    self.foundings.entry(founding.group).or_insert_with(|| founding.clone());
                }
                self.proposers[proposer] =
                    Proposer { plan, ballot, proposed, accepted: BTreeSet::new() };
            }
            Step::Accept { proposer, with } => {
                let with = self.existing(with);
                let proposer = &mut self.proposers[proposer];
                let Some(founding) = &proposer.proposed else { return };
                for at in with {
                    let acceptor = &mut self.coordinators[at as usize].acceptor;
                    if acceptor.accept(proposer.ballot, founding.clone()) {
                        proposer.accepted.insert(name(at));
                    }
                }
            }
            Step::Choose { proposer, with } => {
                let with = self.existing(with);
                let proposer = &self.proposers[proposer];
                let Some(founding) = &proposer.proposed else { return };
                if proposer.plan.is_enough(|who| proposer.accepted.contains(who)) {
                    for at in with {
                        let one = &mut self.coordinators[at as usize];
                        if names(founding, &name(at), one.raft_id) {
                            one.acceptor.choose(proposer.ballot, founding);
                        }
                    }
                }
            }
        }
    }

    /// The groups that are taken up, and by how many.
    fn groups(&self) -> BTreeMap<GroupId, usize> {
        let mut groups = BTreeMap::new();
        for one in &self.coordinators {
            if let Some(group) = one.acceptor.active_group() {
                *groups.entry(group).or_default() += 1;
            }
        }
        groups
    }

    /// The groups that can elect a leader.
    fn able(&self) -> Vec<GroupId> {
        let is_able =
            |group: &GroupId, count: usize| count > self.foundings[group].members.len() / 2;
        self.groups().into_iter().filter(|(g, count)| is_able(g, *count)).map(|(g, _)| g).collect()
    }
}

/// Coordinators 0 to 3, while 0 to 2 were becoming 0 to 3, or the other way round. Whoever proposes may have
/// heard of both memberships, or only of the one before.
fn plan_between(grows: bool, has_heard: bool, group: u128) -> Plan {
    let (small, large) = (hosts(0..COORDINATORS), hosts(0..=COORDINATORS));
    let (former, next) = if grows { (small, large) } else { (large, small) };
    let (members, former) = if has_heard { (next, former) } else { (former, BTreeMap::new()) };
    Plan { members, former, ..plan_of(0, Quorum::Majority, group) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8_000, ..ProptestConfig::default() })]

    #[test]
    fn two_foundings_never_both_come_to_life(
        all in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(if all { Quorum::All } else { Quorum::Majority });
        for step in steps {
            world.take(step);
            let able = world.able();
            prop_assert!(able.len() <= 1, "{able:?} can elect leaders");
            if all {
                let groups = world.groups();
                prop_assert!(groups.len() <= 1, "at a cold start {groups:?} were taken up");
            }
        }
    }

    #[test]
    fn two_foundings_between_two_memberships_never_both_come_to_life(
        grows in any::<bool>(),
        heard in proptest::collection::vec(any::<bool>(), 60),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(Quorum::Majority);
        world.coordinators.truncate(COORDINATORS as usize + 1);
        for (step, has_heard) in steps.into_iter().zip(heard) {
            world.between = Some((grows, has_heard));
            world.take(step);
            let able = world.able();
            prop_assert!(able.len() <= 1, "{able:?} can elect leaders");
        }
    }

    #[test]
    fn promises_never_go_back(
        ballots in proptest::collection::vec((any::<bool>(), 0..50u64), 1..50),
    ) {
        let mut acceptor = Acceptor::default();
        for (is_promise, ballot) in ballots {
            let before = acceptor.promised;
            if is_promise {
                let promise = acceptor.promise(ballot, &[], 1);
                prop_assert_eq!(promise.granted, ballot > before);
            } else {
                prop_assert_eq!(acceptor.accept(ballot, founding(1)), ballot >= before);
            }
            prop_assert!(acceptor.promised >= before);
        }
    }
}

#[test]
fn a_majority_founds_for_all_and_the_others_join_later() {
    let plan = plan_of(MANY, Quorum::Majority, 1);
    let mut acceptors = vec![Acceptor::default(); 3];
    let promises: BTreeMap<ServiceRef, Promise> = acceptors
        .iter_mut()
        .zip(0..)
        .map(|(acceptor, n)| (name(n), acceptor.promise(1, &[], u64::from(n) + 1)))
        .collect();
    let Verdict::Propose(founding) = plan.weigh(&promises) else { panic!("three of five") };
    assert_eq!(founding.members.len(), MANY as usize);
    assert!((0..3).all(|n| names(&founding, &name(n), u64::from(n) + 1)));
    let others: BTreeSet<u64> = founding.members[3..].iter().map(|m| m.raft_id).collect();
    assert_eq!(others, [plan.unheard + 3, plan.unheard + 4].into());
}

/// Everybody takes part: one ballot founds.
fn found(coordinators: &mut [Coordinator], plan: &Plan, ballot: u64) -> Option<Founding> {
    let promises = coordinators
        .iter_mut()
        .enumerate()
        .map(|(n, one)| (name(n as u32), one.acceptor.promise(ballot, &plan.renounce, one.raft_id)))
        .collect();
    let Verdict::Propose(founding) = plan.weigh(&promises) else { return None };
    let accepted = coordinators
        .iter_mut()
        .filter_map(|c| c.acceptor.accept(ballot, *founding.clone()).then_some(()));
    assert_eq!(accepted.count(), coordinators.len());
    Some(*founding)
}

#[test]
fn a_founding_that_was_accepted_is_taken_up_by_the_next_proposer() {
    let mut world = World::new(Quorum::All);
    let first = found(&mut world.coordinators, &plan(Quorum::All, 7), next_ballot(0, 1)).unwrap();
    let next = next_ballot(next_ballot(0, 1), 2);
    let second = found(&mut world.coordinators, &plan(Quorum::All, 8), next).unwrap();
    assert_eq!(second, first);
}

#[test]
fn a_founding_whose_member_has_lost_its_store_is_given_up() {
    let mut world = World::new(Quorum::All);
    found(&mut world.coordinators, &plan(Quorum::All, 7), next_ballot(0, 1)).unwrap();
    world.coordinators[1] = Coordinator { raft_id: 99, acceptor: Acceptor::default() };
    let next = next_ballot(next_ballot(0, 1), 2);
    let second = found(&mut world.coordinators, &plan(Quorum::All, 8), next).unwrap();
    assert_eq!(second.group, GroupId(8));
    assert!(second.members.iter().any(|member| member.raft_id == 99));
}

#[test]
fn a_member_of_a_group_promises_nothing_until_it_renounces_it() {
    let mut acceptor = Acceptor::default();
    assert!(acceptor.promise(1, &[], 1).granted);
    assert!(acceptor.accept(1, founding(7)));
    assert!(acceptor.choose(1, &founding(7)));
    let refused = acceptor.promise(2, &[GroupId(8)], 1);
    assert_eq!((refused.granted, refused.group), (false, Some(GroupId(7))));
    assert!(!acceptor.accept(2, founding(8)));
    assert!(!acceptor.choose(2, &founding(8)));
    let granted = acceptor.promise(2, &[GroupId(7)], 1);
    assert_eq!((granted.granted, granted.group), (true, None));
    assert_eq!(acceptor.active_group(), None);
    assert!(acceptor.accept(2, founding(8)) && acceptor.choose(2, &founding(8)));
    assert_eq!(acceptor.active_group(), Some(GroupId(8)));
}

#[test]
fn between_two_memberships_a_majority_of_each_takes_part() {
    let plan = plan_between(false, true, 1);
    let granted = |of: &[u32]| {
        let who: BTreeSet<ServiceRef> = of.iter().copied().map(name).collect();
        plan.is_enough(|service| who.contains(service))
    };
    // Three of the four of before, and two of the three that stay.
    for (of, is_enough) in [
        (&[0, 1][..], false),
        (&[0, 1, 2], true),
        (&[0, 1, 3], true),
        (&[0, 3], false),
        (&[2, 3], false),
    ] {
        assert_eq!(granted(of), is_enough, "{of:?}");
    }
    // Whoever leaves promises, and is no member.
    let mut acceptors = vec![Acceptor::default(); 4];
    let promises = acceptors
        .iter_mut()
        .zip(0..)
        .map(|(acceptor, n)| (name(n), acceptor.promise(1, &[], u64::from(n) + 1)))
        .collect();
    let Verdict::Propose(founding) = plan.weigh(&promises) else { panic!("all of them") };
    let members: Vec<ServiceRef> =
        founding.members.iter().map(|member| member.service.clone()).collect();
    assert_eq!(members, [name(0), name(1), name(2)]);
    // What was accepted before is taken over, although one who promises is no member of it.
    for (acceptor, n) in acceptors.iter_mut().zip(0..) {
        assert!(acceptor.accept(1, *founding.clone()), "{n}");
    }
    let promises = acceptors
        .iter_mut()
        .zip(0..)
        .map(|(acceptor, n)| (name(n), acceptor.promise(2, &[], u64::from(n) + 1)))
        .collect();
    let again = plan_between(false, true, 9).weigh(&promises);
    assert_eq!(again, Verdict::Propose(founding));
}

#[test]
fn a_cold_start_needs_everyone() {
    let plan = plan(Quorum::All, 1);
    let mut world = World::new(Quorum::All);
    let mut promises = BTreeMap::new();
    for n in 0..COORDINATORS {
        assert!(matches!(plan.weigh(&promises), Verdict::TooFew { .. }));
        let coordinator = &mut world.coordinators[n as usize];
        promises.insert(name(n), coordinator.acceptor.promise(1, &[], coordinator.raft_id));
    }
    assert!(matches!(plan.weigh(&promises), Verdict::Propose(_)));
}
