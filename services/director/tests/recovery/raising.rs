//! The format level is raised while the epoch lasts.

use http::HeaderValue;
use plinth_api::config::{LevelRaised, PatchQuery, PatchState, RAISE_LEVEL, RaiseLevel};
use plinth_api::{CallError, ErrorCode, Target};
use plinth_system_config::{
    Envelope, FORMAT_LEVEL, Recorded, decode_stored, encode_stored, keys, recorded_from_rows,
};
use plinth_types::ConfigVersion;

use crate::world::Neighbours;
use crate::{Director, LIMIT, one_epoch};

/// What one epoch of a release that writes level 1 leaves behind.
pub(crate) async fn one_epoch_at_level_1() -> Neighbours {
    let neighbours = one_epoch().await;
    let mut world = neighbours.world();
    let as_level_1 = |recorded: &mut Option<Recorded>| {
        let recorded = recorded.as_mut().unwrap();
        recorded.config.format_level = 1;
        let coordinators = recorded.config.coordinators.iter_mut();
        coordinators.for_each(|coordinator| coordinator.address = None);
        *recorded = decode_stored(&encode_stored(recorded).unwrap()).unwrap();
    };
    as_level_1(&mut world.recorded);
    as_level_1(&mut world.ready);
    world.logs.values_mut().for_each(|log| as_level_1(&mut log.config));
    drop(world);
    neighbours
}

/// The level that the configuration in `\xff/system` is written at, and what its row of its own says.
pub(crate) fn stored_levels(neighbours: &Neighbours) -> (u32, u32) {
    let world = neighbours.world();
    let config = world.row(keys::CONFIG).unwrap();
    let envelope = Envelope::open(config.as_bytes(), "plinth.system-config", FORMAT_LEVEL);
    let row = world.row(keys::CLUSTER_FORMAT_LEVEL).unwrap();
    (envelope.unwrap().level(), serde_json::from_slice(row.as_bytes()).unwrap())
}

impl Director {
    async fn raise(
        &self,
        dry_run: bool,
        version: ConfigVersion,
        order: &RaiseLevel,
    ) -> Result<LevelRaised, CallError> {
        let tag = HeaderValue::try_from(format!("\"{version}\"")).unwrap();
        let target = Target::from(self.context.pid());
        let path = PatchQuery { dry_run }.path(&RAISE_LEVEL);
        let peers = self.context.peers();
        let answer = peers.conditional(&target, &RAISE_LEVEL, &path, &tag, order, LIMIT).await;
        answer.map(|answer| answer.body)
    }
}

fn to(level: u32) -> RaiseLevel {
    RaiseLevel { level, without: [].into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_is_raised_in_storage_before_it_is_answered_and_every_later_director_keeps_it() {
    let neighbours = one_epoch_at_level_1().await;
    let director = Director::appointed(&neighbours, &[]).await;
    let before = director.until_ready().await.recorded;
    let version = before.config.config_version;
    assert_eq!(stored_levels(&neighbours), (1, 1));

    let would = director.raise(true, version, &to(FORMAT_LEVEL)).await.unwrap();
    assert_eq!((would.state, would.config_version), (PatchState::DryRun, version));
    assert_eq!((would.from, would.level), (1, FORMAT_LEVEL));
    let same = director.raise(false, version, &to(1)).await.unwrap();
    assert_eq!((same.state, same.config_version), (PatchState::Unchanged, version));
    assert_eq!(neighbours.world().recorded.as_ref(), Some(&before));

    neighbours.world().journal.clear();
    let made = director.raise(false, version, &to(FORMAT_LEVEL)).await.unwrap();
    assert_eq!((made.state, made.config_version), (PatchState::Durable, version.next()));
    let recorded = neighbours.world().recorded.clone().unwrap();
    assert_eq!(recorded, before.with_format_level(FORMAT_LEVEL));
    assert_eq!(neighbours.world().ready.as_ref(), Some(&recorded));
    assert_eq!(stored_levels(&neighbours), (FORMAT_LEVEL, FORMAT_LEVEL));
    for n in 1..=3 {
        assert_eq!(neighbours.count(&format!("log-1@node-{n} PUT /v1/system_config")), 1);
    }
    let live = director.until(|live| live.recorded == recorded).await;
    assert!(live.accepting_commits);
    let stale = director.raise(false, version, &to(FORMAT_LEVEL)).await.unwrap_err();
    assert_eq!(stale.code(), Some(ErrorCode::PreconditionFailed));
    let again = director.raise(false, made.config_version, &to(FORMAT_LEVEL)).await.unwrap();
    assert_eq!((again.state, again.config_version), (PatchState::Unchanged, made.config_version));
    director.context.request_stop();
    director.exit().await;

    let director = Director::appointed(&neighbours, &[]).await;
    let live = director.until_ready().await;
    assert_eq!(live.recorded.config.format_level, FORMAT_LEVEL);
    assert_eq!(live.recorded.config.parameters, before.config.parameters);
    assert_eq!(stored_levels(&neighbours), (FORMAT_LEVEL, FORMAT_LEVEL));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_that_can_not_be_is_refused_with_the_reason_and_changes_nothing() {
    let neighbours = one_epoch_at_level_1().await;
    let low = FORMAT_LEVEL - 1;
    neighbours.world().reads.insert("node-2".to_owned(), Some(low));
    let director = Director::appointed(&neighbours, &[]).await;
    let before = director.until_ready().await.recorded;
    let without = |node: &str| RaiseLevel { level: 2, without: [node.parse().unwrap()].into() };
    let too_high = format!("node-2 reads up to level {low}");
    for (order, code, field, words) in [
        (to(0), ErrorCode::Unsatisfiable, "level", "never goes back"),
        (to(FORMAT_LEVEL + 1), ErrorCode::Unsatisfiable, "level", "knows no format level"),
        (to(FORMAT_LEVEL), ErrorCode::Unsatisfiable, "level", too_high.as_str()),
        (without("node-9"), ErrorCode::NotFound, "without", "no node node-9 is known"),
    ] {
        for dry_run in [true, false] {
            let version = before.config.config_version;
            let refused = director.raise(dry_run, version, &order).await.unwrap_err();
            let CallError::Problem(problem) = refused else { panic!("{refused}") };
            assert_eq!((problem.code, problem.facts["field"].as_str()), (code, field));
            assert!(problem.detail.contains(words), "{}", problem.detail);
        }
    }
    assert_eq!(neighbours.world().recorded.as_ref(), Some(&before));
}

/// The coordinators' leader has recorded it while no epoch was ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_that_was_raised_while_no_epoch_was_ready_is_written_by_the_next_recovery() {
    let neighbours = one_epoch_at_level_1().await;
    let raised = neighbours.world().recorded.clone().unwrap().with_format_level(FORMAT_LEVEL);
    neighbours.world().recorded = Some(raised.clone());
    let director = Director::appointed(&neighbours, &[]).await;
    let live = director.until_ready().await;
    live.recorded.validate_after(&raised).unwrap();
    assert_eq!(stored_levels(&neighbours), (FORMAT_LEVEL, FORMAT_LEVEL));
    let world = neighbours.world();
    let shards = live.recorded.shards.0.iter().map(|(start, _)| keys::shard(start));
    let shards = shards.map(|key| (key.clone(), world.row(key.as_bytes()).unwrap().clone()));
    let config = world.row(keys::CONFIG).unwrap();
    assert_eq!(recorded_from_rows(config.as_bytes(), shards).unwrap(), live.recorded);
}
