//! The mapping between living processes and the names that survive them.

use std::collections::BTreeMap;

use plinth_types::{Pid, ServiceRef};

use crate::{Layout, Service, SystemConfig};

/// A Pid that the directory does not know, and that therefore can't be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no service is known for the process {pid}")]
pub struct UnknownPid {
    /// The process.
    pub pid: Pid,
}

/// Which process is which service: one Pid a service, one service a Pid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    by_pid: BTreeMap<Pid, ServiceRef>,
    by_service: BTreeMap<ServiceRef, Pid>,
}

impl Directory {
    /// A directory that knows nobody.
    #[must_use]
    pub fn new() -> Directory {
        Directory::default()
    }

    /// Notes that `service` now runs as `pid`. An older Pid of the service is forgotten and
    /// returned; so is what else `pid` was taken for, since a process is one service.
    pub fn insert(&mut self, service: ServiceRef, pid: Pid) -> Option<Pid> {
        if let Some(other) = self.by_pid.insert(pid.clone(), service.clone())
            && other != service
        {
            self.by_service.remove(&other);
        }
        let older = self.by_service.insert(service, pid.clone()).filter(|older| *older != pid)?;
        self.by_pid.remove(&older);
        Some(older)
    }

    /// Notes that a process has died. Returns which service it was.
    pub fn remove(&mut self, pid: &Pid) -> Option<ServiceRef> {
        let service = self.by_pid.remove(pid)?;
        self.by_service.remove(&service);
        Some(service)
    }

    /// Which service a process is.
    #[must_use]
    pub fn service_of(&self, pid: &Pid) -> Option<&ServiceRef> {
        self.by_pid.get(pid)
    }

    /// Which process a service runs as.
    #[must_use]
    pub fn pid_of(&self, service: &ServiceRef) -> Option<&Pid> {
        self.by_service.get(service)
    }

    /// Every service that runs, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&ServiceRef, &Pid)> {
        self.by_service.iter()
    }

    /// How many services run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_service.len()
    }

    /// Whether no service runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_service.is_empty()
    }

    /// The name under which a service is written.
    ///
    /// # Errors
    /// It is up as a process that the directory does not know.
    pub fn name(&self, service: &Service) -> Result<ServiceRef, UnknownPid> {
        match service {
            Service::Down(service) => Ok(service.clone()),
            Service::Up(pid) => {
                self.service_of(pid).cloned().ok_or_else(|| UnknownPid { pid: pid.clone() })
            }
        }
    }

    /// A service as memory knows it: up where the directory knows its process, else down.
    #[must_use]
    pub fn find(&self, service: &ServiceRef) -> Service {
        match self.pid_of(service) {
            Some(pid) => Service::Up(pid.clone()),
            None => Service::Down(service.clone()),
        }
    }
}

impl FromIterator<(ServiceRef, Pid)> for Directory {
    fn from_iter<I: IntoIterator<Item = (ServiceRef, Pid)>>(entries: I) -> Self {
        let mut directory = Directory::new();
        for (service, pid) in entries {
            directory.insert(service, pid);
        }
        directory
    }
}

impl Service {
    /// Its process, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<&Pid> {
        match self {
            Service::Up(pid) => Some(pid),
            Service::Down(_) => None,
        }
    }
}

impl Layout<Service> {
    /// The layout in the form that is written.
    ///
    /// # Errors
    /// The first process that the directory does not know.
    pub fn to_stored(&self, directory: &Directory) -> Result<Layout<ServiceRef>, UnknownPid> {
        self.try_map_services(|service| directory.name(service))
    }
}

impl Layout<ServiceRef> {
    /// The layout as memory knows it. Every service is there, up or down.
    #[must_use]
    pub fn to_memory(&self, directory: &Directory) -> Layout<Service> {
        self.map_services(|service| directory.find(service))
    }
}

impl SystemConfig<Service> {
    /// The configuration in the form that is written.
    ///
    /// # Errors
    /// The first process that the directory does not know.
    pub fn to_stored(&self, directory: &Directory) -> Result<SystemConfig<ServiceRef>, UnknownPid> {
        self.try_map_services(|service| directory.name(service))
    }
}

impl SystemConfig<ServiceRef> {
    /// The configuration as memory knows it. Every service is there, up or down.
    #[must_use]
    pub fn to_memory(&self, directory: &Directory) -> SystemConfig<Service> {
        self.map_services(|service| directory.find(service))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::Incarnation;

    fn service(text: &str) -> ServiceRef {
        text.parse().unwrap()
    }

    fn pid(incarnation: u64) -> Pid {
        Pid {
            node: "node-1".parse().unwrap(),
            os_pid: 1,
            incarnation: Incarnation(incarnation),
            address: "localhost:4000".to_owned(),
        }
    }

    #[test]
    fn a_newer_pid_replaces_the_older_one() {
        let mut directory = Directory::new();
        let log = service("log-1@node-1");
        assert_eq!(directory.insert(log.clone(), pid(1)), None);
        assert_eq!(directory.insert(log.clone(), pid(1)), None);
        assert_eq!(directory.insert(log.clone(), pid(2)), Some(pid(1)));
        assert_eq!(directory.service_of(&pid(1)), None);
        assert_eq!(directory.service_of(&pid(2)), Some(&log));
        assert_eq!(directory.pid_of(&log), Some(&pid(2)));
        assert_eq!(directory.len(), 1);
    }

    #[test]
    fn a_process_is_one_service() {
        let mut directory = Directory::new();
        directory.insert(service("log-1@node-1"), pid(1));
        directory.insert(service("log-2@node-1"), pid(1));
        assert_eq!(directory.pid_of(&service("log-1@node-1")), None);
        assert_eq!(directory.service_of(&pid(1)), Some(&service("log-2@node-1")));
        assert_eq!(directory.remove(&pid(1)), Some(service("log-2@node-1")));
        assert!(directory.is_empty());
    }

    #[test]
    fn an_unknown_pid_is_named() {
        let unknown = Directory::new().name(&Service::Up(pid(7))).unwrap_err();
        assert_eq!(unknown.pid, pid(7));
        assert!(unknown.to_string().contains("0000000000000007"), "{unknown}");
    }
}
