//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use plinth_service::StateReads;
use plinth_types::{NodeId, ServiceKind, ServiceName, ServiceRef, Zone};

use crate::cluster_file::CoordinatorEntry;

/// A strictly serializable, transactional key-value cluster that keeps its own configuration.
#[derive(Debug, Parser)]
#[command(name = "plinth", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts a cluster on this machine, every service a process of its own
    Up(UpArgs),
    /// Stops the cluster that `plinth up` runs in a directory
    Down(DownArgs),
    /// Runs a whole cluster in this one process
    Dev(DevArgs),
    /// Runs one machine's share: a foreman, which starts what the machine needs
    Node(NodeArgs),
    /// Runs a coordinator
    Coordinator(ServiceArgs),
    /// Runs a director
    Director(ServiceArgs),
    /// Runs a foreman that starts only what directors ask for
    Foreman(ForemanArgs),
    /// Runs a sequencer
    Sequencer(ServiceArgs),
    /// Runs a commit proxy
    CommitProxy(ServiceArgs),
    /// Runs a resolver
    Resolver(ServiceArgs),
    /// Runs a log
    Log(ServiceArgs),
    /// Runs a storage
    Storage(ServiceArgs),
    /// Runs a gateway
    Gateway(ServiceArgs),
    /// Runs a trace store with the Jaeger UI, which takes OTLP over HTTP
    Jaeger(JaegerArgs),
    /// Makes the files that the services of a cluster share, unless they are there
    Init(InitArgs),
    /// Asks one service whether it can do its work; exits with 0 if so
    Health(HealthArgs),
    /// Shows the cluster in one look
    Status(AskArgs),
    /// Shows the cluster's configuration, or changes its parameters or its format level
    Config(ConfigArgs),
    /// Shows who does what
    Layout(AskArgs),
    /// Shows the cluster's nodes, or has one drained or removed
    Nodes(NodesArgs),
    /// Shows the coordinators, or lets one into their group or takes one out
    Members(MembersArgs),
    /// Decides what the cluster can't: how it goes on where data or configuration may be lost by it
    Recover(RecoverArgs),
    /// Loads a cluster and measures how it does
    Bench(BenchArgs),
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// A base URL that traces can be sent to.
fn otlp_url(text: &str) -> Result<String, String> {
    match text.parse::<http::Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some() => Ok(text.to_owned()),
        _ => Err("it must be a URL like http://host:4318".to_owned()),
    }
}

/// Where traces and logs go.
#[derive(Args, Clone, Debug)]
pub struct TelemetryArgs {
    /// Base URL of an OTLP receiver over HTTP, such as http://127.0.0.1:4318
    #[arg(long, value_name = "URL", env = "PLINTH_OTLP", value_parser = otlp_url)]
    pub otlp: Option<String>,
    /// How logs are written to standard error
    #[arg(long, value_enum, default_value_t, env = "PLINTH_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// What is logged: a level, or directives such as info,plinth_log=debug
    #[arg(long, value_name = "FILTER", default_value = "info", env = "PLINTH_LOG")]
    pub log: String,
}

/// The files that say which cluster this is, and prove that one belongs to it.
#[derive(Args, Clone, Debug)]
pub struct ClusterArgs {
    /// The cluster file: the cluster's id, its coordinators, its first nodes
    #[arg(long, value_name = "FILE", env = "PLINTH_CLUSTER_FILE")]
    pub cluster_file: PathBuf,
    /// File with the cluster secret, by which services know each other
    #[arg(long, value_name = "FILE", env = "PLINTH_SECRET_FILE")]
    pub secret_file: Option<PathBuf>,
    /// File with the administrator's token
    #[arg(long, value_name = "FILE", env = "PLINTH_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Allow an address other than loopback without a secret
    #[arg(long)]
    pub insecure: bool,
    /// Who may read the cluster's state (status, configuration, layout …) without the
    /// administrator's token: by default whoever comes over loopback
    #[arg(long, value_enum, default_value_t, value_name = "WHO", env = "PLINTH_STATE_READS")]
    pub state_reads: StateReadsArg,
}

/// The values of `--state-reads`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum StateReadsArg {
    /// Whoever reaches a service that listens on loopback
    #[default]
    Loopback,
    /// Whoever reaches the service
    Anyone,
    /// The administrator alone
    Administrator,
}

impl From<StateReadsArg> for StateReads {
    fn from(arg: StateReadsArg) -> StateReads {
        match arg {
            StateReadsArg::Loopback => StateReads::Loopback,
            StateReadsArg::Anyone => StateReads::Anyone,
            StateReadsArg::Administrator => StateReads::Administrator,
        }
    }
}

/// The flags of every service.
#[derive(Args, Clone, Debug)]
pub struct ServiceArgs {
    /// The machine's name
    #[arg(long, env = "PLINTH_NODE")]
    pub node: NodeId,
    /// What the machine fails together with; by default itself
    #[arg(long, env = "PLINTH_ZONE")]
    pub zone: Option<Zone>,
    /// The service's name, such as storage-2
    #[arg(long, conflicts_with = "number")]
    pub name: Option<ServiceName>,
    /// The service's number among its kind on this node
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub number: u32,
    /// Where to listen, host:port; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", env = "PLINTH_BIND")]
    pub bind: String,
    /// Where others reach it, host or host:port; by default where it listens
    #[arg(long, value_name = "ADDRESS", env = "PLINTH_ADVERTISE")]
    pub advertise: Option<String>,
    /// Its directory, for a service that keeps something
    #[arg(long, value_name = "DIR", env = "PLINTH_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// The node's foreman, to make oneself known to
    #[arg(long, value_name = "URL", env = "PLINTH_FOREMAN")]
    pub foreman: Option<String>,
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Traces and logs.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// The flags of `plinth foreman`.
#[derive(Args, Clone, Debug)]
pub struct ForemanArgs {
    /// As for every service.
    #[command(flatten)]
    pub service: ServiceArgs,
    /// The kinds of worker it makes when a director asks, separated by commas; by default all that
    /// directors ask for. Leave out a kind whose workers something else starts: they announce
    /// themselves
    #[arg(long, value_delimiter = ',', value_name = "KINDS", value_parser = made_kind)]
    pub makes: Option<Vec<ServiceKind>>,
}

fn made_kind(text: &str) -> Result<ServiceKind, String> {
    let kinds = plinth_foreman::Config::KINDS;
    let kind = text.parse().ok().filter(|kind| kinds.contains(kind));
    kind.ok_or_else(|| {
        let names = kinds.map(ServiceKind::as_str).join(", ");
        format!("directors ask for no such workers; name some of {names}")
    })
}

/// The flags of `plinth node`.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// As for the foreman.
    #[command(flatten)]
    pub foreman: ForemanArgs,
    /// Workers that always run here, separated by commas. By default a coordinator where the
    /// cluster file names one, a director and a gateway
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub statics: Option<Vec<ServiceName>>,
    /// Run a coordinator here that the cluster file does not name, or that answers elsewhere now: it
    /// listens there, host:port, and others reach it there. A new one waits for `plinth members add`
    #[arg(long, value_name = "ADDRESS", env = "PLINTH_COORDINATOR")]
    pub coordinator: Option<String>,
    /// Where the node's gateway listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub gateway_bind: String,
    /// Stop everything when standard input, a pipe, is closed
    #[arg(long)]
    pub parent_pipe: bool,
    /// How long to wait for a directory that an ending process still has, in seconds
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub lock_patience: u64,
}

/// The flags of `plinth up`.
#[derive(Args, Clone, Debug)]
pub struct UpArgs {
    /// How many nodes; by default 3, or as many as the directory has
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub nodes: Option<u32>,
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = "plinth-data", env = "PLINTH_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Print one line of JSON when the cluster is ready
    #[arg(long)]
    pub json: bool,
    /// Return when the cluster is ready; `plinth down` stops it
    #[arg(long)]
    pub detach: bool,
    /// The first gateway's port; by default 4000, or the next free one
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub gateway_port: Option<u16>,
    /// The trace store's port; by default 16686, or the next free one
    #[arg(long, value_name = "PORT", conflicts_with = "otlp", value_parser = clap::value_parser!(u16).range(1..))]
    pub jaeger_port: Option<u16>,
    /// Run no trace store
    #[arg(long, conflicts_with_all = ["otlp", "jaeger_port"])]
    pub no_jaeger: bool,
    /// How long the cluster may take to become ready, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub ready_timeout: u64,
    /// Traces and logs. Without --otlp a trace store runs beside.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    /// Set by `--detach` for the process that stays
    #[arg(long, hide = true)]
    pub background: bool,
}

/// The flags of `plinth bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Where to send, separated by commas; connections are spread over them in turn
    #[arg(
        long,
        value_name = "URLS",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:4000",
        env = "PLINTH_URL"
    )]
    pub url: Vec<String>,
    /// What answers there
    #[arg(long, value_enum, default_value_t)]
    pub target: BenchTarget,
    /// Connections; one carries one request at a time
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// How long to measure, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub duration: f64,
    /// How long to send before measuring, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    pub warm_up: f64,
    /// Open loop: requests a second that are due whether answers come or not, latency counted from
    /// then. Without it a closed loop: each connection sends as soon as it has its answer
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// The share of linearizable reads of one key, in proportion to the other two
    #[arg(long, value_name = "WEIGHT", default_value_t = 1)]
    pub get: u32,
    /// The share of writes of one key
    #[arg(long, value_name = "WEIGHT", default_value_t = 1)]
    pub put: u32,
    /// The share of transactions: write one key if it has the value that is expected
    #[arg(long, value_name = "WEIGHT", default_value_t = 0)]
    pub transaction: u32,
    /// How many keys there are
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,
    /// Write every key once before anything else, so that reads find them
    #[arg(long)]
    pub fill: bool,
    /// The size of a value in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub value_size: usize,
    /// Choose keys by Zipf's law with this exponent, such as 0.99, and not uniformly
    #[arg(long, value_name = "EXPONENT")]
    pub zipf: Option<f64>,
    /// How long a request may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub timeout: f64,
    /// The same seed draws the same operations and keys
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Processes of the servers on this machine, separated by commas, to measure their processor time
    #[arg(long, value_name = "PIDS", value_delimiter = ',')]
    pub server_pids: Vec<u32>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `plinth bench` loads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BenchTarget {
    /// A gateway of Plinth's
    #[default]
    Plinth,
    /// etcd's HTTP/JSON gateway, version 3
    Etcd,
}

/// A time in seconds, up to a day.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0 to 86400".to_owned()),
    }
}

/// The flags of `plinth down`.
#[derive(Args, Clone, Debug)]
pub struct DownArgs {
    /// The directory of `plinth up`
    #[arg(long, value_name = "DIR", default_value = "plinth-data", env = "PLINTH_DATA_DIR")]
    pub data_dir: PathBuf,
}

/// The flags of `plinth dev`.
#[derive(Args, Clone, Debug)]
pub struct DevArgs {
    /// How many nodes; by default 3, or as many as the directory has
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub nodes: Option<u32>,
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = "plinth-dev", env = "PLINTH_DATA_DIR")]
    pub data_dir: PathBuf,
    /// The first gateway's port; by default 4000, or the next free one
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub gateway_port: Option<u16>,
    /// Print one line of JSON when the cluster is ready
    #[arg(long)]
    pub json: bool,
    /// How long the cluster may take to become ready, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub ready_timeout: u64,
    /// Traces and logs. Without --otlp a trace store runs beside.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// The flags of `plinth jaeger`.
#[derive(Args, Clone, Debug)]
pub struct JaegerArgs {
    /// Where to listen, host:port; it lets everybody in
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:16686")]
    pub bind: String,
}

/// The flags of `plinth init`.
#[derive(Args, Clone, Debug)]
pub struct InitArgs {
    /// Where the files are made: cluster.json, secret, admin-token
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// The coordinators, separated by commas, each as coordinator-1@node-1=http://host:port
    #[arg(long, required = true, value_delimiter = ',', value_name = "COORDINATORS")]
    pub coordinators: Vec<CoordinatorEntry>,
    /// The nodes that must all be heard before the cluster may be taken for a new one, separated by
    /// commas
    #[arg(long, required = true, value_delimiter = ',', value_name = "NODES")]
    pub nodes: Vec<NodeId>,
}

/// The flags of `plinth health`.
#[derive(Args, Clone, Debug)]
pub struct HealthArgs {
    /// The service
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4000", env = "PLINTH_URL")]
    pub url: String,
    /// How long it may take to answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub timeout: u64,
}

/// The flags of the commands that ask a cluster.
#[derive(Args, Clone, Debug)]
pub struct AskArgs {
    /// A gateway or coordinator
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:4000",
        env = "PLINTH_URL"
    )]
    pub url: String,
    /// File with the administrator's token, which changes need, and reading away from loopback
    #[arg(long, global = true, value_name = "FILE", env = "PLINTH_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// The flags of `plinth recover`.
#[derive(Args, Clone, Debug)]
pub struct RecoverArgs {
    /// Whom to ask, and how to print
    #[command(flatten)]
    pub ask: AskArgs,
    /// Only show what would be done, and what may be lost by it
    #[arg(long)]
    pub dry_run: bool,
    /// Do it only if this is still the plan, as --dry-run has shown it
    #[arg(long, value_name = "ID", conflicts_with = "dry_run")]
    pub plan: Option<String>,
}

/// The flags of `plinth config`.
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// As for every command that asks a cluster.
    #[command(flatten)]
    pub ask: AskArgs,
    /// What to do; by default show it
    #[command(subcommand)]
    pub action: Option<ConfigAction>,
}

/// What `plinth config` does beside showing.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigAction {
    /// Changes parameters, all of them or none
    Set(SetArgs),
    /// Raises the level that the configuration is written at, once every node runs a release that
    /// reads it. It never goes back
    Raise(RaiseArgs),
}

/// The flags of `plinth config set`.
#[derive(Args, Clone, Debug)]
pub struct SetArgs {
    /// Parameters with their new values, such as logs=5 replication=3
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = assignment)]
    pub assignments: Vec<(String, u64)>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// The flags of `plinth config raise`.
#[derive(Args, Clone, Debug)]
pub struct RaiseArgs {
    /// The format level, such as 3
    #[arg(value_name = "LEVEL")]
    pub level: u32,
    /// Nodes that may be silent, separated by commas: they never come back with an older release
    #[arg(long, value_delimiter = ',', value_name = "NODES")]
    pub without: Vec<NodeId>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// The flags of `plinth nodes`.
#[derive(Args, Clone, Debug)]
pub struct NodesArgs {
    /// As for every command that asks a cluster.
    #[command(flatten)]
    pub ask: AskArgs,
    /// What to do; by default show them
    #[command(subcommand)]
    pub action: Option<NodesAction>,
}

/// What `plinth nodes` does beside showing.
#[derive(Clone, Debug, Subcommand)]
pub enum NodesAction {
    /// Has everything on a node move to other nodes, and gives it nothing new
    Drain(OrderArgs),
    /// Uses a node again that is being drained, or was removed
    Use(OrderArgs),
    /// Removes a node that is drained
    Remove(OrderArgs),
}

/// The flags of an order about a node.
#[derive(Args, Clone, Debug)]
pub struct OrderArgs {
    /// The node, such as node-4
    #[arg(value_name = "NODE")]
    pub on: NodeId,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// The flags of `plinth members`.
#[derive(Args, Clone, Debug)]
pub struct MembersArgs {
    /// As for every command that asks a cluster.
    #[command(flatten)]
    pub ask: AskArgs,
    /// What to do; by default show them
    #[command(subcommand)]
    pub action: Option<MembersAction>,
}

/// What `plinth members` does beside showing.
#[derive(Clone, Debug, Subcommand)]
pub enum MembersAction {
    /// Lets a coordinator into the group that runs and waits for it
    Add {
        /// The coordinator, such as coordinator-1@node-4
        service: ServiceRef,
        /// Where it answers, host:port
        address: String,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Takes a coordinator out of the group
    Remove {
        /// The coordinator, such as coordinator-1@node-1
        service: ServiceRef,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

/// A parameter and its value.
fn assignment(text: &str) -> Result<(String, u64), String> {
    let parsed = text.split_once('=').and_then(|(name, value)| {
        let name = name.trim();
        (!name.is_empty()).then_some(())?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    });
    parsed.ok_or_else(|| "it must be a name and a whole number, such as logs=5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn parameters_are_set_by_name_and_number() {
        let parse = |arguments: &[&str]| {
            Cli::try_parse_from([&["plinth", "config", "set"], arguments].concat())
        };
        let parsed = parse(&["logs=5", "window_versions = 7000000", "--dry-run", "--json"]);
        let Command::Config(args) = parsed.unwrap().command else { panic!("another command") };
        let Some(ConfigAction::Set(set)) = args.action else { panic!("another action") };
        let expected = [("logs".to_owned(), 5), ("window_versions".to_owned(), 7_000_000)];
        assert_eq!((set.assignments.as_slice(), set.dry_run), (&expected[..], true));
        assert!(args.ask.json);
        for wrong in ["logs", "logs=", "logs=many", "=5", "logs=-1"] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn the_format_level_is_raised_to_a_number() {
        let parse = |arguments: &[&str]| {
            Cli::try_parse_from([&["plinth", "config", "raise"], arguments].concat())
        };
        let parsed = parse(&["3", "--without", "node-3,node-4", "--dry-run"]).unwrap();
        let Command::Config(args) = parsed.command else { panic!("another command") };
        let Some(ConfigAction::Raise(raise)) = args.action else { panic!("another action") };
        let without: Vec<&str> = raise.without.iter().map(NodeId::as_str).collect();
        assert_eq!((raise.level, raise.dry_run), (3, true));
        assert_eq!(without, ["node-3", "node-4"]);
        for wrong in [&[][..], &["-1"], &["newest"], &["3", "4"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_foreman_makes_only_what_directors_ask_for() {
        let parse = |makes| {
            let line =
                ["plinth", "foreman", "--node", "a", "--cluster-file", "f", "--makes", makes];
            Cli::try_parse_from(line)
        };
        let Command::Foreman(args) = parse("log,commit-proxy").unwrap().command else {
            panic!("another command")
        };
        assert_eq!(args.makes, Some(vec![ServiceKind::Log, ServiceKind::CommitProxy]));
        for wrong in ["coordinator", "director,log", "nonsense", ""] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains("sequencer, commit-proxy, resolver, log, storage"), "{error}");
        }
    }
}
