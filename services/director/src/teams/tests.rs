mod draining;

use super::*;
use crate::registry::Registry;
use crate::samples::{node, pid, recorded, service, worker};
use plinth_api::foreman::{NodeReport, Worker, WorkerState};
use plinth_api::storage::{CopyStatus, Status, TagStatus};
use plinth_system_config::Parameters;
use plinth_types::{Epoch, ServiceKind, Version};
use std::collections::BTreeSet;

/// A cluster of four nodes, of which the first three have a member each, and what is seen of it.
struct Scene {
    recorded: Recorded,
    reports: Vec<NodeReport>,
    statuses: BTreeMap<StoreId, Status>,
    gone: BTreeMap<StoreId, Duration>,
    whole: BTreeMap<StoreId, Duration>,
    backlogs: BTreeMap<StoreId, u64>,
    unable: BTreeSet<NodeId>,
}

fn tag_status(tag: u32, copying: Option<CopyStatus>) -> TagStatus {
    TagStatus {
        tag: Tag(tag),
        version: Version(10_000_000),
        durable: Version(10_000_000),
        durable_epoch: Epoch(3),
        oldest: Version(0),
        known_committed: Version(10_000_000),
        copying,
    }
}

fn whole(store: u128) -> Status {
    let tags = vec![tag_status(0, None), tag_status(1, None)];
    Status { store: StoreId(store), epoch: Epoch(3), tags, queue_bytes: 0, lacks: BTreeSet::new() }
}

fn half(store: u128) -> Status {
    let copying = Some(CopyStatus::default());
    let tags = vec![tag_status(0, copying), tag_status(1, None)];
    Status { store: StoreId(store), epoch: Epoch(3), tags, queue_bytes: 0, lacks: BTreeSet::new() }
}

fn blank(store: u128) -> Status {
    Status {
        store: StoreId(store),
        epoch: Epoch::ZERO,
        tags: vec![],
        queue_bytes: 0,
        lacks: BTreeSet::new(),
    }
}

fn storage(number: u32, store: u128) -> Worker {
    worker(&format!("storage-{number}"), Some(StoreId(store)), Some(pid("node", 1)))
}

fn report(name: &str, workers: Vec<Worker>) -> NodeReport {
    NodeReport { workers, ..node(name, name, &[ServiceKind::Storage]) }
}

impl Scene {
    fn new() -> Scene {
        let reports = (1..=4).map(|on| {
            let workers = if on < 4 { vec![storage(1, 10 + on)] } else { vec![] };
            report(&format!("node-{on}"), workers)
        });
        Scene {
            recorded: recorded(),
            reports: reports.collect(),
            statuses: (11..=13).map(|store| (StoreId(store), whole(store))).collect(),
            gone: BTreeMap::new(),
            whole: BTreeMap::new(),
            backlogs: BTreeMap::new(),
            unable: BTreeSet::new(),
        }
    }

    /// The third node is gone, with its disk.
    fn lose(&mut self) {
        self.reports.retain(|report| report.node.as_str() != "node-3");
        self.statuses.remove(&StoreId(13));
        self.gone.insert(StoreId(13), Duration::from_secs(30));
    }

    /// It is back with its disk.
    fn come_back(&mut self) {
        self.reports.push(report("node-3", vec![storage(1, 13)]));
        self.statuses.insert(StoreId(13), whole(13));
        self.gone.clear();
    }

    fn look<T>(&self, see: impl FnOnce(&View<'_>) -> T) -> T {
        let nodes = Registry::new(self.reports.clone());
        see(&View {
            recorded: &self.recorded,
            nodes: &nodes,
            statuses: &self.statuses,
            gone: &self.gone,
            whole: &self.whole,
            backlogs: &self.backlogs,
            unable: &self.unable,
        })
    }

    fn next(&self) -> Option<Step> {
        self.look(next)
    }

    /// Takes the next step, which is a change, and answers what it is.
    fn step(&mut self) -> String {
        let Some(Step::Change(change)) = self.next() else { panic!("{:?}", self.next()) };
        let next = self.look(|view| change.apply(&self.recorded, &view.node_entries()));
        next.validate_after(&self.recorded).unwrap();
        self.recorded = next;
        change.describe()
    }

    /// What has been made on the fourth node answers.
    fn made(&mut self, status: Status) {
        self.reports.retain(|report| report.node.as_str() != "node-4");
        let StoreId(store) = status.store;
        self.reports.push(report("node-4", vec![storage(1, store)]));
        self.statuses.insert(status.store, status);
    }

    fn team(&self, tag: u32) -> (Vec<u128>, Vec<(u128, Option<u128>)>) {
        let teams = &self.recorded.config.layout.storage_teams;
        let team = teams.iter().find(|team| team.tag == Tag(tag)).unwrap();
        let members = team.members.iter().map(|member| member.store.0).collect();
        let joining = team.joining.iter().map(|one| (one.store.0, one.replaces.map(|r| r.0)));
        (members, joining.collect())
    }
}

#[test]
fn nothing_is_done_where_all_is_well_or_nobody_is_lost_yet() {
    let mut scene = Scene::new();
    assert_eq!(scene.next(), None);
    assert_eq!(scene.look(degraded), [""; 0]);
    scene.lose();
    scene.gone.insert(StoreId(13), Duration::from_millis(29_999));
    assert_eq!(scene.next(), None);
    assert_eq!(
        scene.look(degraded),
        ["2 of 3 copies of tag 0 are there", "2 of 3 copies of tag 1 are there"]
    );
}

#[test]
fn a_lost_member_is_replaced_in_all_its_teams_in_two_steps() {
    let mut scene = Scene::new();
    scene.lose();
    assert_eq!(scene.next(), Some(Step::Make(service("storage-1@node-4"))));
    scene.made(blank(21));
    let joins =
        "storage-1@node-4 joins the team of tag 0, 1: storage-1@node-3 has been gone for 30 s";
    assert_eq!(scene.step(), joins);
    for tag in [0, 1] {
        assert_eq!(scene.team(tag), (vec![11, 12, 13], vec![(21, Some(13))]));
    }
    // It waits, copies, catches up: it is no member before it says that its copies are whole.
    assert_eq!(scene.next(), None);
    scene.made(half(21));
    assert_eq!(scene.next(), None);
    // Of an earlier epoch, it says nothing.
    scene.made(Status { epoch: Epoch(2), ..whole(21) });
    assert_eq!(scene.next(), None);
    scene.made(whole(21));
    assert_eq!(scene.step(), "storage-1@node-4 has a whole copy");
    for tag in [0, 1] {
        assert_eq!(scene.team(tag), (vec![11, 12, 21], vec![]));
    }
    assert_eq!(scene.next(), None);
    assert_eq!(scene.look(degraded), [""; 0]);
    // The lost one comes back: it has data and no place, so it goes.
    scene.come_back();
    assert_eq!(scene.next(), None);
    let leftovers = scene.look(|view| view.leftovers());
    assert_eq!(leftovers, [(StoreId(13), service("storage-1@node-3"))]);
    // But nothing goes while a copy is lacking.
    scene.statuses.remove(&StoreId(12));
    assert_eq!(scene.look(|view| view.leftovers()), []);
}

/// Every state that a director can leave behind, as its successor finds it: nothing of the newcomer
/// is known but the layout, and the times count anew.
#[test]
fn a_director_goes_on_from_whatever_its_predecessor_left() {
    // It had the storage made, and died: the blank one is taken, and no other one made.
    let mut scene = Scene::new();
    scene.lose();
    scene.made(blank(21));
    assert!(matches!(scene.next(), Some(Step::Change(Change::Join { store: StoreId(21), .. }))));
    scene.step();

    // It recorded the newcomer, and died: the newcomer goes on, though the lost one is not yet known
    // to be lost again.
    scene.gone.insert(StoreId(13), Duration::ZERO);
    for status in [blank(21), Status { epoch: Epoch(2), ..half(21) }] {
        scene.made(status);
        assert_eq!(scene.next(), None);
    }
    scene.gone.insert(StoreId(13), Duration::from_secs(30));
    scene.made(half(21));
    assert_eq!(scene.next(), None);

    // The newcomer was whole when it died: that is all that counts.
    scene.made(whole(21));
    scene.gone.insert(StoreId(13), Duration::ZERO);
    assert_eq!(scene.step(), "storage-1@node-4 has a whole copy");

    // The newcomer never comes again: it is given up, and another one is made.
    let mut scene = Scene::new();
    scene.lose();
    scene.made(blank(21));
    scene.step();
    scene.reports.retain(|report| report.node.as_str() != "node-4");
    scene.statuses.remove(&StoreId(21));
    scene.gone.insert(StoreId(21), Duration::from_secs(29));
    assert_eq!(scene.next(), None);
    scene.gone.insert(StoreId(21), Duration::from_secs(30));
    assert_eq!(scene.step(), "storage-1@node-4 no longer joins: it has been gone for 30 s");
    assert_eq!(scene.team(1), (vec![11, 12, 13], vec![]));
    scene.gone.remove(&StoreId(21));
    assert_eq!(scene.next(), Some(Step::Make(service("storage-2@node-1"))));
}

#[test]
fn a_member_that_comes_back_in_time_keeps_its_place() {
    let mut scene = Scene::new();
    scene.lose();
    scene.made(blank(21));
    scene.step();
    scene.made(half(21));
    scene.come_back();
    assert_eq!(scene.step(), "storage-1@node-4 no longer joins: the team is complete without it");
    assert_eq!(scene.team(1), (vec![11, 12, 13], vec![]));
    // It has a part of the data: it is not blank, and not taken again.
    let leftovers = scene.look(|view| view.leftovers());
    assert_eq!(leftovers, [(StoreId(21), service("storage-1@node-4"))]);
}

#[test]
fn with_nobody_left_in_other_zones_a_copy_moves_in_and_out_again() {
    let mut scene = Scene::new();
    scene.reports.retain(|report| report.node.as_str() != "node-4");
    scene.lose();
    // Its name is free on another node, and numbers of the layout are not used twice.
    assert_eq!(scene.next(), Some(Step::Make(service("storage-2@node-1"))));
    let on_first = report("node-1", vec![storage(1, 11), storage(2, 21)]);
    scene.reports.retain(|report| report.node.as_str() != "node-1");
    scene.reports.push(on_first);
    scene.statuses.insert(StoreId(21), blank(21));
    scene.step();
    scene.statuses.insert(StoreId(21), whole(21));
    scene.step();
    scene.gone.clear();
    assert_eq!(scene.team(1), (vec![11, 12, 21], vec![]));
    assert_eq!(
        scene.look(degraded),
        ["2 copies of tag 0 are in zone node-1", "2 copies of tag 1 are in zone node-1"]
    );
    // Nowhere else would be better.
    assert_eq!(scene.next(), None);

    // The node comes back, with what it had: that goes, and a new copy is made there.
    scene.come_back();
    assert_eq!(scene.next(), Some(Step::Make(service("storage-2@node-3"))));
    let back = report("node-3", vec![storage(1, 13), storage(2, 22)]);
    scene.reports.retain(|report| report.node.as_str() != "node-3");
    scene.reports.push(back);
    scene.statuses.insert(StoreId(22), blank(22));
    let joins = scene.step();
    assert!(joins.contains("storage-1@node-1 shares its zone with another copy"), "{joins}");
    assert_eq!(scene.team(1).1, [(22, Some(11))]);
    scene.statuses.insert(StoreId(22), half(22));
    assert_eq!(scene.next(), None);
    scene.statuses.insert(StoreId(22), whole(22));
    scene.step();
    assert_eq!(scene.team(1), (vec![12, 21, 22], vec![]));
    assert_eq!(scene.next(), None);
    assert_eq!(scene.look(degraded), [""; 0]);
}

#[test]
fn a_member_too_far_behind_is_dropped_but_never_the_last_that_is_not() {
    let limit = Parameters::default().max_log_backlog_bytes;
    let mut scene = Scene::new();
    scene.backlogs.insert(StoreId(13), limit);
    assert_eq!(scene.next(), None);
    scene.backlogs.insert(StoreId(13), limit + 1);
    let dropped = scene.step();
    assert!(
        dropped.starts_with("storage-1@node-3 is dropped: it is 1073741825 bytes"),
        "{dropped}"
    );
    assert_eq!(scene.team(0), (vec![11, 12], vec![]));
    // It has to take a copy again, in a directory of its own.
    assert_eq!(scene.next(), Some(Step::Make(service("storage-1@node-4"))));
    scene.made(blank(21));
    let joins = scene.step();
    assert!(joins.contains("there are too few copies"), "{joins}");
    assert_eq!(scene.team(0).1, [(21, None)]);

    // It says itself that it can't go on: what it had is gone, and the logs have dropped it.
    let mut scene = Scene::new();
    scene.statuses.insert(StoreId(13), Status { lacks: BTreeSet::from([Tag(1)]), ..whole(13) });
    let dropped = scene.step();
    assert!(dropped.starts_with("storage-1@node-3 is dropped: it has lost"), "{dropped}");

    // Its disk is as it was before its copy was whole: it takes up no epoch as a member.
    let mut scene = Scene::new();
    scene.statuses.insert(StoreId(13), Status { epoch: Epoch(2), ..half(13) });
    let dropped = scene.step();
    assert!(dropped.starts_with("storage-1@node-3 is dropped: it has lost"), "{dropped}");

    // All are behind.
    let mut scene = Scene::new();
    for store in 11..=13 {
        scene.backlogs.insert(StoreId(store), limit + 1);
    }
    assert_eq!(scene.next(), None);
    // The only one that is not behind does not answer.
    scene.backlogs.remove(&StoreId(11));
    scene.statuses.remove(&StoreId(11));
    assert_eq!(scene.next(), None);
    // The one whose place a newcomer is to take may go before.
    let mut scene = Scene::new();
    scene.lose();
    scene.made(blank(21));
    scene.step();
    scene.made(half(21));
    scene.backlogs.insert(StoreId(13), limit + 1);
    scene.step();
    assert_eq!(scene.team(1), (vec![11, 12], vec![(21, None)]));
}

#[test]
fn nothing_is_begun_that_no_majority_of_the_config_team_would_confirm() {
    let mut scene = Scene::new();
    scene.lose();
    scene.made(blank(21));
    scene.statuses.remove(&StoreId(12));
    assert_eq!(scene.next(), None);
    scene.statuses.insert(StoreId(12), Status { epoch: Epoch(2), ..whole(12) });
    assert_eq!(scene.next(), None);
    scene.statuses.insert(StoreId(12), whole(12));
    scene.step();
    // Nor ended: the newcomer alone is no majority with one of two.
    scene.made(whole(21));
    scene.statuses.remove(&StoreId(12));
    assert_eq!(scene.next(), None);
}

#[test]
fn a_cluster_that_writes_an_older_level_is_left_as_it_is() {
    let mut scene = Scene::new();
    scene.lose();
    scene.recorded.config.format_level = 1;
    assert_eq!(scene.next(), None);
}

fn log(number: u32, store: u128) -> Worker {
    worker(&format!("log-{number}"), Some(StoreId(store)), Some(pid("node", u64::from(number))))
}

/// Two logs are in one zone, as after a recovery without the third node.
#[test]
fn logs_that_share_a_zone_are_told_and_a_zone_that_is_back_gets_one_of_its_own() {
    let mut scene = Scene::new();
    scene.reports.retain(|report| report.node.as_str() < "node-4");
    assert_eq!(scene.look(|view| view.better_log()), None);
    scene.recorded.config.layout.logs[2].service = service("log-2@node-1");
    assert_eq!(
        scene.look(degraded),
        ["2 logs of tag 0 are in zone node-1", "2 logs of tag 1 are in zone node-1"]
    );
    // The third node does not make logs, then it does, then it has one.
    assert_eq!(scene.look(|view| view.better_log()), None);
    scene.reports[2].kinds.push(ServiceKind::Log);
    let made = Some(LogSite::Make(service("log-1@node-3")));
    assert_eq!(scene.look(|view| view.better_log()), made);
    scene.unable.insert("node-3".parse().unwrap());
    assert_eq!(scene.look(|view| view.better_log()), None);
    scene.unable.clear();
    scene.reports[2].settled = false;
    assert_eq!(scene.look(|view| view.better_log()), None);
    scene.reports[2].settled = true;
    scene.reports[2].workers.push(Worker { state: WorkerState::Down, ..log(1, 3) });
    let made = Some(LogSite::Make(service("log-2@node-3")));
    // A directory of the layout is not recruited twice, whatever its name.
    assert_eq!(scene.look(|view| view.better_log()), made);
    scene.reports[2].workers.push(log(3, 33));
    let standing = LogSite::Standing(service("log-3@node-3"), pid("node", 3));
    assert_eq!(scene.look(|view| view.better_log()), Some(standing));
    // With as many zones as there are, it is as good as it gets.
    scene.reports.truncate(2);
    assert_eq!(scene.look(|view| view.better_log()), None);
}

#[test]
fn a_member_whose_disk_was_wiped_is_not_given_its_own_name_again() {
    let mut scene = Scene::new();
    scene.reports.retain(|report| report.node.as_str() != "node-4");
    scene.lose();
    scene.reports.push(report("node-3", vec![storage(1, 33)]));
    scene.statuses.insert(StoreId(33), blank(33));
    assert_eq!(scene.next(), Some(Step::Make(service("storage-2@node-3"))));
    scene.reports.retain(|report| report.node.as_str() != "node-3");
    scene.reports.push(report("node-3", vec![storage(1, 33), storage(2, 34)]));
    scene.statuses.insert(StoreId(34), blank(34));
    scene.step();
    scene.statuses.insert(StoreId(34), whole(34));
    scene.step();
    scene.gone.clear();
    assert_eq!(scene.team(1), (vec![11, 12, 34], vec![]));
    assert_eq!(scene.next(), None);
    assert_eq!(scene.look(|view| view.leftovers()), []);
}

#[test]
fn foremen_that_can_not_make_a_storage_are_passed_over() {
    let mut scene = Scene::new();
    scene.lose();
    scene.unable.insert("node-4".parse().unwrap());
    assert_eq!(scene.next(), Some(Step::Make(service("storage-2@node-1"))));
}

fn fewer_copies(scene: &mut Scene, replication: u32, config_team: u32) {
    let parameters = &mut scene.recorded.config.parameters;
    *parameters = Parameters { replication, config_team, ..parameters.clone() };
}

#[test]
fn a_copy_too_many_leaves_its_team_alone() {
    let mut scene = Scene::new();
    fewer_copies(&mut scene, 2, 3);
    assert!(scene.step().starts_with("storage-1@node-3 leaves the team of tag 1"));
    assert_eq!(scene.team(1), (vec![11, 12], vec![]));
    assert_eq!(scene.team(0), (vec![11, 12, 13], vec![]));
    assert_eq!(scene.next(), None);
    fewer_copies(&mut scene, 1, 1);
    scene.step();
    assert_eq!(scene.team(0).0, [11, 12]);
    // Of these two none can go: the other one is no majority of them. Other teams can spare theirs.
    scene.step();
    assert_eq!((scene.team(0).0, scene.team(1).0), (vec![11, 12], vec![11]));
    assert_eq!(scene.next(), None);
}

/// Who leaves follows the logs no more when the change is proved, so it can't be counted on.
#[test]
fn a_change_is_confirmed_by_those_who_stay() {
    let mut scene = Scene::new();
    scene.lose();
    scene.made(blank(21));
    scene.step();
    scene.made(whole(21));
    // Two of three stay, of which one is away.
    scene.statuses.remove(&StoreId(12));
    scene.statuses.insert(StoreId(13), whole(13));
    assert_eq!(scene.next(), None);
    scene.statuses.insert(StoreId(12), whole(12));
    assert_eq!(scene.step(), "storage-1@node-4 has a whole copy");
}

#[test]
fn who_has_not_everything_leaves_first_and_never_the_last_that_are_wanted() {
    let mut scene = Scene::new();
    fewer_copies(&mut scene, 2, 3);
    scene.statuses.remove(&StoreId(11));
    scene.gone.insert(StoreId(11), Duration::from_millis(500));
    assert!(scene.step().starts_with("storage-1@node-1 leaves the team of tag 1"));
    assert_eq!(scene.team(1).0, [12, 13]);
    // Only one has everything of tag 1, so nobody can go, although the config team could confirm it.
    let mut scene = Scene::new();
    fewer_copies(&mut scene, 2, 3);
    let tags = vec![tag_status(0, None), tag_status(1, Some(CopyStatus::default()))];
    scene.statuses.insert(StoreId(11), Status { tags, ..whole(11) });
    scene.statuses.remove(&StoreId(13));
    assert_eq!(scene.next(), None);
    // Enough have everything, and the config team can't confirm.
    let mut scene = Scene::new();
    fewer_copies(&mut scene, 1, 3);
    scene.statuses.insert(StoreId(11), half(11));
    scene.statuses.remove(&StoreId(13));
    assert_eq!(scene.next(), None);
}

#[test]
fn who_shares_a_zone_leaves_before_others() {
    let mut scene = Scene::new();
    fewer_copies(&mut scene, 2, 3);
    for report in &mut scene.reports {
        if report.node.as_str() != "node-3" {
            report.zone = "rack".parse().unwrap();
        }
    }
    assert!(scene.step().starts_with("storage-1@node-2 leaves the team of tag 1"));
}
