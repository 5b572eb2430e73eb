//! Coordinators come and go, with a director that records what their leader asks for, or does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use plinth_api::config::PatchState;
use plinth_api::coordinator::{
    HOLDING, Holding, MEMBERS, Members, READY, RECORD, ReadyRequest, RecordRequest, Recovery,
};
use plinth_api::director::{Appointment, Status as DirectorStatus};
use plinth_api::members::{
    MemberOrdered, MembersRecorded, ORDER_MEMBER, OrderMember, RecordMembers,
};
use plinth_api::{CallError, Endpoint, ErrorCode, Nothing, Target};
use plinth_service::{Answer, Context, Failure, Json, Routes};
use plinth_system_config::{NodeEntry, Recorded};
use plinth_types::{Epoch, ServiceKind, ServiceRef, Version, Zone};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};
use utoipa_axum::routes;

use crate::played::Played;
use crate::world::{CLUSTER, World, configuration, node, service};

const LIMIT: Duration = Duration::from_secs(90);
const CALL: Duration = Duration::from_secs(40);

/// A director that records what it is asked to, as long as it is willing.
#[derive(Clone)]
struct Secretary {
    context: Context,
    coordinators: Arc<Vec<Target>>,
    is_willing: Arc<AtomicBool>,
    appointed: Arc<std::sync::Mutex<Option<Appointment>>>,
}

impl Secretary {
    /// Asks the coordinators in turn, as directors do.
    async fn ask<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        endpoint: &Endpoint<Req, Resp>,
        request: &Req,
    ) -> Result<Resp, CallError> {
        let mut last = None;
        for _ in 0..100 {
            for target in self.coordinators.iter() {
                let peers = self.context.peers();
                let answer =
                    peers.call(target, endpoint, request, None, Duration::from_secs(2)).await;
                match answer {
                    Err(error) if error.code().is_none_or(|code| code == ErrorCode::NoQuorum) => {
                        last = Some(error);
                    }
                    answer => return answer,
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(last.unwrap())
    }

    /// Records a configuration of its epoch, and has it proved.
    async fn record(
        &self,
        change: impl FnOnce(&Holding) -> Recorded,
    ) -> Result<Recorded, CallError> {
        let holding = self.ask(&HOLDING, &Nothing {}).await?;
        let recorded = change(&holding);
        let (epoch, director) = (recorded.config.epoch, self.context.pid().incarnation);
        let expected = holding.recorded.map(|recorded| recorded.config.config_version);
        let request = RecordRequest { epoch, director, expected, recorded: recorded.clone() };
        self.ask(&RECORD, &request).await?;
        let recovery = Recovery {
            epoch,
            director: self.context.service().clone(),
            cause: "a test".to_owned(),
            started_unix_ms: 0,
            duration_ms: 0,
            recovery_version: Version(0),
            first_version: Version(0),
            reused: vec![],
            made: vec![],
            phases: vec![],
            trace_id: None,
            changes: vec![],
        };
        self.ask(&READY, &ReadyRequest { epoch, director, recovery }).await?;
        Ok(recorded)
    }
}

#[utoipa::path(put, path = "/v1/appointment", request_body = Appointment, responses((status = 200, body = Nothing)))]
async fn appoint(State(own): State<Secretary>, Json(told): Json<Appointment>) -> Answer<Nothing> {
    *own.appointed.lock().unwrap() = Some(told);
    Ok(Json(Nothing {}))
}

#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = DirectorStatus)))]
async fn status(State(own): State<Secretary>) -> Json<DirectorStatus> {
    let epoch = own.appointed.lock().unwrap().as_ref().map_or(Epoch::ZERO, |told| told.epoch);
    let (phase, stalled, phases) = ("standby".to_owned(), None, vec![]);
    let (copies, degraded) = (vec![], vec![]);
    Json(DirectorStatus { epoch, phase, stalled, phases, rate: None, copies, degraded })
}

#[utoipa::path(put, path = "/v1/members", request_body = RecordMembers, responses((status = 200, body = MembersRecorded)))]
async fn record_members(
    State(own): State<Secretary>,
    Json(order): Json<RecordMembers>,
) -> Answer<MembersRecorded> {
    if !own.is_willing.load(Ordering::Relaxed) {
        return Err(Failure::new(ErrorCode::Overloaded, "not now"));
    }
    let recorded = own
        .record(|holding| {
            let mut next = holding.recorded.clone().unwrap();
            next.config.config_version = order.expected.next();
            next.config.coordinators = order.coordinators.clone();
            next.config.next_coordinators = order.next_coordinators.clone();
            next
        })
        .await?;
    Ok(Json(MembersRecorded { config_version: recorded.config.config_version }))
}

/// Three coordinators and a fourth that waits, in a first epoch that is ready.
struct Scene {
    world: World,
    secretary: Secretary,
    _director: Played,
}

impl Scene {
    async fn set() -> Scene {
        let mut world = World::start().await;
        world.start_fourth().await;
        let coordinators = (1..=4).map(|on| Target::address(world.address(on))).collect();
        let coordinators = Arc::new(coordinators);
        let who = service(ServiceKind::Director, 1);
        let mut made = None;
        let director = Played::start(who, CLUSTER, |context| {
            let secretary = Secretary {
                context: context.clone(),
                coordinators,
                is_willing: Arc::new(AtomicBool::new(true)),
                appointed: Arc::default(),
            };
            made = Some(secretary.clone());
            Routes::new()
                .service(routes!(appoint))
                .service(routes!(record_members))
                .anyone(routes!(status))
                .with_state(secretary)
        })
        .await;
        let secretary = made.unwrap();
        world.add(&director, None);
        let mine = director.pid();
        world
            .until(1, "appointed", |status| {
                status.director.as_ref().is_some_and(|now| now.pid == mine)
            })
            .await;
        let first = |holding: &Holding| {
            let mut first = configuration(holding, Epoch(1));
            for on in (1..=4).map(node) {
                let entry = NodeEntry::new(Zone::of_node(&on), vec![]);
                first.config.nodes.insert(on, entry);
            }
            first
        };
        secretary.record(first).await.unwrap();
        world.until(1, "ready", |status| status.ready).await;
        Scene { world, secretary, _director: director }
    }

    fn order(&self, on: usize, joins: bool) -> OrderMember {
        let address = joins.then(|| self.world.address(on).to_owned());
        OrderMember { service: name(on), address, dry_run: false }
    }

    async fn give(&self, asked: usize, order: &OrderMember) -> Result<MemberOrdered, CallError> {
        let target = Target::address(self.world.address(asked));
        let peers = self.world.client.context.peers();
        peers.call(&target, &ORDER_MEMBER, order, None, CALL).await
    }

    /// Gives an order until it is carried out: whoever is asked may just have lost its leader.
    async fn insist(&self, asked: &[usize], order: &OrderMember) -> MemberOrdered {
        for turn in 0.. {
            match self.give(asked[turn % asked.len()], order).await {
                Ok(answer) => return answer,
                Err(error) => assert!(turn < 100, "{error}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
        unreachable!()
    }

    async fn willing(&self, is_willing: bool) {
        self.secretary.is_willing.store(is_willing, Ordering::Relaxed);
    }

    async fn members(&self, asked: &[usize]) -> Members {
        for turn in 0.. {
            match self.world.ask(asked[turn % asked.len()], &MEMBERS, &Nothing {}).await {
                Ok(members) => return members,
                Err(error) => assert!(turn < 200, "{error}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
        unreachable!()
    }

    /// Waits until Raft and the configuration have these members, and no others are to come.
    async fn until_are(&self, asked: &[usize], of: &[usize]) {
        let expected: Vec<ServiceRef> = of.iter().copied().map(name).collect();
        for turn in 0.. {
            let told = self.members(asked).await;
            let raft: Vec<ServiceRef> =
                told.members.iter().map(|member| member.service.clone()).collect();
            let holding = self.secretary.ask(&HOLDING, &Nothing {}).await.unwrap();
            let config = holding.recorded.unwrap().config;
            let named: Vec<ServiceRef> =
                config.coordinators.iter().map(|member| member.service.clone()).collect();
            if raft == expected && named == expected && config.next_coordinators.is_empty() {
                return;
            }
            assert!(turn < 200, "{told:?} {named:?} {:?}", config.next_coordinators);
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn leader(&self, asked: usize) -> usize {
        let status = self.world.until(asked, "led", |status| status.leader.is_some()).await;
        let leader = status.leader.unwrap();
        (1..=4).find(|on| name(*on) == leader).unwrap()
    }
}

fn name(on: usize) -> ServiceRef {
    service(ServiceKind::Coordinator, on)
}

fn others(than: usize, of: &[usize]) -> Vec<usize> {
    of.iter().copied().filter(|on| *on != than).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_joins_the_leader_leaves_and_waits_and_comes_back() {
    let test = async {
        let scene = Scene::set().await;
        let waiting = |status: &plinth_api::coordinator::Status| {
            let why = status.bootstrap.waiting_for.clone().unwrap_or_default();
            why.contains("to be let in") && why.contains("plinth members add")
        };
        scene.world.until(4, "waiting", waiting).await;
        let joins = scene.order(4, true);
        let dry = OrderMember { dry_run: true, ..joins.clone() };
        let would = scene.insist(&[1, 2, 3], &dry).await;
        assert_eq!((would.state, would.members.len()), (PatchState::DryRun, 4));
        assert!(would.note.is_some_and(|note| note.contains("4 coordinators")));
        scene.until_are(&[1, 2, 3], &[1, 2, 3]).await;

        let joined = scene.insist(&[1, 2, 3], &joins).await;
        assert!(joined.member && joined.members.len() == 4, "{joined:?}");
        scene.until_are(&[1, 2, 3, 4], &[1, 2, 3, 4]).await;
        scene.world.until(4, "a member", |status| status.bootstrap.source == "peers").await;
        let again = scene.insist(&[4], &joins).await;
        assert_eq!(again.state, PatchState::Unchanged);

        let leader = scene.leader(4).await;
        let left = others(leader, &[1, 2, 3, 4]);
        let answer = scene.insist(&[leader], &scene.order(leader, false)).await;
        assert!(!answer.member && answer.members.len() == 3, "{answer:?}");
        scene.until_are(&left, &left).await;
        scene.world.until(leader, "waiting", waiting).await;
        // It is let in again, under another identity.
        let before = joined.members.iter().find(|member| member.service == name(leader)).unwrap();
        let back = scene.insist(&left, &scene.order(leader, true)).await;
        let after = back.members.iter().find(|member| member.service == name(leader)).unwrap();
        assert_ne!(before.raft_id, after.raft_id);
        scene.until_are(&left, &[1, 2, 3, 4]).await;
    };
    timeout(LIMIT, test).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_leader_goes_on_from_a_configuration_that_names_both() {
    let test = async {
        let mut scene = Scene::set().await;
        let joins = scene.order(4, true);
        scene.insist(&[1, 2, 3], &OrderMember { dry_run: true, ..joins.clone() }).await;
        // The director ends, as far as anybody can see, once it has recorded both.
        let secretary = scene.secretary.clone();
        let stopped = async move {
            loop {
                let holding = secretary.ask(&HOLDING, &Nothing {}).await.unwrap();
                if !holding.next_coordinators.is_empty() {
                    secretary.is_willing.store(false, Ordering::Relaxed);
                    return;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        let leader = scene.leader(1).await;
        let left = others(leader, &[1, 2, 3]);
        let first = scene.give(left[0], &joins);
        tokio::select! {
            () = stopped => {}
            answer = first => drop(answer),
        }
        scene.world.kill(leader).await;
        scene.willing(true).await;
        scene.until_are(&[left[0], left[1], 4], &[1, 2, 3, 4]).await;
        scene.world.restart(leader).await;
        let again = scene.insist(&left, &joins).await;
        // The change was made without being asked again. Whether a ready epoch has proved it, the played
        // director leaves open: it may have ended between the two.
        assert!(
            matches!(again.state, PatchState::Unchanged | PatchState::Recorded),
            "{:?}",
            again.state
        );
    };
    timeout(LIMIT, test).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_be_is_refused() {
    let test = async {
        let mut scene = Scene::set().await;
        let unknown = OrderMember { service: name(9), ..scene.order(3, false) };
        let elsewhere = OrderMember { service: name(3), ..scene.order(4, true) };
        let not_there =
            OrderMember { address: Some("127.0.0.1:1".to_owned()), ..scene.order(4, true) };
        let another = OrderMember { service: name(5), ..scene.order(4, true) };
        for (order, code, words) in [
            (unknown, ErrorCode::NotFound, "no coordinator coordinator-1@node-9 is known"),
            (elsewhere, ErrorCode::Unsatisfiable, "is a member already"),
            (not_there, ErrorCode::Unsatisfiable, "no coordinator answers at 127.0.0.1:1"),
            (another, ErrorCode::Unsatisfiable, "it is coordinator-1@node-4 that answers there"),
        ] {
            let refused = scene.give(1, &order).await.unwrap_err();
            assert_eq!(refused.code(), Some(code), "{refused}");
            assert!(refused.to_string().contains(words), "{refused}");
        }
        // Those who would stay and answer are no majority of themselves.
        let leader = scene.leader(1).await;
        let [gone, stays] = others(leader, &[1, 2, 3])[..] else { panic!("two others") };
        scene.world.kill(gone).await;
        let refused = scene.give(leader, &scene.order(stays, false)).await.unwrap_err();
        assert!(refused.to_string().contains("and 2 are needed"), "{refused}");
        scene.world.restart(gone).await;
        scene.until_are(&[leader, stays], &[1, 2, 3]).await;
    };
    timeout(LIMIT, test).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_answers_elsewhere_says_so_itself() {
    let test = async {
        let mut scene = Scene::set().await;
        let leader = scene.leader(1).await;
        for moves in [others(leader, &[1, 2, 3])[0], leader] {
            scene.world.kill(moves).await;
            scene.world.restart_elsewhere(moves).await;
            let left = others(moves, &[1, 2, 3]);
            let address = scene.world.address(moves).to_owned();
            for turn in 0.. {
                let told = scene.members(&left).await;
                let holding = scene.secretary.ask(&HOLDING, &Nothing {}).await.unwrap();
                let config = holding.recorded.unwrap().config;
                let in_raft = told.members.iter().any(|member| member.address == address);
                let named = config.coordinator_addresses();
                if in_raft && named.get(&name(moves)) == Some(&address) {
                    break;
                }
                assert!(turn < 200, "{told:?} {named:?}");
                sleep(Duration::from_millis(50)).await;
            }
        }
        scene.until_are(&[1, 2, 3], &[1, 2, 3]).await;
    };
    timeout(LIMIT, test).await.unwrap();
}
