//! What a starting coordinator does: one pure decision over what it could learn.
//!
//! Every input is *has*, *has none* or *unknown*. What did not answer in time is unknown, and
//! unknown never counts as none: whatever throws something away or starts something new asks for
//! answers, not for silence.
//!
//! [`decide`] first looks for the coordinators' **leading group**: of all Raft groups heard of, the
//! one with the highest epoch. A re-founded group starts [`EPOCH_GAP`] epochs above everything
//! heard, so it leads over the one it replaced. A coordinator of the leading group goes on in it;
//! another one joins it if a majority is alive. Where no majority can come together any more, or
//! nobody has a group, the configurations that storages, logs and surviving coordinators keep
//! decide; only where nobody can have any may the cluster start with defaults.
//!
//! A coordinator with a Raft store of its own in the leading group runs it while it waits, and
//! answers its peers; it only appoints nobody. One without must not vote before the decision says
//! under which identity.

mod decide;
mod decision;
mod inputs;
mod logs;
mod manifests;
mod options;
mod refound;
mod status;
mod survey;

pub use decide::decide;
pub use decision::{Decision, Floor, Keeper, Missing, Obstacle, Outcome, apart};
pub use inputs::{
    ForemanReport, Held, Inputs, Kept, Known, Manifest, RaftReport, RaftState, WorkerReport,
};
pub use options::{Doubt, NoOption, RecoveryOption, recovery_option};
pub use status::{BootstrapSource, BootstrapStatus, Rejected};

/// How many epochs above everything heard a group starts that could not ask a predecessor, at least; it
/// is less than twice as many, drawn at random.
pub const EPOCH_GAP: u64 = 1 << 20;
/// How many version gaps above everything heard its versions start.
pub const VERSION_GAPS: u64 = 1_000;
