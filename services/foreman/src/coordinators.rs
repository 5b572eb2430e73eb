//! The coordinators as a node knows them: those of its cluster file, and those that the coordinators name when
//! they answer reports. The cluster file is where to begin, and not who there is.

use plinth_api::Target;
use plinth_api::coordinator::CoordinatorContact;
use plinth_system_config::Stamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Whom the coordinators have named, by the newest configuration that was heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heard {
    /// The configuration.
    pub(crate) stamp: Stamp,
    /// The coordinators; empty before any were named.
    pub(crate) coordinators: Vec<CoordinatorContact>,
}

impl Heard {
    /// Takes up what a coordinator has said. Answers whether others are named now.
    pub(crate) fn hear(&mut self, stamp: Stamp, named: &[CoordinatorContact]) -> bool {
        if stamp <= self.stamp || named.is_empty() {
            return false;
        }
        self.stamp = stamp;
        let are_others = self.coordinators != named;
        if are_others {
            self.coordinators = named.to_vec();
        }
        are_others
    }

    /// Where to report, and to ask, each once: who was named, and then the cluster file, since all may have
    /// moved at once.
    pub(crate) fn targets(&self, file: &[Target]) -> Vec<Target> {
        let mut targets: Vec<Target> = Vec::new();
        let named = self.coordinators.iter().map(|contact| Target::address(&contact.address));
        for target in named.chain(file.iter().cloned()) {
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        targets
    }
}

/// Where the coordinators answer, as it changes.
pub(crate) type Targets = watch::Receiver<Vec<Target>>;

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::{ConfigVersion, Epoch};

    fn contact(on: u32) -> CoordinatorContact {
        CoordinatorContact {
            service: format!("coordinator-1@node-{on}").parse().unwrap(),
            address: format!("host-{on}:1"),
        }
    }

    fn stamp(config_version: u64) -> Stamp {
        Stamp { epoch: Epoch(2), config_version: ConfigVersion(config_version) }
    }

    #[test]
    fn only_a_newer_configuration_names_others() {
        let mut heard = Heard::default();
        assert!(!heard.hear(stamp(4), &[]));
        assert!(heard.hear(stamp(4), &[contact(1)]));
        assert!(!heard.hear(stamp(5), &[contact(1)]));
        assert!(!heard.hear(stamp(4), &[contact(2)]), "an older one");
        assert!(heard.hear(stamp(6), &[contact(1), contact(2)]));
        let file = [Target::address("host-1:1"), Target::address("host-9:1")];
        let addresses: Vec<String> =
            heard.targets(&file).into_iter().map(|target| target.address).collect();
        assert_eq!(addresses, ["host-1:1", "host-2:1", "host-9:1"]);
    }
}
