//! From the start of the process to a storage that works: the directory, the announcement, the
//! store.

use std::future::Future;
use std::sync::Arc;

use futures::FutureExt as _;
use plinth_api::log::Kept;
use plinth_service::{Context, DirectoryError, Exit, WorkerDirectory, announce};
use plinth_store::Disk;
use plinth_types::StoreId;
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::driver::{Command, Driver};
use crate::records::{self, ReadError, TABLES};

/// The check of `/readyz` that says whether the store is open.
const CHECK: &str = "store";

/// Takes the directory, opens the store, and works until the disk fails.
pub(crate) async fn run(
    context: Context,
    config: Config,
    disk: Arc<dyn Disk>,
    sender: mpsc::Sender<Command>,
    commands: &mut mpsc::Receiver<Command>,
) -> Exit {
    context.set_check(CHECK, Err("not open yet".to_owned()));
    let (directory, known_store) = match take_directory(&context, &config, &*disk, commands).await {
        Ok(taken) => taken,
        Err(exit) => return exit,
    };
    let path = directory.path().display().to_string();
    let opening = disk.open(&directory.store_path(), &TABLES);
    let store = match meanwhile(opening, commands, "the storage is opening its store", false).await
    {
        Ok(store) => store,
        Err(error) => return Exit::failure(format!("can't open {path}: {error}")),
    };
    let found = match records::read(&*store) {
        Ok(found) => found,
        Err(error) => return Exit::failure(format!("can't use {path}: {}", explain(&error))),
    };
    if let Err(damage) = &found.kept {
        tracing::error!(
            damage,
            "the kept configuration can't be read; the next one takes its place"
        );
    }
    let id = directory.manifest().store;
    // Whoever has a new storage made waits for its store's name, and uses the storage at once.
    known_store.send_replace(Some(id));
    context.set_check(CHECK, Ok(()));
    context.set_state("standby");
    let copies: Vec<_> = found.copies.keys().collect();
    tracing::info!(store = %id, tags = ?found.tags, ?copies, "open");
    Driver::new(context, config.limits, id, store, sender, found).run(commands).await
}

fn explain(error: &ReadError) -> String {
    let mut detail = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        detail = format!("{detail}: {cause}");
        source = cause.source();
    }
    detail
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
    let (store, announced) = watch::channel(None);
    let announcing = || config.foreman.clone().map(|foreman| announce(context, foreman, announced));
    let directory = match take() {
        Ok(directory) => {
            store.send_replace(Some(directory.manifest().store));
            drop(announcing());
            directory
        }
        Err(DirectoryError::NoCluster { .. }) => {
            let Some(mut welcome) = announcing() else {
                return Err(Exit::usage(
                    "a storage without a directory needs a foreman, or the cluster's id",
                ));
            };
            context.set_state("waiting for the cluster to be founded");
            let reason = "the storage waits for the cluster to be founded";
            while context.cluster().is_none() {
                let changed = welcome.changed().boxed();
                if meanwhile(changed, commands, reason, true).await.is_err() {
                    return Err(Exit::failure("the announcement to the foreman has ended"));
                }
            }
            take().map_err(|error| error.exit())?
        }
        Err(error) => return Err(error.exit()),
    };
    if context.cluster().is_none() {
        context.set_cluster(directory.manifest().cluster);
    }
    Ok((directory, store))
}

/// Waits for something, and meanwhile answers that there is no storage yet. Where there is no
/// directory, it is known that nothing is kept.
async fn meanwhile<F: Future + Unpin>(
    mut future: F,
    commands: &mut mpsc::Receiver<Command>,
    reason: &'static str,
    nothing_kept: bool,
) -> F::Output {
    loop {
        tokio::select! {
            biased;
            output = &mut future => return output,
            Some(command) = commands.recv() => match command {
                Command::Kept(reply) if nothing_kept => {
                    let _ = reply.send(Ok(Kept { recorded: None }));
                }
                command => command.refuse(reason),
            },
        }
    }
}
