//! A change of parameters is judged as a whole, by the configuration and by the nodes that report.

use std::collections::{BTreeMap, BTreeSet};

use plinth_system_config::{
    Applied, ChangeError, NodeSupply, Parameter, Parameters, Recorded, Supply, WORKERS_PER_NODE,
    decode_stored, encode_stored,
};
use plinth_types::ServiceKind;
use proptest::prelude::*;

use crate::samples::{self, node};

const MADE: [ServiceKind; 4] =
    [ServiceKind::Log, ServiceKind::Storage, ServiceKind::CommitProxy, ServiceKind::Resolver];

/// Nodes that can make everything.
fn nodes(count: u32) -> Supply {
    let makes = BTreeSet::from(MADE);
    let supply =
        |on| NodeSupply { node: node(on), makes: makes.clone(), runs: BTreeMap::default() };
    Supply((1..=count).map(supply).collect())
}

fn changes(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

fn refused(recorded: &Recorded, of: &[(&str, u64)], supply: &Supply) -> Vec<(String, String)> {
    let errors = recorded.propose(&changes(of), supply).unwrap_err();
    let words =
        |error: ChangeError| (error.name().unwrap_or_default().to_owned(), error.to_string());
    errors.into_iter().map(words).collect()
}

#[test]
fn replication_on_too_few_nodes_is_refused_with_both_numbers() {
    let recorded = samples::recorded(2, 5);
    let asked = [("replication", 5), ("logs", 5)];
    let words = "replication is 5, and 3 nodes report that can run a storage: it can be at most 3";
    assert_eq!(
        refused(&recorded, &asked, &nodes(3)),
        [("replication".to_owned(), words.to_owned())]
    );
    assert!(recorded.propose(&changes(&asked), &nodes(5)).is_ok());
    // A node that starts its workers otherwise counts with those that it has.
    let mut supply = nodes(5);
    supply.0[4].makes.remove(&ServiceKind::Log);
    let words = "replication is 5, and 4 nodes report that can run a log: it can be at most 4";
    assert_eq!(refused(&recorded, &asked, &supply)[0].1, words);
    supply.0[4].runs.insert(ServiceKind::Log, 1);
    assert!(recorded.propose(&changes(&asked), &supply).is_ok());
}

#[test]
fn every_problem_names_its_parameter() {
    let recorded = samples::recorded(2, 5);
    let all = refused(
        &recorded,
        &[("resolvers", 0), ("colour", 7), ("logs", 2), ("commit_proxies", u64::MAX)],
        &nodes(3),
    );
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["colour", "commit_proxies", "resolvers", "logs"]);
    assert!(all[1].1.contains(&u64::MAX.to_string()), "{}", all[1].1);
    let many = refused(&recorded, &[("logs", 30)], &nodes(3));
    assert_eq!(
        many[0].1,
        "logs is 30, and the 3 nodes that report can run 24 logs: it can be at most 24"
    );
    assert_eq!(refused(&recorded, &[], &nodes(3))[0].0, "");
}

#[test]
fn what_an_older_release_could_not_read_is_refused() {
    let mut recorded = samples::recorded(2, 5);
    recorded.config.format_level = 1;
    let all = refused(&recorded, &[("storage_lost_ms", 5_000)], &nodes(3));
    assert!(all[0].1.contains("format level 1"), "{all:?}");
    assert!(recorded.propose(&changes(&[("failure_timeout_ms", 500)]), &nodes(3)).is_ok());
}

#[test]
fn what_is_so_already_is_no_change() {
    let recorded = samples::recorded(2, 5);
    let proposal = recorded.propose(&changes(&[("logs", 3)]), &nodes(0)).unwrap();
    assert_eq!((proposal.changed.len(), proposal.begins_epoch()), (0, false));
    let both = recorded.propose(&changes(&[("logs", 4), ("rejoin_grace_ms", 5)]), &nodes(3));
    let both = both.unwrap();
    assert_eq!(both.describe(), "logs from 3 to 4, rejoin_grace_ms from 200 to 5");
    assert!(both.begins_epoch());
}

/// A cluster that has lost its nodes, or whose recovery lacks something, can be configured.
#[test]
fn what_is_not_raised_needs_no_nodes() {
    let recorded = samples::recorded(2, 5);
    let asked = [("replication", 2), ("logs", 2), ("failure_timeout_ms", 1_000)];
    assert!(recorded.propose(&changes(&asked), &nodes(0)).is_ok());
}

fn names() -> impl Strategy<Value = String> {
    let known = Parameters::default().all().map(|parameter| parameter.name.to_owned());
    prop_oneof![
        20 => proptest::sample::select(known.to_vec()),
        1 => Just("colour".to_owned()),
    ]
}

/// Values about the bounds and the usual ones.
fn values() -> impl Strategy<Value = u64> {
    let mut near: Vec<u64> = (0..=9).collect();
    for Parameter { value, least, most, .. } in Parameters::default().all() {
        near.extend([value, least, most, most + 1, least.saturating_sub(1), least + 1]);
    }
    prop_oneof![4 => proptest::sample::select(near), 1 => any::<u64>()]
}

fn supplies() -> impl Strategy<Value = Supply> {
    let one = (
        proptest::sample::subsequence(MADE.to_vec(), 0..=4),
        proptest::collection::vec((proptest::sample::select(MADE.to_vec()), 0u64..12), 0..3),
    );
    proptest::collection::vec(one, 0..6).prop_map(|all| {
        let node = |((makes, runs), on): ((Vec<_>, Vec<_>), u32)| NodeSupply {
            node: node(on),
            makes: makes.into_iter().collect(),
            runs: runs.into_iter().collect(),
        };
        Supply(all.into_iter().zip(1..).map(node).collect())
    })
}

/// How many workers of a kind a node can run, said otherwise than by the library.
fn room(node: &NodeSupply, kind: ServiceKind) -> u64 {
    let here = node.runs.get(&kind).copied().unwrap_or(0);
    match node.makes.contains(&kind) {
        true if here < WORKERS_PER_NODE => WORKERS_PER_NODE,
        _ => here,
    }
}

/// Whether nothing speaks against a change, said otherwise than by the library.
fn is_sound(before: &Parameters, asked: &BTreeMap<String, u64>, supply: &Supply) -> bool {
    let value = |name: &str| {
        let old = before.all().into_iter().find(|parameter| parameter.name == name).unwrap();
        (old.value, asked.get(name).copied().unwrap_or(old.value))
    };
    let is_known = |name: &String| before.all().iter().any(|parameter| parameter.name == *name);
    let is_bounded = before.all().into_iter().all(|parameter| {
        let (_, new) = value(parameter.name);
        (parameter.least..=parameter.most).contains(&new)
    });
    let fits = |name: &str, most: u64| {
        let (old, new) = value(name);
        new <= old || new <= most
    };
    let with = |kind| supply.0.iter().filter(|node| room(node, kind) > 0).count() as u64;
    let all = |kind| supply.0.iter().map(|node| room(node, kind)).sum::<u64>();
    !asked.is_empty()
        && asked.keys().all(is_known)
        && is_bounded
        && value("logs").1 >= value("replication").1
        && fits("replication", with(ServiceKind::Storage).min(with(ServiceKind::Log)))
        && fits("config_team", with(ServiceKind::Storage))
        && fits("logs", all(ServiceKind::Log))
        && fits("commit_proxies", all(ServiceKind::CommitProxy))
        && fits("resolvers", all(ServiceKind::Resolver))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is asked: it is accepted exactly if it is sound, and then makes a configuration that
    /// may replace the one before, can be written, and differs as asked and in nothing else.
    #[test]
    fn what_is_accepted_is_sound_and_as_asked(
        asked in proptest::collection::btree_map(names(), values(), 0..4),
        supply in supplies(),
    ) {
        let recorded = samples::recorded(2, 5);
        let before = &recorded.config.parameters;
        match recorded.propose(&asked, &supply) {
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                prop_assert!(!is_sound(before, &asked, &supply), "{:?}", errors);
            }
            Ok(proposal) => {
                prop_assert!(is_sound(before, &asked, &supply));
                let next = recorded.with_parameters(proposal.parameters.clone());
                prop_assert_eq!(next.validate_after(&recorded), Ok(()));
                let read = decode_stored(&encode_stored(&next.config).unwrap()).unwrap();
                prop_assert_eq!(&next.config, &read);
                let mut changed = proposal.changed.iter();
                for (old, new) in before.all().into_iter().zip(proposal.parameters.all()) {
                    let wanted = asked.get(old.name).copied().unwrap_or(old.value);
                    prop_assert_eq!(new.value, wanted, "{}", old.name);
                    if old.value != wanted {
                        let told = changed.next().unwrap();
                        prop_assert_eq!((told.from, told.to), (old.value, wanted));
                        prop_assert_eq!(told.applied, new.applied);
                    }
                }
                prop_assert_eq!(changed.next(), None);
                let begins = proposal.changed.iter().any(|one| one.applied == Applied::NewEpoch);
                prop_assert_eq!(proposal.begins_epoch(), begins);
            }
        }
    }
}
