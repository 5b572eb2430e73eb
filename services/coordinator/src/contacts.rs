//! Where coordinators answer, as far as this one has heard: of the cluster file, of Raft's membership, of
//! configurations. A cluster file is where to begin, and not who there is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plinth_system_config::Recorded;
use plinth_types::ServiceRef;

use crate::config::ClusterFile;

/// Addresses that are kept for one coordinator.
const KEPT: usize = 4;

/// The addresses of each coordinator, the likeliest first. A clone is the same list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contacts(Arc<Mutex<BTreeMap<ServiceRef, Vec<String>>>>);

impl Contacts {
    /// Those of the cluster file.
    #[must_use]
    pub(crate) fn new(file: &ClusterFile) -> Contacts {
        let contacts = Contacts::default();
        for coordinator in &file.coordinators {
            contacts.learn(&coordinator.service, &coordinator.address);
        }
        contacts
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<ServiceRef, Vec<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A coordinator may answer there. What was known before is likelier.
    pub(crate) fn learn(&self, service: &ServiceRef, address: &str) {
        let mut all = self.all();
        let known = all.entry(service.clone()).or_default();
        if !address.is_empty() && !known.iter().any(|known| known == address) {
            known.truncate(KEPT - 1);
            known.push(address.to_owned());
        }
    }

    /// Coordinators may answer where a configuration says.
    pub(crate) fn learn_all(&self, recorded: &Recorded) {
        for (service, address) in recorded.config.coordinator_addresses() {
            self.learn(&service, &address);
        }
    }

    /// A coordinator has answered there.
    pub(crate) fn found(&self, service: &ServiceRef, address: &str) {
        let mut all = self.all();
        let known = all.entry(service.clone()).or_default();
        known.retain(|known| known != address);
        known.insert(0, address.to_owned());
        known.truncate(KEPT);
    }

    /// A coordinator has not answered there.
    pub(crate) fn lost(&self, service: &ServiceRef, address: &str) {
        let mut all = self.all();
        let known = all.entry(service.clone()).or_default();
        if let Some(at) = known.iter().position(|known| known == address) {
            let address = known.remove(at);
            known.push(address);
        }
    }

    /// Where a coordinator may answer.
    #[must_use]
    pub(crate) fn of(&self, service: Option<&ServiceRef>) -> Vec<String> {
        service.and_then(|service| self.all().get(service).cloned()).unwrap_or_default()
    }

    /// Everybody that was heard of.
    #[must_use]
    pub(crate) fn everybody(&self) -> BTreeMap<ServiceRef, Vec<String>> {
        self.all().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_one_has_answered_is_tried_first_and_little_is_kept() {
        let service: ServiceRef = "coordinator-1@node-1".parse().unwrap();
        let contacts = Contacts::default();
        assert_eq!(contacts.of(Some(&service)), Vec::<String>::new());
        for address in ["a:1", "b:1", "a:1", ""] {
            contacts.learn(&service, address);
        }
        assert_eq!(contacts.of(Some(&service)), ["a:1", "b:1"]);
        contacts.found(&service, "b:1");
        assert_eq!(contacts.of(Some(&service)), ["b:1", "a:1"]);
        contacts.lost(&service, "b:1");
        assert_eq!(contacts.of(Some(&service)), ["a:1", "b:1"]);
        contacts.found(&service, "b:1");
        for number in 0..9 {
            contacts.learn(&service, &format!("c:{number}"));
        }
        let kept = contacts.of(Some(&service));
        assert_eq!((kept.len(), kept[0].as_str(), kept[3].as_str()), (KEPT, "b:1", "c:8"));
        assert_eq!(contacts.of(None), Vec::<String>::new());
    }
}
