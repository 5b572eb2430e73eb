//! The roster: how a service of each kind is made from what it is told.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use plinth_foreman::Spawner;
use plinth_runtime::Runtime;
use plinth_service::{Exit, Host, HostOptions};
use plinth_store::Disk;
use plinth_types::{ServiceKind, ServiceName};

use crate::launch::Launch;
use crate::tuning::Tuning;

/// What a foreman is told beside.
#[derive(Clone)]
pub struct ForemanLaunch {
    /// Starts its workers.
    pub spawner: Arc<dyn Spawner>,
    /// Workers that always run.
    pub statics: Vec<ServiceName>,
    /// The kinds of worker that it makes when a director asks.
    pub kinds: Vec<ServiceKind>,
    /// How long to wait for a directory that an ending process still has.
    pub lock_patience: Duration,
}

/// The world that services run in.
#[derive(Clone)]
pub struct World {
    /// Clock, randomness, network.
    pub runtime: Runtime,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The limits of what runs in it.
    pub tuning: Tuning,
}

/// Runs a service other than a foreman until it ends.
#[must_use]
pub fn run(world: World, launch: Launch) -> BoxFuture<'static, Exit> {
    async move {
        match bind(&world, &launch).await {
            Ok(host) => serve(world, launch, host).await,
            Err(exit) => exit,
        }
    }
    .boxed()
}

/// Runs a foreman until it ends.
#[must_use]
pub fn run_foreman(
    world: World,
    launch: Launch,
    foreman: ForemanLaunch,
) -> BoxFuture<'static, Exit> {
    async move {
        match bind(&world, &launch).await {
            Ok(host) => serve_foreman(world, launch, foreman, host).await,
            Err(exit) => exit,
        }
    }
    .boxed()
}

/// Binds a service's socket, and lets the launch's stop reach it.
pub(crate) async fn bind(world: &World, launch: &Launch) -> Result<Host, Exit> {
    let cluster = match launch.service.kind() {
        // They belong to a cluster only once their foreman says so: before the founding nothing
        // durable may be made.
        ServiceKind::Log | ServiceKind::Storage => None,
        _ => Some(launch.cluster.cluster),
    };
    let options = HostOptions {
        service: launch.service.clone(),
        bind: launch.bind.clone(),
        advertise: launch.advertise.clone(),
        cluster,
        secrets: launch.secrets.clone(),
    };
    let host = Host::bind(world.runtime.clone(), options).await.map_err(|error| {
        let reason = crate::process::with_sources(&error);
        tracing::error!(service = %launch.service, reason, "can't be started");
        Exit::usage(reason)
    })?;
    let host = host.with_state_reads(launch.state_reads);
    let context = host.context();
    let mut stop = launch.stop.clone();
    host.context().scope().spawn("stop", async move {
        // A sender that is gone asks for nothing more.
        if stop.wait_for(|stop| *stop).await.is_ok() {
            context.request_stop();
        }
    });
    Ok(host)
}

pub(crate) async fn serve_foreman(
    world: World,
    launch: Launch,
    foreman: ForemanLaunch,
    host: Host,
) -> Exit {
    let config = plinth_foreman::Config {
        directory: launch.directory,
        zone: launch.zone,
        cluster: Some(launch.cluster.cluster),
        coordinators: launch.cluster.targets(),
        statics: foreman.statics,
        kinds: foreman.kinds,
        lock_patience: foreman.lock_patience,
    };
    plinth_foreman::serve(host, config, world.disk, foreman.spawner).await
}

async fn serve(world: World, launch: Launch, host: Host) -> Exit {
    let World { disk, tuning, .. } = world;
    let coordinators = launch.cluster.targets();
    let Launch { service, directory, foreman, cluster, advertise, .. } = launch;
    match service.kind() {
        ServiceKind::Coordinator => {
            let mut cluster = cluster.for_coordinator();
            if advertise.is_some() {
                // With the port, which the flag need not say.
                cluster.move_to(&service, &host.context().pid().address);
            }
            let config = plinth_coordinator::Config { directory, cluster, foreman };
            plinth_coordinator::serve(host, config, disk).await
        }
        ServiceKind::Director => {
            let parameters = cluster.parameters.clone();
            let shards = tuning.first_shards;
            let config = plinth_director::Config { coordinators, foreman, parameters, shards };
            plinth_director::serve(host, config).await
        }
        ServiceKind::Sequencer => {
            let config = plinth_sequencer::Config { foreman, limits: tuning.sequencer };
            plinth_sequencer::serve(host, config).await
        }
        ServiceKind::CommitProxy => {
            let config = plinth_commit_proxy::Config { foreman, limits: tuning.commit_proxy };
            plinth_commit_proxy::serve(host, config).await
        }
        ServiceKind::Resolver => {
            let config = plinth_resolver::Config { foreman, limits: tuning.resolver };
            plinth_resolver::serve(host, config).await
        }
        ServiceKind::Log => {
            let config = plinth_log::Config { directory, foreman, limits: tuning.log };
            plinth_log::serve(host, config, disk).await
        }
        ServiceKind::Storage => {
            let config = plinth_storage::Config { directory, foreman, limits: tuning.storage };
            plinth_storage::serve(host, config, disk).await
        }
        ServiceKind::Gateway => {
            let config = plinth_gateway::Config::new(coordinators, foreman);
            plinth_gateway::serve(host, config).await
        }
        ServiceKind::Foreman => Exit::usage("a foreman is started with `plinth node`"),
    }
}
