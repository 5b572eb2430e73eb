//! From the start of the process to a log that works: the directory, the announcement, the store.

use std::future::Future;
use std::sync::Arc;

use plinth_api::foreman::Welcome;
use plinth_api::log::Kept;
use plinth_service::{Context, DirectoryError, Exit, WorkerDirectory, announce};
use plinth_store::{Disk, Store};
use plinth_types::StoreId;
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::driver::{Command, Driver};
use crate::machine::Machine;
use crate::records::{self, ENTRIES, META};
use crate::refusal::Refusal;

const CHECK: &str = "store";

/// Takes the directory, opens the store, and works until the disk fails.
pub(crate) async fn run(
    context: Context,
    config: Config,
    disk: Arc<dyn Disk>,
    commands: &mut mpsc::Receiver<Command>,
) -> Exit {
    let starting = Refusal::Starting("the log is opening its directory");
    context.set_state("starting");
    context.set_check(CHECK, Err("not open yet".to_owned()));
    let (directory, known_store) = match take_directory(&context, &config, &*disk, commands).await {
        Ok(taken) => taken,
        Err(exit) => return exit,
    };
    let manifest = directory.manifest();
    let opening = disk.open(&directory.store_path(), &[ENTRIES, META]);
    let store = match meanwhile(opening, commands, &starting, None).await {
        Ok(store) => store,
        Err(error) => {
            return Exit::failure(format!("can't open {}: {error}", directory.path().display()));
        }
    };
    let found = match records::read(&*store, config.limits.memory_bytes) {
        Ok(found) => found,
        Err(error) => return serve_damaged(&context, &*store, &error, commands).await,
    };
    if let Some(damage) = &found.config_damage {
        tracing::error!(
            damage,
            "the kept configuration can't be read; the next one takes its place"
        );
    }
    let machine = Machine::new(manifest.store, config.limits, found);
    // Whoever has a new log made waits for its store's name, and uses the log at once.
    known_store.send_replace(Some(manifest.store));
    context.set_epoch(machine.locked());
    context.set_version(machine.durable());
    context.set_state("closed");
    context.set_check(CHECK, Ok(()));
    tracing::info!(store = %manifest.store, locked = machine.locked().0, end = machine.end().0, "open");
    Driver::new(context, config.limits, store, machine).run(commands).await
}

/// Takes the directory and announces it. It is made only once the cluster's id is known, which the
/// foreman says; one that is there already is taken before the first announcement, since a worker
/// that has a directory must not be taken for one that has none.
async fn take_directory(
    context: &Context,
    config: &Config,
    disk: &dyn Disk,
    commands: &mut mpsc::Receiver<Command>,
) -> Result<(WorkerDirectory, watch::Sender<Option<StoreId>>), Exit> {
    let take = || {
        let (path, cluster) = (config.directory.clone(), context.cluster());
        WorkerDirectory::open_or_create(disk, path, cluster, context.service(), context.runtime())
    };
    let (known_store, announced) = watch::channel(None);
    let announcing = || config.foreman.clone().map(|foreman| announce(context, foreman, announced));
    let directory = match take() {
        Ok(directory) => {
            known_store.send_replace(Some(directory.manifest().store));
            drop(announcing());
            directory
        }
        Err(DirectoryError::NoCluster { .. }) => {
            let Some(welcome) = announcing() else {
                return Err(Exit::usage(
                    "a log without a directory needs a foreman, or the cluster's id",
                ));
            };
            take_once_founded(context, welcome, take, commands).await?
        }
        Err(error) => return Err(error.exit()),
    };
    if context.cluster().is_none() {
        context.set_cluster(directory.manifest().cluster);
    }
    Ok((directory, known_store))
}

async fn take_once_founded(
    context: &Context,
    mut welcome: watch::Receiver<Option<Welcome>>,
    take: impl Fn() -> Result<WorkerDirectory, DirectoryError>,
    commands: &mut mpsc::Receiver<Command>,
) -> Result<WorkerDirectory, Exit> {
    context.set_state("waiting for the cluster to be founded");
    let refusal = Refusal::Starting("the log waits for the cluster to be founded");
    loop {
        match take() {
            Ok(directory) => return Ok(directory),
            Err(DirectoryError::NoCluster { .. }) => {}
            Err(error) => return Err(error.exit()),
        }
        let kept = Kept { recorded: None };
        if meanwhile(Box::pin(welcome.changed()), commands, &refusal, Some(kept)).await.is_err() {
            return Err(Exit::failure("the announcement to the foreman has ended"));
        }
    }
}

/// Waits for something and answers commands as well as can be meanwhile.
async fn meanwhile<F: Future + Unpin>(
    mut future: F,
    commands: &mut mpsc::Receiver<Command>,
    refusal: &Refusal,
    kept: Option<Kept>,
) -> F::Output {
    loop {
        tokio::select! {
            biased;
            output = &mut future => return output,
            Some(command) = commands.recv() => command.answer_without_machine(refusal, kept.clone()),
        }
    }
}

/// A damaged log takes part in nothing; what it keeps of the configuration may still be whole.
async fn serve_damaged(
    context: &Context,
    store: &dyn Store,
    error: &records::ReadError,
    commands: &mut mpsc::Receiver<Command>,
) -> Exit {
    let mut detail = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        detail = format!("{detail}: {cause}");
        source = cause.source();
    }
    tracing::error!(detail, "this log is damaged: remove it once another one has taken its place");
    context.set_state("damaged");
    context.set_check(CHECK, Err(detail.clone()));
    let refusal = Refusal::Damaged(format!("this log is damaged: {detail}"));
    let kept = records::read_config(store).ok().and_then(Result::ok);
    let kept = kept.map(|recorded| Kept { recorded });
    meanwhile(std::future::pending::<Exit>(), commands, &refusal, kept).await
}
