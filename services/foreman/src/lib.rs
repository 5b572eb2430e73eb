//! The foreman: starts, watches and lists a node's workers, and tells the coordinators of them.
//!
//! - One foreman a node: its directory is locked. One cluster a directory: once the cluster is
//!   founded its id is written there, before any durable worker is made, and reported back; from
//!   then on the node vetoes a cold start.
//! - Workers outlive their foreman. A restarted one takes over the processes that live before it
//!   starts any, by OS pid and start time, and believes them once they have announced themselves.
//! - A worker that ends is started again: at once at first, with growing pauses while it keeps dying
//!   young. A worker that something else started is only listed.
//! - It decides nothing about the cluster: what is to run, besides the node's own coordinator,
//!   director and gateway and the durable workers it finds, directors say. A log's or storage's
//!   directory is removed only once it has read itself, at the coordinators, that the recorded layout
//!   names it no more; it is renamed first, and deleted an hour later.

mod config;
mod coordinators;
mod directory;
mod driver;
mod http;
mod registration;
mod retiring;
pub mod spawner;
pub mod workers;

use std::sync::Arc;

use plinth_service::{Exit, Host};
use plinth_store::Disk;
use tokio::sync::mpsc;

pub use config::Config;
pub use directory::DirectoryError;
pub use http::openapi;
pub use spawner::{ChildProcesses, Ending, Process, Spawner, WorkerOrder};
pub use workers::ProcessId;

use driver::Driver;

/// Runs the foreman until a stop is asked for; then ends its workers and returns.
pub async fn serve(
    host: Host,
    config: Config,
    disk: Arc<dyn Disk>,
    spawner: Arc<dyn Spawner>,
) -> Exit {
    let context = host.context();
    let opened = directory::NodeDirectory::open(
        &*disk,
        &config.directory,
        config.cluster,
        config.lock_patience,
    )
    .await;
    let directory = match opened {
        Ok(directory) => directory,
        Err(error) => return exit(&error),
    };
    let (sender, inbox) = mpsc::channel(config::QUEUE);
    let directory_path = config.directory.clone();
    let begun = Driver::begin(context.clone(), config, directory, &*disk, spawner, sender.clone());
    let (driver, snapshot, coordinators) = match begun {
        Ok(begun) => begun,
        Err(error) => return exit(&error),
    };
    registration::spawn(&context, &coordinators, &snapshot, &sender);
    context.set_state("serving");
    let cleaning = retiring::clean(context.clone(), Arc::clone(&disk), directory_path);
    drop(context.scope().spawn("cleaning", cleaning));
    let handle = http::Handle::new(context.clone(), coordinators, sender, snapshot);
    let routes = http::routes(handle);
    host.run(routes, async move {
        match driver.run(&*disk, inbox).await {
            Ok(()) => Exit::clean(),
            Err(error) => exit(&error),
        }
    })
    .await
}

fn exit(error: &DirectoryError) -> Exit {
    use std::error::Error as _;
    let reason = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    if error.is_usage() { Exit::usage(reason) } else { Exit::failure(reason) }
}
