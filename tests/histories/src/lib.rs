//! Histories of transactions: users who make them, and checks of what they saw.
//!
//! [`checks`] are pure functions of a history; each names what is wrong. [`workloads`] are what users
//! do, over whatever [`users::World`] there is: the simulation's network, or that of real processes.
//! They leave everything in a [`Journal`], which [`examine`] looks through at the end.

mod anomaly;
pub mod checks;
mod examine;
mod history;
pub mod users;
pub mod workloads;

pub use anomaly::Anomaly;
pub use examine::{Marks, examine, look};
pub use history::{Fate, Journal, Moment, Step, Transaction, settle};
