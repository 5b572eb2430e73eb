//! Which logs are locked, and whether they are enough. Pure: answers and times in, a verdict out.
//!
//! A commit is acknowledged only when *every* log of its epoch has it, so each single locked log
//! bounds from above what was acknowledged; and once a log of the old epoch is locked, nothing more
//! can be acknowledged in it. What the quorum has to ensure is that no data is missing: **for each
//! tag at least one undamaged holder**. It is computed from the layout that was in force, never from
//! how many logs are desired now.
//!
//! A log counts only with the directory that the layout names, and only if it has everything that
//! any log of the layout knows to be committed. One that does not was wiped, cut short or rolled
//! back: it is *damaged*, counts as missing, and never lowers the recovery version.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plinth_api::log::LockAnswer;
use plinth_system_config::Recorded;
use plinth_types::{Pid, ServiceRef, StoreId, Tag, Version};

/// How long to wait for the other logs once there are enough. Times count from the appointment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// From when there are enough.
    pub(crate) grace: Duration,
    /// Not before then: a cluster that has just been started as a whole gets time to come up.
    pub(crate) not_before: Duration,
}

impl Patience {
    /// `group_age` is how long the coordinators' group had been up at the appointment.
    pub(crate) fn new(recorded: &Recorded, group_age: Duration) -> Patience {
        let parameters = &recorded.config.parameters;
        Patience {
            grace: Duration::from_millis(parameters.rejoin_grace_ms),
            not_before: Duration::from_millis(parameters.start_grace_ms).saturating_sub(group_age),
        }
    }
}

/// What is known of a log of the layout.
#[derive(Clone, Debug)]
enum State {
    /// It may still answer.
    Awaited,
    /// It can't be had: its foreman or itself says so.
    Lost(String),
    /// It is locked.
    Answered(Pid, Box<LockAnswer>),
}

#[derive(Clone, Debug)]
struct Member {
    service: ServiceRef,
    tags: Vec<Tag>,
    state: State,
}

/// An undamaged log that is locked at this epoch.
#[derive(Clone, Debug)]
pub(crate) struct LockedLog {
    pub(crate) service: ServiceRef,
    pub(crate) pid: Pid,
    /// The tags that the layout gives it: it has all of their data up to `answer.end`.
    pub(crate) tags: Vec<Tag>,
    pub(crate) answer: LockAnswer,
}

/// What comes of the locks so far.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// Some tag has no undamaged holder: not before another log answers, however long it takes.
    NotEnough { lacking: String },
    /// Enough; until then others may still join.
    Grace { until: Duration },
    /// Enough, and no use in waiting.
    Enough,
    /// A log keeps a newer configuration than the one at hand, whose layout is therefore stale.
    Newer(Box<Recorded>),
}

/// Deliberate faults in counting logs, which the real runtime never has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Miscount {
    /// A log is its name: another directory under it counts, whatever it has.
    pub(crate) by_name: bool,
    /// Enough are as many as are desired now.
    pub(crate) as_desired: bool,
}

/// The logs of a layout while they are being locked.
pub(crate) struct LockSet<'a> {
    pub(crate) miscount: Miscount,
    recorded: &'a Recorded,
    members: BTreeMap<StoreId, Member>,
    suspects: &'a BTreeSet<ServiceRef>,
    patience: Patience,
    enough_since: Option<Duration>,
}

impl<'a> LockSet<'a> {
    /// Nobody of this layout has answered. Nobody waits for `suspects` longer than it must.
    pub(crate) fn new(
        recorded: &'a Recorded,
        suspects: &'a BTreeSet<ServiceRef>,
        patience: Patience,
    ) -> LockSet<'a> {
        let members = recorded.config.layout.logs.iter().map(|log| {
            let (service, tags) = (log.service.clone(), log.tags.clone());
            (log.store, Member { service, tags, state: State::Awaited })
        });
        let members = members.collect();
        let miscount = Miscount::default();
        LockSet { miscount, recorded, members, suspects, patience, enough_since: None }
    }

    /// The logs that have not answered, by the directory that the layout names.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = (StoreId, &ServiceRef)> {
        self.members
            .iter()
            .filter(|(_, member)| !matches!(member.state, State::Answered(..)))
            .map(|(store, member)| (*store, &member.service))
    }

    /// The log that the layout knows by this directory has answered a lock.
    pub(crate) fn answered(&mut self, store: StoreId, pid: Pid, answer: LockAnswer) {
        if let Some(member) = self.members.get_mut(&store) {
            member.state = State::Answered(pid, Box::new(answer));
        }
    }

    /// Whether there is hope that the log answers. It says nothing about one that has answered.
    pub(crate) fn hope(&mut self, store: StoreId, lost: Option<String>) {
        if let Some(member) = self.members.get_mut(&store)
            && !matches!(member.state, State::Answered(..))
        {
            member.state = lost.map_or(State::Awaited, State::Lost);
        }
    }

    /// Every answer of a directory that is the layout's, with the directory. Another directory's
    /// answer says nothing, not even by what it knows to be committed.
    fn answers(&self) -> impl Iterator<Item = (StoreId, &Member, &Pid, &LockAnswer)> {
        self.members.iter().filter_map(|(store, member)| match &member.state {
            State::Answered(pid, answer) if answer.store == *store || self.miscount.by_name => {
                Some((*store, member, pid, &**answer))
            }
            State::Answered(..) | State::Awaited | State::Lost(_) => None,
        })
    }

    /// No undamaged log of the layout ends below this: what any of them knows to be committed, and
    /// the version that the layout's epoch began from.
    fn least_end(&self) -> Version {
        let known = self.answers().map(|(_, _, _, answer)| answer.known_committed);
        known.fold(self.recorded.config.layout.recovery_version, Version::max)
    }

    /// What is wrong with a log that has answered.
    fn damage(&self, store: StoreId, answer: &LockAnswer) -> Option<String> {
        let least = self.least_end();
        if self.miscount.by_name {
            None
        } else if answer.store != store {
            Some(format!("it has directory {} instead of {store}", answer.store))
        } else if answer.end < least {
            Some(format!("it ends at {}, below the committed version {least}", answer.end))
        } else if answer
            .generation
            .is_none_or(|last| last.epoch < self.recorded.config.layout.epoch)
        {
            Some("it does not know the epoch that the layout is of".to_owned())
        } else if answer.config_damaged && self.may_be_newer(answer) {
            Some("it may keep a newer configuration, which can't be read".to_owned())
        } else {
            None
        }
    }

    /// Whether the configuration that a log keeps may be newer than the one at hand, for all that its
    /// other records tell: it has taken up a later epoch than the layout's.
    fn may_be_newer(&self, answer: &LockAnswer) -> bool {
        let layout = self.recorded.config.layout.epoch;
        answer.generation.is_some_and(|last| last.epoch > layout)
    }

    /// The locked logs that count, in the order of their directories.
    pub(crate) fn locked(&self) -> Vec<LockedLog> {
        self.answers()
            .filter(|(store, _, _, answer)| self.damage(*store, answer).is_none())
            .map(|(_, member, pid, answer)| LockedLog {
                service: member.service.clone(),
                pid: pid.clone(),
                tags: member.tags.clone(),
                answer: answer.clone(),
            })
            .collect()
    }

    /// The logs that have answered and don't count, with what is wrong with them.
    pub(crate) fn damaged(&self) -> Vec<(ServiceRef, StoreId, String)> {
        let damaged = self.members.iter().filter_map(|(store, member)| match &member.state {
            State::Answered(_, answer) => {
                let damage = self.damage(*store, answer)?;
                Some((member.service.clone(), *store, damage))
            }
            State::Awaited | State::Lost(_) => None,
        });
        damaged.collect()
    }

    /// The tags that have no undamaged holder among the locked logs.
    fn missing_tags(&self) -> BTreeSet<Tag> {
        let mut missing: BTreeSet<Tag> =
            self.recorded.config.layout.storage_teams.iter().map(|team| team.tag).collect();
        missing.extend(self.recorded.shards.tags());
        let desired = usize::try_from(self.recorded.config.parameters.logs).unwrap_or(usize::MAX);
        if self.miscount.as_desired && self.locked().len() < desired {
            return missing;
        }
        for log in self.locked() {
            for tag in &log.tags {
                missing.remove(tag);
            }
        }
        missing
    }

    fn newer(&self) -> Option<Box<Recorded>> {
        self.answers()
            .filter_map(|(_, _, _, answer)| answer.config.as_ref())
            .filter(|kept| kept.config.cluster_id == self.recorded.config.cluster_id)
            .max_by_key(|kept| kept.stamp())
            .filter(|kept| kept.stamp() > self.recorded.stamp())
            .map(|kept| Box::new(kept.clone()))
    }

    /// What comes of the locks so far, `now` after the appointment.
    pub(crate) fn judge(&mut self, now: Duration) -> Verdict {
        if let Some(newer) = self.newer() {
            return Verdict::Newer(newer);
        }
        let missing = self.missing_tags();
        if !missing.is_empty() {
            // A log that has just answered may show an earlier one to be damaged.
            self.enough_since = None;
            return Verdict::NotEnough { lacking: self.lacking(&missing) };
        }
        let since = *self.enough_since.get_or_insert(now);
        let until = (since + self.patience.grace).max(self.patience.not_before);
        let is_awaited = |member: &Member| {
            matches!(member.state, State::Awaited) && !self.suspects.contains(&member.service)
        };
        if now < until && self.members.values().any(is_awaited) {
            Verdict::Grace { until }
        } else {
            Verdict::Enough
        }
    }

    fn lacking(&self, missing: &BTreeSet<Tag>) -> String {
        let mut logs = Vec::new();
        for (store, member) in &self.members {
            let state = match &member.state {
                State::Awaited => "has not answered".to_owned(),
                State::Lost(reason) => format!("is lost: {reason}"),
                State::Answered(_, answer) => match self.damage(*store, answer) {
                    Some(damage) => format!("is damaged: {damage}"),
                    None => continue,
                },
            };
            logs.push(format!("{} {state}", member.service));
        }
        let tags: Vec<String> = missing.iter().map(ToString::to_string).collect();
        format!(
            "no undamaged log that holds tag {} is locked: {}",
            tags.join(", "),
            logs.join("; ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{lock_answer, pid, recorded};
    use plinth_types::ConfigVersion;
    use proptest::prelude::*;

    const START: Duration = Duration::ZERO;
    const SOON: Patience =
        Patience { grace: Duration::from_millis(200), not_before: Duration::ZERO };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn locked(set: &LockSet<'_>) -> Vec<u128> {
        set.locked().iter().map(|log| log.answer.store.0).collect()
    }

    #[derive(Clone, Copy)]
    enum Log {
        Silent,
        Lost,
        /// (directory, end, known committed version)
        Ends(u128, u64, u64),
    }
    use Log::{Ends, Lost, Silent};

    /// Three logs that hold everything: what they do, which of them count, and whether it is enough.
    #[test]
    fn enough_is_one_undamaged_holder_of_each_tag() {
        for (name, logs, counting, enough) in [
            ("all", [Ends(1, 900, 800), Ends(2, 950, 900), Ends(3, 900, 900)], vec![1, 2, 3], true),
            ("two of three", [Ends(1, 900, 800), Lost, Ends(3, 950, 900)], vec![1, 3], true),
            ("one of three", [Lost, Ends(2, 900, 800), Lost], vec![2], true),
            ("none", [Lost, Silent, Lost], vec![], false),
            (
                "idle epoch",
                [Ends(1, 500, 500), Ends(2, 500, 0), Ends(3, 500, 0)],
                vec![1, 2, 3],
                true,
            ),
            ("wiped, back with end 0", [Ends(7, 0, 0), Ends(2, 900, 800), Lost], vec![2], true),
            ("only a wiped one", [Ends(7, 0, 0), Lost, Lost], vec![], false),
            ("cut short", [Ends(1, 700, 600), Ends(2, 900, 800), Lost], vec![2], true),
            ("below the epoch's start", [Ends(1, 499, 0), Lost, Lost], vec![], false),
            ("ends below what it knows", [Ends(1, 600, 700), Lost, Lost], vec![], false),
            // It is damaged, yet what it knows to be committed is committed.
            (
                "a damaged one's word counts",
                [Ends(1, 600, 700), Ends(2, 650, 0), Lost],
                vec![],
                false,
            ),
            (
                "a stranger's word does not",
                [Ends(9, 9_000, 9_000), Ends(2, 650, 0), Lost],
                vec![2],
                true,
            ),
        ] {
            let (recorded, suspects) = (recorded(), BTreeSet::new());
            let mut set = LockSet::new(&recorded, &suspects, SOON);
            for (store, log) in (1..).zip(logs) {
                match log {
                    Silent => {}
                    Lost => set.hope(StoreId(store), Some("gone".to_owned())),
                    Ends(answers, end, known) => {
                        let pid = pid("node-1", u64::try_from(store).unwrap());
                        set.answered(StoreId(store), pid, lock_answer(answers, end, known));
                    }
                }
            }
            assert_eq!(locked(&set), counting, "{name}");
            let verdict = set.judge(START);
            assert_eq!(matches!(verdict, Verdict::Enough), enough, "{name}: {verdict:?}");
            if !enough {
                assert!(matches!(verdict, Verdict::NotEnough { .. }), "{name}: {verdict:?}");
            }
        }
    }

    #[test]
    fn a_tag_on_fewer_logs_needs_one_of_those() {
        let mut recorded = recorded();
        recorded.config.layout.logs[2].tags = vec![Tag(0)];
        // What is desired now decides nothing.
        recorded.config.parameters.logs = 1;
        recorded.config.parameters.replication = 1;
        let suspects = BTreeSet::new();
        let mut set = LockSet::new(&recorded, &suspects, SOON);
        set.answered(StoreId(3), pid("node-3", 3), lock_answer(3, 900, 900));
        let Verdict::NotEnough { lacking } = set.judge(START) else { panic!("enough") };
        assert!(lacking.contains("tag 1 is locked: log-1@node-1 has not answered"), "{lacking}");
        set.answered(StoreId(2), pid("node-2", 2), lock_answer(2, 900, 900));
        assert!(matches!(set.judge(START), Verdict::Grace { .. }));
    }

    #[test]
    fn the_grace_is_for_those_who_may_still_come() {
        let recorded = recorded();
        let suspects = BTreeSet::from(["log-1@node-3".parse().unwrap()]);
        let mut set = LockSet::new(&recorded, &suspects, SOON);
        assert!(matches!(set.judge(ms(50)), Verdict::NotEnough { .. }));
        set.answered(StoreId(1), pid("node-1", 1), lock_answer(1, 900, 800));
        let Verdict::Grace { until } = set.judge(ms(100)) else { panic!("no grace") };
        assert_eq!(until, ms(300));
        assert!(matches!(set.judge(ms(299)), Verdict::Grace { .. }));
        assert!(matches!(set.judge(ms(300)), Verdict::Enough));
        // Nobody waits for a suspect, nor for what a foreman reports lost.
        set.hope(StoreId(2), Some("gone".to_owned()));
        assert!(matches!(set.judge(ms(101)), Verdict::Enough));
        set.hope(StoreId(2), None);
        assert!(matches!(set.judge(ms(101)), Verdict::Grace { .. }));
    }

    #[test]
    fn a_cluster_that_has_just_started_gets_more_time() {
        let (recorded, suspects) = (recorded(), BTreeSet::new());
        let patience = Patience::new(&recorded, ms(1_500));
        assert_eq!(patience, Patience { grace: ms(200), not_before: ms(3_500) });
        let mut set = LockSet::new(&recorded, &suspects, patience);
        set.answered(StoreId(1), pid("node-1", 1), lock_answer(1, 900, 800));
        let Verdict::Grace { until } = set.judge(START) else { panic!("no grace") };
        assert_eq!(until, ms(3_500));
        assert_eq!(Patience::new(&recorded, ms(6_000)).not_before, Duration::ZERO);
    }

    #[test]
    fn a_newer_configuration_is_taken_up_and_an_older_or_foreign_one_is_not() {
        let (recorded, suspects) = (recorded(), BTreeSet::new());
        for (epoch, cluster, newer) in [(2, 1, false), (3, 1, false), (4, 1, true), (4, 2, false)] {
            let mut kept = recorded.clone();
            kept.config.epoch.0 = epoch;
            kept.config.cluster_id.0 = cluster;
            kept.config.config_version = ConfigVersion(4);
            let mut set = LockSet::new(&recorded, &suspects, SOON);
            let answer = LockAnswer { config: Some(kept), ..lock_answer(1, 900, 800) };
            set.answered(StoreId(1), pid("node-1", 1), answer);
            assert_eq!(matches!(set.judge(START), Verdict::Newer(_)), newer, "{epoch} {cluster}");
        }
    }

    proptest! {
        /// Whatever the logs answer: where it is enough, each tag has a holder, and no log that
        /// counts lacks what any log of the layout knows to be committed.
        #[test]
        fn what_counts_has_everything_committed(
            logs in proptest::collection::vec((0u128..5, 400u64..1_000, 0u64..1_000), 3),
            heard in proptest::collection::vec(any::<bool>(), 3),
        ) {
            let (recorded, suspects) = (recorded(), BTreeSet::new());
            let mut set = LockSet::new(&recorded, &suspects, SOON);
            let mut known = Version(500);
            for (index, ((directory, end, kcv), heard)) in logs.iter().zip(&heard).enumerate() {
                if !heard { continue; }
                let store = StoreId(index as u128 + 1);
                if store.0 == *directory {
                    known = known.max(Version(*kcv));
                }
                set.answered(store, pid("node-1", 1), lock_answer(*directory, *end, *kcv));
            }
            let locked = set.locked();
            prop_assert!(locked.iter().all(|log| log.answer.end >= known));
            set.judge(START);
            // The grace is over.
            let enough = matches!(set.judge(ms(200)), Verdict::Enough);
            prop_assert_eq!(enough, !locked.is_empty());
            let answered = heard.iter().filter(|heard| **heard).count();
            prop_assert_eq!(locked.len() + set.damaged().len(), answered);
        }
    }
}
