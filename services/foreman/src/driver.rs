//! Owns the machine: carries out its commands, keeps its records, and publishes what it knows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use plinth_api::Target;
use plinth_api::foreman::{Announcement, CreateWorker, Health, NodeOrders, NodeReport, Welcome};
use plinth_service::Context;
use plinth_store::Disk;
use plinth_system_config::{FORMAT_LEVEL, Stamp, Standing};
use plinth_types::{NodeId, ServiceName, ServiceRef, StoreId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::config::{Config, STOP_GRACE};
use crate::coordinators::{Heard, Targets};
use crate::directory::{DirectoryError, NodeDirectory};
use crate::retiring;
use crate::spawner::{Ending, Process, Spawner, WorkerOrder};
use crate::workers::{Command, Refusal, Workers};

/// What the driver is asked and told.
pub(crate) enum Message {
    /// A worker makes itself known.
    Announce(Announcement, oneshot::Sender<Result<Welcome, Refusal>>),
    /// A director asks for a worker.
    Create(CreateWorker, oneshot::Sender<Result<(), Refusal>>),
    /// A stateless worker is to go.
    Remove(ServiceName, oneshot::Sender<Result<(), Refusal>>),
    /// A durable worker is to end, and to stay so.
    Retire(ServiceName, StoreId, oneshot::Sender<Result<(), Refusal>>),
    /// The directory of a durable worker that has ended is to go.
    Discard(ServiceName, StoreId, oneshot::Sender<Result<(), Refusal>>),
    /// A durable worker is to run again after all.
    Resume(ServiceName, oneshot::Sender<Result<(), Refusal>>),
    /// A coordinator's answer to a report.
    Orders(NodeOrders),
    /// A process has ended.
    Ended {
        /// Of which worker.
        name: ServiceName,
        /// Its number.
        number: u64,
        /// How, and its last words.
        last_words: String,
    },
}

/// What is known, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// What the coordinators are told.
    pub(crate) report: NodeReport,
    /// Who is missing.
    pub(crate) missing: Vec<ServiceName>,
}

impl Snapshot {
    pub(crate) fn health(&self) -> Health {
        Health { healthy: self.missing.is_empty(), missing: self.missing.clone() }
    }
}

pub(crate) struct Driver {
    context: Context,
    config: Config,
    directory: NodeDirectory,
    spawner: Arc<dyn Spawner>,
    machine: Workers,
    processes: BTreeMap<ServiceName, (u64, mpsc::Sender<()>)>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    messages: mpsc::Sender<Message>,
    epoch: Instant,
    /// What is ordered about the node, by the newest configuration that was heard of.
    standing: (Stamp, Standing),
    /// The coordinators that were heard of.
    heard: Heard,
    /// Where they answer.
    targets: watch::Sender<Vec<Target>>,
}

impl Driver {
    /// A driver whose machine knows what the directory tells, and has taken over or begun to start
    /// all that should run.
    ///
    /// # Errors
    /// The directory can't be read or written.
    pub(crate) fn begin(
        context: Context,
        config: Config,
        directory: NodeDirectory,
        disk: &dyn Disk,
        spawner: Arc<dyn Spawner>,
        messages: mpsc::Sender<Message>,
    ) -> Result<(Driver, watch::Receiver<Arc<Snapshot>>, Targets), DirectoryError> {
        let node = context.service().node.clone();
        let machine =
            Workers::new(node, config.kinds.iter().copied().collect(), directory.cluster());
        let first = Arc::new(snapshot(&context, &config, &machine));
        let (snapshot, receiver) = watch::channel(first);
        let heard = directory.coordinators(disk)?;
        let (targets, coordinators) = watch::channel(heard.targets(&config.coordinators));
        let mut driver = Driver {
            context,
            config,
            directory,
            spawner,
            machine,
            processes: BTreeMap::new(),
            snapshot,
            messages,
            epoch: Instant::now(),
            standing: (Stamp::default(), Standing::InUse),
            heard,
            targets,
        };
        driver.take_stock(disk)?;
        driver.after_step(disk)?;
        Ok((driver, receiver, coordinators))
    }

    fn take_stock(&mut self, disk: &dyn Disk) -> Result<(), DirectoryError> {
        let records = self.directory.records(disk)?;
        for record in &records {
            if let Some(store) = record.store {
                self.machine.know(record.name, store);
            }
            let Some(process) = record.process else { continue };
            if let Some(handle) = self.spawner.adopt(process, &self.log(record.name)) {
                tracing::info!(worker = %record.name, os_pid = process.os_pid, "a living worker is taken over");
                let now = self.epoch.elapsed();
                let number = self.machine.adopt(now, record.name, process, record.incarnation);
                self.watch(record.name, number, handle);
            }
        }
        let found = self.directory.durable_workers(disk)?;
        for (name, store) in &found {
            if let Some(store) = store {
                self.machine.know(*name, *store);
            }
        }
        let now = self.epoch.elapsed();
        let made = found.into_iter().map(|(name, _)| name);
        let statics = self.config.statics.clone();
        // A coordinator's directory alone is no order to run one: it may have moved elsewhere.
        let kinds = self.config.kinds.clone();
        for name in statics.into_iter().chain(made.filter(|name| kinds.contains(&name.kind))) {
            self.machine.want(now, name);
        }
        Ok(())
    }

    /// Runs until a stop is asked for, then ends the workers.
    ///
    /// # Errors
    /// The directory can't be written any more.
    pub(crate) async fn run(
        mut self,
        disk: &dyn Disk,
        mut inbox: mpsc::Receiver<Message>,
    ) -> Result<(), DirectoryError> {
        let context = self.context.clone();
        let stopping = context.stopping();
        tokio::pin!(stopping);
        let mut stop_asked = false;
        while !(stop_asked && self.machine.all_ended()) {
            let tick = self.machine.next_tick().filter(|_| !stop_asked);
            let tick = tick.map(|after| self.epoch + after);
            tokio::select! {
                biased;
                () = &mut stopping, if !stop_asked => {
                    stop_asked = true;
                    self.machine.stop();
                }
                message = inbox.recv() => match message {
                    Some(message) => self.take(disk, message)?,
                    None => return Ok(()),
                },
                () = until(tick) => self.machine.tick(self.epoch.elapsed()),
            }
            self.after_step(disk)?;
        }
        Ok(())
    }

    fn take(&mut self, disk: &dyn Disk, message: Message) -> Result<(), DirectoryError> {
        let now = self.epoch.elapsed();
        // Whoever asked may have gone: nobody waits for the answer then.
        match message {
            Message::Announce(announcement, answer) => {
                let welcome = self.machine.announce(now, &announcement);
                if let Ok(Some(lost)) = welcome {
                    tracing::warn!(worker = %announcement.name, %lost, "the worker's directory was lost, and it has begun a new one");
                }
                let welcome = welcome.map(|_| Welcome {
                    cluster: self.machine.cluster(),
                    coordinators: self.heard.coordinators.clone(),
                });
                if let Err(refusal) = &welcome {
                    tracing::warn!(worker = %announcement.name, pid = %announcement.pid, %refusal, "an announcement is refused");
                }
                let _ = answer.send(welcome);
            }
            Message::Create(request, answer) => {
                let _ = answer.send(self.machine.create(now, &request));
            }
            Message::Remove(name, answer) => {
                let _ = answer.send(self.machine.remove(name));
            }
            Message::Retire(name, store, answer) => {
                let _ = answer.send(self.machine.retire(name, store));
            }
            Message::Discard(name, store, answer) => {
                let discarded = self.discard(disk, name, store)?;
                let _ = answer.send(discarded);
            }
            Message::Resume(name, answer) => {
                self.machine.want(now, name);
                let _ = answer.send(Ok(()));
            }
            Message::Orders(orders) => {
                self.machine.set_epoch(orders.epoch);
                self.heed(orders.stamp, orders.standing);
                if self.heard.hear(orders.stamp, &orders.coordinators) {
                    let names = self.heard.coordinators.iter().map(|one| one.service.to_string());
                    let names: Vec<String> = names.collect();
                    tracing::info!(coordinators = names.join(", "), "these are the coordinators");
                    self.directory.keep_coordinators(disk, &self.heard)?;
                    self.targets.send_replace(self.heard.targets(&self.config.coordinators));
                }
                if let Some(cluster) = orders.cluster
                    && self.directory.bind_to(disk, cluster)?
                {
                    tracing::info!(%cluster, "this node now belongs to the cluster");
                    self.machine.set_cluster(cluster);
                    self.context.set_cluster(cluster);
                }
            }
            Message::Ended { name, number, last_words } => {
                tracing::info!(worker = %name, %last_words, "a worker has ended");
                if self.processes.get(&name).is_some_and(|(current, _)| *current == number) {
                    self.processes.remove(&name);
                }
                self.machine.ended(now, name, number, last_words);
            }
        }
        Ok(())
    }

    /// Says what is ordered about the node, when it is news.
    fn heed(&mut self, stamp: Stamp, standing: Standing) {
        let (heard, before) = self.standing;
        if stamp < heard {
            return;
        }
        self.standing = (stamp, standing);
        if standing == before {
            return;
        }
        let removed = "this node was removed from the cluster: nothing that is on it is used; DELETE /v1/nodes/{node}/drain takes it back";
        match standing {
            Standing::InUse => tracing::info!("this node is in use again"),
            Standing::Draining => tracing::warn!("this node is being drained"),
            Standing::Removed => tracing::error!("{removed}"),
        }
        let is_removed = standing == Standing::Removed;
        let check = if is_removed { Err(removed.to_owned()) } else { Ok(()) };
        self.context.set_check("standing", check);
    }

    fn discard(
        &mut self,
        disk: &dyn Disk,
        name: ServiceName,
        store: StoreId,
    ) -> Result<Result<(), Refusal>, DirectoryError> {
        if let Err(refusal) = self.machine.discard(name, store) {
            return Ok(Err(refusal));
        }
        let unix_ms = self.context.runtime().unix_ms();
        retiring::set_aside(disk, &self.config.directory, name, store, unix_ms)?;
        tracing::info!(worker = %name, %store, "its directory is set aside: no layout names it");
        Ok(Ok(()))
    }

    fn after_step(&mut self, disk: &dyn Disk) -> Result<(), DirectoryError> {
        loop {
            let commands = self.machine.take_commands();
            if commands.is_empty() {
                break;
            }
            for command in commands {
                match command {
                    Command::Start { name, number } => self.start(name, number),
                    Command::End { name, number } => {
                        if let Some((current, end)) = self.processes.get(&name)
                            && *current == number
                        {
                            // Full: it has been asked already.
                            let _ = end.try_send(());
                        }
                    }
                }
            }
        }
        self.directory.keep(disk, &self.machine.records())?;
        let next = snapshot(&self.context, &self.config, &self.machine);
        self.snapshot.send_if_modified(|current| {
            let differs = **current != next;
            if differs {
                *current = Arc::new(next);
            }
            differs
        });
        Ok(())
    }

    fn start(&mut self, name: ServiceName, number: u64) {
        let order = WorkerOrder {
            service: ServiceRef::new(name, self.node().clone()),
            directory: self.config.directory.join(name.to_string()),
            log: self.log(name),
            foreman: self.context.pid().address.clone(),
        };
        match self.spawner.start(&order) {
            Ok(process) => {
                let id = process.id();
                tracing::info!(worker = %name, os_pid = id.map(|id| id.os_pid), "a worker is started");
                self.machine.started(name, number, id);
                self.watch(name, number, process);
            }
            Err(error) => {
                tracing::error!(worker = %name, %error, "a worker can't be started");
                let last_words = format!("it could not be started: {error}");
                self.machine.ended(self.epoch.elapsed(), name, number, last_words);
            }
        }
    }

    fn watch(&mut self, name: ServiceName, number: u64, process: Box<dyn Process>) {
        let (end, end_asked) = mpsc::channel(1);
        self.processes.insert(name, (number, end));
        let messages = self.messages.clone();
        self.context.scope().spawn("worker", async move {
            let last_words = attend(process, end_asked).await;
            // The driver is gone only when the foreman is.
            let _ = messages.send(Message::Ended { name, number, last_words }).await;
        });
    }

    fn node(&self) -> &NodeId {
        &self.context.service().node
    }

    fn log(&self, name: ServiceName) -> PathBuf {
        self.config.directory.join(format!("{name}.log"))
    }
}

/// Waits for a process' end. When it is told to end it, it asks, and after a grace it kills.
async fn attend(mut process: Box<dyn Process>, mut end: mpsc::Receiver<()>) -> String {
    let mut kill_at: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            last_words = process.ended() => return last_words,
            Some(()) = end.recv(), if kill_at.is_none() => {
                process.end(Ending::Asked);
                kill_at = Some(Instant::now() + STOP_GRACE);
            }
            () = until(kill_at) => {
                process.end(Ending::Killed);
                kill_at = Some(Instant::now() + STOP_GRACE);
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn snapshot(context: &Context, config: &Config, machine: &Workers) -> Snapshot {
    Snapshot {
        report: NodeReport {
            node: context.service().node.clone(),
            zone: config.zone.clone(),
            foreman: context.pid().clone(),
            cluster: machine.cluster(),
            kinds: config.kinds.clone(),
            workers: machine.list(),
            settled: machine.settled(),
            format_level: Some(FORMAT_LEVEL),
        },
        missing: machine.health().missing,
    }
}
