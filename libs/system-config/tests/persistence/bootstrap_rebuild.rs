//! The last row of the bootstrap table: too few storages have a configuration that can be read, and
//! what an operator may decide where the logs don't show which one is the newest.

use std::collections::BTreeSet;

use plinth_system_config::bootstrap::{
    Decision, Doubt, EPOCH_GAP, Held, Inputs, Keeper, Kept, Known, Manifest, Missing, NoOption,
    Obstacle, decide, recovery_option,
};
use plinth_system_config::{BootstrapSource, Parameters, ShardMap};
use plinth_types::{ConfigVersion, Epoch, ServiceKind, Tag, Version};

use crate::bootstrap_table::{
    With as _, config, coordinator, coordinators, corrupt, keeper, nobody_has_raft, running, stamp,
    valid,
};
use crate::samples::{GROUP, log_store, node, service, storage_store};

fn log_keeper(on: u32) -> Keeper {
    Keeper { service: service(ServiceKind::Log, on), store: log_store(on) }
}

/// Nobody has Raft, no storage's configuration can be read, and each log keeps this one.
fn only_logs(kept: &Known<Kept>) -> Inputs {
    (1..=3)
        .fold(nobody_has_raft(), |inputs, on| inputs.worker(on, corrupt()).log(on, 5, kept.clone()))
}

fn held(inputs: &mut Inputs, kind: ServiceKind, on: u32) -> &mut Held {
    let workers = &mut inputs.foremen.get_mut(&node(on)).unwrap().workers;
    let is_it = |manifest: &&mut Manifest| manifest.service.kind() == kind;
    workers.iter_mut().find(is_it).unwrap().held.as_mut().unwrap()
}

fn obstacle(inputs: &Inputs) -> Obstacle {
    match decide(inputs).decision {
        Decision::Unready { obstacle } => obstacle,
        other => panic!("{other:?}"),
    }
}

#[test]
fn row_6_the_logs_show_the_newest_configuration() {
    let inputs = only_logs(&valid(config(5, 9)));
    let outcome = decide(&inputs);
    let Decision::RebuildFromManifests { recorded, from, members, former, renounce, floor } =
        &outcome.decision
    else {
        panic!("{:?}", outcome.decision)
    };
    assert_eq!(recorded, &config(5, 9));
    assert_eq!(from, &Some(log_keeper(1)));
    assert_eq!((members, former), (&coordinators(), &BTreeSet::new()));
    assert!(renounce.is_empty());
    assert_eq!(floor.epoch, Epoch(5 + EPOCH_GAP));
    assert_eq!(outcome.rejected.len(), 3);
    let status = outcome.status().unwrap();
    assert_eq!((status.source, status.epoch), (BootstrapSource::Manifests, Epoch(5)));
    assert_eq!(status.storage, Some(service(ServiceKind::Log, 1)));
    // The operator has nothing to decide.
    assert_eq!(recovery_option(&inputs), Err(NoOption::Decided));
}

#[test]
fn row_6_a_log_that_a_later_epoch_has_locked_shows_nothing() {
    let mut inputs = only_logs(&valid(config(5, 9)));
    held(&mut inputs, ServiceKind::Log, 2).epoch = Epoch(6);
    let lost = Obstacle::ConfigTeamLost { stamp: stamp(5, 9), valid: 0, members: 3 };
    assert_eq!(obstacle(&inputs), lost);
    let option = recovery_option(&inputs).unwrap();
    assert_eq!(option.recorded, Some(config(5, 9)));
    assert_eq!(
        option.doubts,
        [
            Doubt::TeamLost { valid: 0, members: 3 },
            Doubt::LogUnproven(log_keeper(2)),
            Doubt::LaterEpoch { service: service(ServiceKind::Log, 2), epoch: Epoch(6) },
        ]
    );
    assert_eq!(option.floor.epoch, Epoch(6 + EPOCH_GAP));
}

#[test]
fn row_6_a_storage_that_was_told_of_a_later_epoch_contradicts_the_logs() {
    let mut inputs = only_logs(&valid(config(5, 9)));
    held(&mut inputs, ServiceKind::Storage, 3).epoch = Epoch(6);
    assert!(matches!(obstacle(&inputs), Obstacle::ConfigTeamLost { .. }));
}

#[test]
fn row_6_every_log_of_a_tag_is_needed() {
    for lost in 1..=3 {
        let whole = only_logs(&valid(config(5, 9)));

        // Its directory is gone.
        let mut inputs = whole.clone();
        inputs.workers.remove(&log_store(lost));
        let workers = &mut inputs.foremen.get_mut(&node(lost)).unwrap().workers;
        workers.retain(|manifest| manifest.store != log_store(lost));
        assert!(matches!(obstacle(&inputs), Obstacle::ConfigTeamLost { .. }));
        let option = recovery_option(&inputs).unwrap();
        assert!(option.doubts.contains(&Doubt::LogUnproven(log_keeper(lost))));

        // What it keeps can't be read.
        let mut inputs = whole.clone();
        inputs.workers.get_mut(&log_store(lost)).unwrap().kept = corrupt();
        assert!(matches!(obstacle(&inputs), Obstacle::ConfigTeamLost { .. }));

        // It keeps it, but does not say by whom it was locked.
        let mut inputs = whole;
        let workers = &mut inputs.foremen.get_mut(&node(lost)).unwrap().workers;
        workers.iter_mut().for_each(|manifest| manifest.held = None);
        assert!(matches!(obstacle(&inputs), Obstacle::ConfigTeamLost { .. }));
    }
}

#[test]
fn row_6_logs_that_hold_one_tag_are_enough() {
    // The log of node 3 holds tag 1 alone, and is lost.
    let mut recorded = config(5, 9);
    let layout = &mut std::sync::Arc::make_mut(&mut recorded).config.layout;
    layout.logs[2].tags = vec![Tag(1)];
    let mut inputs = only_logs(&valid(recorded));
    inputs.workers.remove(&log_store(3));
    let workers = &mut inputs.foremen.get_mut(&node(3)).unwrap().workers;
    workers.retain(|manifest| manifest.store != log_store(3));
    assert!(matches!(decide(&inputs).decision, Decision::RebuildFromManifests { .. }));
}

#[test]
fn row_6_storages_that_may_still_have_it_are_waited_for() {
    let mut inputs = only_logs(&valid(config(5, 9)));
    inputs.workers.get_mut(&storage_store(1)).unwrap().kept = Known::Unknown;
    // Two of three can't be read, so the third one would change nothing.
    let decision = decide(&inputs).decision;
    assert!(matches!(decision, Decision::RebuildFromManifests { .. }), "{decision:?}");
    inputs.workers.get_mut(&storage_store(2)).unwrap().kept = Known::Unknown;
    let missing = [1, 2].map(|on| Missing::Worker(keeper(on))).to_vec();
    assert_eq!(decide(&inputs).decision, Decision::Wait { missing });
}

#[test]
fn row_6_a_log_that_may_still_show_it_is_waited_for() {
    let mut inputs = only_logs(&valid(config(5, 9)));
    inputs.workers.get_mut(&log_store(2)).unwrap().kept = Known::Unknown;
    let missing = vec![Missing::Worker(log_keeper(2))];
    assert_eq!(decide(&inputs).decision, Decision::Wait { missing });
    let option = recovery_option(&inputs).unwrap();
    assert!(option.doubts.contains(&Doubt::Unheard(Missing::Worker(log_keeper(2)))));
    // With another one lost, it would show nothing any more.
    inputs.workers.get_mut(&log_store(3)).unwrap().kept = corrupt();
    assert!(matches!(obstacle(&inputs), Obstacle::ConfigTeamLost { .. }));
}

#[test]
fn row_6_nothing_readable_is_for_the_operator() {
    let mut inputs = only_logs(&corrupt());
    held(&mut inputs, ServiceKind::Log, 1).epoch = Epoch(6);
    for on in 1..=3 {
        let storage = held(&mut inputs, ServiceKind::Storage, on);
        (storage.epoch, storage.generation) = (Epoch(5), Epoch(5));
    }
    assert_eq!(obstacle(&inputs), Obstacle::NothingReadable { workers: 6 });
    let option = recovery_option(&inputs).unwrap();
    assert_eq!(option.source, BootstrapSource::Manifests);
    assert_eq!(option.doubts, [Doubt::DefaultParameters]);
    assert_eq!(option.members, coordinators());
    let recorded = option.recorded.unwrap();
    let config = &recorded.config;
    assert_eq!(config.parameters, Parameters::default());
    assert_eq!(config.stamp().epoch, Epoch(6));
    assert!(config.config_version > ConfigVersion(6));
    // The logs have taken up epoch 5, and are locked as logs of that one.
    assert_eq!(config.layout.epoch, Epoch(5));
    let logs: BTreeSet<_> = config.layout.logs.iter().map(|log| log.store).collect();
    assert_eq!(logs, (1..=3).map(log_store).collect());
    for team in &config.layout.storage_teams {
        let members: Vec<_> = team.members.iter().map(|member| member.store).collect();
        assert_eq!(members, [storage_store(1), storage_store(2), storage_store(3)]);
    }
    assert_eq!(recorded.shards, ShardMap::initial());
    assert_eq!(recorded.validate(), Ok(()));
    assert_eq!(option.floor.epoch, Epoch(6 + EPOCH_GAP));
}

#[test]
fn a_rebuilt_layout_takes_the_newest_logs_and_the_newest_rows() {
    let mut inputs = only_logs(&corrupt());
    held(&mut inputs, ServiceKind::Log, 3).generation = Epoch(4);
    let mut newer = ShardMap::initial();
    newer.0.insert(1, ("m".into(), Tag(1)));
    for (on, epoch, shards) in
        [(1, 4, ShardMap::initial()), (2, 5, newer.clone()), (3, 5, ShardMap(vec![]))]
    {
        let storage = held(&mut inputs, ServiceKind::Storage, on);
        (storage.generation, storage.shards) = (Epoch(epoch), Some(shards));
    }
    let option = recovery_option(&inputs).unwrap();
    let recorded = option.recorded.unwrap();
    assert_eq!(recorded.shards, newer);
    assert_eq!(recorded.config.layout.logs.len(), 2);
    let (epoch, newest) = (Epoch(4), Epoch(5));
    let older = Doubt::OlderLog { log: log_keeper(3), epoch, newest };
    assert!(option.doubts.contains(&older), "{:?}", option.doubts);
    assert_eq!(option.doubts.len(), 3);
}

#[test]
fn a_layout_that_lacks_a_tag_is_not_rebuilt() {
    let mut inputs = only_logs(&corrupt());
    for on in 1..=3 {
        held(&mut inputs, ServiceKind::Log, on).tags = vec![Tag(0)];
    }
    let Err(NoOption::NothingLeft(why)) = recovery_option(&inputs) else { panic!() };
    assert!(why.contains("holds tag 1"), "{why}");

    let mut inputs = only_logs(&corrupt());
    for on in 1..=3 {
        held(&mut inputs, ServiceKind::Storage, on).tags = vec![Tag(0), Tag(1), Tag(2)];
        held(&mut inputs, ServiceKind::Log, on).tags = vec![Tag(0), Tag(1), Tag(2)];
    }
    let Err(NoOption::NothingLeft(why)) = recovery_option(&inputs) else { panic!() };
    assert!(why.contains("which keys"), "{why}");
}

#[test]
fn workers_that_never_served_are_for_the_operator() {
    let inputs = nobody_has_raft().worker(1, Known::None).empty_node(2).empty_node(3);
    let unrecorded = Obstacle::UnrecordedWorkers(service(ServiceKind::Storage, 1));
    assert_eq!(obstacle(&inputs), unrecorded);

    let mut served = inputs.clone();
    held(&mut served, ServiceKind::Storage, 1).epoch = Epoch(3);
    assert_eq!(obstacle(&served), Obstacle::NothingReadable { workers: 1 });
    // Whoever does not say may have served.
    served.foremen.get_mut(&node(1)).unwrap().workers[0].held = None;
    assert_eq!(obstacle(&served), Obstacle::NothingReadable { workers: 1 });
    assert!(matches!(recovery_option(&served), Err(NoOption::NothingLeft(_))));
}

#[test]
fn a_living_group_leaves_nothing_to_decide() {
    let alive = || running(GROUP, 5, Some(config(5, 9)));
    let inputs = nobody_has_raft().peer(2, alive()).peer(3, alive());
    assert_eq!(recovery_option(&inputs), Err(NoOption::Alive(GROUP)));
}

/// Two machines of three are gone for good: nobody will ever say so, except the operator.
#[test]
fn coordinators_that_never_answer_again_are_left_out_by_the_operator() {
    let mut inputs = nobody_has_raft().worker(1, valid(config(5, 9)));
    inputs.own = running(GROUP, 5, Some(config(5, 9)));
    inputs.peers.clear();
    let option = recovery_option(&inputs).unwrap();
    assert_eq!(option.recorded, Some(config(5, 9)));
    assert_eq!(option.members, BTreeSet::from([coordinator(1)]));
    assert_eq!(option.renounce, BTreeSet::from([GROUP]));
    for doubt in [
        Doubt::GivenUp(GROUP),
        Doubt::LeftOut(coordinator(2)),
        Doubt::LeftOut(coordinator(3)),
        Doubt::Unheard(Missing::Foreman(node(2))),
        Doubt::TeamLost { valid: 1, members: 3 },
        Doubt::LogUnproven(log_keeper(1)),
    ] {
        assert!(option.doubts.contains(&doubt), "{doubt:?} is not in {:?}", option.doubts);
        assert!(!doubt.to_string().is_empty());
    }
}

#[test]
fn a_cluster_is_begun_anew_only_where_everybody_has_nothing() {
    let mut inputs = nobody_has_raft().empty_node(1).empty_node(2).empty_node(3);
    inputs.foremen.get_mut(&node(2)).unwrap().cluster_id = Some(crate::samples::CLUSTER);
    assert!(matches!(obstacle(&inputs), Obstacle::NodeInUse { .. }));
    let option = recovery_option(&inputs).unwrap();
    assert_eq!((option.recorded, option.source), (None, BootstrapSource::Default));
    assert_eq!(option.doubts, [Doubt::BeginsAnew]);
    assert_eq!(option.floor.version, Version(1_000 * plinth_types::VERSION_GAP));

    let mut silent = inputs.clone();
    silent.foremen.remove(&node(3));
    assert!(matches!(recovery_option(&silent), Err(NoOption::NothingLeft(_))));
    let silent = inputs.peer(3, Known::Unknown);
    assert!(matches!(recovery_option(&silent), Err(NoOption::NothingLeft(_))));
}
