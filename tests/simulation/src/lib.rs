//! The whole cluster in a simulation: the nodes of `plinth dev`, their services and machines as they
//! are in production, on a network, a clock and disks that one seed decides.
//!
//! A node is a host of the simulated network with one disk. Its foreman starts the node's services as
//! tasks of that host, so a node can lose its power or be cut off as a whole, and a service can be
//! killed alone.

mod cluster;
mod log;
mod user;

pub use cluster::{Cluster, Node, Shape};
pub use log::log_if_asked;
pub use user::{Fate, Gateway, User};
