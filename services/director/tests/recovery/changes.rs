//! Parameters are changed while the epoch lasts.

use std::collections::BTreeMap;

use http::HeaderValue;
use plinth_api::config::{
    ConfigPatch, ConfigPatched, PATCH_CONFIG, ParameterChanges, PatchQuery, PatchState,
};
use plinth_api::nodes::{ORDER_NODE, OrderNode};
use plinth_api::{CallError, ErrorCode, Target};
use plinth_system_config::{Standing, SystemConfig, decode_stored, keys};
use plinth_types::{ConfigVersion, Epoch, ServiceKind, ServiceRef};

use crate::world::Neighbours;
use crate::{Director, LIMIT, one_epoch};

impl Director {
    async fn change(
        &self,
        dry_run: bool,
        version: ConfigVersion,
        of: &[(&str, u64)],
    ) -> Result<ConfigPatched, CallError> {
        let parameters: BTreeMap<String, u64> =
            of.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let patch = ConfigPatch { parameters: ParameterChanges(parameters) };
        let tag = HeaderValue::try_from(format!("\"{version}\"")).unwrap();
        let target = Target::from(self.context.pid());
        let path = PatchQuery { dry_run }.path(&PATCH_CONFIG);
        let peers = self.context.peers();
        let answer = peers.conditional(&target, &PATCH_CONFIG, &path, &tag, &patch, LIMIT).await;
        answer.map(|answer| answer.body)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_about_nodes_that_can_not_be_are_refused_and_change_nothing() {
    let neighbours = one_epoch().await;
    let director = Director::appointed(&neighbours, &[]).await;
    let before = director.until_ready().await.recorded;
    let target = Target::from(director.context.pid());
    let order = async |node: &str, standing, dry_run| {
        let order = OrderNode { node: node.parse().unwrap(), standing, dry_run };
        director.context.peers().call(&target, &ORDER_NODE, &order, None, LIMIT).await
    };
    for (node, standing, code, words) in [
        ("node-3", Standing::Draining, ErrorCode::Unsatisfiable, "can't do without node-3"),
        ("node-3", Standing::Removed, ErrorCode::Unsatisfiable, "drained first"),
        ("node-9", Standing::Draining, ErrorCode::NotFound, "no node node-9"),
    ] {
        for dry_run in [true, false] {
            let refused = order(node, standing, dry_run).await.unwrap_err();
            assert_eq!(refused.code(), Some(code), "{refused}");
            assert!(refused.to_string().contains(words), "{refused}");
        }
    }
    let same = order("node-3", Standing::InUse, false).await.unwrap();
    assert_eq!(same.state, PatchState::Unchanged);
    assert!(same.remaining.contains(&"storage-1@node-3".parse().unwrap()));
    assert_eq!(neighbours.world().recorded.as_ref(), Some(&before));
}

/// Whether the director has said that nobody knows, or has ended before it could.
fn is_unknown(error: &CallError) -> bool {
    match error.code() {
        Some(code) => code == ErrorCode::CommitUnknownResult,
        None => !error.had_no_effect(),
    }
}

fn stored(neighbours: &Neighbours) -> SystemConfig<ServiceRef> {
    decode_stored(neighbours.world().row(keys::CONFIG).unwrap().as_bytes()).unwrap()
}

fn row(neighbours: &Neighbours, parameter: &str) -> u64 {
    let key = keys::parameter(parameter);
    serde_json::from_slice(neighbours.world().row(key.as_bytes()).unwrap().as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_recorded_kept_and_stored_before_it_is_answered() {
    let neighbours = one_epoch().await;
    let director = Director::appointed(&neighbours, &[]).await;
    let before = director.until_ready().await.recorded;
    let version = before.config.config_version;
    neighbours.world().journal.clear();

    let would = director.change(true, version, &[("rejoin_grace_ms", 7)]).await.unwrap();
    assert_eq!((would.state, would.config_version), (PatchState::DryRun, version));
    assert_eq!(would.parameters.rejoin_grace_ms, 7);
    let same = director.change(false, version, &[("rejoin_grace_ms", 200)]).await.unwrap();
    assert_eq!((same.state, same.config_version), (PatchState::Unchanged, version));
    assert_eq!(neighbours.world().recorded.as_ref(), Some(&before));

    let made = director.change(false, version, &[("rejoin_grace_ms", 7)]).await.unwrap();
    assert_eq!((made.state, made.config_version), (PatchState::Durable, version.next()));
    assert!(!made.begins_epoch);
    let recorded = neighbours.world().recorded.clone().unwrap();
    recorded.validate_after(&before).unwrap();
    assert_eq!(recorded.config.parameters, made.parameters);
    assert_eq!(stored(&neighbours), recorded.config);
    assert_eq!(row(&neighbours, "rejoin_grace_ms"), 7);
    assert_eq!(neighbours.world().ready.as_ref(), Some(&recorded));
    let proxy = neighbours.world().only(ServiceKind::CommitProxy);
    let committed = neighbours.position(&format!("{proxy} POST /v1/commits")).unwrap();
    let holding = |n: &i32| neighbours.position(&format!("coordinator-1@node-{n} PUT /v1/holding"));
    let put = (1..=3).collect::<Vec<i32>>().iter().filter_map(holding).min().unwrap();
    for n in 1..=3 {
        let kept = neighbours.position(&format!("log-1@node-{n} PUT /v1/system_config")).unwrap();
        assert!(put < kept && kept < committed);
    }
    // The epoch goes on with it, and makes the next change too.
    let live = director.until(|live| live.recorded == recorded).await;
    assert!(live.accepting_commits);
    let next = made.config_version;
    let made = director.change(false, next, &[("storage_lost_ms", 9_000)]).await.unwrap();
    assert_eq!((made.config_version, made.parameters.rejoin_grace_ms), (next.next(), 7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_is_refused_and_changes_nothing() {
    let neighbours = one_epoch().await;
    let director = Director::appointed(&neighbours, &[]).await;
    let before = director.until_ready().await.recorded;
    let version = before.config.config_version;
    for (asked, code, field, words) in [
        (
            ("replication", 5),
            ErrorCode::InvalidRequest,
            "parameters.logs",
            "logs is 3, and must be at least replication, which is 5",
        ),
        (
            ("config_team", 5),
            ErrorCode::Unsatisfiable,
            "parameters.config_team",
            "config_team is 5, and 3 nodes report that can run a storage",
        ),
        (("colour", 5), ErrorCode::InvalidRequest, "parameters.colour", "no parameter"),
        (("resolvers", 0), ErrorCode::InvalidRequest, "parameters.resolvers", "from 1 to 100"),
    ] {
        for dry_run in [true, false] {
            let refused = director.change(dry_run, version, &[asked]).await.unwrap_err();
            let CallError::Problem(problem) = refused else { panic!("{refused}") };
            assert_eq!((problem.code, problem.facts["field"].as_str()), (code, field));
            assert!(problem.detail.contains(words), "{}", problem.detail);
        }
    }
    let stale = director.change(false, ConfigVersion(version.0 - 1), &[("logs", 4)]).await;
    assert_eq!(stale.unwrap_err().code(), Some(ErrorCode::PreconditionFailed));
    assert_eq!(neighbours.world().recorded, Some(before));
}

/// Failure 23: a parameter was changed and acknowledged, the director died, and the next one writes
/// the old value back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_23_the_next_director_does_not_write_an_acknowledged_value_back() {
    let neighbours = one_epoch().await;
    let director = Director::appointed(&neighbours, &[]).await;
    let version = director.until_ready().await.recorded.config.config_version;
    let made = director.change(false, version, &[("failure_timeout_ms", 1_234)]).await.unwrap();
    assert_eq!(made.state, PatchState::Durable);
    neighbours.kill(&crate::world::service("log-1@node-2"));
    assert_eq!(director.exit().await.status, 1);
    for epoch in 3..=4 {
        let director = Director::appointed(&neighbours, &[]).await;
        let live = director.until_ready().await;
        assert_eq!(live.recorded.config.epoch, Epoch(epoch));
        assert_eq!(live.recorded.config.parameters, made.parameters);
        assert_eq!(stored(&neighbours), live.recorded.config);
        assert_eq!(row(&neighbours, "failure_timeout_ms"), 1_234);
        director.context.request_stop();
        director.exit().await;
    }
}

/// The logs keep what was recorded before: the coordinators' configuration is the newer one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_coordinators_changed_while_no_epoch_was_ready_is_in_force_and_stored() {
    let neighbours = one_epoch().await;
    let version = {
        let mut world = neighbours.world();
        let recorded = world.recorded.clone().unwrap();
        let mut parameters = recorded.config.parameters.clone();
        (parameters.logs, parameters.replication) = (2, 2);
        let next = recorded.with_parameters(parameters);
        let version = next.config.config_version;
        world.recorded = Some(next);
        version
    };
    let director = Director::appointed(&neighbours, &[]).await;
    let recorded = director.until_ready().await.recorded;
    assert_eq!(recorded.config.config_version, version.next());
    assert_eq!(recorded.config.layout.logs.len(), 2);
    assert_eq!(stored(&neighbours).parameters.logs, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_components_ends_the_epoch_and_the_next_recruits_by_it() {
    let neighbours = one_epoch().await;
    let director = Director::appointed(&neighbours, &[]).await;
    let version = director.until_ready().await.recorded.config.config_version;
    let asked = [("logs", 2), ("replication", 2), ("commit_proxies", 2)];
    let made = director.change(false, version, &asked).await.unwrap();
    assert_eq!((made.state, made.begins_epoch), (PatchState::Durable, true));
    let exit = director.exit().await;
    let words = "parameters were changed: replication from 3 to 2, logs from 3 to 2, commit_proxies from 1 to 2";
    assert!(exit.status == 1 && exit.reason.ends_with(words), "{}", exit.reason);
    let farewell = neighbours.world().farewells.pop().unwrap();
    assert_eq!((farewell.reason, farewell.suspects.len()), (exit.reason, 0));
    let director = Director::appointed(&neighbours, &[]).await;
    let layout = director.until_ready().await.recorded.config.layout;
    assert_eq!((layout.logs.len(), layout.commit_proxies.len()), (2, 2));
}

/// Whoever has asked is not told that it was done, nor that it was not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_not_proved_ends_the_director_and_its_outcome_is_unknown() {
    let neighbours = one_epoch().await;
    let director = Director::appointed(&neighbours, &[]).await;
    let before = director.until_ready().await.recorded;
    let version = before.config.config_version;
    let shorter = [("system_transaction_timeout_ms", 1_000)];
    let version = director.change(false, version, &shorter).await.unwrap().config_version;
    neighbours.world().forget_commits = true;
    let unknown = director.change(false, version, &[("rejoin_grace_ms", 7)]).await.unwrap_err();
    assert!(is_unknown(&unknown), "{unknown}");
    assert!(director.exit().await.reason.contains("not durable in time"));
    // Here it was recorded, so it is in force.
    neighbours.world().forget_commits = false;
    let director = Director::appointed(&neighbours, &[]).await;
    let live = director.until_ready().await;
    assert_eq!(live.recorded.config.parameters.rejoin_grace_ms, 7);
}

/// Another change has won at the coordinators.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_director_whose_change_is_refused_does_not_go_on() {
    let neighbours = one_epoch().await;
    let director = Director::appointed(&neighbours, &[]).await;
    let version = director.until_ready().await.recorded.config.config_version;
    neighbours.world().refuse_record = true;
    let lost = director.change(false, version, &[("rejoin_grace_ms", 7)]).await.unwrap_err();
    assert!(is_unknown(&lost), "{lost}");
    assert!(director.exit().await.reason.contains("the layout was refused"));
    assert_ne!(stored(&neighbours).parameters.rejoin_grace_ms, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_waits_hears_of_a_later_epoch() {
    let neighbours = one_epoch().await;
    for n in 1..=3 {
        neighbours.kill(&crate::world::service(&format!("log-1@node-{n}")));
    }
    let director = Director::appointed(&neighbours, &[]).await;
    neighbours.world().shown_epoch = Epoch(9);
    let exit = director.exit().await;
    assert!(exit.reason.contains("superseded: epoch 9 has begun"), "{}", exit.reason);
}
