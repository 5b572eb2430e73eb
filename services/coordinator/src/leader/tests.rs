use std::future::poll_fn;
use std::path::Path;
use std::task::Poll;

use openraft::ServerState;
use plinth_api::coordinator::Founding;
use plinth_types::{GroupId, Version};
use tokio::time::timeout;

use super::*;
use crate::founding::Acceptor;
use crate::node::tests::{STORE, node};
use crate::records::Part;

/// More than anything that waits between two looks is polled in a second.
const SPINS: u32 = 2_000;

/// Leads a group of its own, as far as Raft is concerned.
async fn lead_alone(node: &Arc<Node>) -> Group {
    let mut records = node.records.lock().await;
    let group = GroupId(3);
    let founding = Founding {
        group,
        members: vec![node.as_member(records.raft_id())],
        recorded: None,
        epoch_floor: Epoch::ZERO,
        version_floor: Version::ZERO,
        source: "default".to_owned(),
        storage: None,
    };
    let acceptor = Acceptor { group: Some(group), ..Acceptor::default() };
    let part = Part { acceptor, founding: Some(founding), is_joining: false };
    records.enter(part).await.expect("a record");
    node.activate(&records).await.expect("a group");
    let group = node.active().expect("it is active");
    let mut metrics = group.raft.metrics();
    let leads = metrics.wait_for(|metrics| metrics.state == ServerState::Leader);
    drop(timeout(Duration::from_secs(10), leads).await.expect("in time").expect("it runs"));
    group
}

/// Once Raft has stopped over its disk, what it shows never changes again, and says so at once to
/// whoever waits for a change.
#[tokio::test]
async fn a_leader_whose_raft_has_stopped_does_not_spin() {
    let (_host, disk, node) = node().await;
    let group = lead_alone(&node).await;
    node.decide(crate::node::deciding(), None);
    assert!(group.is_leading());

    assert!(disk.fail_next_sync(Path::new(STORE)));
    let command = Command::Appoint {
        service: "director-1@node-1".parse().expect("a name"),
        pid: node.context.pid().clone(),
        cause: "to write something".to_owned(),
        above: None,
    };
    let written = timeout(Duration::from_secs(10), group.raft.client_write(command)).await;
    assert!(written.is_ok_and(|written| written.is_err()));
    let mut metrics = group.raft.metrics();
    let stopped = metrics.wait_for(|metrics| metrics.running_state.is_err());
    assert!(timeout(Duration::from_secs(10), stopped).await.is_ok());

    let (_events, told) = mpsc::channel(1);
    let mut leading = std::pin::pin!(run(Arc::clone(&node), told));
    let mut polls = 0;
    let polled = poll_fn(|cx| {
        polls += 1;
        let ended = leading.as_mut().poll(cx).is_ready();
        if ended || polls > SPINS { Poll::Ready(()) } else { Poll::Pending }
    });
    let for_a_second = timeout(Duration::from_secs(1), polled).await;
    assert!(for_a_second.is_err(), "it was polled {polls} times");
    assert!(!group.is_leading());
}

/// openraft has a leader that was started again lead on in its term, and what it knows to be committed
/// then may be less than what it has answered from.
#[tokio::test]
async fn a_leader_reads_above_an_entry_of_this_start() {
    let (_host, _disk, node) = node().await;
    let group = lead_alone(&node).await;
    let last = || group.raft.metrics().borrow().last_log_index;
    let before = last();
    node.read(&group).await.expect("a majority");
    assert_eq!(last(), before.map(|index| index + 1));
    node.read(&group).await.expect("a majority");
    assert_eq!(last(), before.map(|index| index + 1));
}
