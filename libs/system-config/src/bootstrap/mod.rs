//! What a starting coordinator does: one pure decision over what it could learn.

mod status;

pub use status::{BootstrapSource, BootstrapStatus, Rejected};
