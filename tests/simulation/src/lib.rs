//! The whole cluster in a simulation: the nodes of `plinth dev`, their services and machines as they
//! are in production, on a network, a clock and disks that one seed decides.
//!
//! A node is a host of the simulated network with one disk. Its foreman starts the node's services as
//! tasks of that host, so a node can lose its power or be cut off as a whole, and a service can be
//! killed alone.
//!
//! [`run`] is one history: the cluster starts, users work on it ([`workloads`]) while the [`nemesis`]
//! does what can befall machines and networks; then everything is healed, the cluster must converge,
//! serve, and have kept every promise ([`invariants`]). A history belongs in a process of its own; the
//! `simulate` executable runs one, or a campaign of many.

pub mod campaign;
mod cluster;
mod findings;
mod history;
mod inspector;
pub mod invariants;
pub mod knobs;
mod log;
pub mod marks;
pub mod nemesis;
mod overtaking;
pub mod record;
mod report;
mod run;
pub mod scale;
mod scene;
mod user;
pub mod workloads;

pub use cluster::{Cluster, Node, Shape};
pub use findings::{Findings, Violation};
pub use history::{History, Moment, Read, Sight, Told, Write};
pub use log::log_if_asked;
pub use report::Report;
pub use run::{Setup, run};
pub use scene::{Scene, Stage, Weather};
pub use user::{Fate, Gateway, User};
pub use workloads::Workloads;
