//! The client against a cluster that is played over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod connecting;
mod database;
mod exactly_once;
mod memory;
mod transactions;
mod world;
