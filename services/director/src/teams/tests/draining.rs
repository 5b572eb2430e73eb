//! A node is drained: its copies move, then the epoch leaves it.

use super::*;
use crate::teams::Leaving;
use plinth_system_config::Standing;

impl Scene {
    fn stand(&mut self, node: &str, standing: Standing) {
        let node: NodeId = node.parse().unwrap();
        let report = self.reports.iter().find(|report| report.node == node);
        let known = self.recorded.config.nodes.get(&node).cloned();
        let entry = known.or_else(|| report.map(NodeReport::entry)).unwrap();
        self.recorded = self.recorded.with_node(&node, NodeEntry { standing, ..entry });
    }

    fn leaving(&self, director: &str) -> Option<Leaving> {
        self.look(|view| view.leaving(&service(director)))
    }

    /// Every node makes everything, and has a director.
    fn able(&mut self) {
        let kinds = [
            ServiceKind::Storage,
            ServiceKind::Log,
            ServiceKind::Sequencer,
            ServiceKind::CommitProxy,
            ServiceKind::Resolver,
        ];
        for report in &mut self.reports {
            report.kinds = kinds.to_vec();
            report.workers.push(worker("director-1", None, Some(pid("node", 9))));
        }
    }

    fn add(&mut self, node: &str, worker: Worker) {
        let report = self.reports.iter_mut().find(|report| report.node.as_str() == node);
        report.unwrap().workers.push(worker);
    }
}

#[test]
fn a_copy_moves_off_a_node_that_is_drained_while_it_serves_on() {
    let mut scene = Scene::new();
    scene.stand("node-3", Standing::Draining);
    assert_eq!(scene.look(degraded), [""; 0]);
    assert_eq!(scene.next(), Some(Step::Make(service("storage-1@node-4"))));
    scene.made(blank(21));
    let joins = scene.step();
    assert_eq!(joins, "storage-1@node-4 joins the team of tag 0, 1: node-3 is being drained");
    for tag in [0, 1] {
        assert_eq!(scene.team(tag), (vec![11, 12, 13], vec![(21, Some(13))]));
    }
    scene.made(half(21));
    assert_eq!(scene.next(), None);
    scene.made(whole(21));
    assert_eq!(scene.step(), "storage-1@node-4 has a whole copy");
    assert_eq!(scene.team(0), (vec![11, 12, 21], vec![]));
    // What it had goes as it does of a storage that was lost. Its node gets nothing again.
    let leftovers = scene.look(|view| view.leftovers());
    assert_eq!(leftovers, [(StoreId(13), service("storage-1@node-3"))]);
    assert_eq!(scene.next(), None);
    assert!(scene.recorded.config.standing(&"node-3".parse().unwrap()) == Standing::Draining);
    // Once it is removed, not even its foreman is asked.
    scene.stand("node-3", Standing::Removed);
    assert_eq!(scene.look(|view| view.leftovers()), []);
}

#[test]
fn a_drain_that_is_taken_back_or_meets_another_goes_no_further() {
    let mut scene = Scene::new();
    scene.stand("node-3", Standing::Draining);
    scene.made(blank(21));
    scene.step();
    scene.made(half(21));
    scene.stand("node-3", Standing::InUse);
    assert_eq!(scene.step(), "storage-1@node-4 no longer joins: the team is complete without it");

    let mut scene = Scene::new();
    scene.stand("node-3", Standing::Draining);
    scene.made(blank(21));
    scene.step();
    scene.made(half(21));
    scene.stand("node-4", Standing::Draining);
    assert_eq!(scene.step(), "storage-1@node-4 no longer joins: node-4 is being drained");
    // Nobody is left who has no copy: it waits, and no two copies are put on one node for it.
    assert_eq!(scene.next(), None);
}

/// Of those who stay, one is away: they can't confirm that another one leaves.
#[test]
fn who_can_not_leave_is_joined_and_whoever_is_away_leaves() {
    let mut scene = Scene::new();
    scene.stand("node-2", Standing::Draining);
    scene.made(blank(21));
    scene.step();
    scene.made(whole(21));
    scene.statuses.remove(&StoreId(13));
    scene.gone.insert(StoreId(13), Duration::from_millis(500));
    let before = scene.recorded.clone();
    // It may only be slow.
    assert_eq!(scene.next(), None);
    scene.whole.insert(StoreId(21), Duration::from_secs(30));
    assert_eq!(scene.step(), "storage-1@node-4 has a whole copy, beside the others");
    assert_eq!(scene.team(0), (vec![11, 12, 13, 21], vec![]));
    assert!(scene.step().starts_with("storage-1@node-3 leaves the team of tag 0"));
    assert!(scene.step().starts_with("storage-1@node-3 leaves the team of tag 1"));
    assert_eq!(scene.team(0).0, [11, 12, 21]);
    // Where the drain is taken back, it is the newcomer that is not wanted.
    scene.recorded = before;
    scene.stand("node-2", Standing::InUse);
    assert_eq!(scene.step(), "storage-1@node-4 no longer joins: the team is complete without it");
}

#[test]
fn what_is_lost_comes_before_what_is_to_go() {
    let mut scene = Scene::new();
    scene.stand("node-1", Standing::Draining);
    scene.lose();
    scene.made(blank(21));
    let joins = scene.step();
    assert!(joins.contains("storage-1@node-3 has been gone for 30 s"), "{joins}");
}

#[test]
fn a_copy_too_many_leaves_the_node_that_is_drained() {
    let mut scene = Scene::new();
    scene.stand("node-1", Standing::Draining);
    fewer_copies(&mut scene, 2, 3);
    assert!(scene.step().starts_with("storage-1@node-1 leaves the team of tag 1"));
}

#[test]
fn the_epoch_leaves_a_node_once_others_stand_by_for_all_that_is_there() {
    let mut scene = Scene::new();
    scene.able();
    assert_eq!(scene.leaving("director-1@node-1"), None);
    scene.stand("node-3", Standing::Draining);
    // Its storage comes first.
    assert_eq!(scene.leaving("director-1@node-1"), None);
    for team in &mut scene.recorded.config.layout.storage_teams {
        team.members[2].service = service("storage-1@node-4");
    }
    // There are a resolver and a log, and one of each is made where there is none.
    let make = |name| Some(Leaving::Make(service(name)));
    assert_eq!(scene.leaving("director-1@node-1"), make("resolver-1@node-1"));
    scene.add("node-1", worker("resolver-1", None, Some(pid("node-1", 77))));
    assert_eq!(scene.leaving("director-1@node-1"), make("log-1@node-4"));
    scene.unable.insert("node-4".parse().unwrap());
    assert_eq!(scene.leaving("director-1@node-1"), None);
    scene.unable.clear();
    scene.add("node-4", log(1, 44));
    let mut standing = vec![
        (service("resolver-1@node-1"), pid("node-1", 77)),
        (service("log-1@node-4"), pid("node", 1)),
    ];
    assert_eq!(scene.leaving("director-1@node-1"), Some(Leaving::Ready(standing.clone())));
    // Its director leaves with them.
    standing.push((service("director-1@node-2"), pid("node", 9)));
    assert_eq!(scene.leaving("director-1@node-3"), Some(Leaving::Ready(standing)));
}

#[test]
fn a_director_alone_leaves_only_where_another_one_stands_by() {
    let mut scene = Scene::new();
    scene.able();
    scene.stand("node-4", Standing::Draining);
    let other = (service("director-1@node-2"), pid("node", 9));
    assert_eq!(scene.leaving("director-1@node-4"), Some(Leaving::Ready(vec![other])));
    for report in &mut scene.reports {
        report.workers.retain(|worker| worker.name.kind != ServiceKind::Director);
    }
    assert_eq!(scene.leaving("director-1@node-4"), None);
}

/// The next recovery would keep them.
#[test]
fn logs_stay_while_too_few_other_nodes_can_have_one() {
    let mut scene = Scene::new();
    scene.able();
    scene.stand("node-3", Standing::Draining);
    for team in &mut scene.recorded.config.layout.storage_teams {
        team.members.truncate(2);
    }
    scene.reports.retain(|report| report.node.as_str() != "node-4");
    assert_eq!(scene.leaving("director-1@node-1"), None);
}

#[test]
fn nothing_is_spread_to_a_node_that_is_to_go() {
    let mut scene = Scene::new();
    scene.able();
    scene.recorded.config.layout.logs[2].service = service("log-2@node-1");
    assert!(scene.look(|view| view.better_log()).is_some());
    for node in ["node-3", "node-4"] {
        scene.stand(node, Standing::Draining);
    }
    assert_eq!(scene.look(|view| view.better_log()), None);
}
