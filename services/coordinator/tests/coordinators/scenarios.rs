//! What must be seen to work.

use std::time::Duration;

use http::HeaderValue;
use plinth_api::config::{
    ConfigPatch, ConfigPatched, PATCH_CONFIG, ParameterChanges, PatchQuery, PatchState,
};
use plinth_api::coordinator::{
    BEGIN_RECOVERY, BeginRecovery, FAREWELL, Farewell, HOLDING, MEMBERS, READY, RECORD,
    ReadyRequest, RecordRequest, Recovery, Status,
};
use plinth_api::{CallError, ErrorCode, Nothing};
use plinth_system_config::Recorded;
use plinth_types::{ConfigVersion, Epoch, Incarnation, ServiceKind, Version};
use tokio::time::timeout;

use crate::played::{Played, Told, director, storage};
use crate::world::{CLUSTER, World, configuration, service, storage_store};

const TEST_LIMIT: Duration = Duration::from_secs(90);

pub(crate) async fn with_director(world: &World, on: usize) -> (Played, Told) {
    let (played, told) = director(service(ServiceKind::Director, on), CLUSTER).await;
    world.add(&played, None);
    (played, told)
}

pub(crate) fn is_appointed(status: &Status, played: &Played) -> bool {
    status.director.as_ref().is_some_and(|now| now.pid == played.pid()) && status.leader.is_some()
}

/// Records a configuration and makes the epoch ready, as its director does.
pub(crate) async fn make_ready(
    world: &World,
    on: usize,
    epoch: Epoch,
    director: Incarnation,
) -> Recorded {
    let holding = world.holding(on).await;
    let recorded = configuration(&holding, epoch);
    let expected = holding.recorded.map(|recorded| recorded.config.config_version);
    let request = RecordRequest { epoch, director, expected, recorded: recorded.clone() };
    world.ask(on, &RECORD, &request).await.unwrap();
    let recovery = Recovery {
        epoch,
        director: service(ServiceKind::Director, 1),
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
    world.ask(on, &READY, &ReadyRequest { epoch, director, recovery }).await.unwrap();
    recorded
}

/// A cluster in its first epoch, ready.
pub(crate) async fn ready_world() -> (World, Played, Told, Recorded) {
    let world = World::start().await;
    let (first, told) = with_director(&world, 1).await;
    let status = world.until(1, "appointed", |status| is_appointed(status, &first)).await;
    assert_eq!(status.epoch, Epoch(1));
    let recorded = make_ready(&world, 2, Epoch(1), first.pid().incarnation).await;
    world.until(3, "ready", |status| status.ready).await;
    (world, first, told, recorded)
}

pub(crate) async fn within_limit(test: impl Future<Output = ()>) {
    timeout(TEST_LIMIT, test).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_start_founds_one_group_and_appoints_epoch_one() {
    within_limit(async {
        let (world, _first, told, recorded) = ready_world().await;
        let told = told.last().unwrap();
        assert_eq!((told.epoch, told.cause.as_str()), (Epoch(1), "cold start"));
        let (mut groups, mut sources) = (Vec::new(), Vec::new());
        for on in 1..=3 {
            let status = world.until(on, "ready", |status| status.ready).await;
            sources.push(status.bootstrap.source);
            assert_eq!(status.members.len(), 3);
            groups.push(status.group);
            let holding = world.holding(on).await;
            assert_eq!(holding.recorded.as_ref(), Some(&recorded));
            assert_eq!(holding.ready, holding.recorded);
        }
        assert!(groups.iter().all(|group| *group == groups[0]));
        assert_eq!(sources, ["default"; 3]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_coordinators_alone_begins_no_epoch() {
    within_limit(async {
        let (mut world, first, _told, recorded) = ready_world().await;
        for on in 1..=3 {
            world.kill(on).await;
        }
        for on in 1..=3 {
            world.restart(on).await;
        }
        for on in 1..=3 {
            let status = world.until(on, "ready again", |status| status.ready).await;
            assert_eq!(status.bootstrap.source, "raft");
            assert_eq!(status.epoch, Epoch(1));
            assert!(is_appointed(&status, &first));
        }
        assert_eq!(world.holding(1).await.recorded, Some(recorded));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_director_that_dies_is_followed_by_the_one_that_stands_by() {
    within_limit(async {
        let (world, first, _told, _) = ready_world().await;
        let (second, told) = with_director(&world, 2).await;
        let gone = first.pid();
        world.remove(&first.service.clone());
        first.kill().await;
        let status = world.until(1, "followed", |status| is_appointed(status, &second)).await;
        assert_eq!(status.epoch, Epoch(2));
        assert!(!status.ready);
        world.until(1, "told", |_| told.last().is_some_and(|told| told.epoch == Epoch(2))).await;
        // What the dead one had sent comes too late.
        let holding = world.holding(3).await;
        let late = RecordRequest {
            epoch: Epoch(1),
            director: gone.incarnation,
            expected: holding.recorded.as_ref().map(|recorded| recorded.config.config_version),
            recorded: configuration(&holding, Epoch(1)),
        };
        let refused = world.ask(3, &RECORD, &late).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::Superseded));
        make_ready(&world, 3, Epoch(2), second.pid().incarnation).await;
        world.until(2, "ready", |status| status.ready).await;
    })
    .await;
}

/// None at first, then growing, only while epochs fail; a ready one ends it. Each is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appointments_are_immediate_at_first_and_back_off_only_while_epochs_fail() {
    within_limit(async {
        let (world, first, _told, _) = ready_world().await;
        let mut last = first;
        for epoch in 2..=4 {
            let (next, _) = with_director(&world, epoch as usize % 3 + 1).await;
            world.remove(&last.service.clone());
            last.kill().await;
            let status = world.until(1, "followed", |status| is_appointed(status, &next)).await;
            assert_eq!(status.epoch, Epoch(epoch));
            last = next;
        }
        // The first one was ready, so 2 followed at once, and so did 3 the first that failed.
        let delayed = "plinth_coordinator_delayed_appointments_total";
        assert_eq!(world.sum_of(delayed).await, 1);
        make_ready(&world, 1, Epoch(4), last.pid().incarnation).await;
        world.until(1, "ready", |status| status.ready).await;
        let (next, _) = with_director(&world, 3).await;
        world.remove(&last.service.clone());
        last.kill().await;
        world.until(1, "followed", |status| is_appointed(status, &next)).await;
        assert_eq!(world.sum_of(delayed).await, 1);
        assert_eq!(world.sum_of("plinth_coordinator_backoff_milliseconds").await, 0);
        assert_eq!(world.sum_of("plinth_coordinator_appointments_total").await, 5);
        assert_eq!(world.sum_of("plinth_coordinator_epochs_ended_total").await, 4);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_farewell_names_the_cause_and_whom_to_avoid() {
    within_limit(async {
        let (world, first, _told, _) = ready_world().await;
        let (second, told) = with_director(&world, 2).await;
        let farewell = Farewell {
            epoch: Epoch(1),
            director: first.pid().incarnation,
            reason: "log-1@node-2 is gone".to_owned(),
            suspects: vec![service(ServiceKind::Log, 2)],
            later: None,
        };
        world.ask(3, &FAREWELL, &farewell).await.unwrap();
        world.until(1, "followed", |status| is_appointed(status, &second)).await;
        world.until(1, "told", |_| told.last().is_some()).await;
        let told = told.last().unwrap();
        assert!(told.cause.contains("log-1@node-2 is gone"), "{}", told.cause);
        assert_eq!(told.suspects, farewell.suspects);
    })
    .await;
}

/// The coordinators of before have lost their disks, and a log alone knows of their last epochs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_epoch_is_above_what_a_director_was_told_of() {
    within_limit(async {
        let (world, first, _told, _) = ready_world().await;
        let (second, _) = with_director(&world, 2).await;
        let farewell = Farewell {
            epoch: Epoch(1),
            director: first.pid().incarnation,
            reason: "a log is locked by a later epoch".to_owned(),
            suspects: Vec::new(),
            later: Some(Epoch(1_000_000_000)),
        };
        world.ask(3, &FAREWELL, &farewell).await.unwrap();
        let status = world.until(1, "followed", |status| is_appointed(status, &second)).await;
        assert!(status.epoch > Epoch(1_000_000_000), "{}", status.epoch);
        let delayed = "plinth_coordinator_delayed_appointments_total";
        assert_eq!(world.sum_of(delayed).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_epoch_can_be_asked_for() {
    within_limit(async {
        let (world, _first, _told, _) = ready_world().await;
        let (second, _) = with_director(&world, 2).await;
        let request = BeginRecovery { reason: "a drill".to_owned() };
        let begun = world.ask(2, &BEGIN_RECOVERY, &request).await.unwrap();
        assert_eq!(begun.superseded, Epoch(1));
        let status = world.until(3, "followed", |status| is_appointed(status, &second)).await;
        assert_eq!(status.director.unwrap().cause, "a drill");
    })
    .await;
}

/// Epochs that were ended on request have not failed: their number makes nobody wait. The pauses
/// would be two minutes together, which is more than a test has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_that_are_asked_for_follow_each_other_at_once() {
    within_limit(async {
        let (world, mut serving, _told, _) = ready_world().await;
        for round in 0_usize..10 {
            let (next, _) = with_director(&world, 2 + round % 2).await;
            let request = BeginRecovery { reason: format!("drill {round}") };
            world.ask(2, &BEGIN_RECOVERY, &request).await.unwrap();
            world.until(3, "followed", |status| is_appointed(status, &next)).await;
            let gone = std::mem::replace(&mut serving, next);
            gone.kill().await;
        }
    })
    .await;
}

/// Nobody else stands by, and it hears of no later epoch: it has to be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_director_is_dismissed_when_its_epoch_is_over() {
    within_limit(async {
        let (world, first, told, _) = ready_world().await;
        let request = BeginRecovery { reason: "a drill".to_owned() };
        world.ask(2, &BEGIN_RECOVERY, &request).await.unwrap();
        world.until(1, "told to go", |_| told.dismissal().is_some()).await;
        let dismissal = told.dismissal().unwrap();
        assert_eq!((dismissal.epoch, dismissal.reason.as_str()), (Epoch(1), "a drill"));
        assert_eq!(dismissal.director, first.pid().incarnation);
        let (second, _) = with_director(&world, 2).await;
        let status = world.until(3, "followed", |status| is_appointed(status, &second)).await;
        assert_eq!(status.director.unwrap().cause, "a drill");
    })
    .await;
}

/// A void appointment stands nowhere any more, and its director has to make way all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_director_whose_appointment_is_void_is_dismissed() {
    within_limit(async {
        let (world, first, _told, recorded) = ready_world().await;
        let (second, told) = with_director(&world, 2).await;
        world.remove(&first.service.clone());
        first.kill().await;
        world.until(1, "followed", |status| is_appointed(status, &second)).await;
        let version = recorded.config.config_version.0;
        let made = change(&world, 2, false, version, ("failure_timeout_ms", 900)).await.unwrap();
        assert_eq!(made.state, PatchState::Recorded);
        world.until(1, "told to go", |_| told.dismissal().is_some()).await;
        let dismissal = told.dismissal().unwrap();
        assert_eq!((dismissal.epoch, dismissal.director), (Epoch(2), second.pid().incarnation));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_followed_and_its_director_adopted() {
    within_limit(async {
        let (mut world, first, _told, _) = ready_world().await;
        let status = world.until(1, "led", |status| status.leader.is_some()).await;
        let leader = status.leader.unwrap();
        let on = (1..=3).find(|on| service(ServiceKind::Coordinator, *on) == leader).unwrap();
        world.kill(on).await;
        let other = on % 3 + 1;
        let status = world
            .until(other, "led by another", |status| {
                status.ready && status.leader.as_ref().is_some_and(|now| *now != leader)
            })
            .await;
        assert_eq!(status.epoch, Epoch(1));
        assert!(is_appointed(&status, &first));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_the_answer_is_no_quorum() {
    within_limit(async {
        let (mut world, _first, _told, _) = ready_world().await;
        world.kill(1).await;
        world.kill(2).await;
        let status = world.until(3, "alone", |status| !status.ready).await;
        assert_eq!(status.epoch, Epoch(1));
        world.until_refused(3, &HOLDING, &Nothing {}, ErrorCode::NoQuorum).await;
        // It comes back by itself.
        world.restart(1).await;
        world.until(3, "ready again", |status| status.ready).await;
        world.holding(3).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_has_lost_its_disk_joins_under_a_new_identity() {
    within_limit(async {
        let (mut world, _first, _told, recorded) = ready_world().await;
        let before = world.ask(2, &MEMBERS, &Nothing {}).await.unwrap();
        world.kill(1).await;
        world.wipe(1);
        world.restart(1).await;
        let status = world
            .until(1, "back", |status| status.ready && status.bootstrap.source == "peers")
            .await;
        assert_eq!(status.epoch, Epoch(1));
        assert_eq!(status.members.len(), 3);
        let after = world.ask(1, &MEMBERS, &Nothing {}).await.unwrap();
        assert_eq!(after.group, before.group);
        assert_ne!(after.members[0].raft_id, before.members[0].raft_id);
        assert_eq!(after.members[1..], before.members[1..]);
        // It counts: with another one gone there still is a majority.
        world.kill(2).await;
        world.until(1, "led", |status| status.ready).await;
        assert_eq!(world.holding(1).await.recorded, Some(recorded));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_every_coordinator_has_lost_its_disk_the_storages_have_the_configuration() {
    within_limit(async {
        let (mut world, first, _told, recorded) = ready_world().await;
        let mut storages = Vec::new();
        for on in 1..=3 {
            let kind = service(ServiceKind::Storage, on);
            let played = storage(kind, CLUSTER, storage_store(on), recorded.clone()).await;
            world.add(&played, Some(storage_store(on)));
            storages.push(played);
        }
        let before = world.holding(1).await;
        world.remove(&first.service.clone());
        first.kill().await;
        for on in 1..=3 {
            world.kill(on).await;
            world.wipe(on);
        }
        let (second, _) = with_director(&world, 2).await;
        for on in 1..=3 {
            world.restart(on).await;
        }
        let status = world.until(1, "followed", |status| is_appointed(status, &second)).await;
        assert!((1 << 20..2 << 20).contains(&(status.epoch.0 - 2)), "epoch {}", status.epoch);
        let holding = world.holding(1).await;
        assert_ne!(holding.group, before.group);
        assert_eq!(holding.recorded, Some(recorded));
        assert!(holding.version_floor > before.version_floor);
        for on in 1..=3 {
            let status = world.until(on, "a member", |status| status.members.len() == 3).await;
            let source = status.bootstrap.source;
            assert!(source == "storage" || source == "peers", "{source}");
        }
        make_ready(&world, 3, status.epoch, second.pid().incarnation).await;
        world.until(2, "ready", |status| status.ready).await;
    })
    .await;
}

/// Asks a coordinator for a change of a parameter.
async fn change(
    world: &World,
    on: usize,
    dry_run: bool,
    version: u64,
    (name, value): (&str, u64),
) -> Result<ConfigPatched, CallError> {
    let parameters = [(name.to_owned(), value)].into();
    let patch = ConfigPatch { parameters: ParameterChanges(parameters) };
    let tag = HeaderValue::try_from(format!("\"{version}\"")).unwrap();
    world.patch(on, &PatchQuery { dry_run }.path(&PATCH_CONFIG), &tag, &patch).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_the_directors_while_its_epoch_is_ready() {
    within_limit(async {
        let (world, _first, _told, recorded) = ready_world().await;
        let version = recorded.config.config_version.0;
        for on in 1..=3 {
            let made = change(&world, on, false, version, ("logs", 5)).await.unwrap();
            assert_eq!((made.state, made.config_version.0), (PatchState::Durable, 77));
            assert_eq!(made.parameters.logs, 5);
        }
        assert_eq!(world.holding(1).await.recorded, Some(recorded));
    })
    .await;
}

/// A recovery that does not become ready is configured out of, and nothing that its director still
/// sends undoes that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_23_a_stuck_recovery_is_configured_out_of_and_its_director_undoes_nothing() {
    within_limit(async {
        let (world, first, _told, recorded) = ready_world().await;
        let (second, _) = with_director(&world, 2).await;
        let (third, told) = with_director(&world, 3).await;
        world.remove(&first.service.clone());
        first.kill().await;
        let status = world.until(1, "followed", |status| is_appointed(status, &second)).await;
        assert_eq!((status.epoch, status.ready), (Epoch(2), false));
        let version = recorded.config.config_version.0;

        let would = change(&world, 1, true, version, ("rejoin_grace_ms", 7)).await.unwrap();
        assert_eq!((would.state, would.config_version.0), (PatchState::DryRun, version));
        let stale =
            change(&world, 2, false, version + 1, ("rejoin_grace_ms", 7)).await.unwrap_err();
        assert_eq!(stale.code(), Some(ErrorCode::PreconditionFailed));
        let low = change(&world, 3, false, version, ("logs", 2)).await.unwrap_err();
        assert_eq!(low.code(), Some(ErrorCode::InvalidRequest));
        // No node reports that makes logs.
        let many = change(&world, 3, false, version, ("logs", 4)).await.unwrap_err();
        assert_eq!(many.code(), Some(ErrorCode::Unsatisfiable), "{many}");
        assert_eq!(world.holding(1).await.recorded, Some(recorded.clone()));

        let longer = ("failure_timeout_ms", 900);
        let made = change(&world, 2, false, version, longer).await.unwrap();
        assert_eq!((made.state, made.config_version.0), (PatchState::Recorded, version + 1));
        assert!(made.begins_epoch);
        let again = change(&world, 2, false, version, longer).await.unwrap_err();
        assert_eq!(again.code(), Some(ErrorCode::PreconditionFailed));

        // The director of before comes too late, whatever it builds on.
        let status = world.until(1, "followed", |status| is_appointed(status, &third)).await;
        assert_eq!(status.epoch, Epoch(3));
        let holding = world.holding(3).await;
        for expected in [version, version + 1] {
            let late = RecordRequest {
                epoch: Epoch(2),
                director: second.pid().incarnation,
                expected: Some(ConfigVersion(expected)),
                recorded: configuration(&holding, Epoch(2)),
            };
            let refused = world.ask(3, &RECORD, &late).await.unwrap_err();
            assert_eq!(refused.code(), Some(ErrorCode::Superseded));
        }
        let now = holding.recorded.unwrap();
        assert_eq!(now.config.parameters, made.parameters);
        assert_eq!(now.config.config_version.0, version + 1);
        world.until(1, "told", |_| told.last().is_some_and(|told| told.epoch == Epoch(3))).await;
        let cause = told.last().unwrap().cause;
        assert_eq!(cause, "parameters were changed: failure_timeout_ms from 400 to 900");
    })
    .await;
}
