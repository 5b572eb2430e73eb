//! The coordinators as a service knows them: those of the cluster file, and whom its foreman has heard of.

use plinth_api::Target;
use plinth_api::foreman::Welcome;
use tokio::sync::watch;

/// The coordinators. Whom the foreman names comes first: a cluster file is where to begin, and not who there
/// is. A clone knows the same.
#[derive(Clone, Debug)]
pub struct KnownCoordinators {
    file: Vec<Target>,
    news: Option<watch::Receiver<Option<Welcome>>>,
}

impl KnownCoordinators {
    /// Those of the cluster file, or whoever else is to be asked first.
    #[must_use]
    pub fn new(file: Vec<Target>) -> KnownCoordinators {
        KnownCoordinators { file, news: None }
    }

    /// And whom the foreman names when it answers announcements.
    #[must_use]
    pub fn with_news(self, news: watch::Receiver<Option<Welcome>>) -> KnownCoordinators {
        KnownCoordinators { news: Some(news), ..self }
    }

    /// Where to ask, one after the other; each once.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        let (mut targets, others) = self.likely();
        targets.extend(others);
        targets
    }

    /// The same, after those whom a configuration names.
    #[must_use]
    pub fn targets_after(&self, named: impl IntoIterator<Item = Target>) -> Vec<Target> {
        let mut targets: Vec<Target> = named.into_iter().collect();
        for target in self.targets() {
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        targets
    }

    /// Those who are coordinators as far as is known, and the others of the cluster file.
    #[must_use]
    pub fn likely(&self) -> (Vec<Target>, Vec<Target>) {
        let welcome = self.news.as_ref().and_then(|news| news.borrow().clone());
        let named = welcome.map(|welcome| welcome.coordinators).unwrap_or_default();
        if named.is_empty() {
            return (self.file.clone(), Vec::new());
        }
        let named: Vec<Target> =
            named.iter().map(|contact| Target::address(&contact.address)).collect();
        let others = self.file.iter().filter(|target| !named.contains(target)).cloned().collect();
        (named, others)
    }
}

impl From<Vec<Target>> for KnownCoordinators {
    fn from(targets: Vec<Target>) -> Self {
        KnownCoordinators::new(targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_api::coordinator::CoordinatorContact;

    #[test]
    fn whom_the_foreman_names_comes_before_the_file_and_each_once() {
        let file = vec![Target::address("a:1"), Target::address("b:1")];
        let known = KnownCoordinators::new(file.clone());
        assert_eq!(known.targets(), file);
        let (welcomes, news) = watch::channel(None);
        let known = known.with_news(news);
        assert_eq!(known.targets(), file);
        let contact = |on: u32, address: &str| CoordinatorContact {
            service: format!("coordinator-1@node-{on}").parse().unwrap(),
            address: address.to_owned(),
        };
        let coordinators = vec![contact(2, "b:1"), contact(4, "d:1")];
        welcomes.send_replace(Some(Welcome { coordinators, ..Welcome::default() }));
        let addresses: Vec<String> =
            known.targets().into_iter().map(|target| target.address).collect();
        assert_eq!(addresses, ["b:1", "d:1", "a:1"]);
        assert_eq!(known.likely().1, [Target::address("a:1")]);
        let after = known.targets_after(["e:1", "b:1"].map(Target::address));
        assert_eq!(after, ["e:1", "b:1", "d:1", "a:1"].map(Target::address));
    }
}
