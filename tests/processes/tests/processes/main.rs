//! Clusters of real processes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bootstrap;
mod clients;
mod configuration;
mod disks;
mod durability;
mod endings;
mod examples;
mod failures;
mod golden;
mod histories;
mod interactive;
mod lifecycle;
mod members;
mod nodes;
mod parameters;
mod recover;
mod replicas;
mod requests;
mod soak;
mod traces;
mod transactions;
mod usage;

type Outcome = anyhow::Result<()>;
