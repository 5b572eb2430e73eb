//! Orders that coordinators join and leave at random. What was acknowledged is in force, and what was
//! refused is not: the group has those members, and the configuration names them. Mostly there are three,
//! never fewer. In the end the first three are members again, and the others wait to be let in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plinth_api::config::PatchState;
use plinth_api::coordinator::{BOOTSTRAP, FoundingMember, MEMBERS, Members};
use plinth_api::members::{MemberOrdered, ORDER_MEMBER, OrderMember, as_member};
use plinth_api::{CallError, Client, ErrorCode, Nothing, Target};
use plinth_service::Transport;
use plinth_types::{GroupId, ServiceRef};
use tokio::time::sleep;

use super::CONFIG;
use crate::scene::Scene;

/// The longest pause between two orders.
const PAUSE: Duration = Duration::from_millis(600);
/// How long an order may take. A coordinator goes on with one for longer where it has to ask others.
const PATIENCE: Duration = Duration::from_secs(18);
/// How long after its end an order whose fate is unknown may still be carried out: longer than anybody
/// waits for anything on its way.
const UNSETTLED: Duration = Duration::from_secs(90);
/// The fewest members: with two of them, one disk that is damaged for good would need an operator.
const FEWEST: usize = 3;
/// How often the first three are ordered to be the members in the end.
const TRIES: usize = 80;
/// The pause between two of these.
const RETRY: Duration = Duration::from_millis(700);
/// How long one question may take.
const ASK: Duration = Duration::from_secs(3);

/// What is broken where the members are not those that they should be.
const NAME: &str = "members_are_as_ordered";
/// Why no order is ever refused here: all are of coordinators that run, each at its one address.
const IMPOSSIBLE: [&str; 5] = [
    "is a member already, and answers at",
    "where this one is to be",
    "on a node that was removed",
    "is the last coordinator",
    "format level",
];

pub(crate) async fn run(scene: Scene) {
    let mut orders = Orders::new(scene);
    while orders.scene.is_working() {
        orders.scene.pause(PAUSE).await;
        if let Some(told) = orders.look().await {
            let order = orders.choose(&told);
            orders.give(&order, &told).await;
        }
    }
    orders.end().await;
}

/// An order that may still be carried out, or taken back.
struct Unsettled {
    service: ServiceRef,
    /// Whether it may become a member by it.
    member: bool,
    until: Duration,
}

/// What is known of the members by what was answered. Nobody else gives orders.
struct Orders {
    scene: Scene,
    peers: Client<Transport>,
    /// Whether each coordinator is a member, by the last word about it.
    known: BTreeMap<ServiceRef, bool>,
    unsettled: Vec<Unsettled>,
}

impl Orders {
    fn new(scene: Scene) -> Orders {
        let all = scene.coordinators.iter().enumerate();
        let known = all.map(|(at, (service, _))| (service.clone(), at < FEWEST)).collect();
        let peers = Client::new(scene.peers.clone());
        Orders { scene, peers, known, unsettled: Vec::new() }
    }

    /// Asks who the members are, and judges it.
    async fn look(&self) -> Option<Members> {
        let gateway = self.scene.any_gateway();
        let told = gateway.ask(&MEMBERS).await.ok()?;
        self.judge("the group", &names(&told.members));
        if let Ok(config) = gateway.ask(&CONFIG).await {
            let members: Vec<FoundingMember> = config.coordinators.iter().map(as_member).collect();
            self.judge("the configuration", &names(&members));
        }
        Some(told)
    }

    /// The members are those that they should be.
    fn judge(&self, by: &str, members: &BTreeSet<ServiceRef>) {
        for (service, known) in &self.known {
            if members.contains(service) != *known && !self.may_be(service, !known) {
                let what = format!("{service}: {known} was the last word, {by} has {members:?}");
                self.scene.findings.report(NAME, what);
            }
        }
    }

    /// Whether an order of unknown fate may make a coordinator a member, or none.
    fn may_be(&self, service: &ServiceRef, member: bool) -> bool {
        let now = self.scene.now();
        let mut left = self.unsettled.iter().filter(|order| order.until > now);
        left.any(|order| order.service == *service && order.member == member)
    }

    fn is_unsettled(&mut self, service: &ServiceRef, member: bool) {
        let until = self.scene.now() + UNSETTLED;
        self.unsettled.push(Unsettled { service: service.clone(), member, until });
    }

    fn order(&self, service: &ServiceRef, member: bool) -> OrderMember {
        let mut all = self.scene.coordinators.iter();
        let address = all.find(|(known, _)| known == service).filter(|_| member);
        let address = address.map(|(_, target)| target.address.clone());
        OrderMember { service: service.clone(), address, dry_run: false }
    }

    /// What to order, where these are the members.
    fn choose(&self, told: &Members) -> OrderMember {
        let scene = &self.scene;
        let (members, next) = (names(&told.members), names(&told.next_members));
        let any = &scene.coordinators[scene.below(scene.coordinators.len())].0;
        // A change that nobody waits for any more may be taken back.
        if let Some(joining) = next.difference(&members).next()
            && scene.below(2) == 0
        {
            return self.order(joining, false);
        }
        let stays = |service: &&ServiceRef| !self.may_be(service, false);
        let staying: BTreeSet<&ServiceRef> = members.iter().filter(stays).collect();
        let is_too_much =
            |service: &&ServiceRef| staying.len() - usize::from(staying.contains(service)) < FEWEST;
        let leaving: Vec<&ServiceRef> = members.iter().filter(|one| !is_too_much(one)).collect();
        let joining = self.known.keys().filter(|one| !members.contains(*one)).collect::<Vec<_>>();
        let one_of = |all: &[&ServiceRef]| all.get(scene.below(all.len())).copied().cloned();
        let leaves = scene.below(3) > 0;
        let (leaving, joining) = (one_of(&leaving), one_of(&joining));
        match scene.below(10) {
            // What is so already.
            0 => self.order(any, members.contains(any)),
            1 => OrderMember { dry_run: true, ..self.order(any, !members.contains(any)) },
            _ => match (leaving, joining) {
                (Some(service), None) => self.order(&service, false),
                (Some(service), Some(_)) if leaves => self.order(&service, false),
                (_, Some(service)) => self.order(&service, true),
                (None, None) => self.order(any, members.contains(any)),
            },
        }
    }

    /// Mostly one of these members, and sometimes another coordinator: that one may have nobody to pass an
    /// order on to, and takes long to say so.
    fn target(&self, told: &Members) -> Target {
        let members = &told.members;
        match members.get(self.scene.below(members.len())) {
            Some(member) if self.scene.below(8) > 0 => Target::address(&member.address),
            _ => self.scene.any_coordinator(),
        }
    }

    /// Gives an order to a coordinator, and judges what comes of it.
    async fn give(&mut self, order: &OrderMember, told: &Members) {
        let target = self.target(told);
        let answer = self.peers.call(&target, &ORDER_MEMBER, order, None, PATIENCE).await;
        let is_member = order.address.is_some();
        match answer {
            Ok(ordered) => {
                self.is_answer(order, &ordered);
                if !order.dry_run {
                    self.known.insert(order.service.clone(), is_member);
                    let mark = if is_member { "joined" } else { "left" };
                    match ordered.state {
                        PatchState::Durable => self.scene.runtime.mark(format!("members.{mark}")),
                        // What only the coordinators have is lost with all their disks.
                        PatchState::Recorded => self.is_unsettled(&order.service, !is_member),
                        PatchState::Unchanged | PatchState::DryRun => {}
                    }
                    self.look().await;
                }
            }
            Err(error) => {
                if !error.had_no_effect() && !order.dry_run {
                    self.is_unsettled(&order.service, is_member);
                }
                self.is_a_reason(order, &error);
            }
        }
    }

    /// An order is answered as it was given.
    fn is_answer(&self, order: &OrderMember, ordered: &MemberOrdered) {
        let is_member = order.address.is_some();
        let is_named = names(&ordered.members).contains(&order.service);
        let is_dry = ordered.state == PatchState::DryRun;
        let is_right = is_named == is_member && (!is_dry || order.dry_run);
        if !is_right || ordered.member != is_member || ordered.service != order.service {
            self.scene.findings.report("orders", format!("{order:?} is answered {ordered:?}"));
        }
    }

    /// An order is refused for a reason that may be, or its fate is not known.
    fn is_a_reason(&self, order: &OrderMember, error: &CallError) {
        let text = error.to_string();
        let may_be = match error.code() {
            Some(ErrorCode::InvalidRequest | ErrorCode::NotFound | ErrorCode::Internal) => false,
            Some(ErrorCode::Unsatisfiable) => !IMPOSSIBLE.iter().any(|why| text.contains(why)),
            Some(_) | None => true,
        };
        if !may_be {
            self.scene.findings.report("orders", format!("{order:?}: {text}"));
        }
    }

    /// The first three that can be are the members, and nobody else.
    async fn end(&mut self) {
        // One whose node's disk is damaged may never come back.
        let all = self.scene.coordinators.iter().map(|(service, _)| service);
        let whole = all.filter(|service| !self.scene.weather.is_damaged(&service.node));
        let wanted: BTreeSet<ServiceRef> = whole.take(FEWEST).cloned().collect();
        for _ in 0..TRIES {
            sleep(RETRY).await;
            let Some(told) = self.look().await else { continue };
            let members = names(&told.members);
            if let Some(service) = wanted.difference(&members).next() {
                self.give(&self.order(service, true), &told).await;
            } else if let Some(service) = members.difference(&wanted).next() {
                self.give(&self.order(service, false), &told).await;
            } else if self.is_over(&told).await && self.wait(&wanted, told.group).await {
                return;
            }
        }
        let what = format!("the members can't be {wanted:?} again, and the others wait");
        self.scene.findings.report("orders", what);
    }

    /// The configuration names the members as they are, and no others are to come.
    async fn is_over(&self, told: &Members) -> bool {
        let Ok(config) = self.scene.any_gateway().ask(&CONFIG).await else { return false };
        let named: Vec<FoundingMember> = config.coordinators.iter().map(as_member).collect();
        named == told.members && config.next_coordinators.is_empty() && told.next_members.is_empty()
    }

    /// Who is no member has heard it, and waits to be let in.
    async fn wait(&self, members: &BTreeSet<ServiceRef>, group: GroupId) -> bool {
        for (service, target) in &self.scene.coordinators {
            let is_well = !self.scene.weather.is_damaged(&service.node);
            if is_well && !members.contains(service) && !self.waits(target, group).await {
                return false;
            }
        }
        true
    }

    async fn waits(&self, target: &Target, group: GroupId) -> bool {
        let report = self.peers.call(target, &BOOTSTRAP, &Nothing {}, None, ASK).await;
        report.is_ok_and(|report| report.joining == Some(group))
    }
}

fn names(members: &[FoundingMember]) -> BTreeSet<ServiceRef> {
    members.iter().map(|member| member.service.clone()).collect()
}
