//! The rows of `\xff/system`: what the system transaction writes, and how it is read back.
//!
//! `\xff/system/config` and the shards' rows are the configuration; the other rows say the same
//! facts one by one. All are written together by [`system_mutations`] and by nothing else, so at
//! every version they agree.

use std::collections::BTreeMap;

use plinth_types::{Key, Mutation, SYSTEM_SHARD, ServiceRef, Tag, Value};
use serde::Serialize;

use crate::codec::{DecodeError, EncodeError, decode_stored, encode_stored};
use crate::{LastRecovery, Recorded, ShardMap, SystemConfig, keys};

/// Every row of `\xff/system`, by key. A value is JSON, the configuration's own in its envelope.
///
/// # Errors
/// The configuration can't be written.
pub fn system_rows(
    recorded: &Recorded,
    last_recovery: &LastRecovery,
) -> Result<BTreeMap<Key, Value>, EncodeError> {
    recorded.check_shards()?;
    let config = &recorded.config;
    let layout = &config.layout;
    let mut rows = Rows::default();
    rows.raw(keys::CONFIG, Value(encode_stored(config)?));
    rows.json(keys::EPOCH, &config.epoch)?;
    rows.json(keys::LAST_RECOVERY, last_recovery)?;

    rows.json(keys::CLUSTER_ID, &config.cluster_id)?;
    rows.json(keys::CLUSTER_GROUP_ID, &config.group_id)?;
    rows.json(keys::CLUSTER_FORMAT_LEVEL, &config.format_level)?;
    rows.json(keys::CLUSTER_CONFIG_VERSION, &config.config_version)?;
    rows.json(keys::CLUSTER_COORDINATORS, &config.coordinators)?;
    rows.json(keys::CLUSTER_POLICIES, &config.policies)?;
    for parameter in config.parameters.all() {
        rows.json(keys::parameter(parameter.name), &parameter.value)?;
    }
    for (node, entry) in &config.nodes {
        rows.json(keys::node(node), entry)?;
    }

    rows.json(keys::LAYOUT_SEQUENCER, &layout.sequencer)?;
    rows.json(keys::LAYOUT_COMMIT_PROXIES, &layout.commit_proxies)?;
    rows.json(keys::LAYOUT_RESOLVERS, &layout.resolvers)?;
    for log in &layout.logs {
        rows.json(keys::log(log.store), log)?;
    }
    for team in &layout.storage_teams {
        rows.json(keys::storage_team(team.tag), team)?;
    }
    for (start, tag) in &recorded.shards.0 {
        rows.json(keys::shard(start), tag)?;
    }
    Ok(rows.0)
}

/// The mutations of a system transaction: they rewrite every row of `\xff/system`, whatever stood
/// there before. The same input gives the same mutations.
///
/// # Errors
/// The configuration can't be written.
pub fn system_mutations(
    recorded: &Recorded,
    last_recovery: &LastRecovery,
) -> Result<Vec<Mutation>, EncodeError> {
    let rows = system_rows(recorded, last_recovery)?;
    let clears = keys::rewritten_ranges().into_iter().map(Mutation::ClearRange);
    let sets = rows.into_iter().map(|(key, value)| Mutation::Set { key, value });
    Ok(clears.chain(sets).collect())
}

/// Reads a configuration back from the value of `\xff/system/config` and the rows of
/// [`keys::shards`], in any order.
///
/// # Errors
/// The configuration is damaged or of a newer level, a row is not a shard's, or the shards are not
/// those that the configuration sums up.
pub fn recorded_from_rows<K, V>(
    config: &[u8],
    shards: impl IntoIterator<Item = (K, V)>,
) -> Result<Recorded, DecodeError>
where
    K: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    let config: SystemConfig<ServiceRef> = decode_stored(config)?;
    let recorded = Recorded { config, shards: shards_from_rows(shards)? };
    recorded.check_shards()?;
    Ok(recorded)
}

/// Reads the shards alone back from the rows of [`keys::shards`], in any order.
///
/// # Errors
/// A row is not a shard's.
pub fn shards_from_rows<K, V>(
    rows: impl IntoIterator<Item = (K, V)>,
) -> Result<ShardMap, DecodeError>
where
    K: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    let mut starts: Vec<(Key, Tag)> = rows
        .into_iter()
        .map(|(row, value)| {
            let tag = serde_json::from_slice(value.as_ref()).ok();
            keys::shard_start(row.as_ref())
                .zip(tag)
                .ok_or_else(|| DecodeError::ShardRow { key: Key::from(row.as_ref()) })
        })
        .collect::<Result<_, _>>()?;
    starts.sort();
    Ok(ShardMap(starts))
}

#[derive(Default)]
struct Rows(BTreeMap<Key, Value>);

impl Rows {
    fn raw(&mut self, key: impl Into<Key>, value: Value) {
        let key = key.into();
        debug_assert!(key.as_bytes().starts_with(SYSTEM_SHARD), "{key:?} is of another shard");
        let before = self.0.insert(key, value);
        debug_assert!(before.is_none(), "two facts under one key");
    }

    fn json(&mut self, key: impl Into<Key>, value: &impl Serialize) -> Result<(), EncodeError> {
        let json = serde_json::to_vec(value).map_err(EncodeError::Json)?;
        self.raw(key, Value::from(json));
        Ok(())
    }
}
