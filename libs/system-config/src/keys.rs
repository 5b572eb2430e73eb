//! The names of the keys that hold the configuration.

use plinth_types::{Key, KeyRange, NodeId, StoreId, Tag};

/// The whole configuration, shards excepted.
pub const CONFIG: &[u8] = b"\xff/system/config";
/// The epoch.
pub const EPOCH: &[u8] = b"\xff/system/epoch";
/// The last recovery.
pub const LAST_RECOVERY: &[u8] = b"\xff/system/last_recovery";
/// Before each fact of the cluster.
pub const CLUSTER_PREFIX: &[u8] = b"\xff/system/cluster/";
/// The cluster's id.
pub const CLUSTER_ID: &[u8] = b"\xff/system/cluster/id";
/// The id of the coordinators' group.
pub const CLUSTER_GROUP_ID: &[u8] = b"\xff/system/cluster/group_id";
/// The level of the written form.
pub const CLUSTER_FORMAT_LEVEL: &[u8] = b"\xff/system/cluster/format_level";
/// The number of the configuration.
pub const CLUSTER_CONFIG_VERSION: &[u8] = b"\xff/system/cluster/config_version";
/// The coordinators.
pub const CLUSTER_COORDINATORS: &[u8] = b"\xff/system/cluster/coordinators";
/// The policies.
pub const CLUSTER_POLICIES: &[u8] = b"\xff/system/cluster/policies";
/// Before each parameter's name.
pub const PARAMETERS_PREFIX: &[u8] = b"\xff/system/parameters/";
/// Before each node's name.
pub const NODES_PREFIX: &[u8] = b"\xff/system/nodes/";
/// Before everything of the layout.
pub const LAYOUT_PREFIX: &[u8] = b"\xff/system/layout/";
/// The sequencer.
pub const LAYOUT_SEQUENCER: &[u8] = b"\xff/system/layout/sequencer";
/// The commit proxies.
pub const LAYOUT_COMMIT_PROXIES: &[u8] = b"\xff/system/layout/commit_proxies";
/// The resolvers with their ranges.
pub const LAYOUT_RESOLVERS: &[u8] = b"\xff/system/layout/resolvers";
/// Before each log's store id.
pub const LAYOUT_LOGS_PREFIX: &[u8] = b"\xff/system/layout/logs/";
/// Before each storage team's tag.
pub const LAYOUT_STORAGE_PREFIX: &[u8] = b"\xff/system/layout/storage/";
/// Before each shard's start key.
pub const LAYOUT_SHARDS_PREFIX: &[u8] = b"\xff/system/layout/shards/";

fn join(prefix: &'static [u8], rest: &[u8]) -> Key {
    Key::from([prefix, rest].concat())
}

/// The keys that start with a prefix that ends in `/`, all of them below the prefix with `0`, the
/// byte after it.
fn under(prefix: &'static [u8]) -> KeyRange {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    KeyRange::new(Key::from_static(prefix), Key::from(end))
}

/// The key of a parameter.
#[must_use]
pub fn parameter(name: &str) -> Key {
    join(PARAMETERS_PREFIX, name.as_bytes())
}

/// The key of a node.
#[must_use]
pub fn node(node: &NodeId) -> Key {
    join(NODES_PREFIX, node.as_str().as_bytes())
}

/// The key of a log.
#[must_use]
pub fn log(store: StoreId) -> Key {
    join(LAYOUT_LOGS_PREFIX, store.to_string().as_bytes())
}

/// The key of a storage team.
#[must_use]
pub fn storage_team(tag: Tag) -> Key {
    join(LAYOUT_STORAGE_PREFIX, tag.to_string().as_bytes())
}

/// The key of the shard that starts at `start`.
#[must_use]
pub fn shard(start: &Key) -> Key {
    join(LAYOUT_SHARDS_PREFIX, start.as_bytes())
}

/// The start key of the shard whose row has the key `row`; none if it is no shard's row.
#[must_use]
pub fn shard_start(row: &[u8]) -> Option<Key> {
    row.strip_prefix(LAYOUT_SHARDS_PREFIX).map(Key::from)
}

/// The rows of all shards.
#[must_use]
pub fn shards() -> KeyRange {
    under(LAYOUT_SHARDS_PREFIX)
}

/// The ranges whose rows come and go with what they describe; every other row is always there.
#[must_use]
pub fn rewritten_ranges() -> [KeyRange; 4] {
    [CLUSTER_PREFIX, LAYOUT_PREFIX, NODES_PREFIX, PARAMETERS_PREFIX].map(under)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_the_system_shard() {
        let system = KeyRange::system_shard();
        for key in [CONFIG, EPOCH, LAST_RECOVERY] {
            assert!(system.contains(key));
        }
        for range in rewritten_ranges() {
            assert_eq!(range.intersection(&system), Some(range));
        }
    }

    #[test]
    fn a_range_holds_exactly_the_keys_with_its_prefix() {
        let shards = shards();
        for start in [&b""[..], b"a", b"\xff", b"\xff\xff\xff/system/", b"\0"] {
            let row = shard(&Key::from(start));
            assert!(shards.contains(row.as_bytes()));
            assert_eq!(shard_start(row.as_bytes()), Some(Key::from(start)));
        }
        assert!(!shards.contains(storage_team(Tag(1)).as_bytes()));
        assert!(!shards.contains(b"\xff/system/layout/shards"));
        assert_eq!(shard_start(CONFIG), None);
    }

    #[test]
    fn names() {
        assert_eq!(parameter("logs").as_bytes(), b"\xff/system/parameters/logs");
        assert_eq!(node(&"node-1".parse().unwrap()).as_bytes(), b"\xff/system/nodes/node-1");
        assert_eq!(
            log(StoreId(0xab)).as_bytes(),
            b"\xff/system/layout/logs/000000000000000000000000000000ab"
        );
        assert_eq!(storage_team(Tag(12)).as_bytes(), b"\xff/system/layout/storage/12");
    }
}
