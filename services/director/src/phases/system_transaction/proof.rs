//! Whether the system transaction is durable where it has to be. Pure: storages' answers in, a
//! verdict out.
//!
//! It counts once a majority of the config team of this epoch **and** a majority of that of the last
//! ready epoch return, from disk and at the transaction's version or above, exactly the bytes that
//! were committed. So the configuration in storage is never older than the last epoch that
//! acknowledged a commit.

use std::collections::{BTreeMap, BTreeSet};

use plinth_api::storage::{KeyValue, ShardConfig};
use plinth_system_config::{EncodeError, LastRecovery, Layout, Recorded, keys, system_rows};
use plinth_types::{Epoch, Key, ServiceRef, StoreId, Value, Version};

/// What a storage that holds the configuration must return.
struct Expected {
    epoch: Epoch,
    version: Version,
    config: Value,
    shards: BTreeMap<Key, Value>,
}

/// A config team: its members and whose it is, in words.
struct Team {
    of: &'static str,
    members: BTreeMap<StoreId, ServiceRef>,
}

/// The proof while it is gathered.
pub(crate) struct Proof {
    expected: Expected,
    teams: Vec<Team>,
    confirmed: BTreeSet<StoreId>,
    /// Why those who answered do not confirm.
    objections: BTreeMap<StoreId, String>,
}

fn team(of: &'static str, layout: &Layout<ServiceRef>) -> Team {
    let members = layout.config_team().iter();
    Team { of, members: members.map(|member| (member.store, member.service.clone())).collect() }
}

fn is_majority(some: usize, all: usize) -> bool {
    some > all / 2
}

impl Proof {
    /// Nobody has confirmed that `recorded` was committed at `version`. `ready` is the configuration
    /// of the last epoch that became ready.
    ///
    /// # Errors
    /// The configuration can't be written.
    pub(crate) fn new(
        recorded: &Recorded,
        last_recovery: &LastRecovery,
        version: Version,
        ready: Option<&Recorded>,
    ) -> Result<Proof, EncodeError> {
        let mut rows = system_rows(recorded, last_recovery)?;
        let config = rows.remove(keys::CONFIG).unwrap_or_default();
        let range = keys::shards();
        let shards = rows.into_iter().filter(|(key, _)| range.contains(key.as_bytes())).collect();
        let epoch = recorded.config.epoch;
        let mut teams = vec![team("this epoch's", &recorded.config.layout)];
        teams.extend(ready.map(|ready| team("the last ready epoch's", &ready.config.layout)));
        Ok(Proof {
            expected: Expected { epoch, version, config, shards },
            teams,
            confirmed: BTreeSet::new(),
            objections: BTreeMap::new(),
        })
    }

    /// Every member of either team, once.
    pub(crate) fn members(&self) -> BTreeMap<StoreId, ServiceRef> {
        let members = self.teams.iter().flat_map(|team| &team.members);
        members.map(|(store, service)| (*store, service.clone())).collect()
    }

    fn objection(&self, store: StoreId, answer: &ShardConfig) -> Option<&'static str> {
        let expected = &self.expected;
        let shards = answer.shards.iter().map(|KeyValue { key, value }| (key, value));
        if answer.store != store {
            Some("it has another directory")
        } else if answer.version < expected.version || answer.epoch < expected.epoch {
            Some("it has not made the transaction durable yet")
        } else if answer.epoch > expected.epoch {
            Some("it serves a later epoch")
        } else if answer.config.as_ref() != Some(&expected.config) {
            Some("it holds another configuration")
        } else if !shards.eq(expected.shards.iter()) {
            Some("it holds other shards")
        } else {
            None
        }
    }

    /// The storage that the teams know by this directory has answered. Whether it confirms.
    pub(crate) fn offer(&mut self, store: StoreId, answer: &ShardConfig) -> bool {
        match self.objection(store, answer) {
            Some(objection) => {
                self.objections.insert(store, objection.to_owned());
                false
            }
            None => {
                self.objections.remove(&store);
                self.confirmed.insert(store);
                true
            }
        }
    }

    /// The storage did not answer.
    pub(crate) fn object(&mut self, store: StoreId, why: String) {
        self.objections.insert(store, why);
    }

    fn missing(&self) -> impl Iterator<Item = &Team> {
        self.teams.iter().filter(|team| {
            let confirmed = team.members.keys().filter(|store| self.confirmed.contains(store));
            !is_majority(confirmed.count(), team.members.len())
        })
    }

    /// Whether a majority of each team has confirmed.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// Of which team too few have confirmed, and why, in words.
    pub(crate) fn lacking(&self) -> String {
        let team = |team: &Team| {
            let members = team.members.iter().filter(|(store, _)| !self.confirmed.contains(store));
            let members = members.map(|(store, service)| {
                let why = self.objections.get(store).map_or("it has not answered", String::as_str);
                format!("{service}: {why}")
            });
            let members: Vec<String> = members.collect();
            format!("no majority of {} config team confirms ({})", team.of, members.join("; "))
        };
        self.missing().map(team).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::recorded;
    use plinth_system_config::{BootstrapSource, recorded_from_rows};

    const VERSION: Version = Version(1_000);

    fn last_recovery() -> LastRecovery {
        LastRecovery {
            epoch: Epoch(3),
            cause: "cold start".to_owned(),
            started_unix_ms: 1,
            duration_ms: 2,
            recovery_version: Version(500),
            first_version: VERSION,
            reused: vec![],
            made: vec![],
            source: BootstrapSource::Raft,
            phases: vec![],
        }
    }

    fn proof(ready: Option<&Recorded>) -> Proof {
        Proof::new(&recorded(), &last_recovery(), VERSION, ready).unwrap()
    }

    fn answer(store: u128) -> ShardConfig {
        let Expected { epoch, version, config, shards } = proof(None).expected;
        ShardConfig {
            store: StoreId(store),
            version,
            epoch,
            config: Some(config),
            shards: shards.into_iter().map(|(key, value)| KeyValue { key, value }).collect(),
        }
    }

    #[test]
    fn what_is_expected_is_the_configuration() {
        let answer = answer(11);
        let rows = answer.shards.iter().map(|row| (row.key.clone(), row.value.clone()));
        let config = answer.config.unwrap();
        assert_eq!(recorded_from_rows(config.as_bytes(), rows).unwrap(), recorded());
    }

    #[test]
    fn a_majority_of_the_team_is_needed() {
        let mut proof = proof(None);
        assert!(!proof.is_complete());
        assert!(proof.offer(StoreId(11), &answer(11)));
        assert!(proof.offer(StoreId(11), &answer(11)));
        assert!(!proof.is_complete());
        proof.object(StoreId(12), "can't be reached".to_owned());
        assert_eq!(
            proof.lacking(),
            "no majority of this epoch's config team confirms \
             (storage-1@node-2: can't be reached; storage-1@node-3: it has not answered)"
        );
        assert!(proof.offer(StoreId(13), &answer(13)));
        assert!(proof.is_complete());
    }

    #[test]
    fn only_the_same_bytes_from_the_same_directory_confirm() {
        let mut proof = proof(None);
        let good = || answer(11);
        for (name, bad) in [
            ("directory", ShardConfig { store: StoreId(7), ..good() }),
            ("version", ShardConfig { version: VERSION.minus(1), ..good() }),
            ("older epoch", ShardConfig { epoch: Epoch(2), ..good() }),
            ("later epoch", ShardConfig { epoch: Epoch(4), ..good() }),
            ("no configuration", ShardConfig { config: None, ..good() }),
            ("other configuration", ShardConfig { config: Some(Value::from("x")), ..good() }),
            ("no shards", ShardConfig { shards: vec![], ..good() }),
        ] {
            assert!(!proof.offer(StoreId(11), &bad), "{name}");
        }
        let later = ShardConfig { version: VERSION.plus(5), ..good() };
        assert!(proof.offer(StoreId(11), &later));
    }

    #[test]
    fn the_last_ready_epochs_team_must_confirm_too() {
        let mut ready = recorded();
        for (member, store) in
            ready.config.layout.storage_teams[0].members.iter_mut().zip([13, 21, 22])
        {
            member.store = StoreId(store);
        }
        let mut proof = proof(Some(&ready));
        assert_eq!(proof.members().len(), 5);
        for store in [11, 12, 13] {
            assert!(proof.offer(StoreId(store), &answer(store)));
            assert!(!proof.is_complete());
        }
        assert!(proof.lacking().starts_with("no majority of the last ready epoch's config team"));
        assert!(proof.offer(StoreId(22), &answer(22)));
        assert!(proof.is_complete());
    }
}
