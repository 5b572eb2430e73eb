//! An epoch is taken up: what is here of its tags is followed, or copied.

use plinth_api::storage::{Assignment, Joining, TagAssignment};
use plinth_api::{Target, Tenure};
use plinth_service::Exit;
use plinth_types::{Epoch, Tag};

use super::{Driver, breached};
use crate::records::Position;
use crate::refusal::Refusal;
use crate::stream::Stream;

impl Driver {
    pub(super) fn assign(&mut self, assignment: Assignment) -> Result<Result<(), Refusal>, Exit> {
        let mut tenure = self.tenure;
        if let Err(refusal) = self.may_assign(&assignment, &mut tenure) {
            return Ok(Err(refusal));
        }
        let Assignment { epoch, generation, tags, logs, window_versions, .. } = assignment;
        for tag in &tags {
            let fresh = || Stream::restore(tag.tag, Position::default());
            let stream = self.streams.entry(tag.tag).or_insert_with(fresh);
            if begins_copy(stream, tag) {
                stream.begin_copy(tag.ranges.clone());
            }
        }
        let breach = self.streams.values().find_map(|stream| stream.check(generation).err());
        if let Some(breach) = breach {
            return Err(breached(&breach));
        }
        self.tenure = tenure;
        self.seen = epoch;
        self.session += 1;
        self.tasks.clear();
        self.held.clear();
        self.stuck.clear();
        self.lacks.clear();
        self.due.clear();
        self.logs = logs;
        self.joining.clear();
        let mut left: Vec<Tag> = self.streams.keys().copied().collect();
        for tag in tags {
            left.retain(|other| *other != tag.tag);
            let joins = tag.joining.is_some();
            let keeps_void = self.context.runtime().fault("storage.keep_void");
            if let Some(stream) = self.streams.get_mut(&tag.tag) {
                let applied = stream.version();
                if keeps_void {
                    stream.begin(generation, tag.ranges.clone(), window_versions, joins);
                }
                stream
                    .assign(generation, tag.ranges, window_versions, joins)
                    .map_err(|breach| breached(&breach))?;
                if stream.version() < applied {
                    self.context.runtime().mark("storage.dropped_back");
                }
            }
            self.take_up(tag.tag, epoch, tag.joining);
        }
        for tag in left {
            if let Some(stream) = self.streams.get_mut(&tag) {
                stream.release();
            }
        }
        self.context.set_epoch(epoch);
        self.context.set_state("assigned");
        self.show_streams();
        tracing::info!(
            epoch = epoch.0,
            recovery_version = generation.recovery_version.0,
            first_version = generation.first_version.0,
            "takes up the epoch"
        );
        // Whoever waits is of an earlier epoch, and hears of it now.
        for (deadline, (request, reply)) in self.reads.take_all() {
            self.read(request, reply, deadline);
        }
        let watches = [self.watches.take_all(), self.early_watches.take_all()];
        for (deadline, watch) in watches.into_iter().flatten() {
            self.watch(watch, deadline);
        }
        self.flush()?;
        Ok(Ok(()))
    }

    fn may_assign(&self, assignment: &Assignment, tenure: &mut Tenure) -> Result<(), Refusal> {
        let Assignment { epoch, director, generation, tags, logs, .. } = assignment;
        self.fence(*epoch)?;
        tenure.take(*epoch, *director)?;
        let invalid = |detail: String| Err(Refusal::Assignment(detail));
        if generation.epoch != *epoch {
            return invalid(format!("its generation is of epoch {}", generation.epoch));
        }
        if generation.first_version <= generation.recovery_version {
            return invalid("its first version is not above its recovery version".to_owned());
        }
        if let Some(tag) =
            tags.iter().find(|tag| !logs.iter().any(|log| log.tags.contains(&tag.tag)))
        {
            return invalid(format!("no log holds tag {}", tag.tag));
        }
        let is_half = |tag: &&TagAssignment| {
            let copy = self.streams.get(&tag.tag).and_then(Stream::copy);
            tag.joining.is_none() && copy.is_some()
        };
        if let Some(tag) = tags.iter().find(is_half) {
            return Err(Refusal::HalfCopy(tag.tag));
        }
        // A write that is under way would be taken for one of the new copy's.
        let is_busy = |tag: &&TagAssignment| {
            let stream = self.streams.get(&tag.tag).filter(|stream| stream.is_writing());
            stream.is_some_and(|stream| begins_copy(stream, tag))
        };
        if let Some(tag) = tags.iter().find(is_busy) {
            return Err(Refusal::Writing(tag.tag));
        }
        let same = |stream: &Stream| {
            stream.generation().is_none_or(|held| held.epoch != *epoch || held == *generation)
        };
        if self.streams.values().all(same) { Ok(()) } else { Err(Refusal::Reassigned(*epoch)) }
    }

    /// Fetches what is lacking of a tag's copy, or follows the logs.
    fn take_up(&mut self, tag: Tag, epoch: Epoch, joining: Option<Joining>) {
        let copy = self.streams.get(&tag).and_then(Stream::copy);
        let is_fetched = copy.is_some_and(|copy| !copy.has_everything());
        if let Some(joining) = joining {
            if is_fetched {
                if copy.is_some_and(|copy| copy.record().keys > 0) {
                    self.context.runtime().mark("storage.copy_resumed");
                }
                self.fetch(tag, epoch, &joining);
            }
            self.joining.insert(tag, joining);
        }
        if !is_fetched {
            let logs = self.logs_of(tag);
            self.follow(tag, epoch, logs);
        }
    }

    /// The logs that hold a tag.
    pub(super) fn logs_of(&self, tag: Tag) -> Vec<Target> {
        let holders = self.logs.iter().filter(|log| log.tags.contains(&tag));
        holders.map(|log| Target::from(&log.peer.pid)).collect()
    }
}

/// A newcomer without anything of the tag takes a copy. One that has a whole copy, of an earlier time
/// or because it was whole already, only follows the logs, as long as they have what it lacks.
fn begins_copy(stream: &Stream, tag: &TagAssignment) -> bool {
    let is_right = match stream.copy() {
        Some(copy) => copy.is_of(&tag.ranges),
        None => stream.durable() != Position::default(),
    };
    tag.joining.is_some() && !is_right
}
