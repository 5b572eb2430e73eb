//! The format level is raised by the director of a ready epoch, and by the leader while none is.

use http::HeaderValue;
use plinth_api::config::{LevelRaised, PatchQuery, PatchState, RAISE_LEVEL, RaiseLevel};
use plinth_api::coordinator::{RECORD, RecordRequest};
use plinth_api::{CallError, ErrorCode};
use plinth_system_config::{FORMAT_LEVEL, Recorded};
use plinth_types::{ConfigVersion, Epoch};

use crate::played::{Played, Told};
use crate::scenarios::{is_appointed, ready_world, with_director, within_limit};
use crate::world::{World, configuration, node};

/// Asks a coordinator to raise the level.
async fn raise(
    world: &World,
    on: usize,
    dry_run: bool,
    tag: &str,
    order: &RaiseLevel,
) -> Result<LevelRaised, CallError> {
    let tag = HeaderValue::from_str(tag).unwrap();
    let path = PatchQuery { dry_run }.path(&RAISE_LEVEL);
    world.conditional(on, &RAISE_LEVEL, &path, &tag, order).await
}

fn to(level: u32) -> RaiseLevel {
    RaiseLevel { level, without: [].into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raising_is_the_directors_while_its_epoch_is_ready() {
    within_limit(async {
        let (world, _first, _told, recorded) = ready_world().await;
        for on in 1..=3 {
            let made = raise(&world, on, false, "*", &to(2)).await.unwrap();
            assert_eq!(
                (made.state, made.config_version.0, made.level),
                (PatchState::Durable, 77, 2)
            );
        }
        assert_eq!(world.holding(1).await.recorded, Some(recorded));
    })
    .await;
}

/// A cluster whose second epoch, at level 1, is stuck with its layout recorded; a third director stands by.
async fn stuck_world() -> (World, Vec<(Played, Told)>, Recorded) {
    let (world, first, _told, _) = ready_world().await;
    let mut others = Vec::new();
    for on in 2..=3 {
        others.push(with_director(&world, on).await);
    }
    world.remove(&first.service.clone());
    first.kill().await;
    let second = &others[0].0;
    let status = world.until(1, "followed", |status| is_appointed(status, second)).await;
    assert_eq!((status.epoch, status.ready), (Epoch(2), false));
    let holding = world.holding(1).await;
    let mut recorded = configuration(&holding, Epoch(2));
    recorded.config.format_level = 1;
    let coordinators = recorded.config.coordinators.iter_mut();
    coordinators.for_each(|coordinator| coordinator.address = None);
    let request = RecordRequest {
        epoch: Epoch(2),
        director: second.pid().incarnation,
        expected: holding.recorded.map(|recorded| recorded.config.config_version),
        recorded: recorded.clone(),
    };
    world.ask(1, &RECORD, &request).await.unwrap();
    (world, others, recorded)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_recovery_is_raised_out_of_once_every_node_reads_the_level() {
    within_limit(async {
        let (world, others, recorded) = stuck_world().await;
        let version = recorded.config.config_version;
        let tag = format!("\"{version}\"");
        let low = FORMAT_LEVEL - 1;
        world.reads(3, Some(low));
        // The reports go round: the leader has heard of it once it refuses.
        let words = format!("node-3 reads up to level {low}");
        loop {
            let refused = match raise(&world, 2, true, &tag, &to(FORMAT_LEVEL)).await {
                Ok(_) => continue,
                Err(refused) => refused,
            };
            assert_eq!(refused.code(), Some(ErrorCode::Unsatisfiable), "{refused}");
            assert!(refused.to_string().contains(&words), "{refused}");
            break;
        }
        for (asked, words) in [(0, "never goes back"), (FORMAT_LEVEL + 1, "knows no format level")]
        {
            let refused = raise(&world, 1, false, &tag, &to(asked)).await.unwrap_err();
            assert_eq!(refused.code(), Some(ErrorCode::Unsatisfiable), "{refused}");
            assert!(refused.to_string().contains(words), "{refused}");
        }
        let stale = raise(&world, 3, false, "\"1234\"", &to(FORMAT_LEVEL)).await.unwrap_err();
        assert_eq!(stale.code(), Some(ErrorCode::PreconditionFailed));
        let same = raise(&world, 3, false, &tag, &to(1)).await.unwrap();
        assert_eq!((same.state, same.config_version), (PatchState::Unchanged, version));
        assert_eq!(world.holding(1).await.recorded, Some(recorded.clone()));

        // What does not say takes no part in an order that only the coordinators record.
        world.reads(3, None);
        loop {
            match raise(&world, 2, true, &tag, &to(2)).await {
                Ok(_) => continue,
                Err(refused) => {
                    assert_eq!(refused.code(), Some(ErrorCode::Unsatisfiable), "{refused}");
                    let refused = refused.to_string();
                    let is_told = refused.contains("no epoch is ready");
                    assert!(is_told && refused.contains("node-3 has a process"), "{refused}");
                    break;
                }
            }
        }
        world.reads(3, Some(FORMAT_LEVEL));
        let made = loop {
            match raise(&world, 2, false, &tag, &to(FORMAT_LEVEL)).await {
                Ok(made) => break made,
                Err(refused) => assert_eq!(refused.code(), Some(ErrorCode::Unsatisfiable)),
            }
        };
        assert_eq!((made.state, made.config_version), (PatchState::Recorded, version.next()));
        assert_eq!((made.from, made.level), (1, FORMAT_LEVEL));

        // The next epoch begins, and whatever builds on the configuration of before comes too late.
        let (third, told) = &others[1];
        world.until(1, "followed", |status| is_appointed(status, third)).await;
        let holding = world.holding(3).await;
        assert_eq!(holding.recorded, Some(recorded.with_format_level(FORMAT_LEVEL)));
        let late = RecordRequest {
            epoch: Epoch(2),
            director: others[0].0.pid().incarnation,
            expected: Some(version),
            recorded: configuration(&holding, Epoch(2)),
        };
        let refused = world.ask(3, &RECORD, &late).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::Superseded));
        world.until(1, "told", |_| told.last().is_some()).await;
        let cause = told.last().unwrap().cause;
        assert_eq!(cause, format!("format level from 1 to {FORMAT_LEVEL}"));
    })
    .await;
}

/// A node that is gone for good can't be removed by an order that only a higher level can say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_report_holds_it_up_until_it_is_named() {
    within_limit(async {
        let (world, others, mut recorded) = stuck_world().await;
        let (entry, gone) =
            (plinth_system_config::NodeEntry::new("away".parse().unwrap(), vec![]), node(4));
        recorded.config.nodes.insert(gone.clone(), entry);
        let version = recorded.config.config_version;
        recorded.config.config_version = version.next();
        let request = RecordRequest {
            epoch: Epoch(2),
            director: others[0].0.pid().incarnation,
            expected: Some(version),
            recorded: recorded.clone(),
        };
        world.ask(1, &RECORD, &request).await.unwrap();
        let silent = raise(&world, 1, true, "*", &to(FORMAT_LEVEL)).await.unwrap_err();
        assert_eq!(silent.code(), Some(ErrorCode::Unsatisfiable), "{silent}");
        assert!(silent.to_string().contains("node-4 does not report"), "{silent}");
        let order = RaiseLevel { level: FORMAT_LEVEL, without: [node(9)].into() };
        let unknown = raise(&world, 1, true, "*", &order).await.unwrap_err();
        assert_eq!(unknown.code(), Some(ErrorCode::NotFound), "{unknown}");
        let order = RaiseLevel { level: FORMAT_LEVEL, without: [gone].into() };
        let made = raise(&world, 3, false, "*", &order).await.unwrap();
        assert_eq!(made.state, PatchState::Recorded);
        assert_eq!(made.config_version, ConfigVersion(version.0 + 2));
    })
    .await;
}
