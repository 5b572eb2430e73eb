//! The shared persistence library: what a cluster's configuration is, how it is written, under
//! which keys, how Pids map to (service name, node) pairs, and how a coordinator decides what to
//! start from. No I/O, no async.

pub mod bootstrap;
mod change;
mod codec;
mod config;
mod directory;
mod envelope;
pub mod keys;
mod last_recovery;
mod members;
mod migration;
mod parameters;
mod phases;
mod raising;
mod recorded;
mod rows;
mod services;
mod shards;
mod standing;
mod validation;

pub use bootstrap::{BootstrapSource, BootstrapStatus, Rejected};
pub use change::{ChangeError, Changed, NodeSupply, Proposal, Supply, WORKERS_PER_NODE};
pub use codec::{
    DecodeError, EncodeError, ShardMismatch, Stored, decode, decode_or_damage, decode_stored,
    encode, encode_stored,
};
pub use config::{
    Coordinator, JoiningMember, Layout, LogEntry, NodeEntry, Parameters, Policies, Recorded,
    ResolverEntry, Service, ShardMap, ShardSummary, SpreadPolicy, StorageMember, StorageTeam,
    SystemConfig,
};
pub use directory::{Directory, UnknownPid};
pub use envelope::{Envelope, EnvelopeError};
pub use last_recovery::{LastRecovery, PhaseDuration};
pub use members::{MembersError, MembersStep, check_majority, names_of};
pub use migration::{FORMAT_LEVEL, MEMBERS_LEVEL, MigrationError};
pub use parameters::{Applied, Parameter, ParameterError};
pub use phases::{RecoveryPhase, UnknownPhase};
pub use raising::{LevelError, NotReading, Readers, UNSAID_LEVEL};
pub use recorded::Stamp;
pub use rows::{recorded_from_rows, shards_from_rows, system_mutations, system_rows};
pub use shards::ShardProblem;
pub use standing::{Standing, StandingError};
pub use validation::{Invalid, Problem, Shortfall};
