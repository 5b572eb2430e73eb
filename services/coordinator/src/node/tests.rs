use std::collections::BTreeSet;
use std::path::Path;

use plinth_runtime::Runtime;
use plinth_service::{Host, HostOptions, Secrets};
use plinth_store::{Disk as _, DiskDelays, SimulatedDisk};
use plinth_types::ClusterId;

use super::*;
use crate::TABLES;

/// Where the store is.
pub(crate) const STORE: &str = "coordinator-1";

/// A coordinator that is not active, with its disk.
pub(crate) async fn node() -> (Host, SimulatedDisk, Arc<Node>) {
    let cluster = ClusterFile {
        cluster_id: ClusterId(7),
        coordinators: Vec::new(),
        initial_nodes: BTreeSet::new(),
    };
    let options = HostOptions {
        service: "coordinator-1@node-1".parse().unwrap(),
        bind: "127.0.0.1:0".to_owned(),
        advertise: None,
        cluster: Some(cluster.cluster_id),
        secrets: Secrets::default(),
    };
    let runtime = Runtime::real();
    let host = Host::bind(runtime.clone(), options).await.unwrap();
    let disk = SimulatedDisk::new("node-1", runtime.random(), DiskDelays::none(), None);
    let store = disk.open(Path::new(STORE), TABLES).await.unwrap();
    let records = Records::open(store, &runtime).await.unwrap();
    let (events, _) = mpsc::channel(1);
    let node = Node::new(host.context(), cluster, None, records, events);
    (host, disk, node)
}

fn from(source: &str) -> Bootstrap {
    Bootstrap { source: source.to_owned(), ..deciding() }
}

/// A round asks others, and a founding may be taken up while it does. The founding says what the
/// cluster started from; the round would call it `raft`, since the group is on the disk by then.
#[tokio::test]
async fn what_a_founding_has_decided_no_late_round_decides_again() {
    let (_host, _disk, node) = node().await;
    node.decide(from("default"), None);
    node.decide_first(from("raft"), None);
    assert_eq!(node.bootstrap.borrow().source, "default");
    assert!(node.is_decided());
}

#[tokio::test]
async fn a_round_decides_where_nothing_is_decided_and_a_founding_has_the_last_word() {
    let (_host, _disk, node) = node().await;
    assert!(!node.is_decided());
    node.decide_first(from("raft"), None);
    assert!(node.is_decided() && node.bootstrap.borrow().source == "raft");
    node.decide(from("default"), None);
    assert_eq!(node.bootstrap.borrow().source, "default");
}
