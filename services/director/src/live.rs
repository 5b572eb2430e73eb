//! The layout as it lives: the recorded one with the processes that fill its places now.

use plinth_api::director::{LiveLayout, Placed};
use plinth_system_config::{Directory, Recorded};
use plinth_types::{Pid, ServiceRef};
use tokio::sync::watch;

/// The live layout, for whoever polls for it; none before the layout is recorded.
#[derive(Clone)]
pub(crate) struct Live(watch::Sender<Option<LiveLayout>>);

impl Live {
    pub(crate) fn new() -> Live {
        Live(watch::Sender::new(None))
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<LiveLayout>> {
        self.0.subscribe()
    }

    /// The layout has been recorded; commits are not accepted yet.
    pub(crate) fn publish(&self, recorded: &Recorded, directory: &Directory) {
        self.0.send_replace(Some(LiveLayout {
            index: 1,
            accepting_commits: false,
            config: recorded.config.to_memory(directory),
            recorded: recorded.clone(),
            directory: placed(directory),
        }));
    }

    /// Commits are accepted from now on.
    pub(crate) fn accept_commits(&self) {
        self.change(|live| live.accepting_commits = true);
    }

    /// Whether commits are accepted.
    pub(crate) fn accepts_commits(&self) -> bool {
        self.0.borrow().as_ref().is_some_and(|live| live.accepting_commits)
    }

    /// A service has another process, or none.
    pub(crate) fn place(&self, service: &ServiceRef, pid: Option<Pid>) {
        self.change(|live| {
            let known = live.directory.drain(..).map(|placed| (placed.service, placed.pid));
            let mut directory: Directory = known.filter(|(known, _)| known != service).collect();
            if let Some(pid) = pid {
                directory.insert(service.clone(), pid);
            }
            live.config = live.recorded.config.to_memory(&directory);
            live.directory = placed(&directory);
        });
    }

    /// Another configuration is recorded within the epoch.
    pub(crate) fn amend(&self, recorded: &Recorded) {
        self.change(|live| {
            let known = live.directory.drain(..).map(|placed| (placed.service, placed.pid));
            let directory: Directory = known.collect();
            live.config = recorded.config.to_memory(&directory);
            live.recorded = recorded.clone();
            live.directory = placed(&directory);
        });
    }

    /// The processes that are known.
    pub(crate) fn directory(&self) -> Directory {
        let live = self.0.borrow();
        let known = live.iter().flat_map(|live| &live.directory);
        known.map(|placed| (placed.service.clone(), placed.pid.clone())).collect()
    }

    /// The index bumps only where something changes.
    fn change(&self, apply: impl FnOnce(&mut LiveLayout)) {
        self.0.send_if_modified(|current| {
            let Some(live) = current else { return false };
            let before = live.clone();
            apply(live);
            let changed = *live != before;
            live.index += u64::from(changed);
            changed
        });
    }
}

fn placed(directory: &Directory) -> Vec<Placed> {
    directory
        .iter()
        .map(|(service, pid)| Placed { service: service.clone(), pid: pid.clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{pid, recorded, service};
    use plinth_system_config::Service;

    #[test]
    fn the_index_bumps_with_every_change_and_only_then() {
        let live = Live::new();
        let seen = live.subscribe();
        live.accept_commits();
        assert_eq!(*seen.borrow(), None);
        let storage = service("storage-1@node-2");
        let directory = [(storage.clone(), pid("node-2", 1))].into_iter().collect();
        live.publish(&recorded(), &directory);
        let index = || seen.borrow().as_ref().map(|live| live.index);
        assert_eq!(index(), Some(1));
        live.accept_commits();
        live.accept_commits();
        assert_eq!(index(), Some(2));
        live.place(&storage, Some(pid("node-2", 1)));
        assert_eq!(index(), Some(2));
        live.place(&storage, Some(pid("node-2", 2)));
        assert_eq!(index(), Some(3));
        let member = || {
            let live = seen.borrow().clone().unwrap();
            (live.config.layout.storage_teams[0].members[1].service.clone(), live.directory.len())
        };
        assert_eq!(member(), (Service::Up(pid("node-2", 2)), 1));
        live.place(&storage, None);
        assert_eq!(member(), (Service::Down(storage), 0));
        assert!(seen.borrow().as_ref().unwrap().accepting_commits);
        let mut next = recorded();
        next.config.config_version = next.config.config_version.next();
        live.amend(&next);
        live.amend(&next);
        assert_eq!(index(), Some(5));
        assert_eq!(seen.borrow().as_ref().unwrap().recorded, next);
    }
}
