//! The executable as a library: the roster of services, the ways to run them (a process each, or
//! tasks of one), and the operator's commands. The only crate that sees all services.

mod bench;
pub mod cli;
pub mod cluster_file;
mod dev;
pub mod in_process;
mod init;
pub mod jaeger;
pub mod launch;
mod node;
mod operator;
mod ports;
mod process;
mod recover;
pub mod roster;
pub mod tuning;
pub mod up;

use std::process::ExitCode;

use clap::Parser as _;
use plinth_runtime::Runtime;
use plinth_types::ServiceKind;

use cli::{Cli, Command, JaegerArgs};

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    match &Cli::parse().command {
        Command::Up(args) => up::up(args),
        Command::Down(args) => up::down(args),
        Command::Dev(args) => dev::dev(args),
        Command::Node(args) => node::node(args),
        Command::Foreman(args) => node::foreman(args),
        Command::Coordinator(args) => process::run(ServiceKind::Coordinator, args),
        Command::Director(args) => process::run(ServiceKind::Director, args),
        Command::Sequencer(args) => process::run(ServiceKind::Sequencer, args),
        Command::CommitProxy(args) => process::run(ServiceKind::CommitProxy, args),
        Command::Resolver(args) => process::run(ServiceKind::Resolver, args),
        Command::Log(args) => process::run(ServiceKind::Log, args),
        Command::Storage(args) => process::run(ServiceKind::Storage, args),
        Command::Gateway(args) => process::run(ServiceKind::Gateway, args),
        Command::Jaeger(args) => run_jaeger(args),
        Command::Init(args) => init::init(args),
        Command::Health(args) => operator::health(args),
        Command::Status(args) => operator::ask(args, "/v1/status"),
        Command::Config(args) => match &args.action {
            None => operator::ask(&args.ask, "/v1/config"),
            Some(cli::ConfigAction::Set(set)) => operator::set(&args.ask, set),
            Some(cli::ConfigAction::Raise(raise)) => operator::raise(&args.ask, raise),
        },
        Command::Layout(args) => operator::ask(args, "/v1/layout"),
        Command::Nodes(args) => match &args.action {
            None => operator::ask(&args.ask, "/v1/nodes"),
            Some(action) => operator::order(&args.ask, action),
        },
        Command::Members(args) => match &args.action {
            None => operator::ask(&args.ask, "/v1/members"),
            Some(action) => operator::order_member(&args.ask, action),
        },
        Command::Recover(args) => recover::recover(args),
        Command::Bench(args) => bench::bench(args),
    }
}

fn run_jaeger(args: &JaegerArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return process::failure(&error.into()),
    };
    runtime.block_on(async {
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        if let Err(error) = process::stop_on_signals(stop) {
            return process::failure(&error.into());
        }
        let jaeger = match jaeger::serve(&Runtime::real(), &args.bind).await {
            Ok(jaeger) => jaeger,
            Err(error) => {
                let error = anyhow::anyhow!("--bind {}: {error}", args.bind);
                return process::usage(&error);
            }
        };
        eprintln!("plinth: traces are taken and shown at {}", jaeger.url());
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => ExitCode::SUCCESS,
            failure = jaeger.failed() => process::failure(&failure.into()),
        }
    })
}
